//! `lbd status`: what this node is doing, from its admin socket.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::admin::protocol::{AskError, ask_status};
use crate::admin::status::Status;
use crate::admin::table;

/// Exit codes of sysexits.h.
const UNREACHABLE: u8 = 69;
const PERMISSION: u8 = 77;
/// A run-time failure, and "something is wrong" with `--check`.
const FAILURE: u8 = 1;

/// Arguments of `lbd status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The daemon's admin socket [default: admin.sock in $RUNTIME_DIRECTORY or /run/lbd]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print one line and exit 1 when something is wrong
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs; the format is stable
    Json,
}

/// Asks, prints, and says with which code to exit: 0, 1, 69 (nobody answers) or 77 (not allowed).
#[must_use]
pub fn run(args: &StatusArgs) -> u8 {
    let path = args.socket.clone().unwrap_or_else(default_socket);
    let status = match ask_status(&path) {
        Ok(status) => status,
        Err(error) => return complain("status", &error),
    };
    let text = match (args.output, args.check) {
        (Output::Json, _) => match serde_json::to_string_pretty(&status) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
        (Output::Table, true) => crate::log::escape(&status.headline) + "\n",
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

/// Where the daemon answers by default.
pub(super) fn default_socket() -> PathBuf {
    let runtime_dir = std::env::var_os("RUNTIME_DIRECTORY");
    let dir = runtime_dir.map_or_else(|| PathBuf::from("/run/lbd"), PathBuf::from);
    dir.join("admin.sock")
}

/// Says why a subcommand has no answer; the exit code.
pub(super) fn complain(subcommand: &str, error: &AskError) -> u8 {
    super::talk(&format!(
        "lbd {subcommand}: {}{}",
        super::chain(error),
        hint(error)
    ));
    match error {
        AskError::Unreachable { .. } | AskError::Broken { .. } => UNREACHABLE,
        AskError::Permission(_) => PERMISSION,
        AskError::Foreign { .. } | AskError::Refused(_) => FAILURE,
    }
}

fn hint(error: &AskError) -> &'static str {
    match error {
        AskError::Unreachable { path, .. } if !path_exists(path) => {
            "\n  is lbd running? if it uses another place, name it with --socket"
        }
        AskError::Unreachable { .. } | AskError::Broken { .. } => {
            "\n  its process is gone or stuck: see its log"
        }
        AskError::Permission(_) | AskError::Foreign { .. } | AskError::Refused(_) => "",
    }
}

fn path_exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
