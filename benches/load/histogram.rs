//! Durations by the thousand in little room: buckets of about 1.5 % width, and quantiles from
//! them. Pure.

use std::time::Duration;

/// Buckets in each doubling, as a power of two.
const FINENESS: u32 = 6;
/// What a curve shows, in parts per 100,000; the last is the maximum.
const CURVE: [u64; 14] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 75_000, 90_000, 95_000, 98_000, 99_000, 99_500, 99_900,
    99_990, 100_000,
];

/// How often which duration was seen.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

/// Some quantiles of a histogram, in microseconds.
#[derive(Clone, Default, serde::Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Parts per 100,000 and the microseconds within which so many were done.
    pub(crate) curve: Vec<(u64, f64)>,
}

impl Histogram {
    pub(crate) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = index_of(nanos);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
            self.count += 1;
        }
    }

    /// Forgets everything and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    /// The least duration that `parts` per 100,000 do not exceed, at most a bucket's width too
    /// long; zero when empty.
    pub(crate) fn quantile(&self, parts: u64) -> Duration {
        let wanted = (self.count * parts).div_ceil(100_000).max(1);
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= wanted {
                return Duration::from_nanos(upper_end(index));
            }
        }
        Duration::ZERO
    }

    /// `None` when empty.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let micros = |parts| self.quantile(parts).as_secs_f64() * 1e6;
        (self.count > 0).then(|| Quantiles {
            count: self.count,
            p50: micros(50_000),
            p90: micros(90_000),
            p99: micros(99_000),
            p999: micros(99_900),
            curve: CURVE.iter().map(|parts| (*parts, micros(*parts))).collect(),
        })
    }
}

/// Exact below 128 ns, then 64 buckets for each doubling.
fn index_of(nanos: u64) -> usize {
    let shift = (63 - nanos.max(1).leading_zeros()).saturating_sub(FINENESS);
    let index = (u64::from(shift) << FINENESS) + (nanos >> shift);
    usize::try_from(index).unwrap_or(0)
}

fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> FINENESS).saturating_sub(1);
    let within = index - (shift << FINENESS);
    ((within + 1) << shift) - 1
}
