//! What virtual routers track, with tapes: a script's machine, the numbers of files, the state of
//! interfaces. Pure.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::fsm::{Action, Input, Script};
use super::interfaces::{Event, Interfaces};
use super::verdict::Found;
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Size, Tape};
use crate::recorder::taped::Taped;
use crate::recorder::time;

/// What a script's machine can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptStep {
    /// [`Script::handle`].
    Input(Input),
    /// [`Script::count_from`].
    CountFrom(u64),
}

/// What shows of a script's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ScriptShown {
    state: &'static str,
    due: i64,
}

impl Recorded for Script {
    type Standing = ScriptShown;

    fn standing(&self, _now: Instant) -> ScriptShown {
        ScriptShown {
            state: word(self.verdict()),
            due: time::nanos(self.deadline()),
        }
    }
}

impl Replayed for Script {
    type Step = ScriptStep;
    type Answer = Vec<Action>;

    fn play(&mut self, now: Instant, step: ScriptStep) -> Vec<Action> {
        match step {
            ScriptStep::Input(input) => self.handle(now, input).into_iter().flatten().collect(),
            ScriptStep::CountFrom(runs) => {
                self.count_from(runs);
                Vec::new()
            }
        }
    }
}

const fn word(ok: Option<bool>) -> &'static str {
    match ok {
        None => "unknown",
        Some(true) => "ok",
        Some(false) => "failed",
    }
}

/// A script's machine and what it was told.
pub type RecordedScript = Taped<Script>;

impl Taped<Script> {
    /// With an empty tape.
    #[must_use]
    pub fn new(script: Script, now: Instant) -> Self {
        Self::begin(script, Tape::of(Size::SMALL), now)
    }

    /// [`Script::handle`].
    pub fn handle(&mut self, now: Instant, input: Input) -> [Option<Action>; 2] {
        let actions = self.machine_mut().handle(now, input);
        let step = ScriptStep::Input(input);
        let [first, second] = &actions;
        match (first, second) {
            (Some(first), Some(second)) => self.note(now, &step, &[first, second]),
            (Some(one), None) | (None, Some(one)) => self.note(now, &step, &[one]),
            (None, None) => self.note(now, &step, &NO_ACTION),
        }
        actions
    }

    /// [`Script::count_from`].
    pub fn count_from(&mut self, runs: u64) {
        self.machine_mut().count_from(runs);
        self.note_next(&ScriptStep::CountFrom(runs), &NO_ACTION);
    }
}

const NO_ACTION: [Action; 0] = [];

/// What a tracked file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    found: Option<Found>,
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// The number it holds.
    Number(i32),
    /// Why it cannot be read.
    Failed(String),
}

/// What shows of a file or of interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    state: &'static str,
}

impl File {
    /// It was read.
    pub fn read(&mut self, reading: &Reading) -> Found {
        let found = match reading {
            Reading::Number(number) => Found::Number(*number),
            Reading::Failed(_) => Found::Ok(false),
        };
        self.found = Some(found);
        found
    }
}

impl Recorded for File {
    type Standing = Shown;

    fn standing(&self, _now: Instant) -> Shown {
        Shown {
            state: word(self.found.map(Found::is_ok)),
        }
    }
}

impl Replayed for File {
    type Step = Reading;
    type Answer = Found;

    fn play(&mut self, _now: Instant, step: Reading) -> Found {
        self.read(&step)
    }
}

/// A file and what was read of it.
pub type RecordedFile = Taped<File>;

impl Taped<File> {
    /// With an empty tape; nothing is known yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::begin(File::default(), Tape::of(Size::SMALL), now)
    }

    /// [`File::read`].
    pub fn read(&mut self, now: Instant, reading: &Reading) -> Found {
        let found = self.machine_mut().read(reading);
        self.note(now, reading, &found);
        found
    }
}

impl Recorded for Interfaces {
    type Standing = Shown;

    fn standing(&self, _now: Instant) -> Shown {
        let down = self.ok().iter().any(|ok| *ok != Some(true));
        Shown {
            state: if down { "down" } else { "up" },
        }
    }
}

impl Replayed for Interfaces {
    type Step = Event;
    type Answer = Vec<Option<bool>>;

    fn play(&mut self, _now: Instant, step: Event) -> Vec<Option<bool>> {
        self.take(&step);
        self.ok().to_vec()
    }

    fn words(&self) -> String {
        self.down().collect::<Vec<_>>().join(", ")
    }
}

/// All tracked interfaces and what the kernel said of them.
pub type RecordedInterfaces = Taped<Interfaces>;

impl Taped<Interfaces> {
    /// With an empty tape.
    #[must_use]
    pub fn new(interfaces: Interfaces, now: Instant) -> Self {
        Self::begin(interfaces, Tape::of(Size::SMALL), now)
    }

    /// [`Interfaces::take`]; what makes no difference is not noted.
    pub fn take(&mut self, now: Instant, event: &Event) {
        if self.machine_mut().take(event) {
            let ok = self.ok().to_vec();
            self.note(now, event, &ok);
        }
    }
}
