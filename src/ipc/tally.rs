//! What processes tell of what they counted, so that totals go on when one takes over from another.
//! Pure.

use serde::{Deserialize, Serialize};

/// A piece of what is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Page {
    /// What one process has counted by now: never less than it told before.
    Counts(Counted),
    /// Processes that have ended: what they counted is in what the teller has.
    Ended(Vec<u64>),
    /// The process that was succeeded has told all it knows.
    Done,
}

/// Some of the counts of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Who: greater for one that began later.
    pub of: u64,
    /// What is counted, and a number where several counts have one name.
    pub names: Vec<(String, u8)>,
    /// Where.
    pub rows: Vec<Row>,
    /// This is its last word, for it has ended.
    pub ended: bool,
}

/// The counts of one server, of a proxy itself (no `server`), or of the process (nor a `proxy`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The proxy's name.
    pub proxy: String,
    /// The server's name.
    pub server: String,
    /// Position among the names, and the count; what is 0 is left out.
    pub counts: Vec<(u16, u64)>,
}
