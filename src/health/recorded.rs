//! A server's health machine with its tape: whatever the machine is told goes through here, and the
//! tape has it. Between the check's task and who writes recordings. Pure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::fsm::{Change, Health, Machine, State};
use crate::recorder::blackbox::{BlackBox, SEATS};
use crate::recorder::replay::Replayed;
use crate::recorder::tape::{Recorded, Size, Tape};
use crate::recorder::time;

/// Tapes of one process. Servers beyond them are checked and not recorded.
const TAPES_MAX: usize = SEATS;

/// What a machine can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// [`Machine::on_result`].
    Result {
        /// What the probe found.
        found: Health,
        /// Why it was not ready.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        because: Option<String>,
        /// When the probe began.
        #[serde(with = "crate::recorder::time")]
        began: Instant,
    },
    /// [`Machine::skip`].
    Skip {
        /// Why the probe says nothing.
        because: String,
    },
}

/// What shows of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    state: &'static str,
    /// The counter, and where it turns.
    counter: (u16, u16),
    /// When the next probe is due, nanoseconds.
    due: i64,
}

impl Recorded for Machine {
    type Standing = Standing;

    fn standing(&self, _now: Instant) -> Standing {
        Standing {
            state: match self.state() {
                State::Unknown => "unknown",
                State::Known(health) => health.word(),
            },
            counter: self.counter(),
            due: time::nanos(self.deadline()),
        }
    }
}

impl Replayed for Machine {
    type Step = Step;
    type Answer = Option<Change>;

    fn play(&mut self, now: Instant, step: Step) -> Option<Change> {
        match step {
            Step::Result { found, .. } => self.on_result(found, now),
            Step::Skip { .. } => {
                self.skip(now);
                None
            }
        }
    }
}

/// Where tapes come from, a bounded number for each process.
#[derive(Debug, Clone, Default)]
pub struct Tapes {
    lent: Arc<()>,
    /// Memory that outlasts the process, if there is any.
    lasting: Option<BlackBox>,
}

/// A tape that counts as one while it is there.
#[derive(Debug)]
pub struct Loan {
    tape: Tape,
    _lent: Arc<()>,
}

impl Tapes {
    /// Tapes that outlast this process, where there is memory for that.
    #[must_use]
    pub fn within(lasting: Option<BlackBox>) -> Self {
        Self {
            lent: Arc::default(),
            lasting,
        }
    }

    /// An empty one, if there may be one more, for the machine of this name.
    #[must_use]
    pub fn lend(&self, name: &str) -> Option<Loan> {
        if Arc::strong_count(&self.lent) > TAPES_MAX {
            return None;
        }
        let seat = self.lasting.as_ref().and_then(|lasting| lasting.seat(name));
        let own = || Tape::of(Size::SMALL);
        Some(Loan {
            tape: seat.map_or_else(own, Tape::lasting),
            _lent: Arc::clone(&self.lent),
        })
    }
}

/// A machine and what it was told. Its copies are the same one.
#[derive(Debug, Clone)]
pub struct RecordedMachine(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    machine: Machine,
    loan: Option<Loan>,
    /// The time of the last step.
    last: Instant,
}

impl RecordedMachine {
    /// With a tape, if there is one left for it. One that was in use goes on.
    #[must_use]
    pub fn new(machine: Machine, mut loan: Option<Loan>, now: Instant) -> Self {
        if let Some(Loan { tape, .. }) = &mut loan {
            tape.begin(now, &machine);
        }
        Self(Arc::new(Mutex::new(Inner {
            machine,
            loan,
            last: now,
        })))
    }

    /// [`Machine::on_result`]; `because`: why it was not ready.
    pub fn on_result(
        &self,
        found: Health,
        because: Option<&str>,
        began: Instant,
        now: Instant,
    ) -> Option<Change> {
        let mut inner = self.inner();
        let change = inner.machine.on_result(found, now);
        inner.note(now, &change, || Step::Result {
            found,
            because: because.map(str::to_owned),
            began,
        });
        change
    }

    /// [`Machine::skip`].
    pub fn skip(&self, because: &str, now: Instant) {
        let mut inner = self.inner();
        inner.machine.skip(now);
        inner.note(now, &None, || Step::Skip {
            because: because.to_owned(),
        });
    }

    /// [`Machine::state`].
    #[must_use]
    pub fn state(&self) -> State {
        self.inner().machine.state()
    }

    /// [`Machine::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.inner().machine.deadline()
    }

    /// [`Machine::counter`].
    #[must_use]
    pub fn counter(&self) -> (u16, u16) {
        self.inner().machine.counter()
    }

    /// The tape so far, its end at `now`; `None`: there is none.
    #[must_use]
    pub fn tape(&self, now: Instant) -> Option<Vec<u8>> {
        let inner = self.inner();
        let loan = inner.loan.as_ref()?;
        Some(loan.tape.copy(now.max(inner.last), &inner.machine))
    }

    /// Whether there is a tape.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.inner().loan.is_some()
    }

    /// Takes the tape away, for the machine that goes on in this one's place.
    #[must_use]
    pub fn end(&self) -> Option<Loan> {
        self.inner().loan.take()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, now: Instant, change: &Option<Change>, step: impl FnOnce() -> Step) {
        self.last = self.last.max(now);
        let Self { machine, loan, .. } = self;
        if let Some(Loan { tape, .. }) = loan {
            tape.note(now, &step(), change, machine);
        }
    }
}
