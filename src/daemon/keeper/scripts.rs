//! The runner and the track scripts it runs.

use std::path::Path;
use std::time::{Duration, Instant};

use super::link::MESSAGES_MAX;
use super::runner_link::RunnerLink;
use super::watch::kill;
use super::{Keeper, RUNNER, RUNNER_END, notify};
use crate::config::model;
use crate::daemon::supervise::Input as Life;
use crate::ipc::event::EventKind;
use crate::ipc::runner::{FromRunner, Job, Outcome, Run, ToRunner};
use crate::net::epoll::{Event, Interest};
use crate::net::process::Process;
use crate::track::fsm::{Action, Input, Script};
use crate::track::recorded::RecordedScript;

/// A runner that keeps ending is started again at most this often.
const RUNNER_PAUSE: Duration = Duration::from_millis(500);

/// The runner, and one machine for each script of the file.
#[derive(Debug)]
pub(super) struct Scripts {
    runner: Option<RunnerLink>,
    /// Runners that are on their way out, to be collected.
    ending: Vec<Process>,
    started_at: Instant,
    pub(super) machines: Vec<RecordedScript>,
    /// Their verdicts, and how the last run of each ended.
    pub(super) verdicts: Vec<Option<bool>>,
    pub(super) reasons: Vec<String>,
    /// The runner was asked which programs can't be run.
    pub(super) examined: bool,
    /// A proxy shall be started as soon as there is a runner.
    pub(super) proxy_wanted: bool,
}

impl Scripts {
    pub(super) fn new(config: &[model::Script], now: Instant) -> Self {
        Self {
            runner: None,
            ending: Vec::new(),
            started_at: now,
            machines: config
                .iter()
                .map(|script| RecordedScript::new(Script::new(now, script), now))
                .collect(),
            verdicts: vec![None; config.len()],
            reasons: vec![String::new(); config.len()],
            examined: false,
            proxy_wanted: false,
        }
    }

    /// The verdicts, by position in the file.
    pub(super) fn verdicts(&self) -> &[Option<bool>] {
        &self.verdicts
    }

    /// Why a script's verdict is what it is.
    pub(super) fn reason(&self, index: usize) -> &str {
        self.reasons.get(index).map_or("", String::as_str)
    }

    /// The runner's process id.
    pub(super) fn runner_pid(&self) -> Option<i32> {
        self.runner.as_ref().map(|runner| runner.process.pid())
    }

    /// A child of this process from before: it leaves by itself and is to be collected.
    pub(super) fn expect_end(&mut self, pid: Option<i32>) {
        self.ending
            .extend(pid.and_then(|pid| Process::open(pid).ok()));
    }

    pub(super) fn has_runner(&self) -> bool {
        self.runner.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.runner {
            Some(_) => self.machines.iter().map(|machine| machine.deadline()).min(),
            None => Some(self.started_at + RUNNER_PAUSE),
        }
    }
}

impl Keeper {
    pub(super) fn start_runner(&mut self, now: Instant) {
        self.scripts.started_at = now;
        let started = RunnerLink::start(&self.epoll, RUNNER, self.reload.rights.client_source)
            .and_then(|runner| {
                self.epoll
                    .add(&runner.process, RUNNER_END, Interest::READ)?;
                Ok(runner)
            });
        match started {
            Ok(runner) => self.scripts.runner = Some(runner),
            Err(error) => tracing::error!(%error, "runner not started"),
        }
        if self.scripts.proxy_wanted {
            self.order_proxy(now);
        }
        self.order_examination(now);
        self.order_files(now);
    }

    /// Has the runner say which programs of the file can't be run, once.
    pub(super) fn order_examination(&mut self, now: Instant) {
        if !self.scripts.examined {
            let programs = notify::programs(&self.args.config);
            let asked = programs.is_empty() || self.tell_runner(now, &ToRunner::Examine(programs));
            self.scripts.examined = asked;
        }
    }

    /// Has the runner start a proxy process.
    pub(super) fn order_proxy(&mut self, now: Instant) {
        let order = self.proxy_order(None, false);
        self.scripts.proxy_wanted = !self.tell_runner(now, &order);
    }

    /// Has it start one that is to succeed the present one; whether it took the order.
    pub(super) fn order_successor(&mut self, now: Instant, program: Option<&Path>) -> bool {
        let order = self.proxy_order(program, true);
        self.tell_runner(now, &order)
    }

    fn proxy_order(&self, program: Option<&Path>, successor: bool) -> ToRunner {
        ToRunner::StartProxy {
            keeper_socket: self.dir.socket().to_string_lossy().into_owned(),
            runtime_dir: self.dir.path().to_string_lossy().into_owned(),
            program: program.map(|program| program.to_string_lossy().into_owned()),
            successor,
        }
    }

    pub(super) fn tell_runner(&mut self, now: Instant, order: &ToRunner) -> bool {
        let Some(runner) = &mut self.scripts.runner else {
            return false;
        };
        match runner.tell(&self.epoll, order) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "runner does not take orders");
                self.runner_gone(now);
                false
            }
        }
    }

    /// Takes the runner's waiting reports.
    pub(super) fn read_runner(&mut self, now: Instant, event: Event) {
        for _ in 0..MESSAGES_MAX {
            let Some(runner) = &mut self.scripts.runner else {
                return;
            };
            let flushed = if event.writable() {
                runner.link.flush(&self.epoll)
            } else {
                Ok(())
            };
            match flushed.and_then(|()| runner.receive(&mut self.buffer)) {
                Ok(Some(report)) => self.runner_says(now, report),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "runner lost");
                    return self.runner_gone(now);
                }
            }
        }
    }

    pub(super) fn runner_ended(&mut self, now: Instant) {
        if self.stopping.is_none() {
            tracing::warn!("runner ended");
            let about = (None, Some("runner"));
            self.record(EventKind::Runner, about, None, "runner ended");
        }
        self.runner_gone(now);
    }

    /// A new runner is due. The old one's proxy lives on; the runs in flight are lost with it.
    fn runner_gone(&mut self, now: Instant) {
        let Some(runner) = self.scripts.runner.take() else {
            return;
        };
        let RunnerLink { link, process } = runner;
        drop(link);
        if let Err(error) = self.epoll.remove(&process) {
            tracing::debug!(%error, "runner was not watched");
        }
        self.scripts.ending.push(process);
        for machine in &mut self.scripts.machines {
            machine.handle(now, Input::Lost);
        }
        self.notifiers.lost();
        let rested = now.saturating_duration_since(self.scripts.started_at) >= RUNNER_PAUSE;
        if rested && self.stopping.is_none() {
            self.start_runner(now);
        }
    }

    fn runner_says(&mut self, now: Instant, report: FromRunner) {
        match report {
            FromRunner::Ready(rights) => self.note_runner_rights(rights),
            FromRunner::ProxyStarted {
                pid,
                successor: true,
            } => self.successor_started(i32::try_from(pid).ok()),
            FromRunner::ProxyNotStarted {
                error,
                successor: true,
            } => self.give_up_succession(now, &error),
            FromRunner::ProxyStarted { pid, .. } => self.proxies.starting = i32::try_from(pid).ok(),
            FromRunner::ProxyNotStarted { error, .. } => {
                tracing::error!(error, "proxy process not started");
                self.supervise(now, Life::Ended);
            }
            FromRunner::ProxyEnded { pid, how } => {
                if self.stopping.is_some() {
                    tracing::info!(pid, reason = %how, "proxy process ended");
                } else {
                    tracing::warn!(pid, reason = %how, "proxy process ended");
                }
                let pid = i32::try_from(pid).ok();
                self.successor_may_have_ended(now, pid, &how.to_string());
                self.heard_of_end(now, pid, &how.to_string());
                if pid.is_some() && self.proxies.starting == pid {
                    self.proxies.starting = None;
                    self.supervise(now, Life::Ended);
                }
            }
            FromRunner::Ended {
                job: Job::Script(script),
                run,
                how,
                output,
            } => self.script_ended(now, usize::from(script), run, &how, &output),
            FromRunner::Ended {
                job: Job::Notify(vip),
                run,
                how,
                output,
            } => self.notify_ended(vip, run, &how, &output),
            FromRunner::Trouble { name, trouble } => {
                tracing::warn!(key = name, reason = trouble, "program will not be run");
            }
            FromRunner::File { file, reading } => self.file_says(now, file, &reading),
        }
    }

    fn script_ended(&mut self, now: Instant, index: usize, run: u64, how: &Outcome, output: &str) {
        let ok = how.is_ok();
        if let Some(config) = self.args.config.scripts.get(index)
            && !ok
        {
            tracing::debug!(script = config.name, reason = %how, output, "track script wrote");
        }
        self.drive_script(now, index, Input::Finished { run, ok }, &how.to_string());
    }

    pub(super) fn tick_scripts(&mut self, now: Instant) {
        let ending = &mut self.scripts.ending;
        ending.retain(|process| matches!(process.reap(), Ok(None)));
        if self.is_notify_overdue(now) {
            self.runner_hangs(now);
        }
        self.drive_notify(now);
        if self.stopping.is_some() {
            return;
        }
        if self.scripts.proxy_wanted && self.scripts.runner.is_some() {
            self.order_proxy(now);
        }
        let due = now >= self.scripts.started_at + RUNNER_PAUSE;
        if self.scripts.runner.is_none() && due {
            self.start_runner(now);
        }
        for index in 0..self.scripts.machines.len() {
            if self.scripts.runner.is_none() {
                return;
            }
            let machine = self.scripts.machines.get(index);
            let Some(machine) = machine.filter(|machine| now >= machine.deadline()) else {
                continue;
            };
            // What an earlier runner owed was cancelled with it: this one does.
            let overdue = machine.is_running();
            self.drive_script(now, index, Input::Tick, "no result in time");
            if overdue {
                self.runner_hangs(now);
            }
        }
    }

    /// The runner owes something for too long: the end of a run past its timeout, or word of the
    /// proxy it was told to start. It is replaced.
    pub(super) fn runner_hangs(&mut self, now: Instant) {
        if let Some(runner) = &self.scripts.runner {
            tracing::error!(pid = runner.process.pid(), "runner hangs: killed");
            kill(&runner.process);
        }
        self.runner_gone(now);
    }

    fn drive_script(&mut self, now: Instant, index: usize, input: Input, reason: &str) {
        let Some(machine) = self.scripts.machines.get_mut(index) else {
            return;
        };
        for action in machine.handle(now, input).into_iter().flatten() {
            let Some(config) = self.args.config.scripts.get(index) else {
                return;
            };
            if let Action::Verdict(ok) = action
                && let Some(verdict) = self.scripts.verdicts.get_mut(index)
                && let Some(last) = self.scripts.reasons.get_mut(index)
            {
                *verdict = Some(ok);
                reason.clone_into(last);
            }
            match action {
                Action::Verdict(true) => {
                    tracing::info!(script = config.name, reason, "track script succeeds");
                }
                Action::Verdict(false) => {
                    tracing::warn!(script = config.name, reason, "track script fails");
                }
                Action::Run { run } => {
                    let order = ToRunner::Run(Run {
                        job: Job::Script(u16::try_from(index).unwrap_or(u16::MAX)),
                        run,
                        command: config.command.clone(),
                        timeout_ms: u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX),
                        env: vec![("LBD_TRACK".to_owned(), config.name.clone())],
                        user: config.user.clone(),
                    });
                    if !self.tell_runner(now, &order) {
                        return self.run_lost(now, index);
                    }
                }
            }
        }
    }

    /// Nobody took the order.
    fn run_lost(&mut self, now: Instant, index: usize) {
        if let Some(machine) = self.scripts.machines.get_mut(index) {
            machine.handle(now, Input::Lost);
        }
    }

    /// Ends the runner and waits a moment for it.
    pub(super) fn end_runner(&mut self) {
        let Some(runner) = self.scripts.runner.take() else {
            return;
        };
        let RunnerLink { link, process } = runner;
        drop(link);
        if !crate::net::process::await_end(&process, Duration::from_secs(1)) {
            tracing::warn!("runner does not end");
        }
    }
}
