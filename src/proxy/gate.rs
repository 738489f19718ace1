//! A count of connections that never exceeds its limit, shared by all workers.

use super::atomic::{AtomicU32, AtomicU64, Ordering};

/// One place. The upper half of the word counts those taken.
const ONE: u64 = 1 << 32;
/// Somebody was turned away.
const WANTED: u64 = 1;
/// The bits between: how many places there are.
const LIMIT: u64 = (ONE - 1) & !WANTED;
/// No machine has so many descriptors.
const UNLIMITED: u32 = u32::MAX >> 1;

/// The gate of a process or of a proxy: one atomic on the way in and one on the way out, on cache
/// lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Gate {
    word: AtomicU64,
    most: AtomicU32,
}

impl Gate {
    /// An empty gate for at most `limit` connections.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            word: AtomicU64::new(places(limit)),
            most: AtomicU32::new(0),
        }
    }

    /// Takes a place; `false` when all are taken, and then [`Self::leave`] will tell that somebody
    /// wants one. Count and wish are one word: no place comes free unseen between the two.
    pub fn enter(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let before = inside(word);
            let free = before < limit(word);
            // Full: written even if it says so already, for an old value may lie.
            let next = if free { word + ONE } else { word | WANTED };
            match self
                .word
                .compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => {
                    if free {
                        self.raise(before + 1);
                    }
                    return free;
                }
                Err(present) => word = present,
            }
        }
    }

    /// Takes a place if one is free. Who finds none is not noted.
    pub fn try_enter(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while inside(word) < limit(word) {
            match self.word.compare_exchange_weak(
                word,
                word + ONE,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.raise(inside(word) + 1);
                    return true;
                }
                Err(present) => word = present,
            }
        }
        false
    }

    /// Whoever was turned away is told that there is room.
    pub fn forget_wish(&self) {
        self.word.fetch_and(!WANTED, Ordering::SeqCst);
    }

    /// Only while the record is being broken is there a second write.
    fn raise(&self, inside: u32) {
        if self.most.load(Ordering::Relaxed) < inside {
            self.most.fetch_max(inside, Ordering::Relaxed);
        }
    }

    /// Gives a place back; `true` when somebody wanted one, and must be told.
    pub fn leave(&self) -> bool {
        let before = self.word.fetch_sub(ONE, Ordering::SeqCst);
        before & WANTED != 0 && self.word.fetch_and(!WANTED, Ordering::SeqCst) & WANTED != 0
    }

    /// Whether somebody was turned away since a place was last given back.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.word.load(Ordering::SeqCst) & WANTED != 0
    }

    /// Places taken.
    #[must_use]
    pub fn inside(&self) -> u32 {
        inside(self.word.load(Ordering::SeqCst))
    }

    /// The most that were ever taken.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        limit(self.word.load(Ordering::SeqCst))
    }

    /// Sets how many places there are; those taken beyond it stay. To be called by one at a time.
    pub fn set_limit(&self, limit: u32) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(present) = self.word.compare_exchange_weak(
            word,
            word & !LIMIT | places(limit),
            Ordering::SeqCst,
            Ordering::Relaxed,
        ) {
            word = present;
        }
    }

    /// Lowers the limit; answers how many are taken at most from here on: so many, or those that are
    /// taken beyond it.
    pub fn lower(&self, limit: u32) -> u32 {
        self.set_limit(limit);
        self.inside().max(limit)
    }
}

/// A limit where it stands in the word.
fn places(limit: u32) -> u64 {
    u64::from(limit.min(UNLIMITED)) << 1
}

fn limit(word: u64) -> u32 {
    u32::try_from((word & LIMIT) >> 1).unwrap_or(UNLIMITED)
}

fn inside(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(u32::MAX)
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

    #[test]
    fn a_limit_that_changes_leaves_count_and_wish_alone() {
        let gate = Gate::new(u32::MAX);
        assert!(gate.enter() && gate.enter());
        assert_eq!((gate.lower(2), gate.lower(1)), (2, 2));
        assert!(!gate.enter() && gate.wanted());
        gate.set_limit(3);
        assert!(gate.wanted() && gate.enter() && !gate.enter());
        assert_eq!((gate.inside(), gate.limit()), (3, 3));
    }

    #[test]
    fn those_inside_stay_when_the_limit_falls_and_nobody_enters_before_there_is_room() {
        let gate = Gate::new(3);
        assert!(gate.enter() && gate.enter() && gate.enter());
        gate.set_limit(1);
        assert_eq!(gate.inside(), 3);
        assert!(!gate.enter());
        assert!(gate.leave());
        assert!(!gate.enter());
        assert!(gate.leave());
        assert!(!gate.enter());
        assert!(gate.leave());
        assert!(gate.enter());
        gate.set_limit(2);
        assert!(gate.enter());
        assert_eq!(gate.inside(), 2);
    }
}
