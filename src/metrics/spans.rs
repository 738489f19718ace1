//! Spans of time counted in fixed buckets, for histograms. Pure.
//!
//! The bounds are powers of two of microseconds, 128 µs to 16.8 s: finding the bucket costs the
//! data path a few instructions, a quantile is known to within a factor of two, and histograms of
//! all nodes can be added up.
#![forbid(unsafe_code)]

use std::time::Duration;

/// The first bound is 2 to this power, microseconds.
const FIRST_BIT: u32 = 7;
/// Buckets with a bound; one more has none.
pub const BOUNDS: usize = 18;
/// Buckets.
pub const BUCKETS: usize = BOUNDS + 1;

/// How many spans fell into each bucket.
pub type Counts = [u64; BUCKETS];

/// The bucket of a span, microseconds: the first one whose bound it doesn't exceed.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    let least = (1 << FIRST_BIT) - 1;
    let bits = u64::BITS - (micros.saturating_sub(1) | least).leading_zeros();
    usize::try_from(bits - FIRST_BIT).map_or(BOUNDS, |place| place.min(BOUNDS))
}

/// The bounds, in seconds, ascending.
pub fn bounds() -> impl Iterator<Item = f64> {
    (0..BOUNDS).map(|place| Duration::from_micros((1 << FIRST_BIT) << place).as_secs_f64())
}

/// Spans, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spans {
    /// By bucket.
    pub counts: Counts,
    /// All of them added up, microseconds.
    pub micros: u64,
}

impl Spans {
    /// Counts one.
    pub fn add(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.micros = self.micros.saturating_add(micros);
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Of counts that somebody else sent; what has no bucket here counts as the longest.
    #[must_use]
    pub fn of(counts: &[u64], micros: u64) -> Self {
        let mut spans = Self {
            counts: Counts::default(),
            micros,
        };
        for (place, count) in counts.iter().enumerate() {
            if let Some(present) = spans.counts.get_mut(place.min(BOUNDS)) {
                *present += count;
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_lies_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (micros, place) in [
            (0, 0),
            (1, 0),
            (128, 0),
            (129, 1),
            (256, 1),
            (257, 2),
            (1_000, 3),
            (16_777_216, 17),
            (16_777_217, 18),
            (u64::MAX, 18),
        ] {
            assert_eq!(bucket(micros), place, "{micros}");
        }
    }

    #[test]
    fn the_bounds_are_those_that_buckets_are_found_by() {
        let micros = |bound| u64::try_from(Duration::from_secs_f64(bound).as_micros()).unwrap();
        let bounds: Vec<u64> = bounds().map(micros).collect();
        assert_eq!(bounds.len(), 18);
        assert_eq!((bounds[0], bounds[17]), (128, 16_777_216));
        for (place, micros) in bounds.into_iter().enumerate() {
            assert_eq!((bucket(micros), bucket(micros + 1)), (place, place + 1));
        }
    }

    #[test]
    fn what_was_added_is_counted_and_summed() {
        let mut spans = Spans::default();
        spans.add(Duration::from_micros(100));
        spans.add(Duration::from_micros(300));
        assert_eq!((spans.total(), spans.micros), (2, 400));
        assert_eq!(spans.counts[..3], [1, 0, 1]);
    }

    #[test]
    fn counts_of_a_stranger_with_more_buckets_are_not_lost() {
        let spans = Spans::of(&[1; 25], 9);
        assert_eq!((spans.total(), spans.counts[18]), (25, 7));
    }
}
