//! The established connections of a dead server are given back to their clients: closed with RST,
//! a share in each of a worker's ticks, so that those who come back don't all come at once. It
//! stops as soon as the server lives, or no other is left that could take the clients.

use super::conn::State;
use super::counters::ProxyCount;
use super::termination::Cause;
use super::worker::Worker;

/// All are closed within so many ticks, 50 ms each.
const TICKS: usize = 8;
/// So many are closed in one tick at least.
const AT_ONCE: usize = 32;

/// A server whose connections are being closed.
#[derive(Debug)]
pub(super) struct Closing {
    proxy: usize,
    server: usize,
    /// Slot and serial of those that are left.
    left: Vec<(u32, u32)>,
    /// How many are closed in one tick.
    share: usize,
}

impl Worker {
    /// Begins to close the connections of a server.
    pub(super) fn close_server(&mut self, proxy: usize, server: usize) {
        let slots = self.slots(|conn| {
            matches!(conn.state, State::Relaying | State::Flushing)
                && usize::from(conn.proxy) == proxy
                && conn.server.map(usize::from) == Some(server)
        });
        let serial = |slot: u32| Some((slot, self.conn(slot)?.serial));
        let left: Vec<(u32, u32)> = slots.into_iter().filter_map(serial).collect();
        let share = left.len().div_ceil(TICKS).max(AT_ONCE);
        self.closings
            .retain(|known| (known.proxy, known.server) != (proxy, server));
        self.closings.push(Closing {
            proxy,
            server,
            left,
            share,
        });
        self.close_on();
    }

    /// Closes the next share of each.
    pub(super) fn close_on(&mut self) {
        if self.closings.is_empty() {
            return;
        }
        for mut closing in std::mem::take(&mut self.closings) {
            let farm = self.proxies.get(closing.proxy).map(|p| &p.farm);
            if !farm.is_some_and(|farm| farm.closes(closing.server)) {
                continue;
            }
            let rest = closing.left.len().saturating_sub(closing.share);
            for (slot, serial) in closing.left.split_off(rest) {
                let present = self.conn(slot).is_some_and(|conn| {
                    conn.serial == serial && conn.server.map(usize::from) == Some(closing.server)
                });
                if present {
                    self.end_early(slot, Cause::Down, ProxyCount::ServerDown);
                }
            }
            if !closing.left.is_empty() {
                self.closings.push(closing);
            }
        }
    }
}
