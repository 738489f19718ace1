//! How keeper and proxy put a recording together. Pure.

use serde::{Deserialize, Serialize};

/// The keeper writes a recording: what were the machines of the proxy process told?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The order's number.
    pub id: u64,
    /// The keeper's time on tapes, nanoseconds.
    pub t: i64,
    /// The same moment by `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
}

/// The answer. Beside it: one descriptor, a sealed memfd with sections as `recorder::file::section`
/// begins them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tapes {
    /// The order's number.
    pub id: u64,
    /// Servers whose checks are not recorded: there are too many.
    pub unrecorded: u32,
}
