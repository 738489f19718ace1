//! The watch over the proxy process: what the supervisor decides is done here.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Keeper;
use crate::daemon::supervise::{Action, Finding, Input, Thread, judge};
use crate::ipc::event::EventKind;
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
                Action::Start => self.order_proxy(now),
                Action::Looping => {
                    tracing::error!(starts = self.supervisor.started, "proxy keeps ending");
                }
                Action::Examine(threads) => {
                    let findings = self.examine(&threads);
                    let more = self.supervisor.handle(now, Input::Examined(&findings));
                    actions.extend(more);
                }
                Action::Hung(reason) => {
                    tracing::error!(reason, "proxy hangs");
                    self.record(EventKind::Proxy, (None, Some("hung")), None, reason);
                }
                Action::Recovered => {
                    tracing::warn!("proxy works again");
                    self.record(EventKind::Proxy, (None, None), None, "works again");
                }
                Action::Starved => {
                    tracing::warn!("proxy gets no processor time");
                    self.record(
                        EventKind::Proxy,
                        (None, None),
                        None,
                        "gets no processor time",
                    );
                }
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
        self.supervise(now, Input::Ended);
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
            finding(*thread, pid, tid)
        };
        threads.iter().filter_map(look).collect()
    }
}

fn finding(thread: Thread, pid: i32, tid: i32) -> Option<Finding> {
    let state = process::thread_state(pid, tid).ok()?;
    Some(Finding {
        thread,
        state: state.state,
        run_ns: state.run_ns,
        wait_ns: state.wait_ns,
    })
}

/// Between two looks at a silent process.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The looks at a silent proxy that is no supervisor's yet. Silence alone proves nothing: one that
/// gets no CPU must not be killed for it.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<(Instant, Vec<Finding>)>,
    starved: bool,
}

impl Looks {
    /// Why the process hangs; `None`: it may be starved of CPU, or that can't be told yet. To be
    /// called again after [`LOOK_EVERY`]; sooner, it doesn't look.
    pub(super) fn look(&mut self, now: Instant, pid: i32) -> Option<&'static str> {
        let last = self.last.as_ref();
        if last.is_some_and(|(at, _)| now.saturating_duration_since(*at) < LOOK_EVERY) {
            return None;
        }
        let Some(found) = finding(Thread::Control, pid, pid) else {
            return Some("ended");
        };
        self.judge(now, found)
    }

    fn judge(&mut self, now: Instant, found: Finding) -> Option<&'static str> {
        let reason = judge(now, &found, self.last.as_ref());
        if reason.is_none() && self.last.is_some() && !self.starved {
            self.starved = true;
            tracing::warn!("proxy gets no processor time");
        }
        self.last = Some((now, vec![found]));
        reason
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    fn found(state: char, run_ms: u64, wait_ms: u64) -> Finding {
        Finding {
            thread: Thread::Control,
            state,
            run_ns: run_ms * 1_000_000,
            wait_ns: wait_ms * 1_000_000,
        }
    }

    #[test]
    fn a_silent_proxy_that_waits_for_a_cpu_is_never_called_hung() {
        let base = clock::now();
        let mut looks = Looks::default();
        for look in 0..100_u32 {
            let waited = u64::from(look) * 90;
            let now = base + look * LOOK_EVERY;
            assert_eq!(looks.judge(now, found('R', 5, waited)), None, "{look}");
        }
        assert!(looks.starved);
    }

    #[test]
    fn a_silent_proxy_that_sleeps_or_spins_is_called_hung_at_the_second_look() {
        for (state, ran, reason) in [
            ('S', 0, "asleep without progress"),
            ('R', 99, "busy without progress"),
        ] {
            let base = clock::now();
            let mut looks = Looks::default();
            assert_eq!(looks.judge(base, found(state, 0, 0)), None);
            let second = looks.judge(base + LOOK_EVERY, found(state, ran, 1));
            assert_eq!(second, Some(reason));
        }
    }

    #[test]
    fn a_process_that_is_there_no_more_has_ended() {
        assert_eq!(Looks::default().look(clock::now(), 0), Some("ended"));
    }
}
