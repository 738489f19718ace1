//! How connections are moved to servers that have too few. No parsing here.

use std::num::NonZeroU32;
use std::time::Duration;

/// `rebalance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// `above`: percent of its fair share at which a server has too many, default 125.
    pub above: u16,
    /// `connections-per-second` that are closed, default 10.
    pub rate: NonZeroU32,
    /// `quiet`: how long both directions must have been without a byte, default 1s.
    pub quiet: Duration,
}
