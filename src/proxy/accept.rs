//! Taking connections off the listeners, each in a batch that follows the load. Ticks catch what
//! slips through `line`, so that no backlog is stranded. At a limit the listeners rest, and the
//! kernel's backlog holds the newcomers, unless silent connections give way to them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::conn::{Conn, Side, State};
use super::counters::ProxyCount;
use super::line::Listener;
use super::shortage::Shortage;
use super::termination::Cause;
use super::worker::{Token, Worker};
use crate::net::epoll::Events;
use crate::net::eventfd::Bell;
use crate::net::{clock, tcp};

/// Connections taken from one listener in one round, at most.
const BATCH_MAX: u32 = 64;
/// Connections taken from a listener that is given up, at most.
const LAST_BATCH: u32 = 4096;
/// A round with more events than this leaves other workers' listeners alone, and accepts before
/// it does the rest.
const FEW_EVENTS: usize = 8;
/// How long listeners rest when descriptors ran out, microseconds.
const EXHAUSTED_REST: u64 = 100_000;
/// How long listeners rest at a limit, at most: a safety net, for they are told of free places.
pub(super) const FULL_REST: u64 = 1_000_000;
/// An owner that did not come round for so long leaves its listeners to the others, milliseconds.
const ABSENT_MS: u64 = 150;
/// A connection must have been silent for so long before it gives way, microseconds.
const GIVE_WAY_AFTER: u64 = 1_000_000;
/// Silent connections that give way to newcomers of other workers in one tick.
const GIVE_WAY_PER_TICK: usize = 16;
/// How an attempt to take one connection ended.
enum Taken {
    One,
    /// One, and no other before descriptors are given back.
    Last,
    None,
    Full,
    Exhausted,
}

/// What became of a silent connection that was to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silent {
    Ended,
    /// It had no time to speak yet, or is gone.
    Stays,
    /// Its bytes wait to be read.
    Spoke,
}

impl Worker {
    /// Takes newcomers before a long round begins: nobody else was told of them.
    pub(super) fn accept_first(&mut self, events: &Events) {
        self.crowded = events.len() > FEW_EVENTS;
        if !self.crowded {
            return;
        }
        for event in events.iter() {
            if let Some(Token::Listener(index)) = Token::unpack(event.token) {
                self.accept_from(index);
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
        let owned = listener.is_owned();
        if !owned && (self.crowded || !self.has_waiting(place)) {
            return;
        }
        if !self.has_room(place) {
            self.rest(place, EXHAUSTED_REST);
            return;
        }
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        let stays_ready = self.round == listener.eager + 1;
        let batch = if stays_ready { listener.batch } else { 1 };
        let mut taken = 0;
        while taken < batch {
            match self.accept_one(place) {
                Taken::One if !self.is_short() => taken += 1,
                Taken::One | Taken::Last => {
                    taken += 1;
                    self.rest(place, EXHAUSTED_REST);
                    break;
                }
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
        if !owned {
            self.count_helped(place, taken);
        }
        let round = self.round;
        if let Some(listener) = self.listeners.get_mut(place).filter(|_| taken == batch) {
            listener.eager = round;
            listener.batch = (batch * 2).min(BATCH_MAX);
        }
    }

    /// Whether a connection waits there. Cheaper than an accept in vain.
    fn has_waiting(&self, place: usize) -> bool {
        let listener = self.listeners.get(place);
        let fd = listener.and_then(Listener::fd);
        fd.is_some_and(|fd| tcp::is_readable(fd).unwrap_or(false))
    }

    fn count_helped(&self, place: usize, taken: u32) {
        let proxy = self.listeners.get(place).map(|l| usize::from(l.proxy));
        if let Some(settings) = proxy.and_then(|proxy| self.proxies.get(proxy)) {
            settings.counters.add(ProxyCount::Helped, taken.into());
        }
    }

    fn accept_one(&mut self, place: usize) -> Taken {
        let Some(listener) = self.listeners.get(place) else {
            return Taken::None;
        };
        if listener.is_gone() {
            return Taken::None;
        }
        let proxy = listener.proxy;
        let entered = self.enter(proxy) || (self.give_way(proxy) && self.enter(proxy));
        if !entered {
            return Taken::Full;
        }
        let Some(listener) = self.listeners.get(place) else {
            return Taken::None;
        };
        // Without a socket, as with none that waits.
        let nobody = || Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let accepted = listener.fd().map_or_else(nobody, tcp::accept);
        match accepted {
            Ok((client, peer)) => {
                let last = client.as_raw_fd() >= self.shared.placement.descriptors.accept_below;
                let serial = self.new_serial();
                let conn = Conn::new(client, peer, proxy, serial, self.now);
                self.begin(conn);
                if last {
                    self.run_short(proxy, None, Shortage::Files);
                    return Taken::Last;
                }
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
                        if let Some(what) = Shortage::of(&error) {
                            self.run_short(proxy, None, what);
                        }
                        Taken::Exhausted
                    }
                }
            }
        }
    }

    /// Something ran out: it is counted and said, and what is only kept for later is given up.
    pub(super) fn run_short(&mut self, proxy: u16, server: Option<usize>, what: Shortage) {
        if let Some(settings) = self.proxies.get(usize::from(proxy)) {
            let server = server.and_then(|server| settings.farm.member(server));
            let server = server.as_ref().map(|server| server.name.as_str());
            let name = settings.farm.name();
            let shortages = &self.shared.shortages;
            shortages.note(what, name, server, clock::now());
        }
        if matches!(what, Shortage::Files | Shortage::SystemFiles) {
            self.short = true;
            self.socks.close_spares();
        }
    }

    /// Whether one that is accepted now may find no descriptor for its server.
    const fn is_short(&self) -> bool {
        self.short || !self.socks.has_reserve()
    }

    /// Whether one that is accepted now finds a descriptor for its server.
    fn has_room(&mut self, place: usize) -> bool {
        !self.is_short() || self.has_descriptors(place)
    }

    /// Whether a client and its server would have descriptors again: the server's is held back
    /// before the client's is looked for. A shortage that begins is counted.
    fn has_descriptors(&mut self, place: usize) -> bool {
        let bound = self.shared.placement.descriptors.accept_below;
        // The lowest number that is free.
        let lowest = || Bell::new().map(|bell| bell.as_fd().as_raw_fd());
        let lack = match self.socks.refill().and_then(|()| lowest()) {
            Ok(lowest) if lowest < bound => None,
            Ok(_) => Some(Shortage::Files),
            Err(error) => Some(Shortage::of(&error).unwrap_or(Shortage::Files)),
        };
        let known = std::mem::replace(&mut self.short, lack.is_some());
        let proxy = self.listeners.get(place).map(|listener| listener.proxy);
        if let (Some(what), Some(proxy), false) = (lack, proxy, known) {
            self.run_short(proxy, None, what);
        }
        lack.is_none()
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
        if !self.shared.joint.enter(&self.shared.gate) {
            return false;
        }
        if settings.farm.enter() {
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

    /// On each tick: ends rests, lets silent connections give way to newcomers of any worker, and
    /// takes what stays too long in others' backlogs.
    pub(super) fn tend_listeners(&mut self) {
        self.end_rests();
        self.line_up();
        for proxy in 0..self.silent.len() {
            for _ in 0..GIVE_WAY_PER_TICK {
                let Some(slot) = self.oldest_silent(proxy) else {
                    break;
                };
                if !self.is_wanted(proxy) || self.end_silent(slot) == Silent::Stays {
                    break;
                }
            }
        }
        for place in 0..self.listeners.len() {
            self.look_after(place);
        }
    }

    /// Takes all that waits at a listener that is about to be given up.
    pub(super) fn accept_rest(&mut self, place: usize) {
        let owned = self.listeners.get(place).is_some_and(Listener::is_owned);
        let mut left = LAST_BATCH;
        while owned
            && left > 0
            && self.has_room(place)
            && matches!(self.accept_one(place), Taken::One)
        {
            left -= 1;
        }
    }

    /// Takes over from another worker's listener what has waited there for a whole tick, or at
    /// once when that worker does not come round.
    fn look_after(&mut self, place: usize) {
        let waiting = self.has_waiting(place);
        let Some(listener) = self.listeners.get(place).filter(|l| !l.is_owned()) else {
            return;
        };
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
            let mut taken = 0;
            while taken < BATCH_MAX
                && self.has_room(place)
                && matches!(self.accept_one(place), Taken::One)
            {
                taken += 1;
            }
            self.count_helped(place, taken);
        }
    }

    /// Whether a newcomer waits for a place in the process or in this proxy. Who finds it full has
    /// not seen yet whether anybody does.
    fn is_wanted(&self, proxy: usize) -> bool {
        let here = self.proxies.get(proxy);
        let everywhere = self.shared.gate.wanted();
        let wanted = everywhere || here.is_some_and(|s| s.farm.gate().wanted());
        let concerns = |listener: &Listener| everywhere || usize::from(listener.proxy) == proxy;
        let mut listeners = self.listeners.iter().enumerate();
        wanted && listeners.any(|(at, listener)| concerns(listener) && self.has_waiting(at))
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
        loop {
            let of_each = proxies.clone().filter_map(|proxy| {
                let slot = self.oldest_silent(proxy)?;
                Some((self.conn(slot)?.accepted, slot))
            });
            let Some((_, oldest)) = of_each.min() else {
                return false;
            };
            match self.end_silent(oldest) {
                Silent::Ended => return true,
                Silent::Stays => return false,
                Silent::Spoke => {}
            }
        }
    }

    /// Ends a silent connection, unless it had no time to speak yet. Newcomers are taken first: what
    /// it has said may not have been heard.
    fn end_silent(&mut self, slot: u32) -> Silent {
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return Silent::Stays;
        };
        if now.saturating_sub(conn.accepted) < GIVE_WAY_AFTER {
            return Silent::Stays;
        }
        let client = conn.client.as_ref();
        let said = client.map(|client| tcp::peek(client, &mut [0]));
        if matches!(said, Some(Ok(1..))) {
            conn.client_side.add(Side::READABLE);
            return Silent::Spoke;
        }
        self.end_early(slot, Cause::Proxy, ProxyCount::GaveWay);
        Silent::Ended
    }
}
