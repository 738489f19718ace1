//! A machine together with its tape. What a machine can be told stands beside the machine; each of
//! those ways leads through here, so that the tape has it. Pure.

use std::ops::Deref;
use std::time::Instant;

use serde::Serialize;

use super::tape::{Recorded, Tape};

/// A machine and what it was told.
#[derive(Debug)]
pub struct Taped<M> {
    machine: M,
    tape: Tape,
    /// The time of the last step: what comes without a time of its own is noted then.
    last: Instant,
}

impl<M> Deref for Taped<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M: Recorded> Taped<M> {
    /// The machine as it is, on `tape`; one that was in use goes on.
    pub(crate) fn begin(machine: M, mut tape: Tape, now: Instant) -> Self {
        tape.begin(now, &machine);
        Self {
            machine,
            tape,
            last: now,
        }
    }

    /// The machine, to be told something that is noted next, or decides nothing.
    pub(crate) const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// `now`, or the time of the last step if that is later.
    pub(crate) fn not_before_last(&self, now: Instant) -> Instant {
        now.max(self.last)
    }

    /// It was told `step` at `now`, and answered.
    pub(crate) fn note(&mut self, now: Instant, step: &impl Serialize, answer: &impl Serialize) {
        self.last = self.last.max(now);
        self.note_next(step, answer);
    }

    /// It was told `step`, which has no time of its own.
    pub(crate) fn note_next(&mut self, step: &impl Serialize, answer: &impl Serialize) {
        self.tape.note(self.last, step, answer, &self.machine);
    }

    /// The tape so far, its end at `now`.
    #[must_use]
    pub fn tape(&self, now: Instant) -> Vec<u8> {
        self.tape.copy(now.max(self.last), &self.machine)
    }

    /// The tape, for the machine that goes on in this one's place.
    #[must_use]
    pub fn into_tape(self) -> Tape {
        self.tape
    }
}
