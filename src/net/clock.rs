//! The only reader of the clocks. Everything else is handed a time.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// Monotonic time.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one door to the monotonic clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for log stamps only.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one door to the wall clock"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Wall-clock time since 1970, for what nodes agree upon by UTC; zero before.
#[must_use]
pub fn unix_time() -> Duration {
    wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Time since this machine booted, time asleep included (`CLOCK_BOOTTIME`): comparable between
/// processes of one boot. Zero on a kernel without that clock.
#[must_use]
pub fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// One moment by both clocks: this process's own and [`boottime`]. A process that is interrupted
/// between the two looks again, a few times.
#[must_use]
pub fn both() -> (Instant, Duration) {
    let mut best = (Duration::MAX, now(), boottime());
    for _ in 0..4 {
        let before = now();
        let booted = boottime();
        let took = now().saturating_duration_since(before);
        if took < best.0 {
            best = (took, before + took / 2, booted);
        }
        if took < Duration::from_micros(2) {
            break;
        }
    }
    (best.1, best.2)
}

/// The kernel's random name for this boot; `None` where /proc doesn't tell.
#[must_use]
pub fn boot_id() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    parse_boot_id(&text)
}

fn parse_boot_id(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() == 32 {
        u128::from_str_radix(&digits, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_a_uuid() {
        let id = parse_boot_id("00000000-0000-0000-0000-0000000000ff\n");
        assert_eq!(id, Some(255));
        assert_eq!(parse_boot_id("ff"), None);
        assert_eq!(parse_boot_id(""), None);
    }

    #[test]
    fn time_since_boot_does_not_run_backwards() {
        let first = boottime();
        assert!(first > Duration::ZERO && boottime() >= first);
    }
}
