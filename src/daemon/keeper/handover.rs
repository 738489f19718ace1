//! What a keeper leaves to the program that its own process runs next: open descriptors, and what only
//! it knows. The way back stays open until the next one has come up: the program that ran before.
//!
//! Words in JSON, with defaults, so that keepers of different versions understand each other.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Keeper;
use crate::daemon::keeper::adoption::Phase;
use crate::ipc::event::Event;
use crate::ipc::message::{ServerSnapshot, UpgradeStatus};
use crate::ipc::note::ServerNote;
use crate::net::memfd;
use crate::net::passed::{self, Program, run_instead};

/// Number of the descriptor with the words, and the process they are for.
const VARIABLE: &str = "LBD_HANDOVER";

/// What is told. A field that one side doesn't know is left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Words {
    /// The version that leaves.
    pub(super) version: String,
    /// Its program and how that was started, to go back to.
    program: RawFd,
    arguments: Vec<OsString>,
    /// The text of lb.toml as it is served, which may differ from the file by now.
    config: RawFd,
    /// The lock of the runtime directory.
    lock: RawFd,
    listeners: Vec<RawFd>,
    /// The runner, a child of this process.
    pub(super) runner: Option<i32>,
    pub(super) upgrade: Option<UpgradeStatus>,
    pub(super) proxy_starts: u32,
    pub(super) proxy_starved: u64,
    pub(super) proxy_hung: u64,
    pub(super) events: Vec<Event>,
    pub(super) next_event: u64,
    pub(super) snapshot: Vec<ServerSnapshot>,
    pub(super) notes: Option<Vec<ServerNote>>,
    /// What this process may write is restricted by itself, for good: not once more.
    pub(super) files_restricted: bool,
    /// And so are the system calls it makes.
    pub(super) calls_refused: bool,
    /// Why the program that this process was to run next gave up.
    pub(super) failed: Option<String>,
}

/// What an earlier program of this process left.
#[derive(Debug)]
pub struct Handover {
    pub(super) words: Words,
    /// In the order of [`Words::fds`].
    held: Vec<OwnedFd>,
}

impl Words {
    fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let single = [self.program, self.config, self.lock];
        single.into_iter().chain(self.listeners.iter().copied())
    }

    /// As one descriptor that the next program finds.
    fn write(&self) -> io::Result<OwnedFd> {
        let text = serde_json::to_vec(self)?;
        memfd::sealed("lbd handover", &text)
    }
}

impl Handover {
    /// What was left for this process, if anything was.
    ///
    /// # Errors
    /// When there is something and it can't be read.
    pub fn take() -> io::Result<Option<Self>> {
        let Ok(value) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let parts = value.split_once(':');
        let Some((number, pid)) = parts.filter(|(_, pid)| *pid == std::process::id().to_string())
        else {
            return Ok(None);
        };
        let number = number.parse().map_err(|_bad| io::ErrorKind::InvalidData)?;
        let text = memfd::read_sealed(passed::take(number)?)?;
        let words: Words = serde_json::from_slice(&text)?;
        let held = words.fds().map(passed::take).collect::<io::Result<_>>()?;
        tracing::debug!(pid, "taken over from an earlier program");
        Ok(Some(Self { words, held }))
    }

    fn copy(&self, position: usize) -> io::Result<OwnedFd> {
        let fd = self.held.get(position).ok_or(io::ErrorKind::NotFound)?;
        fd.try_clone()
    }

    /// The text of lb.toml that was served.
    ///
    /// # Errors
    /// The kernel's.
    pub fn config_text(&self) -> io::Result<String> {
        let bytes = memfd::read_sealed(self.copy(1)?)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// The lock of the runtime directory, held.
    pub(super) fn lock(&self) -> io::Result<File> {
        self.copy(2).map(File::from)
    }

    /// The listening sockets.
    pub(super) fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        self.held.iter().skip(3).map(OwnedFd::try_clone).collect()
    }

    /// Back to the program that ran before, which goes on where it was. Returns only if that failed.
    #[must_use]
    pub fn go_back(&self, reason: &str) -> io::Error {
        if self.words.failed.is_some() {
            // That is this one.
            return io::ErrorKind::AlreadyExists.into();
        }
        let words = Words {
            failed: Some(reason.to_owned()),
            ..self.words.clone()
        };
        let Some(program) = self.held.first() else {
            return io::ErrorKind::NotFound.into();
        };
        let kept: Vec<BorrowedFd<'_>> = self.held.iter().map(AsFd::as_fd).collect();
        run(Program::In(program.as_fd()), &words, &kept)
    }
}

/// Runs the next program; it finds `words` and these descriptors. Returns only if that failed.
fn run(program: Program<'_>, words: &Words, kept: &[BorrowedFd<'_>]) -> io::Error {
    let left = words.write().and_then(|written| {
        let number = passed::leave_open(written.as_fd())?;
        for fd in kept {
            passed::leave_open(*fd)?;
        }
        Ok((written, number))
    });
    let (written, number) = match left {
        Ok(left) => left,
        Err(error) => return error,
    };
    let value = format!("{number}:{}", std::process::id());
    let error = run_instead(program, &words.arguments, (VARIABLE, &value));
    drop(written);
    for fd in kept {
        if let Err(error) = passed::close_on_exec(*fd) {
            tracing::warn!(%error, "a descriptor stays open for programs");
        }
    }
    error
}

impl Keeper {
    /// Has this process run the program at `path` from here on, as the keeper it is. Returns only if
    /// that failed: then all is as it was.
    pub(super) fn run_program(&mut self, path: &Path) -> io::Error {
        let Phase::Settled(listeners) = &self.proxies.phase else {
            return io::ErrorKind::ResourceBusy.into();
        };
        let program = match passed::own_program() {
            Ok(program) => program,
            Err(error) => return error,
        };
        let mut kept = vec![program.as_fd(), self.proxies.config_fd(), self.dir.lock()];
        kept.extend(listeners.all());
        let number = |at: usize| kept.get(at).map_or(-1, std::os::fd::AsRawFd::as_raw_fd);
        let numbers = kept.iter().skip(3).map(std::os::fd::AsRawFd::as_raw_fd);
        let (events, next_event) = self.record.all();
        let words = Words {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: number(0),
            arguments: std::env::args_os().collect(),
            config: number(1),
            lock: number(2),
            listeners: numbers.collect(),
            runner: self.scripts.runner_pid(),
            upgrade: self.upgrade.status(),
            proxy_starts: self.supervisor.started,
            proxy_starved: self.supervisor.starved,
            proxy_hung: self.supervisor.hung,
            events,
            next_event,
            snapshot: self.proxies.aged_snapshot(crate::net::clock::now()),
            notes: self.proxies.notes.clone(),
            files_restricted: self.sandbox.wide.restricts_files(),
            calls_refused: self.sandbox.wide.refuses_calls(),
            failed: None,
        };
        if self.is_reload_owed()
            && let Err(error) = crate::net::signal::hang_up_self()
        {
            tracing::error!(%error, "a reload asked for by signal is lost");
        }
        run(Program::At(path), &words, &kept)
    }
}
