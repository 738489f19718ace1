//! `lbd --config FILE`: runs the daemon in the foreground.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Exit, color, talk};
use crate::config::model::Config;
use crate::config::{parse, render};

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

impl RunArgs {
    /// `--runtime-dir`, else `$RUNTIME_DIRECTORY`, else /run/lbd.
    fn runtime_dir(&self) -> PathBuf {
        let given = self.runtime_dir.clone();
        let of_service = || std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        given
            .or_else(|| of_service().filter(|dir| !dir.as_os_str().is_empty()))
            .unwrap_or_else(|| PathBuf::from("/run/lbd"))
    }
}

/// Reads the configuration and runs the daemon until it is told to stop.
pub(super) fn run(arguments: RunArgs) -> ExitCode {
    let path = arguments
        .config
        .clone()
        .unwrap_or_else(|| super::CONFIG_PATH.into());
    let text = match read(&path) {
        Ok(text) => text,
        Err(exit) => return exit.into(),
    };
    let Some(config) = accept(&path, &text) else {
        return Exit::Config.into();
    };
    serve(path, text, config, arguments)
}

/// The text of a configuration file; says why if there is none.
pub(super) fn read(path: &Path) -> Result<String, Exit> {
    let error = match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                talk(&format!(
                    "error: {} is not UTF-8 at byte {at}",
                    path.display()
                ));
                return Err(Exit::Config);
            }
        },
        Err(error) => error,
    };
    talk(&format!("error: cannot read {}: {error}", path.display()));
    Err(match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::Config,
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

/// Starts the keeper, which returns when the daemon has stopped.
fn serve(path: PathBuf, text: String, config: Config, arguments: RunArgs) -> ExitCode {
    let runtime_dir = arguments.runtime_dir();
    tracing::debug!(
        path = %path.display(),
        node = arguments.node.as_deref(),
        runtime_dir = %runtime_dir.display(),
        bytes_in = text.len(),
        vips = config.vips.len(),
        "configuration accepted"
    );
    talk("error: this build of lbd can check configurations but not run them");
    Exit::Failure.into()
}
