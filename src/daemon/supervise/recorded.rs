//! The supervisor with its tape: whatever it is told goes through here, and the tape has it. Pure.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Action, Finding, Input, Standing, Supervisor};
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Tape};
use crate::recorder::taped::Taped;
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
pub type RecordedSupervisor = Taped<Supervisor>;

impl Taped<Supervisor> {
    /// [`Supervisor::new`] with an empty tape.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::begin(Supervisor::new(now), Tape::new(), now)
    }

    /// [`Supervisor::handle`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Action> {
        // An examination comes with the time it took place; what the loop has to tell of the same turn
        // comes with the time that began. For the machine as for its tape time does not go back.
        let now = self.not_before_last(now);
        let actions = self.machine_mut().handle(now, input);
        self.note(now, &input, &actions);
        actions
    }

    /// The counters go on from a previous program's: started, starved, hung. They decide nothing.
    pub fn count_on_from(&mut self, (started, starved, hung): (u32, u64, u64)) {
        let supervisor = self.machine_mut();
        supervisor.started = started;
        supervisor.starved = starved;
        supervisor.hung = hung;
    }

    /// One was started that is not its to watch yet.
    pub fn count_start(&mut self) {
        let supervisor = self.machine_mut();
        supervisor.started = supervisor.started.saturating_add(1);
    }
}
