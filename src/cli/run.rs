//! `lbd --config FILE`: runs the daemon in the foreground.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Exit, chain, color, talk};
use crate::config::model::Config;
use crate::config::{parse, render};
use crate::daemon::keeper::{self, Handover, KeeperArgs, KeeperError};
use crate::net::signal;

/// What the daemon is started with.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Run the daemon with this configuration
    #[arg(long, short = 'f', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which node this machine is, by name or address, where its addresses don't tell
    #[arg(long, value_name = "NODE", requires = "config")]
    node: Option<String>,
    /// Where sockets and state live [default: $RUNTIME_DIRECTORY, else /run/lbd]
    #[arg(long, value_name = "DIR", requires = "config")]
    runtime_dir: Option<PathBuf>,
}

/// Reads the configuration and runs the daemon until it is told to stop.
pub(super) fn run(arguments: RunArgs) -> ExitCode {
    let named = arguments.config;
    let config_path = named.unwrap_or_else(|| super::CONFIG_PATH.into());
    // Whoever changes the file from here on may say so at once.
    if let Err(error) = signal::keep_orders() {
        talk(&format!("error: cannot block signals: {error}"));
        return Exit::Failure.into();
    }
    let handover = match Handover::take() {
        Ok(handover) => handover,
        Err(error) => {
            talk(&format!(
                "error: cannot take over from the program before: {error}"
            ));
            return Exit::Failure.into();
        }
    };
    // A change of the program is none of the configuration.
    let text = match &handover {
        Some(handover) => handover
            .config_text()
            .map_err(|error| (error.to_string(), Exit::Failure)),
        None => read(&config_path),
    };
    let config_text = match text {
        Ok(text) => text,
        Err((why, exit)) => {
            talk(&format!("error: {why}"));
            return exit.into();
        }
    };
    let Some(config) = accept(&config_path, &config_text) else {
        if let Some(handover) = handover {
            let failure = handover.go_back("it refuses the configuration that is served");
            talk(&format!("error: no way back: {failure}"));
        }
        return Exit::Config.into();
    };
    serve(KeeperArgs {
        config_path,
        config_text,
        config,
        node: arguments.node,
        runtime_dir: arguments.runtime_dir.unwrap_or_else(runtime_dir),
        handover,
    })
}

/// `$RUNTIME_DIRECTORY`, which systemd sets, else /run/lbd.
pub(super) fn runtime_dir() -> PathBuf {
    let of_service = std::env::var_os("RUNTIME_DIRECTORY").filter(|dir| !dir.is_empty());
    of_service.map_or_else(|| PathBuf::from("/run/lbd"), PathBuf::from)
}

/// No lb.toml is longer: 1,024 servers of 256 bytes each fit four times over.
const BYTES_MAX: u64 = 1024 * 1024;

/// The text of a configuration file, or why there is none.
pub(super) fn read(path: &Path) -> Result<String, (String, Exit)> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let exit = if error.kind() == io::ErrorKind::PermissionDenied {
            Exit::Permission
        } else {
            Exit::Config
        };
        return Err((format!("cannot read {shown}: {error}"), exit));
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err((format!("{shown} is larger than 1 MiB"), Exit::Config));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let hint = if wide {
            ": it is UTF-16, save it as UTF-8"
        } else {
            ""
        };
        let line = bytes.iter().take(at).filter(|b| **b == b'\n').count() + 1;
        (
            format!("{shown} is not UTF-8 at byte {at}, line {line}{hint}"),
            Exit::Config,
        )
    })
}

/// The configuration in `text`, its warnings said; nothing if it is refused.
fn accept(path: &Path, text: &str) -> Option<Config> {
    let parsed = parse(text);
    if !parsed.problems.is_empty() {
        let shown = path.to_string_lossy();
        talk(render(&parsed.problems, &shown, text, color(&io::stderr())).trim_end());
    }
    if parsed.config.is_none() {
        talk(&format!("error: {} is refused", path.display()));
    }
    parsed.config
}

/// Runs the keeper, which returns when the daemon has stopped.
fn serve(args: KeeperArgs) -> ExitCode {
    let path = args.config_path.clone();
    match keeper::run(args) {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            talk(&format!("error: {}", chain(&error)));
            if matches!(error, KeeperError::Local(_)) {
                let path = path.display();
                talk(&format!(
                    "help: `lbd check {path}` says where, and what this machine has"
                ));
            }
            error.exit_code().into()
        }
    }
}
