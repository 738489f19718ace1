//! The election machine with its tape: whatever the machine is told goes through here, and the
//! tape has it. What decides in the machine is not touched. Pure.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fsm::{Action, Actions, Input, Machine, Settings, StandDown};
use crate::ipc::message::VrrpState;
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Tape};
use crate::recorder::taped::Taped;
use crate::recorder::time;
use crate::recorder::words::Words;

/// What a machine can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// [`Machine::handle`].
    Input(Input),
    /// [`Machine::set_cut_off`].
    CutOff(#[serde(with = "crate::recorder::words")] Words),
    /// [`Machine::adjust`].
    Adjust(Box<Settings>),
    /// [`Machine::set_recovery_delay`].
    RecoveryDelay(#[serde(with = "crate::recorder::time::span")] Duration),
    /// [`Machine::hold_back`].
    HoldBack(StandDown),
}

/// What shows of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    state: VrrpState,
    why: &'static str,
    /// Its priority in force.
    priority: u8,
    /// When it wants to be told that time has passed, nanoseconds.
    due: Option<i64>,
}

impl Recorded for Machine {
    type Standing = Standing;

    fn standing(&self, _now: Instant) -> Standing {
        Standing {
            state: self.state(),
            why: self.reason(),
            priority: self.effective_priority().get(),
            due: self.deadline().map(time::nanos),
        }
    }
}

impl Replayed for Machine {
    type Step = Step;
    type Answer = Vec<Action>;

    fn play(&mut self, now: Instant, step: Step) -> Vec<Action> {
        match step {
            Step::Input(input) => return self.handle(now, input).iter().collect(),
            Step::CutOff(reason) => self.set_cut_off(reason),
            Step::Adjust(settings) => self.adjust(*settings),
            Step::RecoveryDelay(delay) => self.set_recovery_delay(delay),
            Step::HoldBack(stand_down) => self.hold_back(stand_down),
        }
        Vec::new()
    }
}

/// A machine and what it was told.
pub type RecordedMachine = Taped<Machine>;

impl Taped<Machine> {
    /// [`Machine::new`] with an empty tape, which has all its memory from here on.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self::begin(Machine::new(settings, now), Tape::new(), now)
    }

    /// [`Machine::handle`].
    pub fn handle(&mut self, now: Instant, input: Input) -> Actions {
        let answer = self.machine_mut().handle(now, input);
        self.note(now, &Step::Input(input), &answer);
        answer
    }

    /// [`Machine::set_cut_off`].
    pub fn set_cut_off(&mut self, reason: &'static str) {
        self.machine_mut().set_cut_off(reason);
        self.unanswered(&Step::CutOff(reason));
    }

    /// [`Machine::adjust`].
    pub fn adjust(&mut self, settings: Settings) {
        self.machine_mut().adjust(settings.clone());
        self.unanswered(&Step::Adjust(Box::new(settings)));
    }

    /// [`Machine::set_recovery_delay`].
    pub fn set_recovery_delay(&mut self, delay: Duration) {
        self.machine_mut().set_recovery_delay(delay);
        self.unanswered(&Step::RecoveryDelay(delay));
    }

    /// [`Machine::hold_back`].
    pub fn hold_back(&mut self, stand_down: StandDown) {
        self.machine_mut().hold_back(stand_down);
        self.unanswered(&Step::HoldBack(stand_down));
    }

    fn unanswered(&mut self, step: &Step) {
        let none: [Action; 0] = [];
        self.note_next(step, &none);
    }
}
