//! The supervisor with its tape: whatever it is told goes through here, and the tape has it. Pure.

use std::ops::Deref;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Action, Finding, Input, Standing, Supervisor};
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Tape};
use crate::recorder::time;

/// [`Input`] as a reader has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Step {
    /// [`Input::Tick`].
    Tick,
    /// [`Input::Adopted`].
    Adopted,
    /// [`Input::Heartbeat`].
    Heartbeat(Vec<(u32, u32)>),
    /// [`Input::Served`].
    Served,
    /// [`Input::Examined`].
    Examined(Vec<Finding>),
    /// [`Input::Ended`].
    Ended,
}

/// What shows of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its phase.
    state: &'static str,
    /// What the VIP may make of it.
    why: &'static str,
    due: Option<i64>,
}

impl Recorded for Supervisor {
    type Standing = Shown;

    fn standing(&self, now: Instant) -> Shown {
        Shown {
            state: self.phase(),
            why: match Self::standing(self, now) {
                Standing::Unknown => "not known yet",
                Standing::Fine => "serving",
                Standing::Lost => "not serving",
            },
            due: self.deadline(now).map(time::nanos),
        }
    }
}

impl Replayed for Supervisor {
    type Step = Step;
    type Answer = Vec<Action>;

    fn play(&mut self, now: Instant, step: Step) -> Vec<Action> {
        let input = match &step {
            Step::Tick => Input::Tick,
            Step::Adopted => Input::Adopted,
            Step::Heartbeat(workers) => Input::Heartbeat(workers),
            Step::Served => Input::Served,
            Step::Examined(findings) => Input::Examined(findings),
            Step::Ended => Input::Ended,
        };
        self.handle(now, input)
    }
}

/// A supervisor and what it was told.
#[derive(Debug)]
pub struct RecordedSupervisor {
    supervisor: Supervisor,
    tape: Tape,
    last: Instant,
}

impl Deref for RecordedSupervisor {
    type Target = Supervisor;

    fn deref(&self) -> &Supervisor {
        &self.supervisor
    }
}

impl RecordedSupervisor {
    /// [`Supervisor::new`] with an empty tape.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let supervisor = Supervisor::new(now);
        let mut tape = Tape::new();
        tape.begin(now, &supervisor);
        Self {
            supervisor,
            tape,
            last: now,
        }
    }

    /// [`Supervisor::handle`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Action> {
        let actions = self.supervisor.handle(now, input);
        self.last = self.last.max(now);
        self.tape.note(now, &input, &actions, &self.supervisor);
        actions
    }

    /// The counters go on from a previous program's: started, starved, hung. They decide nothing.
    pub fn count_on_from(&mut self, (started, starved, hung): (u32, u64, u64)) {
        self.supervisor.started = started;
        self.supervisor.starved = starved;
        self.supervisor.hung = hung;
    }

    /// One was started that is not its to watch yet.
    pub fn count_start(&mut self) {
        self.supervisor.started = self.supervisor.started.saturating_add(1);
    }

    /// The tape so far, its end at `now`.
    #[must_use]
    pub fn tape(&self, now: Instant) -> Vec<u8> {
        self.tape.copy(now.max(self.last), &self.supervisor)
    }
}
