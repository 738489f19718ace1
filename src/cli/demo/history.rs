//! Who held the VIP when: the changes seen by a watcher, and the questions asked about them. Pure.

use std::time::{Duration, Instant};

/// The changes in the set of holders, oldest first.
#[derive(Debug, Clone)]
pub struct History {
    /// When, and which nodes had the address from then on.
    changes: Vec<(Instant, Vec<bool>)>,
}

impl History {
    /// No node of `nodes` holds anything.
    #[must_use]
    pub fn new(start: Instant, nodes: usize) -> Self {
        Self {
            changes: vec![(start, vec![false; nodes])],
        }
    }

    /// Enters an observation.
    pub fn observe(&mut self, at: Instant, holders: &[bool]) {
        if self.holders() != holders {
            self.changes.push((at, holders.to_vec()));
        }
    }

    /// The nodes that hold the address, one flag each, as last observed.
    #[must_use]
    pub fn holders(&self) -> &[bool] {
        self.changes
            .last()
            .map_or(&[], |(_, holders)| holders.as_slice())
    }

    /// The only holder, if there is exactly one.
    #[must_use]
    pub fn only_holder(&self) -> Option<usize> {
        let mut holders = positions(self.holders());
        let only = holders.next()?;
        holders.next().is_none().then_some(only)
    }

    /// When `node` last got or lost the address (the start if it never did).
    #[must_use]
    pub fn last_change_of(&self, node: usize) -> Option<Instant> {
        let mut at = None;
        let mut before = None;
        for (when, holders) in &self.changes {
            let held = holders.get(node).copied();
            if held != before {
                at = Some(*when);
                before = held;
            }
        }
        at
    }

    /// How long `node` held the address without a break after `since`; `None` if it did not hold
    /// it then.
    #[must_use]
    pub fn held_after(&self, node: usize, since: Instant, until: Instant) -> Option<Duration> {
        let mut held_at_since = false;
        for (when, holders) in &self.changes {
            let holds = holders.get(node).copied().unwrap_or(false);
            if *when <= since {
                held_at_since = holds;
            } else if held_at_since && !holds {
                return Some(when.duration_since(since));
            }
        }
        held_at_since.then(|| until.duration_since(since))
    }

    /// The longest time in `from..until` with more than one holder.
    #[must_use]
    pub fn longest_double(&self, from: Instant, until: Instant) -> Duration {
        self.longest(from, until, |holders| holders > 1)
    }

    /// The longest time in `from..until` with no holder.
    #[must_use]
    pub fn longest_vacancy(&self, from: Instant, until: Instant) -> Duration {
        self.longest(from, until, |holders| holders == 0)
    }

    /// How often another node than before became the only holder, in `from..until`.
    #[must_use]
    pub fn moves(&self, from: Instant, until: Instant) -> usize {
        let mut last = None;
        let mut moves = 0;
        for (when, holders) in &self.changes {
            let mut now = positions(holders);
            let (Some(only), None) = (now.next(), now.next()) else {
                continue;
            };
            if last.is_some_and(|last| last != only) && *when >= from && *when < until {
                moves += 1;
            }
            last = Some(only);
        }
        moves
    }

    fn longest(&self, from: Instant, until: Instant, counts: impl Fn(usize) -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        let mut begun: Option<Instant> = None;
        let end = [(until, Vec::new())];
        for (when, holders) in self.changes.iter().chain(&end) {
            let when = (*when).clamp(from, until);
            if let Some(begun) = begun {
                longest = longest.max(when.duration_since(begun));
            }
            if !counts(positions(holders).count()) {
                begun = None;
            } else if begun.is_none() {
                begun = Some(when);
            }
        }
        longest
    }
}

fn positions(holders: &[bool]) -> impl Iterator<Item = usize> {
    let held = holders.iter().enumerate();
    held.filter_map(|(position, holds)| holds.then_some(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_vacancy_and_moves_are_read_off_the_changes() {
        let base = crate::net::clock::now();
        let at = |ms| base + Duration::from_millis(ms);
        let mut history = History::new(base, 2);
        history.observe(at(100), &[true, false]);
        history.observe(at(150), &[true, false]);
        history.observe(at(1000), &[true, true]);
        history.observe(at(1030), &[false, true]);
        let ms = Duration::from_millis;
        assert_eq!(history.longest_double(base, at(2000)), ms(30));
        assert_eq!(history.longest_double(at(1010), at(2000)), ms(20));
        assert_eq!(history.longest_vacancy(base, at(2000)), ms(100));
        assert_eq!(history.only_holder(), Some(1));
        assert_eq!(history.moves(base, at(2000)), 1);
        assert_eq!(history.held_after(0, at(500), at(2000)), Some(ms(530)));
        assert_eq!(history.held_after(1, at(500), at(2000)), None);
        assert_eq!(history.held_after(1, at(1500), at(2000)), Some(ms(500)));
        assert_eq!(history.last_change_of(1), Some(at(1000)));
    }
}
