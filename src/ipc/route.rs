//! Addresses announced as routes, as keeper and proxy show them to users. Pure.

use serde::{Deserialize, Serialize};

use super::message::TrackStatus;

/// An address announced as a route, as this node does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// The table's name.
    pub name: String,
    /// The interface that has the addresses while they are announced.
    pub interface: String,
    /// `ADDRESS/PREFIX`.
    pub addresses: Vec<String>,
    /// Whether the addresses are there for routing daemons to see.
    pub announced: bool,
    /// Milliseconds for which what still arrives is served after a withdrawal.
    pub draining_ms: Option<u64>,
    /// Why it is announced or not, in a few words.
    pub reason: String,
    /// Milliseconds since that was decided.
    pub since_ms: u64,
    /// What is tracked, with its present verdict.
    pub tracks: Vec<TrackStatus>,
    /// Counters since the keeper began.
    pub counters: RouteCounters,
}

impl RouteStatus {
    /// The state in a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match (self.announced, self.draining_ms) {
            (true, _) => "announced",
            (false, Some(_)) => "withdrawn (still serves what arrives)",
            (false, None) => "withdrawn",
        }
    }
}

/// Counters of an address announced as a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteCounters {
    /// Times it was announced.
    pub announced: u64,
    /// Times it was withdrawn.
    pub withdrawn: u64,
    /// Times somebody else removed the address and it was put back.
    pub restored: u64,
    /// Errors of the kernel.
    pub errors: u64,
}
