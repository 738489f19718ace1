//! What workers choose a server by, without a lock: an immutable list of candidates, a way to
//! choose among them, and a cursor that all workers move on. A plan is replaced, never changed;
//! which of its servers has a free slot is for [`Slots`] to say.

mod load;
mod turn;

pub use self::turn::Owed;

use self::turn::Turn;
use super::slots::{Door, Slots, Take};
use crate::config::model::Balance;
use crate::proxy::atomic::{AtomicU64, Ordering};
use crate::proxy::balance::{Key, Preference};

/// A server that takes new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the server table.
    pub place: u16,
    /// Its weight, above 0, as a slowstart leaves it.
    pub weight: u32,
    /// What stands for its name: [`crate::proxy::balance::seed`].
    pub seed: u64,
}

/// One way to choose, over a fixed set of servers.
#[derive(Debug)]
pub struct Plan {
    choice: Choice,
    candidates: Box<[Candidate]>,
    cursor: Cursor,
}

/// How the next server is chosen.
#[derive(Debug)]
enum Choice {
    /// Nobody is next: everyone goes through the lock.
    Nobody,
    /// Whose turn it is; a turn over places.
    InTurn(Turn),
    /// The relatively least loaded, and among equals the one whose turn it is; a turn over the
    /// candidates.
    Fewest(Turn),
    /// The less loaded of two that are drawn; the sums of the weights up to each.
    Drawn(Box<[u64]>),
    /// The one that the client prefers, within bounds; the sum of the weights, and whether all are
    /// the same.
    Preferred(u64, bool),
    /// The first with room.
    First,
}

/// The next position, to be taken by whoever moves it; alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Cursor(AtomicU64);

impl Cursor {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn position(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Plan {
    /// A plan without servers, that leaves everything to the lock. Draws begin at `from`.
    #[must_use]
    pub fn empty(from: u64) -> Self {
        Self {
            choice: Choice::Nobody,
            candidates: Box::default(),
            cursor: Cursor(AtomicU64::new(from)),
        }
    }

    /// The plan that follows `before`, in the order of the candidates' places. What servers are
    /// `owed` by the rotation goes into it, and what it can't settle remains. `None` when one turn
    /// of the rotation, the weights' sum without their common factor, is too long.
    #[must_use]
    pub fn follow(
        before: &Self,
        balance: Balance,
        candidates: Vec<Candidate>,
        owed: &mut Owed,
    ) -> Option<Self> {
        let mut position = before.cursor.position();
        if let Choice::InTurn(turn) = &before.choice {
            owed.add(&before.candidates, turn, position);
        }
        let choice = match balance {
            Balance::RoundRobin => {
                let turn = Turn::exact(&candidates)?.over_places(&candidates);
                position = owed.begin(&candidates);
                Choice::InTurn(turn)
            }
            Balance::LeastConnections => Choice::Fewest(Turn::about(&candidates)),
            Balance::Random => Choice::Drawn(load::sums(&candidates)),
            Balance::SourceHash => {
                let weights = || candidates.iter().map(|c| c.weight);
                let equal = weights().min() == weights().max();
                Choice::Preferred(weights().map(u64::from).sum(), equal)
            }
            Balance::First => Choice::First,
        };
        Some(Self {
            choice,
            candidates: candidates.into(),
            cursor: Cursor(AtomicU64::new(position)),
        })
    }

    /// Takes a slot on the next server that has one, among those `allowed`. `None` when each was
    /// full at some moment, or when somebody who comes through the front door has to wait.
    pub fn pick(
        &self,
        slots: &[Slots],
        door: Door,
        key: Key,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match &self.choice {
            Choice::Nobody => None,
            Choice::InTurn(turn) => self.in_turn(turn, slots, door, allowed),
            Choice::Fewest(turn) => self.fewest(turn, slots, door, allowed),
            Choice::Drawn(sums) => self.drawn(sums, slots, door, allowed),
            Choice::Preferred(weights, equal) => {
                let preference = |candidate: &Candidate| {
                    if *equal {
                        Preference::among_equals(key, candidate.seed)
                    } else {
                        Preference::new(key, candidate.seed, candidate.weight)
                    }
                };
                self.preferred(*weights, preference, slots, door, allowed)
            }
            Choice::First => load::any(self.candidates.iter(), slots, door, &allowed),
        }
    }

    /// Each position of the sequence is used by one caller or, when its server is full, by none:
    /// so over a turn each server that stays free gets exactly its share.
    fn in_turn(
        &self,
        turn: &Turn,
        slots: &[Slots],
        door: Door,
        allowed: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.candidates.is_empty() {
            return None;
        }
        let mut position = self.cursor.next();
        loop {
            let server = turn.at(position)?;
            if allowed(server) {
                match slots.get(server)?.take(door) {
                    Take::Taken => return Some(server),
                    Take::Held => return None,
                    Take::Full => {}
                }
            }
            position = self.skip_to_room(turn, slots, &allowed)?;
        }
    }

    /// Moves the cursor past those that have no room, and takes the position of the next that has.
    fn skip_to_room(
        &self,
        turn: &Turn,
        slots: &[Slots],
        allowed: impl Fn(usize) -> bool,
    ) -> Option<u64> {
        let mut from = self.cursor.position();
        loop {
            let next = (from..from.saturating_add(turn.len())).find(|position| {
                turn.at(*position).is_some_and(|server| {
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
}

#[cfg(test)]
mod tests;
