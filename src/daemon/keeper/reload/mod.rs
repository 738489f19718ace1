//! Another configuration for this node, taken whole or not at all.
//!
//! `read` reads and checks the file on a thread of its own. Then the proxy gets ready (`offer`), then the
//! virtual routers: all that can fail, while nothing has changed. Then all of it changes in one turn of
//! the loop (`apply`, with `routers`, `routes` and `carry`; `lineage` says what goes on as what). `report` is what whoever asked learns.

mod apply;
mod carry;
mod lineage;
mod offer;
mod read;
mod report;
mod routers;
mod routes;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Keeper, RELOAD};
use crate::config::diff::Rights;
use crate::config::local::LocalVip;
use crate::config::model::Config;
use crate::ipc::command::Outcome;
use crate::ipc::event::EventKind;
use crate::ipc::reload::{
    PREPARE_WITHIN_MS, PrepareAnswer, ReloadOrder, ReloadReport, ReloadStatus,
};
use crate::net::clock;
use crate::net::epoll::{Epoll, Interest};
use crate::net::eventfd::Bell;
use read::{Found, Question, Reading, Unfit};
use watch::Watch;

/// A file that takes longer to be read is on a disk that hangs.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// The proxy has changed over at once, or hangs.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// The reload under way, and those before.
#[derive(Debug)]
pub(super) struct Reload {
    /// What this machine is in the virtual routers of the file that counts.
    locals: Vec<LocalVip>,
    bell: Arc<Bell>,
    /// What this keeper began with.
    pub(super) rights: Rights,
    /// The last one's number.
    last: u64,
    phase: Phase,
    /// A signal or a change came meanwhile: once more.
    again: Option<By>,
    /// An order that came while one that nobody waits for was under way.
    waiting: Option<(u64, ReloadOrder)>,
    /// `reload.watch`.
    watch: Option<Watch>,
    status: ReloadStatus,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// The file is being read.
    Reading {
        asked: Asked,
        reading: Reading,
    },
    /// The proxy gets ready.
    Preparing {
        asked: Asked,
        id: u64,
        since: Instant,
        found: Box<Found>,
    },
    /// It counts here; the proxy has not said so yet.
    Committing {
        asked: Asked,
        id: u64,
        since: Instant,
        report: Box<ReloadReport>,
    },
}

/// Who asked for what.
#[derive(Debug, Clone, Copy)]
struct Asked {
    by: By,
    dry_run: bool,
    began: Instant,
}

/// What a reload is due to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The order of this number.
    Order(u64),
    Signal,
    /// The file has changed.
    File,
}

impl Reload {
    /// None is under way.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(config: &Config, locals: Vec<LocalVip>, epoll: &Epoll) -> io::Result<Self> {
        let bell = Bell::new()?;
        epoll.add(&bell, RELOAD, Interest::READ)?;
        Ok(Self {
            locals,
            bell: Arc::new(bell),
            rights: Rights::of(config),
            last: 0,
            phase: Phase::Idle,
            again: None,
            waiting: None,
            watch: None,
            status: ReloadStatus {
                success_at_ms: wall_ms(),
                ..ReloadStatus::default()
            },
        })
    }

    /// When it is not waited for any longer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Reading { asked, .. } => Some(asked.began + READ_WITHIN),
            Phase::Preparing { since, .. } => Some(*since + prepare_within()),
            Phase::Committing { since, .. } => Some(*since + COMMIT_WITHIN),
        }
    }

    /// Whether the keeper has changed over, and the proxy has not said so yet.
    pub(super) const fn is_half_done(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. })
    }

    /// Whether one is under way that nobody waits for an answer of.
    const fn is_unattended(&self) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Reading { asked, .. }
            | Phase::Preparing { asked, .. }
            | Phase::Committing { asked, .. } => match asked.by {
                By::Order(_) => false,
                By::Signal | By::File => true,
            },
        }
    }

    const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}

fn prepare_within() -> Duration {
    Duration::from_millis(PREPARE_WITHIN_MS.into())
}

fn wall_ms() -> u64 {
    u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX)
}

impl Keeper {
    /// An operator orders it.
    pub(super) fn on_reload_order(&mut self, now: Instant, id: u64, order: ReloadOrder) {
        tracing::info!(dry_run = order.dry_run, "reload ordered");
        if self.reload.is_unattended() && self.reload.waiting.is_none() {
            self.reload.waiting = Some((id, order));
            return;
        }
        self.obey(now, id, order);
    }

    fn obey(&mut self, now: Instant, id: u64, order: ReloadOrder) {
        if let Err(why) = self.begin_reload(now, By::Order(id), order.dry_run) {
            self.answer(now, id, Outcome::Refused(why));
        }
    }

    /// SIGHUP. Several while one reload is under way are one more. Nobody hears an answer, so one that
    /// comes while processes change is kept for later.
    pub(super) fn on_hangup(&mut self, now: Instant) {
        tracing::info!("reload asked for by signal");
        self.reload_unasked(now, By::Signal);
    }

    /// At once, or as soon as that can be.
    fn reload_unasked(&mut self, now: Instant, by: By) {
        if self.reload.is_idle() && !self.processes_change() {
            if let Err(reason) = self.begin_reload(now, by, false) {
                tracing::warn!(reason, "not reloaded");
            }
        } else if self.reload.again != Some(By::Signal) {
            self.reload.again = Some(by);
        }
    }

    /// `reload.watch` is begun or given up. No thread before this one has given up its rights: each
    /// has its own.
    pub(super) fn watch_config(&mut self) {
        let reload = &mut self.reload;
        if !self.args.config.reload.watch {
            reload.watch = None;
        } else if reload.watch.is_none() {
            match Watch::begin(&self.args.config_path, Arc::clone(&reload.bell)) {
                Ok(watch) => reload.watch = Some(watch),
                Err(error) => self.note_unwatched(&error.to_string()),
            }
        }
    }

    /// The next reload tries again.
    fn note_unwatched(&mut self, error: &str) {
        tracing::error!(error, "the configuration cannot be watched");
        let why = format!("the file cannot be watched: {error}");
        self.record(EventKind::Reload, (None, None), None, &why);
    }

    /// Whether a reload must wait until this node's processes are who they will be.
    fn processes_change(&self) -> bool {
        self.upgrade.is_under_way()
            || self.proxies.succession.is_some()
            || !self.proxies.is_settled()
    }

    /// Whether a signal's reload is still to come. A keeper that takes over hears of it as this one did;
    /// of a file that has changed it finds out itself.
    pub(super) const fn is_reload_owed(&self) -> bool {
        matches!(self.reload.again, Some(By::Signal))
    }

    fn begin_reload(&mut self, now: Instant, by: By, dry_run: bool) -> Result<(), String> {
        if self.stopping.is_some() {
            return Err("this node is stopping".to_owned());
        }
        if !self.reload.is_idle() {
            return Err("another reload is under way".to_owned());
        }
        if self.upgrade.is_under_way() || self.proxies.succession.is_some() {
            return Err("the proxy process is being replaced: try again in a second".to_owned());
        }
        if !self.proxies.is_settled() {
            return Err("this node is starting: try again in a second".to_owned());
        }
        let question = Question {
            path: self.args.config_path.clone(),
            node: self.args.node.clone(),
            old_text: self.args.config_text.clone(),
            old: self.args.config.clone(),
            workers: self.proxies.workers,
            rights: self.reload.rights,
            reach: self.sandbox.reach.clone(),
        };
        let reading = Reading::begin(question, Arc::clone(&self.reload.bell));
        let reading = reading.map_err(|error| format!("no thread to read the file: {error}"))?;
        if !dry_run {
            self.notify.reloading();
        }
        let asked = Asked {
            by,
            dry_run,
            began: now,
        };
        self.reload.phase = Phase::Reading { asked, reading };
        Ok(())
    }

    /// A thread has rung: that which reads, or that which watches.
    pub(super) fn file_was_read(&mut self, now: Instant) {
        if let Err(error) = self.reload.bell.silence() {
            tracing::error!(%error, "the bell of the reload cannot be silenced");
        }
        let unwatched = self.reload.watch.as_ref().and_then(Watch::failure);
        if let Some(error) = unwatched.map(ToString::to_string) {
            self.reload.watch = None;
            self.note_unwatched(&error);
        }
        if self.reload.watch.as_ref().is_some_and(Watch::take) {
            self.reload_unasked(now, By::File);
        }
        let Phase::Reading { asked, reading } = &self.reload.phase else {
            return;
        };
        let asked = *asked;
        match reading.take() {
            // Not yet, or of one that was given up.
            None => {}
            Some(Ok(found)) => self.offer(now, asked, found),
            Some(Err(Unfit::Same)) => self.end_reload(now, asked, report::same()),
            Some(Err(unfit)) => {
                let report = report::unfit(unfit);
                self.end_reload(now, asked, report);
            }
        }
    }

    /// The proxy says whether it can take the configuration.
    pub(super) fn on_prepared(&mut self, now: Instant, id: u64, answer: PrepareAnswer) {
        match std::mem::replace(&mut self.reload.phase, Phase::Idle) {
            Phase::Preparing {
                asked,
                id: ours,
                found,
                ..
            } if ours == id => self.answered(now, (asked, id), found, answer),
            other @ (Phase::Idle
            | Phase::Reading { .. }
            | Phase::Preparing { .. }
            | Phase::Committing { .. }) => {
                tracing::debug!(id, "answer to a reload that nobody waits for");
                self.reload.phase = other;
            }
        }
    }

    /// The configuration counts in the proxy.
    pub(super) fn on_committed(&mut self, now: Instant, id: u64) {
        match std::mem::replace(&mut self.reload.phase, Phase::Idle) {
            Phase::Committing {
                asked,
                id: ours,
                report,
                ..
            } if ours == id => self.end_reload(now, asked, *report),
            other @ (Phase::Idle
            | Phase::Reading { .. }
            | Phase::Preparing { .. }
            | Phase::Committing { .. }) => self.reload.phase = other,
        }
    }

    /// The proxy ended. Before it was told to change over the old file counts; after that the next
    /// one gets the new file.
    pub(super) fn proxy_gone_in_reload(&mut self, now: Instant) {
        match std::mem::replace(&mut self.reload.phase, Phase::Idle) {
            Phase::Preparing { asked, found, .. } => {
                let why = "the proxy process ended while it got ready";
                self.end_reload(now, asked, report::failed(*found, why.to_owned()));
            }
            Phase::Committing { asked, report, .. } => self.end_reload(now, asked, *report),
            other @ (Phase::Idle | Phase::Reading { .. }) => self.reload.phase = other,
        }
    }

    /// Time may be up.
    pub(super) fn tick_reload(&mut self, now: Instant) {
        if self.reload.deadline().is_some_and(|at| now >= at) {
            match std::mem::replace(&mut self.reload.phase, Phase::Idle) {
                Phase::Idle => {}
                Phase::Reading { asked, .. } => {
                    let why = "the file could not be read in time";
                    self.end_reload(now, asked, report::unread(why));
                }
                Phase::Preparing {
                    asked, id, found, ..
                } => {
                    self.abort(now, id);
                    let why = "the proxy process did not get ready in time";
                    self.end_reload(now, asked, report::failed(*found, why.to_owned()));
                }
                Phase::Committing {
                    asked, mut report, ..
                } => {
                    let silent = "the proxy process has not confirmed it yet";
                    report.problems.push(silent.to_owned());
                    self.end_reload(now, asked, *report);
                }
            }
        }
        if self.reload.is_idle()
            && let Some((id, order)) = self.reload.waiting.take()
        {
            self.obey(now, id, order);
        }
        let may = self.reload.is_idle() && self.stopping.is_none() && !self.processes_change();
        if may && let Some(by) = self.reload.again.take() {
            self.reload_unasked(now, by);
        }
    }

    /// For status and metrics.
    pub(super) fn reload_status(&self) -> ReloadStatus {
        ReloadStatus {
            digest: self.digest,
            busy: !self.reload.is_idle(),
            ..self.reload.status
        }
    }
}
