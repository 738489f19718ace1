//! How long to wait after attempts that failed. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from 1 s to 30 s, until something succeeds.
#[derive(Debug, Default)]
pub(super) struct Pause(Option<Duration>);

impl Pause {
    /// The wait after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.0 = Some(wait);
        wait
    }

    /// After a success.
    pub(super) const fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_half_a_minute_and_begin_anew_after_a_success() {
        let mut pause = Pause::default();
        let seconds: Vec<u64> = (0..7).map(|_| pause.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        pause.over();
        assert_eq!(pause.next(), Duration::from_secs(1));
    }
}
