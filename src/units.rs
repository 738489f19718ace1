//! Numbers with a unit or a range, as types. Each has one door in and one to the wire.
//! Pure: no clock, no socket, no logging.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A value outside the range its type allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {range}, got {got}")]
pub struct OutOfRange {
    /// What the number means, e.g. `priority`.
    pub what: &'static str,
    /// The allowed range in words, e.g. `1 to 255`.
    pub range: &'static str,
    /// The refused value.
    pub got: i64,
}

/// `VRID`: identifies a virtual router on its LAN, 1…255 (RFC 9568 §5.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// The wire value, 1…255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl TryFrom<i64> for Vrid {
    type Error = OutOfRange;
    fn try_from(got: i64) -> Result<Self, OutOfRange> {
        u8::try_from(got)
            .ok()
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(OutOfRange {
                what: "vrid",
                range: "1 to 255",
                got,
            })
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A router's priority, 1…255; 255 is the address owner. Zero ("I resign") is no priority of a
/// router but a message: see [`crate::vrrp`] (RFC 9568 §5.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority(NonZeroU8);

impl Priority {
    /// The weakest priority a router can advertise: "I hold the address but cannot serve".
    pub const LOWEST: Self = Self(NonZeroU8::MIN);
    /// The address owner's priority.
    pub const OWNER: Self = Self(NonZeroU8::MAX);

    /// The wire value, 1…255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// From a wire byte; `None` for 0.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match NonZeroU8::new(byte) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl TryFrom<i64> for Priority {
    type Error = OutOfRange;
    fn try_from(got: i64) -> Result<Self, OutOfRange> {
        u8::try_from(got)
            .ok()
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(OutOfRange {
                what: "priority",
                range: "1 to 254 (255 for the address owner)",
                got,
            })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The VRRP version a virtual router speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// RFC 3768, with RFC 2338's simple password where configured. keepalived's default.
    V2,
    /// RFC 9568. lbd's default.
    V3,
}

impl Version {
    /// The version number on the wire.
    #[must_use]
    pub const fn get(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// `Advertisement_Interval`: time between two adverts, in centiseconds. Version 3 carries
/// 1…4095 cs (10 ms … 40.95 s, RFC 9568 §5.2.7), version 2 carries 1…255 whole seconds
/// (RFC 3768 §5.3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AdvertInterval(NonZeroU16);

impl AdvertInterval {
    /// An interval that `version` can carry.
    ///
    /// # Errors
    /// [`OutOfRange`] (in milliseconds) when the version has no such value.
    pub fn new(version: Version, interval: Duration) -> Result<Self, OutOfRange> {
        let ms = interval.as_millis();
        let got = i64::try_from(ms).unwrap_or(i64::MAX);
        let (fits, range) = match version {
            Version::V2 => (
                interval.subsec_nanos() == 0 && (1..=255).contains(&interval.as_secs()),
                "whole seconds from 1s to 255s in version 2",
            ),
            Version::V3 => (
                ms.is_multiple_of(10)
                    && interval.subsec_nanos().is_multiple_of(1_000_000)
                    && (10..=40_950).contains(&ms),
                "10ms to 40950ms in steps of 10ms in version 3",
            ),
        };
        let cs = u16::try_from(ms / 10).ok().and_then(NonZeroU16::new);
        match cs {
            Some(cs) if fits => Ok(Self(cs)),
            Some(_) | None => Err(OutOfRange {
                what: "advert-interval (ms)",
                range,
                got,
            }),
        }
    }

    /// How often lbd sends adverts unless told otherwise: a fifth of the interval, and not more
    /// often than each 10 ms. So it takes 15 lost ones in a row, not 3, to move an address.
    #[must_use]
    pub fn default_spacing(self) -> Duration {
        (self.duration() / 5).max(Duration::from_millis(10))
    }

    /// From a version 3 wire field (12 bits, centiseconds); `None` for 0, which lbd refuses.
    #[must_use]
    pub fn from_wire_v3(centiseconds: u16) -> Option<Self> {
        if centiseconds > 0x0fff {
            return None;
        }
        NonZeroU16::new(centiseconds).map(Self)
    }

    /// From a version 2 wire byte (seconds); `None` for 0.
    #[must_use]
    pub fn from_wire_v2(seconds: u8) -> Option<Self> {
        NonZeroU16::new(u16::from(seconds) * 100).map(Self)
    }

    /// Centiseconds, 1…25 500.
    #[must_use]
    pub const fn centiseconds(self) -> u16 {
        self.0.get()
    }

    /// The interval as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0.get()) * 10)
    }
}

/// A server's weight in the rotation, 0…256; 0 takes no new connections (HAProxy's `weight`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weight(u16);

impl Weight {
    /// The default weight.
    pub const ONE: Self = Self(1);

    /// The number, 0…256.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Weight {
    type Error = OutOfRange;
    fn try_from(got: i64) -> Result<Self, OutOfRange> {
        u16::try_from(got)
            .ok()
            .filter(|w| *w <= 256)
            .map(Self)
            .ok_or(OutOfRange {
                what: "weight",
                range: "0 to 256",
                got,
            })
    }
}

/// What a track adds to the priority, −253…253 (keepalived's `weight`): positive is added while
/// the track succeeds, negative is subtracted while it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrackWeight(i16);

impl TrackWeight {
    /// The number, −253…253, never 0.
    #[must_use]
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl TryFrom<i64> for TrackWeight {
    type Error = OutOfRange;
    fn try_from(got: i64) -> Result<Self, OutOfRange> {
        i16::try_from(got)
            .ok()
            .filter(|w| *w != 0 && w.abs() <= 253)
            .map(Self)
            .ok_or(OutOfRange {
                what: "weight",
                range: "-253 to 253, not 0 (leave it out for a track that decides alone)",
                got,
            })
    }
}

/// How many consecutive results change a verdict, 1…255 (HAProxy's `rise` and `fall`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Count(NonZeroU8);

impl Count {
    /// Two in a row: the default of both `rise` and `fall` for health checks.
    pub const TWO: Self = Self(NonZeroU8::MIN.saturating_add(1));
    /// The first result counts: the default of track scripts.
    pub const ONE: Self = Self(NonZeroU8::MIN);

    /// The number, 1…255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl TryFrom<i64> for Count {
    type Error = OutOfRange;
    fn try_from(got: i64) -> Result<Self, OutOfRange> {
        u8::try_from(got)
            .ok()
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(OutOfRange {
                what: "rise or fall",
                range: "1 to 255",
                got,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_intervals_are_whole_seconds() {
        assert!(AdvertInterval::new(Version::V2, Duration::from_millis(500)).is_err());
        let one = AdvertInterval::new(Version::V2, Duration::from_secs(1)).unwrap();
        assert_eq!(one.centiseconds(), 100);
        assert!(AdvertInterval::new(Version::V2, Duration::from_secs(256)).is_err());
        assert!(AdvertInterval::new(Version::V2, Duration::ZERO).is_err());
    }

    #[test]
    fn version_3_intervals_run_from_10_ms_to_40_95_s_in_centiseconds() {
        for (ms, cs) in [(10, 1), (100, 10), (1000, 100), (40_950, 4095)] {
            let interval = AdvertInterval::new(Version::V3, Duration::from_millis(ms)).unwrap();
            assert_eq!(interval.centiseconds(), cs);
            assert_eq!(interval.duration(), Duration::from_millis(ms));
        }
        for ms in [0, 5, 15, 40_960] {
            assert!(
                AdvertInterval::new(Version::V3, Duration::from_millis(ms)).is_err(),
                "{ms}"
            );
        }
    }

    #[test]
    fn a_zero_interval_on_the_wire_is_no_interval() {
        assert_eq!(AdvertInterval::from_wire_v3(0), None);
        assert_eq!(AdvertInterval::from_wire_v3(0x1000), None);
        assert_eq!(AdvertInterval::from_wire_v2(0), None);
        assert_eq!(
            AdvertInterval::from_wire_v2(255).unwrap().centiseconds(),
            25_500
        );
    }

    #[test]
    fn ranges_end_where_the_documents_say() {
        assert!(Vrid::try_from(0).is_err() && Vrid::try_from(256).is_err());
        assert_eq!(Vrid::try_from(60).unwrap().get(), 60);
        assert!(Priority::try_from(0).is_err() && Priority::try_from(256).is_err());
        assert_eq!(Weight::try_from(256).unwrap().get(), 256);
        assert!(Weight::try_from(257).is_err() && Weight::try_from(-1).is_err());
        assert!(TrackWeight::try_from(0).is_err() && TrackWeight::try_from(254).is_err());
        assert_eq!(TrackWeight::try_from(-253).unwrap().get(), -253);
        assert!(Count::try_from(0).is_err());
    }
}
