//! The messages between keeper and runner: which programs to run and how they ended, which files
//! to watch and what they hold. Pure: bytes in, values out.

use serde::{Deserialize, Serialize};

use super::confinement::Confinement;
use super::message::{CodecError, MESSAGE_BYTES_MAX, codec};
use crate::config::model::RunAs;

/// From the keeper to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRunner {
    /// Start a proxy process that connects to this socket.
    StartProxy {
        /// Path of keeper.sock.
        keeper_socket: String,
        /// The runtime directory.
        runtime_dir: String,
        /// The program's path; `None`: the runner's own.
        program: Option<String>,
        /// It is to succeed one that serves.
        successor: bool,
    },
    /// Run a program once.
    Run(Run),
    /// Say which of these programs could not be run, and why.
    Examine(Vec<Program>),
    /// From here on say what these files hold; instead of the files named before.
    Watch(Vec<String>),
}

/// What a program is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// The track script at this position in `Config::scripts`.
    Script(u16),
    /// News of the virtual router at this position in `Config::vips`.
    Notify(u16),
}

/// A program as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What it is for, in the words of the configuration.
    pub name: String,
    /// Its path.
    pub program: String,
    /// Whose rights it gets; `None`: the runner's own user.
    pub user: Option<RunAs>,
}

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What for.
    pub job: Job,
    /// Number of the run, to be sent back.
    pub run: u64,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Beyond this many milliseconds its whole process group is ended.
    pub timeout_ms: u64,
    /// Environment beside `PATH`.
    pub env: Vec<(String, String)>,
    /// Whose rights it gets; `None`: the runner's own user.
    pub user: Option<RunAs>,
}

/// From the runner to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromRunner {
    /// First message: which rights it has left.
    Ready(Confinement),
    /// The proxy process runs.
    ProxyStarted {
        /// Its process id.
        pid: u32,
        /// As it was ordered.
        successor: bool,
    },
    /// It could not be started.
    ProxyNotStarted {
        /// Why.
        error: String,
        /// As it was ordered.
        successor: bool,
    },
    /// A proxy process of this runner has ended.
    ProxyEnded {
        /// Its process id.
        pid: u32,
        /// How.
        how: Outcome,
    },
    /// A run is over.
    Ended {
        /// What it was for.
        job: Job,
        /// Number of the run.
        run: u64,
        /// How.
        how: Outcome,
        /// The end of what it wrote to stdout and stderr, at most [`OUTPUT_BYTES_MAX`].
        output: String,
    },
    /// One of the programs to be examined could not be run.
    Trouble {
        /// Its name there.
        name: String,
        /// Why.
        trouble: String,
    },
    /// What a watched file holds; first for every file, then on change.
    File {
        /// Position in the list.
        file: u16,
        /// What was found.
        reading: Reading,
    },
}

/// The most output of a program that is kept, bytes.
pub const OUTPUT_BYTES_MAX: usize = 1024;

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// A number, by the rules of `track::file`.
    Number(i32),
    /// It can't be read, and why.
    Failed(String),
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
        let run = ToRunner::Run(Run {
            job: Job::Script(1),
            run: 9,
            command: vec!["/bin/check".into(), "--fast".into()],
            timeout_ms: 1500,
            env: vec![("LBD_TRACK".into(), "check".into())],
            user: Some(RunAs {
                user: "nobody".into(),
                group: None,
            }),
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
