//! What the next keeper needs to know of the virtual routers: which are Active, and which preempt
//! nobody after a failover.

use std::time::Duration;

use super::routers::{Router, Routers};
use crate::net::clock;
use crate::vrrp::stamp::{HoldMark, Stamp};

/// Stamps of one advert, taken at different times, differ by less than this.
const SAME_STAMP: Duration = Duration::from_millis(3);
/// Between two looks for new stamps where there is no router to leave any.
const STAMP_SPACING_MAX: Duration = Duration::from_secs(1);

impl Routers {
    /// The stamps of those that are Active; `None` while they are those of `before`.
    pub(super) fn news(&self, before: &[Stamp]) -> Option<Vec<Stamp>> {
        let now = clock::now();
        let boottime = clock::boottime();
        let stamp = |router: &Router| router.inner.stamp(now, boottime, &self.boot_id);
        let stamps: Vec<Stamp> = self.routers.iter().filter_map(stamp).collect();
        let same = |(a, b): (&Stamp, &Stamp)| {
            a.name == b.name && a.advertised_at.abs_diff(b.advertised_at) < SAME_STAMP
        };
        let unchanged = stamps.len() == before.len() && stamps.iter().zip(before).all(same);
        (!unchanged).then_some(stamps)
    }

    /// Which routers preempt nobody after a failover; `None` while they are those of `before`.
    pub(super) fn hold_news(&self, before: &[HoldMark]) -> Option<Vec<HoldMark>> {
        let now = clock::now();
        let boottime = clock::boottime();
        let holds = self.routers.iter();
        let holds: Vec<HoldMark> = holds
            .filter_map(|router| router.inner.hold_mark(now, boottime))
            .collect();
        let same = |(a, b): (&HoldMark, &HoldMark)| {
            let until = match (a.until, b.until) {
                (Some(a), Some(b)) => a.abs_diff(b) < SAME_STAMP,
                (a, b) => a == b,
            };
            a.name == b.name && until
        };
        let unchanged = holds.len() == before.len() && holds.iter().zip(before).all(same);
        (!unchanged).then_some(holds)
    }

    /// How much older than the last advert a stamp may be: a part of what would be lost by it.
    pub(super) fn stamp_spacing(&self) -> Duration {
        let all = self.routers.iter();
        let shortest = all
            .map(|router| router.tracked.advert_interval.duration())
            .min();
        shortest.map_or(STAMP_SPACING_MAX, |interval| interval / 4)
    }
}
