//! Which messages are logged: the level of the configuration, and one that an operator asked for
//! at run time, for all components or for one.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::config::model::Level;
use crate::ipc::command::LogLevel;

/// The components whose level may be set by itself: lbd's own modules.
pub const COMPONENTS: [&str; 10] = [
    "admin",
    "config",
    "daemon",
    "discovery",
    "health",
    "net",
    "peer",
    "proxy",
    "track",
    "vrrp",
];

static PRESENT: OnceLock<Present> = OnceLock::new();

/// The filter in force, and what it follows from.
#[derive(Debug)]
struct Present {
    handle: reload::Handle<Targets, Registry>,
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Clone)]
struct Wanted {
    configured: Level,
    /// What an operator asked for, of one component or of all.
    ordered: Option<(Level, Option<String>)>,
}

impl Wanted {
    fn targets(&self) -> Targets {
        match &self.ordered {
            None => targets(self.configured, None),
            Some((level, None)) => targets(*level, None),
            Some((level, Some(component))) => targets(self.configured, Some((component, *level))),
        }
    }
}

/// The filter of a process that begins with `level`; the first one can be changed later.
pub(super) fn filter(level: Level) -> reload::Layer<Targets, Registry> {
    let (filter, handle) = reload::Layer::new(targets(level, None));
    let wanted = Wanted {
        configured: level,
        ordered: None,
    };
    let present = Present {
        handle,
        wanted: Mutex::new(wanted),
    };
    if PRESENT.set(present).is_err() {
        // A process logs to one place; `init` says so.
    }
    filter
}

/// Logs at `level` from now on, of one component if it is named; `None`: as configured.
///
/// # Errors
/// Why the level stays as it is.
pub fn set(level: Option<LogLevel>, component: Option<&str>) -> Result<(), String> {
    let ordered = level.map(|level| (level.into(), component.map(str::to_owned)));
    change(|wanted| wanted.ordered = ordered)
}

/// The configuration has this level from now on; what an operator asked for stays.
///
/// # Errors
/// Why the level stays as it is.
pub fn configure(level: Level) -> Result<(), String> {
    change(|wanted| wanted.configured = level)
}

fn change(change: impl FnOnce(&mut Wanted)) -> Result<(), String> {
    let Some(present) = PRESENT.get() else {
        return Err("nothing is logged in this process".to_owned());
    };
    let mut wanted = present
        .wanted
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut next = wanted.clone();
    change(&mut next);
    let filter = next.targets();
    present
        .handle
        .reload(filter)
        .map_err(|error| error.to_string())?;
    *wanted = next;
    Ok(())
}

/// The level of the configuration.
#[must_use]
pub fn configured() -> LogLevel {
    let wanted = PRESENT.get().map(|present| &present.wanted);
    wanted.map_or(LogLevel::Info, |wanted| {
        let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match wanted.configured {
            Level::Error => LogLevel::Error,
            Level::Warning => LogLevel::Warning,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
            Level::Trace => LogLevel::Trace,
        }
    })
}

fn targets(level: Level, apart: Option<(&str, Level)>) -> Targets {
    let ours = level_filter(level);
    let all = Targets::new()
        .with_target("lbd", ours)
        .with_default(ours.min(LevelFilter::WARN));
    match apart {
        None => all,
        Some((component, level)) => {
            all.with_target(format!("lbd::{component}"), level_filter(level))
        }
    }
}

fn level_filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warning => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warning => Self::Warning,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level as TracingLevel;

    #[test]
    fn one_component_may_say_more_than_the_others() {
        let filter = targets(Level::Warning, Some(("health", Level::Debug)));
        let enabled = |target, level| filter.would_enable(target, &level);
        assert!(enabled("lbd::health::task", TracingLevel::DEBUG));
        assert!(!enabled("lbd::health::task", TracingLevel::TRACE));
        assert!(!enabled("lbd::proxy::worker", TracingLevel::INFO));
        assert!(enabled("lbd::proxy::worker", TracingLevel::WARN));
        assert!(!enabled("rustls::client", TracingLevel::INFO));
    }

    #[test]
    fn what_an_operator_ordered_outlives_another_configuration() {
        let mut wanted = Wanted {
            configured: Level::Info,
            ordered: Some((Level::Debug, Some("health".to_owned()))),
        };
        let enabled =
            |wanted: &Wanted, target, level| wanted.targets().would_enable(target, &level);
        assert!(enabled(&wanted, "lbd::vrrp", TracingLevel::INFO));
        wanted.configured = Level::Error;
        assert!(!enabled(&wanted, "lbd::vrrp", TracingLevel::INFO));
        assert!(enabled(&wanted, "lbd::health", TracingLevel::DEBUG));
        wanted.ordered = None;
        assert!(!enabled(&wanted, "lbd::health", TracingLevel::DEBUG));
        assert!(enabled(&wanted, "lbd::health", TracingLevel::ERROR));
    }

    #[test]
    fn others_libraries_say_warnings_at_most() {
        let filter = targets(Level::Trace, None);
        assert!(filter.would_enable("lbd::vrrp", &TracingLevel::TRACE));
        assert!(!filter.would_enable("hyper::proto", &TracingLevel::INFO));
        let filter = targets(Level::Error, None);
        assert!(!filter.would_enable("hyper::proto", &TracingLevel::WARN));
    }
}
