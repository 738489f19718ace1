//! Which servers answer connects, and which leave one without an answer: known to all workers, and
//! to each connection by one glance at one word. A server in doubt gets one connect at a time, its
//! trial, until it answers one or a check says what it is. Pure.
//!
//! All of it is a hint: a word that is a little late costs a connect some milliseconds, and nothing
//! else is decided by it. Times are microseconds since the farm was made.

use std::time::{Duration, Instant};

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::settings::micros;

/// Between the beginnings of two trials of one server, at least, microseconds.
const TRIAL_EVERY: u64 = 250_000;
/// log2 of the unit in which answers are remembered, microseconds: 16 ms. Finer, each of many
/// connections would write to a line that others read.
const ANSWER_SHIFT: u32 = 14;

/// The lower bits of a place's word; the upper ones tell when its last trial began.
const IN_DOUBT: u64 = 1;
const ON_TRIAL: u64 = 1 << 1;
const FLAGS: u32 = 2;

/// What is known of each server's answers.
#[derive(Debug)]
pub struct Doubts {
    began: Instant,
    /// How many servers are in doubt.
    count: AtomicU32,
    places: Box<[Place]>,
}

/// One server, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    /// When it last answered, in units of [`ANSWER_SHIFT`], from 1; 0: never.
    answered: AtomicU64,
    /// 0: no doubt.
    doubt: AtomicU64,
}

impl Doubts {
    /// Nobody has answered yet, and nobody is in doubt.
    #[must_use]
    pub fn new(places: usize, began: Instant) -> Self {
        Self {
            began,
            count: AtomicU32::new(0),
            places: (0..places).map(|_| Place::default()).collect(),
        }
    }

    /// The time as it is told here.
    #[must_use]
    pub fn time(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.began))
    }

    /// Whether any server is in doubt.
    #[must_use]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Whether this one is.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        self.places
            .get(place)
            .is_some_and(|p| p.doubt.load(Ordering::Relaxed) != 0)
    }

    /// A server has answered: a connect, or a check.
    pub fn answered(&self, place: usize, now: u64) {
        let Some(found) = self.places.get(place) else {
            return;
        };
        let unit = (now >> ANSWER_SHIFT) + 1;
        if found.answered.load(Ordering::Relaxed) < unit {
            found.answered.store(unit, Ordering::Relaxed);
        }
        if found.doubt.load(Ordering::Relaxed) != 0 {
            self.clear(place);
        }
    }

    /// A connect that began at `since` has no answer at `now`. Puts the server in doubt, unless it
    /// has answered another one since: then a packet was lost. `true`: it was in no doubt before.
    pub fn silent(&self, place: usize, since: u64, now: u64) -> bool {
        let Some(found) = self.places.get(place) else {
            return false;
        };
        let begun = (since >> ANSWER_SHIFT) + 1;
        if found.answered.load(Ordering::Relaxed) > begun {
            return false;
        }
        let first = found.doubt.compare_exchange(
            0,
            now << FLAGS | IN_DOUBT,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if first.is_ok() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        first.is_ok()
    }

    /// Forgets a doubt.
    pub fn clear(&self, place: usize) {
        if let Some(found) = self.places.get(place)
            && found.doubt.swap(0, Ordering::Relaxed) != 0
        {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets everything: the place has another server.
    pub fn forget(&self, place: usize) {
        self.clear(place);
        if let Some(found) = self.places.get(place) {
            found.answered.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the caller's connect may be the trial of a server in doubt. Whoever hears `true`
    /// ends it.
    #[must_use]
    pub fn begin_trial(&self, place: usize, now: u64) -> bool {
        let Some(found) = self.places.get(place) else {
            return false;
        };
        let word = found.doubt.load(Ordering::Relaxed);
        let due = (word >> FLAGS).saturating_add(TRIAL_EVERY);
        if word & IN_DOUBT == 0 || word & ON_TRIAL != 0 || now < due {
            return false;
        }
        let next = now << FLAGS | IN_DOUBT | ON_TRIAL;
        found
            .doubt
            .compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// A trial is over without an answer.
    pub fn end_trial(&self, place: usize) {
        if let Some(found) = self.places.get(place) {
            found.doubt.fetch_and(!ON_TRIAL, Ordering::Relaxed);
        }
    }

    /// Whether a server is in no doubt and has answered within `within`.
    #[must_use]
    pub fn answers(&self, place: usize, now: u64, within: Duration) -> bool {
        self.places.get(place).is_some_and(|found| {
            let unit = found.answered.load(Ordering::Relaxed);
            let heard = unit << ANSWER_SHIFT;
            unit > 0
                && found.doubt.load(Ordering::Relaxed) == 0
                && now.saturating_sub(heard) <= micros(within)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    const MS: u64 = 1_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn doubts() -> Doubts {
        Doubts::new(2, clock::now())
    }

    #[test]
    fn a_connect_without_an_answer_puts_its_server_alone_in_doubt() {
        let doubts = doubts();
        assert!(!doubts.any());
        assert!(doubts.silent(1, 0, 50 * MS));
        assert!(!doubts.silent(1, 10 * MS, 60 * MS), "it is already");
        assert!(doubts.any() && doubts.has(1) && !doubts.has(0));
        assert!(!doubts.silent(2, 0, 50 * MS), "there is no such place");
    }

    #[test]
    fn a_server_that_answered_others_since_has_only_lost_a_packet() {
        let doubts = doubts();
        doubts.answered(0, 40 * MS);
        assert!(!doubts.silent(0, 0, 50 * MS));
        assert!(doubts.silent(0, 41 * MS, 91 * MS));
    }

    #[test]
    fn an_answer_ends_the_doubt() {
        let doubts = doubts();
        assert!(doubts.silent(0, 0, 50 * MS) && doubts.silent(1, 0, 50 * MS));
        doubts.answered(0, 60 * MS);
        assert!(!doubts.has(0) && doubts.any());
        doubts.clear(1);
        doubts.clear(1);
        assert!(!doubts.any());
    }

    #[test]
    fn one_trial_at_a_time_and_four_a_second() {
        let doubts = doubts();
        assert!(!doubts.begin_trial(0, 0), "it is in no doubt");
        assert!(doubts.silent(0, 0, 50 * MS));
        assert!(!doubts.begin_trial(0, 299 * MS), "the doubt is young");
        assert!(doubts.begin_trial(0, 300 * MS));
        assert!(!doubts.begin_trial(0, 900 * MS), "one is under way");
        doubts.end_trial(0);
        assert!(!doubts.begin_trial(0, 549 * MS));
        assert!(doubts.begin_trial(0, 550 * MS));
        doubts.answered(0, 560 * MS);
        doubts.end_trial(0);
        assert!(!doubts.any());
    }

    #[test]
    fn only_who_answered_lately_and_is_in_no_doubt_answers() {
        let doubts = doubts();
        assert!(!doubts.answers(0, 0, SECOND), "it never has");
        doubts.answered(0, 100 * MS);
        assert!(doubts.answers(0, 1_000 * MS, SECOND));
        assert!(!doubts.answers(0, 1_200 * MS, SECOND));
        assert!(doubts.silent(0, 1_150 * MS, 1_200 * MS));
        assert!(!doubts.answers(0, 1_200 * MS, Duration::from_secs(9)));
        doubts.answered(0, 1_300 * MS);
        assert!(doubts.answers(0, 1_300 * MS, SECOND));
        doubts.forget(0);
        assert!(!doubts.answers(0, 1_300 * MS, SECOND));
    }
}
