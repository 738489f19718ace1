//! `lbd upgrade` and SIGUSR2: from the program that runs to the one on disk, and nobody notices. First
//! a proxy process of the new program succeeds the present one: so it is known that it runs here, takes
//! this configuration, and serves. Then the keeper replaces itself, in the same process: the addresses
//! stay, for no other node misses an advert. Where adverts follow each other so fast that one would be
//! missed, the addresses are handed over first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::Keeper;
use super::succession::Cause;
use crate::ipc::event::EventKind;
use crate::ipc::message::{UpgradeStage, UpgradeStatus, VrrpState};
use crate::net::clock;

/// With adverts at least this far apart the keeper's change is over long before another node would take
/// the address: that takes two of these intervals at least.
const KEEPS_FROM: Duration = Duration::from_millis(100);
/// For so long a node that handed over for its keeper's change leaves it at that.
const HOLD: Duration = Duration::from_secs(3);
/// A hand-over is not waited for any longer.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);
/// How often its end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Orders to processes that are on their way out get so long to reach them.
const SETTLE_WITHIN: Duration = Duration::from_millis(200);

/// The last upgrade, and where the program is.
#[derive(Debug)]
pub(super) struct Upgrade {
    program: PathBuf,
    status: Option<UpgradeStatus>,
    /// When the present stage began.
    since: Instant,
    /// When its end is looked for next.
    look_at: Instant,
}

impl Upgrade {
    pub(super) fn new(now: Instant, status: Option<UpgradeStatus>) -> Self {
        Self {
            program: own_path(),
            status,
            since: now,
            look_at: now,
        }
    }

    pub(super) fn status(&self) -> Option<UpgradeStatus> {
        self.status.clone()
    }

    fn stage(&self) -> Option<UpgradeStage> {
        self.status.as_ref().map(|status| status.stage)
    }

    pub(super) fn is_under_way(&self) -> bool {
        match self.stage() {
            Some(UpgradeStage::Proxy | UpgradeStage::HandOver | UpgradeStage::Keeper) => true,
            Some(UpgradeStage::Done | UpgradeStage::Failed) | None => false,
        }
    }

    fn enter(&mut self, now: Instant, stage: UpgradeStage, why: &str) {
        self.since = now;
        if let Some(status) = &mut self.status {
            status.stage = stage;
            why.clone_into(&mut status.reason);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage() {
            Some(UpgradeStage::HandOver | UpgradeStage::Keeper) => Some(self.look_at),
            Some(UpgradeStage::Proxy | UpgradeStage::Done | UpgradeStage::Failed) | None => None,
        }
    }
}

/// Where this program was started from. Its file may be replaced later; what lies there then is the
/// next one.
fn own_path() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_default();
    let text = path.to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(replaced) if !path.exists() => PathBuf::from(replaced),
        Some(_) | None => path,
    }
}

impl Keeper {
    /// Begins an upgrade; its number.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn begin_upgrade(&mut self, now: Instant) -> Result<u64, String> {
        if self.upgrade.is_under_way() {
            return Err("an upgrade is under way".to_owned());
        }
        if self.reload_status().busy {
            return Err("a reload is under way".to_owned());
        }
        let program = self.upgrade.program.clone();
        self.begin_succession(now, Cause::Upgrade, Some(program.clone()))?;
        tracing::info!(program = %program.display(), "upgrade begun");
        self.record(EventKind::Keeper, (None, None), None, "upgrade begun");
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        self.upgrade.since = now;
        self.upgrade.status = Some(UpgradeStatus {
            number,
            stage: UpgradeStage::Proxy,
            from: env!("CARGO_PKG_VERSION").to_owned(),
            reason: String::new(),
        });
        Ok(number)
    }

    /// The new program's proxy serves, or there is none.
    pub(super) fn upgrade_proxy_ended(&mut self, now: Instant, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            return self.upgrade_failed(now, &reason);
        }
        let hasty = self.routers.hasty(KEEPS_FROM);
        for router in &hasty {
            self.routers.failover(*router, now, Some(HOLD));
        }
        let stage = if hasty.is_empty() {
            UpgradeStage::Keeper
        } else {
            tracing::info!("addresses are handed over while the keeper replaces itself");
            UpgradeStage::HandOver
        };
        self.upgrade.enter(now, stage, "");
    }

    pub(super) fn tick_upgrade(&mut self, now: Instant) {
        self.upgrade.look_at = now + LOOK_EVERY;
        let waited = now.saturating_duration_since(self.upgrade.since);
        match self.upgrade.stage() {
            Some(UpgradeStage::HandOver) => {
                let leaving = self.routers.states();
                let leaving = leaving
                    .iter()
                    .any(|(state, _)| *state == VrrpState::Leaving);
                // One for which nobody came keeps its address: there is nobody whom a pause could mislead.
                if !leaving || waited >= HAND_OVER_WITHIN {
                    self.upgrade.enter(now, UpgradeStage::Keeper, "");
                }
            }
            Some(UpgradeStage::Keeper) => {
                let settled = self.proxies.has_told_leaving() && self.proxies.tallies.is_settled();
                if settled || waited >= SETTLE_WITHIN {
                    self.replace_keeper(now);
                }
            }
            Some(UpgradeStage::Proxy | UpgradeStage::Done | UpgradeStage::Failed) | None => {}
        }
    }

    fn replace_keeper(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return self.upgrade_failed(now, "this node is stopping");
        }
        tracing::info!("keeper replaces itself");
        // The state file has the stamps with which the next program resumes.
        self.save_state(clock::now(), true);
        let path: PathBuf = Path::new(&self.upgrade.program).to_owned();
        let error = self.run_program(&path);
        self.upgrade_failed(now, &format!("{}: {error}", path.display()));
    }

    fn upgrade_failed(&mut self, now: Instant, reason: &str) {
        tracing::error!(reason, "upgrade failed: what ran before goes on");
        let reason = format!("upgrade failed: {reason}");
        self.record(EventKind::Keeper, (None, None), None, &reason);
        self.upgrade.enter(now, UpgradeStage::Failed, &reason);
    }

    /// This program was put in another one's place: `failed` says why the one that was to come did not.
    pub(super) fn resumed(&mut self, now: Instant, from: &str, failed: Option<&str>) {
        match failed {
            Some(reason) => self.upgrade_failed(now, reason),
            None => {
                let to = env!("CARGO_PKG_VERSION");
                tracing::info!(from, to, "keeper replaced");
                let change = Some((from, to));
                self.record(EventKind::Keeper, (None, None), change, "upgraded");
                self.upgrade.enter(now, UpgradeStage::Done, "");
            }
        }
    }
}
