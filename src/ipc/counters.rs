//! What the keeper counts for a virtual router, as it tells others. Pure.

use serde::{Deserialize, Serialize};

/// Counters of one virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VrrpCounters {
    /// Adverts sent (one per destination).
    pub adverts_sent: u64,
    /// Adverts accepted.
    pub adverts_received: u64,
    /// Gratuitous ARP frames sent.
    pub garps_sent: u64,
    /// Times this node became Active.
    pub became_active: u64,
    /// Times it left Active.
    pub left_active: u64,
    /// Priority-0 adverts sent (one per destination).
    pub resigns_sent: u64,
    /// Priority-0 adverts accepted.
    pub resigns_received: u64,
    /// Times the address vanished and was put back.
    pub restored: u64,
    /// Errors of the kernel while sending or while changing the address.
    pub errors: u64,
    /// Rejected packets by reason; the reasons are constant words of the code.
    pub rejected: Vec<(String, u64)>,
    /// Take-overs from a node that fell silent: from its last advert until this node held the
    /// addresses.
    #[serde(default)]
    pub after_silence: SpanCounts,
    /// Take-overs from a node that resigned: from its last advert until this node held the
    /// addresses.
    #[serde(default)]
    pub after_resignation: SpanCounts,
}

/// Spans of time by the buckets of `metrics::spans`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpanCounts {
    /// By bucket; empty: none.
    pub counts: Vec<u64>,
    /// All of them added up, microseconds.
    pub micros: u64,
}
