//! The local time zone's offset, for log stamps. No policy, no formatting.
#![expect(
    unsafe_code,
    reason = "the C library is the one that knows the time zone"
)]

use std::time::{SystemTime, UNIX_EPOCH};

/// Has the C library read the time zone's file, which a confined process may not be able to open.
pub fn load_zone() {
    std::hint::black_box(utc_offset(SystemTime::UNIX_EPOCH));
}

/// Seconds east of Greenwich at that moment; 0 for moments the C library cannot represent.
///
/// The first call of the process reads `/etc/localtime`; see [`load_zone`].
#[must_use]
pub fn utc_offset(at: SystemTime) -> i64 {
    let Ok(since_epoch) = at.duration_since(UNIX_EPOCH) else {
        return 0;
    };
    let Ok(seconds) = since_epoch.as_secs().try_into() else {
        return 0;
    };
    let mut broken_down = libc::tm {
        tm_sec: 0,
        tm_min: 0,
        tm_hour: 0,
        tm_mday: 0,
        tm_mon: 0,
        tm_year: 0,
        tm_wday: 0,
        tm_yday: 0,
        tm_isdst: 0,
        tm_gmtoff: 0,
        tm_zone: std::ptr::null(),
    };
    // SAFETY: both pointers are to live, properly aligned locals that nothing else refers to, and
    // localtime_r is the reentrant form: it keeps neither pointer.
    let filled = unsafe { libc::localtime_r(&raw const seconds, &raw mut broken_down) };
    if filled.is_null() {
        return 0;
    }
    broken_down.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_less_than_a_day() {
        let offset = utc_offset(crate::net::clock::wall());
        assert!((-86_400..86_400).contains(&offset), "{offset}");
    }
}
