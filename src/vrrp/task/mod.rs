//! The driver of one virtual router: waits are the keeper's, decisions are the machine's, what is
//! done about them stands here. No policy.

mod wire;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use wire::Wire;

use super::counters::{Counters, Warnings};
use super::fsm::{Action, Actions, Input, Machine, Settings};
use super::stamp::{Resume, Stamp};
use super::validate::{Accepted, Ipv6Unsupported, Rules};
use crate::config::local::LocalVip;
use crate::ipc::message::{PeerStatus, VipStatus, VrrpState};
use crate::net::link::LinkEvent;
use crate::net::netlink::Netlink;
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
const DIAGNOSTIC_READS_MAX: usize = 8;
/// Events kept for the keeper; it takes them after each call, so there are never many.
const EVENTS_MAX: usize = 64;
/// How much later than a holder a Backup counts its own recovery, until told the check interval.
const RECOVERY_DELAY: Duration = Duration::from_secs(2);

/// A virtual router that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its addresses are IPv6.
    #[error("vip {vip}")]
    Family {
        /// The table's name.
        vip: String,
        /// Why.
        #[source]
        source: Ipv6Unsupported,
    },
    /// Its interface can't be used.
    #[error("vip {vip}: cannot {operation} on interface {interface}")]
    Interface {
        /// The table's name.
        vip: String,
        /// The interface.
        interface: String,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What the keeper should know of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterEvent {
    /// The state changed.
    Changed {
        /// Before.
        from: VrrpState,
        /// After.
        to: VrrpState,
        /// Why, in a few constant words.
        reason: &'static str,
    },
    /// These addresses leave this node in some milliseconds: reset the connections to them.
    Releasing(Vec<IpAddr>),
    /// They are gone.
    Released,
    /// Whether this node takes over depends on a fresh probe: make one.
    Probe,
}

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
    link_up: bool,
    since: Instant,
    release_at: Option<Instant>,
    last_advert: Option<Instant>,
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
            link_up,
            since: now,
            release_at: None,
            last_advert: None,
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
        if fresh && self.link_up && !self.another_is_active() {
            self.run(now, Input::Resume);
            return;
        }
        if !owner {
            self.remove_leftovers(now);
        }
        if self.link_up {
            self.run(now, Input::Up);
        }
    }

    /// Whether an advert of another Active waits in the socket.
    fn another_is_active(&mut self) -> bool {
        let mut heard = false;
        for _ in 0..DRAIN_MAX {
            match self.wire.read(&self.rules) {
                Ok(Some(Ok(advert))) => heard |= advert.priority > 0,
                Ok(Some(Err(reason))) => self.counters.reject(reason),
                Ok(None) | Err(_) => break,
            }
        }
        heard
    }

    fn remove_leftovers(&mut self, now: Instant) {
        match self.wire.leftovers() {
            Ok(false) => {}
            Ok(true) => {
                let name = &self.local.vip.name;
                tracing::warn!(vip = %name, "removing a left-over address");
                self.release(now, true);
            }
            Err(error) => self.kernel_error(now, "list addresses", &error),
        }
    }

    /// The descriptors to wait for; level-triggered. They stay the same for its whole life.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.wire.fds()
    }

    /// Reads what is there from one of [`fds`](Self::fds), a bounded amount.
    pub fn on_readable(&mut self, fd: RawFd, now: Instant) {
        let [adverts, rejected] = self.wire.fds().map(|fd| fd.as_raw_fd());
        if fd == adverts {
            self.receive(now, READS_MAX);
        } else if fd == rejected {
            self.count_rejected(now);
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.machine.deadline(), self.release_at]
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
        let due = |machine: &Machine| machine.deadline().is_some_and(|at| at <= now);
        if due(&self.machine) {
            self.receive(now, DRAIN_MAX);
        }
        if due(&self.machine) {
            self.run(now, Input::Timer);
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

    /// Something happened to an interface or an address. After [`LinkEvent::Lost`] the present
    /// state is read anew.
    pub fn on_link(&mut self, now: Instant, event: &LinkEvent) {
        let mine = self.wire.index();
        match event {
            LinkEvent::Link { index, up } if *index == mine => self.set_link(now, *up),
            LinkEvent::Removed { index } if *index == mine => self.set_link(now, false),
            LinkEvent::AddressGone { index, address } if *index == mine => {
                let ours = self
                    .local
                    .vip
                    .addresses
                    .iter()
                    .any(|vip| vip.ip == *address);
                if ours && self.machine.holds() {
                    tracing::warn!(vip = %address, "address deleted by somebody else");
                    self.run(now, Input::AddressLost);
                }
            }
            LinkEvent::Lost => match self.wire.present_state() {
                Ok((up, complete)) => {
                    self.set_link(now, up);
                    if !complete && self.machine.holds() {
                        self.run(now, Input::AddressLost);
                    }
                }
                Err(error) => self.kernel_error(now, "read the interface's state", &error),
            },
            LinkEvent::Link { .. } | LinkEvent::Removed { .. } | LinkEvent::AddressGone { .. } => {}
        }
    }

    fn set_link(&mut self, now: Instant, up: bool) {
        if up != self.link_up {
            self.link_up = up;
            self.run(now, if up { Input::Up } else { Input::Down });
        }
    }

    /// Leaves for good: make before break.
    pub fn resign(&mut self, now: Instant) {
        self.run(now, Input::Resign);
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

    /// What the keeper writes down for its successor: the last advert sent, while Active.
    /// `boottime` is `CLOCK_BOOTTIME` at `now`.
    #[must_use]
    pub fn stamp(&self, now: Instant, boottime: Duration, boot_id: &str) -> Option<Stamp> {
        if self.machine.state() != VrrpState::Active {
            return None;
        }
        let age = now.saturating_duration_since(self.last_advert?);
        Some(Stamp {
            name: self.local.vip.name.clone(),
            vrid: self.local.vip.vrid.get(),
            boot_id: boot_id.to_owned(),
            advertised_at: boottime.checked_sub(age)?,
        })
    }

    /// Everything users see of it. The keeper adds the tracks.
    #[must_use]
    pub fn status(&self, now: Instant) -> VipStatus {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let vip = &self.local.vip;
        let others = vip
            .nodes
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != self.local.me)
            .map(|(_, node)| node);
        let peers = others
            .zip(&self.peers)
            .map(|(node, heard)| PeerStatus {
                name: node.name.clone(),
                address: node.address,
                last_advert_age_ms: heard
                    .last
                    .map(|last| ms(now.saturating_duration_since(last))),
                priority: heard.priority,
                adverts: heard.adverts,
            })
            .collect();
        VipStatus {
            name: vip.name.clone(),
            vrid: vip.vrid.get(),
            version: vip.version.get(),
            interface: self.local.interface.clone(),
            addresses: vip.addresses.iter().map(ToString::to_string).collect(),
            state: self.machine.state(),
            reason: self.machine.reason().to_owned(),
            since_ms: ms(now.saturating_duration_since(self.since)),
            holds: self.holds(),
            base_priority: self.machine.settings().base.get(),
            effective_priority: self.machine.effective_priority().get(),
            advert_interval_ms: u32::from(self.machine.interval().centiseconds()) * 10,
            active: self.machine.active(),
            peers,
            tracks: Vec::new(),
            counters: self.counters.snapshot(),
        }
    }

    fn receive(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            match self.wire.read(&self.rules) {
                Ok(None) => return,
                Ok(Some(Ok(advert))) => self.accept(now, advert),
                Ok(Some(Err(reason))) => self.counters.reject(reason),
                Err(error) => {
                    self.kernel_error(now, "receive", &error);
                    return;
                }
            }
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
        self.counters.bounded_intervals += u64::from(!advert.interval_as_sent);
        if !advert.same_addresses {
            self.counters.other_addresses += 1;
            if self.warnings.about_addresses(now) {
                tracing::warn!(%vrid, peer = %advert.sender, "peer advertises other addresses");
            }
        }
        self.run(now, Input::Advert(advert));
    }

    fn count_rejected(&mut self, now: Instant) {
        for _ in 0..DIAGNOSTIC_READS_MAX {
            // What the exact rules accept here was let through by the other socket as well.
            match self.wire.read_rejected(&self.rules) {
                Ok(None) => return,
                Ok(Some((_, Ok(_)))) => {}
                Ok(Some((sender, Err(reason)))) => {
                    self.counters.reject(reason);
                    if self.warnings.about_reject(reason, now) {
                        let vrid = self.rules.vrid;
                        let reason = reason.word();
                        let peer = tracing::field::debug(sender);
                        tracing::warn!(%vrid, peer, reason, "packet rejected");
                    }
                }
                Err(error) => {
                    self.kernel_error(now, "receive", &error);
                    return;
                }
            }
        }
    }

    fn run(&mut self, now: Instant, input: Input) {
        let from = self.machine.state();
        let actions = self.machine.handle(now, input);
        if let Err(error) = self.carry_out(now, actions) {
            self.kernel_error(now, "hold the address", &error);
            let give_up = self.machine.handle(now, Input::AddressFailed);
            if let Err(error) = self.carry_out(now, give_up) {
                self.kernel_error(now, "hold the address", &error);
            }
        }
        self.note_change(now, from);
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
                Action::Renew => self.wire.hold()?,
                Action::Restore => {
                    self.counters.restored += 1;
                    self.wire.hold()?;
                }
                Action::Release { graceful } => self.release(now, graceful),
                Action::Advertise(priority) => self.advertise(now, priority),
                Action::Garp(frames) => match self.wire.announce(frames) {
                    Ok(sent) => self.counters.garps_sent += sent,
                    Err(error) => self.kernel_error(now, "send gratuitous ARP", &error),
                },
                Action::Probe => self.tell(RouterEvent::Probe),
                Action::IgnoredResign => {
                    tracing::debug!(vrid = %self.rules.vrid, "resignation of a node that is not active");
                }
            }
        }
        Ok(())
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
        self.last_advert = Some(now);
        for place in 0..self.wire.destinations() {
            match self.wire.advertise(&self.rules, priority, place) {
                Ok(()) => {
                    self.counters.adverts_sent += 1;
                    self.counters.resigns_sent += u64::from(priority == 0);
                }
                Err(error) => self.kernel_error(now, "send an advert", &error),
            }
        }
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
        preempt: vip.preempt,
        lease: vip.lease,
        garp: vip.garp.clone(),
        recovery_delay: RECOVERY_DELAY,
        alone: vip.nodes.len() < 2,
    }
}
