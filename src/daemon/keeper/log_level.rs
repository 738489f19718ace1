//! The log level that an operator asked for: in force here at once, in the proxy with the next
//! status, and given up when its time is over.

use std::time::{Duration, Instant};

use super::Keeper;
use crate::ipc::command::{LogLevel, LogState, Outcome, SetLog};
use crate::ipc::event::EventKind;
use crate::log::level::{self, COMPONENTS};

/// The longest time for which a level is taken: what lasts longer is better written in lb.toml.
const FOR_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is in force, where it is not what the configuration says.
#[derive(Debug, Default)]
pub(super) struct LogOverride {
    present: Option<Present>,
    /// How many there were: the proxy is to be told of each at once.
    changes: u64,
}

#[derive(Debug)]
struct Present {
    level: LogLevel,
    component: Option<String>,
    until: Option<Instant>,
}

impl Present {
    fn words(&self) -> String {
        match &self.component {
            Some(component) => format!("{} for {component}", self.level.word()),
            None => self.level.word().to_owned(),
        }
    }
}

impl LogOverride {
    /// For the status; `None`: as the configuration says.
    pub(super) fn state(&self, now: Instant) -> Option<LogState> {
        let present = self.present.as_ref()?;
        let left = present
            .until
            .map(|until| until.saturating_duration_since(now).as_millis());
        Some(LogState {
            level: present.level,
            configured: level::configured(),
            component: present.component.clone(),
            left_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
        })
    }

    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    fn words(&self) -> String {
        let configured = || level::configured().word().to_owned();
        self.present
            .as_ref()
            .map_or_else(configured, Present::words)
    }
}

impl Keeper {
    /// An operator's order.
    pub(super) fn set_log(&mut self, now: Instant, order: SetLog) -> Outcome {
        let by = order
            .uid
            .map_or_else(String::new, |uid| format!(" by user {uid}"));
        let length = order.for_ms.map(Duration::from_millis);
        if length.is_some_and(|length| length > FOR_MAX || length.is_zero()) {
            return Outcome::Refused("the time is 1 ms to 30 days".to_owned());
        }
        if let Some(component) = &order.component
            && !COMPONENTS.contains(&component.as_str())
        {
            let all = COMPONENTS.join(", ");
            return Outcome::Refused(format!("no component `{component}`; there are {all}"));
        }
        let reason = match length {
            Some(length) => format!("ordered{by} for {} s", length.as_secs()),
            None => format!("ordered{by}"),
        };
        let present = order.level.map(|level| Present {
            level,
            component: order.component,
            until: length.map(|length| now + length),
        });
        if let Err(why) = self.change_log(present, &reason) {
            return Outcome::Refused(why);
        }
        let configured = level::configured();
        Outcome::Log(self.log_override.state(now).unwrap_or(LogState {
            level: configured,
            configured,
            component: None,
            left_ms: None,
        }))
    }

    /// Gives it up when its time is over.
    pub(super) fn tick_log(&mut self, now: Instant) {
        let present = self.log_override.present.as_ref();
        let until = present.and_then(|present| present.until);
        if until.is_some_and(|until| now >= until)
            && let Err(error) = self.change_log(None, "its time is over")
        {
            tracing::error!(error, "log level stays");
        }
    }

    fn change_log(&mut self, present: Option<Present>, reason: &str) -> Result<(), String> {
        let from = self.log_override.words();
        let wanted = present.as_ref();
        let (level, component) = (
            wanted.map(|present| present.level),
            wanted.and_then(|present| present.component.as_deref()),
        );
        level::set(level, component)?;
        self.log_override.present = present;
        self.log_override.changes += 1;
        let to = self.log_override.words();
        tracing::warn!(from, to, reason, "log level changed");
        let change = Some((from.as_str(), to.as_str()));
        self.record(EventKind::Log, (None, None), change, reason);
        Ok(())
    }
}
