//! The watch over the proxy process: what the supervisor decides is done here.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::Keeper;
use crate::daemon::supervise::{Action, Finding, Input, Thread};
use crate::net::process::{self, Process};

impl Keeper {
    /// Lets the supervisor judge, and does what it says.
    pub(super) fn supervise(&mut self, now: Instant, input: Input<'_>) {
        if self.stopping.is_some() {
            return;
        }
        let mut actions = self.supervisor.handle(now, input);
        // An examination is answered at once and may lead to one more list.
        while let Some(action) = actions.pop() {
            match action {
                Action::Start => {
                    if self.supervisor.is_looping() {
                        tracing::error!(starts = self.supervisor.started, "proxy keeps ending");
                    }
                    self.order_proxy(now);
                }
                Action::Examine(threads) => {
                    let findings = self.examine(&threads);
                    let more = self.supervisor.handle(now, Input::Examined(&findings));
                    actions.extend(more);
                }
                Action::Hung(reason) => tracing::error!(reason, "proxy hangs"),
                Action::Recovered => tracing::warn!("proxy works again"),
                Action::Starved => tracing::warn!("proxy gets no processor time"),
                Action::Kill => match &self.proxies.current {
                    Some(current) => {
                        tracing::error!(pid = current.process.pid(), "hung proxy killed");
                        kill(&current.process);
                    }
                    None => self.kill_starting(now),
                },
            }
        }
    }

    /// A process that was started and never said a word.
    fn kill_starting(&mut self, now: Instant) {
        tracing::error!("proxy process did not connect");
        match self.proxies.starting.take().map(Process::open) {
            Some(Ok(process)) => kill(&process),
            Some(Err(_)) => {}
            None => self.runner_hangs(now),
        }
        let more = self.supervisor.handle(now, Input::Ended);
        if more.contains(&Action::Start) {
            self.order_proxy(now);
        }
    }

    fn examine(&self, threads: &[Thread]) -> Vec<Finding> {
        let Some(current) = &self.proxies.current else {
            return Vec::new();
        };
        let pid = current.process.pid();
        let look = |thread: &Thread| {
            let tid = match thread {
                Thread::Control => pid,
                Thread::Worker(tid) => i32::try_from(*tid).ok()?,
            };
            let state = process::thread_state(pid, tid).ok()?;
            Some(Finding {
                thread: *thread,
                state: state.state,
                run_ns: state.run_ns,
                wait_ns: state.wait_ns,
            })
        };
        threads.iter().filter_map(look).collect()
    }
}

/// SIGKILL; a process that has ended is as good.
pub(super) fn kill(process: &Process) {
    match process.signal(Signal::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => tracing::error!(%error, pid = process.pid(), "process not killed"),
    }
}
