//! Feeds a recorded machine again, by the very same code, and says where it answers otherwise than
//! it did. Pure.

use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file::Machine;
use super::tape::{ReadLine, Recorded};
use super::time;

/// A machine that can be told again what it was told.
pub trait Replayed: Recorded + DeserializeOwned {
    /// As it stands on a tape.
    type Step: DeserializeOwned;
    /// As it stands on a tape.
    type Answer: Serialize;

    /// Takes the step as the daemon does.
    fn play(&mut self, now: Instant, step: Self::Step) -> Self::Answer;

    /// How it stands, for people, where that says more than what shows of it.
    fn words(&self) -> String {
        String::new()
    }

    /// What its inputs are called, where they come by position.
    fn names(&self) -> Option<Vec<String>> {
        None
    }
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// When, nanoseconds in the recording's time.
    pub t: i64,
    /// The line of the file.
    pub line: usize,
    /// What the machine was told; `None`: its state is compared as a whole.
    #[serde(rename = "in")]
    pub told: Option<Value>,
    /// What it answers.
    #[serde(rename = "out")]
    pub answer: Value,
    /// How it stands after that.
    #[serde(rename = "is")]
    pub standing: Value,
    /// More of that, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// What inputs that come by position are called, where its state is told.
    #[serde(skip)]
    pub names: Option<Vec<String>>,
    /// What was recorded where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Value>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Timeline {
    /// In the order of time.
    pub steps: Vec<Step>,
    /// Steps taken.
    pub told: usize,
    /// Of all steps and states, how many are not as recorded.
    pub differences: usize,
}

/// Why a machine can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line that this machine has no meaning for.
    #[error("line {line}: the {what} makes no sense to this machine")]
    Meaning {
        /// Its number.
        line: usize,
        /// `state`, `step`.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line out of its place.
    #[error("line {line}: {what}")]
    Place {
        /// Its number.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// Replays one machine.
///
/// # Errors
/// [`ReplayError`].
pub fn replay<M: Replayed>(recorded: &Machine) -> Result<Timeline, ReplayError> {
    let mut machine: Option<M> = None;
    let mut timeline = Timeline::default();
    let mut last = i64::MIN;
    if time::instant(recorded.base).is_none() {
        let line = recorded.lines.first().map_or(0, |(line, _)| *line);
        let what = "a time beyond all bounds";
        return Err(ReplayError::Place { line, what });
    }
    for (line, read) in &recorded.lines {
        let place = |what| ReplayError::Place { line: *line, what };
        if read.t < last {
            return Err(place("earlier than the line before it"));
        }
        last = read.t;
        match (&read.machine, &read.step, &mut machine) {
            (Some(state), None, known) => {
                take_state(*line, read, state, known, &mut timeline)?;
            }
            (None, Some(step), Some(known)) => {
                let now = time::instant(read.t).ok_or_else(|| place("a time beyond all bounds"))?;
                take_step(*line, now, (read, step), known, &mut timeline)?;
            }
            (None, Some(_), None) => return Err(place("a step before the first state")),
            (Some(_), Some(_), _) | (None, None, _) => {
                return Err(place("neither a state nor a step"));
            }
        }
    }
    for step in &mut timeline.steps {
        step.t = step.t.saturating_add(recorded.base);
    }
    Ok(timeline)
}

fn meaning(line: usize, what: &'static str) -> impl Fn(serde_json::Error) -> ReplayError {
    move |source| ReplayError::Meaning { line, what, source }
}

fn take_state<M: Replayed>(
    line: usize,
    read: &ReadLine,
    state: &Value,
    known: &mut Option<M>,
    timeline: &mut Timeline,
) -> Result<(), ReplayError> {
    let meaning = meaning(line, "state");
    let parsed: M = serde_json::from_value(state.clone()).map_err(&meaning)?;
    let found = serde_json::to_value(&parsed).map_err(&meaning)?;
    let now = time::instant(read.t).ok_or(ReplayError::Place {
        line,
        what: "a time beyond all bounds",
    })?;
    let standing = serde_json::to_value(parsed.standing(now)).map_err(&meaning)?;
    let own = match known.as_ref().filter(|_| !read.gap) {
        Some(own) => serde_json::to_value(own).map_err(&meaning)?,
        None => found.clone(),
    };
    let differs = own != found;
    timeline.differences += usize::from(differs);
    timeline.steps.push(Step {
        t: read.t,
        line,
        told: None,
        answer: Value::Null,
        standing,
        words: parsed.words(),
        names: parsed.names(),
        recorded: differs.then(|| state.clone()),
    });
    *known = Some(parsed);
    Ok(())
}

fn take_step<M: Replayed>(
    line: usize,
    now: Instant,
    (read, step): (&ReadLine, &Value),
    known: &mut M,
    timeline: &mut Timeline,
) -> Result<(), ReplayError> {
    let told = serde_json::from_value(step.clone()).map_err(meaning(line, "step"))?;
    let answer = known.play(now, told);
    let answer = serde_json::to_value(answer).map_err(meaning(line, "answer"))?;
    let standing = serde_json::to_value(known.standing(now)).map_err(meaning(line, "state"))?;
    let recorded = (
        read.answer.clone().unwrap_or_default(),
        read.standing.clone().unwrap_or_default(),
    );
    let differs = recorded.0 != answer || recorded.1 != standing;
    timeline.told += 1;
    timeline.differences += usize::from(differs);
    timeline.steps.push(Step {
        t: read.t,
        line,
        told: Some(step.clone()),
        answer,
        standing,
        words: known.words(),
        names: None,
        recorded: differs.then(|| Value::Array(vec![recorded.0, recorded.1])),
    });
    Ok(())
}
