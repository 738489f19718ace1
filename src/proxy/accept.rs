//! Taking connections off the listeners. Each socket of a group has an owner that is told of
//! every connection; the other workers look at it on their ticks, so that no backlog is stranded
//! when its owner is busy or stuck. At a limit the listeners rest, and the kernel's backlog holds
//! the newcomers.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use super::conn::{Conn, Side, State};
use super::counters::ProxyCount;
use super::ending::Leave;
use super::engine::Shared;
use super::termination::{Cause, Termination};
use super::worker::{Token, Worker};
use crate::net::epoll::Interest;
use crate::net::tcp;

/// Connections taken from one listener in one round, at most.
const BATCH_MAX: u32 = 64;
/// How long listeners rest when descriptors ran out, microseconds.
const EXHAUSTED_REST: u64 = 100_000;
/// How long listeners rest at a limit, at most: a safety net, for they are told of free places.
const FULL_REST: u64 = 1_000_000;
/// An owner that did not come round for so long leaves its listeners to the others, milliseconds.
const ABSENT_MS: u64 = 150;
/// A connection must have been silent for so long before it gives way, microseconds.
const GIVE_WAY_AFTER: u64 = 1_000_000;
/// Silent connections that give way to newcomers of other workers in one tick.
const GIVE_WAY_PER_TICK: usize = 16;

/// One listening socket as a worker sees it.
#[derive(Debug)]
pub(super) struct Listener {
    proxy: u16,
    listen: usize,
    socket: usize,
    /// The worker that is told of its connections.
    owner: usize,
    mine: bool,
    /// Connections to take this time.
    batch: u32,
    /// The last round in which it used up its batch.
    eager: u64,
    /// It is not watched until this time.
    rests_until: Option<u64>,
    /// Somebody else's, and it had a connection waiting at the last tick.
    aged: bool,
}

impl Listener {
    /// Every listener there is, from the point of view of worker `number`.
    pub(super) fn all(shared: &Shared, number: usize) -> Vec<Self> {
        let workers = shared.mailboxes.len().max(1);
        let mut all = Vec::new();
        for (proxy, groups) in shared.listeners.iter().enumerate() {
            for (listen, group) in groups.iter().enumerate() {
                for socket in 0..group.len() {
                    let owner = socket % workers;
                    // With fewer sockets than workers, several workers watch the same one.
                    let mine = if group.len() < workers {
                        number % group.len() == socket
                    } else {
                        owner == number
                    };
                    all.push(Self {
                        proxy: u16::try_from(proxy).unwrap_or(u16::MAX),
                        listen,
                        socket,
                        owner,
                        mine,
                        batch: 1,
                        eager: 0,
                        rests_until: None,
                        aged: false,
                    });
                }
            }
        }
        all
    }

    fn fd<'a>(&self, shared: &'a Shared) -> Option<BorrowedFd<'a>> {
        let groups = shared.listeners.get(usize::from(self.proxy))?;
        Some(groups.get(self.listen)?.get(self.socket)?.as_fd())
    }
}

/// How an attempt to take one connection ended.
enum Taken {
    One,
    None,
    Full,
    Exhausted,
}

impl Worker {
    /// Begins to watch this worker's listeners.
    pub(super) fn open_listeners(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            let Some(fd) = listener.fd(&self.shared).filter(|_| listener.mine) else {
                continue;
            };
            let token = Token::Listener(u32::try_from(index).unwrap_or(u32::MAX));
            self.epoll.add(fd, token.pack(), Interest::READ)?;
        }
        Ok(())
    }

    /// Stops watching for good.
    pub(super) fn close_listeners(&mut self) {
        for listener in self.listeners.drain(..) {
            if let Some(fd) = listener.fd(&self.shared).filter(|_| listener.mine)
                && let Err(error) = self.epoll.remove(fd)
            {
                tracing::debug!(%error, "listener was not watched");
            }
        }
    }

    /// Takes what a listener has, within its batch. A batch is one connection, so that no accept
    /// is tried in vain; it doubles while the listener stays ready round after round.
    pub(super) fn accept_from(&mut self, index: u32) {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        let stays_ready = self.round == listener.eager + 1;
        let batch = if stays_ready { listener.batch } else { 1 };
        let mut taken = 0;
        while taken < batch {
            match self.accept_one(place) {
                Taken::One => taken += 1,
                Taken::None => break,
                Taken::Full => {
                    self.rest(place, FULL_REST);
                    break;
                }
                Taken::Exhausted => {
                    self.rest(place, EXHAUSTED_REST);
                    break;
                }
            }
        }
        let round = self.round;
        if let Some(listener) = self.listeners.get_mut(place).filter(|_| taken == batch) {
            listener.eager = round;
            listener.batch = (batch * 2).min(BATCH_MAX);
        }
    }

    fn accept_one(&mut self, place: usize) -> Taken {
        let Some(listener) = self.listeners.get(place) else {
            return Taken::None;
        };
        let proxy = listener.proxy;
        let entered = self.enter(proxy) || (self.give_way(proxy) && self.enter(proxy));
        if !entered {
            return Taken::Full;
        }
        let Some(listener) = self.listeners.get(place) else {
            return Taken::None;
        };
        let accepted = match listener.fd(&self.shared) {
            Some(fd) => tcp::accept(fd),
            None => return Taken::None,
        };
        match accepted {
            Ok((client, peer)) => {
                let serial = self.new_serial();
                let conn = Conn::new(client, peer, proxy, serial, self.now);
                self.begin(conn);
                Taken::One
            }
            Err(error) => {
                self.leave_gates(proxy);
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => Taken::None,
                    // The client left between handshake and accept.
                    Some(libc::ECONNABORTED | libc::EINTR) => Taken::One,
                    Some(libc::EPERM | libc::EPROTO) => {
                        self.count_accept_error(proxy, &error);
                        Taken::One
                    }
                    _ => {
                        self.count_accept_error(proxy, &error);
                        Taken::Exhausted
                    }
                }
            }
        }
    }

    fn count_accept_error(&self, proxy: u16, error: &io::Error) {
        if let Some(settings) = self.proxies.get(usize::from(proxy)) {
            settings.counters.add(ProxyCount::AcceptErrors, 1);
            tracing::debug!(proxy = settings.farm.name(), %error, "accept failed");
        }
    }

    /// Takes a place in the process and in the proxy; `false` when either is full.
    fn enter(&self, proxy: u16) -> bool {
        let Some(settings) = self.proxies.get(usize::from(proxy)) else {
            return false;
        };
        if !self.shared.gate.enter() {
            return false;
        }
        if settings.farm.gate().enter() {
            return true;
        }
        if self.shared.gate.leave() {
            self.shared.post(&super::mailbox::Message::Room);
        }
        false
    }

    /// Gives both places back, and tells those who wait for one.
    pub(super) fn leave_gates(&self, proxy: u16) {
        let farm = self.proxies.get(usize::from(proxy)).map(|s| &s.farm);
        let wanted_here = farm.is_some_and(|farm| farm.gate().leave());
        if self.shared.gate.leave() || wanted_here {
            self.shared.post(&super::mailbox::Message::Room);
        }
    }

    fn rest(&mut self, place: usize, how_long: u64) {
        let Some(listener) = self.listeners.get_mut(place) else {
            return;
        };
        if how_long == FULL_REST
            && let Some(settings) = self.proxies.get(usize::from(listener.proxy))
        {
            settings.counters.add(ProxyCount::LimitReached, 1);
        }
        if !listener.mine || listener.rests_until.is_some() {
            return;
        }
        listener.rests_until = Some(self.now + how_long);
        self.watch(place, Interest::NONE);
    }

    fn watch(&self, place: usize, interest: Interest) {
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        let token = Token::Listener(u32::try_from(place).unwrap_or(u32::MAX));
        if let Some(fd) = listener.fd(&self.shared)
            && let Err(error) = self.epoll.modify(fd, token.pack(), interest)
        {
            tracing::error!(%error, "listener can't be watched");
        }
    }

    /// Places came free: resting listeners are watched again.
    pub(super) fn resume_listeners(&mut self) {
        self.resume(|_| true);
    }

    fn resume(&mut self, wanted: impl Fn(u64) -> bool) {
        for place in 0..self.listeners.len() {
            if let Some(listener) = self.listeners.get_mut(place)
                && listener.rests_until.is_some_and(&wanted)
            {
                listener.rests_until = None;
                self.watch(place, Interest::READ);
            }
        }
    }

    /// On each tick: ends rests, lets silent connections give way to newcomers of any worker, and
    /// takes what stays too long in others' backlogs.
    pub(super) fn tend_listeners(&mut self) {
        let now = self.now;
        self.resume(|until| until <= now);
        for proxy in 0..self.silent.len() {
            for _ in 0..GIVE_WAY_PER_TICK {
                let Some(slot) = self.oldest_silent(proxy) else {
                    break;
                };
                if !(self.is_wanted(proxy) && self.end_silent(slot)) {
                    break;
                }
            }
        }
        for place in 0..self.listeners.len() {
            self.look_after(place);
        }
    }

    /// Takes over from another worker's listener what has waited there for a whole tick, or at
    /// once when that worker does not come round.
    fn look_after(&mut self, place: usize) {
        let Some(listener) = self.listeners.get(place).filter(|l| !l.mine) else {
            return;
        };
        let waiting = listener
            .fd(&self.shared)
            .is_some_and(|fd| tcp::is_readable(fd).unwrap_or(false));
        let absent = self
            .shared
            .ticks
            .get(listener.owner)
            .is_some_and(|tick| (self.now / 1000).saturating_sub(tick.millis()) > ABSENT_MS);
        let take = waiting && (listener.aged || absent);
        if let Some(listener) = self.listeners.get_mut(place) {
            listener.aged = waiting;
        }
        if take {
            for _ in 0..BATCH_MAX {
                if !matches!(self.accept_one(place), Taken::One) {
                    break;
                }
            }
        }
    }

    /// Whether a newcomer waits for a place in the process or in this proxy.
    fn is_wanted(&self, proxy: usize) -> bool {
        let here = self.proxies.get(proxy);
        self.shared.gate.wanted() || here.is_some_and(|s| s.farm.gate().wanted())
    }

    /// Remembers a connection that may have to give way.
    pub(super) fn note_silent(&mut self, proxy: usize, slot: u32, serial: u32) {
        let conns = &self.conns;
        let Some(silent) = self.silent.get_mut(proxy) else {
            return;
        };
        if silent.len() > 2 * conns.len() + 1024 {
            silent.retain(|(slot, serial)| {
                usize::try_from(*slot)
                    .ok()
                    .and_then(|slot| conns.get(slot))
                    .is_some_and(|conn| conn.serial == *serial && conn.silent())
            });
        }
        silent.push_back((slot, serial));
    }

    /// The proxy's oldest connection that never sent a byte.
    fn oldest_silent(&mut self, proxy: usize) -> Option<u32> {
        let conns = &self.conns;
        let silent = self.silent.get_mut(proxy)?;
        while let Some((slot, serial)) = silent.front().copied() {
            let conn = usize::try_from(slot).ok().and_then(|slot| conns.get(slot));
            let quiet = conn.is_some_and(|conn| {
                conn.serial == serial && conn.state != State::Dead && conn.silent()
                    // One whose bytes wait for a server to read them has spoken.
                    && !conn.client_side.has(Side::READABLE)
            });
            if quiet {
                return Some(slot);
            }
            silent.pop_front();
        }
        None
    }

    /// At a limit, the oldest connection that never sent a byte makes room for a newcomer: of
    /// this proxy if it is the proxy that is full, else of any.
    fn give_way(&mut self, proxy: u16) -> bool {
        let full_here = self
            .proxies
            .get(usize::from(proxy))
            .is_some_and(|settings| {
                let gate = settings.farm.gate();
                gate.inside() >= gate.limit()
            });
        let proxies = if full_here {
            usize::from(proxy)..usize::from(proxy) + 1
        } else {
            0..self.silent.len()
        };
        let oldest = proxies
            .filter_map(|proxy| {
                let slot = self.oldest_silent(proxy)?;
                Some((self.conn(slot)?.accepted, slot))
            })
            .min();
        oldest.is_some_and(|(_, slot)| self.end_silent(slot))
    }

    /// Ends a silent connection, unless it had no time to speak yet.
    fn end_silent(&mut self, slot: u32) -> bool {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        if self.now.saturating_sub(conn.accepted) < GIVE_WAY_AFTER {
            return false;
        }
        settings.counters.add(ProxyCount::GaveWay, 1);
        let end = Termination::new(Cause::Proxy, conn.phase());
        self.end(slot, end, Leave::Reset);
        true
    }
}
