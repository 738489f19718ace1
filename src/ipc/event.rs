//! What happened on this node, as users read it: the keeper's record, kept for a while, handed to
//! each proxy process and from there to whoever asks. Pure.

use serde::{Deserialize, Serialize};

/// One entry of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event, also from one keeper to the next as long as the wall clock does.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What kind of thing happened.
    pub kind: EventKind,
    /// The virtual router it happened to.
    pub vip: Option<String>,
    /// What else it is about: a track, a process.
    pub subject: Option<String>,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
    /// Why, in a few words.
    pub reason: String,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The keeper began or is about to end.
    Keeper,
    /// A virtual router changed its state; a hand-off is one to `leaving`.
    State,
    /// Another host answers for an address that this node holds.
    Conflict,
    /// A failover by command has ended.
    Failover,
    /// Another node says that it doesn't hear this one's adverts, or hears them again.
    Peer,
    /// A track of a virtual router changed its verdict.
    Track,
    /// A proxy process started, hung, recovered or ended.
    Proxy,
    /// An operator changed a server.
    Server,
    /// The process that runs programs ended.
    Runner,
    /// A notify program failed.
    Notify,
    /// Another configuration counts, or was refused.
    Reload,
}

impl EventKind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::State => "state",
            Self::Conflict => "conflict",
            Self::Failover => "failover",
            Self::Peer => "peer",
            Self::Track => "track",
            Self::Proxy => "proxy",
            Self::Server => "server",
            Self::Runner => "runner",
            Self::Notify => "notify",
            Self::Reload => "reload",
        }
    }
}
