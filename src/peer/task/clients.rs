//! The list of client connections: told to the others in parts, and what is done with theirs when
//! one of them falls silent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Channel, boottime};
use crate::ipc::message::{ClientFlow, FLOWS_MAX};
use crate::peer::message::{FLOWS_MAX as PART_FLOWS, Writer};

/// The list of client connections is told once in this time.
const CYCLE: Duration = Duration::from_secs(2);

/// The client connections of one process.
#[derive(Debug)]
pub(super) struct OfProcess {
    process: u64,
    clients: Vec<ClientFlow>,
    /// The next list, as far as it has come.
    incoming: Vec<ClientFlow>,
}

impl OfProcess {
    fn new(process: u64) -> Self {
        Self {
            process,
            clients: Vec::new(),
            incoming: Vec::new(),
        }
    }
}

impl Channel {
    /// Tells one node the next parts of the list of client connections.
    pub(super) fn tell_clients(&mut self, index: usize) {
        let parts = self.clients.len().div_ceil(PART_FLOWS);
        let per_cycle = CYCLE.as_millis() / self.interval.as_millis().max(1);
        let now = parts.div_ceil(usize::try_from(per_cycle).unwrap_or(1).max(1));
        let (Some(peer), Some(keys)) = (self.peers.get_mut(index), &self.key.keys) else {
            return;
        };
        let door = self.doors.get(peer.door);
        let Some(socket) = door.and_then(|door| door.socket.as_ref()) else {
            return;
        };
        if peer.heard.is_none() {
            return;
        }
        for _ in 0..now {
            let part = usize::from(peer.next_part) % parts.max(1);
            peer.next_part = u16::try_from(part + 1).unwrap_or(0);
            let header = peer.session.next(boottime());
            let ends = peer.ends();
            let mut writer = Writer::clients(ends, &header, u16::try_from(part).unwrap_or(0));
            let flows = self.clients.chunks(PART_FLOWS).nth(part);
            for flow in flows.unwrap_or_default() {
                writer.flow(flow);
            }
            self.counts.note(socket.send(writer.sign(keys), ends.to));
        }
    }

    /// A piece of the list of client connections that a process of this node has. Several may have some:
    /// one that serves, and those that were succeeded.
    pub fn set_clients(&mut self, process: u64, first: bool, last: bool, flows: &[ClientFlow]) {
        let known = self.lists.iter().position(|list| list.process == process);
        let at = known.unwrap_or_else(|| {
            self.lists.push(OfProcess::new(process));
            self.lists.len() - 1
        });
        let Some(list) = self.lists.get_mut(at) else {
            return;
        };
        if first {
            list.incoming.clear();
        }
        let room = FLOWS_MAX.saturating_sub(list.incoming.len());
        list.incoming.extend(flows.iter().take(room));
        if last {
            std::mem::swap(&mut list.clients, &mut list.incoming);
            list.incoming.clear();
            self.gather_clients();
        }
    }

    /// A process has ended, and its connections with it.
    pub fn forget_clients(&mut self, process: u64) {
        self.lists.retain(|list| list.process != process);
        self.gather_clients();
    }

    fn gather_clients(&mut self) {
        self.clients.clear();
        let all = self.lists.iter().flat_map(|list| &list.clients);
        self.clients.extend(all.take(FLOWS_MAX));
    }

    /// This node has these addresses now, because their holder fell silent: its clients are told.
    pub fn took_over(&mut self, now: Instant, vip: &str, addresses: &[IpAddr]) {
        let mut clients = 0;
        for peer in &self.peers {
            clients += self.queue.add(now, addresses, peer.roster.flows(now));
        }
        if clients > 0 {
            tracing::info!(vip, clients, "waking clients of the node that fell silent");
            self.wake(now);
        }
    }

    /// These addresses leave this node.
    pub fn left(&mut self, addresses: &[IpAddr]) {
        self.queue.forget(addresses);
    }

    pub(super) fn wake(&mut self, now: Instant) {
        for _ in 0..self.queue.burst(now) {
            let (Some(flow), Some(tickler)) = (self.queue.pop(), &self.tickler) else {
                return;
            };
            let vip = SocketAddr::new(flow.vip, flow.port);
            match tickler.wake(vip, SocketAddr::new(flow.client, flow.client_port)) {
                Ok(()) => self.counts.tickles += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.queue.put_back(now, flow);
                }
                Err(error) => {
                    tracing::debug!(%error, client = %flow.client, "client cannot be woken");
                }
            }
        }
    }
}
