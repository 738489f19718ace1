//! What whoever ordered a reload learns, and what is written down of it.

use std::time::Instant;

use super::read::{Found, Unfit};
use super::{Asked, By, Phase, wall_ms};
use crate::config::diff::{self, Change};
use crate::daemon::keeper::Keeper;
use crate::ipc::command::Outcome;
use crate::ipc::event::EventKind;
use crate::ipc::reload::{CHANGES_MAX, ChangeKind, ReloadChange, ReloadReport, ReloadResult};

/// Mistakes of a file that are logged.
const MISTAKES_MAX: u32 = 10;
/// Bytes of the changes told of: a message has an end.
const CHANGES_BYTES_MAX: usize = 64 * 1024;

fn empty(result: ReloadResult) -> ReloadReport {
    ReloadReport {
        result,
        file: String::new(),
        changes: Vec::new(),
        more: 0,
        problems: Vec::new(),
        diagnostics: String::new(),
        elapsed_ms: 0,
    }
}

/// The text that counts already.
pub(super) fn same() -> ReloadReport {
    empty(ReloadResult::Unchanged)
}

/// Nobody knows what the file says.
pub(super) fn unread(why: &str) -> ReloadReport {
    ReloadReport {
        problems: vec![why.to_owned()],
        ..empty(ReloadResult::Failed)
    }
}

/// The file can't be had.
pub(super) fn unfit(unfit: Unfit) -> ReloadReport {
    match unfit {
        Unfit::Same => same(),
        Unfit::Refused {
            changes,
            problems,
            diagnostics,
        } => ReloadReport {
            problems,
            diagnostics,
            ..with(ReloadResult::Refused, changes)
        },
        Unfit::Failed { changes, problem } => ReloadReport {
            problems: vec![problem],
            ..with(ReloadResult::Failed, changes)
        },
    }
}

/// It could be had, but not now.
pub(super) fn failed(found: Found, why: String) -> ReloadReport {
    told(
        found.changes,
        found.diagnostics,
        ReloadResult::Failed,
        vec![why],
    )
}

pub(super) fn told(
    changes: Vec<Change>,
    diagnostics: String,
    result: ReloadResult,
    problems: Vec<String>,
) -> ReloadReport {
    ReloadReport {
        problems,
        diagnostics,
        ..with(result, changes)
    }
}

fn with(result: ReloadResult, changes: Vec<Change>) -> ReloadReport {
    let mut report = empty(result);
    let mut room = CHANGES_BYTES_MAX;
    for change in changes {
        let change = of(change);
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes =
            64 + change.what.len() + text(&change.from) + text(&change.to) + text(&change.note);
        match room.checked_sub(bytes) {
            Some(left) if report.changes.len() < CHANGES_MAX => {
                room = left;
                report.changes.push(change);
            }
            Some(_) | None => report.more += 1,
        }
    }
    report
}

fn of(change: Change) -> ReloadChange {
    ReloadChange {
        kind: match change.kind {
            diff::ChangeKind::Added => ChangeKind::Added,
            diff::ChangeKind::Changed => ChangeKind::Changed,
            diff::ChangeKind::Removed => ChangeKind::Removed,
        },
        what: change.what,
        from: change.from,
        to: change.to,
        note: change.note.map(str::to_owned),
    }
}

impl Keeper {
    /// Says how it ended, to whoever asked and to the record.
    pub(super) fn end_reload(&mut self, now: Instant, asked: Asked, mut report: ReloadReport) {
        self.reload.phase = Phase::Idle;
        report.file = self.args.config_path.to_string_lossy().into_owned();
        let elapsed = now.saturating_duration_since(asked.began);
        report.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if !asked.dry_run {
            // A look at a file that was only touched is no reload.
            if (asked.by, report.result) != (By::File, ReloadResult::Unchanged) {
                self.note_reload(asked.by, &report);
            }
            self.notify.send("READY=1");
        }
        if let By::Order(id) = asked.by {
            self.answer(now, id, Outcome::Reload(Box::new(report)));
        }
    }

    fn note_reload(&mut self, by: By, report: &ReloadReport) {
        let result = report.result.name();
        let elapsed_ms = report.elapsed_ms;
        let changes = report.changes.len() + usize::try_from(report.more).unwrap_or(0);
        let reason = report.problems.join("; ");
        if by == By::File {
            tracing::info!(changes, "the configuration file has changed");
        }
        let status = &mut self.reload.status;
        match report.result {
            ReloadResult::Applied | ReloadResult::Replaced | ReloadResult::Unchanged => {
                status.applied += 1;
                status.success_at_ms = wall_ms();
                tracing::info!(result, changes, elapsed_ms, "configuration reloaded");
            }
            ReloadResult::Refused => {
                status.refused += 1;
                let first = report.diagnostics.lines().next();
                tracing::error!(
                    reason,
                    error = first,
                    "new configuration refused: the old one counts"
                );
                if !matches!(by, By::Order(_)) {
                    log_mistakes(&report.diagnostics);
                }
            }
            ReloadResult::Failed => {
                status.failed += 1;
                tracing::error!(reason, "new configuration not applied: the old one counts");
            }
            ReloadResult::Planned => {}
        }
        let words = match (reason.is_empty(), report.diagnostics.lines().next()) {
            (false, _) => reason,
            (true, Some(first)) if report.result == ReloadResult::Refused => first.to_owned(),
            (true, _) => match changes {
                0 => "nothing that counts differs".to_owned(),
                1 => "1 change".to_owned(),
                n => format!("{n} changes"),
            },
        };
        self.record(EventKind::Reload, (None, Some(result)), None, &words);
    }
}

/// For want of somebody who reads the answer: each mistake, with its place.
fn log_mistakes(diagnostics: &str) {
    let mut lines = diagnostics.lines().peekable();
    let mut left = MISTAKES_MAX;
    while let Some(line) = lines.next() {
        if !line.starts_with("error[") {
            continue;
        }
        if left == 0 {
            tracing::error!(reason = "too many", "further mistakes are not logged");
            return;
        }
        left -= 1;
        let place = lines.peek().map_or("", |place| place.trim_start());
        let place = place.strip_prefix("--> ").unwrap_or_default();
        tracing::error!(error = line, place, "mistake in the new configuration");
    }
}
