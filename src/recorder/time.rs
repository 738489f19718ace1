//! Instants and spans on a tape: whole nanoseconds, instants counted from the first one that this
//! process has written down (or from where a reader says). To be used as `#[serde(with)]`. Pure.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is further away from the base, or longer, is no time of a recording: ten years.
const MOST_NS: u64 = 10 * 366 * 24 * 3600 * 1_000_000_000;

static BASE: OnceLock<Instant> = OnceLock::new();

/// Counts from `at`, unless something was written or read before.
pub fn count_from(at: Instant) {
    BASE.get_or_init(|| at);
}

/// Nanoseconds since the base, negative before it.
#[must_use]
pub fn nanos(at: Instant) -> i64 {
    let base = *BASE.get_or_init(|| at);
    let ns = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match at.checked_duration_since(base) {
        Some(after) => ns(after),
        None => -ns(base.saturating_duration_since(at)),
    }
}

/// Whether a recording may hold it.
#[must_use]
pub const fn is_possible(ns: i64) -> bool {
    ns.unsigned_abs() <= MOST_NS
}

/// The instant of that number, if a recording may hold it and the base is known.
#[must_use]
pub fn instant(ns: i64) -> Option<Instant> {
    let base = BASE.get()?;
    let span = Duration::from_nanos(ns.unsigned_abs());
    if ns.unsigned_abs() > MOST_NS {
        None
    } else if ns < 0 {
        base.checked_sub(span)
    } else {
        base.checked_add(span)
    }
}

fn known<E: serde::de::Error>(ns: i64) -> Result<Instant, E> {
    instant(ns).ok_or_else(|| E::custom("a time beyond all bounds"))
}

/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(at: &Instant, to: S) -> Result<S::Ok, S::Error> {
    nanos(*at).serialize(to)
}

/// # Errors
/// The deserializer's, and times that no recording holds.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Instant, D::Error> {
    known(i64::deserialize(from)?)
}

/// An instant or none.
pub mod maybe {
    use super::{Deserialize, Deserializer, Instant, Serialize, Serializer, known, nanos};

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(at: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
        at.map(nanos).serialize(to)
    }

    /// # Errors
    /// The deserializer's, and times that no recording holds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Instant>, D::Error> {
        Option::<i64>::deserialize(from)?.map(known).transpose()
    }
}

/// Something and when, or nothing.
pub mod pair {
    use super::{Deserialize, Deserializer, Instant, Serialize, Serializer, known, nanos};

    /// # Errors
    /// The serializer's.
    pub fn serialize<T, S>(pair: &Option<(T, Instant)>, to: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        pair.as_ref()
            .map(|(what, at)| (what, nanos(*at)))
            .serialize(to)
    }

    /// # Errors
    /// The deserializer's, and times that no recording holds.
    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<(T, Instant)>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let pair = Option::<(T, i64)>::deserialize(from)?;
        pair.map(|(what, ns)| known(ns).map(|at| (what, at)))
            .transpose()
    }
}

/// A span of time.
pub mod span {
    use super::{Deserialize, Deserializer, Duration, MOST_NS, Serializer};
    use serde::de::Error as _;

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_nanos()).unwrap_or(MOST_NS))
    }

    /// # Errors
    /// The deserializer's, and spans that no recording holds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let ns = u64::deserialize(from)?;
        if ns > MOST_NS {
            return Err(D::Error::custom("a time beyond all bounds"));
        }
        Ok(Duration::from_nanos(ns))
    }
}

/// A span of time or none.
pub mod maybe_span {
    use super::{Deserialize, Deserializer, Duration, MOST_NS, Serialize, Serializer};
    use serde::de::Error as _;

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_nanos()).unwrap_or(MOST_NS))
            .serialize(to)
    }

    /// # Errors
    /// The deserializer's, and spans that no recording holds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        match Option::<u64>::deserialize(from)? {
            Some(ns) if ns > MOST_NS => Err(D::Error::custom("a time beyond all bounds")),
            ns => Ok(ns.map(Duration::from_nanos)),
        }
    }
}

/// When, and something, or nothing.
pub mod since {
    use super::{Deserialize, Deserializer, Instant, Serialize, Serializer, known, nanos};

    /// # Errors
    /// The serializer's.
    pub fn serialize<T, S>(pair: &Option<(Instant, T)>, to: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        pair.as_ref()
            .map(|(at, what)| (nanos(*at), what))
            .serialize(to)
    }

    /// # Errors
    /// The deserializer's, and times that no recording holds.
    pub fn deserialize<'de, T, D>(from: D) -> Result<Option<(Instant, T)>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let pair = Option::<(i64, T)>::deserialize(from)?;
        pair.map(|(ns, what)| known(ns).map(|at| (at, what)))
            .transpose()
    }
}

/// Several instants.
pub mod list {
    use std::collections::VecDeque;

    use super::{Deserialize, Deserializer, Instant, Serializer, known, nanos};

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(all: &VecDeque<Instant>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(|at| nanos(*at)))
    }

    /// # Errors
    /// The deserializer's, and times that no recording holds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VecDeque<Instant>, D::Error> {
        let all = Vec::<i64>::deserialize(from)?;
        all.into_iter().map(known).collect()
    }
}
