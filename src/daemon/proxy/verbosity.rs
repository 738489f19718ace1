//! The log level of this process: what the keeper says, and back when the time is over, also when
//! no keeper is there to say so.

use std::time::{Duration, Instant};

use crate::ipc::command::{LogLevel, LogState};
use crate::log::level;

/// What is in force, where it is not what the configuration says.
#[derive(Debug, Default)]
pub(super) struct Verbosity {
    present: Option<(LogLevel, Option<String>)>,
    until: Option<Instant>,
}

impl Verbosity {
    /// The keeper's present word.
    pub(super) fn follow(&mut self, said: Option<&LogState>, now: Instant) {
        let left = said.and_then(|said| said.left_ms);
        self.until = left.map(|left| now + Duration::from_millis(left));
        let wanted = said.map(|said| (said.level, said.component.clone()));
        self.change(wanted);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.until.take_if(|until| now >= *until).is_some() {
            self.change(None);
        }
    }

    fn change(&mut self, wanted: Option<(LogLevel, Option<String>)>) {
        if self.present == wanted {
            return;
        }
        let parts = wanted.as_ref();
        let (level, component) = (
            parts.map(|(level, _)| *level),
            parts.and_then(|(_, component)| component.as_deref()),
        );
        match level::set(level, component) {
            Ok(()) => self.present = wanted,
            Err(error) => tracing::debug!(error, "log level stays"),
        }
    }
}
