//! The words of a reload: what keeper and proxy agree on before anything changes, and what whoever
//! ordered it learns. Pure.
//!
//! The order of things: `ToProxy::Prepare { id }` comes with the new text of lb.toml (one sealed memfd
//! beside it). Then come `ToProxy::Listeners` for each position *of the new file* whose pair of proxy
//! name and `listen` value the old file didn't have (which may be a socket that another proxy of the old file
//! had), then `ToProxy::ListenersDone`. All other positions keep the sockets they have. The proxy does all that
//! can fail and changes nothing, and answers `ToKeeper::Prepared { id, answer }`. At `Ready` the keeper sends
//! `ToProxy::Commit { id }` (applied at once, can't fail, answered by `ToKeeper::Committed { id }`) or
//! `ToProxy::Abort { id }` (everything prepared is dropped). `Abort` also follows `NeedsNewProcess` and
//! `Refused`. At most one reload is under way; a `Prepare` that meets another one replaces it.
//! The proxy has [`PREPARE_WITHIN_MS`] for its answer.

use serde::{Deserialize, Serialize};

/// The proxy answers a `Prepare` within so many milliseconds, or is taken to need a new process.
pub const PREPARE_WITHIN_MS: u32 = 10_000;
/// Changes told of; more are counted.
pub const CHANGES_MAX: usize = 512;
/// Bytes of rendered diagnostics told of.
pub const DIAGNOSTICS_MAX: usize = 48 * 1024;

/// What the proxy says of a new configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrepareAnswer {
    /// Everything that can fail is done; nothing has changed yet.
    Ready,
    /// It can't be applied to this process, but a new one can have it.
    NeedsNewProcess {
        /// Why, in a few words, for people.
        why: String,
    },
    /// No process could serve it now.
    Refused {
        /// One line each.
        problems: Vec<String>,
    },
}

/// [`Command::Reload`](super::command::Command::Reload).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadOrder {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// In a word.
    pub result: ReloadResult,
    /// The file, as the daemon calls it.
    pub file: String,
    /// What differs, at most [`CHANGES_MAX`].
    pub changes: Vec<ReloadChange>,
    /// Further changes that are not listed.
    pub more: u32,
    /// What stands in the way, and what deserves a second look, one line each.
    pub problems: Vec<String>,
    /// Diagnostics of the file as `lbd check` prints them; empty: there are none.
    pub diagnostics: String,
    /// Milliseconds from the order to the result.
    pub elapsed_ms: u64,
}

/// What became of a reload, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadResult {
    /// The new file counts, without a new process.
    Applied,
    /// The new file counts; a new proxy process has it, the old one's connections go on to their end.
    Replaced,
    /// The file says the same as before.
    Unchanged,
    /// Nothing was done: a dry run, and the file can be applied.
    Planned,
    /// The old file counts: the new one is not accepted.
    Refused,
    /// The old file counts: applying the new one failed on this machine now.
    Failed,
}

impl ReloadResult {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Planned => "planned",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One difference between the file that counts and the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadChange {
    /// What becomes of it.
    pub kind: ChangeKind,
    /// What it is about, as a path of lb.toml: `proxy.api.backends.cp1.weight`.
    pub what: String,
    /// Before; `None` for what is added.
    pub from: Option<String>,
    /// After; `None` for what is removed.
    pub to: Option<String>,
    /// What an operator should know of it, if anything.
    pub note: Option<String>,
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It has another value.
    Changed,
    /// It goes.
    Removed,
}

/// Reloads since the keeper began, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Applied, in place or by a new process; also a file that said the same.
    pub applied: u64,
    /// Files that were not accepted.
    pub refused: u64,
    /// Files that were accepted but could not be applied.
    pub failed: u64,
    /// When the file that counts was taken, milliseconds since 1970.
    pub success_at_ms: u64,
    /// FNV-1a 64 digest of the text that counts.
    pub digest: u64,
    /// Whether one is under way.
    pub busy: bool,
}
