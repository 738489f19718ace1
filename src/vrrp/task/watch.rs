//! Who else answers for this wire's addresses, and does a node that fell silent still live? Asked by
//! ARP, for people; nothing here reaches the machine.

use std::net::IpAddr;
use std::time::Instant;

use super::member::Member;
use crate::net::arp_watch::Watcher;
use crate::net::link::Mac;
use crate::vrrp::conflict::{Conflict, Owner};

/// Answers read in one call.
const READS_MAX: usize = 32;
/// An Active that has been silent for so many intervals was not heard leaving.
const SILENT_INTERVALS: u32 = 2;

impl Member {
    /// Asks the other nodes for nothing, so that their kernels know where this node is: an Active
    /// that looked for it in vain would otherwise keep its adverts back for up to a second.
    pub(super) fn greet(&mut self, now: Instant) {
        let sent = self.wire.watcher().map(Watcher::greet);
        if let Some(Err(error)) = sent {
            self.kernel_error(now, "greet the other nodes", &error);
        }
    }

    /// This node became Active. `before`: who was, among the others.
    pub(super) fn begin_watch(&mut self, now: Instant, before: Option<usize>) {
        self.watch.begin(now);
        let intervals = self.rules.interval.duration() * SILENT_INTERVALS;
        let silent = |place: &usize| {
            let heard = self.peers.get(*place);
            heard.is_some_and(|peer| {
                let age = peer.last.map(|last| now.saturating_duration_since(last));
                peer.priority != Some(0) && age.is_some_and(|age| age > intervals)
            })
        };
        self.suspect = before.filter(silent).map(|place| (place, now));
    }

    pub(super) fn end_watch(&mut self) {
        self.watch.end();
        self.suspect = None;
        self.alive = None;
    }

    /// Reads what was said, asks anew when it is time, and says whether a conflict is new.
    pub(super) fn find_conflict(&mut self, now: Instant, active: bool) -> Option<Conflict> {
        let mut is_new = false;
        for _ in 0..READS_MAX {
            match self.wire.watcher()?.read() {
                Ok(None) => break,
                Ok(Some(seen)) => {
                    let address = IpAddr::V4(seen.address);
                    let node = self
                        .rules
                        .peers
                        .iter()
                        .position(|peer| peer.address == address);
                    let owner = node.map_or(Owner::Virtual(address), Owner::Node);
                    is_new |= self.watch.sighted(now, owner, seen.mac);
                }
                Err(error) => {
                    self.kernel_error(now, "listen to ARP", &error);
                    break;
                }
            }
        }
        if !active {
            return None;
        }
        self.judge_suspect();
        let found = self.watch.conflict().filter(|_| is_new);
        if let Some(found) = found {
            self.name_conflict(found);
        }
        if self.watch.is_due(now, self.local.vip.garp.refresh) {
            let asked = self.wire.watcher().map(Watcher::probe);
            if let Some(Err(error)) = asked {
                self.kernel_error(now, "ask by ARP", &error);
            }
        }
        found
    }

    fn name_conflict(&self, found: Conflict) {
        let (vip, vrid) = (found.address, self.rules.vrid);
        let interface = &self.local.interface;
        let node = self.watch.node_at(found.mac);
        let peer = node.and_then(|place| self.rules.peers.get(place));
        let peer = peer.map(|peer| tracing::field::display(peer.address));
        let mac = Mac(found.mac);
        let cause = cause(node);
        tracing::warn!(%vip, %vrid, %interface, peer, %mac, cause, "another host answers for our address");
    }

    /// A node that was Active, fell silent and still answers for its own address.
    fn judge_suspect(&mut self) {
        let Some((place, since)) = self.suspect else {
            return;
        };
        let last = self.peers.get(place).and_then(|peer| peer.last);
        if last.is_some_and(|last| last > since) {
            self.suspect = None;
            self.alive = None;
        } else if self.alive.is_none() && self.watch.answers(place) {
            self.alive = Some(place);
            let (vip, vrid) = (&self.local.vip.name, self.rules.vrid);
            let interface = &self.local.interface;
            let peer = self.rules.peers.get(place);
            let peer = peer.map(|peer| tracing::field::display(peer.address));
            let cause = "its VRRP has ended, or protocol 112 is blocked between the nodes";
            tracing::warn!(%vip, %vrid, %interface, peer, cause, "the former active node is alive on this LAN but its adverts do not arrive");
        }
    }

    /// The present conflict in words.
    pub(super) fn conflict_text(&self) -> Option<String> {
        let found = self.watch.conflict()?;
        let cause = cause(self.watch.node_at(found.mac));
        let node = self.watch.node_at(found.mac);
        let node = node.and_then(|place| self.rules.peers.get(place));
        let who = node.map_or_else(String::new, |peer| format!(" ({})", peer.address));
        Some(format!(
            "{} answers for {}{who}: {cause}",
            Mac(found.mac),
            found.address
        ))
    }
}

fn cause(node: Option<usize>) -> &'static str {
    match node {
        Some(_) => "the other node holds it, too: split brain",
        None => "another host uses the address",
    }
}
