//! Long-lived connections find their way to a server that came back, or that has fewer than its
//! share, and none grows older than `max-age`.
//!
//! [`plan`] says how many connections which server should give up, and which servers have room for
//! them; [`records`] says where a connection can be cut without cutting a TLS record. Both are pure.
//! `farm` runs the plan on the control thread and leaves its orders here; workers carry them out
//! (`retire`), each on its own idlest connections. What is closed is owed: for each, one newcomer is
//! led to a server below its share, so that no more are closed than have to move.

pub mod plan;
pub mod records;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use self::plan::{News, Plan, Shed};
use super::dispatch::seats::Seat;
use super::settings::micros;
use crate::config::model;

/// What the threads share of one proxy's rebalancing.
#[derive(Debug)]
pub struct Rebalancing {
    /// Microseconds.
    quiet: AtomicU64,
    /// `None`: it was turned off.
    plan: Mutex<Option<Plan>>,
    /// By worker; replaced as a whole, so that none is carried out late.
    orders: Mutex<Vec<Vec<Shed>>>,
    /// Newcomers that may be led to the server at each place.
    credits: Box<[AtomicU32]>,
    /// Whether there are any credits: a glance at this is all that newcomers pay else.
    owed: AtomicU32,
    closed: AtomicU64,
    redeemed: AtomicU64,
}

impl Rebalancing {
    /// For so many places.
    pub(super) fn new(config: &model::Rebalance, places: usize) -> Self {
        Self {
            quiet: AtomicU64::new(micros(config.quiet)),
            plan: Mutex::new(Some(Plan::new(config))),
            orders: Mutex::default(),
            credits: (0..places).map(|_| AtomicU32::new(0)).collect(),
            owed: AtomicU32::new(0),
            closed: AtomicU64::new(0),
            redeemed: AtomicU64::new(0),
        }
    }

    /// Begins anew with other settings; `None`: nothing is moved from here on, and nobody is owed.
    pub(super) fn set(&self, config: Option<&model::Rebalance>) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *plan = config.map(Plan::new);
        if let Some(config) = config {
            self.quiet.store(micros(config.quiet), Ordering::Relaxed);
        }
        self.owe(&[]);
        self.orders().clear();
    }

    /// For how long both directions must have been without a byte, microseconds.
    pub(super) fn quiet(&self) -> u64 {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Plans the next step. `seats`: `None` while nothing may be moved.
    pub(super) fn step(
        &self,
        seats: Option<&[Seat]>,
        workers: usize,
        now: Instant,
    ) -> Option<News> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (closed, redeemed) = (
            self.closed.load(Ordering::Relaxed),
            self.redeemed.load(Ordering::Relaxed),
        );
        let plan = plan.as_mut()?;
        let step = plan.step(seats, (closed, redeemed), now);
        self.owe(&step.credits);
        *self.orders() = plan.split(&step.sheds, workers);
        step.news
    }

    fn owe(&self, credits: &[(usize, u32)]) {
        let mut owed = 0;
        for (place, credit) in self.credits.iter().enumerate() {
            let given = credits.iter().find(|(to, _)| *to == place);
            let given = given.map_or(0, |(_, count)| *count);
            credit.store(given, Ordering::Relaxed);
            owed += given;
        }
        self.owed.store(owed, Ordering::Relaxed);
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Vec<Shed>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker is to close now; told once.
    pub(super) fn take_orders(&self, worker: usize) -> Vec<Shed> {
        self.orders()
            .get_mut(worker)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// A connection was closed.
    pub(super) fn note_closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Leads a newcomer to a server that is owed one; `take` gets a slot on one that `allowed` names.
    pub(super) fn redeem(
        &self,
        take: impl FnOnce(&dyn Fn(usize) -> bool) -> Option<usize>,
    ) -> Option<usize> {
        if self.owed.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let has_credit = |place: usize| {
            let credit = self.credits.get(place);
            credit.is_some_and(|credit| credit.load(Ordering::Relaxed) > 0)
        };
        let server = take(&has_credit)?;
        let credited = self.credits.get(server).is_some_and(spend);
        if spend(&self.owed) && credited {
            self.redeemed.fetch_add(1, Ordering::Relaxed);
        }
        Some(server)
    }
}

/// One less; `false`: there was none, for another thread was faster.
fn spend(count: &AtomicU32) -> bool {
    let less = |count: u32| count.checked_sub(1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}
