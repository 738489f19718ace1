//! From an accepted connection to a connected server: a server is chosen, or waited for, and a
//! failed connect goes to another one, unseen by the client.

use std::io;
use std::os::fd::BorrowedFd;

use super::conn::{Conn, Maybe, Side, State};
use super::counters::{ProxyCount, ServerCount};
use super::dispatch::{Admission, Turn as Place};
use super::ending::Leave;
use super::queue::Ticket;
use super::relay::Flow;
use super::settings;
use super::shortage::Shortage;
use super::termination::{Cause, Phase, Termination};
use super::worker::{Token, Worker};
use crate::net::epoll::{Epoll, Interest};
use crate::net::tcp;

/// A server that breaks off so soon after a byte was moved, or after it has accepted, has not waited
/// for the client for too long, microseconds.
const SOON: u64 = 500_000;

/// A socket on which a connect is under way.
pub(super) struct Opened {
    pub(super) sock: u32,
    /// It served another connection before.
    pub(super) recycled: bool,
    /// The server has accepted at once.
    pub(super) finished: bool,
}

/// So many servers [`super::queue::Tried`] tells apart.
const SERVERS_TRIED: u8 = 64;

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
        let guarded = settings.guard.is_some();
        if !self.expects_header(slot) && (!guarded || self.lets_in(slot)) {
            self.seek(slot, Place::First);
        }
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
            self.note_silent(proxy, slot, serial);
        }
    }

    pub(super) fn ticket(&self, slot: u32, conn: &Conn) -> Ticket {
        Ticket {
            worker: self.number,
            slot,
            serial: conn.serial,
        }
    }

    /// Looks for a server, as often as connects fail at once and there is another try.
    pub(super) fn seek(&mut self, slot: u32, place: Place) {
        let mut place = place;
        loop {
            let Some((conn, settings)) = self.conn_and_settings(slot) else {
                return;
            };
            let ticket = self.ticket(slot, conn);
            let key = settings::key(conn, settings);
            let admission = settings.farm.admit(ticket, conn.rare().tried, place, key);
            match admission {
                Admission::Server(server) => {
                    let server = if settings.farm.doubts().any() {
                        self.spare(slot, server)
                    } else {
                        server
                    };
                    let Err(error) = self.connect(slot, server) else {
                        return;
                    };
                    if !self.give_up_on(slot, Cause::Server, &error) {
                        return;
                    }
                    place = Place::Again;
                }
                Admission::Queued(before) => {
                    let now = self.now;
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.state = State::Queued;
                        conn.since = now;
                        conn.rare_mut().queue_number =
                            u32::try_from(before.saturating_add(1)).unwrap_or(u32::MAX);
                    }
                    self.arm(slot);
                    return;
                }
                Admission::NoServer => {
                    self.refuse_no_server(slot);
                    return;
                }
                Admission::QueueFull | Admission::NotInTime => {
                    let why = if admission == Admission::QueueFull {
                        ProxyCount::QueueFull
                    } else {
                        ProxyCount::QueueTooSlow
                    };
                    settings.counters.add(why, 1);
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
            settings.counters.waited(now.saturating_sub(conn.since));
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
        if conn.queue_time == Maybe::NONE {
            let waited = now.saturating_sub(conn.begun());
            conn.queue_time = Maybe::span(waited);
        }
        if !conn.rare().tried.is_empty() {
            conn.rare_mut().redispatched = true;
        }
        conn.server = u16::try_from(server).ok();
        conn.state = State::Connecting;
        conn.since = now;
        conn.server_side = Side::default();
        let opened = self.open(slot, server)?;
        if let Some(conn) = self.conn_mut(slot) {
            conn.sock = Maybe::some(opened.sock);
            conn.server_side.add_if(Side::RECYCLED, opened.recycled);
        }
        if opened.finished {
            self.connected(slot);
        } else {
            self.arm(slot);
        }
        Ok(())
    }

    /// A socket for the connection on which a connect to `server` is under way.
    pub(super) fn open(&mut self, slot: u32, server: usize) -> io::Result<Opened> {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let proxy = conn.proxy;
        settings
            .counters
            .add_server(server, ServerCount::Attempts, 1);
        let Some(addr) = settings.farm.address(server) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let client_first = settings.client_first;
        let source = settings.origin.source_of(conn, addr);
        let recyclable = settings.origin.recyclable();
        if let Some(sock) = self.socks.reuse(proxy, addr, slot, self.round) {
            if let Some((_, settings)) = self.conn_and_settings(slot) {
                settings
                    .counters
                    .add_server(server, ServerCount::Recycled, 1);
            }
            let begun = self.fd(sock).and_then(|fd| tcp::connect(fd, addr));
            return self.opened(sock, true, begun);
        }
        let sock = self
            .socks
            .create(proxy, addr, slot, self.round, recyclable)?;
        let begun = self.fd(sock).and_then(|fd| {
            tcp::set_options(fd, tcp::Options { keepalive: None })?;
            if client_first {
                tcp::defer_handshake(fd)?;
            }
            source.bind(fd)?;
            let finished = tcp::connect(fd, addr)?;
            watch_server(&self.epoll, fd, sock)?;
            Ok(finished)
        });
        self.opened(sock, false, begun)
    }

    fn fd(&self, sock: u32) -> io::Result<BorrowedFd<'_>> {
        let fd = self.socks.fd(sock);
        fd.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn opened(&mut self, sock: u32, recycled: bool, begun: io::Result<bool>) -> io::Result<Opened> {
        match begun {
            Ok(finished) => Ok(Opened {
                sock,
                recycled,
                finished,
            }),
            Err(error) => {
                self.leave_sock(sock, Leave::Reset, 0);
                Err(error)
            }
        }
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
        conn.connect_time = Maybe::span(took);
        conn.server_side.add(Side::WRITABLE);
        let server = conn.server.map(usize::from);
        if conn.rare_if_any().is_some() {
            self.settle_attempts(slot);
        }
        self.track_records(slot);
        if let (Some(server), Some((_, settings))) = (server, self.conn_and_settings(slot)) {
            settings.counters.connected(server, took);
            let hedging = &settings.hedging;
            hedging.answered(took);
            settings.farm.doubts().answered(server, hedging.time(now));
        }
        self.send_header(slot);
        self.relay(slot);
    }

    /// A connect was refused, or had no answer in time.
    pub(super) fn connect_failed(&mut self, slot: u32, cause: Cause) {
        let Some(sock) = self.conn(slot).and_then(|conn| conn.sock.value()) else {
            return;
        };
        let error = self.connect_error(sock);
        if self.first_failed(slot, cause, &error) {
            return;
        }
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
        let server = conn.server.map(usize::from);
        let shortage = Shortage::of(error);
        let mut tried = conn.rare().tried;
        if let Some(server) = server {
            tried.mark(server);
        }
        // Each server that takes connections is asked once, however many fail; and that ends, too,
        // where room on one that is held back comes and goes.
        let (retries, most) = (conn.rare().retries, settings.retries);
        let untried =
            retries < most.saturating_add(SERVERS_TRIED) && settings.farm.has_untried(tried);
        let again = (retries < most || untried) && shortage.is_none_or(Shortage::is_of_one_server);
        if let Some(server) = server {
            self.blame(slot, server, cause, error);
            if let Some((_, settings)) = self.conn_and_settings(slot)
                && shortage.is_none()
            {
                let counters = &settings.counters;
                counters.add_server(server, ServerCount::Retries, u64::from(again));
            }
        }
        if !again {
            let cause = shortage.map_or(cause, |_| Cause::Resource);
            let count = if shortage.is_some() {
                ProxyCount::Resource
            } else {
                ProxyCount::Unreachable
            };
            if let Some((_, settings)) = self.conn_and_settings(slot) {
                settings.counters.add(count, 1);
            }
            self.end(slot, Termination::new(cause, Phase::Connect), Leave::Reset);
            return false;
        }
        if let Some(conn) = self.conn_mut(slot) {
            let rare = conn.rare_mut();
            rare.retries = rare.retries.saturating_add(1);
        }
        self.leave_server(slot);
        true
    }

    /// Counts what a connect to `server` failed of, and has the server looked at.
    pub(super) fn blame(&mut self, slot: u32, server: usize, cause: Cause, error: &io::Error) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        if let Some(what) = Shortage::of(error) {
            let proxy = conn.proxy;
            self.run_short(proxy, Some(server), what);
            return;
        }
        let timed_out = cause == Cause::ServerTimeout;
        let what = if timed_out {
            ServerCount::ConnectTimeout
        } else {
            ServerCount::Refused
        };
        settings.counters.add_server(server, what, 1);
        settings.farm.suspect(server);
        if timed_out {
            let time = |at| settings.hedging.time(at);
            let doubts = settings.farm.doubts();
            doubts.silent(server, time(conn.since), time(self.now));
        }
        tracing::debug!(
            proxy = settings.farm.name(), server, client = %conn.client_addr(), %error, "connect failed"
        );
    }

    /// The server broke off. One that did so before it had answered, as soon as it had the
    /// connection, is not well; and where no byte went either way the connection goes elsewhere.
    /// `false`: it does not.
    pub(super) fn leave_after_break(&mut self, slot: u32) -> bool {
        self.note_break(slot);
        self.leave_untouched(slot)
    }

    /// The same for a server that has ended its side instead; one that does so later has perhaps
    /// waited for the client for long enough.
    pub(super) fn leave_after_end(&mut self, slot: u32) -> bool {
        self.note_break(slot) && self.leave_untouched(slot)
    }

    /// Holds it against the server that it breaks off, if that came before an answer and soon.
    fn note_break(&self, slot: u32) -> bool {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        let soon = self.now.saturating_sub(conn.active) < SOON;
        let noted = soon && settings.client_first && conn.down.bytes() == 0 && !conn.up.ended();
        if noted && let Some(server) = conn.server {
            settings.farm.broke_off(usize::from(server));
        }
        noted
    }

    /// A server that has accepted and breaks off before it took or gave a byte has failed like one
    /// that refuses: the connection goes to one that it has not tried. `false`: it can't.
    fn leave_untouched(&mut self, slot: u32) -> bool {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        let Some(server) = conn.server.map(usize::from) else {
            return false;
        };
        // A header is a word, too.
        let untouched = conn.up.is_untaken()
            && conn.down.bytes() == 0
            && !conn.up.ended()
            && !conn.down.finished()
            && !settings.origin.sends_header();
        let mut tried = conn.rare().tried;
        tried.mark(server);
        if !untouched || !settings.farm.has_untried(tried) {
            return false;
        }
        if !conn.silent() {
            // It had not asked, after all.
            let counters = &settings.counters;
            counters.add_server(server, ServerCount::Unanswered, 1);
        }
        if let Some(conn) = self.conn_mut(slot) {
            conn.down = Flow::default();
        }
        let error = io::ErrorKind::ConnectionReset.into();
        if self.give_up_on(slot, Cause::Server, &error) {
            self.seek(slot, Place::Again);
        }
        true
    }

    /// A server went down: connects in flight to it go elsewhere.
    pub(super) fn on_server_down(&mut self, proxy: usize, server: usize) {
        let connecting =
            |conn: &Conn| conn.state == State::Connecting && usize::from(conn.proxy) == proxy;
        for slot in self.slots(|conn| connecting(conn) && conn.hedge_on() == Some(server)) {
            self.drop_hedge(slot);
            self.arm(slot);
        }
        let first = |conn: &Conn| conn.server.map(usize::from) == Some(server);
        for slot in self.slots(|conn| connecting(conn) && first(conn)) {
            self.send_elsewhere(slot);
        }
    }

    /// The server of a connect in flight went down.
    fn send_elsewhere(&mut self, slot: u32) {
        if self.first_is_left(slot) {
            return;
        }
        self.leave_server(slot);
        self.seek(slot, Place::Again);
    }

    /// Drops the attempt on the present server, and remembers it.
    fn leave_server(&mut self, slot: u32) {
        self.end_trial(slot);
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let (sock, server) = (conn.sock.take(), conn.server.take().map(usize::from));
        conn.state = State::Queued;
        if let Some(server) = server {
            conn.rare_mut().tried.mark(server);
        }
        if let Some(sock) = sock {
            // The server may have accepted meanwhile.
            self.leave_sock(sock, Leave::Reset, 0);
        }
        if let (Some(server), Some((_, settings))) = (server, self.conn_and_settings(slot)) {
            settings
                .counters
                .add_server(server, ServerCount::Redispatches, 1);
            settings.farm.release(server);
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
