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

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limits: &[u32]) -> Vec<Slots> {
        limits
            .iter()
            .map(|limit| {
                let slots = Slots::new();
                slots.set_limit(*limit);
                slots
            })
            .collect()
    }

    fn picks(plan: &Plan, slots: &[Slots], count: usize) -> Vec<usize> {
        (0..count)
            .filter_map(|_| plan.pick(slots, Door::Front, |_| true))
            .collect()
    }

    #[test]
    fn the_sequence_is_smooth_and_goes_on_where_it_is_told_to() {
        let slots = slots(&[9, 9, 9]);
        let plan = Plan::new(&[100, 200, 300], 0).unwrap();
        assert_eq!(picks(&plan, &slots, 8), [2, 1, 0, 2, 1, 2, 2, 1]);
        let next = Plan::new(&[100, 200, 300], plan.position()).unwrap();
        assert_eq!(picks(&next, &slots, 4), [0, 2, 1, 2]);
    }

    #[test]
    fn a_full_server_is_passed_over_and_the_others_keep_their_shares() {
        let slots = slots(&[1, 90, 90]);
        let plan = Plan::new(&[5, 1, 2], 0).unwrap();
        let taken = picks(&plan, &slots, 31);
        let count = |server| taken.iter().filter(|s| **s == server).count();
        assert_eq!([count(0), count(1), count(2)], [1, 10, 20]);
    }

    #[test]
    fn where_all_are_full_or_held_for_others_nobody_is_picked() {
        let slots = slots(&[1, 1]);
        let plan = Plan::new(&[1, 1], 0).unwrap();
        assert_eq!(picks(&plan, &slots, 3), [0, 1]);
        assert_eq!(
            slots[0].give_back(),
            super::super::slots::Returned {
                left: 0,
                wanted: false
            }
        );
        slots.iter().for_each(Slots::hold);
        assert!(picks(&plan, &slots, 3).is_empty());
        assert_eq!(plan.pick(&slots, Door::Queue, |_| true), Some(0));
        assert!(slots[1].give_back().wanted);
        assert_eq!(plan.pick(&slots, Door::Queue, |server| server != 1), None);
    }

    #[test]
    fn sixteen_servers_of_any_weights_fit_and_a_longer_turn_is_left_to_the_lock() {
        let mut weights = [256; 16];
        weights[15] = 255;
        assert_eq!(Plan::new(&weights, 0).unwrap().sequence.len(), 4095);
        assert!(Plan::new(&[4096, 1], 0).is_none());
        assert!(Plan::new(&[8192, 2], 0).is_none());
        assert_eq!(Plan::new(&[0, 65_536], 0).unwrap().sequence.len(), 1);
        assert!(Plan::new(&[0, 0], 0).unwrap().sequence.is_empty());
    }

    #[test]
    fn a_slot_given_back_twice_leaves_the_count_right() {
        let slots = &slots(&[1])[0];
        assert_eq!(slots.take(Door::Front), Take::Taken);
        slots.give_back();
        slots.give_back();
        assert_eq!(slots.used(), 0);
        assert_eq!(slots.take(Door::Front), Take::Taken);
        assert_eq!(slots.take(Door::Front), Take::Full);
    }
}
