//! Who gets which server, and who waits: rotation, limits, slowstart and queue put together. Pure.
//! [`crate::proxy::farm`] holds one of these under its lock and delivers the [`Notice`]s.
//!
//! While every connection finds a free slot, nobody needs the lock: a [`Dispatch`] keeps a
//! [`Board`] up to date, on which workers pick and give back by themselves. The lock is for changes,
//! for retries, and for the limit. While somebody waits, the board's slots are held, and both
//! newcomers and those who leave come here. A further way to choose is another kind of [`plan`].

mod beside;
pub mod board;
mod members;
pub mod plan;
pub mod seats;
pub mod share;
pub mod slots;
pub mod verdicts;

mod force;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::board::Board;
use self::force::in_rotation;
use self::plan::{Owed, Plan};
use self::slots::Slots;
use self::verdicts::Verdicts;
use crate::config::model::{self, Balance, MaxQueue};
use crate::proxy::balance::{Key, Rotation};
use crate::proxy::outlook::Outlook;
use crate::proxy::pace::Pacers;
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
    /// There is room in the queue, but going by what was served of late it would wait in vain.
    NotInTime,
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

/// The decisions of one proxy; apart from what is read without the lock.
#[derive(Debug)]
#[repr(align(128))]
pub struct Dispatch {
    /// By place, up to the last that was ever taken.
    servers: Vec<Option<Server>>,
    board: Arc<Board>,
    /// The weights that the plan in force is made of.
    weights: Vec<u32>,
    /// Whether the board has a plan; a longer one than it can have is left to `rotation`.
    planned: bool,
    /// Picks where the plan doesn't, and for retries: they leave everybody's turn as it is.
    rotation: Rotation,
    balance: Balance,
    /// What the plans before this one left.
    owed: Owed,
    /// No server but backups is usable.
    on_backups: bool,
    queue: Queue,
    outlook: Outlook,
    max_queue: MaxQueue,
    /// Connects a second. Where any server has such a limit, nobody picks without the lock.
    pacers: Pacers,
    /// When to look again for those who wait for a paced server.
    wake: Option<Instant>,
    /// As far as the lock's holder has said; `None`: nothing is measured, nothing paced.
    now: Option<Instant>,
    slowstart: Duration,
    ramping: bool,
    cold: bool,
    notices: Vec<Notice>,
    verdicts: Verdicts,
    /// While another process has its part of the limits.
    sharing: Option<share::Sharing>,
}

impl Dispatch {
    /// Every server unprobed, nobody waiting, and no place for further servers.
    #[must_use]
    pub fn new(config: &model::Proxy) -> Self {
        Self::with_places(config, config.servers.len())
    }

    /// As [`Self::new`], with so many places in all.
    #[must_use]
    pub fn with_places(config: &model::Proxy, places: usize) -> Self {
        let servers = config.servers.iter();
        Self {
            servers: servers.map(|server| Some(Server::new(server))).collect(),
            board: Arc::new(Board::new(places)),
            weights: vec![0; config.servers.len()],
            planned: false,
            rotation: Rotation::new(config.servers.len()),
            balance: config.balance,
            owed: Owed::default(),
            on_backups: false,
            queue: Queue::default(),
            outlook: Outlook::new(config.queue_timeout),
            max_queue: config.max_queue,
            pacers: Pacers::default(),
            wake: None,
            now: None,
            slowstart: config.slowstart,
            ramping: false,
            cold: false,
            notices: Vec::new(),
            verdicts: Verdicts::new(config),
            sharing: None,
        }
    }

    /// Makes draws begin elsewhere. To be called before the first verdict.
    pub fn draw_from(&self, position: u64) {
        self.board.replace(|_| Plan::empty(position));
    }

    /// What workers may use without the lock.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Finds a server for a connection, or a place to wait.
    pub fn admit(&mut self, ticket: Ticket, tried: Tried, turn: Turn, key: Key) -> Admission {
        self.open_paced();
        if self.queue.is_empty()
            && let Some(server) = self.pick_paced(tried, key)
        {
            return Admission::Server(server);
        }
        if self.sharing.is_some()
            && self.queue.is_empty()
            && self.claim_slots()
            && let Some(server) = self.pick_paced(tried, key)
        {
            return Admission::Server(server);
        }
        if self.usable() == 0 {
            return Admission::NoServer;
        }
        let waiter = Waiter { ticket, tried, key };
        let admission = match turn {
            Turn::Again => {
                self.now.inspect(|now| self.outlook.returned(*now));
                Admission::Queued(self.queue.push_again(waiter))
            }
            Turn::First => {
                let limit = self.queue_limit();
                if self.queue.len() < limit && self.is_hopeless() {
                    return Admission::NotInTime;
                }
                match self.queue.push(waiter, limit) {
                    Ok(before) => Admission::Queued(before),
                    Err(Full) => return Admission::QueueFull,
                }
            }
        };
        self.now.inspect(|now| self.outlook.busy(*now));
        // A slot may have come free before anybody knew that it is waited for.
        self.board.hold(self.servers.len());
        self.pump();
        admission
    }

    /// Takes back a slot; answers how many that server has left. The queue's head gets it.
    pub fn release(&mut self, server: usize) -> u32 {
        let returned = self.board.give_back(server);
        if returned.wanted {
            self.pump();
        }
        returned.left
    }

    /// The next server with a free slot, avoiding those in `tried` while there are others.
    fn pick(&mut self, tried: Tried, key: Key) -> Option<usize> {
        let mut in_force = self.weights.iter().enumerate();
        let untried_left =
            !tried.is_empty() && in_force.any(|(i, weight)| *weight > 0 && !tried.contains(i));
        if !tried.is_empty() && !untried_left {
            // One of those that stand by; when backups are full, it waits: it is not sent once more,
            // and at once, to where it has failed. For those that are held back it does not wait.
            let slot = self.standby(tried);
            let mut backups = self.members().filter(|(_, server)| server.usable());
            if slot.is_some() || backups.any(|(place, _)| !tried.contains(place)) {
                return slot;
            }
        }
        let allowed = |index| !(untried_left && tried.contains(index));
        // A turn is one newcomer's: a retry takes none.
        let takes_turns = self.balance == Balance::RoundRobin;
        if self.planned && !(untried_left && takes_turns) {
            return self.board.take_for_queue(key, allowed);
        }
        let weights = &self.weights;
        let weight = |index| weights.get(index).copied().filter(|_| allowed(index));
        in_rotation(&mut self.rotation, &self.board, weight)
    }

    /// Whether somebody could be served: backups, and those that are held back, are there for those
    /// who failed on all others.
    fn has_room(&self) -> bool {
        let mut members = self.members();
        members.any(|(index, s)| s.able() && self.board.slots(index).is_some_and(Slots::has_room))
    }

    /// What an earlier process knew of a server.
    pub fn restore(&mut self, server: usize, up: bool, elapsed: Option<Duration>, now: Instant) {
        let ramp = self.slowstart;
        if let Some(server) = self.member_mut(server) {
            server.restore(up, elapsed, ramp, now);
        }
        self.after_change(true);
    }

    /// An administrator's word; answers whether anything changed.
    pub fn set_admin(&mut self, server: usize, state: AdminState, now: Instant) -> bool {
        let ramp = self.slowstart;
        let changed = self
            .member_mut(server)
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
        for server in self.servers.iter_mut().flatten() {
            changed |= server.advance(ramp, now);
        }
        self.after_change(changed);
    }

    fn after_change(&mut self, changed: bool) {
        if !changed {
            return;
        }
        self.settle();
        let was_ramping = self.ramping;
        let ramping = self.members().any(|(_, s)| s.ramping());
        self.ramping = ramping;
        let on_backups = self.members().all(|(_, s)| s.backup() || !s.usable());
        self.on_backups = on_backups;
        // While every server in force is warming up, none is throttled: there is nobody else.
        let cold = self
            .members()
            .all(|(_, s)| s.ramping() || !self.in_force(s));
        self.cold = cold;
        if was_ramping && !self.ramping {
            self.rotation.restart();
        }
        // Other servers will serve another number.
        self.outlook.forget();
        self.publish();
        if !self.queue.is_empty() {
            self.now.inspect(|now| self.outlook.busy(*now));
            self.pump();
        }
    }

    /// Brings limits and weights to the board.
    fn publish(&mut self) {
        let rates = self.servers.iter();
        self.pacers
            .set(rates.map(|server| server.as_ref()?.connects_per_second()));
        if self.pacers.is_empty() {
            self.let_go_if_empty();
        } else {
            self.board.hold(self.servers.len());
        }
        for index in 0..self.servers.len() {
            if let Some(slots) = self.board.slots(index) {
                slots.set_limit(self.open_limit(index));
            }
        }
        let weights: Vec<u32> = self
            .servers
            .iter()
            .map(|s| s.as_ref().filter(|s| self.in_force(s)))
            .map(|s| s.map_or(0, Server::effective_weight))
            .collect();
        if weights == self.weights {
            return;
        }
        self.weights = weights;
        let candidates = self.candidates();
        let (balance, owed, planned) = (self.balance, &mut self.owed, &mut self.planned);
        self.board.replace(|before| {
            let plan = Plan::follow(before, balance, candidates, owed);
            *planned = plan.is_some();
            plan.unwrap_or_else(|| Plan::empty(0))
        });
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
        self.members().filter(|(_, s)| s.usable()).count()
    }

    /// How many may wait.
    #[must_use]
    pub fn queue_limit(&self) -> usize {
        let limit = match self.max_queue {
            MaxQueue::Total(total) => u64::from(total),
            MaxQueue::PerServer(each) => {
                let in_force = self.members().filter(|(_, s)| self.in_force(s)).count();
                u64::from(each).saturating_mul(u64::try_from(in_force).unwrap_or(u64::MAX))
            }
        };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// The waiting line.
    #[must_use]
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The servers and their places.
    fn members(&self) -> impl Iterator<Item = (usize, &Server)> {
        let servers = self.servers.iter().enumerate();
        servers.filter_map(|(place, server)| Some((place, server.as_ref()?)))
    }

    /// The server at this place.
    #[must_use]
    pub fn server(&self, place: usize) -> Option<&Server> {
        self.servers.get(place)?.as_ref()
    }

    fn member_mut(&mut self, place: usize) -> Option<&mut Server> {
        self.servers.get_mut(place)?.as_mut()
    }

    /// The connections a server may have right now; `None`: as many as come.
    #[must_use]
    pub fn limit(&self, server: usize) -> Option<u32> {
        let server = self.server(server)?;
        server.max().map(|_| server.limit(!self.cold))
    }
}

#[cfg(test)]
mod capacity_tests;
#[cfg(test)]
pub(in crate::proxy) mod tests;
