//! Clients that asked one server and wait for its first byte, seen against what the server usually
//! needs and against the other servers: long silence of one while others answer says that it does
//! not serve. Pure.
//!
//! Only time in which another server answered somebody counts. So a pause of all servers, of the
//! network or of this process says nothing of any of them, whichever wakes up first; and neither
//! does a protocol in which servers never answer.

use std::time::{Duration, Instant};

/// Clients that must wait before their waiting says anything.
pub const WAITING_MIN: u64 = 3;
/// For how long they must have waited in vain, at least.
pub const SILENCE_MIN: Duration = Duration::from_millis(250);
/// And so many times what the server usually needs for a first byte.
const TIMES_USUAL: u32 = 4;
/// One look vouches for no more than this: who looks may have been late.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// What is usual falls by one part in so many with each look that saw quicker answers.
const FORGET: u32 = 64;

/// What was counted for one server, from its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clients whose first bytes it took.
    pub asked: u64,
    /// Clients that got a first byte from it.
    pub answered: u64,
    /// Clients that asked and whose connection ended without a byte.
    pub unanswered: u64,
    /// Time between the last bytes of those that were answered and the answer, microseconds.
    pub waited: u64,
}

/// Whether a server answers.
#[derive(Debug, Clone, Default)]
pub struct Unanswered {
    /// At the last answer.
    mark: Tally,
    looked: Option<Instant>,
    /// Since when so many wait that it says something.
    since: Option<Instant>,
    /// How long others have answered since then.
    silent: Duration,
    /// What a first byte usually takes, at the slow end.
    usual: Duration,
}

impl Unanswered {
    /// Looks at what was counted; `others`: another server answered since the last look. Answers
    /// whether the server leaves clients without an answer: told once, and again when as many more
    /// have waited as long.
    pub fn look(&mut self, tally: Tally, others: bool, now: Instant) -> bool {
        let looked = self.looked.replace(now);
        if tally.answered != self.mark.answered {
            self.learn(tally);
            self.start_over(tally);
            return false;
        }
        let asked = tally.asked.saturating_sub(self.mark.asked);
        let ended = tally.unanswered.saturating_sub(self.mark.unanswered);
        if asked.saturating_sub(ended) < WAITING_MIN {
            self.since = None;
            self.silent = Duration::ZERO;
            return false;
        }
        if self.since.is_none() {
            self.since = Some(now);
        } else if others && let Some(looked) = looked {
            self.silent += now.saturating_duration_since(looked).min(LOOK_MAX);
        }
        let enough = self.silent >= self.patience();
        if enough {
            self.start_over(tally);
        }
        enough
    }

    /// Those who wait at this moment say nothing any more.
    pub fn start_over(&mut self, tally: Tally) {
        self.mark = tally;
        self.since = None;
        self.silent = Duration::ZERO;
    }

    /// How long nobody may be answered.
    fn patience(&self) -> Duration {
        SILENCE_MIN.max(self.usual.saturating_mul(TIMES_USUAL))
    }

    fn learn(&mut self, tally: Tally) {
        let answers = tally.answered.saturating_sub(self.mark.answered).max(1);
        let waited = tally.waited.saturating_sub(self.mark.waited);
        let mean = Duration::from_micros(waited / answers);
        let less = self.usual.saturating_sub(mean) / FORGET;
        self.usual = mean.max(self.usual.saturating_sub(less));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each 50 ms; asked, answered, unanswered, waited in ms, whether others answered. Ends
    /// at the first that says so: which one.
    fn run(unanswered: &mut Unanswered, looks: &[(u64, u64, u64, u64, bool)]) -> Option<usize> {
        let start = crate::net::clock::now();
        let step = Duration::from_millis(50);
        let mut now = unanswered.looked.unwrap_or(start);
        looks
            .iter()
            .position(|(asked, answered, ended, ms, others)| {
                now += step;
                let tally = Tally {
                    asked: *asked,
                    answered: *answered,
                    unanswered: *ended,
                    waited: ms * 1000,
                };
                unanswered.look(tally, *others, now)
            })
    }

    #[test]
    fn a_quarter_second_of_silence_while_others_answer_is_enough() {
        let mut silent = Unanswered::default();
        assert_eq!(run(&mut silent, &[(10, 10, 0, 20, true)]), None);
        // The third waits from the first look on: five more.
        assert_eq!(run(&mut silent, &[(15, 10, 0, 20, true); 20]), Some(5));
        // Told once; who comes now is waited for once more.
        assert_eq!(run(&mut silent, &[(17, 10, 0, 20, true); 20]), None);
        assert_eq!(run(&mut silent, &[(18, 10, 0, 20, true); 20]), Some(5));
    }

    #[test]
    fn a_pause_of_all_servers_says_nothing_whoever_wakes_up_first() {
        let mut silent = Unanswered::default();
        assert_eq!(run(&mut silent, &[(30, 0, 0, 0, false); 60]), None);
        // Another one wakes up a little before it.
        assert_eq!(run(&mut silent, &[(30, 0, 0, 0, true); 4]), None);
        assert_eq!(run(&mut silent, &[(30, 30, 0, 9000, true)]), None);
    }

    #[test]
    fn one_answer_vouches_for_all_and_two_who_wait_are_too_few() {
        let mut silent = Unanswered::default();
        let look = |n: u64| (n * 5, n / 4, 0, n, true);
        let looks: Vec<_> = (1..400).map(look).collect();
        assert_eq!(run(&mut silent, &looks), None);
        let mut silent = Unanswered::default();
        assert_eq!(run(&mut silent, &[(2, 0, 0, 0, true); 400]), None);
        // Neither do those who have left.
        assert_eq!(run(&mut silent, &[(50, 0, 48, 0, true); 400]), None);
        assert_eq!(run(&mut silent, &[(51, 0, 48, 0, true); 400]), Some(5));
    }

    #[test]
    fn a_server_that_needs_long_is_given_four_times_as_long() {
        let mut slow = Unanswered::default();
        // One client was answered after 600 ms: 2.4 s, in looks of 50 ms.
        assert_eq!(run(&mut slow, &[(1, 1, 0, 600, true)]), None);
        assert_eq!(run(&mut slow, &[(9, 1, 0, 600, true); 80]), Some(48));
        // Quick answers are believed little by little: after 200 of them 4 × 27 ms.
        let quick = |n: u64| (9 + n, 1 + n, 0, 600 + n, true);
        let looks: Vec<_> = (1..=200).map(quick).collect();
        assert_eq!(run(&mut slow, &looks), None);
        assert_eq!(run(&mut slow, &[(300, 201, 0, 800, true); 80]), Some(5));
    }

    #[test]
    fn a_look_that_comes_late_counts_for_a_tenth_of_a_second() {
        let start = crate::net::clock::now();
        let mut silent = Unanswered::default();
        let tally = Tally {
            asked: 5,
            ..Tally::default()
        };
        let told =
            |silent: &mut Unanswered, s| silent.look(tally, true, start + Duration::from_secs(s));
        assert_eq!(
            [0, 9, 18, 27].map(|s| told(&mut silent, s)),
            [false, false, false, true]
        );
    }
}
