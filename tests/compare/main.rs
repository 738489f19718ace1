//! The pure parts of `benches/compare`: the bench itself has no test harness. What they compute
//! from numbers is tested here, what it measures is checked by its own `--self-test`.

#![expect(
    clippy::float_arithmetic,
    clippy::float_cmp,
    reason = "figures for people, and values that are exact"
)]

#[path = "../../benches/load/histogram.rs"]
mod histogram;
mod latency;
mod plots;
mod ratios;
#[path = "../../benches/load/stats.rs"]
mod stats;
