//! The only reader of the clocks.

use std::time::{Instant, SystemTime};

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
