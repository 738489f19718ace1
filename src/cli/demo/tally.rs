//! What the client saw: every attempt, and the figures drawn from them. Pure.

use std::time::{Duration, Instant};

/// How one attempt to reach the VIP ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, by the server at this position (`None`: by none of ours).
    Served(Option<usize>),
    /// The connection was refused.
    Refused,
    /// The connection was made and then broken.
    Cut,
    /// No answer in time, or no way to the address.
    TimedOut,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How.
    pub outcome: Outcome,
}

/// How many attempts ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that ended.
    pub tried: usize,
    /// Answered.
    pub served: usize,
    /// Refused.
    pub refused: usize,
    /// Broken after they were made.
    pub cut: usize,
    /// Not answered in time.
    pub timed_out: usize,
}

impl Counts {
    /// All that were not answered.
    #[must_use]
    pub const fn failed(&self) -> usize {
        self.tried - self.served
    }
}

/// The record of a client.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    attempts: Vec<Attempt>,
    /// Requests over long-lived connections, by server.
    held_requests: Vec<usize>,
    lost: Vec<Instant>,
}

impl Tally {
    /// An empty record for so many servers.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self {
            attempts: Vec::new(),
            held_requests: vec![0; servers],
            lost: Vec::new(),
        }
    }

    /// Enters an attempt.
    pub fn attempt(&mut self, attempt: Attempt) {
        self.attempts.push(attempt);
    }

    /// Enters a request answered over a long-lived connection.
    pub fn held_request(&mut self, server: Option<usize>) {
        if let Some(count) = server.and_then(|server| self.held_requests.get_mut(server)) {
            *count += 1;
        }
    }

    /// Enters a long-lived connection that broke.
    pub fn lost(&mut self, at: Instant) {
        self.lost.push(at);
    }

    /// Long-lived connections that broke since then.
    #[must_use]
    pub fn lost_since(&self, since: Instant) -> usize {
        self.lost.iter().filter(|at| **at >= since).count()
    }

    /// The attempts that began in `from..until`, counted.
    #[must_use]
    pub fn counts(&self, from: Instant, until: Instant) -> Counts {
        self.count(|attempt| attempt.started >= from && attempt.started < until)
    }

    /// The attempts that ended at `from` or later, counted.
    #[must_use]
    pub fn ended_since(&self, from: Instant) -> Counts {
        self.count(|attempt| attempt.ended >= from)
    }

    fn count(&self, counts_in: impl Fn(&Attempt) -> bool) -> Counts {
        let mut counts = Counts::default();
        for attempt in self.attempts.iter().filter(|attempt| counts_in(attempt)) {
            counts.tried += 1;
            match attempt.outcome {
                Outcome::Served(_) => counts.served += 1,
                Outcome::Refused => counts.refused += 1,
                Outcome::Cut => counts.cut += 1,
                Outcome::TimedOut => counts.timed_out += 1,
            }
        }
        counts
    }

    /// Answers by each server, of single attempts and over long-lived connections.
    #[must_use]
    pub fn by_server(&self) -> Vec<usize> {
        let mut counts = self.held_requests.clone();
        for attempt in &self.attempts {
            if let Outcome::Served(Some(server)) = attempt.outcome
                && let Some(count) = counts.get_mut(server)
            {
                *count += 1;
            }
        }
        counts
    }

    /// When the first attempt that began at or after `since` was answered.
    #[must_use]
    pub fn first_served(&self, since: Instant) -> Option<Instant> {
        self.attempts
            .iter()
            .filter(|attempt| attempt.started >= since)
            .filter(|attempt| matches!(attempt.outcome, Outcome::Served(_)))
            .map(|attempt| attempt.ended)
            .min()
    }

    /// The longest time between two answers that overlaps `from..until`: how long nobody was
    /// served. The time since the last answer counts too.
    #[must_use]
    pub fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        let mut answers: Vec<Instant> = self
            .attempts
            .iter()
            .filter(|attempt| matches!(attempt.outcome, Outcome::Served(_)))
            .map(|attempt| attempt.ended)
            .filter(|ended| *ended < until)
            .collect();
        answers.push(until);
        answers.sort_unstable();
        let mut longest = Duration::ZERO;
        let mut last: Option<Instant> = None;
        for answer in answers {
            if answer >= from {
                let begun = last.unwrap_or(from);
                longest = longest.max(answer.duration_since(begun));
            }
            last = Some(answer);
        }
        longest
    }

    /// The slowest answer to an attempt that began in `from..until`.
    #[must_use]
    pub fn slowest(&self, from: Instant, until: Instant) -> Option<Duration> {
        self.attempts
            .iter()
            .filter(|attempt| attempt.started >= from && attempt.started < until)
            .filter(|attempt| matches!(attempt.outcome, Outcome::Served(_)))
            .map(|attempt| attempt.ended.duration_since(attempt.started))
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    fn tally(base: Instant, attempts: &[(u64, u64, Outcome)]) -> Tally {
        let mut tally = Tally::new(2);
        for (started, ended, outcome) in attempts {
            tally.attempt(Attempt {
                started: ms(base, *started),
                ended: ms(base, *ended),
                outcome: *outcome,
            });
        }
        tally
    }

    #[test]
    fn the_gap_lies_between_the_answers_before_and_after_a_failure() {
        let base = crate::net::clock::now();
        let tally = tally(
            base,
            &[
                (0, 2, Outcome::Served(Some(0))),
                (10, 12, Outcome::Served(Some(1))),
                (20, 21, Outcome::Refused),
                (30, 112, Outcome::Served(Some(0))),
                (120, 122, Outcome::Served(Some(0))),
            ],
        );
        let gap = tally.longest_gap(ms(base, 15), ms(base, 125));
        assert_eq!(gap, Duration::from_millis(100));
        assert_eq!(tally.by_server(), vec![3, 1]);
        let counts = tally.counts(base, ms(base, 200));
        assert_eq!((counts.tried, counts.failed(), counts.refused), (5, 1, 1));
        assert_eq!(
            tally.slowest(base, ms(base, 200)),
            Some(Duration::from_millis(82))
        );
    }

    #[test]
    fn an_outage_that_never_ends_is_a_gap_until_the_end() {
        let base = crate::net::clock::now();
        let tally = tally(base, &[(0, 5, Outcome::Served(None))]);
        let gap = tally.longest_gap(ms(base, 100), ms(base, 1005));
        assert_eq!(gap, Duration::from_secs(1));
        assert_eq!(tally.first_served(ms(base, 1)), None);
    }
}
