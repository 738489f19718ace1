//! When an Active announces its addresses by gratuitous ARP: a burst at once, a second one after
//! `garp.delay`, then single frames every `garp.refresh`. Pure.
#![forbid(unsafe_code)]

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::model::Garp;

/// The announcements still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Frames of the present burst that are left, and when the next one goes out.
    #[serde(with = "crate::recorder::time::pair")]
    burst: Option<(u8, Instant)>,
    #[serde(with = "crate::recorder::time::maybe")]
    second: Option<Instant>,
    #[serde(with = "crate::recorder::time::maybe")]
    refresh: Option<Instant>,
}

impl Schedule {
    /// Begins a burst at `now` and plans what follows it.
    #[must_use]
    pub fn start(policy: &Garp, now: Instant) -> Self {
        let later = |span: std::time::Duration| (!span.is_zero()).then(|| now + span);
        Self {
            burst: Some((policy.repeat.max(1), now)),
            second: later(policy.delay),
            refresh: later(policy.refresh),
        }
    }

    /// When [`due`](Self::due) has something to say next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let burst = self.burst.map(|(_, at)| at);
        [burst, self.second, self.refresh]
            .into_iter()
            .flatten()
            .min()
    }

    /// How many frames per address go out at `now`; 0 when none is due.
    pub fn due(&mut self, policy: &Garp, now: Instant) -> u8 {
        let mut frames = 0;
        if self.second.is_some_and(|at| at <= now) {
            self.second = None;
            self.burst = Some((policy.repeat.max(1), now));
        }
        if self.refresh.is_some_and(|at| at <= now) {
            self.refresh = Some(now + policy.refresh);
            frames = 1;
        }
        if let Some((left, at)) = self.burst.filter(|(_, at)| *at <= now) {
            if policy.interval.is_zero() {
                self.burst = None;
                return left;
            }
            self.burst = (left > 1).then(|| (left - 1, at.max(now) + policy.interval));
            frames = 1;
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn policy(interval_ms: u64) -> Garp {
        Garp {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            interval: Duration::from_millis(interval_ms),
        }
    }

    fn run(policy: &Garp, seconds: u64) -> Vec<(u64, u8)> {
        let start = crate::net::clock::now();
        let mut schedule = Schedule::start(policy, start);
        let mut seen = Vec::new();
        while let Some(at) = schedule.deadline() {
            let since = at - start;
            if since > Duration::from_secs(seconds) {
                break;
            }
            let ms = u64::try_from(since.as_millis()).unwrap();
            seen.push((ms, schedule.due(policy, at)));
        }
        seen
    }

    #[test]
    fn a_burst_goes_out_at_once_again_after_the_delay_and_then_single_frames() {
        assert_eq!(
            run(&policy(0), 61),
            [(0, 5), (5000, 5), (30_000, 1), (60_000, 1)]
        );
    }

    #[test]
    fn frames_of_a_burst_keep_their_interval() {
        assert_eq!(
            run(&policy(10), 4),
            [(0, 1), (10, 1), (20, 1), (30, 1), (40, 1)]
        );
    }

    #[test]
    fn zero_delay_and_zero_refresh_leave_one_burst() {
        let mut quiet = policy(0);
        quiet.delay = Duration::ZERO;
        quiet.refresh = Duration::ZERO;
        assert_eq!(run(&quiet, 100), [(0, 5)]);
    }
}
