//! Servers come, go and change while others are served. Pure.

use std::time::Instant;

use super::{Dispatch, Outlook};
use crate::config::model;
use crate::proxy::server::Server;

impl Dispatch {
    /// Other settings of the proxy from here on; its servers stay as they are. Whoever waits goes on
    /// waiting, also where fewer may.
    pub fn set_config(&mut self, before: &model::Proxy, config: &model::Proxy) {
        self.max_queue = config.max_queue;
        self.slowstart = config.slowstart;
        self.verdicts.set_config(config);
        if before.queue_timeout != config.queue_timeout {
            self.outlook = Outlook::new(config.queue_timeout);
        }
        if before.balance != config.balance {
            self.balance = config.balance;
            // Makes the plan anew, although no weight has changed.
            self.weights.clear();
        }
        self.after_change(true);
    }

    /// A server comes, unprobed, to a place that nobody has.
    pub fn add(&mut self, place: usize, server: &model::Server) {
        while self.servers.len() <= place {
            if self.board.is_held()
                && let Some(slots) = self.board.slots(self.servers.len())
            {
                slots.hold();
            }
            self.servers.push(None);
        }
        self.rotation.grow(self.servers.len());
        if let Some(seat) = self.servers.get_mut(place) {
            *seat = Some(Server::new(server));
        }
        self.after_change(true);
    }

    /// A server goes: it gets no new connections.
    pub fn remove(&mut self, place: usize) {
        if let Some(seat) = self.servers.get_mut(place) {
            *seat = None;
        }
        self.after_change(true);
    }

    /// Nobody probes a server any more.
    pub fn forget(&mut self, place: usize, now: Instant) {
        if let Some(present) = self.member_mut(place) {
            present.forget(now);
        }
        self.after_change(true);
    }

    /// A server is to have other qualities from here on.
    pub fn update(&mut self, place: usize, server: &model::Server) {
        if let Some(present) = self.member_mut(place) {
            present.update(server);
        }
        self.after_change(true);
    }
}
