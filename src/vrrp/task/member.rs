//! One wire of a virtual router: what a `[vip.NAME]` brings into its group. Its sockets, addresses
//! and interface, what was heard and counted there. It decides nothing.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use super::link::Attachment;
use super::wire::Wire;
use super::{DRAIN_MAX, OpenError, SharedNetlink};
use crate::config::local::LocalVip;
use crate::config::model::{Mode, Node};
use crate::net::vrrp_socket::Side;
use crate::vrrp::conflict::Watch;
use crate::vrrp::counters::{Counters, Warnings};
use crate::vrrp::jitter::Jitter;
use crate::vrrp::packet::Reject;
use crate::vrrp::rejects::{self, Claim, Refused, Strangers};
use crate::vrrp::validate::{Accepted, Rules};

/// What is known of another node.
#[derive(Debug, Clone, Default)]
pub(super) struct PeerHeard {
    pub(super) last: Option<Instant>,
    pub(super) priority: Option<u8>,
    pub(super) adverts: u64,
    pub(super) jitter: Jitter,
    pub(super) refused: Refused,
}

/// No spacing of adverts is longer than this many intervals: more is silence.
const LONGEST_SPACING: u32 = 4;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) local: LocalVip,
    pub(super) rules: Rules,
    pub(super) wire: Wire,
    pub(super) attachment: Attachment,
    /// The last advert that left.
    pub(super) last_advert: Option<Instant>,
    /// By their position in `rules.peers`.
    pub(super) peers: Vec<PeerHeard>,
    /// The active node is heard on other wires of the group and not on this one.
    pub(super) silent: bool,
    pub(super) counters: Counters,
    pub(super) warnings: Warnings,
    strangers: Strangers,
    pub(super) watch: Watch,
    /// The node that was Active until it fell silent, and since when we are.
    pub(super) suspect: Option<(usize, Instant)>,
    /// The same, once it has answered for its own address.
    pub(super) alive: Option<usize>,
    /// The vrids of this node's other virtual routers on the same LAN.
    pub(super) siblings: Vec<u8>,
}

impl Member {
    pub(super) fn open(local: &LocalVip, netlink: SharedNetlink) -> Result<Self, OpenError> {
        let rules = Rules::new(local).map_err(|source| OpenError::Family {
            vip: local.vip.name.clone(),
            source,
        })?;
        let (wire, link_up) = Wire::open(local, &rules, netlink)?;
        Ok(Self {
            local: local.clone(),
            watch: Watch::new(rules.peers.len()),
            suspect: None,
            alive: None,
            peers: vec![PeerHeard::default(); rules.peers.len()],
            rules,
            wire,
            attachment: Attachment::new(link_up),
            last_advert: None,
            silent: false,
            counters: Counters::default(),
            warnings: Warnings::default(),
            strangers: Strangers::default(),
            siblings: Vec::new(),
        })
    }

    /// Looks away from the adverts of this node's other virtual routers on the same LAN.
    pub(super) fn pass_over_siblings(&mut self, now: Instant) {
        if let Err(error) = self.wire.pass_over(&self.siblings) {
            self.kernel_error(now, "attach a socket filter", &error);
        }
    }

    /// The other nodes, in the order of `rules.peers`.
    pub(super) fn others(&self) -> impl Iterator<Item = &Node> {
        let me = self.local.me;
        let all = self.local.vip.nodes.iter().enumerate();
        all.filter(move |(place, _)| *place != me)
            .map(|(_, node)| node)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.local.vip.addresses.iter().map(|vip| vip.ip)
    }

    /// Whether an advert of another Active waits in the socket.
    pub(super) fn another_is_active(&mut self) -> bool {
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
    pub(super) fn remove_strays(&mut self, now: Instant) -> bool {
        self.wire.remove_strays().unwrap_or_else(|error| {
            self.kernel_error(now, "remove left-over addresses", &error);
            false
        })
    }

    /// Notes an advert that the machine is about to hear of.
    pub(super) fn note(&mut self, now: Instant, advert: &Accepted) {
        let vrid = self.rules.vrid;
        tracing::trace!(%vrid, peer = %advert.sender, priority = advert.priority, "advert received");
        self.counters.shown.adverts_received += 1;
        self.counters.shown.resigns_received += u64::from(advert.priority == 0);
        if let Some(peer) = self.peers.get_mut(advert.peer) {
            peer.last = Some(now);
            peer.priority = Some(advert.priority);
            peer.adverts += 1;
            if advert.priority == 0 {
                peer.jitter.left();
            } else {
                let longest = advert.interval.duration() * LONGEST_SPACING;
                peer.jitter.arrived(now, longest);
            }
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
    }

    /// A signed advert shows that clocks are apart, whether it was accepted or not.
    pub(super) fn skew(&mut self, now: Instant, source: Option<IpAddr>, skew_ms: i64) {
        self.counters.skewed += 1;
        if self.warnings.about_skew(now) {
            let vrid = self.rules.vrid;
            let peer = source.map(tracing::field::display);
            tracing::warn!(%vrid, peer, skew_ms, "peer's clock is apart from ours");
        }
    }

    pub(super) fn reject(
        &mut self,
        now: Instant,
        reason: Reject,
        source: Option<IpAddr>,
        claim: Option<Claim>,
    ) {
        // By multicast every router of the LAN is heard: those of strangers are their own affair.
        let foreign = claim.is_some_and(|claim| claim.vrid != self.rules.vrid.get());
        let multicast = self.rules.mode == Mode::Multicast;
        if multicast && foreign && reason == Reject::UnknownSender {
            return;
        }
        self.counters.reject(reason);
        let mut peers = self.rules.peers.iter().zip(&mut self.peers);
        let peer = peers.find(|(peer, _)| Some(peer.address) == source);
        let tell = match peer {
            Some((_, heard)) => heard.refused.note(reason, now),
            None => self.strangers.note(source, now),
        };
        if !tell {
            return;
        }
        let (cause, key) = rejects::cause(reason, claim, self.rules.vrid);
        let (vip, vrid) = (&self.local.vip.name, self.rules.vrid);
        let interface = &self.local.interface;
        let peer = source.map(tracing::field::display);
        let address = claim.and_then(|claim| claim.address);
        let address = address.map(tracing::field::display);
        let reason = reason.word();
        tracing::warn!(%vip, %vrid, %interface, peer, address, reason, cause, key, "packet rejected");
    }

    /// Says whether anybody can have heard it.
    pub(super) fn advertise(&mut self, now: Instant, priority: u8) -> bool {
        let mut worked = self.wire.destinations() == 0;
        for place in 0..self.wire.destinations() {
            match self.wire.advertise(&self.rules, priority, place) {
                Ok(()) => {
                    worked = true;
                    self.counters.shown.adverts_sent += 1;
                    self.counters.shown.resigns_sent += u64::from(priority == 0);
                }
                Err(error) => self.kernel_error(now, "send an advert", &error),
            }
        }
        if worked {
            // What nobody can have heard gives the next keeper no right to go on.
            self.last_advert = Some(now);
        }
        worked
    }

    pub(super) fn announce(&mut self, now: Instant, frames: u8) {
        match self.wire.announce(frames) {
            Ok(sent) => self.counters.shown.garps_sent += sent,
            Err(error) => self.kernel_error(now, "send gratuitous ARP", &error),
        }
    }

    /// Renews the addresses' lifetime.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        // Without our own address the virtual one would become the primary one of the subnet, and
        // our own go with it.
        if self.attachment.lacks_source() {
            return Ok(());
        }
        self.wire.hold()
    }

    pub(super) fn release(&mut self, now: Instant) {
        if let Err(error) = self.wire.release() {
            self.kernel_error(now, "remove the address", &error);
        }
    }

    pub(super) fn kernel_error(
        &mut self,
        now: Instant,
        operation: &'static str,
        error: &io::Error,
    ) {
        self.counters.shown.errors += 1;
        if self.warnings.about_kernel(now) {
            let vrid = self.rules.vrid;
            let interface = &self.local.interface;
            tracing::warn!(%vrid, %interface, operation, %error, "the kernel refused");
        }
    }
}
