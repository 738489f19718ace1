//! Where the running daemon is reached, and what is said when it can't be: shared by every
//! subcommand that talks to the admin socket.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CONFIG_PATH, Exit, chain, run, talk};
use crate::admin::protocol::AskError;

/// A run-time failure.
pub(super) const FAILURE: u8 = Exit::Failure.code();

/// How the daemon is found.
#[derive(Debug, Clone, Args)]
pub(super) struct Reach {
    /// The daemon's admin socket [default: admin.socket of the configuration, else admin.sock in
    /// $RUNTIME_DIRECTORY or /run/lbd]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's configuration [default: /etc/lbd/lb.toml, if it can be read]
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

impl Reach {
    /// By arguments of another form.
    pub(super) fn new(socket: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        Self { socket, config }
    }

    /// The path of the admin socket.
    ///
    /// # Errors
    /// The exit code, once the reason has been said: the configuration named can't be read.
    pub(super) fn socket(&self) -> Result<PathBuf, u8> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let configured = match &self.config {
            Some(path) => configured(path).map_err(|(why, exit)| {
                talk(&format!("error: {why}"));
                exit
            })?,
            // A file that is absent, or not for this user, says nothing.
            None => configured(Path::new(CONFIG_PATH)).unwrap_or_default(),
        };
        Ok(configured.unwrap_or_else(|| run::runtime_dir().join("admin.sock")))
    }
}

/// `admin.socket` of the file at `path`. The rest of the file may be wrong: a daemon that runs is
/// to be reached while its file is being edited.
fn configured(path: &Path) -> Result<Option<PathBuf>, (String, u8)> {
    let text = run::read(path).map_err(|(why, exit)| (why, exit.code()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let why = format!("{} is no TOML: {}", path.display(), error.message());
        (why, Exit::Config.code())
    })?;
    let socket = table.get("admin").and_then(|admin| admin.get("socket"));
    Ok(socket.and_then(toml::Value::as_str).map(PathBuf::from))
}

/// Says why the daemon could not be asked; the exit code.
pub(super) fn complain(who: &str, error: &AskError) -> u8 {
    talk(&format!("{who}: {}{}", chain(error), hint(error)));
    match error {
        AskError::Unreachable { .. } | AskError::Broken { .. } => Exit::Unreachable.code(),
        AskError::Permission(_) | AskError::Denied(_) => Exit::Permission.code(),
        AskError::Foreign { .. } | AskError::Refused(_) => FAILURE,
    }
}

fn hint(error: &AskError) -> &'static str {
    match error {
        AskError::Unreachable { path, .. } if !path_exists(path) => {
            "\n  is lbd running? if it uses another place, name it with --socket, or its \
             configuration with --config"
        }
        AskError::Unreachable { .. } | AskError::Broken { .. } => {
            "\n  its process is gone or stuck: see its log"
        }
        AskError::Permission(_)
        | AskError::Denied(_)
        | AskError::Foreign { .. }
        | AskError::Refused(_) => "",
    }
}

fn path_exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("lbd-reach-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_configuration_says_where_the_socket_is() {
        let path = file(
            "named",
            "[admin]\nsocket = \"/tmp/a.sock\"\n[vip.a]\nwrong = 1\n",
        );
        let reach = |socket: Option<&str>| Reach {
            socket: socket.map(PathBuf::from),
            config: Some(path.clone()),
        };
        assert_eq!(reach(None).socket(), Ok(PathBuf::from("/tmp/a.sock")));
        let named = reach(Some("/tmp/b.sock")).socket();
        assert_eq!(named, Ok(PathBuf::from("/tmp/b.sock")));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_configuration_that_was_named_must_be_readable() {
        let none = Reach {
            socket: None,
            config: Some("/nonexistent/lb.toml".into()),
        };
        assert_eq!(none.socket(), Err(78));
        let path = file("broken", "[admin\n");
        let broken = Reach {
            socket: None,
            config: Some(path.clone()),
        };
        assert_eq!(broken.socket(), Err(78));
        std::fs::remove_file(path).unwrap();
    }
}
