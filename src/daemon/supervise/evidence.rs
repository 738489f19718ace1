//! What looks at a silent process prove. Pure: the findings come in, a verdict goes out.
//!
//! A thread that is stopped or has ended is seen to be so at one look. Everything else is judged by
//! what happened between two looks, and must be found twice in a row, so three looks: one may fall
//! on the moment at which the waiting for a CPU ends, or be led to by a heartbeat read too late.
//!
//! Asleep or blocked proves nothing while any thread of the process gets no CPU: that one may hold
//! what the silent one waits for. The kernel's locks of a process are such (its memory map while
//! another thread takes a page fault, its table of descriptors while another has it enlarged), and
//! whoever waits for them waits in state D, without its time of waiting for a CPU growing.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::recorder::words::Words;

/// How long a thread must have been silent at a look that speaks against it: a healthy one sleeps
/// between its heartbeats or ticks.
const SILENT_FOR: Duration = Duration::from_millis(100);

/// What /proc says about one thread; a thread that has ended has no finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The thread.
    pub thread: Thread,
    /// State letter of proc(5).
    pub state: char,
    /// Nanoseconds on a CPU so far.
    pub run_ns: u64,
    /// Nanoseconds waited for a CPU so far. The kernel adds a wait when it is over: it doesn't grow
    /// while the thread waits.
    pub wait_ns: u64,
}

impl Finding {
    /// Whether it waited for a CPU for at least half the time since that look.
    fn is_starved(&self, before: &Self, window: Duration) -> bool {
        let waited = self.wait_ns.saturating_sub(before.wait_ns);
        if is_half(waited, window) {
            return true;
        }
        // Still the same wait: it had no CPU at all. One that never ran holds nothing, and a kernel
        // that doesn't count says zero.
        let queued = self.state == 'R' && before.state == 'R' && self.run_ns > 0;
        queued && waited == 0 && self.run_ns == before.run_ns
    }
}

fn is_half(part_ns: u64, whole: Duration) -> bool {
    u128::from(part_ns) * 2 >= whole.as_nanos()
}

/// A thread of the proxy process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thread {
    /// The control thread, which sends the heartbeats.
    Control,
    /// A worker, or whatever other thread there is, by thread id.
    Worker(u32),
}

/// What is known of the silent threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of them hangs, and why.
    Hung(&'static str),
    /// One of them gets no CPU, or may wait for a thread that gets none.
    Starved,
    /// It can't be told yet.
    Open,
}

/// The last look, and whom it spoke against.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Evidence {
    #[serde(with = "crate::recorder::time::since")]
    last: Option<(Instant, Vec<Finding>)>,
    #[serde(with = "crate::recorder::words::list")]
    suspects: Vec<(Thread, Words)>,
}

impl Evidence {
    /// A look before there is anything to judge. An earlier one stands as long as it is younger
    /// than `keep`.
    pub fn note(&mut self, now: Instant, findings: &[Finding], keep: Duration) {
        self.suspects.clear();
        let kept = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) < keep;
        if !self.last.as_ref().is_some_and(kept) {
            self.last = Some((now, findings.to_vec()));
        }
    }

    /// A look at all threads of a process of which these have been silent for so long.
    pub fn judge(
        &mut self,
        now: Instant,
        silent: &[(Thread, Duration)],
        findings: &[Finding],
    ) -> Verdict {
        let last = self.last.replace((now, findings.to_vec()));
        let before = std::mem::take(&mut self.suspects);
        let mut verdict = Verdict::Open;
        for (thread, silence) in silent {
            let Some(found) = findings.iter().find(|found| found.thread == *thread) else {
                continue;
            };
            let since = last.as_ref().and_then(|(at, findings)| {
                let window = now.saturating_duration_since(*at);
                (window + SILENT_FOR <= *silence).then_some((window, findings.as_slice()))
            });
            match found.state {
                'T' | 't' => return Verdict::Hung("stopped"),
                'X' | 'Z' => return Verdict::Hung("ended"),
                _ => {}
            }
            let Some((window, earlier)) = since else {
                continue;
            };
            match weigh(found, findings, earlier, window) {
                Weight::Against(reason) => self.suspects.push((*thread, reason)),
                Weight::Excused => verdict = Verdict::Starved,
                Weight::None => {}
            }
        }
        let again = self.suspects.iter().find(|now| before.contains(now));
        again.map_or(verdict, |(_, reason)| Verdict::Hung(reason))
    }

    /// The silence is over: for all, or (a heartbeat came) for the control thread.
    pub fn acquit(&mut self, all: bool) {
        if all {
            *self = Self::default();
        }
        let others = |(thread, _): &(Thread, _)| *thread != Thread::Control;
        self.suspects.retain(others);
    }
}

/// What two looks say about one silent thread.
enum Weight {
    Against(&'static str),
    Excused,
    None,
}

fn weigh(found: &Finding, all: &[Finding], earlier: &[Finding], window: Duration) -> Weight {
    let earlier_of = |thread| earlier.iter().find(|other| other.thread == thread);
    let Some(before) = earlier_of(found.thread) else {
        return Weight::None;
    };
    if found.state == 'R' {
        let ran = found.run_ns.saturating_sub(before.run_ns);
        return if is_half(ran, window) {
            Weight::Against("busy without progress")
        } else {
            Weight::Excused
        };
    }
    let starved =
        |one: &Finding| earlier_of(one.thread).is_some_and(|before| one.is_starved(before, window));
    match (found.state, before.state) {
        _ if all.iter().any(starved) => Weight::Excused,
        // It has run since, and may have work yet.
        (_, 'R') => Weight::None,
        ('D', _) => Weight::Against("blocked in the kernel"),
        _ => Weight::Against("asleep without progress"),
    }
}
