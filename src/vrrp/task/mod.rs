//! The driver of one virtual router: waits are the keeper's, decisions are the machine's, what is
//! done about them stands here. No policy.
//!
//! A router has one machine and at least one member: a wire with addresses of its own. Several are
//! a sync-group: an accepted advert on any wire feeds the machine, whatever it decides is done on
//! all of them, and what one of them lacks (its link, its address, the kernel's consent) all lack.

mod act;
mod event;
mod link;
mod member;
mod receive;
mod reload;
mod status;
mod watch;
mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use event::{OpenError, RouterEvent};
use member::Member;

use super::fsm::{Action, Actions, Input, Machine, Settings, StandDown};
use super::recorded::RecordedMachine;
use super::stamp::Resume;
use crate::config::local::LocalVip;
use crate::ipc::message::VrrpState;
use crate::net::netlink::Netlink;
use crate::net::vrrp_socket::Side;
use crate::units::Priority;

pub use super::fsm::NodeHealth;

/// The request socket that all routers of a keeper share.
pub type SharedNetlink = Rc<RefCell<Netlink>>;

/// Between the news that the addresses leave and their removal: time to reset connections.
const RELEASE_DELAY: Duration = Duration::from_millis(15);
/// Packets read in one call, so that no socket can keep the loop.
const READS_MAX: usize = 32;
/// Packets read before a timer is believed: all that the socket buffer can hold of them in
/// practice, and a bound.
const DRAIN_MAX: usize = 512;
/// Between two looks at what is for people only.
const DIAGNOSTIC_SPACING: Duration = Duration::from_millis(500);
/// Events kept for the keeper; it takes them after each call, so there are never many.
const EVENTS_MAX: usize = 64;
/// How much later than a holder a Backup counts its own recovery, until told the check interval.
const RECOVERY_DELAY: Duration = Duration::from_secs(2);

/// One virtual router on this node.
#[derive(Debug)]
pub struct VirtualRouter {
    /// At least one.
    members: Vec<Member>,
    machine: RecordedMachine,
    /// The other nodes' addresses on the first wire: what the machine calls them, whichever wire
    /// they are heard on.
    others: Vec<IpAddr>,
    /// What the machine was told of the wires: whether this node takes part.
    usable: bool,
    since: Instant,
    release_at: Option<Instant>,
    look_at: Instant,
    /// Whether a send of the last round of adverts worked on any wire, until the machine has been
    /// told.
    round: Option<bool>,
    /// The kernel was too busy for the last renewal.
    not_renewed: bool,
    events: VecDeque<RouterEvent>,
}

impl VirtualRouter {
    /// Opens sockets, deals with addresses a previous process left, and takes part. `members` are
    /// the `[vip.NAME]`s that move together, most often one. With `resume` it goes on as Active if
    /// the previous keeper advertised a moment ago and nobody else does; otherwise left-over
    /// addresses are removed.
    ///
    /// # Errors
    /// [`OpenError`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a stamp serves for one start and is used up by it"
    )]
    pub fn open(
        members: &[LocalVip],
        netlink: SharedNetlink,
        now: Instant,
        resume: Option<Resume>,
    ) -> Result<Self, OpenError> {
        let mut router = Self::opened(members, &netlink, now)?;
        router.begin(now, resume.as_ref());
        Ok(router)
    }

    /// With its sockets, before it takes part.
    fn opened(
        members: &[LocalVip],
        netlink: &SharedNetlink,
        now: Instant,
    ) -> Result<Self, OpenError> {
        let first = same_nodes(members)?;
        let machine = RecordedMachine::new(settings(first), now);
        let opened = members
            .iter()
            .map(|local| Member::open(local, Rc::clone(netlink)));
        let members = opened.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            others: others(&members),
            usable: members
                .iter()
                .all(|member| member.attachment.is_usable(now)),
            members,
            machine,
            since: now,
            release_at: None,
            look_at: now + DIAGNOSTIC_SPACING,
            round: None,
            not_renewed: false,
            events: VecDeque::with_capacity(EVENTS_MAX),
        })
    }

    fn begin(&mut self, now: Instant, resume: Option<&Resume>) {
        let own = self.machine.settings();
        let fresh = resume.is_some_and(|resume| {
            let wait = self.machine.own_active_down_interval();
            resume.is_fresh(wait, own.interval.duration())
        });
        let owner = own.base == Priority::OWNER;
        if self.usable {
            self.greet(now);
        }
        if fresh && self.usable && !self.another_is_active() {
            self.run(now, Input::Resume);
            self.remove_strays(now);
            return;
        }
        if !owner && self.remove_strays(now) {
            let name = self.name();
            tracing::warn!(vip = %name, "removing a left-over address");
            self.release(now, true);
        }
        if self.usable {
            self.run(now, Input::Up);
        } else {
            self.note_cut_off();
            self.run(now, Input::Down);
        }
    }

    fn greet(&mut self, now: Instant) {
        for member in &mut self.members {
            member.greet(now);
        }
    }

    fn another_is_active(&mut self) -> bool {
        let all = self.members.iter_mut();
        all.fold(false, |heard, member| member.another_is_active() | heard)
    }

    /// Whether one of our addresses, as it should be, is left.
    fn remove_strays(&mut self, now: Instant) -> bool {
        let all = self.members.iter_mut();
        all.fold(false, |left, member| member.remove_strays(now) | left)
    }

    /// The first member's name, or nothing.
    fn name(&self) -> &str {
        let first = self.members.first();
        first.map_or("", |member| member.local.vip.name.as_str())
    }

    /// The descriptors to wait for, level-triggered, one per member. Each stays the same until
    /// [`RouterEvent::Reopened`] with its position.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().map(|member| member.wire.fd())
    }

    /// Reads what is there from one of [`fds`](Self::fds), a bounded amount.
    pub fn on_readable(&mut self, fd: RawFd, now: Instant) {
        let is = |member: &Member| member.wire.fd().as_raw_fd() == fd;
        if let Some(place) = self.members.iter().position(is) {
            self.receive(now, place, Side::Matching, READS_MAX);
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [
            self.machine.deadline(),
            self.release_at,
            self.attachment_deadline(),
            Some(self.look_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed. The sockets are drained before the machine is asked, so that a late timer
    /// decides nothing that an advert has already decided.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.release_at.is_some_and(|at| at <= now) {
            self.release_now(now);
        }
        self.attachment_due(now);
        let due = |machine: &Machine| machine.deadline().is_some_and(|at| at <= now);
        if due(&self.machine) {
            self.receive_all(now, Side::Matching, DRAIN_MAX);
        }
        if due(&self.machine) {
            self.run(now, Input::Timer);
        }
        if self.look_at <= now {
            self.look_at = now + DIAGNOSTIC_SPACING;
            self.look_around(now);
        }
    }

    /// Tells it of all virtual routers of this node: adverts of another one on the same LAN are
    /// none of its business, not even as rejected packets.
    pub fn set_siblings(&mut self, now: Instant, all: &[LocalVip]) {
        for member in &mut self.members {
            let own = &member.local;
            let near = |other: &&LocalVip| {
                other.interface == own.interface
                    && other.source.is_ipv4() == own.source.is_ipv4()
                    && other.vip.vrid != own.vip.vrid
            };
            member.siblings = all
                .iter()
                .filter(near)
                .map(|other| other.vip.vrid.get())
                .collect();
            member.pass_over_siblings(now);
        }
    }

    /// A new verdict about this node.
    pub fn set_health(&mut self, now: Instant, health: NodeHealth) {
        self.run(now, Input::Health(health));
    }

    /// How much later than a holder a Backup counts its own recovery: the check interval of what
    /// it tracks. Default 2 s.
    pub fn set_recovery_delay(&mut self, delay: Duration) {
        self.machine.set_recovery_delay(delay);
    }

    /// Leaves for good: make before break.
    pub fn resign(&mut self, now: Instant) {
        self.run(now, Input::Resign);
    }

    /// Leaves in favour of another node, see [`Input::Failover`]; answered by one
    /// [`RouterEvent::FailedOver`], at once unless Active.
    pub fn failover(&mut self, now: Instant, hold: Option<Duration>) {
        self.run(now, Input::Failover { hold });
    }

    /// Preempting is allowed again after a failover, also one that is under way; whether it was
    /// not, or would not have been.
    pub fn release_hold(&mut self, now: Instant) -> bool {
        let held = self.machine.hold_until().is_some() || self.machine.will_stand_down();
        self.run(now, Input::ReleaseHold);
        held
    }

    /// Takes up the hold that a previous keeper was under. Who holds the address is under none.
    pub fn hold_back(&mut self, stand_down: StandDown) {
        self.machine.hold_back(stand_down);
    }

    /// A peer says whether it hears our adverts, see [`Input::Unheard`].
    pub fn set_unheard(&mut self, now: Instant, unheard: bool) {
        self.run(now, Input::Unheard(unheard));
    }

    /// Leaves for good without waiting for a successor: whatever is held is gone when this returns.
    pub fn give_up(&mut self, now: Instant) {
        self.run(now, Input::Resign);
        self.run(now, Input::Down);
        if self.release_at.is_some() {
            self.release_now(now);
        }
        for member in &mut self.members {
            if let Err(error) = member.wire.retire() {
                member.kernel_error(now, "remove the macvlan device", &error);
            }
        }
    }

    /// The names of the devices that were made for its addresses.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        let all = self.members.iter();
        all.filter_map(|member| member.wire.device())
    }

    /// Whether it has left and the addresses are gone.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.machine.is_released() && self.release_at.is_none()
    }

    /// What this node is called, by its name or else its address.
    #[must_use]
    pub fn own_name(&self) -> Option<String> {
        let local = &self.members.first()?.local;
        let named = local.vip.nodes.get(local.me)?.name.clone();
        Some(named.unwrap_or_else(|| local.source.to_string()))
    }

    /// What its machine was told of late, as a recording has it.
    #[must_use]
    pub fn tape(&self, now: Instant) -> Vec<u8> {
        self.machine.tape(now)
    }

    /// The oldest event not taken yet.
    pub fn pop_event(&mut self) -> Option<RouterEvent> {
        self.events.pop_front()
    }

    /// Whether the addresses are on this node.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.machine.holds() || self.release_at.is_some()
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> VrrpState {
        self.machine.state()
    }
}

/// The first member of a group whose members list the same nodes in the same order.
fn same_nodes(members: &[LocalVip]) -> Result<&LocalVip, OpenError> {
    let first = members.first().ok_or(OpenError::Empty)?;
    let alike =
        |local: &&LocalVip| local.me == first.me && local.vip.nodes.len() == first.vip.nodes.len();
    match members.iter().find(|local| !alike(local)) {
        None => Ok(first),
        Some(other) => Err(OpenError::Group {
            vip: other.vip.name.clone(),
            first: first.vip.name.clone(),
        }),
    }
}

/// The other nodes as the first member calls them.
fn others(members: &[Member]) -> Vec<IpAddr> {
    let first = members.first();
    first.map_or_else(Vec::new, |member| {
        member.others().map(|node| node.address).collect()
    })
}

fn settings(local: &LocalVip) -> Settings {
    let vip = &local.vip;
    let base = vip
        .nodes
        .get(local.me)
        .map_or(Priority::LOWEST, |node| node.priority);
    Settings {
        version: vip.version,
        me: local.source,
        base,
        interval: vip.advert_interval,
        spacing: vip.advert_spacing,
        preempt: vip.preempt,
        lease: vip.lease,
        garp: vip.garp.clone(),
        recovery_delay: RECOVERY_DELAY,
        alone: vip.nodes.len() < 2 && vip.allow_from.is_empty(),
    }
}
