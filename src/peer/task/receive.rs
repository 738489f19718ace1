//! Taking messages in: a bounded number per moment, judged before anything is done about them.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::view::{Peer, Reported, View};
use super::{Channel, boottime};
use crate::log::spacing::is_due;
use crate::net::peer_socket::PeerSocket;
use crate::peer::message::{self, Body, MESSAGE_BYTES_MAX, Reject, Report, Routers};
use crate::peer::session::Verdict;

/// Messages read in one call.
const READS_MAX: u32 = 64;
/// A socket that had so many is left alone until this long after the first of them.
const WINDOW: Duration = Duration::from_millis(10);
/// Between two answers to one node.
const ANSWER_SPACING: Duration = Duration::from_millis(10);
/// Between two complaints about messages that were not believed.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A socket on one of this node's addresses.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) own: IpAddr,
    pub(super) interface: String,
    pub(super) socket: Option<PeerSocket>,
    pub(super) fault: Option<String>,
    pub(super) retry_at: Instant,
    pub(super) rests_until: Option<Instant>,
    window: Instant,
    reads: u32,
}

impl Door {
    pub(super) fn new(own: IpAddr, interface: &str, now: Instant) -> Self {
        Self {
            own,
            interface: interface.to_owned(),
            socket: None,
            fault: None,
            retry_at: now,
            rests_until: None,
            window: now,
            reads: 0,
        }
    }

    /// Whether one more message may be read now.
    fn may_read(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.window = now;
            self.reads = 0;
        }
        if self.reads >= READS_MAX {
            self.rests_until = Some(self.window + WINDOW);
            return false;
        }
        self.reads += 1;
        true
    }
}

/// What was sent and received, and what was not believed.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) received: u64,
    pub(super) stranger: u64,
    pub(super) malformed: u64,
    pub(super) forged: u64,
    pub(super) replayed: u64,
    pub(super) unproven: u64,
    pub(super) tickles: u64,
    complained: Option<Instant>,
}

impl Counts {
    pub(super) fn note(&mut self, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.sent += 1,
            Err(error) => {
                self.failed += 1;
                tracing::trace!(%error, "message to a peer not sent");
            }
        }
    }

    /// Messages that were not believed, by reason.
    pub(super) fn rejected(&self) -> [(&'static str, u64); 5] {
        [
            ("stranger", self.stranger),
            ("malformed", self.malformed),
            ("forged", self.forged),
            ("replayed", self.replayed),
            ("unproven", self.unproven),
        ]
    }

    fn complain(&mut self, now: Instant, from: IpAddr, reason: &'static str) {
        if is_due(&mut self.complained, COMPLAIN_EVERY, now) {
            tracing::warn!(peer = %from, reason, "message of the peer channel not believed");
        }
    }
}

impl Channel {
    /// Reads what is there; whether the socket is to be left alone until the deadline.
    pub fn on_readable(&mut self, place: usize, now: Instant, view: &View) -> bool {
        let mut buffer = [0; MESSAGE_BYTES_MAX + 1];
        loop {
            let Some(door) = self.doors.get_mut(place) else {
                return false;
            };
            if !door.may_read(now) {
                return true;
            }
            let Some(socket) = &door.socket else {
                return false;
            };
            match socket.receive(&mut buffer) {
                Ok(Some((length, from))) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.take(place, now, bytes, from, view);
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::trace!(%error, "peer channel cannot be read");
                    return false;
                }
            }
        }
    }

    /// Whether a socket that was left alone may be read again.
    pub fn is_rested(&mut self, place: usize, now: Instant) -> bool {
        let Some(door) = self.doors.get_mut(place) else {
            return false;
        };
        let rested = door.rests_until.is_some_and(|until| until <= now);
        if rested {
            door.rests_until = None;
        }
        rested
    }

    fn take(&mut self, place: usize, now: Instant, bytes: &[u8], from: IpAddr, view: &View) {
        let mine = |peer: &Peer| peer.door == place && peer.node.address == from;
        let Some(index) = self.peers.iter().position(mine) else {
            self.counts.stranger += 1;
            return;
        };
        let (Some(peer), Some(keys)) = (self.peers.get_mut(index), &self.key.keys) else {
            return;
        };
        let ends = message::Ends {
            from: peer.node.address,
            to: peer.node.own,
        };
        let (header, body) = match message::read(bytes, ends, keys) {
            Ok(message) => message,
            Err(Reject::Malformed) => {
                self.counts.malformed += 1;
                self.counts.complain(now, from, "malformed");
                return;
            }
            Err(Reject::Forged) => {
                self.counts.forged += 1;
                self.counts.complain(now, from, "forged, or another key");
                return;
            }
        };
        let boottime = boottime();
        match peer.session.judge(boottime, &header) {
            Verdict::Believed => {}
            Verdict::Replayed => {
                self.counts.replayed += 1;
                self.counts.complain(now, from, "replayed");
                return;
            }
            Verdict::Unproven => {
                self.counts.unproven += 1;
                let last = peer.answered;
                if last.is_none_or(|at| now.saturating_duration_since(at) >= ANSWER_SPACING) {
                    peer.answered = Some(now);
                    self.report(index, now, view, Some(&header));
                }
                return;
            }
        }
        self.counts.received += 1;
        if peer.heard.is_none() {
            tracing::info!(peer = %peer.node.name, "peer reached");
        }
        peer.heard = Some(now);
        match body {
            Body::Report(report, routers) => {
                let known = self
                    .routers
                    .iter()
                    .map(|router| (router.vrid, router.address));
                // The sender had our message when it made this one.
                let age = Duration::from_nanos(boottime.saturating_sub(header.echo.1));
                let made = now.checked_sub(age).unwrap_or(now);
                note(peer, (now, made), &report, routers, &known);
            }
            Body::Clients { part, flows } => peer.roster.put(now, part, flows.iter()),
        }
    }
}

fn note(
    peer: &mut Peer,
    (at, made): (Instant, Instant),
    report: &Report<'_>,
    routers: Routers<'_>,
    known: &(impl Iterator<Item = (u8, IpAddr)> + Clone),
) {
    // Their capacity is that of the longest text.
    peer.version.clear();
    peer.version.push_str(report.version);
    peer.name.clear();
    peer.name.push_str(report.name);
    peer.can_serve = report.can_serve;
    peer.interval = Duration::from_millis(report.interval_ms.into());
    peer.roster.shorten(report.parts);
    for router in routers.iter() {
        let same = |(vrid, address): (u8, IpAddr)| (vrid, address) == (router.vrid, router.address);
        let place = known.clone().position(same);
        if let Some(place) = place.and_then(|place| peer.routers.get_mut(place)) {
            *place = Some(Reported {
                at,
                made,
                state: router.state,
                priority: router.priority,
                silence: Duration::from_millis(router.silence_ms.into()),
                heard: router.heard,
            });
        }
    }
}
