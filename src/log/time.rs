//! Moments as log lines write them. Pure: the moment and the zone's offset come in as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Milliseconds since 1970 in RFC 3339, in UTC.
#[must_use]
pub fn wall_time(since_epoch_ms: u64) -> String {
    let moment = UNIX_EPOCH + std::time::Duration::from_millis(since_epoch_ms);
    Civil::at(moment, 0).rfc3339()
}

/// Milliseconds since 1970 of a moment in Greenwich, as [`wall_time`] writes it; the fraction may be
/// left out.
#[must_use]
pub fn parse_wall_time(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |text: &str| -> Option<u64> {
        let digits =
            !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let known = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && date.next().is_none()
        && time.next().is_none();
    if !known || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: String = fraction.chars().chain("00".chars()).take(3).collect();
    // Howard Hinnant's days_from_civil, with years that begin on 1 March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era_days = 365 * year + year / 4 - year / 100 + year / 400;
    let days = (era_days + (153 * month + 2) / 5 + day - 1).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000 + millis.parse::<u64>().ok()?)
}

/// A calendar moment in some zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    year: i64,
    month: usize,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    micros: u32,
    offset: i64,
}

impl Civil {
    /// The calendar moment `offset` seconds east of Greenwich; moments before 1970 read as 1970.
    pub(crate) fn at(moment: SystemTime, offset: i64) -> Self {
        let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since_epoch.as_secs())
            .unwrap_or(0)
            .saturating_add(offset);
        let (days, in_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant's civil_from_days: eras of 400 years that begin on 1 March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month - 1).unwrap_or(0),
            day,
            hour: in_day / 3_600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            micros: since_epoch.subsec_micros(),
            offset,
        }
    }

    fn month_name(&self) -> &'static str {
        MONTHS.get(self.month).copied().unwrap_or("Jan")
    }

    /// RFC 3339 with microseconds: `2026-11-22T12:31:31.123456Z`.
    pub(crate) fn rfc3339(&self) -> String {
        let zone = if self.offset == 0 {
            "Z".to_owned()
        } else {
            let sign = if self.offset < 0 { '-' } else { '+' };
            let minutes = self.offset.abs() / 60;
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        };
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{zone}",
            self.year,
            self.month + 1,
            self.day,
            self.hour,
            self.minute,
            self.second,
            self.micros
        )
    }

    /// RFC 3164 §4.1.2: `Nov 22 12:31:31`, the day padded with a space.
    pub(crate) fn rfc3164(&self) -> String {
        format!(
            "{} {:2} {:02}:{:02}:{:02}",
            self.month_name(),
            self.day,
            self.hour,
            self.minute,
            self.second
        )
    }

    /// HAProxy's `%t`: `22/Nov/2026:12:31:31.123`.
    pub(crate) fn haproxy(&self) -> String {
        format!(
            "{:02}/{}/{:04}:{:02}:{:02}:{:02}.{:03}",
            self.day,
            self.month_name(),
            self.year,
            self.hour,
            self.minute,
            self.second,
            self.micros / 1_000
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, offset: i64) -> Civil {
        Civil::at(
            UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + 123_456),
            offset,
        )
    }

    // Expected values are date(1)'s: `date -u -d @1795350691`.
    #[test]
    fn moments_agree_with_date() {
        assert_eq!(at(0, 0).rfc3339(), "1970-01-01T00:00:00.123456Z");
        assert_eq!(at(951_782_400, 0).rfc3339(), "2000-02-29T00:00:00.123456Z");
        assert_eq!(
            at(1_795_350_691, 0).rfc3339(),
            "2026-11-22T12:31:31.123456Z"
        );
        assert_eq!(
            at(1_798_761_599, 0).rfc3339(),
            "2026-12-31T23:59:59.123456Z"
        );
        assert_eq!(
            at(4_107_542_400, 0).rfc3339(),
            "2100-03-01T00:00:00.123456Z"
        );
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        assert_eq!(
            parse_wall_time("2026-11-22T12:31:31.123456Z"),
            Some(1_795_350_691_123)
        );
        assert_eq!(parse_wall_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            parse_wall_time("2000-02-29T00:00:00.1Z"),
            Some(951_782_400_100)
        );
        for wrong in [
            "",
            "2026-11-22",
            "2026-11-22T12:31:31",
            "2026-13-22T12:31:31Z",
            "2026-11-22T24:31:31Z",
            "2026-11-22T12:31Z",
            "2026-11-22T12:31:31.Z",
            "2026-11-+2T12:31:31Z",
            "1969-12-31T00:00:00Z",
        ] {
            assert_eq!(parse_wall_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_zone_moves_the_clock_and_is_named() {
        assert_eq!(
            at(1_798_761_599, 28_800).rfc3339(),
            "2027-01-01T07:59:59.123456+08:00"
        );
        assert_eq!(at(0, -12_600).rfc3339(), "1969-12-31T20:30:00.123456-03:30");
    }

    #[test]
    fn syslog_pads_the_day_with_a_space() {
        assert_eq!(at(1_793_577_600, 0).rfc3164(), "Nov  2 00:00:00");
    }

    #[test]
    fn haproxy_writes_day_month_year_and_milliseconds() {
        assert_eq!(at(1_795_350_691, 0).haproxy(), "22/Nov/2026:12:31:31.123");
    }
}
