//! `lbd log`: more or fewer messages for a while, without a restart.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::reach::{FAILURE, Reach, complain};
use super::status::Output;
use super::{out, talk};
use crate::admin::protocol::{Command, order};
use crate::admin::table::log_words;
use crate::config;
use crate::ipc::command::{LogLevel, Outcome, SetLog};
use crate::log::level::COMPONENTS;

/// The daemon answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
The level holds for keeper and proxy until another order, until --for is over, or until the daemon is
restarted; `lbd status` shows it. The access log has no level.

Examples:
  lbd log debug --for 10m                     everything, for ten minutes
  lbd log debug --component health --for 1h   each check, and all else as configured
  lbd log warning                             until another order
  lbd log --reset                             as the configuration says

Exit codes: 0 done, 1 not done, 2 usage, 69 no daemon, 77 not root or the daemon's user.";

/// Arguments of `lbd log`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogArgs {
    /// The least severe message that is logged
    #[arg(value_name = "LEVEL", value_enum, required_unless_present = "reset")]
    level: Option<Level>,
    /// For so long, e.g. 10m; afterwards as the configuration says
    #[arg(long = "for", value_name = "TIME", value_parser = time, requires = "level")]
    length: Option<Duration>,
    /// Of this component alone
    #[arg(long, value_name = "NAME", value_parser = COMPONENTS, requires = "level")]
    component: Option<String>,
    /// Log as the configuration says
    #[arg(long, conflicts_with = "level")]
    reset: bool,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Service lost
    Error,
    /// Degraded
    #[value(alias = "warn")]
    Warning,
    /// One line for each transition
    #[value(alias = "notice")]
    Info,
    /// For each connection and check
    Debug,
    /// For each packet
    Trace,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warning => Self::Warning,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match config::plain_duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) | None => Err("a time with its unit, e.g. `10m`".to_owned()),
    }
}

/// Gives the order. Exit codes: 0, 1, 69 or 77.
#[must_use]
pub(super) fn run(args: &LogArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let set = SetLog {
        level: args.level.map(LogLevel::from),
        component: args.component.clone(),
        for_ms: args.length.map(millis),
        uid: None,
    };
    let outcome = match order(&path, Command::Log(set), PATIENCE) {
        Ok(outcome) => outcome,
        Err(error) => return complain("lbd log", &error),
    };
    let state = match outcome {
        Outcome::Log(state) => state,
        Outcome::Refused(why) => {
            talk(&format!("lbd log: refused: {}", crate::log::escape(&why)));
            return FAILURE;
        }
        Outcome::Unknown(why) => {
            talk(&format!("lbd log: {}", crate::log::escape(&why)));
            return FAILURE;
        }
        Outcome::Vips(_) | Outcome::Reload(_) | Outcome::Upgrading(_) | Outcome::Recorded(_) => {
            talk("lbd log: the daemon answers another question");
            return FAILURE;
        }
    };
    let text = match args.output {
        Output::Table => log_words(&state) + "\n",
        Output::Json => match serde_json::to_string(&state) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
    };
    out(&text).map_or(FAILURE, |()| 0)
}
