//! How often something has happened lately: it adds up, and each quiet minute takes one away. Pure.

use std::time::{Duration, Instant};

/// So much quiet makes one of them forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// More than so many are not told apart.
const COUNT_MAX: u32 = 10;

/// A count that forgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recurrence {
    count: u32,
    last: Option<Instant>,
}

impl Recurrence {
    /// It happened at `now`; answers how often lately, this time included: 1 to 10.
    pub fn count(&mut self, now: Instant) -> u32 {
        let quiet = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let forgotten = quiet.as_secs() / FORGOTTEN_AFTER.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(forgotten).min(COUNT_MAX - 1) + 1;
        self.last = Some(now);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_adds_up_and_each_quiet_minute_takes_one_away() {
        let start = crate::net::clock::now();
        let mut recurrence = Recurrence::default();
        let table = [
            // second, count
            (0, 1),
            (10, 2),
            (69, 3),
            // A minute of quiet.
            (129, 3),
            (130, 4),
            (250, 3),
            (3_600, 1),
            (3_659, 2),
            (3_719, 2),
        ];
        for (second, expected) in table {
            let now = start + Duration::from_secs(second);
            assert_eq!(recurrence.count(now), expected, "second {second}");
        }
    }

    #[test]
    fn it_stops_at_ten() {
        let now = crate::net::clock::now();
        let mut recurrence = Recurrence::default();
        let counts: Vec<u32> = (0..12).map(|_| recurrence.count(now)).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
    }
}
