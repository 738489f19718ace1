//! A count of connections that never exceeds its limit, shared by all workers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The gate of a process or of a proxy.
#[derive(Debug)]
pub struct Gate {
    inside: AtomicU32,
    most: AtomicU32,
    limit: u32,
    wanted: AtomicBool,
}

impl Gate {
    /// An empty gate for at most `limit` connections.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self {
            inside: AtomicU32::new(0),
            most: AtomicU32::new(0),
            limit,
            wanted: AtomicBool::new(false),
        }
    }

    /// Takes a place; `false` when all are taken, and then [`Self::leave`] will tell that somebody
    /// wants one.
    pub fn enter(&self) -> bool {
        if self.try_enter() {
            return true;
        }
        self.wanted.store(true, Ordering::SeqCst);
        // A place may have come free before the wish was known.
        self.try_enter()
    }

    fn try_enter(&self) -> bool {
        let entered = self
            .inside
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| {
                (inside < self.limit).then_some(inside + 1)
            });
        match entered {
            Ok(before) => {
                self.most.fetch_max(before + 1, Ordering::Relaxed);
                true
            }
            Err(_full) => false,
        }
    }

    /// Gives a place back; `true` when somebody wanted one, and must be told.
    pub fn leave(&self) -> bool {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst)
    }

    /// Whether somebody was turned away since a place was last given back.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Places taken.
    #[must_use]
    pub fn inside(&self) -> u32 {
        self.inside.load(Ordering::SeqCst)
    }

    /// The most that were ever taken.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_takes_no_more_than_its_limit_and_tells_who_leaves_that_somebody_waits() {
        let gate = Gate::new(2);
        assert!(gate.enter() && gate.enter());
        assert!(!gate.leave());
        assert!(gate.enter());
        assert!(!gate.enter());
        assert!(gate.wanted());
        assert!(gate.leave());
        assert!(!gate.leave());
        assert_eq!((gate.inside(), gate.most(), gate.limit()), (0, 2, 2));
    }
}
