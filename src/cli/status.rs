//! `lbd status`: what this node is doing, from its admin socket; with `-w` again and again.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::reach::{FAILURE, Reach, complain};
use super::watch;
use crate::admin::protocol::ask_status;
use crate::admin::status::Status;
use crate::admin::{table, talkers};
use crate::config;

/// Of `--watch`.
const WATCH_MIN: Duration = Duration::from_millis(200);
const WATCH_MAX: Duration = Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  lbd status                  everything, once
  lbd status -w               again each second, until Ctrl-C
  lbd status -w 5s -o json    a JSON object a line, each five seconds
  lbd status --check          one line; exit code 1 when something is wrong
  lbd status --top            which clients have most connections (with `per-source`)

Exit codes: 0 answered, 1 something is wrong (--check), 69 no daemon, 77 not allowed, 78 the
configuration named can't be read.";

/// Arguments of `lbd status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: Reach,
    /// Print one line and exit 1 when something is wrong
    #[arg(long)]
    check: bool,
    /// Show the busiest client sources of each proxy with `per-source`
    #[arg(long, conflicts_with = "check")]
    top: bool,
    /// Ask again and again, each second or so often, until interrupted
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", value_parser = watch_time, conflicts_with = "check")]
    watch: Option<Duration>,
}

impl StatusArgs {
    /// Whether programs read it.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

fn watch_time(text: &str) -> Result<Duration, String> {
    match config::plain_duration(text) {
        Some(time) if (WATCH_MIN..=WATCH_MAX).contains(&time) => Ok(time),
        Some(_) => Err("from 200ms to 1h".to_owned()),
        None => Err("write a whole number and a unit: 500ms, 2s, 1m".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// For programs; the format is stable
    Json,
}

/// Asks, prints, and says with which code to exit: 0, 1 (also "something is wrong" with
/// `--check`), 69 (nobody answers), 77 (not allowed) or 78 (the configuration can't be read).
#[must_use]
pub fn run(args: &StatusArgs) -> u8 {
    let path = match args.reach.socket() {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    if let Some(every) = args.watch {
        return watch::run(&path, every, args);
    }
    let status = match ask_status(&path) {
        Ok(status) => status,
        Err(error) => return complain("lbd status", &error),
    };
    let Some(text) = text(&status, args) else {
        return FAILURE;
    };
    if super::out(&text).is_err() {
        return FAILURE;
    }
    verdict(&status, args.check)
}

/// How it is shown; `None`: it can't be. To programs that watch, each answer is a line.
pub(super) fn text(status: &Status, args: &StatusArgs) -> Option<String> {
    Some(match (args.output, args.check) {
        (Output::Json, _) if args.watch.is_some() => serde_json::to_string(status).ok()? + "\n",
        (Output::Json, _) => serde_json::to_string_pretty(status).ok()? + "\n",
        (Output::Table, true) => crate::log::escape(&status.headline) + "\n",
        (Output::Table, false) if args.top => talkers::render(status),
        (Output::Table, false) => table::render(status),
    })
}

fn verdict(status: &Status, check: bool) -> u8 {
    if check && !status.problems.is_empty() {
        FAILURE
    } else {
        0
    }
}
