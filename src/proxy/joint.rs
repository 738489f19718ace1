//! A gate whose limit several processes keep together. While this process is alone the gate has its
//! whole limit, and nothing here is in the way. While there is another one the gate is as wide as the
//! places that were claimed for it: one more is claimed for whoever finds none, and those that nobody
//! uses are given back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::engine::{Engine, Shared};
use super::gate::Gate;
use super::mailbox::Message;
use super::shares::Column;

/// Places claimed at once for those who were turned away.
const PLACES_AT_ONCE: u32 = 16;

/// Places that are kept for those who come next while limits are shared.
const SPARE: u32 = 8;
/// What names the process's limit in the table that processes share: no proxy's name.
const PROCESS_LINE: &str = "limits.max-connections";

/// How the limit of connections over all proxies is kept together with other processes.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The table.
    pub column: Column,
    /// Connections of all processes; `None`: each has its own limit alone.
    pub max_connections: Option<u32>,
}

/// Whether a gate's limit is shared.
#[derive(Debug, Default)]
pub(super) struct Joint {
    /// A glance at this spares everybody the lock.
    on: AtomicBool,
    /// Held while the limit changes: claims and what is given back follow each other.
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    of: Column,
    key: u64,
    /// What all processes may have together; `None`: there is no such limit.
    all: Option<u32>,
    /// What this process may have whatever the others have.
    own: u32,
    /// Claimed.
    places: u32,
}

impl Held {
    fn open(&self, gate: &Gate) {
        gate.set_limit(match self.all {
            Some(_) => self.places.min(self.own),
            None => self.own,
        });
    }

    fn claim(&mut self) -> bool {
        // Also where the table is full, and claims are always granted.
        let wanted = |all: &u32| self.places < self.own.min(*all);
        let Some(all) = self.all.filter(wanted) else {
            return false;
        };
        let granted = self.of.claim(self.key, all);
        self.places += u32::from(granted);
        granted
    }
}

impl Joint {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `false` when this process can have none, and then whoever leaves is told that
    /// somebody wants one.
    pub(super) fn enter(&self, gate: &Gate) -> bool {
        gate.try_enter() || (self.on.load(Ordering::Relaxed) && self.claim(gate)) || gate.enter()
    }

    #[cold]
    fn claim(&self, gate: &Gate) -> bool {
        let mut held = self.held();
        let Some(held) = held.as_mut() else {
            return false;
        };
        if held.claim() {
            held.open(gate);
        }
        gate.try_enter()
    }

    /// Another process serves, too, from here on: what is inside is claimed. `all` may have so many
    /// together, this one `own`.
    pub(super) fn begin(&self, gate: &Gate, of: &Column, key: u64, (all, own): (Option<u32>, u32)) {
        let mut held = self.held();
        if held.is_some() {
            return;
        }
        let mut new = Held {
            of: of.clone(),
            key,
            all: None,
            own,
            places: 0,
        };
        new.limit(gate, all, own);
        *held = Some(new);
        self.on.store(true, Ordering::Relaxed);
    }

    /// There are other limits from here on.
    pub(super) fn set(&self, gate: &Gate, all: Option<u32>, own: u32) {
        match self.held().as_mut() {
            Some(held) => held.limit(gate, all, own),
            None => gate.set_limit(all.map_or(own, |all| all.min(own))),
        }
    }

    /// This process may have so many, whatever the others have.
    pub(super) fn set_own(&self, gate: &Gate, own: u32) {
        let mut held = self.held();
        let Some(held) = held.as_mut() else {
            return gate.set_limit(own);
        };
        let all = held.all;
        held.limit(gate, all, own);
    }

    /// This process is alone; whether it may have more than before.
    pub(super) fn end(&self, gate: &Gate) -> bool {
        self.on.store(false, Ordering::Relaxed);
        let Some(held) = self.held().take() else {
            return false;
        };
        gate.set_limit(held.all.map_or(held.own, |all| all.min(held.own)));
        held.all.is_some()
    }

    /// Gives back what is not used but for `spare` places, and claims what is waited for if this
    /// process goes on accepting; whether there is room for somebody who was turned away.
    pub(super) fn settle(&self, gate: &Gate, spare: u32, stays: bool) -> bool {
        let mut held = self.held();
        let Some(held) = held.as_mut().filter(|held| held.all.is_some()) else {
            return false;
        };
        let least = gate.inside().saturating_add(spare);
        if held.places > least {
            let keep = gate.lower(least).min(held.places);
            held.of.give(held.key, held.places - keep);
            held.places = keep;
            held.open(gate);
        }
        if !(stays && gate.wanted()) {
            return false;
        }
        for _ in 0..PLACES_AT_ONCE {
            if !held.claim() {
                break;
            }
        }
        held.open(gate);
        let room = gate.inside() < gate.limit();
        if room {
            gate.forget_wish();
        }
        room
    }

    /// Whether no further place can be had, by this process or by any.
    pub(super) fn is_full(&self, gate: &Gate) -> bool {
        let held = self.held();
        let shared = held.as_ref().and_then(|held| Some((held, held.all?)));
        let Some((held, all)) = shared else {
            return gate.inside() >= gate.limit();
        };
        gate.inside() >= held.own || held.of.taken(held.key) >= u64::from(all)
    }
}

impl Held {
    fn limit(&mut self, gate: &Gate, all: Option<u32>, own: u32) {
        match (self.all, all) {
            // What is claimed stays; further claims go by the new limit.
            (Some(_), Some(_)) | (None, None) => {}
            (Some(_), None) => {
                self.of.give(self.key, self.places);
                self.places = 0;
            }
            (None, Some(_)) => {
                self.places = gate.lower(gate.inside());
                self.of.declare(self.key, self.places);
            }
        }
        self.all = all;
        self.own = own;
        self.open(gate);
    }
}

impl Shared {
    /// Another process serves, too, from here on.
    pub(super) fn share(&self, with: &Joined) {
        let mut hasher = DefaultHasher::new();
        PROCESS_LINE.hash(&mut hasher);
        let own = self.own_limit.load(Ordering::Relaxed);
        let limits = (with.max_connections, own);
        self.joint
            .begin(&self.gate, &with.column, hasher.finish(), limits);
    }
}

impl Engine {
    /// Whether there is no place for a further connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.joint.is_full(&self.shared.gate)
    }

    /// Another process serves, too, from here on: the limit of connections over all proxies is kept
    /// together with it.
    pub fn share(&self, with: &Joined) {
        self.shared.share(with);
    }

    /// This process is alone.
    pub fn end_sharing(&self) {
        if self.shared.joint.end(&self.shared.gate) {
            self.shared.post(&Message::Room);
        }
    }

    /// Gives back what is not used, and claims what is waited for. `stays`: whether this process goes on
    /// accepting; `max_connections`: of all processes.
    pub fn settle_sharing(&self, stays: bool, max_connections: Option<u32>) {
        let Shared {
            joint,
            gate,
            own_limit,
            ..
        } = &*self.shared;
        joint.set(gate, max_connections, own_limit.load(Ordering::Relaxed));
        let spare = if stays { SPARE } else { 0 };
        if joint.settle(gate, spare, stays) {
            self.shared.post(&Message::Room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::shares::Shares;
    use super::*;

    /// Two processes with a gate each, and a limit of four over both.
    fn two(own: u32) -> [(Joint, Gate); 2] {
        let shares = Arc::new(Shares::create().unwrap());
        let two = [1, 2].map(|pid| {
            let column = Column {
                column: shares.assign(pid).unwrap(),
                shares: Arc::clone(&shares),
            };
            (Joint::default(), Gate::new(4.min(own)), column)
        });
        // The first one is there already.
        for _ in 0..own.min(2) {
            assert!(two[0].0.enter(&two[0].1));
        }
        two.map(|(joint, gate, column)| {
            joint.begin(&gate, &column, 7, (Some(4), own));
            (joint, gate)
        })
    }

    #[test]
    fn two_gates_together_let_in_as_many_as_one_may() {
        let [(old, a), (new, b)] = two(u32::MAX);
        assert!(new.enter(&b) && new.enter(&b) && !new.enter(&b));
        assert!(!old.enter(&a));
        assert!(new.is_full(&b) && old.is_full(&a));
        assert!(!new.settle(&b, 0, true));
        // One leaves there: once it was given back, there is room here.
        a.leave();
        assert!(!new.settle(&b, 0, true));
        assert!(!old.settle(&a, 0, false));
        assert!(new.settle(&b, 0, true));
        assert!(!b.wanted(), "who waits is told once");
        assert!(new.enter(&b) && !new.enter(&b));
        assert_eq!((a.inside(), b.inside()), (1, 3));
    }

    #[test]
    fn room_that_has_to_be_claimed_first_is_no_want() {
        let [_, (new, gate)] = two(u32::MAX);
        assert!(new.enter(&gate) && new.enter(&gate));
        assert!(!gate.wanted());
        assert!(!new.enter(&gate) && gate.wanted());
    }

    #[test]
    fn a_process_has_no_more_than_it_can_whatever_is_left() {
        let [(old, a), (new, b)] = two(1);
        assert_eq!(a.inside(), 1, "the other one's own limit, too");
        assert!(new.enter(&b) && !new.enter(&b));
        assert!(!old.enter(&a));
        assert!(!new.settle(&b, 2, true));
        assert!(!new.enter(&b));
    }

    #[test]
    fn limits_come_and_go_while_they_are_shared() {
        let [(old, a), (new, b)] = two(u32::MAX);
        new.set(&b, None, 9);
        assert!((0..9).all(|_| new.enter(&b)) && !new.enter(&b));
        // What it has then counts: nobody gets more.
        new.set(&b, Some(4), 9);
        assert!(!new.enter(&b) && !old.enter(&a));
        for _ in 0..9 {
            b.leave();
        }
        new.settle(&b, 0, true);
        assert!(old.enter(&a));
        assert!(new.end(&b));
        assert!((0..4).all(|_| new.enter(&b)) && !new.enter(&b));
    }
}
