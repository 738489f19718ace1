//! The protocol's time spans (RFC 9568 §6.1, RFC 3768 §6.1) and lbd's bound on a learned interval.
//! Pure.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::units::{AdvertInterval, Priority, Version};

/// What the skew is a fraction of: one second in version 2, the Active's interval in version 3.
#[must_use]
pub fn skew_base(version: Version, interval: AdvertInterval) -> Duration {
    match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval.duration(),
    }
}

/// `Skew_Time` = (256 − priority) / 256 of the [base](skew_base).
#[must_use]
pub fn skew_time(version: Version, interval: AdvertInterval, priority: Priority) -> Duration {
    skew_base(version, interval) * (256 - u32::from(priority.get())) / 256
}

/// `Active_Down_Interval` = 3 intervals + `Skew_Time`.
#[must_use]
pub fn active_down_interval(
    version: Version,
    interval: AdvertInterval,
    priority: Priority,
) -> Duration {
    3 * interval.duration() + skew_time(version, interval, priority)
}

/// The version 3 interval that is learned from an Active which advertises `advertised`: at most
/// four times our own, or one second if that is more. So a peer in the middle of a change of
/// intervals is understood, and a forged 40.95 s costs seconds, not minutes.
#[must_use]
pub fn bounded_interval(own: AdvertInterval, advertised: AdvertInterval) -> AdvertInterval {
    // TODO-correctness(RFC 9568 §6.4.2): there any interval is learned.
    let most = own.centiseconds().saturating_mul(4).clamp(100, 0x0fff);
    AdvertInterval::from_wire_v3(advertised.centiseconds().min(most)).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(version: Version, ms: u64) -> AdvertInterval {
        AdvertInterval::new(version, Duration::from_millis(ms)).unwrap()
    }

    fn priority(number: i64) -> Priority {
        Priority::try_from(number).unwrap()
    }

    #[test]
    fn version_2_skews_by_parts_of_a_second_whatever_the_interval() {
        let five = ms(Version::V2, 5000);
        assert_eq!(
            skew_time(Version::V2, five, priority(100)),
            Duration::from_micros(609_375)
        );
        assert_eq!(
            active_down_interval(Version::V2, ms(Version::V2, 1000), priority(100)),
            Duration::from_micros(3_609_375)
        );
    }

    #[test]
    fn version_3_skews_by_parts_of_the_interval() {
        let short = ms(Version::V3, 10);
        assert_eq!(
            active_down_interval(Version::V3, short, priority(100)),
            Duration::from_nanos(36_093_750)
        );
        assert_eq!(
            skew_time(Version::V3, ms(Version::V3, 1000), priority(255)),
            Duration::from_micros(3906) + Duration::from_nanos(250)
        );
    }

    #[test]
    fn a_forged_interval_is_cut_to_four_of_ours_or_one_second() {
        let forged = ms(Version::V3, 40_950);
        let v3 = |value| ms(Version::V3, value);
        assert_eq!(bounded_interval(v3(1000), forged), v3(4000));
        assert_eq!(bounded_interval(v3(10), forged), v3(1000));
        assert_eq!(bounded_interval(v3(40_950), forged), v3(40_950));
        assert_eq!(bounded_interval(v3(1000), v3(3000)), v3(3000));
        assert_eq!(bounded_interval(v3(1000), v3(10)), v3(10));
    }
}
