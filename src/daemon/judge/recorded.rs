//! A judge with its tape: what is new at a look goes through here, and the tape has it. It takes no
//! memory after it was made. Pure.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Judge, Look, Seen};
use crate::daemon::supervise::Standing;
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Size, Tape};
use crate::recorder::taped::Taped;
use crate::recorder::time;
use crate::vrrp::fsm::NodeHealth;

/// [`Look`] as a reader has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    proxy: Standing,
    holds: bool,
    tracks: Vec<Seen>,
}

/// What shows of a judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// What the node may claim, in a word.
    state: &'static str,
    /// What its priority gains or loses.
    weight: i32,
    /// When that may change by itself.
    due: Option<i64>,
}

impl Recorded for Judge {
    type Standing = Shown;

    fn standing(&self, _now: Instant) -> Shown {
        let answer = self.answer();
        Shown {
            state: match answer {
                None => "unknown",
                Some(NodeHealth { known: false, .. }) => "unknown",
                Some(NodeHealth {
                    can_serve: true, ..
                }) => "can-serve",
                Some(NodeHealth { .. }) => "cannot-serve",
            },
            weight: answer.map_or(0, |answer| answer.weight),
            due: self.deadline().map(time::nanos),
        }
    }
}

impl Replayed for Judge {
    type Step = Step;
    type Answer = NodeHealth;

    fn play(&mut self, now: Instant, step: Step) -> NodeHealth {
        self.look(
            now,
            &Look {
                proxy: step.proxy,
                holds: step.holds,
                tracks: &step.tracks,
            },
        )
    }

    fn words(&self) -> String {
        self.complaints()
    }

    fn names(&self) -> Option<Vec<String>> {
        let all = self.tracks.iter();
        Some(all.map(|track| track.name.clone()).collect())
    }
}

/// A judge and what it was told.
pub type RecordedJudge = Taped<Judge>;

impl Taped<Judge> {
    /// With a tape; one that was in use goes on.
    #[must_use]
    pub fn new(judge: Judge, tape: Option<Tape>, now: Instant) -> Self {
        Self::begin(judge, tape.unwrap_or_else(|| Tape::of(Size::MEDIUM)), now)
    }

    /// [`Judge::look`]. Noted is only what may change something: [`Judge::same`].
    pub fn look(&mut self, now: Instant, look: &Look<'_>) -> NodeHealth {
        if let Some(same) = self.same(now, look) {
            return same;
        }
        let answer = self.machine_mut().look(now, look);
        self.note(now, look, &answer);
        answer
    }
}
