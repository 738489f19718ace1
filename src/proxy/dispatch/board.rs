//! What of a dispatcher is open to all workers without its lock: the plan of who is next, and the
//! servers' slots. [`super::Dispatch`] keeps both as its lock's holder finds right.

use std::sync::Arc;

use super::plan::Plan;
use super::slots::{Door, Returned, Slots};
use crate::proxy::atomic::{AtomicBool, Ordering, Swap};
use crate::proxy::balance::Key;

/// Plan and slots of one proxy.
#[derive(Debug)]
pub struct Board {
    slots: Box<[Slots]>,
    plan: Swap<Plan>,
    /// Somebody waits: a glance at this spares newcomers, and the rotation, a position. That
    /// nobody overtakes is kept by the slots.
    held: AtomicBool,
}

impl Board {
    /// So many places, none of which may have a connection yet.
    #[must_use]
    pub(super) fn new(places: usize) -> Self {
        Self {
            slots: (0..places).map(|_| Slots::new()).collect(),
            plan: Swap::from_pointee(Plan::empty(0)),
            held: AtomicBool::new(false),
        }
    }

    /// Takes a slot on the server that is next, for the client that `key` names; `None`: the lock's
    /// holder has to decide.
    #[must_use]
    pub fn take(&self, key: Key) -> Option<usize> {
        if self.held.load(Ordering::Relaxed) {
            return None;
        }
        self.plan
            .load()
            .pick(&self.slots, Door::Front, key, |_| true)
    }

    /// Gives a slot back; if it is wanted, the lock's holder has to offer it.
    #[must_use]
    pub fn give_back(&self, server: usize) -> Returned {
        self.slots.get(server).map_or(
            Returned {
                left: 0,
                wanted: false,
            },
            Slots::give_back,
        )
    }

    /// A server's slots.
    #[must_use]
    pub fn slots(&self, server: usize) -> Option<&Slots> {
        self.slots.get(server)
    }

    /// Takes a slot for the lock's holder, on one of the servers that are `allowed`.
    pub(super) fn take_for_queue(
        &self,
        key: Key,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.plan
            .load()
            .pick(&self.slots, Door::Queue, key, allowed)
    }

    /// Puts another plan in force; `make` gets the one that was.
    pub(super) fn replace(&self, make: impl FnOnce(&Plan) -> Plan) {
        let next = make(&self.plan.load());
        self.plan.store(Arc::new(next));
    }

    /// Keeps newcomers from the slots. Whoever calls this looks for a free slot once more
    /// afterwards: from then on those who give one back will say so. `places`: up to the last that
    /// anybody has.
    pub(super) fn hold(&self, places: usize) {
        if self.held.swap(true, Ordering::Relaxed) {
            return;
        }
        for slots in self.slots.iter().take(places) {
            slots.hold();
        }
    }

    /// Whether somebody waits.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Nobody waits any more.
    pub(super) fn let_go(&self, places: usize) {
        if !self.held.load(Ordering::Relaxed) {
            return;
        }
        for slots in self.slots.iter().take(places) {
            slots.let_go();
        }
        self.held.store(false, Ordering::Relaxed);
    }
}
