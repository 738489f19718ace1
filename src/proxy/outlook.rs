//! Whether somebody who joins the queue will be served in time, judged by what was served of late:
//! in the next queue-timeout as many as in the last one. As long as the queue has not been busy for
//! that long nothing is known, and nobody is turned away. Pure.

use std::time::{Duration, Instant};

/// Parts that the time of a queue-timeout is counted in.
const PARTS: usize = 16;

/// What a queue that is never empty got done, over one queue-timeout.
#[derive(Debug, Clone)]
pub struct Outlook {
    patience: Duration,
    /// Since when somebody has been waiting all the time, under the same conditions.
    busy_since: Option<Instant>,
    /// Served in each part; a ring.
    served: [u32; PARTS],
    /// The part that is being counted, since `busy_since`.
    part: u64,
}

impl Outlook {
    /// Nothing is known; `patience` is the queue-timeout.
    #[must_use]
    pub const fn new(patience: Duration) -> Self {
        Self {
            patience,
            busy_since: None,
            served: [0; PARTS],
            part: 0,
        }
    }

    /// Nobody waits, or there are other servers than before: what was measured says nothing of
    /// what comes.
    pub const fn forget(&mut self) {
        self.busy_since = None;
    }

    /// Somebody waits at `now`.
    pub const fn busy(&mut self, now: Instant) {
        if self.busy_since.is_none() {
            self.busy_since = Some(now);
            self.served = [0; PARTS];
            self.part = 0;
        }
    }

    /// One who waited got a server.
    pub fn served(&mut self, now: Instant) {
        self.turn_to(now);
        if let Some(served) = self.cell(self.part) {
            *served = served.saturating_add(1);
        }
    }

    /// One of those lost its server and waits once more: it was not served after all.
    pub fn returned(&mut self, now: Instant) {
        self.turn_to(now);
        if let Some(served) = self.cell(self.part) {
            *served = served.saturating_sub(1);
        }
    }

    /// Whether one with so many before it would wait in vain. One may wait in any case, so that a
    /// server that comes free finds somebody.
    pub fn is_hopeless(&mut self, before: usize, now: Instant) -> bool {
        let Some(since) = self.busy_since else {
            return false;
        };
        if now.saturating_duration_since(since) < self.patience {
            return false;
        }
        self.turn_to(now);
        let served: u64 = self.served.iter().copied().map(u64::from).sum();
        u64::try_from(before).unwrap_or(u64::MAX) >= served.max(1)
    }

    /// Clears the parts that have passed since the last look.
    fn turn_to(&mut self, now: Instant) {
        let Some(since) = self.busy_since else {
            return;
        };
        let parts = u128::try_from(PARTS).unwrap_or(1);
        let passed = now.saturating_duration_since(since).as_nanos() * parts;
        let part = passed / self.patience.as_nanos().max(1);
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        let passed = part.saturating_sub(self.part);
        if passed >= u64::try_from(PARTS).unwrap_or(u64::MAX) {
            self.served = [0; PARTS];
        } else {
            for stale in self.part + 1..=self.part + passed {
                if let Some(served) = self.cell(stale) {
                    *served = 0;
                }
            }
        }
        self.part = self.part.max(part);
    }

    fn cell(&mut self, part: u64) -> Option<&mut u32> {
        let parts = u64::try_from(PARTS).ok()?;
        let at = usize::try_from(part % parts).ok()?;
        self.served.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    const PATIENCE: Duration = Duration::from_millis(1600);

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn nobody_is_turned_away_before_a_whole_queue_timeout_was_measured() {
        let start = clock::now();
        let mut outlook = Outlook::new(PATIENCE);
        assert!(!outlook.is_hopeless(1_000_000, start));
        outlook.busy(start);
        outlook.busy(ms(start, 900));
        assert!(!outlook.is_hopeless(1_000_000, ms(start, 1599)));
        assert!(outlook.is_hopeless(1_000_000, ms(start, 1600)));
        outlook.forget();
        assert!(!outlook.is_hopeless(1_000_000, ms(start, 1600)));
        outlook.busy(ms(start, 1700));
        assert!(!outlook.is_hopeless(1_000_000, ms(start, 3299)));
        assert!(outlook.is_hopeless(1_000_000, ms(start, 3300)));
    }

    #[test]
    fn as_many_as_were_served_may_wait() {
        let start = clock::now();
        let mut outlook = Outlook::new(PATIENCE);
        outlook.busy(start);
        // One each 20 ms: 80 in a queue-timeout.
        for step in 0..400 {
            outlook.served(ms(start, step * 20));
        }
        assert!(!outlook.is_hopeless(79, ms(start, 7999)));
        assert!(outlook.is_hopeless(80, ms(start, 7999)));
        // What was served long ago does not count.
        assert!(outlook.is_hopeless(45, ms(start, 7980 + 800)));
        assert!(!outlook.is_hopeless(35, ms(start, 7980 + 800)));
        assert!(outlook.is_hopeless(1, ms(start, 7980 + 1700)));
        assert!(!outlook.is_hopeless(0, ms(start, 7980 + 1700)));
    }

    #[test]
    fn servers_that_fail_everybody_serve_nobody() {
        let start = clock::now();
        let mut outlook = Outlook::new(PATIENCE);
        outlook.busy(start);
        for step in 0..1600 {
            outlook.served(ms(start, step));
            outlook.returned(ms(start, step));
        }
        assert!(outlook.is_hopeless(1, ms(start, 1600)));
    }

    #[test]
    fn slots_that_come_free_in_bursts_count_as_much_as_a_steady_trickle() {
        let start = clock::now();
        let mut outlook = Outlook::new(PATIENCE);
        outlook.busy(start);
        for burst in 0..5 {
            for _ in 0..50 {
                outlook.served(ms(start, 100 + burst * 1200));
            }
        }
        // The last burst was at 4900, the one before at 3700.
        assert!(!outlook.is_hopeless(99, ms(start, 5000)));
        assert!(outlook.is_hopeless(100, ms(start, 5000)));
        assert!(!outlook.is_hopeless(49, ms(start, 6200)));
        assert!(outlook.is_hopeless(50, ms(start, 6200)));
    }
}
