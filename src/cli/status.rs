//! `lbd status`: what this node is doing, from its admin socket.

use clap::{Args, ValueEnum};

use super::reach::{FAILURE, Reach, complain};
use crate::admin::protocol::ask_status;
use crate::admin::status::Status;
use crate::admin::{table, talkers};

/// Arguments of `lbd status`.
#[derive(Debug, Clone, Args)]
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
    let status = match ask_status(&path) {
        Ok(status) => status,
        Err(error) => return complain("lbd status", &error),
    };
    let text = match (args.output, args.check) {
        (Output::Json, _) => match serde_json::to_string_pretty(&status) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
        (Output::Table, true) => crate::log::escape(&status.headline) + "\n",
        (Output::Table, false) if args.top => talkers::render(&status),
        (Output::Table, false) => table::render(&status),
    };
    if super::out(&text).is_err() {
        return FAILURE;
    }
    verdict(&status, args.check)
}

fn verdict(status: &Status, check: bool) -> u8 {
    if check && !status.problems.is_empty() {
        FAILURE
    } else {
        0
    }
}
