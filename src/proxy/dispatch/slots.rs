//! How many connections a server has, how many it may have, and whether somebody waits for one:
//! all in one word, so that each change sees the others, whatever core it is made on. Written by
//! every worker; the only thing here that a worker may wait for is the cache line.

use crate::proxy::atomic::{AtomicU32, AtomicU64, Ordering};

/// One connection. The upper half of the word counts them.
const ONE: u64 = 1 << 32;
/// Somebody waits: a place that comes free is not for newcomers.
const HELD: u64 = 1 << 31;
/// The lower bits: how many connections there may be.
const LIMIT: u64 = HELD - 1;

/// A server without a limit. No machine has so many descriptors.
pub const UNLIMITED: u32 = u32::MAX >> 1;

/// Who asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A newcomer, who must not overtake those who wait.
    Front,
    /// The head of the queue, let in under the lock.
    Queue,
}

/// The answer to somebody who asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It is taken.
    Taken,
    /// The server has as many connections as it may.
    Full,
    /// Others have waited for longer.
    Held,
}

/// A server's slots at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    /// Slots taken.
    #[must_use]
    pub fn used(self) -> u32 {
        used(self.0)
    }

    /// Whether there was none to take.
    #[must_use]
    pub const fn is_full(self) -> bool {
        is_full(self.0)
    }
}

/// What giving a slot back found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// Connections the server has left.
    pub left: u32,
    /// Somebody waits, and must be offered the slot.
    pub wanted: bool,
}

/// The slots of one server, alone on their cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slots {
    word: AtomicU64,
    most: AtomicU32,
}

impl Slots {
    /// None taken, none to have.
    #[must_use]
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            most: AtomicU32::new(0),
        }
    }

    /// Takes a slot, if there is one for somebody who comes through this door.
    pub fn take(&self, door: Door) -> Take {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if door == Door::Front && word & HELD != 0 {
                return Take::Held;
            }
            if is_full(word) {
                return Take::Full;
            }
            // Acquire: whoever gets the slot sees what its last user did before.
            match self.word.compare_exchange_weak(
                word,
                word + ONE,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.raise(used(word) + 1);
                    return Take::Taken;
                }
                Err(present) => word = present,
            }
        }
    }

    /// The slots as they are now.
    #[must_use]
    pub fn look(&self) -> Seen {
        Seen(self.word.load(Ordering::Relaxed))
    }

    /// Takes a slot as [`Self::take`], if nothing has changed since `seen`; else `None`.
    pub fn take_as_seen(&self, seen: Seen, door: Door) -> Option<Take> {
        let Seen(word) = seen;
        if door == Door::Front && word & HELD != 0 {
            return Some(Take::Held);
        }
        if is_full(word) {
            return Some(Take::Full);
        }
        let taken =
            self.word
                .compare_exchange(word, word + ONE, Ordering::AcqRel, Ordering::Relaxed);
        taken.ok()?;
        self.raise(used(word) + 1);
        Some(Take::Taken)
    }

    /// Gives a slot back. Count and sign are one word: either this sees that somebody waits, or
    /// that somebody, who looks again after [`Self::hold`], sees the slot.
    pub fn give_back(&self) -> Returned {
        let before = self.word.fetch_sub(ONE, Ordering::AcqRel);
        if used(before) == 0 {
            // Given back twice. The count is put right, and nobody got anything from it meanwhile.
            self.word.fetch_add(ONE, Ordering::AcqRel);
            return Returned {
                left: 0,
                wanted: false,
            };
        }
        Returned {
            left: used(before) - 1,
            wanted: before & HELD != 0,
        }
    }

    /// Keeps newcomers out, and has those who leave say so.
    pub fn hold(&self) {
        self.word.fetch_or(HELD, Ordering::AcqRel);
    }

    /// Nobody waits any more.
    pub fn let_go(&self) {
        self.word.fetch_and(!HELD, Ordering::AcqRel);
    }

    /// Sets how many connections there may be; those beyond it stay. To be called by one at a time.
    pub fn set_limit(&self, limit: u32) {
        let limit = u64::from(limit.min(UNLIMITED));
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(present) = self.word.compare_exchange_weak(
            word,
            word & !LIMIT | limit,
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            word = present;
        }
    }

    /// Lowers the limit; answers how many are taken at most from here on: so many, or those that are
    /// taken beyond it.
    pub fn lower(&self, limit: u32) -> u32 {
        self.set_limit(limit);
        self.used().max(limit)
    }

    /// Whether there is a slot to take.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !is_full(self.word.load(Ordering::Relaxed))
    }

    /// Slots taken: connections, and connects in flight.
    #[must_use]
    pub fn used(&self) -> u32 {
        used(self.word.load(Ordering::Relaxed))
    }

    /// The most that were ever taken at once.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Somebody else has this place from here on.
    pub fn forget(&self) {
        self.most.store(self.used(), Ordering::Relaxed);
    }

    /// A second write, on the line that is here already, only while the record is being broken.
    fn raise(&self, used: u32) {
        if self.most.load(Ordering::Relaxed) < used {
            self.most.fetch_max(used, Ordering::Relaxed);
        }
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

fn used(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(u32::MAX)
}

const fn is_full(word: u64) -> bool {
    word >> 32 >= word & LIMIT
}
