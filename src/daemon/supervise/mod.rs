//! When is the proxy process alive, starved, hung or gone, and what follows. Pure: what happened
//! comes in with the time it happened; what to do goes out. The keeper's loop carries it out.
//!
//! ```text
//! Waiting ──start──▶ Starting ──first heartbeat──▶ Alive ◀──ticking again── Hung
//!    ▲                  │                            │  └─silent, no excuse─▶ │
//!    └────────────── ended (at once, or after a pause when crash-looping) ◀──┘ killed after 2 s
//! ```
//!
//! Silence alone proves nothing: a thread may be waiting for a CPU, or for one that does. So all
//! threads of a silent process are looked at in /proc. A stopped one is hung at the first verdict;
//! one that is blocked, asleep, or ran without coming round, when the next look finds it so again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

mod evidence;
pub mod recorded;
#[cfg(test)]
mod tests;

pub use evidence::{Evidence, Finding, Thread, Verdict};

/// A silent thread is looked at for the first time.
const SAMPLE_AFTER: Duration = Duration::from_millis(150);
/// A silent thread is judged. Heartbeats are due each 50 ms, worker ticks each 100 ms.
const JUDGE_AFTER: Duration = Duration::from_millis(250);
/// Between two looks at a process whose control thread is silent.
pub const LOOK_SPACING: Duration = Duration::from_millis(100);
/// Threads of one proxy that are watched; one that has or names more is not what it should be, and
/// must not have the keeper read /proc for each.
pub const THREADS_MAX: usize = 256;
/// Between two looks at workers that heartbeats call silent.
const EXAMINE_SPACING: Duration = Duration::from_millis(40);
/// A hung proxy is killed this long after the verdict.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// A proxy that has gone may be replaced for this long before the node counts as unable to serve.
const REPLACE_WITHIN: Duration = Duration::from_millis(250);
/// A node whose first proxy has said nothing for this long counts as unable to serve.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// A started process must send its first heartbeat within this time.
const START_WITHIN: Duration = Duration::from_secs(3);
/// More starts than this within [`LOOP_WINDOW`] are a crash loop.
const LOOP_STARTS: usize = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(10);
/// The pause before each start of a crash loop.
const LOOP_PAUSE: Duration = Duration::from_secs(1);
/// A proxy that has lived this long ends a crash loop.
const LOOP_OVER_AFTER: Duration = Duration::from_secs(5);
/// The keeper itself was late by this much: what it hasn't read yet isn't silence.
const OWN_LATENESS: Duration = Duration::from_millis(50);

/// What happened.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Input<'a> {
    /// A deadline passed.
    Tick,
    /// A running proxy was taken over from an earlier keeper.
    Adopted,
    /// A heartbeat; for each worker its thread and the milliseconds since it came round.
    Heartbeat(&'a [(u32, u32)]),
    /// The proxy has a verdict on its servers: it serves, or says that it can't.
    Served,
    /// The answer to [`Action::Examine`]; empty when the look took too long to show one moment.
    Examined(&'a [Finding]),
    /// The process has ended, or its socket has.
    Ended,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Start a proxy process.
    Start,
    /// Look at these threads, which are silent, and then at all others of the process, at most
    /// [`THREADS_MAX`] in all; answer at once with [`Input::Examined`].
    Examine(Vec<Thread>),
    /// The proxy hangs: log it. [`Supervisor::standing`] says what it means for the VIP.
    Hung(&'static str),
    /// The proxy came back to life.
    Recovered,
    /// The proxy, or a thread that it may wait for, is runnable and gets no CPU: warn and count.
    Starved,
    /// It keeps ending: the next start waits. Log it.
    Looping,
    /// Kill the process; if there is none, answer with [`Input::Ended`].
    Kill,
}

/// What the VIP may make of the proxy process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// No proxy of this keeper has spoken yet: the node doesn't know what it can do.
    Unknown,
    /// Serving, or being replaced within `REPLACE_WITHIN`.
    Fine,
    /// Not serving: hand the VIP off.
    Lost,
}

#[derive(Debug, Serialize, Deserialize)]
enum Phase {
    Waiting {
        #[serde(with = "crate::recorder::time")]
        start_at: Instant,
    },
    Starting {
        #[serde(with = "crate::recorder::time")]
        since: Instant,
    },
    Alive(Alive),
    Hung {
        #[serde(with = "crate::recorder::time::maybe")]
        kill_at: Option<Instant>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    #[serde(with = "crate::recorder::time")]
    heard: Instant,
    /// Each worker's silence at the last heartbeat.
    workers: Vec<(u32, Duration)>,
    /// What was seen of the process since a thread fell silent.
    evidence: Evidence,
    /// When to look again.
    #[serde(with = "crate::recorder::time::maybe")]
    look_at: Option<Instant>,
    /// The last look that a heartbeat led to.
    #[serde(with = "crate::recorder::time::maybe")]
    examined_at: Option<Instant>,
    starved: bool,
}

impl Alive {
    fn new(now: Instant) -> Self {
        Self {
            heard: now,
            workers: Vec::new(),
            evidence: Evidence::default(),
            look_at: None,
            examined_at: None,
            starved: false,
        }
    }

    /// Threads silent for at least `age`. The control thread speaks for the workers: how long they
    /// had been silent is known as of the last heartbeat.
    fn silent(&self, now: Instant, age: Duration) -> Vec<(Thread, Duration)> {
        let control = (Thread::Control, now.saturating_duration_since(self.heard));
        let workers = self.workers.iter();
        let workers = workers.map(|(tid, silence)| (Thread::Worker(*tid), *silence));
        let mut silent: Vec<_> = if control.1 >= SAMPLE_AFTER {
            vec![control]
        } else {
            workers.collect()
        };
        silent.retain(|(_, silence)| *silence >= age);
        silent
    }

    /// What to look at.
    fn examination(&self, now: Instant) -> Action {
        let silent = self.silent(now, SAMPLE_AFTER);
        Action::Examine(silent.into_iter().map(|(thread, _)| thread).collect())
    }

    fn deadline(&self) -> Instant {
        self.look_at.unwrap_or(self.heard + SAMPLE_AFTER)
    }
}

/// The judge of one proxy process after another.
#[derive(Debug, Serialize, Deserialize)]
pub struct Supervisor {
    #[serde(with = "crate::recorder::time")]
    began: Instant,
    phase: Phase,
    #[serde(with = "crate::recorder::time::list")]
    starts: VecDeque<Instant>,
    looping: bool,
    /// A verdict came from the present process.
    served: bool,
    /// When the last serving process went.
    #[serde(with = "crate::recorder::time::maybe")]
    lost_at: Option<Instant>,
    /// Processes started.
    #[serde(skip)]
    pub started: u32,
    /// Times a proxy was found starved.
    #[serde(skip)]
    pub starved: u64,
    /// Times a proxy was found hung.
    #[serde(skip)]
    pub hung: u64,
}

impl Supervisor {
    /// No process yet; the first start is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            phase: Phase::Waiting { start_at: now },
            starts: VecDeque::new(),
            looping: false,
            served: false,
            lost_at: None,
            started: 0,
            starved: 0,
            hung: 0,
        }
    }

    /// What the node may claim at `now`.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        if matches!(self.phase, Phase::Hung { .. }) || self.looping {
            return Standing::Lost;
        }
        if self.served {
            return Standing::Fine;
        }
        let in_time = |since: Instant, limit| now.saturating_duration_since(since) < limit;
        match self.lost_at {
            Some(lost) if in_time(lost, REPLACE_WITHIN) => Standing::Fine,
            Some(_) => Standing::Lost,
            None if in_time(self.began, FIRST_WITHIN) => Standing::Unknown,
            None => Standing::Lost,
        }
    }

    /// Whether the present process has a verdict on its servers.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served
    }

    /// Whether it is too late to wait for the first verdict on every server.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= FIRST_WITHIN
    }

    /// Its phase in a word.
    fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Waiting { .. } => "waiting",
            Phase::Starting { .. } => "starting",
            Phase::Alive(_) => "alive",
            Phase::Hung { .. } => "hung",
        }
    }

    /// When to call again: [`Input::Tick`] is due, or [`Supervisor::standing`] changes by itself.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting { start_at } => Some(*start_at),
            Phase::Starting { since } => Some(*since + START_WITHIN),
            Phase::Alive(alive) => Some(alive.deadline()),
            Phase::Hung { kill_at } => *kill_at,
        };
        let verdict = match (self.served, self.lost_at) {
            (true, _) => None,
            (false, Some(lost)) => Some(lost + REPLACE_WITHIN),
            (false, None) => Some(self.began + FIRST_WITHIN),
        };
        let verdict = verdict.filter(|at| *at > now);
        phase.into_iter().chain(verdict).min()
    }

    /// Takes one input; the verdict deadlines of [`Supervisor::standing`] pass by themselves.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Action> {
        match input {
            Input::Tick => self.tick(now),
            Input::Adopted => {
                self.phase = Phase::Alive(Alive::new(now));
                Vec::new()
            }
            Input::Heartbeat(workers) => self.heartbeat(now, workers),
            Input::Served => {
                self.served = true;
                self.lost_at = None;
                Vec::new()
            }
            Input::Examined(findings) => self.examined(now, findings),
            Input::Ended => self.ended(now),
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        match &mut self.phase {
            Phase::Waiting { start_at } if now >= *start_at => {
                self.starts.push_back(now);
                self.started += 1;
                self.phase = Phase::Starting { since: now };
                vec![Action::Start]
            }
            Phase::Starting { since } if now >= *since + START_WITHIN => {
                self.phase = Phase::Hung { kill_at: None };
                vec![Action::Kill]
            }
            Phase::Hung { kill_at } if kill_at.is_some_and(|at| now >= at) => {
                *kill_at = None;
                vec![Action::Kill]
            }
            Phase::Alive(alive) => {
                let due = alive.deadline();
                if now < due {
                    return Vec::new();
                }
                if now >= due + OWN_LATENESS {
                    alive.look_at = Some(now + OWN_LATENESS);
                    return Vec::new();
                }
                if alive.silent(now, SAMPLE_AFTER).is_empty() {
                    alive.evidence.acquit(true);
                    alive.look_at = None;
                    return Vec::new();
                }
                vec![alive.examination(now)]
            }
            Phase::Waiting { .. } | Phase::Starting { .. } | Phase::Hung { .. } => Vec::new(),
        }
    }

    fn heartbeat(&mut self, now: Instant, workers: &[(u32, u32)]) -> Vec<Action> {
        if self.looping && self.lived(now) {
            self.looping = false;
        }
        let silence = |(tid, ms): &(u32, u32)| (*tid, Duration::from_millis(u64::from(*ms)));
        let workers = workers.iter().take(THREADS_MAX);
        let workers: Vec<(u32, Duration)> = workers.map(silence).collect();
        let all_well = workers.iter().all(|(_, silence)| *silence < SAMPLE_AFTER);
        let was_hung = matches!(self.phase, Phase::Hung { .. });
        if was_hung && !all_well {
            return Vec::new();
        }
        if !matches!(self.phase, Phase::Alive(_)) {
            self.phase = Phase::Alive(Alive::new(now));
        }
        let Phase::Alive(alive) = &mut self.phase else {
            return Vec::new();
        };
        alive.heard = now;
        alive.workers = workers;
        alive.look_at = None;
        alive.evidence.acquit(all_well);
        if all_well {
            alive.starved = false;
        }
        match (was_hung, all_well) {
            (true, _) => vec![Action::Recovered],
            (false, true) => Vec::new(),
            (false, false) => {
                let last = alive.examined_at;
                if last.is_some_and(|at| now.saturating_duration_since(at) < EXAMINE_SPACING) {
                    return Vec::new();
                }
                alive.examined_at = Some(now);
                vec![alive.examination(now)]
            }
        }
    }

    fn lived(&self, now: Instant) -> bool {
        let last = self.starts.back();
        last.is_none_or(|start| now.saturating_duration_since(*start) >= LOOP_OVER_AFTER)
    }

    fn examined(&mut self, now: Instant, findings: &[Finding]) -> Vec<Action> {
        let Phase::Alive(alive) = &mut self.phase else {
            return Vec::new();
        };
        let judged = alive.silent(now, JUDGE_AFTER);
        if judged.is_empty() {
            // The first look stands until the verdict. For workers that is a later heartbeat.
            alive.evidence.note(now, findings, LOOK_SPACING);
            let control = now >= alive.heard + SAMPLE_AFTER;
            alive.look_at = control.then_some(alive.heard + JUDGE_AFTER);
            return Vec::new();
        }
        alive.look_at = Some(now + LOOK_SPACING);
        match alive.evidence.judge(now, &judged, findings) {
            Verdict::Hung(reason) => {
                self.hung += 1;
                self.phase = Phase::Hung {
                    kill_at: Some(now + KILL_AFTER),
                };
                vec![Action::Hung(reason)]
            }
            Verdict::Starved if !alive.starved => {
                alive.starved = true;
                self.starved += 1;
                vec![Action::Starved]
            }
            Verdict::Starved | Verdict::Open => Vec::new(),
        }
    }

    fn ended(&mut self, now: Instant) -> Vec<Action> {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return Vec::new();
        }
        if self.served {
            self.lost_at = Some(now);
            self.served = false;
        }
        while let Some(first) = self.starts.front() {
            if now.saturating_duration_since(*first) < LOOP_WINDOW {
                break;
            }
            self.starts.pop_front();
        }
        self.looping = self.starts.len() > LOOP_STARTS;
        let pause = if self.looping {
            LOOP_PAUSE
        } else {
            Duration::ZERO
        };
        self.phase = Phase::Waiting {
            start_at: now + pause,
        };
        let mut actions = self.tick(now);
        if self.looping {
            actions.push(Action::Looping);
        }
        actions
    }
}
