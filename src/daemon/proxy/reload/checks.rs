//! The first check of servers that a reload brings, made before anything changes: a new server that
//! is ready takes connections from the first moment, and may take the place of one that goes.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::super::watchers::Prepared;
use crate::health::probe::Report;
use crate::health::task::Finding;
use crate::net::clock;
use crate::proxy::dispatch::verdicts::Checked;

/// Whoever has not answered by then is checked again when it is a member.
const WITHIN: Duration = Duration::from_secs(3);

/// One that was checked.
#[derive(Debug)]
pub(in super::super) struct Precheck {
    pub(super) candidate: Prepared,
    report: Report,
    started: Instant,
    finished: Instant,
}

impl Precheck {
    /// What it found, for the member at this place; what it counted is known to the machine then.
    pub(super) fn finding(&mut self, place: usize) -> Finding {
        let verdict = self.report.verdict.clone();
        let machine = &mut self.candidate.machine;
        let change = machine.on_result(verdict.health(), self.finished);
        Finding {
            proxy: self.candidate.slot,
            server: place,
            health: machine.state().health().unwrap_or(verdict.health()),
            counter: machine.counter(),
            verdict,
            change,
            started: self.started,
            finished: self.finished,
        }
    }

    /// What a farm makes of it, and when it was finished.
    pub(super) const fn checked(&self) -> (Checked, Instant) {
        let health = self.report.verdict.health();
        let checked = Checked {
            health,
            found: health,
            began: self.started,
        };
        (checked, self.finished)
    }
}

/// Checks all of them at once.
pub(super) async fn run(candidates: Vec<Prepared>) -> Vec<Precheck> {
    let mut tasks: JoinSet<Precheck> = candidates.into_iter().map(check).collect();
    let mut done = Vec::new();
    let all = async {
        while let Some(checked) = tasks.join_next().await {
            match checked {
                Ok(checked) => done.push(checked),
                Err(error) => tracing::error!(%error, "first check of a new server failed"),
            }
        }
    };
    if tokio::time::timeout(WITHIN, all).await.is_err() {
        tracing::info!("some new servers have no verdict yet");
    }
    done
}

async fn check(candidate: Prepared) -> Precheck {
    let started = clock::now();
    let report = candidate.probe.run().await;
    Precheck {
        candidate,
        report,
        started,
        finished: clock::now(),
    }
}
