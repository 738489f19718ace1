//! Who gets which server, and who waits: rotation, limits, slowstart and queue put together. Pure.
//! [`crate::proxy::farm`] holds one of these under its lock and delivers the [`Notice`]s.

use std::time::{Duration, Instant};

use crate::config::model::{self, MaxQueue};
use crate::proxy::balance::Rotation;
use crate::proxy::queue::{Full, Queue, Ticket, Tried, Waiter};
use crate::proxy::server::{AdminState, Server};

/// What a connection that wants a server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A slot on this server.
    Server(usize),
    /// A place in the queue, with so many before it.
    Queued(usize),
    /// No server takes new connections.
    NoServer,
    /// Every server is at its limit and so is the queue.
    QueueFull,
}

/// News for a connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It has a slot on this server.
    Granted(Ticket, usize),
    /// No server is left that could ever take it.
    NoServer(Ticket),
}

/// Whether a connection asks for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A new connection: to the end of the line.
    First,
    /// It had a server and lost it: to the head of the line.
    Again,
}

/// The decisions of one proxy.
#[derive(Debug, Clone)]
pub struct Dispatch {
    servers: Vec<Server>,
    rotation: Rotation,
    queue: Queue,
    max_queue: MaxQueue,
    slowstart: Duration,
    ramping: bool,
    cold: bool,
    notices: Vec<Notice>,
}

impl Dispatch {
    /// Every server unprobed, nobody waiting.
    #[must_use]
    pub fn new(config: &model::Proxy) -> Self {
        Self {
            servers: config.servers.iter().map(Server::new).collect(),
            rotation: Rotation::new(config.servers.len()),
            queue: Queue::default(),
            max_queue: config.max_queue,
            slowstart: config.slowstart,
            ramping: false,
            cold: false,
            notices: Vec::new(),
        }
    }

    /// Finds a server for a connection, or a place to wait.
    pub fn admit(&mut self, ticket: Ticket, tried: Tried, turn: Turn) -> Admission {
        if self.queue.is_empty()
            && let Some(server) = self.pick(tried)
        {
            return Admission::Server(server);
        }
        if self.usable() == 0 {
            return Admission::NoServer;
        }
        let waiter = Waiter { ticket, tried };
        match turn {
            Turn::Again => {
                self.queue.push_front(waiter);
                self.pump();
                Admission::Queued(0)
            }
            Turn::First => match self.queue.push(waiter, self.queue_limit()) {
                Ok(before) => {
                    self.pump();
                    Admission::Queued(before)
                }
                Err(Full) => Admission::QueueFull,
            },
        }
    }

    /// Takes back a slot; answers how many that server has left. The queue's head gets it.
    pub fn release(&mut self, server: usize) -> u32 {
        let left = self.servers.get_mut(server).map_or(0, Server::give_back);
        if !self.queue.is_empty() {
            self.pump();
        }
        left
    }

    /// Drops a leaver from the queue; `false`: it is not there (any more).
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.queue.remove(ticket)
    }

    /// The next server with a free slot, avoiding those in `tried` while there are others.
    fn pick(&mut self, tried: Tried) -> Option<usize> {
        let untried_left = !tried.is_empty()
            && self
                .servers
                .iter()
                .enumerate()
                .any(|(i, s)| s.usable() && !tried.contains(i));
        let (servers, ramped) = (&self.servers, !self.cold);
        let picked = self.rotation.pick(|index| {
            let Some(server) = servers.get(index).filter(|s| s.usable()) else {
                return 0;
            };
            if server.used() >= server.limit(ramped) || untried_left && tried.contains(index) {
                return 0;
            }
            server.effective_weight()
        })?;
        self.servers.get_mut(picked)?.take();
        Some(picked)
    }

    /// Hands free slots to those who wait, in order.
    fn pump(&mut self) {
        if self.usable() == 0 {
            while let Some(ticket) = self.queue.pop() {
                self.notices.push(Notice::NoServer(ticket));
            }
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        while self.has_room()
            && let Some((ticket, server)) = queue.serve(|tried| self.pick(tried))
        {
            self.notices.push(Notice::Granted(ticket, server));
        }
        self.queue = queue;
    }

    fn has_room(&self) -> bool {
        let ramped = !self.cold;
        self.servers
            .iter()
            .any(|s| s.usable() && s.used() < s.limit(ramped))
    }

    /// A health verdict; answers whether anything changed. Slowstart follows an outage only.
    pub fn set_up(&mut self, server: usize, up: bool, now: Instant) -> bool {
        let ramp = self.slowstart;
        let changed = self
            .servers
            .get_mut(server)
            .is_some_and(|s| s.set_up(up, ramp, now));
        self.after_change(changed);
        changed
    }

    /// What an earlier process knew of a server.
    pub fn restore(&mut self, server: usize, up: bool, elapsed: Option<Duration>, now: Instant) {
        let ramp = self.slowstart;
        if let Some(server) = self.servers.get_mut(server) {
            server.restore(up, elapsed, ramp, now);
        }
        self.after_change(true);
    }

    /// An administrator's word; answers whether anything changed.
    pub fn set_admin(&mut self, server: usize, state: AdminState, now: Instant) -> bool {
        let ramp = self.slowstart;
        let changed = self
            .servers
            .get_mut(server)
            .is_some_and(|s| s.set_admin(state, ramp, now));
        self.after_change(changed);
        changed
    }

    /// Moves slowstarts on to `now`.
    pub fn advance(&mut self, now: Instant) {
        if !self.ramping {
            return;
        }
        let ramp = self.slowstart;
        let mut changed = false;
        for server in &mut self.servers {
            changed |= server.advance(ramp, now);
        }
        self.after_change(changed);
    }

    fn after_change(&mut self, changed: bool) {
        if !changed {
            return;
        }
        let was_ramping = self.ramping;
        self.ramping = self.servers.iter().any(Server::ramping);
        // While every usable server is warming up, none is throttled: there is nobody else.
        self.cold = self
            .servers
            .iter()
            .filter(|s| s.usable())
            .all(Server::ramping);
        if was_ramping && !self.ramping {
            self.rotation.restart();
        }
        if !self.queue.is_empty() {
            self.pump();
        }
    }

    /// The news that came up since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether there is news.
    #[must_use]
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Servers that may get new connections.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.servers.iter().filter(|s| s.usable()).count()
    }

    /// How many may wait.
    #[must_use]
    pub fn queue_limit(&self) -> usize {
        let limit = match self.max_queue {
            MaxQueue::Total(total) => u64::from(total),
            MaxQueue::PerServer(each) => {
                u64::from(each).saturating_mul(u64::try_from(self.usable()).unwrap_or(u64::MAX))
            }
        };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// The waiting line.
    #[must_use]
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The servers, in file order.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The connections a server may have right now; `None`: as many as come.
    #[must_use]
    pub fn limit(&self, server: usize) -> Option<u32> {
        let server = self.servers.get(server)?;
        server.max().map(|_| server.limit(!self.cold))
    }
}

#[cfg(test)]
pub(in crate::proxy) mod tests;
