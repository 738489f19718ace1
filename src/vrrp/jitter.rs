//! How regularly the adverts of a node arrive: the deviation of each arrival's spacing from the
//! usual spacing, in a histogram of fixed size. Pure.
//!
//! The usual spacing is a running mean, not the advertised interval: a node of lbd sends more often
//! than it says. Silence and farewells are no spacing.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::metrics::spans::Spans;

/// Up to this many microseconds each has a bucket of its own.
const LINEAR: usize = 16;
/// Buckets of each power of two above.
const PER_OCTAVE: usize = 8;
/// 2²⁶ µs, 67 s, and more share the last octave.
const OCTAVES: usize = 22;
const BUCKETS: usize = LINEAR + OCTAVES * PER_OCTAVE;
/// At so many samples all counts are halved: what is told is of the recent past.
const SAMPLES_MAX: u32 = 4096;
/// The weight of a new spacing in the running mean is one in so many.
const MEMORY: u64 = 8;

/// The deviations of one node's adverts.
#[derive(Debug, Clone)]
pub struct Jitter {
    last: Option<Instant>,
    /// The usual spacing, µs.
    usual: Option<u64>,
    samples: u32,
    counts: [u32; BUCKETS],
    /// All of them since the keeper began.
    all: Spans,
}

impl Default for Jitter {
    fn default() -> Self {
        Self {
            last: None,
            usual: None,
            samples: 0,
            counts: [0; BUCKETS],
            all: Spans::default(),
        }
    }
}

impl Jitter {
    /// An advert arrived. Spacings above `longest` are times of silence.
    pub fn arrived(&mut self, now: Instant, longest: Duration) {
        let last = self.last.replace(now);
        let spacing = last.map(|last| now.saturating_duration_since(last));
        let Some(spacing) = spacing.filter(|spacing| *spacing <= longest) else {
            return;
        };
        let spacing = u64::try_from(spacing.as_micros()).unwrap_or(u64::MAX);
        let Some(usual) = self.usual else {
            self.usual = Some(spacing);
            return;
        };
        self.usual = Some((usual * (MEMORY - 1) + spacing) / MEMORY);
        let deviation = usual.abs_diff(spacing);
        self.all.add(Duration::from_micros(deviation));
        self.count(deviation);
    }

    /// The node fell silent by intent: the time until its next advert is no spacing.
    pub fn left(&mut self) {
        self.last = None;
    }

    /// Every deviation since the keeper began.
    #[must_use]
    pub const fn all(&self) -> &Spans {
        &self.all
    }

    fn count(&mut self, deviation: u64) {
        if self.samples == SAMPLES_MAX {
            for count in &mut self.counts {
                *count /= 2;
            }
            self.samples = self.counts.iter().sum();
        }
        if let Some(count) = self.counts.get_mut(bucket(deviation)) {
            *count += 1;
            self.samples += 1;
        }
    }

    /// The deviation that `percent` of the arrivals stay within, rounded up by at most an eighth;
    /// `None` before the first.
    #[must_use]
    pub fn quantile(&self, percent: u32) -> Option<Duration> {
        let wanted = (self.samples * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(Duration::from_micros(upper_end(place)));
            }
        }
        None
    }
}

fn bucket(micros: u64) -> usize {
    let Ok(small) = usize::try_from(micros.min(u64::from(u32::MAX))) else {
        return BUCKETS - 1;
    };
    if small < LINEAR {
        return small;
    }
    // 16 is 2⁴: the first octave of eight buckets.
    let octave = usize::try_from(small.ilog2()).unwrap_or_default();
    let within = (small >> (octave - 3)) - PER_OCTAVE;
    (LINEAR + (octave - 4) * PER_OCTAVE + within).min(BUCKETS - 1)
}

/// The largest value of a bucket, µs.
fn upper_end(place: usize) -> u64 {
    let Some(above) = place.checked_sub(LINEAR) else {
        return u64::try_from(place).unwrap_or_default();
    };
    let (octave, within) = (above / PER_OCTAVE + 4, above % PER_OCTAVE);
    let end = (PER_OCTAVE + within + 1) << (octave - 3);
    u64::try_from(end - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(400);

    fn run(spacings_us: &[u64]) -> Jitter {
        let mut now = crate::net::clock::now();
        let mut jitter = Jitter::default();
        jitter.arrived(now, LONGEST);
        for spacing in spacings_us {
            now += Duration::from_micros(*spacing);
            jitter.arrived(now, LONGEST);
        }
        jitter
    }

    #[test]
    fn adverts_like_clockwork_deviate_by_nothing() {
        let jitter = run(&[100_000; 50]);
        assert_eq!(jitter.quantile(50), Some(Duration::ZERO));
        assert_eq!(jitter.quantile(99), Some(Duration::ZERO));
    }

    #[test]
    fn before_two_spacings_nothing_is_known() {
        assert_eq!(run(&[]).quantile(50), None);
        assert_eq!(run(&[100_000]).quantile(50), None);
        assert!(run(&[100_000; 2]).quantile(50).is_some());
    }

    #[test]
    fn one_late_advert_in_fifty_is_seen_at_the_99th_percentile_and_not_at_the_median() {
        let mut spacings = [100_000; 100];
        spacings[30] = 150_000;
        spacings[70] = 150_000;
        let jitter = run(&spacings);
        assert_eq!(jitter.all().total(), 99);
        // 50 ms is in the bucket that ends at 53,247 µs.
        assert_eq!(jitter.quantile(99), Some(Duration::from_micros(53_247)));
        assert!(jitter.quantile(50) < Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_node_that_sends_more_often_than_it_says_is_regular_all_the_same() {
        let mut spacings = vec![100_000; 20];
        spacings.extend([20_000; 400]);
        assert_eq!(run(&spacings).quantile(50), Some(Duration::ZERO));
    }

    #[test]
    fn silence_is_no_spacing() {
        let mut spacings = [100_000; 20];
        spacings[10] = 60_000_000;
        assert_eq!(run(&spacings).quantile(99), Some(Duration::ZERO));
        let mut now = crate::net::clock::now();
        let mut jitter = Jitter::default();
        for step in [0, 100, 100, 100] {
            now += Duration::from_millis(step);
            jitter.arrived(now, LONGEST);
        }
        jitter.left();
        jitter.arrived(now + Duration::from_millis(350), LONGEST);
        assert_eq!(jitter.quantile(99), Some(Duration::ZERO));
    }

    #[test]
    fn every_value_lies_in_the_bucket_that_says_so() {
        for micros in (0..70_000).chain((0..26).map(|bit| 1 << bit)) {
            let end = upper_end(bucket(micros));
            assert!(end >= micros, "{micros}");
            assert!(end - micros <= micros / 8, "{micros}: {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
