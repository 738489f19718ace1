//! The engine: lbd's way of a connection, with requests to a ring in place of system calls.

mod relay;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types};
use lbd::net::{clock, tcp};
use lbd::proxy::counters::{ProxyCount, ServerCount, WorkerCounters};
use lbd::proxy::timer::{Due, Entry, Wheel};
use slab::Slab;
use socket2::SockAddr;

use crate::conn::{Conn, End, Farm, State};
use crate::ring::{Done, NONE, Ring, accepted};

/// As lbd's.
const SPARE_SOCKETS: usize = 256;
const LASTING_WINDOW: u16 = 65_535;
const RECYCLE_RECEIVED_MAX: u64 = 32 * 1024;
const TIMER_SHIFT: u32 = 12;
const LOOK_EVERY: u64 = 5_000_000;
const TICK: Duration = Duration::from_millis(50);
/// Buffers that may wait for one destination before its source is no longer read.
const QUEUE_MAX: u16 = 4;

/// What a request was for; the upper half of its token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Accept,
    Connect,
    Recv(End),
    /// Of what came from there.
    Send(End),
    Nothing,
}

fn token(what: What, slot: u32) -> u64 {
    let number: u64 = match what {
        What::Accept => 0,
        What::Connect => 1,
        What::Recv(End::Client) => 2,
        What::Recv(End::Server) => 3,
        What::Send(End::Client) => 4,
        What::Send(End::Server) => 5,
        What::Nothing => 6,
    };
    number << 32 | u64::from(slot)
}

fn parse(token: u64) -> (What, u32) {
    let what = match token >> 32 {
        0 => What::Accept,
        1 => What::Connect,
        2 => What::Recv(End::Client),
        3 => What::Recv(End::Server),
        4 => What::Send(End::Client),
        5 => What::Send(End::Server),
        _ => What::Nothing,
    };
    (
        what,
        u32::try_from(token & u64::from(u32::MAX)).unwrap_or(0),
    )
}

fn place(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// One worker.
pub(crate) struct Engine {
    pub(crate) ring: Ring,
    conns: Slab<Conn>,
    listener: OwnedFd,
    farm: Farm,
    addresses: Vec<SockAddr>,
    counters: WorkerCounters,
    spare: VecDeque<OwnedFd>,
    /// Receives that found no buffer.
    starved: Vec<(u32, End)>,
    wheel: Wheel,
    due: Vec<Entry>,
    started: Instant,
    now: u64,
}

impl Engine {
    pub(crate) fn new(ring: Ring, listener: OwnedFd, farm: Farm) -> io::Result<Self> {
        let options = tcp::Options {
            keepalive: Some(Duration::from_secs(30)),
        };
        tcp::set_options(&listener, options)?;
        tcp::set_quickack(&listener, false)?;
        let addresses = farm.servers.iter().copied().map(SockAddr::from).collect();
        let counters = WorkerCounters::new(farm.servers.len());
        let mut engine = Self {
            ring,
            conns: Slab::new(),
            listener,
            farm,
            addresses,
            counters,
            spare: VecDeque::new(),
            starved: Vec::new(),
            wheel: Wheel::new(0),
            due: Vec::new(),
            started: clock::now(),
            now: 0,
        };
        engine.arm_accept()?;
        Ok(engine)
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let request = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let request = request.build().user_data(token(What::Accept, 0));
        self.ring.push(&request)
    }

    /// At the begin of a round.
    pub(crate) fn look_at_the_clock(&mut self) {
        let since = clock::now().saturating_duration_since(self.started);
        self.now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    }

    /// How long to wait at most.
    pub(crate) fn patience(&self) -> Duration {
        let next = self.wheel.next_within(13).map_or(TICK, |tick| {
            Duration::from_micros((tick << TIMER_SHIFT).saturating_sub(self.now))
        });
        next.min(TICK)
    }

    /// At the end of a round.
    pub(crate) fn on_timers(&mut self) -> io::Result<()> {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now >> TIMER_SHIFT, &mut due);
        for entry in due.drain(..) {
            let now = self.now;
            let Some(conn) = self.conns.get_mut(place(entry.key)) else {
                continue;
            };
            if !entry.is_for(conn.armed) {
                continue;
            }
            conn.armed = Due::NEVER;
            if now < conn.deadline() {
                self.arm(entry.key);
            } else {
                self.abort(entry.key)?;
            }
        }
        self.due = due;
        for (slot, end) in std::mem::take(&mut self.starved) {
            if self.ring.free > 0 {
                self.receive(slot, end)?;
            } else {
                self.starved.push((slot, end));
            }
        }
        self.ring.publish();
        Ok(())
    }

    fn arm(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return;
        };
        let at = conn.deadline().min((self.now + LOOK_EVERY) | 0xffff);
        let tick = (at >> TIMER_SHIFT).saturating_add(1);
        if conn.armed.is_after(tick, self.now >> TIMER_SHIFT) {
            conn.armed = self.wheel.arm(slot, tick);
        }
    }

    /// A request has come to something.
    pub(crate) fn on_done(&mut self, done: Done) -> io::Result<()> {
        let (what, slot) = parse(done.token);
        match what {
            What::Accept => {
                if !cqueue::more(done.flags) {
                    self.arm_accept()?;
                }
                if done.result >= 0 {
                    self.begin(done.result)?;
                } else {
                    self.counters.add(ProxyCount::AcceptErrors, 1);
                }
                Ok(())
            }
            What::Connect => {
                self.less_pending(slot)?;
                self.connected(slot, done.result >= 0)
            }
            What::Recv(end) => self.on_received(slot, end, done),
            What::Send(end) => self.on_sent(slot, end, done.result),
            What::Nothing => Ok(()),
        }
    }

    fn less_pending(&mut self, slot: u32) -> io::Result<()> {
        if let Some(conn) = self.conns.get_mut(place(slot)) {
            conn.pending -= 1;
            if conn.pending == 0 && conn.state == State::Dead {
                self.bury(slot)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, descriptor: i32) -> io::Result<()> {
        let client = accepted(descriptor);
        // lbd's accept4 tells it; a repeating accept does not.
        let peer = socket2::SockRef::from(&client).peer_addr()?.as_socket();
        self.counters.add(ProxyCount::Accepted, 1);
        let Some((server, addr)) = self.farm.admit() else {
            return self.close(client);
        };
        self.counters.add_server(server, ServerCount::Attempts, 1);
        let spare = self.spare.pop_back();
        let recycled = spare.is_some();
        let sock = match spare {
            Some(sock) => {
                self.counters.add_server(server, ServerCount::Recycled, 1);
                sock
            }
            None => new_sock(addr)?,
        };
        let mut conn = Conn::new(client, peer, server, sock, self.now);
        conn.recycled = recycled;
        let fd = conn.fd(End::Server);
        let slot = u32::try_from(self.conns.insert(conn)).map_err(io::Error::other)?;
        if let Some(addr) = self.addresses.get(server) {
            let request = opcode::Connect::new(fd, addr.as_ptr().cast(), addr.len());
            self.submit(slot, &request.build(), What::Connect)?;
        }
        self.receive(slot, End::Client)?;
        self.arm(slot);
        Ok(())
    }

    /// The server has answered.
    pub(crate) fn connected(&mut self, slot: u32, well: bool) -> io::Result<()> {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        if conn.state != State::Connecting {
            return Ok(());
        }
        if !well {
            self.counters
                .add_server(conn.server, ServerCount::Refused, 1);
            return self.abort(slot);
        }
        conn.state = State::Relaying;
        let took = now - conn.since;
        (conn.since, conn.active) = (now, now);
        let counters = &self.counters;
        counters.add_server(conn.server, ServerCount::Connected, 1);
        counters.add_server(conn.server, ServerCount::ConnectMicros, took);
        self.receive(slot, End::Server)?;
        self.pump(slot, End::Client)?;
        self.pass_on_ends(slot)
    }

    fn submit(&mut self, slot: u32, request: &squeue::Entry, what: What) -> io::Result<()> {
        if let Some(conn) = self.conns.get_mut(place(slot)) {
            conn.pending += 1;
        }
        self.ring
            .push(&request.clone().user_data(token(what, slot)))
    }

    /// Ends a connection with RST at both ends, once its requests have ended.
    pub(crate) fn abort(&mut self, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        if conn.state == State::Dead {
            return Ok(());
        }
        conn.reset = true;
        for what in [
            What::Connect,
            What::Recv(End::Client),
            What::Recv(End::Server),
            What::Send(End::Client),
            What::Send(End::Server),
        ] {
            self.cancel(slot, what)?;
        }
        self.counters.add(ProxyCount::ClientAborts, 1);
        self.end(slot)
    }

    fn end(&mut self, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        conn.state = State::Dead;
        self.farm.release(conn.server);
        let counters = &self.counters;
        counters.add_server(conn.server, ServerCount::Ended, 1);
        let total = self.now - conn.accepted;
        counters.add_server(conn.server, ServerCount::TotalMicros, total);
        match conn.pending {
            0 => self.bury(slot),
            _ => Ok(()),
        }
    }

    /// Leaves both sockets of a connection that is over, and frees its slot.
    fn bury(&mut self, slot: u32) -> io::Result<()> {
        let Some(mut conn) = self.conns.try_remove(place(slot)) else {
            return Ok(());
        };
        for end in [End::Client, End::Server] {
            let mut buffer = conn.flow(end).head;
            while buffer != NONE {
                let next = self.ring.next.get(usize::from(buffer)).copied();
                self.ring.give_back(buffer);
                buffer = next.unwrap_or(NONE);
            }
        }
        let fits = conn.down.bytes <= RECYCLE_RECEIVED_MAX;
        let in_order = conn.up.finished && !conn.down.finished && !conn.reset && fits;
        let Conn { client, sock, .. } = conn;
        if conn.reset {
            tcp::reset_on_close(&sock)?;
            tcp::reset_on_close(&client)?;
        }
        if in_order && self.can_recycle(&sock) {
            self.spare.push_back(sock);
        } else {
            self.close(sock)?;
        }
        self.close(client)
    }

    /// As lbd does it.
    fn can_recycle(&self, sock: &OwnedFd) -> bool {
        self.spare.len() < SPARE_SOCKETS
            && tcp::is_closed(sock).is_ok_and(|closed| closed)
            && tcp::disconnect(sock).is_ok()
    }

    fn close(&mut self, socket: OwnedFd) -> io::Result<()> {
        let request = opcode::Close::new(types::Fd(socket.into_raw_fd())).build();
        let request = request.flags(squeue::Flags::SKIP_SUCCESS);
        self.ring.push(&request.user_data(token(What::Nothing, 0)))
    }
}

fn new_sock(addr: SocketAddr) -> io::Result<OwnedFd> {
    let fd = tcp::stream_socket(addr)?;
    tcp::set_options(&fd, tcp::Options { keepalive: None })?;
    tcp::defer_handshake(&fd)?;
    Ok(fd)
}
