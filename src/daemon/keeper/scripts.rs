//! The runner and the track scripts it runs.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::link::MESSAGES_MAX;
use super::runner_link::RunnerLink;
use super::watch::kill;
use super::{Keeper, RUNNER, RUNNER_END};
use crate::config::model;
use crate::daemon::supervise::Input as Life;
use crate::ipc::runner::{FromRunner, RunScript, ToRunner};
use crate::net::epoll::{Event, Interest};
use crate::net::process::Process;
use crate::track::fsm::{Action, Input, Script};

/// A runner that keeps ending is started again at most this often.
const RUNNER_PAUSE: Duration = Duration::from_millis(500);

/// The runner, and one machine for each script of the file.
#[derive(Debug)]
pub(super) struct Scripts {
    runner: Option<RunnerLink>,
    /// Runners that are on their way out, to be collected.
    ending: Vec<Process>,
    started_at: Instant,
    machines: Vec<Script>,
    /// A proxy shall be started as soon as there is a runner.
    pub(super) proxy_wanted: bool,
}

impl Scripts {
    pub(super) fn new(config: &[model::Script], now: Instant) -> Self {
        for script in config {
            let program = script.command.first().map_or("", String::as_str);
            let executable = std::fs::metadata(program)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
            if !executable {
                tracing::warn!(
                    script = script.name,
                    program,
                    "track script cannot be executed and counts as failed"
                );
            }
        }
        Self {
            runner: None,
            ending: Vec::new(),
            started_at: now,
            machines: config
                .iter()
                .map(|script| Script::new(now, script))
                .collect(),
            proxy_wanted: false,
        }
    }

    /// The verdicts, by position in the file.
    pub(super) fn verdicts(&self) -> Vec<Option<bool>> {
        self.machines.iter().map(Script::verdict).collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.runner {
            Some(_) => self.machines.iter().map(Script::deadline).min(),
            None => Some(self.started_at + RUNNER_PAUSE),
        }
    }
}

impl Keeper {
    pub(super) fn start_runner(&mut self, now: Instant) {
        self.scripts.started_at = now;
        let started = RunnerLink::start(&self.epoll, RUNNER).and_then(|runner| {
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
    }

    /// Has the runner start a proxy process.
    pub(super) fn order_proxy(&mut self, now: Instant) {
        let order = ToRunner::StartProxy {
            keeper_socket: self.dir.socket().to_string_lossy().into_owned(),
            runtime_dir: self.dir.path().to_string_lossy().into_owned(),
        };
        self.scripts.proxy_wanted = !self.tell_runner(now, &order);
    }

    fn tell_runner(&mut self, now: Instant, order: &ToRunner) -> bool {
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
        let rested = now.saturating_duration_since(self.scripts.started_at) >= RUNNER_PAUSE;
        if rested && self.stopping.is_none() {
            self.start_runner(now);
        }
    }

    fn runner_says(&mut self, now: Instant, report: FromRunner) {
        match report {
            FromRunner::Ready(rights) => tracing::info!(rights, "runner started"),
            FromRunner::ProxyStarted { pid } => self.proxies.starting = i32::try_from(pid).ok(),
            FromRunner::ProxyNotStarted { error } => {
                tracing::error!(error, "proxy process not started");
                self.supervise(now, Life::Ended);
            }
            FromRunner::ProxyEnded { pid, how } => {
                tracing::warn!(pid, reason = %how, "proxy process ended");
                if self.proxies.starting == i32::try_from(pid).ok() {
                    self.proxies.starting = None;
                    self.supervise(now, Life::Ended);
                }
            }
            FromRunner::ScriptEnded { script, run, how } => {
                let input = Input::Finished {
                    run,
                    ok: how.is_ok(),
                };
                self.drive_script(now, usize::from(script), input, &how.to_string());
            }
        }
    }

    pub(super) fn tick_scripts(&mut self, now: Instant) {
        let ending = &mut self.scripts.ending;
        ending.retain(|process| matches!(process.reap(), Ok(None)));
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
            match action {
                Action::Verdict(true) => {
                    tracing::info!(script = config.name, reason, "track script succeeds");
                }
                Action::Verdict(false) => {
                    tracing::warn!(script = config.name, reason, "track script fails");
                }
                Action::Run { run } => {
                    let order = ToRunner::RunScript(RunScript {
                        script: u16::try_from(index).unwrap_or(u16::MAX),
                        run,
                        command: config.command.clone(),
                        timeout_ms: u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX),
                        env: vec![("LBD_TRACK".to_owned(), config.name.clone())],
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
