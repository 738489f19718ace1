//! What the engine knows of a connection, of its sockets and of the servers: as much as lbd does
//! on the way of a connection without faults. No requests here.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use io_uring::types;
use lbd::proxy::gate::Gate;
use lbd::proxy::timer::Due;

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
    pub(crate) client: OwnedFd,
    pub(crate) sock: OwnedFd,
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
    pub(crate) armed: Due,
}

impl Conn {
    pub(crate) fn new(
        client: OwnedFd,
        peer: Option<SocketAddr>,
        server: usize,
        sock: OwnedFd,
        now: u64,
    ) -> Self {
        Self {
            client,
            sock,
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
            armed: Due::NEVER,
        }
    }

    pub(crate) fn flow(&mut self, from: End) -> &mut Flow {
        match from {
            End::Client => &mut self.up,
            End::Server => &mut self.down,
        }
    }

    pub(crate) fn fd(&self, end: End) -> types::Fd {
        types::Fd(match end {
            End::Client => self.client.as_raw_fd(),
            End::Server => self.sock.as_raw_fd(),
        })
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
