//! What the engine knows of a connection, of its sockets and of the servers: as much as lbd does
//! on the way of a connection without faults. No requests here.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use lbd::proxy::gate::Gate;

use crate::ring::NONE;

/// Which of a connection's two sockets; a flow is named after its source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

impl End {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A client's socket.
pub(crate) enum Client {
    Plain(OwnedFd),
    /// Only the ring knows it.
    Direct(u32),
    Gone,
}

/// One direction: buffers that were received and wait for the destination, as a list through the
/// ring's table.
pub(crate) struct Flow {
    pub(crate) head: u16,
    pub(crate) tail: u16,
    pub(crate) queued: u16,
    /// A receive is under way.
    pub(crate) armed: bool,
    pub(crate) cancelled: bool,
    /// The first buffer is being sent.
    pub(crate) sending: bool,
    pub(crate) ended: bool,
    pub(crate) finished: bool,
    /// Of the source, as epoll told.
    pub(crate) readable: bool,
    pub(crate) read_closed: bool,
    pub(crate) bytes: u64,
}

impl Flow {
    fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            queued: 0,
            armed: false,
            cancelled: false,
            sending: false,
            ended: false,
            finished: false,
            readable: false,
            read_closed: false,
            bytes: 0,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.head == NONE
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Relaying,
    Dead,
}

/// One connection. Times are microseconds since the start.
pub(crate) struct Conn {
    pub(crate) client: Client,
    pub(crate) sock: Option<u32>,
    pub(crate) _peer: Option<SocketAddr>,
    pub(crate) server: usize,
    pub(crate) state: State,
    pub(crate) reset: bool,
    pub(crate) recycled: bool,
    /// Requests under way.
    pub(crate) pending: u32,
    pub(crate) up: Flow,
    pub(crate) down: Flow,
    pub(crate) accepted: u64,
    pub(crate) since: u64,
    pub(crate) active: u64,
    pub(crate) armed: u64,
}

impl Conn {
    pub(crate) fn new(
        client: Client,
        peer: Option<SocketAddr>,
        server: usize,
        sock: u32,
        now: u64,
    ) -> Self {
        Self {
            client,
            sock: Some(sock),
            _peer: peer,
            server,
            state: State::Connecting,
            reset: false,
            recycled: false,
            pending: 0,
            up: Flow::new(),
            down: Flow::new(),
            accepted: now,
            since: now,
            active: now,
            armed: u64::MAX,
        }
    }

    pub(crate) fn flow(&mut self, from: End) -> &mut Flow {
        match from {
            End::Client => &mut self.up,
            End::Server => &mut self.down,
        }
    }

    /// When patience with it ends: lbd's connect timeout, half-close timeout and idle timeout.
    pub(crate) fn deadline(&self) -> u64 {
        match self.state {
            State::Connecting => self.since + 5_000_000,
            State::Relaying if self.up.ended != self.down.ended => self.active + 30_000_000,
            State::Relaying => self.active + 3_600_000_000,
            State::Dead => u64::MAX,
        }
    }
}

/// A socket towards a server, and who uses it.
pub(crate) struct Sock {
    pub(crate) fd: OwnedFd,
    pub(crate) user: u32,
    /// It got its user in this round: events of it are for the one before.
    pub(crate) fresh: u64,
}

/// The servers: one rotation, an exact limit each, and the gates of process and proxy.
pub(crate) struct Farm {
    pub(crate) servers: Vec<SocketAddr>,
    turn: AtomicUsize,
    inside: Vec<AtomicU32>,
    limit: u32,
    gates: [Gate; 2],
}

impl Farm {
    pub(crate) fn new(servers: Vec<SocketAddr>, limit: u32) -> Self {
        Self {
            turn: AtomicUsize::new(0),
            inside: servers.iter().map(|_| AtomicU32::new(0)).collect(),
            servers,
            limit,
            gates: [Gate::new(limit), Gate::new(limit)],
        }
    }

    /// A server with room, and its address.
    pub(crate) fn admit(&self) -> Option<(usize, SocketAddr)> {
        if !self.gates.iter().all(Gate::enter) {
            return None;
        }
        let server = self.turn.fetch_add(1, Ordering::SeqCst) % self.servers.len().max(1);
        let inside = self.inside.get(server)?.fetch_add(1, Ordering::SeqCst);
        if inside >= self.limit {
            self.release(server);
            return None;
        }
        Some((server, *self.servers.get(server)?))
    }

    pub(crate) fn release(&self, server: usize) {
        if let Some(inside) = self.inside.get(server) {
            inside.fetch_sub(1, Ordering::SeqCst);
        }
        for gate in &self.gates {
            gate.leave();
        }
    }
}
