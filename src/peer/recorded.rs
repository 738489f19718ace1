//! What is made of the other nodes' word on this node's adverts, with its tape. Pure.

use std::time::Instant;

use serde::Serialize;

use super::oneway::{Look, OneWay};
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Size, Tape};
use crate::recorder::taped::Taped;

/// What shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    state: &'static str,
}

impl Recorded for OneWay {
    type Standing = Standing;

    fn standing(&self, _now: Instant) -> Standing {
        Standing {
            state: if self.is_unheard() {
                "unheard"
            } else {
                "heard"
            },
        }
    }
}

impl Replayed for OneWay {
    type Step = Look;
    type Answer = Option<bool>;

    fn play(&mut self, now: Instant, step: Look) -> Option<bool> {
        self.judge(now, &step)
    }
}

/// The judge of one router's adverts and what it was told.
#[derive(Debug)]
pub struct RecordedOneWay {
    one: Taped<OneWay>,
    /// Whether this node was Active at the last look, and whether there was a report.
    looked: Option<(bool, bool)>,
}

impl RecordedOneWay {
    /// With an empty tape.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            one: Taped::begin(OneWay::default(), Tape::of(Size::SMALL), now),
            looked: None,
        }
    }

    /// [`OneWay::judge`]. Each turn of the loop looks, so not every look is noted: those that are
    /// answered, and those at which a report has come or gone. Only an answer changes the judge.
    pub fn judge(&mut self, now: Instant, look: &Look) -> Option<bool> {
        let answer = self.one.machine_mut().judge(now, look);
        let looked = Some((look.active, look.word.is_some()));
        if answer.is_some() || looked != self.looked {
            self.looked = looked;
            self.one.note(now, look, &answer);
        }
        answer
    }

    /// The tape so far, its end at `now`.
    #[must_use]
    pub fn tape(&self, now: Instant) -> Vec<u8> {
        self.one.tape(now)
    }
}
