//! A timer wheel: cheap to arm, nothing to cancel. Pure: time comes in as ticks.
//!
//! An entry is a hint, not a promise: when it comes due, its owner looks at the real deadline and
//! arms again if that lies ahead. So activity moves a deadline by writing one number, and an
//! owner that is gone ignores its entries.

/// Slots of one level; each level's slot spans a whole turn of the level below.
const SLOTS: u64 = 64;
/// log2 of [`SLOTS`].
const BITS: u32 = 6;
/// Levels: 64⁴ ticks reach 18 hours at 4 ms; later entries wait in the last slot and go round.
const LEVELS: usize = 4;

/// One armed timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub key: u32,
    /// The tick it was armed for, its lower 32 bits: 203 days.
    at: u32,
}

/// What a timer is armed for, or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due(u32);

impl Due {
    /// Not armed.
    pub const NEVER: Self = Self(0);

    /// Whether tick `at` comes before it; both lie ahead of `now`.
    #[must_use]
    pub fn is_after(self, at: u64, now: u64) -> bool {
        self == Self::NEVER || ahead(lower(at), now) < ahead(self.0, now)
    }
}

/// Ticks from `now` to a tick of which the lower 32 bits are `at`; 0 when it lies behind.
fn ahead(at: u32, now: u64) -> u32 {
    let ahead = at.wrapping_sub(lower(now));
    if ahead > u32::MAX / 2 { 0 } else { ahead }
}

impl Entry {
    /// Whether this is what `due` stands for.
    #[must_use]
    pub const fn is_for(self, due: Due) -> bool {
        self.at == due.0
    }

    /// Ticks from `now` until it comes due.
    fn ahead(self, now: u64) -> u64 {
        ahead(self.at, now).into()
    }
}

/// The lower 32 bits, of which 0 stands for "never": that tick counts as the one after.
fn lower(tick: u64) -> u32 {
    u32::try_from(tick & u64::from(u32::MAX)).map_or(1, |tick| tick.max(1))
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    levels: [Vec<Vec<Entry>>; LEVELS],
    /// The tick up to which (inclusive) everything has come due.
    now: u64,
    armed: usize,
}

impl Wheel {
    /// An empty wheel that stands at tick `now`.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            levels: std::array::from_fn(|_| (0..SLOTS).map(|_| Vec::new()).collect()),
            now,
            armed: 0,
        }
    }

    /// Arms a timer for tick `at`; one that lies in the past comes due at the next tick. Answers
    /// the tick at which it will.
    pub fn arm(&mut self, key: u32, at: u64) -> Due {
        let at = lower(at.max(self.now + 1));
        self.armed += 1;
        self.place(Entry { key, at });
        Due(at)
    }

    /// The next tick within `ahead` (at most one turn of the first level) at which something may
    /// come due.
    #[must_use]
    pub fn next_within(&self, ahead: u64) -> Option<u64> {
        (self.now + 1..=self.now + ahead.min(SLOTS - 1)).find(|tick| {
            let slot = usize::try_from(tick % SLOTS).unwrap_or(0);
            self.levels[0].get(slot).is_some_and(|s| !s.is_empty())
        })
    }

    /// How many timers are armed.
    #[must_use]
    pub const fn armed(&self) -> usize {
        self.armed
    }

    fn place(&mut self, entry: Entry) {
        let ahead = entry.ahead(self.now).max(1);
        for (level, slots) in self.levels.iter_mut().enumerate() {
            let shift = BITS * u32::try_from(level).unwrap_or(0);
            let last = level + 1 == LEVELS;
            if ahead >> shift < SLOTS || last {
                // A slot further than one turn away would come round too early; it is placed
                // again then.
                let at = self.now + ahead.min((SLOTS - 1) << shift);
                let slot = usize::try_from((at >> shift) % SLOTS).unwrap_or(0);
                if let Some(slot) = slots.get_mut(slot) {
                    slot.push(entry);
                }
                return;
            }
        }
    }

    /// Turns the wheel to tick `now` and puts what came due into `due`.
    pub fn advance(&mut self, now: u64, due: &mut Vec<Entry>) {
        if self.armed == 0 {
            self.now = self.now.max(now);
            return;
        }
        while self.now < now {
            self.now += 1;
            for level in 1..LEVELS {
                let shift = BITS * u32::try_from(level).unwrap_or(0);
                if self.now & ((1 << shift) - 1) != 0 {
                    break;
                }
                self.cascade(level, shift);
            }
            let slot = usize::try_from(self.now % SLOTS).unwrap_or(0);
            let Some(slot) = self.levels[0].get_mut(slot) else {
                continue;
            };
            self.armed -= slot.len();
            due.append(slot);
        }
    }

    /// Spreads a slot of a higher level over the levels below.
    fn cascade(&mut self, level: usize, shift: u32) {
        let slot = usize::try_from((self.now >> shift) % SLOTS).unwrap_or(0);
        let Some(slot) = self.levels.get_mut(level).and_then(|l| l.get_mut(slot)) else {
            return;
        };
        for entry in std::mem::take(slot) {
            if entry.ahead(self.now) == 0 {
                let slot = usize::try_from(self.now % SLOTS).unwrap_or(0);
                if let Some(slot) = self.levels[0].get_mut(slot) {
                    slot.push(entry);
                }
            } else {
                self.place(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_due_at_their_tick_and_not_before() {
        let mut wheel = Wheel::new(5);
        for (key, at) in [(1, 6), (2, 70), (3, 5000), (4, 300_000), (5, 20_000_000)] {
            wheel.arm(key, at);
        }
        let mut due = Vec::new();
        for (tick, expected) in [
            (5, None),
            (6, Some(1)),
            (69, None),
            (70, Some(2)),
            (4999, None),
            (5000, Some(3)),
            (299_999, None),
            (300_000, Some(4)),
            (19_999_999, None),
            (20_000_000, Some(5)),
        ] {
            wheel.advance(tick, &mut due);
            let keys: Vec<u32> = due.drain(..).map(|e| e.key).collect();
            assert_eq!(keys, expected.into_iter().collect::<Vec<u32>>(), "{tick}");
        }
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn a_timer_in_the_past_comes_due_at_the_next_tick() {
        let mut wheel = Wheel::new(100);
        wheel.arm(1, 3);
        let mut due = Vec::new();
        wheel.advance(101, &mut due);
        assert!(due.len() == 1 && due[0].is_for(Due(101)), "{due:?}");
    }

    #[test]
    fn seeded_timers_each_come_due_exactly_once_at_their_tick() {
        let mut seed = 11_u64;
        let mut next = move |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 20) % limit
        };
        let mut wheel = Wheel::new(1);
        let (mut now, mut pending, mut due) = (1_u64, Vec::new(), Vec::new());
        for key in 0..20_000_u32 {
            let at = now + 1 + next(400_000);
            wheel.arm(key, at);
            pending.push((key, at));
            let until = now + next(40);
            wheel.advance(until, &mut due);
            now = now.max(until);
            for entry in due.drain(..) {
                let index = pending.iter().rposition(|p| p.0 == entry.key).unwrap();
                let at = pending.swap_remove(index).1;
                assert!(entry.is_for(Due(lower(at))) && at <= now);
            }
            assert_eq!(wheel.armed(), pending.len());
            assert!(key % 64 != 0 || pending.iter().all(|p| p.1 > now));
        }
    }
}
