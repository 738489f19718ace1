//! The flight recorder's office: when a recording is due, and the thread that writes it. What is
//! recorded is gathered from the machines' tapes; the loop copies memory and waits for no disk.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Keeper;
use super::runtime_dir::boot_id;
use crate::daemon::proxy::state_dir;
use crate::ipc::command::Outcome;
use crate::net::clock;
use crate::recorder::file::{self, Header, VERSION};
use crate::recorder::{store, time};

/// After something happened: what follows from it is in the recording, too.
const AFTER: Duration = Duration::from_secs(5);
/// Between two recordings that nobody ordered.
const SPACING: Duration = Duration::from_secs(30);
/// How often the thread that writes is asked whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The directory's name, in the state directory or else in the runtime directory.
const DIRECTORY: &str = "recorder";

type Written = io::Result<PathBuf>;

/// What is due and what is under way.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    due: Option<(Instant, &'static str)>,
    last: Option<Instant>,
    /// The thread that writes, and the order it answers.
    writing: Option<(Receiver<Written>, Option<u64>, Instant)>,
}

impl Recorder {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = self.writing.as_ref().map(|(_, _, look_at)| *look_at);
        look.or(self.due.map(|(at, _)| at))
    }

    /// Something happened that is worth a recording.
    pub(super) fn note(&mut self, now: Instant, why: &'static str) {
        let soonest = self.last.map_or(now, |last| last + SPACING);
        self.due.get_or_insert(((now + AFTER).max(soonest), why));
    }
}

impl Keeper {
    /// An order to write one.
    pub(super) fn on_record_order(&mut self, now: Instant, id: u64) {
        if self.recorder.writing.is_some() {
            let why = "a recording is being written: try again in a second";
            return self.answer(now, id, Outcome::Refused(why.into()));
        }
        self.write_recording(now, "ordered", Some(id));
    }

    /// Writes what is due, and takes note of what is written.
    pub(super) fn tick_recorder(&mut self, now: Instant) {
        if let Some((written, id, look_at)) = self.recorder.writing.take() {
            match written.try_recv() {
                Err(TryRecvError::Empty) if look_at <= now => {
                    self.recorder.writing = Some((written, id, now + LOOK_EVERY));
                }
                Err(TryRecvError::Empty) => self.recorder.writing = Some((written, id, look_at)),
                Err(TryRecvError::Disconnected) => {
                    self.recording_ended(now, id, Err(io::Error::other("the writer ended")));
                }
                Ok(outcome) => self.recording_ended(now, id, outcome),
            }
            return;
        }
        if let Some((_, why)) = self.recorder.due.filter(|(at, _)| *at <= now) {
            self.recorder.due = None;
            self.recorder.last = Some(now);
            self.write_recording(now, why, None);
        }
    }

    fn recording_ended(&mut self, now: Instant, id: Option<u64>, outcome: Written) {
        let answer = match outcome {
            Ok(path) => {
                let path = path.display().to_string();
                tracing::info!(path = %path, "recording written");
                Outcome::Recorded(path)
            }
            Err(error) => {
                tracing::warn!(%error, "recording not written");
                Outcome::Refused(format!("the recording cannot be written: {error}"))
            }
        };
        if let Some(id) = id {
            self.answer(now, id, answer);
        }
    }

    fn write_recording(&mut self, now: Instant, why: &'static str, id: Option<u64>) {
        let job = self.recording_job(now, why);
        let (sender, receiver) = sync_channel(1);
        let thread = thread::Builder::new().name("recorder".into());
        let started = thread.spawn(move || {
            if sender.send(job.write()).is_err() {
                tracing::debug!("nobody waits for the recording");
            }
        });
        match started {
            Ok(_detached) => {
                self.recorder.writing = Some((receiver, id, now + LOOK_EVERY));
            }
            Err(error) => self.recording_ended(now, id, Err(error)),
        }
    }

    fn recording_job(&self, now: Instant, why: &'static str) -> Job {
        let mut tapes = self.routers.tapes(now);
        let supervisor = self.supervisor.tape(now);
        tapes.push(("supervise", "proxy".to_owned(), supervisor));
        let wall_ms = u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX);
        Job {
            dir: self.recorder_dir(),
            header: Header {
                version: VERSION,
                lbd: env!("CARGO_PKG_VERSION").to_owned(),
                config: format!("{:016x}", self.digest),
                node: self.args.node.clone().or_else(|| self.routers.own_name()),
                boot: boot_id(),
                why: why.to_owned(),
                wall_ms,
                t: time::nanos(now),
            },
            tapes,
        }
    }

    fn recorder_dir(&self) -> PathBuf {
        let kept = state_dir(&self.args.config, &self.args.runtime_dir);
        let kept = kept.filter(|dir| dir.is_dir());
        let dir = kept.as_deref().unwrap_or(self.dir.path());
        dir.join(DIRECTORY)
    }

    /// The keeper stops: what is due is written now, the addresses have gone.
    pub(super) fn write_last_recording(&mut self) {
        let Some((_, why)) = self.recorder.due.take() else {
            return;
        };
        if let Err(error) = self.recording_job(clock::now(), why).write() {
            tracing::warn!(%error, "recording not written");
        }
    }

    /// The keeper fails by a fault of its own: what led to it is written by this thread, for there
    /// is nothing left to be late for.
    pub(super) fn record_panic(&self) {
        match self.recording_job(clock::now(), "panic").write() {
            Ok(path) => tracing::error!(path = %path.display(), "recording written"),
            Err(error) => tracing::error!(%error, "recording not written"),
        }
    }
}

/// A recording on its way to the disk.
struct Job {
    dir: PathBuf,
    header: Header,
    tapes: Vec<(&'static str, String, Vec<u8>)>,
}

impl Job {
    fn write(self) -> Written {
        let bytes = file::write(&self.header, &self.tapes).map_err(io::Error::other)?;
        store::keep(&self.dir, self.header.wall_ms, &self.header.why, &bytes)
    }
}
