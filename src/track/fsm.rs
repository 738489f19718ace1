//! When a track script runs next, and what its results mean. Pure: time and results come in, runs
//! and verdicts go out.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::units::Count;

/// A result that hasn't come this long after the timeout isn't waited for: the run counts as
/// failed. (The runner ends a run at its timeout; one that didn't is to be replaced before the next
/// run.)
const RESULT_GRACE: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A deadline passed.
    Tick,
    /// A run has ended.
    Finished {
        /// The number of the run, from [`Action::Run`].
        run: u64,
        /// Exit code 0 within the timeout.
        ok: bool,
    },
    /// Who ran it is gone, and the run with it: that says nothing about the node.
    Lost,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Start a run.
    Run {
        /// Its number.
        run: u64,
    },
    /// The verdict is known or has changed.
    Verdict(bool),
}

/// One script's schedule and verdict. The first result decides at once; from then on `rise` or
/// `fall` equal results in a row change the verdict. Runs never overlap: the next start is one
/// interval after the last, or at its end if that is later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Script {
    #[serde(with = "crate::recorder::time::span")]
    interval: Duration,
    #[serde(with = "crate::recorder::time::span")]
    timeout: Duration,
    rise: Count,
    fall: Count,
    #[serde(with = "crate::recorder::time")]
    next_start: Instant,
    #[serde(with = "crate::recorder::time::pair")]
    running: Option<(u64, Instant)>,
    runs: u64,
    verdict: Option<bool>,
    /// Results in a row that speak against the verdict.
    against: u8,
}

impl Script {
    /// Starts its first run at once.
    #[must_use]
    pub fn new(now: Instant, config: &crate::config::model::Script) -> Self {
        Self {
            interval: config.interval,
            timeout: config.timeout,
            rise: config.rise,
            fall: config.fall,
            next_start: now,
            running: None,
            runs: 0,
            verdict: None,
            against: 0,
        }
    }

    /// Whether it succeeds; `None` until the first result.
    #[must_use]
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// How many runs were started.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Waits for no run any more; further ones count on from here, so that no end of an earlier one
    /// can be taken for theirs.
    pub fn count_from(&mut self, runs: u64) {
        self.running = None;
        self.runs = self.runs.max(runs);
    }

    /// Whether a run is going on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When [`Input::Tick`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.running {
            Some((_, since)) => since + self.timeout + RESULT_GRACE,
            None => self.next_start,
        }
    }

    /// Takes one input; at most a verdict and a run come of it.
    pub fn handle(&mut self, now: Instant, input: Input) -> [Option<Action>; 2] {
        let verdict = match (input, self.running) {
            (Input::Finished { run, ok }, Some((running, _))) if run == running => {
                self.running = None;
                self.result(ok)
            }
            (Input::Tick, Some(_)) if now >= self.deadline() => {
                self.running = None;
                let verdict = self.result(false);
                return [verdict.map(Action::Verdict), None];
            }
            (Input::Lost, Some(_)) => {
                self.running = None;
                self.next_start = now;
                return [None, None];
            }
            // Nobody is there to start one.
            (Input::Lost, None) => return [None, None],
            (Input::Finished { .. } | Input::Tick, _) => None,
        };
        let run = (self.running.is_none() && now >= self.next_start).then(|| {
            self.runs = self.runs.saturating_add(1);
            self.running = Some((self.runs, now));
            self.next_start = now + self.interval;
            Action::Run { run: self.runs }
        });
        [verdict.map(Action::Verdict), run]
    }

    fn result(&mut self, ok: bool) -> Option<bool> {
        let needed = match self.verdict {
            None => 1,
            Some(verdict) if verdict == ok => {
                self.against = 0;
                return None;
            }
            Some(_) if ok => self.rise.get(),
            Some(_) => self.fall.get(),
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = Some(ok);
        Some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(base: Instant, rise: i64, fall: i64) -> Script {
        let config = crate::config::model::Script {
            name: "check".into(),
            command: vec!["/bin/true".into()],
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: Count::try_from(rise).unwrap(),
            fall: Count::try_from(fall).unwrap(),
            user: None,
        };
        Script::new(base, &config)
    }

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn runs_start_one_interval_apart_and_never_overlap() {
        let base = crate::net::clock::now();
        let mut script = script(base, 1, 1);
        let run = |n| Some(Action::Run { run: n });
        assert_eq!(script.deadline(), base);
        assert_eq!(script.handle(base, Input::Tick), [None, run(1)]);
        assert_eq!(script.handle(at(base, 500), Input::Tick), [None, None]);
        let done = Input::Finished { run: 1, ok: true };
        let verdict = Some(Action::Verdict(true));
        assert_eq!(script.handle(at(base, 600), done), [verdict, None]);
        assert_eq!(script.deadline(), at(base, 2_000));
        assert_eq!(script.handle(at(base, 2_000), Input::Tick), [None, run(2)]);
        let late = Input::Finished { run: 2, ok: true };
        assert_eq!(script.handle(at(base, 4_500), late), [None, run(3)]);
    }

    #[test]
    fn a_result_that_never_comes_counts_as_a_failure() {
        let base = crate::net::clock::now();
        let mut script = script(base, 1, 1);
        script.handle(base, Input::Tick);
        assert_eq!(script.deadline(), at(base, 3_000));
        let failed = Some(Action::Verdict(false));
        assert_eq!(script.handle(at(base, 3_000), Input::Tick), [failed, None]);
        // Its runner is replaced in between.
        assert!(script.deadline() <= at(base, 3_000));
        let again = Some(Action::Run { run: 2 });
        assert_eq!(script.handle(at(base, 3_000), Input::Tick), [None, again]);
        let stale = Input::Finished { run: 1, ok: true };
        assert_eq!(script.handle(at(base, 3_100), stale), [None, None]);
        assert_eq!(script.verdict(), Some(false));
    }

    #[test]
    fn a_run_that_is_lost_has_no_result_and_is_made_up_for_at_once() {
        let base = crate::net::clock::now();
        let mut script = script(base, 1, 1);
        script.handle(base, Input::Tick);
        assert_eq!(script.handle(at(base, 500), Input::Lost), [None, None]);
        assert_eq!(script.verdict(), None);
        assert_eq!(script.deadline(), at(base, 500));
        let again = Some(Action::Run { run: 2 });
        assert_eq!(script.handle(at(base, 510), Input::Tick), [None, again]);
        let stale = Input::Finished { run: 1, ok: false };
        assert_eq!(script.handle(at(base, 520), stale), [None, None]);
        // Between two runs there is nothing to lose.
        let done = Input::Finished { run: 2, ok: true };
        script.handle(at(base, 600), done);
        assert_eq!(script.handle(at(base, 700), Input::Lost), [None, None]);
        assert_eq!(script.deadline(), at(base, 2_510));
        // Nor is anything begun that nobody is there for, even when it is due.
        assert_eq!(script.handle(at(base, 2_600), Input::Lost), [None, None]);
        assert!(!script.is_running());
    }

    #[test]
    fn rise_and_fall_count_equal_results_in_a_row() {
        let base = crate::net::clock::now();
        let mut script = script(base, 2, 3);
        let mut seen = Vec::new();
        let results = [
            true, false, false, true, false, false, false, true, false, true, true,
        ];
        for (n, ok) in results.into_iter().enumerate() {
            let n = u64::try_from(n).unwrap();
            let now = at(base, n * 2_000);
            script.handle(now, Input::Tick);
            script.handle(now, Input::Finished { run: n + 1, ok });
            seen.push(script.verdict().unwrap());
        }
        let expected = [
            true, true, true, true, true, true, false, false, false, false, true,
        ];
        assert_eq!(seen, expected);
    }
}
