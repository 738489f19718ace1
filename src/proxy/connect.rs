//! From an accepted connection to its end: a server is found and connected, bytes are relayed,
//! and both sockets are left the way the connection ended. Server sockets of connections that
//! ended in order are recycled.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use slab::Slab;

use super::conn::{Conn, Side, State};
use super::counters::{ProxyCount, ServerCount};
use super::dispatch::{Admission, Turn as Place};
use super::queue::Ticket;
use super::relay::{Path, Turn};
use super::termination::{AccessRecord, Cause, Counts, Phase, Termination};
use super::worker::{Leave, Settings, Token, Worker};
use crate::net::epoll::{Epoll, Interest};
use crate::net::{clock, tcp};

/// Idle server sockets a worker keeps for each address family.
const SPARE_SOCKETS: usize = 256;
/// How often spare sockets that nobody needed are closed, microseconds.
const TRIM_EVERY: u64 = 1_000_000;

/// A socket towards a server.
#[derive(Debug)]
struct Sock {
    fd: OwnedFd,
    v6: bool,
    /// The connection that uses it.
    user: Option<u32>,
    /// The round in which that connection got it: events of that round are its predecessor's.
    since: u64,
}

/// A worker's sockets towards servers, in use and spare. A spare one stays registered under its
/// token.
#[derive(Debug)]
pub(super) struct Sockets {
    socks: Slab<Sock>,
    spare: [Vec<u32>; 2],
    /// The fewest spares since the last trim.
    unused: [usize; 2],
    trimmed: u64,
    graves: Vec<u32>,
    /// Held back so that a connection that was accepted still finds a descriptor.
    reserve: Option<OwnedFd>,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self {
            socks: Slab::new(),
            spare: [Vec::new(), Vec::new()],
            unused: [0; 2],
            trimmed: 0,
            graves: Vec::new(),
            reserve: reserve(),
        }
    }

    fn sock(&self, sock: u32) -> Option<&Sock> {
        self.socks.get(usize::try_from(sock).ok()?)
    }

    fn fd(&self, sock: u32) -> Option<BorrowedFd<'_>> {
        self.sock(sock).map(|sock| sock.fd.as_fd())
    }

    /// The connection that an event of `round` is for.
    pub(super) fn user_of(&self, sock: u32, round: u64) -> Option<u32> {
        let sock = self.sock(sock)?;
        if sock.since == round {
            return None;
        }
        sock.user
    }

    /// A recycled socket for `user`.
    fn reuse(&mut self, v6: bool, user: u32, round: u64) -> Option<u32> {
        let family = usize::from(v6);
        let spare = self.spare.get_mut(family)?;
        let sock = spare.pop()?;
        if let Some(unused) = self.unused.get_mut(family) {
            *unused = (*unused).min(spare.len());
        }
        let entry = self.socks.get_mut(usize::try_from(sock).ok()?)?;
        entry.user = Some(user);
        entry.since = round;
        Some(sock)
    }

    /// A new socket for `user`; with no descriptor left, the reserve makes room for it.
    fn create(&mut self, addr: SocketAddr, user: u32, round: u64) -> io::Result<u32> {
        let fd = match tcp::stream_socket(addr) {
            Err(error) if is_exhausted(&error) && self.reserve.take().is_some() => {
                tcp::stream_socket(addr)?
            }
            outcome => outcome?,
        };
        let sock = Sock {
            fd,
            v6: addr.is_ipv6(),
            user: Some(user),
            since: round,
        };
        u32::try_from(self.socks.insert(sock)).map_err(io::Error::other)
    }

    /// Gives a socket up: nobody uses it any more, and it is closed when the round ends.
    fn close(&mut self, sock: u32) {
        self.graves.push(sock);
        if let Ok(index) = usize::try_from(sock)
            && let Some(entry) = self.socks.get_mut(index)
        {
            entry.user = None;
        }
    }

    /// Keeps a socket whose connection is over for another; `false`: it can't be kept.
    fn recycle(&mut self, sock: u32) -> bool {
        let Some(entry) = usize::try_from(sock)
            .ok()
            .and_then(|index| self.socks.get_mut(index))
        else {
            return false;
        };
        let family = usize::from(entry.v6);
        let Some(spare) = self.spare.get_mut(family) else {
            return false;
        };
        if spare.len() >= SPARE_SOCKETS
            || !tcp::is_closed(&entry.fd).unwrap_or(false)
            || tcp::disconnect(&entry.fd).is_err()
        {
            return false;
        }
        entry.user = None;
        spare.push(sock);
        true
    }

    /// Once in a while: closes half of the spares that nobody needed, refills the reserve.
    pub(super) fn trim(&mut self, now: u64) {
        if now < self.trimmed + TRIM_EVERY {
            return;
        }
        self.trimmed = now;
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
        for family in 0..self.spare.len() {
            let unused = self.unused.get(family).copied().unwrap_or(0);
            for _ in 0..unused.div_ceil(2) {
                if let Some(sock) = self.spare.get_mut(family).and_then(|s| {
                    // From the cold end.
                    (!s.is_empty()).then(|| s.remove(0))
                }) {
                    self.close(sock);
                }
            }
            if let (Some(unused), Some(spare)) =
                (self.unused.get_mut(family), self.spare.get(family))
            {
                *unused = spare.len();
            }
        }
    }

    /// Frees the places of what was closed in this round.
    pub(super) fn bury(&mut self) {
        for sock in self.graves.drain(..) {
            if let Ok(index) = usize::try_from(sock) {
                self.socks.try_remove(index);
            }
        }
    }
}

fn reserve() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl Worker {
    /// A connection was accepted.
    pub(super) fn begin(&mut self, conn: Conn) {
        let proxy = usize::from(conn.proxy);
        let serial = conn.serial;
        let Ok(slot) = u32::try_from(self.conns.insert(conn)) else {
            return;
        };
        let Some(settings) = self.proxies.get(proxy) else {
            return;
        };
        settings.counters.add(ProxyCount::Accepted, 1);
        let client_first = settings.client_first;
        self.seek(slot, Place::First);
        let Some(conn) = self.conn(slot).filter(|c| c.state != State::Dead) else {
            return;
        };
        let interest = Interest::READ | Interest::READ_CLOSED | Interest::URGENT | Interest::EDGE;
        let watched = conn.client.as_ref().map_or(Ok(()), |client| {
            self.epoll.add(client, Token::Client(slot).pack(), interest)
        });
        if let Err(error) = watched {
            tracing::debug!(%error, "client can't be watched");
            self.end_for_want(slot);
            return;
        }
        if client_first {
            self.note_silent(slot, serial);
        }
    }

    fn ticket(&self, slot: u32, conn: &Conn) -> Ticket {
        Ticket {
            worker: self.number,
            slot,
            serial: conn.serial,
        }
    }

    /// Looks for a server, as often as connects fail at once and there is another try.
    fn seek(&mut self, slot: u32, place: Place) {
        let mut place = place;
        loop {
            let Some((conn, settings)) = self.conn_and_settings(slot) else {
                return;
            };
            let admission = settings
                .farm
                .admit(self.ticket(slot, conn), conn.tried, place);
            match admission {
                Admission::Server(server) => match self.connect(slot, server) {
                    Ok(()) => return,
                    Err(error) => {
                        if !self.give_up_on(slot, Cause::Server, &error) {
                            return;
                        }
                        place = Place::Again;
                    }
                },
                Admission::Queued(before) => {
                    let now = self.now;
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.state = State::Queued;
                        conn.since = now;
                        conn.queued_behind = u32::try_from(before).unwrap_or(u32::MAX);
                    }
                    self.arm(slot);
                    return;
                }
                Admission::NoServer => {
                    self.refuse_no_server(slot);
                    return;
                }
                Admission::QueueFull => {
                    settings.counters.add(ProxyCount::QueueFull, 1);
                    let end = Termination::new(Cause::Server, Phase::Queue);
                    self.end(slot, end, Leave::Reset);
                    return;
                }
            }
        }
    }

    /// No server takes new connections.
    pub(super) fn refuse_no_server(&mut self, slot: u32) {
        if let Some((_, settings)) = self.conn_and_settings(slot) {
            settings.counters.add(ProxyCount::NoServer, 1);
        }
        self.end(slot, Termination::NO_SERVER, Leave::Reset);
    }

    /// A waiting connection has a slot on a server.
    pub(super) fn granted(&mut self, slot: u32, server: usize) {
        let now = self.now;
        if let Some((conn, settings)) = self.conn_and_settings(slot) {
            settings.counters.add(ProxyCount::Queued, 1);
            let waited = now.saturating_sub(conn.since);
            settings.counters.add(ProxyCount::QueueMicros, waited);
        }
        if let Err(error) = self.connect(slot, server)
            && self.give_up_on(slot, Cause::Server, &error)
        {
            self.seek(slot, Place::Again);
        }
    }

    /// Begins to connect to `server`, on which the connection holds a slot.
    fn connect(&mut self, slot: u32, server: usize) -> io::Result<()> {
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return Ok(());
        };
        if conn.queue_time.is_none() {
            conn.queue_time = u32::try_from(now.saturating_sub(conn.accepted)).ok();
        }
        conn.redispatched |= conn.tried != super::queue::Tried::default();
        conn.server = u16::try_from(server).ok();
        conn.state = State::Connecting;
        conn.since = now;
        conn.server_side = Side::default();
        let Some((_, settings)) = self.conn_and_settings(slot) else {
            return Ok(());
        };
        settings
            .counters
            .add_server(server, ServerCount::Attempts, 1);
        let Some(addr) = settings.addresses.get(server).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (options, client_first) = (settings.options, settings.client_first);
        let recycled = self.socks.reuse(addr.is_ipv6(), slot, self.round);
        let sock = match recycled {
            Some(sock) => sock,
            None => self.socks.create(addr, slot, self.round)?,
        };
        if let Some(conn) = self.conn_mut(slot) {
            conn.sock = Some(sock);
        }
        let Some(fd) = self.socks.fd(sock) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if recycled.is_none() {
            tcp::set_options(fd, options)?;
        } else if let Some((_, settings)) = self.conn_and_settings(slot) {
            settings
                .counters
                .add_server(server, ServerCount::Recycled, 1);
        }
        if client_first {
            tcp::set_quickack(fd, false)?;
        }
        let finished = tcp::connect(fd, addr)?;
        if recycled.is_none() {
            watch_server(&self.epoll, fd, sock)?;
        }
        if finished {
            self.connected(slot);
        } else {
            self.arm(slot);
        }
        Ok(())
    }

    /// The server has accepted.
    pub(super) fn connected(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let took = now.saturating_sub(conn.since);
        conn.state = State::Relaying;
        conn.since = now;
        conn.active = now;
        conn.connect_time = u32::try_from(took).ok();
        conn.server_side.writable = true;
        let server = conn.server.map(usize::from);
        if let (Some(server), Some((_, settings))) = (server, self.conn_and_settings(slot)) {
            settings
                .counters
                .add_server(server, ServerCount::Connected, 1);
            settings
                .counters
                .add_server(server, ServerCount::ConnectMicros, took);
        }
        self.relay(slot);
    }

    /// A connect was refused, or had no answer in time.
    pub(super) fn connect_failed(&mut self, slot: u32, cause: Cause) {
        let error = self
            .conn(slot)
            .and_then(|conn| self.socks.fd(conn.sock?))
            .and_then(|fd| tcp::take_error(fd).ok().flatten())
            .unwrap_or_else(|| io::ErrorKind::TimedOut.into());
        if self.give_up_on(slot, cause, &error) {
            self.seek(slot, Place::Again);
        }
    }

    /// Leaves the server that a connect failed on. `true`: there is another try; `false`: the
    /// connection has ended.
    fn give_up_on(&mut self, slot: u32, cause: Cause, error: &io::Error) -> bool {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        let again = conn.retries < settings.retries;
        if let Some(server) = conn.server.map(usize::from) {
            let what = if cause == Cause::ServerTimeout {
                ServerCount::ConnectTimeout
            } else {
                ServerCount::Refused
            };
            settings.counters.add_server(server, what, 1);
            settings
                .counters
                .add_server(server, ServerCount::Retries, u64::from(again));
            settings.farm.suspect(server);
            tracing::debug!(
                proxy = settings.farm.name(), server, client = %conn.peer, %error, "connect failed"
            );
        }
        if !again {
            let cause = if is_exhausted(error) {
                Cause::Resource
            } else {
                cause
            };
            if cause == Cause::Resource {
                settings.counters.add(ProxyCount::Resource, 1);
            }
            self.end(slot, Termination::new(cause, Phase::Connect), Leave::Reset);
            return false;
        }
        if let Some(conn) = self.conn_mut(slot) {
            conn.retries = conn.retries.saturating_add(1);
        }
        self.leave_server(slot);
        true
    }

    /// The server of a connect in flight went down.
    pub(super) fn send_elsewhere(&mut self, slot: u32) {
        self.leave_server(slot);
        self.seek(slot, Place::Again);
    }

    /// Drops the attempt on the present server, and remembers it.
    fn leave_server(&mut self, slot: u32) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let (sock, server) = (conn.sock.take(), conn.server.take().map(usize::from));
        conn.state = State::Queued;
        if let Some(server) = server {
            conn.tried.mark(server);
        }
        if let Some(sock) = sock {
            self.socks.close(sock);
        }
        if let (Some(server), Some((_, settings))) = (server, self.conn_and_settings(slot)) {
            settings
                .counters
                .add_server(server, ServerCount::Redispatches, 1);
            settings.farm.release(server);
        }
    }

    /// Moves bytes both ways as far as they go.
    pub(super) fn relay(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let (Some(client), Some(server)) = (
            conn.client.as_ref().map(AsFd::as_fd),
            conn.sock.and_then(|sock| self.socks.fd(sock)),
        ) else {
            return;
        };
        let (moved_up, up) = Path {
            from: client,
            from_side: &mut conn.client_side,
            to: server,
            to_side: &mut conn.server_side,
            flow: &mut conn.up,
        }
        .turn(&mut self.kit);
        let (moved_down, down) = Path {
            from: server,
            from_side: &mut conn.server_side,
            to: client,
            to_side: &mut conn.client_side,
            flow: &mut conn.down,
        }
        .turn(&mut self.kit);
        let watch_write = !conn.client_side.writable && !conn.watches_write;
        if watch_write {
            conn.watches_write = true;
        }
        if moved_up + moved_down > 0 {
            conn.active = now;
        }
        let client_broken =
            conn.client_side.broken || up == Turn::SourceBroken || down == Turn::DestinationBroken;
        let server_broken =
            conn.server_side.broken || down == Turn::SourceBroken || up == Turn::DestinationBroken;
        let more = (up == Turn::More || down == Turn::More) && !conn.runnable;
        conn.runnable |= more;
        if more {
            self.runnable.push(slot);
        }
        self.count(slot, moved_up, moved_down);
        if watch_write {
            self.watch_client_write(slot);
        }
        if client_broken || server_broken {
            self.broke_off(slot, client_broken, server_broken);
        } else {
            self.pass_on_ends(slot);
        }
    }

    fn count(&mut self, slot: u32, up: usize, down: usize) {
        let spliced = std::mem::take(&mut self.kit.spliced);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let server = conn.server.map_or(usize::MAX, usize::from);
        let counters = &settings.counters;
        if up > 0 {
            let up = u64::try_from(up).unwrap_or(0);
            counters.add(ProxyCount::BytesIn, up);
            counters.add_server(server, ServerCount::BytesIn, up);
        }
        if down > 0 {
            let down = u64::try_from(down).unwrap_or(0);
            counters.add(ProxyCount::BytesOut, down);
            counters.add_server(server, ServerCount::BytesOut, down);
        }
        if spliced > 0 {
            counters.add(ProxyCount::Spliced, spliced);
        }
    }

    /// After its first short write a client is watched for room, too.
    fn watch_client_write(&mut self, slot: u32) {
        let interest = Interest::READ
            | Interest::WRITE
            | Interest::READ_CLOSED
            | Interest::URGENT
            | Interest::EDGE;
        let watched = self
            .conn(slot)
            .and_then(|conn| conn.client.as_ref())
            .map_or(Ok(()), |client| {
                self.epoll
                    .modify(client, Token::Client(slot).pack(), interest)
            });
        if let Err(error) = watched {
            tracing::debug!(%error, "client can't be watched");
            self.end_for_want(slot);
        }
    }

    /// Passes the end of a stream on behind its last byte, and ends what is finished.
    fn pass_on_ends(&mut self, slot: u32) {
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state != State::Relaying {
            return;
        }
        if conn.up.is_done() && conn.down.is_done() {
            // Closing sends the second FIN.
            let in_order = conn.up.finished && !conn.down.finished;
            let leave = if in_order {
                Leave::InOrder
            } else {
                Leave::Close
            };
            self.end(slot, Termination::NORMAL, leave);
            return;
        }
        if conn.up.is_done() && !conn.up.finished {
            conn.up.finished = true;
            let fd = conn.sock.and_then(|sock| self.socks.fd(sock));
            conn.server_side.broken |= fd.is_some_and(|fd| tcp::finish(fd).is_err());
        }
        if conn.down.is_done() && !conn.down.finished {
            conn.down.finished = true;
            let fd = conn.client.as_ref();
            conn.client_side.broken |= fd.is_some_and(|fd| tcp::finish(fd).is_err());
        }
        let (client, server) = (conn.client_side.broken, conn.server_side.broken);
        if client || server {
            self.broke_off(slot, client, server);
        } else {
            self.arm(slot);
        }
    }

    /// One side is gone. What it sent still goes to the other, and then its RST.
    fn broke_off(&mut self, slot: u32, client: bool, server: bool) {
        let now = self.now;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state != State::Relaying {
            return;
        }
        conn.client_side.broken |= client;
        conn.server_side.broken |= server;
        let phase = conn.phase();
        conn.broke_in = phase;
        if client {
            conn.client_side.readable = true;
            conn.down.cut(&mut self.kit);
        }
        if server {
            conn.server_side.readable = true;
            conn.up.cut(&mut self.kit);
        }
        conn.state = State::Flushing;
        conn.since = now;
        let index = conn.server.map_or(usize::MAX, usize::from);
        if let Some((_, settings)) = self.conn_and_settings(slot) {
            let counters = &settings.counters;
            if client {
                counters.add(ProxyCount::ClientAborts, 1);
                counters.add_server(index, ServerCount::ClientAborts, 1);
            } else {
                counters.add(ProxyCount::ServerAborts, 1);
                counters.add_server(index, ServerCount::ServerAborts, 1);
            }
        }
        let cause = if client { Cause::Client } else { Cause::Server };
        if client && server {
            self.end(slot, Termination::new(cause, phase), Leave::Reset);
        } else {
            self.flush_on(slot);
        }
    }

    /// Goes on with delivering what a side sent before it broke off. Once the other side has
    /// acknowledged all of it, it gets RST.
    pub(super) fn flush_on(&mut self, slot: u32) {
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let (Some(client), Some(server)) = (
            conn.client.as_ref().map(AsFd::as_fd),
            conn.sock.and_then(|sock| self.socks.fd(sock)),
        ) else {
            return;
        };
        let client_broken = conn.client_side.broken;
        let (both, target) = (
            client_broken && conn.server_side.broken,
            if client_broken { server } else { client },
        );
        let mut path = if client_broken {
            Path {
                from: client,
                from_side: &mut conn.client_side,
                to: server,
                to_side: &mut conn.server_side,
                flow: &mut conn.up,
            }
        } else {
            Path {
                from: server,
                from_side: &mut conn.server_side,
                to: client,
                to_side: &mut conn.client_side,
                flow: &mut conn.down,
            }
        };
        let (moved, turn) = path.turn(&mut self.kit);
        path.flow.ended |= turn == Turn::SourceBroken;
        let exhausted = path.flow.is_done();
        let lost = both || turn == Turn::DestinationBroken;
        let delivered = exhausted && tcp::unsent(target).map_or(true, |bytes| bytes == 0);
        let serial = conn.serial;
        let phase = conn.phase();
        let (up, down) = if client_broken {
            (moved, 0)
        } else {
            (0, moved)
        };
        let watch_write = !conn.client_side.writable && !conn.watches_write;
        conn.watches_write |= watch_write;
        self.count(slot, up, down);
        if watch_write {
            self.watch_client_write(slot);
        }
        if lost || delivered {
            let cause = if client_broken {
                Cause::Client
            } else {
                Cause::Server
            };
            self.end(slot, Termination::new(cause, phase), Leave::Reset);
        } else {
            if exhausted || turn == Turn::More {
                self.look_again(slot, serial);
            }
            self.arm(slot);
        }
    }

    fn end_for_want(&mut self, slot: u32) {
        if let Some((conn, settings)) = self.conn_and_settings(slot) {
            settings.counters.add(ProxyCount::Resource, 1);
            let end = Termination::new(Cause::Resource, conn.phase());
            self.end(slot, end, Leave::Reset);
        }
    }

    /// Ends a connection: its sockets, its slot, its places, its record.
    pub(super) fn end(&mut self, slot: u32, end: Termination, leave: Leave) {
        let now = self.now;
        let number = self.number;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state == State::Dead {
            return;
        }
        let queued = conn.state == State::Queued;
        conn.state = State::Dead;
        conn.up.cut(&mut self.kit);
        conn.down.cut(&mut self.kit);
        let (client, sock) = (conn.client.take(), conn.sock.take());
        let ticket = Ticket {
            worker: number,
            slot,
            serial: conn.serial,
        };
        if let Some(sock) = sock {
            self.leave_sock(sock, leave);
        }
        let local = self.close_client(client, leave);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let server = conn.server.map(usize::from);
        let mut srv_conn = 0;
        if let Some(server) = server {
            srv_conn = settings.farm.release(server).saturating_add(1);
            let counters = &settings.counters;
            counters.add_server(server, ServerCount::Ended, 1);
            let total = now.saturating_sub(conn.accepted);
            counters.add_server(server, ServerCount::TotalMicros, total);
        } else if queued {
            settings.farm.leave(ticket);
        }
        if end == Termination::NORMAL {
            settings.counters.add(ProxyCount::Finished, 1);
        }
        if let (Some(sink), Some(local)) = (&self.shared.access, local) {
            let counts = self.counts(settings, conn, srv_conn);
            sink.offer(record(conn, local, end, now, counts));
        }
        let proxy = conn.proxy;
        self.leave_gates(proxy);
        self.dig(slot);
    }

    fn leave_sock(&mut self, sock: u32, leave: Leave) {
        match leave {
            Leave::InOrder => {
                if self.socks.recycle(sock) {
                    return;
                }
            }
            Leave::Reset => {
                if let Some(Err(error)) = self.socks.fd(sock).map(tcp::reset_on_close) {
                    tracing::debug!(%error, "server gets no reset");
                }
            }
            Leave::Close => {}
        }
        self.socks.close(sock);
    }

    /// Closes the client's socket; answers the address it was reached at, if a record needs it.
    fn close_client(&self, client: Option<OwnedFd>, leave: Leave) -> Option<SocketAddr> {
        let client = client?;
        let local = self
            .shared
            .access
            .as_ref()
            .and_then(|_| tcp::local_addr(&client).ok());
        if leave == Leave::Reset
            && let Err(error) = tcp::reset_on_close(&client)
        {
            tracing::debug!(%error, "client gets no reset");
        }
        local
    }

    fn counts(&self, settings: &Settings, conn: &Conn, srv_conn: u32) -> Counts {
        let feconn = settings.farm.gate().inside();
        Counts {
            actconn: self.shared.gate.inside(),
            feconn,
            beconn: feconn,
            srv_conn,
            srv_queue: 0,
            backend_queue: conn.queued_behind,
        }
    }
}

fn watch_server(epoll: &Epoll, fd: BorrowedFd<'_>, sock: u32) -> io::Result<()> {
    let interest = Interest::READ
        | Interest::WRITE
        | Interest::READ_CLOSED
        | Interest::URGENT
        | Interest::EDGE;
    epoll.add(fd, Token::Server(sock).pack(), interest)
}

fn record(
    conn: &Conn,
    local: SocketAddr,
    end: Termination,
    now: u64,
    counts: Counts,
) -> AccessRecord {
    let total = Duration::from_micros(now.saturating_sub(conn.accepted));
    let wall = clock::wall();
    AccessRecord {
        accepted_at: wall.checked_sub(total).unwrap_or(wall),
        proxy: usize::from(conn.proxy),
        server: conn.server.map(usize::from),
        client: conn.peer,
        local,
        queue: conn.queue_time.map(|t| Duration::from_micros(t.into())),
        connect: conn.connect_time.map(|t| Duration::from_micros(t.into())),
        total,
        bytes_in: conn.up.bytes,
        bytes_out: conn.down.bytes,
        end,
        retries: conn.retries,
        redispatched: conn.redispatched,
        counts,
    }
}
