//! Connections that end although nobody failed: those older than `max-age`, and those that a fuller
//! server gives up. Both get FIN, when both directions are quiet, everything that was read is
//! delivered and acknowledged, nothing waits to be read, and no TLS record is cut.

use std::os::fd::AsFd;

use super::conn::{Conn, State};
use super::counters::{ProxyCount, ServerCount};
use super::ending::Leave;
use super::rebalance::Rebalancing;
use super::rebalance::plan::Shed;
use super::rebalance::records::Records;
use super::settings::{Settings, micros};
use super::termination::{Cause, Termination};
use super::worker::Worker;
use crate::net::tcp;

/// A connection that is due ends when nothing moved for so long, microseconds.
const QUIET: u64 = 250_000;
/// A connection that is due is looked at this often at most, microseconds.
const LOOK: u64 = 50_000;
/// After its grace is over, what was read gets so long to be delivered, microseconds.
const DELIVERY: u64 = 1_000_000;
/// After `max-age` a connection has a tenth of it to become quiet, within these, microseconds.
const GRACE: (u64, u64) = (1_000_000, 300_000_000);
/// A client that may wait for an answer counts as quiet after so many times the rest others need.
const ASKED: u64 = 5;
/// So many connections are looked at for one order; where more are open, next time others.
const LOOKS: usize = 8192;

/// `max-age`, microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aging {
    age: u64,
    grace: u64,
}

impl Aging {
    pub(super) fn new(age: std::time::Duration) -> Self {
        let age = micros(age);
        Self {
            age,
            grace: (age / 10).clamp(GRACE.0, GRACE.1),
        }
    }

    /// When the connection is due: its age is up to a tenth more or less than asked for, so that
    /// those that came together don't leave together.
    fn due(self, conn: &Conn) -> u64 {
        let part = 900 + spread(u64::from(conn.serial) << 32 ^ conn.accepted) % 201;
        let age = u128::from(self.age) * u128::from(part) / 1000;
        conn.accepted
            .saturating_add(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// When it is over for the connection, quiet or not.
    fn latest(self, conn: &Conn) -> u64 {
        self.due(conn).saturating_add(self.grace)
    }

    /// When to see whether it can end.
    pub(super) fn next_look(self, conn: &Conn, now: u64) -> u64 {
        let due = self.due(conn);
        if now < due {
            return due;
        }
        let quiet = conn.active.saturating_add(QUIET);
        quiet.min(self.latest(conn)).max(now + LOOK)
    }
}

/// Mixes a number's bits (the finalizer of SplitMix64).
const fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

impl Worker {
    /// Ends a connection that is older than it may be, if this is a good moment or the last one;
    /// `true`: it has ended.
    pub(super) fn retire(&mut self, slot: u32) -> bool {
        let now = self.now;
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        let Some(aging) = settings.aging else {
            return false;
        };
        if conn.state != State::Relaying || now < aging.due(conn) {
            return false;
        }
        // Of one that began before anybody wanted to know, nobody knows.
        let records = conn.rare().records;
        let inside = records.map_or(settings.tracks, |records| records.inside());
        let quiet = now.saturating_sub(conn.active) >= QUIET;
        let latest = aging.latest(conn);
        let delivered = conn.up.is_empty() && conn.down.is_empty();
        let leave = if quiet && !inside && self.rests(conn) || now >= latest && delivered {
            Leave::Close
        } else if now >= latest.saturating_add(DELIVERY) {
            Leave::Reset
        } else {
            return false;
        };
        settings.counters.add(ProxyCount::MaxAge, 1);
        let end = Termination::new(Cause::Killed, conn.phase());
        self.end(slot, end, leave);
        true
    }

    /// From here on the records of TLS are told apart, where that matters.
    pub(super) fn track_records(&mut self, slot: u32) {
        let tracks = |(_, settings): (&Conn, &Settings)| settings.tracks;
        if self.conn_and_settings(slot).is_some_and(tracks)
            && let Some(conn) = self.conn_mut(slot)
        {
            conn.rare_mut().records = Some(Records::default());
        }
    }

    /// Whether nothing is under way on a connection, in neither direction.
    fn rests(&self, conn: &Conn) -> bool {
        let (Some(client), Some(server)) = (
            conn.client.as_ref().map(AsFd::as_fd),
            conn.sock.value().and_then(|sock| self.socks.fd(sock)),
        ) else {
            return false;
        };
        let still = |flow: &super::relay::Flow| flow.is_empty() && !flow.ended();
        !conn.runnable
            && still(&conn.up)
            && still(&conn.down)
            && [client, server].into_iter().all(|fd| {
                tcp::unsent(fd).is_ok_and(|bytes| bytes == 0)
                    && tcp::is_readable(fd).is_ok_and(|readable| !readable)
            })
    }

    /// Carries out the orders of rebalancing.
    pub(super) fn shed(&mut self) {
        for proxy in 0..self.proxies.len() {
            let orders = self.proxies.get(proxy).and_then(|settings| {
                let rebalancing = settings.farm.rebalancing()?;
                Some(rebalancing.take_orders(usize::from(self.number)))
            });
            for order in orders.into_iter().flatten() {
                self.shed_from(proxy, order);
            }
        }
    }

    fn shed_from(&mut self, proxy: usize, order: Shed) {
        let mut left = order.count;
        for slot in self.idlest(proxy, order.place) {
            let Some((conn, settings)) = self.conn_and_settings(slot) else {
                continue;
            };
            let used = settings.farm.moves_from(order.place);
            if left == 0 || used.is_none_or(|used| used <= order.floor) {
                return;
            }
            if !self.rests(conn) {
                continue;
            }
            let counters = &settings.counters;
            counters.add(ProxyCount::Rebalanced, 1);
            counters.add_server(order.place, ServerCount::Rebalanced, 1);
            if let Some(rebalancing) = settings.farm.rebalancing() {
                rebalancing.note_closed();
            }
            let end = Termination::new(Cause::Killed, conn.phase());
            self.end(slot, end, Leave::Close);
            left -= 1;
        }
    }

    /// This worker's connections to a server that could be closed, idlest first, among the next
    /// [`LOOKS`] of its slots.
    fn idlest(&mut self, proxy: usize, server: usize) -> Vec<u32> {
        let Some(settings) = self.proxies.get(proxy) else {
            return Vec::new();
        };
        let quiet = settings.farm.rebalancing().map_or(0, Rebalancing::quiet);
        let end = self.conns.capacity();
        let first = if self.shed_next < end {
            self.shed_next
        } else {
            0
        };
        let window = first..end.min(first + LOOKS);
        self.shed_next = window.end;
        let mut found: Vec<(u64, u32)> = window
            .filter_map(|index| {
                let conn = self.conns.get(index)?;
                let records = conn.rare().records?;
                let rest = if records.asked() {
                    quiet * ASKED
                } else {
                    quiet
                };
                let fits = conn.state == State::Relaying
                    && usize::from(conn.proxy) == proxy
                    && conn.server.map(usize::from) == Some(server)
                    && records.at_boundary()
                    && self.now.saturating_sub(conn.active) >= rest;
                fits.then_some((conn.active, u32::try_from(index).ok()?))
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn conn(serial: u32, accepted: u64) -> Conn {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = socket.local_addr().unwrap();
        Conn::new(socket.into(), peer, 0, serial, accepted)
    }

    #[test]
    fn ages_are_spread_over_a_tenth_to_both_sides() {
        let aging = Aging::new(Duration::from_secs(1000));
        let mut tenths = [0_u32; 10];
        for serial in 0..2000 {
            let due = aging.due(&conn(serial, 5_000_000)) - 5_000_000;
            assert!((900_000_000..=1_100_000_000).contains(&due), "{due}");
            let tenth = usize::try_from((due - 900_000_000) / 20_000_001).unwrap();
            tenths[tenth] += 1;
        }
        assert!(tenths.iter().all(|n| (150..=250).contains(n)), "{tenths:?}");
        let same = conn(7, 9);
        assert_eq!(aging.due(&same), aging.due(&conn(7, 9)));
    }

    #[test]
    fn the_grace_is_a_tenth_of_the_age_and_neither_too_short_nor_too_long() {
        let grace = |secs| Aging::new(Duration::from_secs(secs)).grace;
        assert_eq!(grace(1), 1_000_000);
        assert_eq!(grace(600), 60_000_000);
        assert_eq!(grace(86_400), 300_000_000);
    }

    #[test]
    fn a_connection_is_looked_at_when_it_is_due_and_when_it_could_be_quiet() {
        let aging = Aging::new(Duration::from_secs(100));
        let mut conn = conn(1, 0);
        let due = aging.due(&conn);
        assert_eq!(aging.next_look(&conn, 0), due);
        conn.active = due;
        assert_eq!(aging.next_look(&conn, due), due + 250_000);
        assert_eq!(aging.next_look(&conn, due + 249_999), due + 299_999);
        conn.active = due + 9_999_999;
        assert_eq!(aging.next_look(&conn, due + 9_900_000), due + 10_000_000);
    }
}
