//! A connect that has no answer gets a second one beside it, on another server: the first to
//! answer gets the client, the other is closed by RST. And servers in doubt are spared: they get one
//! connect at a time.
//!
//! Each of the two holds a slot of its server, as long as it is under way and not a moment longer. No
//! byte and no header is sent before one of them has won.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::conn::{Conn, Maybe, Side};
use super::counters::ServerCount;
use super::ending::Leave;
use super::settings::micros;
use super::termination::Cause;
use super::worker::{Worker, note};
use crate::config::model::{self, HedgeAfter};
use crate::net::epoll::Event;
use crate::net::tcp;

/// `"auto"` waits for at least this long, microseconds: a busy server is no dead one.
const AUTO_MIN: u64 = 50_000;
/// `"auto"` waits for so many medians.
const MEDIANS: u64 = 3;
/// A connect that found no second server looks again after this long, microseconds.
const LOOK_AGAIN: u64 = 50_000;
/// Second connects go to servers that answered within this time, or since the last check was due.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// A second connect under way. Times are microseconds since the engine's start.
#[derive(Debug)]
pub(super) struct Hedge {
    sock: u32,
    /// Position of its server, on which it holds a slot.
    pub(super) server: u16,
    since: u64,
    recycled: bool,
}

/// When a proxy's connects get a second one.
#[derive(Debug)]
pub(super) struct Hedging {
    after: HedgeAfter,
    median: Median,
    /// Second connects go to servers that answered within this time.
    answered_within: Duration,
    /// The worker's time 0 as the farm's doubts tell it.
    lead: u64,
}

impl Hedging {
    /// `lead`: the worker's time 0 as the farm's doubts tell it.
    pub(super) fn new(config: &model::Proxy, lead: u64) -> Self {
        let check_due = config.check.interval + config.check.interval / 4;
        Self {
            after: config.hedge_after,
            median: Median::default(),
            answered_within: ANSWERED_WITHIN.max(check_due),
            lead,
        }
    }

    /// Takes over what another one has measured.
    pub(super) fn learn_from(&mut self, other: &Self) {
        self.median.0.set(other.median.get());
    }

    /// A connect was answered after so many microseconds.
    pub(super) fn answered(&self, took: u64) {
        self.median.note(took);
    }

    /// The worker's `now` as the farm's doubts tell it.
    pub(super) const fn time(&self, now: u64) -> u64 {
        self.lead + now
    }

    /// How long a connect is waited for alone, microseconds.
    fn after(&self) -> u64 {
        match self.after {
            HedgeAfter::Auto => AUTO_MIN.max(self.median.get().saturating_mul(MEDIANS)),
            HedgeAfter::After(time) => micros(time),
            HedgeAfter::Never => u64::MAX,
        }
    }

    /// When a connect under way is looked at next.
    pub(super) fn next_look(&self, conn: &Conn, now: u64) -> u64 {
        let first = conn.since.saturating_add(self.after());
        if now < first {
            first
        } else if conn.hedge_on().is_some() {
            u64::MAX
        } else {
            now + LOOK_AGAIN
        }
    }

    fn is_due(&self, conn: &Conn, now: u64) -> bool {
        conn.hedge_on().is_none() && now.saturating_sub(conn.since) >= self.after()
    }
}

/// An estimate of a median that costs a comparison and an addition for each value: it goes a
/// sixteenth of itself towards it.
#[derive(Debug, Default)]
struct Median(Cell<u64>);

impl Median {
    fn note(&self, value: u64) {
        let present = self.0.get();
        let step = present / 16 + 1;
        self.0.set(if present == 0 {
            value
        } else if value > present {
            present + step
        } else {
            present - step
        });
    }

    const fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Worker {
    /// A server in doubt was chosen, perhaps: then another one that has room takes its place, unless
    /// this connect is its trial.
    pub(super) fn spare(&mut self, slot: u32, server: usize) -> usize {
        let now = self.now;
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return server;
        };
        let doubts = settings.farm.doubts();
        if !doubts.has(server) {
            return server;
        }
        if doubts.begin_trial(server, settings.hedging.time(now)) {
            if let Some(conn) = self.conn_mut(slot) {
                conn.rare_mut().on_trial = true;
            }
            return server;
        }
        let tried = conn.rare().tried;
        let other = settings
            .farm
            .take_beside(|place| place != server && !doubts.has(place) && !tried.contains(place));
        if other.is_some() {
            settings.farm.release(server);
        }
        other.unwrap_or(server)
    }

    /// A connect under way is looked at: it gets a second one when it is due and there is a server
    /// for it.
    pub(super) fn hedge(&mut self, slot: u32) {
        if let Some(other) = self.second_server(slot) {
            self.begin_hedge(slot, other);
        } else {
            self.arm(slot);
        }
    }

    /// A slot on a server that answers others, if the connect is due for a second one.
    fn second_server(&self, slot: u32) -> Option<usize> {
        let (conn, settings) = self.conn_and_settings(slot)?;
        let server = usize::from(conn.server?);
        let (farm, hedging) = (&settings.farm, &settings.hedging);
        if !hedging.is_due(conn, self.now) {
            return None;
        }
        let (doubts, now) = (farm.doubts(), hedging.time(self.now));
        if doubts.silent(server, hedging.time(conn.since), now) {
            farm.suspect(server);
            tracing::debug!(
                proxy = farm.name(), server, client = %conn.client_addr(), "connect has no answer"
            );
        }
        let tried = conn.rare().tried;
        farm.take_beside(|place| {
            place != server
                && !tried.contains(place)
                && doubts.answers(place, now, hedging.answered_within)
        })
    }

    fn begin_hedge(&mut self, slot: u32, other: usize) {
        let since = self.now;
        let opened = match self.open(slot, other) {
            Ok(opened) => opened,
            Err(error) => {
                self.blame(slot, other, Cause::Server, &error);
                if let Some(conn) = self.conn_mut(slot) {
                    conn.rare_mut().tried.mark(other);
                }
                self.release(slot, other);
                self.arm(slot);
                return;
            }
        };
        if let Some((conn, settings)) = self.conn_and_settings(slot)
            && let Some(first) = conn.server
        {
            let counters = &settings.counters;
            counters.add_server(usize::from(first), ServerCount::Hedges, 1);
        }
        if let Some(conn) = self.conn_mut(slot) {
            let rare = conn.rare_mut();
            rare.hedged = true;
            rare.hedge = u16::try_from(other).ok().map(|server| Hedge {
                sock: opened.sock,
                server,
                since,
                recycled: opened.recycled,
            });
        }
        if opened.finished {
            self.hedge_won(slot, None);
        } else {
            self.arm(slot);
        }
    }

    /// News from a socket that is not the connection's first.
    pub(super) fn on_hedge(&mut self, slot: u32, sock: u32, event: Event) {
        let hedge = self.conn(slot).and_then(|conn| conn.rare().hedge.as_ref());
        let Some(server) = hedge.filter(|h| h.sock == sock).map(|h| h.server) else {
            return;
        };
        if event.error() || event.hung_up() {
            let error = self.connect_error(sock);
            self.blame(slot, usize::from(server), Cause::Server, &error);
            self.drop_hedge(slot);
            self.arm(slot);
        } else if event.writable() {
            self.hedge_won(slot, Some(event));
        }
    }

    /// The second connect was answered first.
    fn hedge_won(&mut self, slot: u32, event: Option<Event>) {
        if let Some((conn, settings)) = self.conn_and_settings(slot)
            && let Some(server) = conn.server
        {
            let waited = Duration::from_micros(self.now.saturating_sub(conn.since));
            settings.farm.silent(usize::from(server), waited);
        }
        self.promote(slot);
        if let Some((conn, settings)) = self.conn_and_settings(slot)
            && let Some(server) = conn.server
        {
            let counters = &settings.counters;
            counters.add_server(usize::from(server), ServerCount::HedgesWon, 1);
        }
        if let (Some(event), Some(conn)) = (event, self.conn_mut(slot)) {
            note(&mut conn.server_side, event);
        }
        self.connected(slot);
    }

    /// The first connect failed, and the second is under way. `false`: there is none.
    pub(super) fn first_failed(&mut self, slot: u32, cause: Cause, error: &io::Error) -> bool {
        let Some(conn) = self.conn(slot).filter(|conn| conn.hedge_on().is_some()) else {
            return false;
        };
        if let Some(server) = conn.server {
            self.blame(slot, usize::from(server), cause, error);
        }
        if let Some(conn) = self.conn_mut(slot) {
            let rare = conn.rare_mut();
            rare.retries = rare.retries.saturating_add(1);
        }
        self.first_is_left(slot)
    }

    /// The first connect is given up, and the second is the only one. `false`: there is none.
    pub(super) fn first_is_left(&mut self, slot: u32) -> bool {
        let hedged = self.promote(slot);
        if hedged {
            self.arm(slot);
        }
        hedged
    }

    /// Puts the second connect in the place of the first, which is left. `false`: there is none.
    fn promote(&mut self, slot: u32) -> bool {
        self.end_trial(slot);
        let Some(conn) = self.conn_mut(slot) else {
            return false;
        };
        let Some(hedge) = conn.rare_if_any().and_then(|rare| rare.hedge.take()) else {
            return false;
        };
        let sock = std::mem::replace(&mut conn.sock, Maybe::some(hedge.sock));
        let server = conn.server.replace(hedge.server).map(usize::from);
        conn.since = hedge.since;
        conn.server_side = Side::default();
        conn.server_side.add_if(Side::RECYCLED, hedge.recycled);
        let rare = conn.rare_mut();
        rare.redispatched = true;
        if let Some(server) = server {
            rare.tried.mark(server);
        }
        // It may have been accepted meanwhile; and it hears of it before its slot is given away.
        if let Some(sock) = sock.value() {
            self.leave_sock(sock, Leave::Reset, 0);
        }
        if let (Some(server), Some((_, settings))) = (server, self.conn_and_settings(slot)) {
            let counters = &settings.counters;
            counters.add_server(server, ServerCount::Redispatches, 1);
            settings.farm.release(server);
        }
        true
    }

    /// Gives up the second connect, if there is one.
    pub(super) fn drop_hedge(&mut self, slot: u32) {
        let rare = self.conn_mut(slot).and_then(Conn::rare_if_any);
        let Some((rare, hedge)) = rare.and_then(|rare| {
            let hedge = rare.hedge.take()?;
            Some((rare, hedge))
        }) else {
            return;
        };
        let server = usize::from(hedge.server);
        rare.tried.mark(server);
        self.leave_sock(hedge.sock, Leave::Reset, 0);
        self.release(slot, server);
    }

    /// Nothing is left of the attempts of one that has its server, or has ended, but its first.
    pub(super) fn settle_attempts(&mut self, slot: u32) {
        self.end_trial(slot);
        self.drop_hedge(slot);
    }

    /// The connect to the present server was no trial, or is none any more.
    pub(super) fn end_trial(&mut self, slot: u32) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let on_trial = conn.rare_if_any().map(|rare| &mut rare.on_trial);
        if !on_trial.is_some_and(std::mem::take) {
            return;
        }
        if let Some((conn, settings)) = self.conn_and_settings(slot)
            && let Some(server) = conn.server
        {
            settings.farm.doubts().end_trial(usize::from(server));
        }
    }

    fn release(&self, slot: u32, server: usize) {
        if let Some((_, settings)) = self.conn_and_settings(slot) {
            settings.farm.release(server);
        }
    }

    /// What a connect has ended with.
    pub(super) fn connect_error(&self, sock: u32) -> io::Error {
        self.socks
            .fd(sock)
            .and_then(|fd| tcp::take_error(fd).ok().flatten())
            .unwrap_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(values: impl Iterator<Item = u64>) -> u64 {
        let median = Median::default();
        values.for_each(|value| median.note(value));
        median.get()
    }

    #[test]
    fn the_median_is_found_and_followed_whatever_the_outliers() {
        assert_eq!(median([400].into_iter()), 400);
        let mostly = |n: u64| if n.is_multiple_of(4) { 900_000 } else { 1_000 };
        let found = median((0..400).map(mostly));
        assert!((800..1_300).contains(&found), "{found}");
        let moved = median((0..400).map(|n| if n < 200 { 300 } else { 40_000 }));
        assert!((35_000..44_000).contains(&moved), "{moved}");
        assert_eq!(median([0; 9].into_iter()), 0);
    }
}
