//! How many usable servers count in a node's priority. Nodes notice the end or the return of a
//! server up to one check interval apart. A holder that noticed a loss first, or another node that
//! noticed a gain first, must not move the address for that. So a holder counts a loss, and any
//! other node a gain, only once it has lasted for one check interval; the rest counts at once. A
//! server that comes and goes faster than that changes nothing. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The count of one virtual router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    counted: Option<u16>,
    change: Option<Change>,
}

/// There are more or fewer than are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    #[serde(with = "crate::recorder::time")]
    since: Instant,
    /// When that begins to count.
    #[serde(with = "crate::recorder::time::span")]
    delay: Duration,
}

impl Servers {
    /// How many count at `now`, when `usable` are.
    pub fn count(&mut self, now: Instant, usable: u16, holds: bool, delay: Duration) -> u16 {
        let Some(counted) = self.counted else {
            self.counted = Some(usable);
            return usable;
        };
        let waits = if holds {
            usable < counted
        } else {
            usable > counted
        };
        if waits {
            let since = self.change.map_or(now, |change| change.since);
            self.change = Some(Change { since, delay });
            if now < since + delay {
                return counted;
            }
        }
        self.change = None;
        self.counted = Some(usable);
        usable
    }

    /// When the count may change by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.change.map(|change| change.since + change.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(2_000);

    /// What counts after each of (ms, usable, holds).
    fn counts(steps: &[(u64, u16, bool)]) -> Vec<u16> {
        let base = crate::net::clock::now();
        let mut servers = Servers::default();
        let mut count = |&(ms, usable, holds): &(u64, u16, bool)| {
            servers.count(base + Duration::from_millis(ms), usable, holds, DELAY)
        };
        steps.iter().map(&mut count).collect()
    }

    #[test]
    fn a_holder_counts_a_gain_at_once_and_a_loss_one_interval_later() {
        let steps = [
            (0, 2, true),
            (10, 3, true),
            (20, 2, true),
            (2_019, 2, true),
            (2_020, 2, true),
        ];
        assert_eq!(counts(&steps), [2, 3, 3, 3, 2]);
    }

    #[test]
    fn another_node_counts_a_loss_at_once_and_a_gain_one_interval_later() {
        let steps = [
            (0, 3, false),
            (10, 2, false),
            (20, 3, false),
            (2_019, 3, false),
            (2_020, 3, false),
        ];
        assert_eq!(counts(&steps), [3, 2, 2, 2, 3]);
    }

    #[test]
    fn a_server_that_flaps_faster_than_the_interval_changes_nothing() {
        let flapping = |n: u64| (n * 1_500, if n.is_multiple_of(2) { 3 } else { 2 }, true);
        let steps: Vec<_> = (0..20).map(flapping).collect();
        assert_eq!(counts(&steps), [3; 20]);
        let steps: Vec<_> = steps.iter().map(|(ms, n, _)| (*ms, *n, false)).collect();
        assert_eq!(counts(&steps)[1..], [2; 19]);
    }

    #[test]
    fn of_two_nodes_that_see_a_server_end_and_return_the_holder_never_counts_less() {
        for lag in [0, 500, 1_999] {
            let base = crate::net::clock::now();
            let (mut holder, mut other) = (Servers::default(), Servers::default());
            // Lost at 1 s, back at 5 s; who notices `lag` later is each of them once.
            for (holder_lag, other_lag) in [(lag, 0), (0, lag)] {
                for ms in (0..9_000).step_by(50) {
                    let usable = |lag: u64| {
                        if (1_000 + lag..5_000 + lag).contains(&ms) {
                            2
                        } else {
                            3
                        }
                    };
                    let now = base + Duration::from_millis(ms + holder_lag * 100_000);
                    let more = holder.count(now, usable(holder_lag), true, DELAY);
                    let less = other.count(now, usable(other_lag), false, DELAY);
                    assert!(more >= less, "{ms} ms: {more} < {less}, lag {lag}");
                }
            }
        }
    }

    #[test]
    fn it_asks_to_be_called_when_a_change_begins_to_count() {
        let base = crate::net::clock::now();
        let mut servers = Servers::default();
        servers.count(base, 3, true, DELAY);
        assert_eq!(servers.deadline(), None);
        servers.count(base, 1, true, DELAY);
        assert_eq!(servers.deadline(), Some(base + DELAY));
        servers.count(base, 3, true, DELAY);
        assert_eq!(servers.deadline(), None);
    }
}
