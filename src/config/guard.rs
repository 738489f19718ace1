//! Which clients may connect, and how much of a proxy each of them may take. No parsing here.

use std::num::NonZeroU32;

use super::origin::Network;

/// `allow`, `deny` and `per-source`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// `allow`: only clients from these networks may connect; empty: any may.
    pub allow: Vec<Network>,
    /// `deny`: clients from these networks may not, even if they are in `allow`.
    pub deny: Vec<Network>,
    /// `per-source`; `None`: sources are neither limited nor counted.
    pub per_source: Option<PerSource>,
}

/// `per-source`: what one source may take. A source is an IPv4 address or an IPv6 network of 64
/// bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PerSource {
    /// `max-connections` at once, running and queued; `None`: any number.
    pub max_connections: Option<NonZeroU32>,
    /// `connections-per-second`, new ones; `None`: any number.
    pub connections_per_second: Option<Rate>,
    /// `exempt`: sources in these networks are counted and never limited.
    pub exempt: Vec<Network>,
}

/// `connections-per-second` and `burst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, a second.
    pub per_second: NonZeroU32,
    /// At once, after a rest; default what one second brings.
    pub burst: NonZeroU32,
}
