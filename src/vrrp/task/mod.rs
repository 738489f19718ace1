//! The driver of one virtual router: waits are the keeper's, decisions are the machine's, what is
//! done about them stands here. No policy.

mod event;
mod link;
mod status;
mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use event::{OpenError, RouterEvent};
use link::Attachment;
use wire::Wire;

use super::counters::{Counters, Warnings};
use super::fsm::{Action, Actions, Input, Machine, Settings};
use super::packet::Reject;
use super::stamp::Resume;
use super::validate::{Accepted, Rules};
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

/// What is known of another node.
#[derive(Debug, Clone, Copy, Default)]
struct PeerHeard {
    last: Option<Instant>,
    priority: Option<u8>,
    adverts: u64,
}

/// One virtual router on this node.
#[derive(Debug)]
pub struct VirtualRouter {
    local: LocalVip,
    rules: Rules,
    machine: Machine,
    wire: Wire,
    attachment: Attachment,
    since: Instant,
    release_at: Option<Instant>,
    look_at: Instant,
    last_advert: Option<Instant>,
    /// Whether a send of the last round of adverts worked, until the machine has been told.
    round: Option<bool>,
    /// The kernel was too busy for the last renewal.
    not_renewed: bool,
    peers: Vec<PeerHeard>,
    counters: Counters,
    warnings: Warnings,
    events: VecDeque<RouterEvent>,
}

impl VirtualRouter {
    /// Opens sockets, deals with addresses a previous process left, and takes part. With `resume`
    /// it goes on as Active if the previous keeper advertised a moment ago and nobody else does;
    /// otherwise left-over addresses are removed.
    ///
    /// # Errors
    /// [`OpenError`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a stamp serves for one start and is used up by it"
    )]
    pub fn open(
        local: &LocalVip,
        netlink: SharedNetlink,
        now: Instant,
        resume: Option<Resume>,
    ) -> Result<Self, OpenError> {
        let rules = Rules::new(local).map_err(|source| OpenError::Family {
            vip: local.vip.name.clone(),
            source,
        })?;
        let (wire, link_up) = Wire::open(local, &rules, netlink)?;
        let machine = Machine::new(settings(local), now);
        let mut router = Self {
            local: local.clone(),
            peers: vec![PeerHeard::default(); rules.peers.len()],
            rules,
            machine,
            wire,
            attachment: Attachment::new(link_up),
            since: now,
            release_at: None,
            look_at: now + DIAGNOSTIC_SPACING,
            last_advert: None,
            round: None,
            not_renewed: false,
            counters: Counters::default(),
            warnings: Warnings::default(),
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
        if fresh && self.attachment.is_usable() && !self.another_is_active() {
            self.run(now, Input::Resume);
            self.remove_strays(now);
            return;
        }
        if !owner && self.remove_strays(now) {
            let name = &self.local.vip.name;
            tracing::warn!(vip = %name, "removing a left-over address");
            self.release(now, true);
        }
        if self.attachment.is_usable() {
            self.run(now, Input::Up);
        }
    }

    /// Whether an advert of another Active waits in the socket.
    fn another_is_active(&mut self) -> bool {
        let mut heard = false;
        for _ in 0..DRAIN_MAX {
            let Ok(Some(received)) = self.wire.read(&self.rules, Side::Matching) else {
                break;
            };
            heard |= received.verdict.is_ok_and(|advert| advert.priority > 0);
        }
        heard
    }

    /// Whether one of our addresses, as it should be, is left.
    fn remove_strays(&mut self, now: Instant) -> bool {
        self.wire.remove_strays().unwrap_or_else(|error| {
            self.kernel_error(now, "remove left-over addresses", &error);
            false
        })
    }

    /// The descriptor to wait for; level-triggered. It stays the same until
    /// [`RouterEvent::Reopened`].
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 1] {
        [self.wire.fd()]
    }

    /// Reads what is there from one of [`fds`](Self::fds), a bounded amount.
    pub fn on_readable(&mut self, fd: RawFd, now: Instant) {
        if fd == self.wire.fd().as_raw_fd() {
            self.receive(now, Side::Matching, READS_MAX);
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [
            self.machine.deadline(),
            self.release_at,
            self.attachment.deadline(),
            Some(self.look_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed. The socket is drained before the machine is asked, so that a late timer
    /// decides nothing that an advert has already decided.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.release_at.is_some_and(|at| at <= now) {
            self.release_now(now);
        }
        self.attachment_due(now);
        let due = |machine: &Machine| machine.deadline().is_some_and(|at| at <= now);
        if due(&self.machine) {
            self.receive(now, Side::Matching, DRAIN_MAX);
        }
        if due(&self.machine) {
            self.run(now, Input::Timer);
        }
        if self.look_at <= now {
            self.look_at = now + DIAGNOSTIC_SPACING;
            self.receive(now, Side::Rejected, DIAGNOSTIC_READS_MAX);
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

    fn receive(&mut self, now: Instant, side: Side, most: usize) {
        for _ in 0..most {
            let received = match self.wire.read(&self.rules, side) {
                Ok(None) => return,
                Ok(Some(received)) => received,
                Err(error) => {
                    self.kernel_error(now, "receive", &error);
                    return;
                }
            };
            match (received.verdict, side) {
                (Ok(advert), Side::Matching) => self.accept(now, advert),
                // Came in before the filter was attached; never acted upon from this side.
                (Ok(_), Side::Rejected) => {}
                (Err(reason), Side::Matching | Side::Rejected) => {
                    self.reject(now, reason, received.source);
                }
            }
        }
    }

    fn reject(&mut self, now: Instant, reason: Reject, source: Option<Ipv4Addr>) {
        self.counters.reject(reason);
        if self.warnings.about_reject(reason, now) {
            let vrid = self.rules.vrid;
            let reason = reason.word();
            let peer = source.map(tracing::field::display);
            tracing::warn!(%vrid, peer, reason, "packet rejected");
        }
    }

    fn accept(&mut self, now: Instant, advert: Accepted) {
        let vrid = self.rules.vrid;
        tracing::trace!(%vrid, peer = %advert.sender, priority = advert.priority, "advert received");
        self.counters.adverts_received += 1;
        self.counters.resigns_received += u64::from(advert.priority == 0);
        if let Some(peer) = self.peers.get_mut(advert.peer) {
            peer.last = Some(now);
            peer.priority = Some(advert.priority);
            peer.adverts += 1;
        }
        if !advert.interval_as_sent {
            self.counters.bounded_intervals += 1;
            // Where that leads to a take-over each time, this line says why.
            if self.warnings.about_interval(now) {
                tracing::warn!(%vrid, peer = %advert.sender, "peer advertises a longer interval than is learned");
            }
        }
        if !advert.same_addresses {
            self.counters.other_addresses += 1;
            if self.warnings.about_addresses(now) {
                tracing::warn!(%vrid, peer = %advert.sender, "peer advertises other addresses");
            }
        }
        self.run(now, Input::Advert(advert));
    }

    fn run(&mut self, now: Instant, input: Input) {
        let from = self.machine.state();
        let actions = self.machine.handle(now, input);
        if let Err(error) = self.carry_out(now, actions) {
            self.kernel_error(now, "hold the address", &error);
            self.give_way(now, Input::AddressFailed);
        } else if std::mem::take(&mut self.not_renewed) {
            self.give_way(now, Input::NotRenewed);
        }
        if let Some(worked) = self.round.take()
            && worked == self.machine.is_mute()
        {
            tracing::warn!(vrid = %self.rules.vrid, mute = !worked, "whether adverts can be sent has changed");
            self.give_way(now, Input::Mute(!worked));
        }
        self.note_change(now, from);
    }

    /// The kernel refused to let us hold an address.
    fn give_way(&mut self, now: Instant, refusal: Input) {
        let actions = self.machine.handle(now, refusal);
        if let Err(error) = self.carry_out(now, actions) {
            self.kernel_error(now, "hold the address", &error);
        }
    }

    fn note_change(&mut self, now: Instant, from: VrrpState) {
        let to = self.machine.state();
        if from == to {
            return;
        }
        let elapsed = now.saturating_duration_since(self.since);
        self.since = now;
        self.counters.became_active += u64::from(to == VrrpState::Active);
        self.counters.left_active += u64::from(from == VrrpState::Active);
        let reason = self.machine.reason();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            vip = %self.local.vip.name,
            vrid = %self.rules.vrid,
            interface = %self.local.interface,
            ?from,
            ?to,
            reason,
            elapsed_ms,
            "state changed"
        );
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
                    self.wire.hold()?;
                }
                // It would become the primary address of its subnet, and the node's own go with it.
                Action::Renew if self.attachment.lacks_source() => {}
                Action::Renew => self.renew(now)?,
                Action::Restore => {
                    self.counters.restored += 1;
                    self.renew(now)?;
                }
                Action::Release { graceful } => self.release(now, graceful),
                Action::Advertise(priority) => self.advertise(now, priority),
                Action::Garp(frames) => match self.wire.announce(frames) {
                    Ok(sent) => self.counters.garps_sent += sent,
                    Err(error) => self.kernel_error(now, "send gratuitous ARP", &error),
                },
                Action::Probe => self.tell(RouterEvent::Probe),
                Action::IgnoredResign => {
                    self.counters.ignored_resigns += 1;
                    tracing::debug!(vrid = %self.rules.vrid, "resignation of a node that is not active");
                }
                Action::FailedOver { taken } => self.tell(RouterEvent::FailedOver { taken }),
            }
        }
        Ok(())
    }

    /// What passes by itself is no reason to give an address up that is still there.
    fn renew(&mut self, now: Instant) -> io::Result<()> {
        match self.wire.hold() {
            Err(error) if netlink::is_passing(&error) => {
                self.kernel_error(now, "renew the address", &error);
                self.not_renewed = true;
                Ok(())
            }
            result => result,
        }
    }

    fn release(&mut self, now: Instant, graceful: bool) {
        let addresses = self.local.vip.addresses.iter().map(|vip| vip.ip).collect();
        self.tell(RouterEvent::Releasing(addresses));
        if graceful {
            self.release_at = Some(now + RELEASE_DELAY);
        } else {
            self.release_now(now);
        }
    }

    fn release_now(&mut self, now: Instant) {
        self.release_at = None;
        if let Err(error) = self.wire.release() {
            self.kernel_error(now, "remove the address", &error);
        }
        self.tell(RouterEvent::Released);
    }

    fn advertise(&mut self, now: Instant, priority: u8) {
        if self.wire.destinations() == 0 {
            self.last_advert = Some(now);
        }
        let mut worked = self.wire.destinations() == 0;
        for place in 0..self.wire.destinations() {
            match self.wire.advertise(&self.rules, priority, place) {
                Ok(()) => {
                    worked = true;
                    // What nobody can have heard gives the next keeper no right to go on.
                    self.last_advert = Some(now);
                    self.counters.adverts_sent += 1;
                    self.counters.resigns_sent += u64::from(priority == 0);
                }
                Err(error) => self.kernel_error(now, "send an advert", &error),
            }
        }
        self.round = Some(worked);
    }

    fn kernel_error(&mut self, now: Instant, operation: &'static str, error: &io::Error) {
        self.counters.errors += 1;
        if self.warnings.about_kernel(now) {
            let vrid = self.rules.vrid;
            let interface = &self.local.interface;
            tracing::warn!(%vrid, %interface, operation, %error, "the kernel refused");
        }
    }
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
