//! One `[proxy.NAME]` as all threads share it: the dispatcher under its lock and the board it keeps
//! for those who need none, the gate of its connection limit, counters, and the mailboxes through
//! which a freed slot reaches the worker whose connection is next in line. No sockets here.

pub mod table;

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::table::{Address, Seats};
use super::atomic::Swap;
use super::balance::Key;
use super::counters::{ProxyTotals, ServerTotals, WorkerCounters};
use super::dispatch::board::Board;
use super::dispatch::slots::Slots;
use super::dispatch::{Admission, Dispatch, Notice, Turn};
use super::doubts::Doubts;
use super::gate::Gate;
use super::mailbox::{Mailbox, Message};
use super::queue::{Ticket, Tried};
use super::rebalance::Rebalancing;
use super::roster::{self, Member, Origin, Roster, Table};
use super::server::{AdminState, Operational};
use super::slowstart;
use super::sources::{Overview, Sources};
use crate::config::model;
use crate::metrics::spans::Counts;
use crate::net::clock;

mod rebalance;
mod reload;
pub mod share;
mod verdicts;

use self::verdicts::Suspects;
pub use self::verdicts::{Alarm, Standing};

/// Sources that are shown by name, by each of two measures.
const TALKERS_MAX: usize = 10;

/// A proxy's shared state.
#[derive(Debug)]
pub struct Farm {
    name: String,
    /// Replaced by a reload.
    config: Swap<model::Proxy>,
    board: Arc<Board>,
    /// By place.
    addresses: Box<[Address]>,
    dispatch: Mutex<Dispatch>,
    gate: Gate,
    /// Made when the file first asks for it, and kept from then on.
    sources: OnceLock<Sources>,
    /// The same.
    rebalancing: OnceLock<Box<Rebalancing>>,
    /// When somebody who waits for a paced server is to be served, microseconds since `began`;
    /// the highest number: nobody.
    wake: AtomicU64,
    began: Instant,
    doubts: Doubts,
    suspects: Suspects,
    roster: Swap<Roster>,
    seats: Mutex<Seats>,
    attached: OnceLock<Attached>,
    sharing: share::Sharing,
}

/// The workers of the engine that serves this farm.
#[derive(Debug)]
struct Attached {
    proxy: usize,
    mailboxes: Vec<Arc<Mailbox>>,
    counters: Vec<Arc<WorkerCounters>>,
}

impl Farm {
    /// Every server waits for its first verdict; disabled ones are in maintenance.
    #[must_use]
    pub fn new(config: &model::Proxy) -> Self {
        let limit = config.max_connections.map_or(u32::MAX, NonZeroU32::get);
        let places = roster::places(config);
        let dispatch = Dispatch::with_places(config, places);
        // No two processes draw alike.
        dispatch.draw_from(RandomState::new().hash_one(&config.name));
        let table = Table::new(config);
        let none: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let addresses = config.servers.iter().map(|server| server.address);
        let addresses = addresses.chain(std::iter::repeat(none)).take(places);
        Self {
            board: Arc::clone(dispatch.board()),
            dispatch: Mutex::new(dispatch),
            gate: Gate::new(limit),
            sources: once(config.guard.per_source.as_ref().map(Sources::new)),
            rebalancing: once(
                config
                    .rebalance
                    .map(|rebalance| Box::new(Rebalancing::new(&rebalance, places))),
            ),
            doubts: Doubts::new(places, clock::now()),
            suspects: Suspects::new(places),
            addresses: addresses.map(Address::new).collect(),
            wake: AtomicU64::new(u64::MAX),
            began: clock::now(),
            roster: Swap::from_pointee(table.roster().clone()),
            seats: Mutex::new(Seats {
                table,
                before: vec![ServerTotals::default(); config.servers.len()],
                connects_before: vec![Counts::default(); config.servers.len()],
            }),
            attached: OnceLock::new(),
            sharing: share::Sharing::default(),
            name: config.name.clone(),
            config: Swap::from_pointee(config.clone()),
        }
    }

    /// The proxy's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The proxy's configuration.
    #[must_use]
    pub fn config(&self) -> Arc<model::Proxy> {
        self.config.load_full()
    }

    /// What the previous process knew of a server.
    pub fn restore(&self, server: usize, up: bool, ramp_elapsed: Option<Duration>, now: Instant) {
        self.change(|dispatch| dispatch.restore(server, up, ramp_elapsed, now));
    }

    /// An administrator's word.
    pub fn set_admin(&self, server: usize, state: AdminState, now: Instant) {
        let changed = self.change(|dispatch| dispatch.set_admin(server, state, now));
        if changed && state == AdminState::Maint {
            self.tell_server_down(server);
        }
    }

    /// Moves slowstarts on; the control thread calls this each 250 ms.
    pub fn tick(&self, now: Instant) {
        self.change(|dispatch| dispatch.advance(now));
        self.sweep(now);
        self.rebalance(now);
    }

    /// Servers that may take new connections.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.dispatch().usable()
    }

    fn dispatch(&self) -> MutexGuard<'_, Dispatch> {
        self.dispatch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` under the lock and delivers the news it made, outside of it.
    fn change<T>(&self, change: impl FnOnce(&mut Dispatch) -> T) -> T {
        let (outcome, notices) = {
            let mut dispatch = self.dispatch();
            dispatch.at(clock::now());
            let outcome = change(&mut dispatch);
            self.set_wake(dispatch.wake());
            if !dispatch.has_notices() {
                return outcome;
            }
            (outcome, dispatch.take_notices())
        };
        for notice in notices {
            let ticket = match notice {
                Notice::Granted(ticket, _) | Notice::NoServer(ticket) => ticket,
            };
            let Some(attached) = self.attached.get() else {
                continue;
            };
            let proxy = attached.proxy;
            if let Some(mailbox) = attached.mailboxes.get(usize::from(ticket.worker)) {
                mailbox.post(Message::Notice { proxy, notice });
            }
        }
        outcome
    }

    fn set_wake(&self, at: Option<Instant>) {
        let at = at.map_or(u64::MAX, |at| {
            let since = at.saturating_duration_since(self.began).as_micros();
            // Rounded up: it is not woken before its time.
            u64::try_from(since).map_or(u64::MAX, |since| since.saturating_add(1))
        });
        if self.wake.load(Ordering::Relaxed) != at {
            self.wake.store(at, Ordering::Relaxed);
        }
    }

    /// Whether somebody waits for the pace of a server.
    pub(super) fn makes_wait(&self) -> bool {
        self.wake.load(Ordering::Relaxed) != u64::MAX
    }

    /// How long until somebody who waits for a paced server is to be served; `None`: nobody is.
    pub(super) fn wakes_in(&self, now: Instant) -> Option<Duration> {
        let at = self.wake.load(Ordering::Relaxed);
        if at == u64::MAX {
            return None;
        }
        let at = self.began + Duration::from_micros(at);
        Some(at.saturating_duration_since(now))
    }

    /// Serves those whose time has come.
    pub(super) fn wake(&self) {
        self.change(Dispatch::pump);
    }

    fn tell_server_down(&self, server: usize) {
        if let Some(attached) = self.attached.get() {
            let proxy = attached.proxy;
            for mailbox in &attached.mailboxes {
                mailbox.post(Message::ServerDown { proxy, server });
            }
        }
    }

    /// Connects the farm to an engine's workers; `false`: it is served already.
    pub(super) fn attach(&self, proxy: usize, mailboxes: &[Arc<Mailbox>]) -> bool {
        let servers = self.addresses.len();
        let counters = mailboxes.iter();
        let counters = counters.map(|_| Arc::new(WorkerCounters::new(servers)));
        let attached = Attached {
            proxy,
            mailboxes: mailboxes.to_vec(),
            counters: counters.collect(),
        };
        self.attached.set(attached).is_ok()
    }

    /// The counters of a worker, where an engine serves this farm.
    pub(super) fn counters(&self, worker: usize) -> Option<Arc<WorkerCounters>> {
        self.attached.get()?.counters.get(worker).cloned()
    }

    /// The gate of `max-connections`.
    pub(super) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What each source has of this proxy; `None`: nobody ever counted. Whether it is asked before
    /// a connection begins is for the guard to say.
    pub(super) fn sources(&self) -> Option<&Sources> {
        self.sources.get()
    }

    /// Finds a server for a connection, or a place to wait. Takes the lock at a limit and for
    /// those whose connect failed.
    /// `key` names the client to strategies that ask for it.
    pub fn admit(&self, ticket: Ticket, tried: Tried, turn: Turn, key: Key) -> Admission {
        if tried.is_empty() {
            if let Some(rebalancing) = self.rebalancing.get()
                && let Some(server) = rebalancing.redeem(|allowed| self.take_beside(allowed))
            {
                return Admission::Server(server);
            }
            if let Some(server) = self.board.take(key) {
                return Admission::Server(server);
            }
        }
        self.change(|dispatch| dispatch.admit(ticket, tried, turn, key))
    }

    /// A slot on a server among those `allowed`, if one is free and nobody waits. Takes the lock.
    pub fn take_beside(&self, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        self.change(|dispatch| dispatch.take_beside(allowed))
    }

    /// Whether a server that takes connections is not in `tried`.
    pub(super) fn has_untried(&self, tried: Tried) -> bool {
        self.dispatch().has_untried(tried)
    }

    /// Which servers answer connects.
    pub const fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// A check of `server` has passed.
    pub fn passed_check(&self, server: usize, now: Instant) {
        self.doubts.answered(server, self.doubts.time(now));
    }

    /// Takes back a slot; answers how many the server has left. Takes the lock while somebody
    /// waits.
    pub fn release(&self, server: usize) -> u32 {
        let returned = self.board.give_back(server);
        if returned.wanted {
            self.change(Dispatch::pump);
        }
        returned.left
    }

    /// Drops a leaver from the queue; `false`: a grant is on its way to it.
    pub fn leave(&self, ticket: Ticket) -> bool {
        self.dispatch().leave(ticket)
    }

    /// Everything that status and metrics show.
    #[must_use]
    pub fn stats(&self, now: Instant) -> FarmStats {
        let (totals, server_totals) = self.totals();
        let (waits, connects) = self.spans();
        let roster = self.roster();
        let config = self.config();
        let counted = self
            .sources
            .get()
            .filter(|_| config.guard.per_source.is_some());
        let sources = counted.map(|sources| sources.overview(TALKERS_MAX));
        let dispatch = self.dispatch();
        let servers = roster
            .present()
            .filter_map(|(place, member)| {
                let totals = server_totals.get(place).copied().unwrap_or_default();
                let connects = connects.get(place).copied().unwrap_or_default();
                ServerStats::new(&dispatch, place, member, (totals, connects), now)
            })
            .collect();
        FarmStats {
            name: self.name.clone(),
            usable: dispatch.usable(),
            able: dispatch.able(),
            panic: dispatch.panics(),
            connections: self.gate.inside(),
            connections_max: self.gate.most(),
            connections_limit: config.max_connections.map(NonZeroU32::get),
            queue: dispatch.queue().len(),
            queue_max: dispatch.queue().longest(),
            queue_limit: dispatch.queue_limit(),
            sources,
            totals,
            waits,
            servers,
            leaving: self.leaving(&roster),
        }
    }
}

/// Everything that status and metrics show of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FarmStats {
    /// The proxy's name.
    pub name: String,
    /// Servers that may take new connections.
    pub usable: usize,
    /// Servers that could, as far as checks and the operator say.
    pub able: usize,
    /// Every server that could is held back, and they are used all the same.
    pub panic: bool,
    /// Connections now, running and queued.
    pub connections: u32,
    /// The most at once.
    pub connections_max: u32,
    /// `max-connections`.
    pub connections_limit: Option<u32>,
    /// Connections waiting for a slot.
    pub queue: usize,
    /// The most that ever waited at once.
    pub queue_max: usize,
    /// How many may wait.
    pub queue_limit: usize,
    /// The sources of its connections; `None`: nobody counts.
    pub sources: Option<Overview>,
    /// Counters since the engine began.
    pub totals: ProxyTotals,
    /// Waits that ended with a server, by how long they took.
    pub waits: Counts,
    /// The servers, in the order of their places.
    pub servers: Vec<ServerStats>,
    /// Servers that were removed and have connections still.
    pub leaving: Vec<LeavingStats>,
}

/// A server that was removed and has connections still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeavingStats {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Connections it has.
    pub connections: u32,
}

/// Everything that status and metrics show of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStats {
    /// Its place.
    pub place: usize,
    /// The server's name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Who made it a member.
    pub origin: Origin,
    /// Whether it is used only when no other server is usable.
    pub backup: bool,
    /// The weight it came with, where an operator's stands before it.
    pub own_weight: Option<u32>,
    /// What the health checks say.
    pub operational: Operational,
    /// What stands behind that, and beside it.
    pub standing: Standing,
    /// What the administrator says.
    pub admin: AdminState,
    /// Whether it may take new connections.
    pub usable: bool,
    /// The present weight.
    pub weight: u32,
    /// The present share of that weight, percent.
    pub share_percent: u32,
    /// Milliseconds of slowstart passed; `None`: not warming up.
    pub ramp_ms: Option<u64>,
    /// Connections now, connects in flight included.
    pub connections: u32,
    /// The most at once.
    pub connections_max: u32,
    /// `max-connections` as it applies now; `None`: unlimited.
    pub connections_limit: Option<u32>,
    /// `connects-per-second`; `None`: as they come.
    pub connects_per_second: Option<u32>,
    /// Milliseconds since its operational state changed; `None`: no verdict yet.
    pub since_ms: Option<u64>,
    /// How often it went down.
    pub downs: u64,
    /// How long it was down in all, milliseconds.
    pub down_ms: u64,
    /// Counters since the engine began.
    pub totals: ServerTotals,
    /// Connects it accepted, by how long they took.
    pub connects: Counts,
}

impl ServerStats {
    fn new(
        dispatch: &Dispatch,
        place: usize,
        member: &Member,
        (totals, connects): (ServerTotals, Counts),
        now: Instant,
    ) -> Option<Self> {
        let server = dispatch.server(place)?;
        let slots: &Slots = dispatch.board().slots(place)?;
        Some(Self {
            place,
            name: member.name.clone(),
            address: member.address,
            origin: member.origin,
            backup: member.backup,
            own_weight: member.own_weight().map(|weight| weight.get().into()),
            operational: server.operational(),
            standing: Standing::new(server, now),
            admin: server.admin(),
            usable: server.usable(),
            weight: server.weight(),
            share_percent: server.share() * 100 / slowstart::FULL,
            ramp_ms: server.ramp_elapsed(now).map(millis),
            connections: slots.used(),
            connections_max: slots.most(),
            connections_limit: dispatch.limit(place),
            connects_per_second: member.connects_per_second.map(NonZeroU32::get),
            since_ms: server
                .changed()
                .map(|changed| millis(now.saturating_duration_since(changed))),
            downs: server.downs(),
            down_ms: millis(server.down_time(now)),
            totals,
            connects,
        })
    }
}

fn once<T>(value: Option<T>) -> OnceLock<T> {
    value.map_or_else(OnceLock::new, OnceLock::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
