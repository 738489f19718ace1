//! How densely a Backup hears the Active: who sends a new advert long before the last one has run
//! out (`advert-spacing`) is missed sooner. Pure.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// So many quick adverts in a row make a habit. An Active that answers weaker adverts at once sends
/// one or two out of turn.
const HABIT: u8 = 4;

/// The adverts of one Active in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Rhythm {
    #[serde(with = "crate::recorder::time::pair")]
    last: Option<(IpAddr, Instant)>,
    quick: u8,
}

impl Rhythm {
    /// An advert of `sender`, who promises one each `interval`.
    pub(super) fn note(&mut self, sender: IpAddr, now: Instant, interval: Duration) {
        let Some(last) = self.last.filter(|(known, _)| *known == sender) else {
            *self = Self {
                last: Some((sender, now)),
                quick: 0,
            };
            return;
        };
        let gap = now.saturating_duration_since(last.1);
        // The same one, by another wire of the group or a second time.
        if gap < interval / 16 {
            return;
        }
        self.quick = if gap <= interval / 2 {
            self.quick.saturating_add(1)
        } else {
            0
        };
        self.last = Some((sender, now));
    }

    /// By how much sooner than after `Active_Down_Interval` the silence of `sender` is believed:
    /// half an interval if it advertises at least twice an interval. Between two adverts of the
    /// RFC's own spacing an Active dies half an interval after the last one on average, and at most
    /// a whole one: so nobody takes over sooner after its death than the RFC allows.
    pub(super) fn head_start(&self, sender: IpAddr, interval: Duration) -> Duration {
        let same = self.last.is_some_and(|(known, _)| known == sender);
        if same && self.quick >= HABIT {
            interval / 2
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 3));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 4));
    const SECOND: Duration = Duration::from_secs(1);

    /// The head start after adverts of [`ONE`] with these gaps in milliseconds.
    fn after(gaps: &[u64]) -> Duration {
        let mut now = crate::net::clock::now();
        let mut rhythm = Rhythm::default();
        rhythm.note(ONE, now, SECOND);
        for gap in gaps {
            now += Duration::from_millis(*gap);
            rhythm.note(ONE, now, SECOND);
        }
        rhythm.head_start(ONE, SECOND)
    }

    #[test]
    fn four_quick_adverts_in_a_row_are_a_habit_and_one_slow_one_ends_it() {
        let half = Duration::from_millis(500);
        assert_eq!(after(&[200, 200, 200]), Duration::ZERO);
        assert_eq!(after(&[200, 200, 200, 200]), half);
        assert_eq!(after(&[500, 500, 500, 500]), half);
        assert_eq!(after(&[200, 200, 200, 501]), Duration::ZERO);
        assert_eq!(after(&[200, 200, 200, 200, 501]), Duration::ZERO);
        assert_eq!(after(&[1000; 20]), Duration::ZERO);
    }

    #[test]
    fn copies_of_one_advert_are_no_habit() {
        assert_eq!(after(&[2; 20]), Duration::ZERO);
        assert_eq!(after(&[1000, 2, 2, 2, 2, 2, 1000, 2, 2, 2]), Duration::ZERO);
        assert_eq!(
            after(&[200, 2, 198, 2, 198, 2, 198]),
            Duration::from_millis(500)
        );
    }

    #[test]
    fn the_habit_is_that_of_one_node() {
        let start = crate::net::clock::now();
        let mut rhythm = Rhythm::default();
        for place in 0..5 {
            rhythm.note(ONE, start + place * SECOND / 5, SECOND);
        }
        assert_eq!(rhythm.head_start(OTHER, SECOND), Duration::ZERO);
        rhythm.note(OTHER, start + SECOND, SECOND);
        assert_eq!(rhythm.head_start(OTHER, SECOND), Duration::ZERO);
        assert_eq!(rhythm.head_start(ONE, SECOND), Duration::ZERO);
    }
}
