//! Another configuration for this node, taken whole or not at all.

use std::time::Instant;

use super::Keeper;
use crate::ipc::command::Outcome;
use crate::ipc::reload::{PrepareAnswer, ReloadOrder, ReloadStatus};

impl Keeper {
    /// An operator orders it.
    pub(super) fn on_reload_order(&mut self, now: Instant, id: u64, order: ReloadOrder) {
        tracing::info!(dry_run = order.dry_run, "reload ordered");
        self.answer(now, id, Outcome::Refused("not supported yet".into()));
    }

    /// The proxy says whether it can take the configuration.
    pub(super) fn on_prepared(&mut self, _now: Instant, id: u64, _answer: PrepareAnswer) {
        tracing::warn!(id, "a message of the proxy came at the wrong time");
    }

    /// The configuration counts in the proxy.
    pub(super) fn on_committed(&mut self, _now: Instant, id: u64) {
        tracing::warn!(id, "a message of the proxy came at the wrong time");
    }

    /// For status and metrics.
    pub(super) fn reload_status(&self) -> ReloadStatus {
        ReloadStatus {
            digest: self.digest,
            ..ReloadStatus::default()
        }
    }
}
