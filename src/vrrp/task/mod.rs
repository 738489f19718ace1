//! The driver of one virtual router: waits are the keeper's, decisions are the machine's, what is
//! done about them stands here. No policy.
//!
//! A router has one machine and at least one member: a wire with addresses of its own. Several are
//! a sync-group: an accepted advert on any wire feeds the machine, whatever it decides is done on
//! all of them, and what one of them lacks (its link, its address, the kernel's consent) all lack.

mod event;
mod link;
mod member;
mod status;
mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use event::{OpenError, RouterEvent};
use member::Member;

use super::fsm::{Action, Actions, Input, Machine, Settings};
use super::stamp::Resume;
use super::timing;
use super::validate::Accepted;
use crate::config::local::LocalVip;
use crate::ipc::message::VrrpState;
use crate::net::netlink::{self, Netlink};
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
/// Rejected packets are only counted: so many are looked at, so often. The rest is the kernel's
/// to drop, so that a flood costs the keeper nothing.
const DIAGNOSTIC_READS_MAX: usize = 64;
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
    machine: Machine,
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
        let first = same_nodes(members)?;
        let machine = Machine::new(settings(first), now);
        let opened = members
            .iter()
            .map(|local| Member::open(local, Rc::clone(&netlink)));
        let members = opened.collect::<Result<Vec<_>, _>>()?;
        let mut router = Self {
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
        };
        router.begin(now, resume.as_ref());
        Ok(router)
    }

    fn begin(&mut self, now: Instant, resume: Option<&Resume>) {
        let own = self.machine.settings();
        let fresh = resume.is_some_and(|resume| {
            let wait = self.machine.own_active_down_interval();
            resume.is_fresh(wait, own.interval.duration())
        });
        let owner = own.base == Priority::OWNER;
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
            self.receive_all(now, Side::Rejected, DIAGNOSTIC_READS_MAX);
            self.find_silent_wires(now);
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

    /// Preempting is allowed again after a failover.
    pub fn release_hold(&mut self, now: Instant) {
        self.run(now, Input::ReleaseHold);
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
    }

    /// Whether it has left and the addresses are gone.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.machine.is_released() && self.release_at.is_none()
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

    fn receive_all(&mut self, now: Instant, side: Side, most: usize) {
        for place in 0..self.members.len() {
            self.receive(now, place, side, most);
        }
    }

    fn receive(&mut self, now: Instant, place: usize, side: Side, most: usize) {
        for _ in 0..most {
            let Some(member) = self.members.get_mut(place) else {
                return;
            };
            let received = match member.wire.read(&member.rules, side) {
                Ok(None) => return,
                Ok(Some(received)) => received,
                Err(error) => {
                    member.kernel_error(now, "receive", &error);
                    return;
                }
            };
            if let Some(skew_ms) = received.skew_ms {
                member.skew(now, received.source, skew_ms);
            }
            match (received.verdict, side) {
                (Ok(advert), Side::Matching) => {
                    member.note(now, &advert);
                    self.hear(now, advert);
                }
                // Came in before the filter was attached; never acted upon from this side.
                (Ok(_), Side::Rejected) => {}
                (Err(reason), Side::Matching | Side::Rejected) => {
                    member.reject(now, reason, received.source);
                }
            }
        }
    }

    /// The machine knows each node by one address, so that the same node is the Active on every
    /// wire, and a tie of two Actives ends the same way on each.
    fn hear(&mut self, now: Instant, mut advert: Accepted) {
        if let Some(known_as) = self.others.get(advert.peer) {
            advert.sender = *known_as;
        }
        self.run(now, Input::Advert(advert));
    }

    /// A Backup that hears the Active on one wire of its group but not on another stays where it
    /// is, and says which wire it is.
    fn find_silent_wires(&mut self, now: Instant) {
        let settings = self.machine.settings();
        let interval = self.machine.interval();
        let wait = timing::active_down_interval(settings.version, interval, Priority::LOWEST);
        let active = self.machine.active();
        let active = self.others.iter().position(|other| Some(*other) == active);
        let watches = self.state() == VrrpState::Backup
            && now.saturating_duration_since(self.since) > wait
            && self.members.len() > 1;
        for member in &mut self.members {
            let heard = active.and_then(|place| member.peers.get(place)?.last);
            let is_new = heard.is_some_and(|at| now.saturating_duration_since(at) <= wait);
            let silent = watches && active.is_some() && !is_new;
            if silent && !member.silent {
                let vip = &member.local.vip.name;
                let interface = &member.local.interface;
                tracing::warn!(%vip, %interface, "adverts of the active node come on another wire of the group only");
            }
            member.silent = silent;
        }
    }

    fn run(&mut self, now: Instant, input: Input) {
        let from = self.machine.state();
        let actions = self.machine.handle(now, input);
        if self.carry_out(now, actions).is_err() {
            self.give_way(now, Input::AddressFailed);
        } else if std::mem::take(&mut self.not_renewed) {
            self.give_way(now, Input::NotRenewed);
        }
        if let Some(worked) = self.round.take()
            && worked == self.machine.is_mute()
        {
            tracing::warn!(vip = %self.name(), mute = !worked, "whether adverts can be sent has changed");
            self.give_way(now, Input::Mute(!worked));
        }
        self.note_change(now, from);
    }

    /// The kernel refused to let us hold an address: logged and counted already.
    fn give_way(&mut self, now: Instant, refusal: Input) {
        let actions = self.machine.handle(now, refusal);
        if self.carry_out(now, actions).is_err() {
            tracing::debug!(vip = %self.name(), "the kernel refused twice");
        }
    }

    fn note_change(&mut self, now: Instant, from: VrrpState) {
        let to = self.machine.state();
        if from == to {
            return;
        }
        let elapsed = now.saturating_duration_since(self.since);
        self.since = now;
        let reason = self.machine.reason();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        for member in &mut self.members {
            member.counters.became_active += u64::from(to == VrrpState::Active);
            member.counters.left_active += u64::from(from == VrrpState::Active);
            tracing::info!(
                vip = %member.local.vip.name,
                vrid = %member.rules.vrid,
                interface = %member.local.interface,
                ?from,
                ?to,
                reason,
                elapsed_ms,
                "state changed"
            );
        }
        self.tell(RouterEvent::Changed { from, to, reason });
    }

    fn tell(&mut self, event: RouterEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Carries out actions in order; stops where the kernel refuses to let us hold an address.
    fn carry_out(&mut self, now: Instant, actions: Actions) -> io::Result<()> {
        for action in actions.iter() {
            match action {
                Action::Claim => {
                    self.release_at = None;
                    self.claim(now)?;
                }
                Action::Renew => self.renew(now)?,
                Action::Restore => {
                    for member in &mut self.members {
                        member.counters.restored += 1;
                    }
                    self.renew(now)?;
                }
                Action::Release { graceful } => self.release(now, graceful),
                Action::Advertise(priority) => {
                    let all = self.members.iter_mut();
                    let worked =
                        all.fold(false, |any, member| member.advertise(now, priority) | any);
                    self.round = Some(worked);
                }
                Action::Garp(frames) => {
                    for member in &mut self.members {
                        member.announce(now, frames);
                    }
                }
                Action::Probe => self.tell(RouterEvent::Probe),
                Action::IgnoredResign => {
                    if let Some(member) = self.members.first_mut() {
                        member.counters.ignored_resigns += 1;
                    }
                    tracing::debug!(vip = %self.name(), "resignation of a node that is not active");
                }
                Action::FailedOver { taken } => self.tell(RouterEvent::FailedOver { taken }),
            }
        }
        Ok(())
    }

    /// All addresses or none: the first refusal ends it.
    fn claim(&mut self, now: Instant) -> io::Result<()> {
        for member in &mut self.members {
            if let Err(error) = member.wire.hold() {
                member.kernel_error(now, "hold the address", &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What passes by itself is no reason to give an address up that is still there.
    fn renew(&mut self, now: Instant) -> io::Result<()> {
        for member in &mut self.members {
            if let Err(error) = member.renew() {
                member.kernel_error(now, "renew the address", &error);
                if !netlink::is_passing(&error) {
                    return Err(error);
                }
                self.not_renewed = true;
            }
        }
        Ok(())
    }

    fn release(&mut self, now: Instant, graceful: bool) {
        let addresses = self.members.iter().flat_map(Member::addresses).collect();
        self.tell(RouterEvent::Releasing(addresses));
        if graceful {
            self.release_at = Some(now + RELEASE_DELAY);
        } else {
            self.release_now(now);
        }
    }

    fn release_now(&mut self, now: Instant) {
        self.release_at = None;
        for member in &mut self.members {
            member.release(now);
        }
        self.tell(RouterEvent::Released);
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
        alone: vip.nodes.len() < 2,
    }
}
