//! The watch over the proxy process: what the supervisor decides is done here.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Keeper;
use crate::daemon::supervise::{
    Action, Evidence, Finding, Input, LOOK_SPACING, THREADS_MAX, Thread, Verdict,
};
use crate::ipc::event::EventKind;
use crate::net::clock;
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
                    let (at, findings) = self.examine(&threads);
                    let more = self.supervisor.handle(at, Input::Examined(&findings));
                    actions.extend(more);
                }
                Action::Hung(reason) => {
                    tracing::error!(reason, "proxy hangs");
                    self.recorder.note(now, "proxy-hung");
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
                        self.recorder.ends.kills(current.process.pid());
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

    fn examine(&self, silent: &[Thread]) -> (Instant, Vec<Finding>) {
        match &self.proxies.current {
            Some(current) => look_at(current.process.pid(), silent),
            None => (clock::now(), Vec::new()),
        }
    }
}

/// A look that takes longer doesn't show one moment: we got no CPU ourselves.
const LOOK_WITHIN: Duration = Duration::from_millis(25);

/// Looks at these threads and then at the others of the process; nothing when that took too long.
fn look_at(pid: i32, silent: &[Thread]) -> (Instant, Vec<Finding>) {
    let began = clock::now();
    let mut threads = silent.to_vec();
    // Of a process that has ended there is nothing to see.
    for tid in process::threads(pid, THREADS_MAX).unwrap_or_default() {
        let thread = match u32::try_from(tid) {
            Ok(_) if tid == pid => Thread::Control,
            Ok(tid) => Thread::Worker(tid),
            Err(_) => continue,
        };
        if !threads.contains(&thread) {
            threads.push(thread);
        }
    }
    threads.truncate(THREADS_MAX);
    let mut findings: Vec<Finding> = threads
        .iter()
        .filter_map(|thread| finding(*thread, pid))
        .collect();
    if clock::now().saturating_duration_since(began) > LOOK_WITHIN {
        findings.clear();
    }
    (began, findings)
}

fn finding(thread: Thread, pid: i32) -> Option<Finding> {
    let tid = match thread {
        Thread::Control => pid,
        Thread::Worker(tid) => i32::try_from(tid).ok()?,
    };
    let state = process::thread_state(pid, tid).ok()?;
    Some(Finding {
        thread,
        state: state.state,
        run_ns: state.run_ns,
        wait_ns: state.wait_ns,
    })
}

/// The looks at a silent proxy that is no supervisor's yet. Silence alone proves nothing: one that
/// gets no CPU must not be killed for it.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<Instant>,
    evidence: Evidence,
    starved: bool,
}

/// There is no such process any more.
pub(super) const ENDED: &str = "ended";

impl Looks {
    /// Why the process hangs, or [`ENDED`]; `None`: it may be starved of CPU, or that can't be told yet. To be
    /// called again after [`LOOK_SPACING`]; sooner, it doesn't look.
    pub(super) fn look(&mut self, now: Instant, pid: i32) -> Option<&'static str> {
        let last = self.last;
        if last.is_some_and(|at| now.saturating_duration_since(at) < LOOK_SPACING) {
            return None;
        }
        self.last = Some(now);
        if finding(Thread::Control, pid).is_none() {
            return Some(ENDED);
        }
        let (began, findings) = look_at(pid, &[Thread::Control]);
        self.judge(began, &findings)
    }

    fn judge(&mut self, now: Instant, findings: &[Finding]) -> Option<&'static str> {
        // It was silent before the first look.
        let silent = [(Thread::Control, Duration::MAX)];
        match self.evidence.judge(now, &silent, findings) {
            Verdict::Hung(reason) => return Some(reason),
            Verdict::Starved if !self.starved => {
                self.starved = true;
                tracing::warn!("proxy gets no processor time");
            }
            Verdict::Starved | Verdict::Open => {}
        }
        None
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
            let now = base + look * LOOK_SPACING;
            assert_eq!(looks.judge(now, &[found('R', 5, waited)]), None, "{look}");
        }
        assert!(looks.starved);
    }

    #[test]
    fn a_silent_proxy_that_sleeps_or_spins_is_called_hung_at_the_third_look() {
        for (state, ran, reason) in [
            ('S', 0, "asleep without progress"),
            ('R', 99, "busy without progress"),
        ] {
            let base = clock::now();
            let mut looks = Looks::default();
            assert_eq!(looks.judge(base, &[found(state, 0, 0)]), None);
            let second = looks.judge(base + LOOK_SPACING, &[found(state, ran, 1)]);
            assert_eq!(second, None);
            let third = looks.judge(base + 2 * LOOK_SPACING, &[found(state, 2 * ran, 1)]);
            assert_eq!(third, Some(reason));
            assert!(!looks.starved);
        }
    }

    #[test]
    fn every_thread_of_a_process_is_looked_at_and_the_silent_ones_first() {
        let (done, held) = std::sync::mpsc::sync_channel::<()>(0);
        let other = std::thread::spawn(move || held.recv());
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
        let silent = [Thread::Worker(own), Thread::Worker(u32::MAX)];
        let mut looks = std::iter::repeat_with(|| look_at(pid, &silent).1).take(100);
        let findings = looks.find(|look| !look.is_empty()).unwrap();
        assert_eq!(findings[0].thread, Thread::Worker(own));
        assert_eq!(findings[0].state, 'R');
        let is = |thread| {
            findings
                .iter()
                .filter(|found| found.thread == thread)
                .count()
        };
        assert_eq!(is(Thread::Worker(own)), 1);
        assert_eq!(is(Thread::Control), 1);
        assert!(findings.len() >= 3, "{findings:?}");
        drop(done);
        assert!(other.join().unwrap().is_err());
    }

    #[test]
    fn a_process_that_is_there_no_more_has_ended() {
        assert_eq!(Looks::default().look(clock::now(), 0), Some("ended"));
    }
}
