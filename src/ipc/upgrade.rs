//! How far a change of the running program has come, as users read it. Pure.

use serde::{Deserialize, Serialize};

/// A change of the running program, in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// Its number: the wall clock when it began, milliseconds since 1970.
    pub number: u64,
    /// How far it has come.
    pub stage: UpgradeStage,
    /// The version that was replaced.
    pub from: String,
    /// Why it failed; else empty.
    #[serde(default)]
    pub reason: String,
}

/// How far an upgrade has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeStage {
    /// A proxy process of the program on disk starts beside the present one.
    Proxy,
    /// The addresses are handed over, for the keeper's change would take too long for their adverts.
    HandOver,
    /// The keeper replaces itself.
    Keeper,
    /// Both run from the program on disk.
    Done,
    /// What ran before goes on.
    Failed,
}
