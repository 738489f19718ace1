//! The servers' order, worked out in advance, so that a worker finds the next one without a lock:
//! an immutable sequence, and a cursor that all workers move on. A plan is replaced, never
//! changed; which of its servers has a free slot is for [`Slots`] to say.

use super::slots::{Door, Slots, Take};
use crate::proxy::atomic::{AtomicU64, Ordering};
use crate::proxy::balance::Rotation;

/// The longest sequence that is worked out: 16 servers of any weights. Beyond it servers are
/// picked one at a time, under the lock.
const LENGTH_MAX: u64 = 4096;

/// Weighted round robin over a fixed set of servers.
#[derive(Debug)]
pub struct Plan {
    /// The servers of one turn, each as often as its weight says.
    sequence: Box<[u16]>,
    cursor: Cursor,
}

/// The next position, to be taken by whoever moves it; alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Cursor(AtomicU64);

impl Plan {
    /// Nobody is next: everyone goes through the lock.
    #[must_use]
    pub fn empty(from: u64) -> Self {
        Self {
            sequence: Box::default(),
            cursor: Cursor(AtomicU64::new(from)),
        }
    }

    /// The rotation over servers of these weights, 0 for those left out, going on at position
    /// `from`; `None` when one turn, the weights' sum without their common factor, is too long.
    #[must_use]
    pub fn new(weights: &[u32], from: u64) -> Option<Self> {
        let common = weights.iter().copied().fold(0, gcd).max(1);
        let turn: u64 = weights.iter().map(|w| u64::from(w / common)).sum();
        if turn > LENGTH_MAX {
            return None;
        }
        let mut rotation = Rotation::new(weights.len());
        let sequence = (0..turn)
            .filter_map(|_| rotation.pick(|at| weights.get(at).map_or(0, |w| w / common)))
            .map(|server| u16::try_from(server).ok())
            .collect::<Option<_>>()?;
        Some(Self {
            sequence,
            cursor: Cursor(AtomicU64::new(from)),
        })
    }

    /// Where the next pick will be made.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.cursor.0.load(Ordering::Relaxed)
    }

    /// Takes a slot on the next server that has one, among those `allowed`. Each position of the
    /// sequence is used by one caller or, when its server is full, by none: so over a turn each
    /// server that stays free gets exactly its share.
    pub fn pick(
        &self,
        slots: &[Slots],
        door: Door,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.sequence.is_empty() {
            return None;
        }
        let mut position = self.cursor.0.fetch_add(1, Ordering::Relaxed);
        loop {
            let server = self.server(position)?;
            if allowed(server) {
                match slots.get(server)?.take(door) {
                    Take::Taken => return Some(server),
                    Take::Held => return None,
                    Take::Full => {}
                }
            }
            position = self.skip_to_room(slots, &allowed)?;
        }
    }

    /// Moves the cursor past those that have no room, and takes the position of the next that has.
    fn skip_to_room(&self, slots: &[Slots], allowed: impl Fn(usize) -> bool) -> Option<u64> {
        let turn = u64::try_from(self.sequence.len()).ok()?;
        let mut from = self.position();
        loop {
            let next = (from..from.saturating_add(turn)).find(|position| {
                self.server(*position).is_some_and(|server| {
                    allowed(server) && slots.get(server).is_some_and(Slots::has_room)
                })
            })?;
            match self.cursor.0.compare_exchange_weak(
                from,
                next + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(next),
                Err(present) => from = present,
            }
        }
    }

    fn server(&self, position: u64) -> Option<usize> {
        let turn = u64::try_from(self.sequence.len()).ok()?;
        let place = usize::try_from(position.checked_rem(turn)?).ok()?;
        self.sequence.get(place).copied().map(usize::from)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
