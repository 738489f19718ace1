//! Did a probe fail in time because the server did not answer, or because this process got no CPU
//! to hear it? Pure.
//!
//! While a probe runs, 25 beats are due in the time it may take; what the beats and the probe's own end come too
//! late adds up. A probe that ended by its timeout while this process was late for a good part of
//! it says nothing about the server, and is not counted. That holds for [`EXCUSED_MAX`] at a
//! stretch: beyond that nothing is known of the server, and not knowing counts as failure.

use std::time::{Duration, Instant};

/// The beats of a probe in the time it may take.
const BEATS: u32 = 25;
/// Between two beats, whatever the timeout.
const BEAT_MIN: Duration = Duration::from_millis(20);
/// A beat so late is the normal grain of a busy machine.
const GRAIN: Duration = Duration::from_millis(10);
/// How long failures may go uncounted.
const EXCUSED_MAX: Duration = Duration::from_secs(10);

/// How late this process was while one probe ran.
#[derive(Debug)]
pub(super) struct Lateness {
    every: Duration,
    due: Instant,
    total: Duration,
}

impl Lateness {
    /// A probe of at most `timeout` begins at `now`.
    pub(super) fn new(now: Instant, timeout: Duration) -> Self {
        let every = (timeout / BEATS).max(BEAT_MIN);
        Self {
            every,
            due: now + every,
            total: Duration::ZERO,
        }
    }

    /// When the next beat is due.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// A beat came.
    pub(super) fn beat(&mut self, now: Instant) {
        self.add(now);
        self.due = now + self.every;
    }

    fn add(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due);
        if late >= GRAIN {
            self.total += late;
        }
    }

    /// Whether a probe that began at `started` and failed at `now`, of at most `timeout`, had no
    /// fair chance.
    pub(super) fn spoils(mut self, started: Instant, now: Instant, timeout: Duration) -> bool {
        self.add(now);
        let in_time = now.saturating_duration_since(started) < timeout;
        !in_time && self.total >= timeout / 4
    }
}

/// Failures that were not counted, one after the other.
#[derive(Debug, Default)]
pub(super) struct Excuses {
    since: Option<Instant>,
}

impl Excuses {
    /// A probe gave a result that counts.
    pub(super) fn over(&mut self) {
        self.since = None;
    }

    /// Whether a spoiled probe of `now` may go uncounted; the first of a stretch is to be told of.
    pub(super) fn accept(&mut self, now: Instant) -> Option<First> {
        match self.since {
            None => {
                self.since = Some(now);
                Some(First(true))
            }
            Some(since) if now.saturating_duration_since(since) < EXCUSED_MAX => Some(First(false)),
            Some(_) => None,
        }
    }
}

/// Whether it is the first of its stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First(pub(super) bool);

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Beats at these times, milliseconds after the start; the probe fails at `end`.
    fn spoiled(beats: &[u64], end: u64) -> bool {
        let start = crate::net::clock::now();
        let mut lateness = Lateness::new(start, TIMEOUT);
        for beat in beats {
            lateness.beat(start + ms(*beat));
        }
        lateness.spoils(start, start + ms(end), TIMEOUT)
    }

    #[test]
    fn a_timeout_that_was_waited_for_in_time_counts() {
        let beats: Vec<u64> = (1..25).map(|beat| beat * 20).collect();
        assert!(!spoiled(&beats, 501));
        let grain: Vec<u64> = (1..18).map(|beat| beat * 28).collect();
        assert!(!spoiled(&grain, 505));
    }

    #[test]
    fn a_timeout_in_which_this_process_slept_for_a_quarter_does_not_count() {
        let first_half: Vec<u64> = (1..=12).map(|beat| beat * 20).collect();
        assert!(spoiled(&first_half, 700));
        assert!(spoiled(&[20, 40, 240, 260, 280, 300], 501));
        assert!(spoiled(&[], 2_000));
    }

    #[test]
    fn a_failure_before_the_timeout_counts_however_late_this_process_is() {
        assert!(!spoiled(&[], 499));
        assert!(spoiled(&[], 500));
    }

    #[test]
    fn failures_go_uncounted_for_ten_seconds_at_a_stretch() {
        let start = crate::net::clock::now();
        let mut excuses = Excuses::default();
        assert_eq!(excuses.accept(start), Some(First(true)));
        assert_eq!(excuses.accept(start + ms(9_999)), Some(First(false)));
        assert_eq!(excuses.accept(start + ms(10_000)), None);
        assert_eq!(excuses.accept(start + ms(11_000)), None);
        excuses.over();
        assert_eq!(excuses.accept(start + ms(12_000)), Some(First(true)));
    }
}
