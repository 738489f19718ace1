//! The messages between keeper and runner. Pure: bytes in, values out.

use serde::{Deserialize, Serialize};

use super::message::{CodecError, MESSAGE_BYTES_MAX, codec};

/// From the keeper to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRunner {
    /// Start a proxy process that connects to this socket.
    StartProxy {
        /// Path of keeper.sock.
        keeper_socket: String,
        /// The runtime directory.
        runtime_dir: String,
    },
    /// Run a track script once.
    RunScript(RunScript),
}

/// One run of a track script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunScript {
    /// Position in `Config::scripts`.
    pub script: u16,
    /// Number of the run, to be sent back.
    pub run: u64,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Beyond this many milliseconds its whole process group is ended.
    pub timeout_ms: u64,
    /// Environment beside `PATH`.
    pub env: Vec<(String, String)>,
}

/// From the runner to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromRunner {
    /// First message: which rights it gave up, in words.
    Ready(String),
    /// The proxy process runs.
    ProxyStarted {
        /// Its process id.
        pid: u32,
    },
    /// It could not be started.
    ProxyNotStarted {
        /// Why.
        error: String,
    },
    /// A proxy process of this runner has ended.
    ProxyEnded {
        /// Its process id.
        pid: u32,
        /// How.
        how: Outcome,
    },
    /// A run of a track script is over.
    ScriptEnded {
        /// Position in `Config::scripts`.
        script: u16,
        /// Number of the run.
        run: u64,
        /// How.
        how: Outcome,
    },
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Exit code.
    Exited(i32),
    /// Number of the signal that killed it.
    Signalled(i32),
    /// Ended by the runner at its timeout.
    TimedOut,
    /// Could not be started.
    NotStarted(String),
}

impl Outcome {
    /// Whether it counts as a success.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(number) => write!(f, "killed by signal {number}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NotStarted(error) => write!(f, "not started: {error}"),
        }
    }
}

codec!(ToRunner);
codec!(FromRunner);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_survives_the_round_trip_and_no_truncation_does() {
        let run = ToRunner::RunScript(RunScript {
            script: 1,
            run: 9,
            command: vec!["/bin/check".into(), "--fast".into()],
            timeout_ms: 1500,
            env: vec![("LBD_TRACK".into(), "check".into())],
        });
        let bytes = run.encode().unwrap();
        assert_eq!(ToRunner::decode(&bytes).unwrap(), run);
        for end in 0..bytes.len() {
            assert!(ToRunner::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn only_exit_code_zero_is_a_success() {
        assert!(Outcome::Exited(0).is_ok());
        let others = [
            Outcome::Exited(1),
            Outcome::Signalled(15),
            Outcome::TimedOut,
            Outcome::NotStarted("no such file".into()),
        ];
        assert!(others.iter().all(|other| !other.is_ok()));
    }
}
