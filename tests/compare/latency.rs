//! Quantiles of durations.

use std::time::Duration;

use crate::histogram::Histogram;

fn of(nanos: impl Iterator<Item = u64>) -> Histogram {
    let mut histogram = Histogram::default();
    nanos.for_each(|nanos| histogram.add(Duration::from_nanos(nanos)));
    histogram
}

#[test]
fn small_durations_are_kept_exactly() {
    let histogram = of(1..=100);
    assert_eq!(histogram.quantile(50_000), Duration::from_nanos(50));
    assert_eq!(histogram.quantile(99_000), Duration::from_nanos(99));
    assert_eq!(histogram.quantile(100_000), Duration::from_nanos(100));
}

#[test]
fn long_durations_are_off_by_less_than_two_percent() {
    let exact = [
        130,
        4_711,
        65_535,
        65_536,
        1_000_000,
        123_456_789,
        60_000_000_000_u64,
    ];
    for nanos in exact {
        let told = of([nanos].into_iter()).quantile(50_000).as_nanos() as f64;
        let off = told / nanos as f64;
        assert!((1.0..1.02).contains(&off), "{nanos} ns told as {told}");
    }
}

#[test]
fn a_rare_long_one_shows_in_the_tail_only() {
    let histogram = of((0..995).map(|_| 100).chain((0..5).map(|_| 1_000_000)));
    assert_eq!(histogram.quantile(99_000), Duration::from_nanos(100));
    assert!(histogram.quantile(99_900) >= Duration::from_millis(1));
}

#[test]
fn nothing_was_measured_after_a_clear() {
    let mut histogram = of(1..=100);
    histogram.clear();
    assert!(histogram.quantiles().is_none());
    assert_eq!(histogram.quantile(50_000), Duration::ZERO);
}

#[test]
fn a_longer_duration_is_never_told_as_a_shorter_one() {
    let mut before = Duration::ZERO;
    for nanos in 0..20_000 {
        let told = of([nanos].into_iter()).quantile(50_000);
        assert!(told >= before && told >= Duration::from_nanos(nanos));
        before = told;
    }
}
