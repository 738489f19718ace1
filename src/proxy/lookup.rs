//! Which connection has a certain address at one of its ends: each worker is asked through its
//! mailbox. Nothing is kept for it beforehand: of connections to servers the kernel is asked for the
//! local end, of so many in one round and of the rest in the next ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use slab::Slab;

use super::conn::{Conn, State};
use super::mailbox::Message;
use super::sockets::Sockets;
use super::worker::Worker;
use crate::net::tcp;

/// Slots that a worker looks at in one round.
const SLOTS_MAX: usize = 1024;
/// Connections that one answer names: one address and port have few.
const FOUND_MAX: usize = 64;

/// A question to all workers, and what they have answered so far.
#[derive(Debug)]
pub struct Lookup {
    wanted: SocketAddr,
    missing: AtomicUsize,
    given_up: AtomicBool,
    found: Mutex<Vec<Found>>,
}

/// A connection that has the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Position of the proxy.
    pub proxy: usize,
    /// Place of its server; `None`: it has none yet.
    pub server: Option<usize>,
    /// The client: who its header says it is, else who connected.
    pub client: SocketAddr,
    /// Who connected in the client's name.
    pub via: Option<SocketAddr>,
    /// The address that was connected to.
    pub local: Option<SocketAddr>,
    /// This node's end of the connection to the server, as the server sees it.
    pub source: Option<SocketAddr>,
    /// Where it stands.
    pub state: &'static str,
    /// Microseconds since it was accepted.
    pub age: u64,
    /// Microseconds since a byte last moved.
    pub idle: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

impl Lookup {
    pub(super) fn new(wanted: SocketAddr, workers: usize) -> Self {
        Self {
            wanted: canonical(wanted),
            missing: AtomicUsize::new(workers),
            given_up: AtomicBool::new(false),
            found: Mutex::default(),
        }
    }

    /// What was found so far, and whether every worker has answered.
    #[must_use]
    pub fn answer(&self) -> (Vec<Found>, bool) {
        let complete = self.missing.load(Ordering::Acquire) == 0;
        (self.found().clone(), complete)
    }

    /// Nobody waits for it any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Looks at a worker's connections from a slot on; `now` in microseconds since the engine's
    /// start. Answers from where to go on in the next round.
    pub(super) fn look(
        &self,
        (conns, socks): (&Slab<Conn>, &Sockets),
        from: usize,
        now: u64,
    ) -> Option<usize> {
        let end = from.saturating_add(SLOTS_MAX);
        for slot in from..end.min(conns.capacity()) {
            let Some(conn) = conns.get(slot).filter(|conn| conn.state != State::Dead) else {
                continue;
            };
            if let Some(source) = self.matches(conn, socks) {
                let mut found = self.found();
                if found.len() < FOUND_MAX {
                    found.push(describe(conn, source, now));
                }
            }
        }
        if end < conns.capacity() && !self.given_up.load(Ordering::Relaxed) {
            return Some(end);
        }
        self.missing.fetch_sub(1, Ordering::Release);
        None
    }

    /// Whether one of the ends has the address; this node's end towards the server, if any.
    fn matches(&self, conn: &Conn, socks: &Sockets) -> Option<Option<SocketAddr>> {
        let of_client = conn.client_addr() == self.wanted || conn.peer.addr() == self.wanted;
        let source = || {
            let fd = socks.fd(conn.sock.value()?)?;
            Some(canonical(tcp::local_addr(fd).ok()?))
        };
        if of_client {
            return Some(source());
        }
        let source = source()?;
        (source == self.wanted).then_some(Some(source))
    }

    fn found(&self) -> MutexGuard<'_, Vec<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// The slots of connections that live and are `wanted`.
    pub(super) fn slots(&self, wanted: impl Fn(&Conn) -> bool) -> Vec<u32> {
        self.conns
            .iter()
            .filter(|(_, conn)| conn.state != State::Dead && wanted(conn))
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect()
    }

    /// What is left is looked at in the next round.
    pub(super) fn look_up(&self, lookup: &Arc<Lookup>, from: usize) {
        if let Some(next) = lookup.look((&self.conns, &self.socks), from, self.now)
            && let Some(mailbox) = self.shared.mailboxes.get(usize::from(self.number))
        {
            mailbox.post(Message::Lookup(Arc::clone(lookup), next));
        }
    }
}

/// The question that is being answered: one at a time, for the workers answer beside their work.
#[derive(Debug, Default)]
pub(super) struct Desk(Mutex<Weak<Lookup>>);

impl Desk {
    /// A new question; `None` while another one is being answered.
    pub(super) fn ask(&self, wanted: SocketAddr, workers: usize) -> Option<Arc<Lookup>> {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = present.upgrade().is_some_and(|present| !present.answer().1);
        if busy {
            return None;
        }
        let lookup = Arc::new(Lookup::new(wanted, workers));
        *present = Arc::downgrade(&lookup);
        Some(lookup)
    }
}

fn describe(conn: &Conn, source: Option<SocketAddr>, now: u64) -> Found {
    let (client, peer) = (conn.client_addr(), conn.peer.addr());
    let accepted_at = || tcp::local_addr(conn.client.as_ref()?).ok().map(canonical);
    Found {
        proxy: conn.proxy.into(),
        server: conn.server.map(usize::from),
        client,
        via: (client != peer).then_some(peer),
        local: conn.told_local().or_else(accepted_at),
        source,
        state: word(conn.state),
        age: now.saturating_sub(conn.accepted),
        idle: now.saturating_sub(conn.active),
        bytes_in: conn.up.bytes(),
        bytes_out: conn.down.bytes(),
    }
}

const fn word(state: State) -> &'static str {
    match state {
        State::Header => "waits for its PROXY header",
        State::Queued => "queued",
        State::Connecting => "connecting",
        State::Relaying => "relaying",
        State::Flushing | State::Parting => "ending",
        State::Dead => "ended",
    }
}

/// IPv4 addresses as such, also those that an IPv6 socket tells.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_worker_looks_at_so_many_in_a_round_and_goes_on_in_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut conns = Slab::with_capacity(3_000);
        let mut clients = Vec::new();
        for serial in 0..2 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (socket, peer) = listener.accept().unwrap();
            conns.insert(Conn::new(socket.into(), peer, 3, serial, 1_000));
        }
        let socks = Sockets::new(4, i32::MAX);
        let wanted = clients[1].local_addr().unwrap();
        let lookup = Lookup::new(wanted, 1);
        assert_eq!(lookup.look((&conns, &socks), 0, 5_000), Some(1_024));
        assert_eq!(lookup.look((&conns, &socks), 1_024, 5_000), Some(2_048));
        assert!(!lookup.answer().1);
        assert_eq!(lookup.look((&conns, &socks), 2_048, 5_000), None);
        let (found, complete) = lookup.answer();
        assert!(complete);
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.client, one.proxy, one.state), (wanted, 3, "queued"));
        assert_eq!((one.age, one.via, one.source), (4_000, None, None));
        assert_eq!(one.local, Some(listener.local_addr().unwrap()));
    }

    #[test]
    fn one_question_is_answered_at_a_time() {
        let desk = Desk::default();
        let wanted = "10.0.0.1:1".parse().unwrap();
        let first = desk.ask(wanted, 1).unwrap();
        assert!(desk.ask(wanted, 1).is_none());
        let (conns, socks) = (Slab::new(), Sockets::new(1, i32::MAX));
        assert_eq!(first.look((&conns, &socks), 0, 0), None);
        let second = desk.ask(wanted, 1).unwrap();
        assert!(desk.ask(wanted, 1).is_none());
        drop(second);
        assert!(desk.ask(wanted, 1).is_some());
    }

    #[test]
    fn what_nobody_waits_for_is_not_looked_for_any_further() {
        let conns: Slab<Conn> = Slab::with_capacity(3_000);
        let socks = Sockets::new(1, i32::MAX);
        let lookup = Lookup::new("10.0.0.1:1".parse().unwrap(), 1);
        lookup.give_up();
        assert_eq!(lookup.look((&conns, &socks), 0, 0), None);
    }
}
