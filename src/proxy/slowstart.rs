//! How much of its share a server gets while it warms up after an outage. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

/// The share of a warm server; a ramping one has less.
pub const FULL: u32 = 256;
/// The least share while ramping: a sixteenth.
pub const FLOOR: u32 = FULL / 16;

/// The share after `elapsed` of a slowstart of `ramp`, [`FLOOR`] to [`FULL`].
#[must_use]
pub fn share(elapsed: Duration, ramp: Duration) -> u32 {
    if elapsed >= ramp {
        return FULL;
    }
    let part = elapsed.as_micros() * u128::from(FULL) / ramp.as_micros().max(1);
    u32::try_from(part).unwrap_or(FULL).clamp(FLOOR, FULL)
}

/// The connections a ramping server may have: its `max` by its share, at least one.
#[must_use]
pub fn limit(max: NonZeroU32, share: u32) -> u32 {
    let part = u64::from(max.get()) * u64::from(share.min(FULL)) / u64::from(FULL);
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_time_from_a_sixteenth_to_the_whole() {
        let ramp = Duration::from_secs(60);
        let at = |s| share(Duration::from_secs(s), ramp);
        assert_eq!(
            [at(0), at(3), at(15), at(30), at(45), at(60), at(99)],
            [16, 16, 64, 128, 192, 256, 256]
        );
    }

    #[test]
    fn no_slowstart_means_the_whole_share_at_once() {
        assert_eq!(share(Duration::ZERO, Duration::ZERO), 256);
    }

    #[test]
    fn the_limit_ramps_like_the_share_and_never_to_zero() {
        let max = NonZeroU32::new(250).unwrap();
        assert_eq!(limit(max, 16), 15);
        assert_eq!(limit(max, 128), 125);
        assert_eq!(limit(max, 256), 250);
        assert_eq!(limit(NonZeroU32::MIN, 16), 1);
    }
}
