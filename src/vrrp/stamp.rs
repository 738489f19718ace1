//! What a keeper leaves behind so that the next one may resume: when it last advertised. Pure.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The last advert a router sent while Active, as written to the keeper's state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The table's name.
    pub name: String,
    /// `VRID`.
    pub vrid: u8,
    /// The kernel's boot id: a stamp of another boot means nothing.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` of the advert; it goes on while the machine sleeps.
    pub advertised_at: Duration,
}

/// A router that preempts nobody after a failover by command, as written to the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldMark {
    /// The table's name.
    pub name: String,
    /// `VRID`.
    pub vrid: u8,
    /// `CLOCK_BOOTTIME` of its end; `None`: until it is released.
    pub until: Option<Duration>,
}

/// The stamp of the previous keeper, with the present as the new one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What was left behind.
    pub stamp: Stamp,
    /// The kernel's boot id.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` at the `now` that goes with it.
    pub boottime: Duration,
}

impl Resume {
    /// Whether the last advert is so young that no Backup can have taken over: younger than
    /// `active_down_interval` less one `interval`. (Nobody else may have been heard either; that
    /// is for the caller to see.)
    #[must_use]
    pub fn is_fresh(&self, active_down_interval: Duration, interval: Duration) -> bool {
        self.stamp.boot_id == self.boot_id
            && self
                .boottime
                .checked_sub(self.stamp.advertised_at)
                .is_some_and(|age| age < active_down_interval.saturating_sub(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(boot_id: &str, advertised_ms: u64, present_ms: u64) -> bool {
        let resume = Resume {
            stamp: Stamp {
                name: "kube".into(),
                vrid: 60,
                boot_id: "one".into(),
                advertised_at: Duration::from_millis(advertised_ms),
            },
            boot_id: boot_id.into(),
            boottime: Duration::from_millis(present_ms),
        };
        resume.is_fresh(Duration::from_millis(3600), Duration::from_secs(1))
    }

    #[test]
    fn only_a_young_stamp_of_this_boot_is_fresh() {
        assert!(resume("one", 10_000, 10_000));
        assert!(resume("one", 10_000, 12_599));
        assert!(!resume("one", 10_000, 12_600));
        assert!(!resume("two", 10_000, 10_100));
        assert!(!resume("one", 10_000, 9_999));
    }
}
