//! Those who wait: who is served and who leaves, whether there is hope for one more, and when a
//! paced server may be connected to.

use std::time::Instant;

use super::{Dispatch, Notice};
use crate::proxy::balance::Key;
use crate::proxy::queue::{Ticket, Tried};
use crate::proxy::server::Server;

impl Dispatch {
    /// Says what time it is: what comes next happens at `now`.
    pub fn at(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// When to call [`Self::pump`] again, because a paced server may be connected to then and
    /// somebody waits for it.
    #[must_use]
    pub const fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Drops a leaver from the queue; `false`: it is not there (any more).
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let waited = self.queue.remove(ticket);
        self.let_go_if_empty();
        self.plan_wake();
        waited
    }

    /// Hands free slots to those who wait, in order.
    pub fn pump(&mut self) {
        self.open_paced();
        if self.usable() == 0 {
            while let Some(ticket) = self.queue.pop() {
                self.notices.push(Notice::NoServer(ticket));
            }
        }
        let mut queue = std::mem::take(&mut self.queue);
        while !queue.is_empty() {
            if self.has_room()
                && let Some((ticket, server)) =
                    queue.serve(|waiter| self.pick_paced(waiter.tried, waiter.key))
            {
                self.now.inspect(|now| self.outlook.served(*now));
                self.notices.push(Notice::Granted(ticket, server));
            } else if !self.claim_slots() {
                // What room there is is none for those who wait.
                break;
            }
        }
        self.queue = queue;
        self.let_go_if_empty();
        self.plan_wake();
    }

    pub(super) fn let_go_if_empty(&mut self) {
        if !self.queue.is_empty() {
            return;
        }
        self.outlook.forget();
        if self.pacers.is_empty() {
            self.board.let_go(self.servers.len());
        }
    }

    /// Whether a newcomer would wait in vain.
    pub(super) fn is_hopeless(&mut self) -> bool {
        let before = self.queue.len();
        self.now
            .is_some_and(|now| self.outlook.is_hopeless(before, now))
    }

    /// A pick that counts towards the server's pace.
    pub(super) fn pick_paced(&mut self, tried: Tried, key: Key) -> Option<usize> {
        let server = self.pick(tried, key)?;
        self.keep_pace(server);
        Some(server)
    }

    /// A connect to the server begins.
    pub(super) fn keep_pace(&mut self, server: usize) {
        if let Some(now) = self.now
            && self.pacers.take(server, now)
            && let Some(slots) = self.board.slots(server)
        {
            slots.set_limit(0);
        }
    }

    /// Opens the slots of paced servers that may be connected to again.
    pub(super) fn open_paced(&mut self) {
        if self.pacers.is_empty() {
            return;
        }
        for index in 0..self.servers.len() {
            if let Some(slots) = self.board.slots(index) {
                slots.set_limit(self.open_limit(index));
            }
        }
    }

    /// How many connections a server's slots let in now.
    pub(super) fn open_limit(&self, index: usize) -> u32 {
        let server = self.server(index).filter(|s| s.able());
        let shut = self.now.is_some_and(|now| !self.pacers.is_open(index, now));
        let limit = |server: &Server| {
            let limit = server.limit(!self.cold);
            let sharing = self.sharing.as_ref();
            sharing.map_or(limit, |sharing| limit.min(sharing.bound(index, server)))
        };
        server.filter(|_| !shut).map_or(0, limit)
    }

    pub(super) fn plan_wake(&mut self) {
        let (wanted, servers) = (!self.queue.is_empty(), &self.servers);
        let able = |place: usize| {
            let server = servers.get(place).and_then(Option::as_ref);
            server.is_some_and(Server::able)
        };
        self.wake = self.now.and_then(|now| self.pacers.want(wanted, able, now));
    }
}
