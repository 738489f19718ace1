//! The engine: lbd's way of a connection, with requests to a ring in place of system calls. In the
//! mixed mode epoll tells what can be read, and the ring carries accepts, sends and closes alone.

mod relay;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types};
use lbd::net::epoll::{Epoll, Interest};
use lbd::net::{clock, tcp};
use lbd::proxy::counters::{ProxyCount, ServerCount, WorkerCounters};
use lbd::proxy::timer::{Entry, Wheel};
use slab::Slab;
use socket2::SockAddr;

use crate::conn::{Client, Conn, End, Farm, Sock, State};
use crate::ring::{Done, NONE, Ring, accepted, set_option};

/// As lbd's.
const SPARE_SOCKETS: usize = 256;
const LASTING_WINDOW: i32 = 65_535;
const RECYCLE_RECEIVED_MAX: u64 = 32 * 1024;
const TIMER_SHIFT: u32 = 12;
const LOOK_EVERY: u64 = 5_000_000;
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Buffers that may wait for one destination before its source is no longer read.
const QUEUE_MAX: u16 = 4;

/// How the ring is used.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// For everything; every socket has a descriptor, every client an address.
    Ring,
    /// Clients have neither: the least an engine could do, not enough for lbd.
    RingDirect,
    /// Beside epoll, for what can be handed over many at a time.
    Mixed,
}

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
    pub(crate) mode: Mode,
    pub(crate) ring: Ring,
    pub(crate) epoll: Epoll,
    pub(crate) conns: Slab<Conn>,
    pub(crate) socks: Slab<Sock>,
    pub(crate) round: u64,
    listener: OwnedFd,
    farm: Farm,
    addresses: Vec<SockAddr>,
    counters: WorkerCounters,
    spare: VecDeque<u32>,
    /// Receives that found no buffer.
    starved: Vec<(u32, End)>,
    wheel: Wheel,
    due: Vec<Entry>,
    started: Instant,
    now: u64,
}

impl Engine {
    pub(crate) fn new(mode: Mode, ring: Ring, listener: OwnedFd, farm: Farm) -> io::Result<Self> {
        let options = tcp::Options {
            keepalive: Some(Duration::from_secs(30)),
        };
        tcp::set_options(&listener, options)?;
        tcp::set_quickack(&listener, false)?;
        let addresses = farm.servers.iter().copied().map(SockAddr::from).collect();
        let counters = WorkerCounters::new(farm.servers.len());
        let mut engine = Self {
            mode,
            ring,
            epoll: Epoll::new()?,
            conns: Slab::new(),
            socks: Slab::new(),
            round: 0,
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

    /// Whether epoll tells what can be read.
    fn mixed(&self) -> bool {
        self.mode == Mode::Mixed
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let direct = self.mode == Mode::RingDirect;
        let close_on_exec = if direct { 0 } else { libc::SOCK_CLOEXEC };
        let request = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_NONBLOCK | close_on_exec)
            .allocate_file_index(direct);
        let request = request.build().user_data(token(What::Accept, 0));
        self.ring.push(&request)
    }

    /// At the begin of a round.
    pub(crate) fn look_at_the_clock(&mut self) {
        let since = clock::now().saturating_duration_since(self.started);
        self.now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.round += 1;
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
            conn.armed = u64::MAX;
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
        if !self.mixed() {
            self.ring.publish();
        }
        Ok(())
    }

    fn arm(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return;
        };
        let at = conn.deadline().min((self.now + LOOK_EVERY) | 0xffff);
        let tick = (at >> TIMER_SHIFT).saturating_add(1);
        if tick < conn.armed {
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
        let client = match self.mode {
            Mode::RingDirect => Client::Direct(u32::try_from(descriptor).unwrap_or(0)),
            Mode::Ring | Mode::Mixed => Client::Plain(accepted(descriptor)),
        };
        let peer = match &client {
            // lbd's accept4 tells it; a repeating accept does not.
            Client::Plain(fd) => socket2::SockRef::from(fd).peer_addr()?.as_socket(),
            Client::Direct(_) | Client::Gone => None,
        };
        self.counters.add(ProxyCount::Accepted, 1);
        let Some((server, addr)) = self.farm.admit() else {
            return self.close(client);
        };
        self.counters.add_server(server, ServerCount::Attempts, 1);
        let recycled = self.spare.pop_back();
        let sock = match recycled {
            Some(sock) => {
                self.counters.add_server(server, ServerCount::Recycled, 1);
                sock
            }
            None => self.new_sock(addr)?,
        };
        let mut conn = Conn::new(client, peer, server, sock, self.now);
        conn.recycled = recycled.is_some();
        let slot = u32::try_from(self.conns.insert(conn)).map_err(io::Error::other)?;
        let Some(entry) = self.socks.get_mut(place(sock)) else {
            return Ok(());
        };
        (entry.user, entry.fresh) = (slot, self.round);
        let fd = entry.fd.as_fd();
        if self.mode == Mode::Mixed {
            let finished = tcp::connect(fd, addr)?;
            if recycled.is_none() {
                watch(&self.epoll, fd, 1 << 32 | u64::from(sock), true)?;
            }
            if let Some(Client::Plain(fd)) = self.conns.get(place(slot)).map(|c| &c.client) {
                watch(&self.epoll, fd.as_fd(), u64::from(slot), false)?;
            }
            if finished {
                self.connected(slot, true)?;
            }
        } else {
            let fd = types::Fd(fd.as_raw_fd());
            if let Some(addr) = self.addresses.get(server) {
                let request = opcode::Connect::new(fd, addr.as_ptr().cast(), addr.len());
                self.submit(slot, &request.build(), What::Connect)?;
            }
            self.receive(slot, End::Client)?;
        }
        self.arm(slot);
        Ok(())
    }

    fn new_sock(&mut self, addr: SocketAddr) -> io::Result<u32> {
        let fd = tcp::stream_socket(addr)?;
        tcp::set_options(&fd, tcp::Options { keepalive: None })?;
        set_option(&fd, libc::TCP_DEFER_ACCEPT, 1)?;
        let sock = Sock {
            fd,
            user: 0,
            fresh: 0,
        };
        u32::try_from(self.socks.insert(sock)).map_err(io::Error::other)
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
        if self.mixed() {
            self.receive(slot, End::Client)?;
        }
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

    /// The socket at one end of a connection: its number, and whether the ring alone knows it.
    fn number(&self, slot: u32, end: End) -> Option<(types::Fd, squeue::Flags)> {
        let conn = self.conns.get(place(slot))?;
        let plain = squeue::Flags::empty();
        Some(match (end, &conn.client) {
            (End::Server, _) => (types::Fd(self.server_fd(conn)?.as_raw_fd()), plain),
            (End::Client, Client::Plain(fd)) => (types::Fd(fd.as_raw_fd()), plain),
            (End::Client, Client::Direct(index)) => {
                let index = i32::try_from(*index).ok()?;
                (types::Fd(index), squeue::Flags::FIXED_FILE)
            }
            (End::Client, Client::Gone) => return None,
        })
    }

    fn server_fd(&self, conn: &Conn) -> Option<BorrowedFd<'_>> {
        Some(self.socks.get(place(conn.sock?))?.fd.as_fd())
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
                self.release(buffer);
                buffer = next.unwrap_or(NONE);
            }
        }
        let fits = conn.down.bytes <= RECYCLE_RECEIVED_MAX;
        let in_order = conn.up.finished && !conn.down.finished && !conn.reset && fits;
        if let Some(sock) = conn.sock.take()
            && !(in_order && self.recycle(sock))
            && let Some(sock) = self.socks.try_remove(place(sock))
        {
            if conn.reset {
                tcp::reset_on_close(&sock.fd)?;
            }
            self.close(Client::Plain(sock.fd))?;
        }
        if let (true, Client::Plain(fd)) = (conn.reset, &conn.client) {
            tcp::reset_on_close(fd)?;
        }
        let client = std::mem::replace(&mut conn.client, Client::Gone);
        self.close(client)
    }

    /// As lbd does it.
    fn recycle(&mut self, sock: u32) -> bool {
        let Some(entry) = self.socks.get_mut(place(sock)) else {
            return false;
        };
        let kept = self.spare.len() < SPARE_SOCKETS
            && set_option(&entry.fd, libc::TCP_WINDOW_CLAMP, 0).is_ok()
            && tcp::disconnect(&entry.fd).is_ok();
        if kept {
            entry.user = u32::MAX;
            self.spare.push_back(sock);
        }
        kept
    }

    fn close(&mut self, socket: Client) -> io::Result<()> {
        let request = match socket {
            Client::Plain(fd) => opcode::Close::new(types::Fd(fd.into_raw_fd())).build(),
            Client::Direct(index) => opcode::Close::new(types::Fixed(index)).build(),
            Client::Gone => return Ok(()),
        };
        let request = request.flags(squeue::Flags::SKIP_SUCCESS);
        self.ring.push(&request.user_data(token(What::Nothing, 0)))
    }
}

fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, token: u64, write: bool) -> io::Result<()> {
    let read = Interest::READ | Interest::READ_CLOSED | Interest::URGENT | Interest::EDGE;
    let interest = if write { read | Interest::WRITE } else { read };
    epoll.add(fd, token, interest)
}
