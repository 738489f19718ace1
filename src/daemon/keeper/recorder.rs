//! The flight recorder's office: when a recording is due, and the thread that writes it. What is
//! recorded is gathered from the machines' tapes; the loop copies memory and waits for no disk.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Keeper;
use super::blackbox::{Dead, Ends};
use super::runtime_dir::boot_id;
use crate::config::model::Script;
use crate::daemon::proxy::state_dir;
use crate::ipc::command::Outcome;
use crate::ipc::message::ToProxy;
use crate::ipc::record::{Record, Tapes};
use crate::net::{clock, memfd};
use crate::recorder::file::{self, Header, VERSION};
use crate::recorder::{store, time};
use crate::track::recorded::RecordedScript;

/// After something happened: what follows from it is in the recording, too.
const AFTER: Duration = Duration::from_secs(5);
/// Between two recordings that nobody ordered.
const SPACING: Duration = Duration::from_secs(30);
/// How often the thread that writes is asked whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A proxy that says nothing of its machines within this time is not waited for.
const PROXY_WITHIN: Duration = Duration::from_millis(500);
/// What it says at most: 256 tapes of 64 KiB, and what stands between them.
const PROXY_BYTES_MAX: u64 = 20 << 20;
/// The directory's name, in the state directory or else in the runtime directory.
const DIRECTORY: &str = "recorder";

type Written = io::Result<PathBuf>;

/// What is due and what is under way.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    due: Option<(Instant, &'static str)>,
    last: Option<Instant>,
    /// Orders to the proxy so far: each has its number.
    asked: u64,
    /// What waits for the proxy's part: the job, the order it answers, and how long it waits.
    waiting: Option<(Job, Option<u64>, Instant)>,
    /// The thread that writes, and the order it answers.
    writing: Option<(Receiver<Written>, Option<u64>, Instant)>,
    /// Of proxy processes.
    pub(super) ends: Ends,
}

impl Recorder {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look = self.writing.as_ref().map(|(_, _, look_at)| *look_at);
        let waits = self.waiting.as_ref().map(|(_, _, until)| *until);
        let burial = self.ends.burial.as_ref().map(|(at, _)| *at);
        let due = self.due.iter().map(|(at, _)| *at).chain(burial).min();
        look.or(waits).or(due)
    }

    fn is_busy(&self) -> bool {
        self.writing.is_some() || self.waiting.is_some()
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
        if self.recorder.is_busy() {
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
        if let Some((job, id, until)) = self.recorder.waiting.take() {
            if now < until && self.proxies.is_connected() {
                self.recorder.waiting = Some((job, id, until));
            } else {
                let job = job.lacks("the proxy said nothing of its machines");
                self.start_writing(now, job, id);
            }
            return;
        }
        let burial = self.recorder.ends.burial.take_if(|(at, _)| *at <= now);
        if let Some((_, mut job)) = burial {
            // And the watch over it, no more: this is no moment to copy much.
            let supervisor = self.supervisor.tape(now);
            job.tapes = vec![("supervise", "proxy".to_owned(), supervisor)];
            return self.start_writing(now, job, None);
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

    /// Copies the tapes of this process, and asks the proxy for those of its own.
    fn write_recording(&mut self, now: Instant, why: &'static str, id: Option<u64>) {
        let job = self.recording_job(now, why);
        if !self.proxy_reads() {
            let job = job.lacks("there is no proxy process that listens");
            return self.start_writing(now, job, id);
        }
        self.recorder.asked += 1;
        let (at, booted) = clock::both();
        let order = ToProxy::Record(Record {
            id: self.recorder.asked,
            t: time::nanos(at),
            boottime_ns: u64::try_from(booted.as_nanos()).unwrap_or(0),
        });
        self.recorder.waiting = Some((job, id, now + PROXY_WITHIN));
        self.tell_proxy(now, &order);
    }

    /// The proxy's part has come.
    pub(super) fn on_tapes(&mut self, now: Instant, told: Tapes, fds: Vec<OwnedFd>) {
        let Tapes {
            id: asked,
            unrecorded,
        } = told;
        if asked != self.recorder.asked {
            return;
        }
        let Some((mut job, id, _)) = self.recorder.waiting.take() else {
            return;
        };
        job.others = fds.into_iter().next();
        if unrecorded > 0 {
            job = job.lacks(&format!("{unrecorded} servers have no tape: too many"));
        }
        self.start_writing(now, job, id);
    }

    fn start_writing(&mut self, now: Instant, mut job: Job, id: Option<u64>) {
        if job.header.why != store::PROXY_ENDED {
            // It may have ended while its answer was waited for.
            job.dead.clone_from(&self.recorder.ends.dead);
        }
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
        let names = self.routers.router_names().into_iter();
        let judges = names.zip(self.tracks.tapes(now));
        tapes.extend(judges.map(|(name, tape)| ("judge", name, tape)));
        let config = &self.args.config;
        let scripts = config.scripts.iter().zip(&self.scripts.machines);
        let tape = |(script, machine): (&Script, &RecordedScript)| {
            ("script", script.name.clone(), machine.tape(now))
        };
        tapes.extend(scripts.map(tape));
        let files = config.track_files.iter().zip(&self.tracks.reads);
        tapes.extend(files.map(|(file, read)| ("file", file.name.clone(), read.tape(now))));
        let interfaces = self.routers.interfaces.tape(now);
        tapes.extend(interfaces.map(|tape| ("interfaces", "tracked".to_owned(), tape)));
        tapes.extend(self.peers.tapes(now));
        let supervisor = self.supervisor.tape(now);
        tapes.push(("supervise", "proxy".to_owned(), supervisor));
        self.job_of(now, (self.recorder_dir(), why), tapes)
    }

    /// A recording of these tapes, and of those of the proxy process that ended last.
    pub(super) fn job_of(
        &self,
        now: Instant,
        (dir, why): (PathBuf, &str),
        tapes: Vec<(&'static str, String, Vec<u8>)>,
    ) -> Job {
        let wall_ms = u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX);
        Job {
            dir,
            header: Header {
                version: VERSION,
                lbd: env!("CARGO_PKG_VERSION").to_owned(),
                config: format!("{:016x}", self.digest),
                node: self.args.node.clone().or_else(|| self.routers.own_name()),
                boot: boot_id(),
                why: why.to_owned(),
                wall_ms,
                t: time::nanos(now),
                lacks: None,
            },
            tapes,
            others: None,
            dead: self.recorder.ends.dead.clone(),
        }
    }

    fn recorder_dir(&self) -> PathBuf {
        let of_runtime = || self.dir.path().join(DIRECTORY);
        self.kept_dir().unwrap_or_else(of_runtime)
    }

    /// The one that outlasts a reboot, if there is one.
    pub(super) fn kept_dir(&self) -> Option<PathBuf> {
        let kept = state_dir(&self.args.config, &self.args.runtime_dir);
        let kept = kept.filter(|dir| dir.is_dir());
        kept.map(|dir| dir.join(DIRECTORY))
    }

    /// The keeper stops: what is due is written now, the addresses have gone.
    pub(super) fn write_last_recording(&mut self) {
        let waiting = self.recorder.waiting.take().map(|(job, _, _)| job);
        let due = self.recorder.due.take();
        let due = due.map(|(_, why)| self.recording_job(clock::now(), why));
        let parts = waiting.into_iter().chain(due);
        let parts = parts.map(|job| job.lacks("the keeper stopped"));
        let burial = self.recorder.ends.burial.take().map(|(_, job)| job);
        for job in parts.chain(burial) {
            if let Err(error) = job.write() {
                tracing::warn!(%error, "recording not written");
            }
        }
    }

    /// The keeper fails by a fault of its own: what led to it is written by this thread, for there
    /// is nothing left to be late for.
    pub(super) fn record_panic(&self) {
        let job = self.recording_job(clock::now(), "panic");
        match job.lacks("the keeper failed").write() {
            Ok(path) => tracing::error!(path = %path.display(), "recording written"),
            Err(error) => tracing::error!(%error, "recording not written"),
        }
    }
}

/// A recording on its way to the disk.
#[derive(Debug)]
pub(super) struct Job {
    dir: PathBuf,
    header: Header,
    tapes: Vec<(&'static str, String, Vec<u8>)>,
    /// What the proxy process wrote.
    others: Option<OwnedFd>,
    /// The one before it, if that has ended.
    dead: Option<Dead>,
}

impl Job {
    /// Something of the proxy's part is not there.
    fn lacks(mut self, why: &str) -> Self {
        self.header.lack(why);
        self
    }

    /// Whether it was this one's process that ended like that.
    pub(super) fn heard(&mut self, pid: u32, how: &str) -> bool {
        let dead = self.dead.as_mut();
        dead.is_some_and(|dead| dead.heard(pid, how))
    }

    /// Where it goes.
    pub(super) fn path(&self) -> PathBuf {
        store::path(&self.dir, self.header.wall_ms, &self.header.why)
    }

    fn write(mut self) -> Written {
        let read = |fd| memfd::read_sealed_within(fd, PROXY_BYTES_MAX);
        let others = self.others.take().map(read).transpose();
        let others = match others {
            Ok(others) => others.unwrap_or_default(),
            Err(error) => {
                self = self.lacks(&format!("what the proxy said cannot be read: {error}"));
                Vec::new()
            }
        };
        // It comes from a process that talks with clients.
        let others = if file::are_sections(&others) {
            others
        } else {
            self = self.lacks("what the proxy said is no part of a recording");
            Vec::new()
        };
        let dead = self.dead.as_ref().map(Dead::sections);
        let (dead, missing) = dead.unwrap_or_default();
        if let Some(missing) = missing {
            self = self.lacks(&missing);
        }
        let others = [
            ("what the proxy said", others.as_slice()),
            ("what the proxy process that ended left", &dead),
        ];
        let bytes = file::write(&self.header, &self.tapes, &others).map_err(io::Error::other)?;
        store::keep(&self.dir, self.header.wall_ms, &self.header.why, &bytes)
    }
}
