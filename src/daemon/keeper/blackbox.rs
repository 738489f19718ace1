//! The memory in which a proxy process keeps its tapes, and what is left of them when it has ended: kept
//! for the recordings to come, one process's, and written to the state directory at once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Keeper;
use super::proxies::Current;
use super::recorder::Job;
use crate::ipc::event::EventKind;
use crate::net::{clock, shm};
use crate::recorder::blackbox::{Found, Source, WORDS, read};
use crate::recorder::file::{self, Ended};
use crate::recorder::{store, time};

/// Between two recordings of processes that ended: one that keeps ending fills no disk.
const SPACING: Duration = Duration::from_secs(30);
/// The runner says how a process ended; it is waited for so long.
const HOW_WITHIN: Duration = Duration::from_millis(500);

/// Of a process that another runner started, nobody is told more.
const UNSEEN: &str = "how is not known";

/// Memory that a proxy process writes its tapes to. What stands there is that process's word.
#[derive(Debug, Clone)]
pub(super) struct BlackBox {
    file: Arc<File>,
    /// When this keeper knew of it first, on tapes and by `CLOCK_BOOTTIME`, nanoseconds.
    t: i64,
    boottime_ns: u64,
}

/// A process that has ended, and its tapes.
#[derive(Debug, Clone)]
pub(super) struct Dead {
    tapes: BlackBox,
    ended: Ended,
}

/// What is known of ends of proxy processes.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The last one.
    pub(super) dead: Option<Dead>,
    /// To be written then, or once it is known how that one ended.
    pub(super) burial: Option<(Instant, Job)>,
    last: Option<Instant>,
    /// The runner was the first to know of this one's end.
    heard: Option<(i32, String)>,
    /// Was killed because it hung.
    hung: Option<i32>,
}

impl Source for BlackBox {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

impl BlackBox {
    fn new(fd: OwnedFd) -> Self {
        let (now, booted) = clock::both();
        Self {
            file: Arc::new(File::from(fd)),
            t: time::nanos(now),
            boottime_ns: u64::try_from(booted.as_nanos()).unwrap_or(0),
        }
    }

    /// For a process that begins; `None`: the kernel gave none, and its tapes end with it.
    pub(super) fn create() -> Option<Self> {
        let fd = shm::create("lbd black box", WORDS);
        let fd = fd
            .inspect_err(|error| tracing::warn!(%error, "tapes of the proxy end with the process"));
        fd.ok().map(Self::new)
    }

    /// That of a process which outlived the keeper before this one.
    pub(super) fn inherit(fds: Vec<OwnedFd>) -> Option<Self> {
        let fd = fds.into_iter().next()?;
        match shm::is_shared(&fd, WORDS) {
            Ok(true) => Some(Self::new(fd)),
            Ok(false) | Err(_) => {
                tracing::warn!("tapes of the proxy end with the process");
                None
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What was found, as sections of a recording, and what is missing. For a thread that may wait.
    fn sections(&self, ended: &Ended) -> (Vec<u8>, Option<String>) {
        let found = match read(self) {
            Ok(found) => found,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let Some(base) = self.base(&found) else {
            return (Vec::new(), Some("its clock is beyond all bounds".into()));
        };
        let mut all = Vec::new();
        for (name, tape) in &found.tapes {
            if let Err(error) = file::ended_section(&mut all, name, base, ended) {
                return (Vec::new(), Some(error.to_string()));
            }
            all.extend_from_slice(tape);
        }
        let missing = match (found.tapes.is_empty(), found.broken) {
            (true, 0) => Some("it left no tape of a server".to_owned()),
            (_, 0) => None,
            (_, broken) => Some(format!("{broken} tapes make no sense")),
        };
        (all, missing)
    }

    /// What to add to its times to have this keeper's.
    fn base(&self, found: &Found) -> Option<i64> {
        let booted = |ns: u64| i64::try_from(ns).ok();
        let passed = booted(found.boottime_ns)?.checked_sub(booted(self.boottime_ns)?)?;
        let base = self.t.checked_add(passed)?.checked_sub(found.t)?;
        time::is_possible(base).then_some(base)
    }
}

impl Dead {
    /// Whether it was this process that ended like that.
    pub(super) fn heard(&mut self, pid: u32, how: &str) -> bool {
        let same = self.ended.pid == pid;
        if same {
            how.clone_into(&mut self.ended.how);
        }
        same
    }

    /// [`BlackBox::sections`].
    pub(super) fn sections(&self) -> (Vec<u8>, Option<String>) {
        let (sections, missing) = self.tapes.sections(&self.ended);
        let whose = format!("of proxy process {}, which ended", self.ended.pid);
        (sections, missing.map(|why| format!("{whose}: {why}")))
    }
}

impl Ends {
    /// This one is killed because it hangs.
    pub(super) fn kills(&mut self, pid: i32) {
        self.hung = Some(pid);
    }

    fn how(&self, pid: i32, how: &str) -> String {
        match self.hung == Some(pid) {
            true => format!("{how}, because it hung"),
            false => how.to_owned(),
        }
    }
}

impl Keeper {
    /// The node's proxy is no more: its tapes are kept, said to be lost, and written.
    pub(super) fn bury(&mut self, now: Instant, current: &mut Current, reason: &str) {
        let pid = current.process.pid();
        if let Some(tapes) = current.link.black_box.take() {
            let ends = &mut self.recorder.ends;
            let heard = ends.heard.take().filter(|(of, _)| *of == pid);
            let known = heard.is_some();
            let how = heard.map_or_else(|| UNSEEN.to_owned(), |(_, how)| how);
            let how = ends.how(pid, &how);
            ends.dead = Some(Dead {
                tapes,
                ended: Ended {
                    pid: u32::try_from(pid).unwrap_or(0),
                    t: time::nanos(now),
                    how,
                },
            });
            let wait = if known { Duration::ZERO } else { HOW_WITHIN };
            let path = self.plan_burial(now, now + wait);
            self.say_lost(pid, reason, path);
        } else {
            self.say_lost(pid, reason, None);
        }
    }

    /// `tapes_to`: where its tapes will be written to, if anywhere; nothing is there yet.
    fn say_lost(&mut self, pid: i32, reason: &str, tapes_to: Option<PathBuf>) {
        if self.stopping.is_some() {
            return;
        }
        let tapes_to = tapes_to.map(|path| path.display().to_string());
        tracing::warn!(pid, reason, tapes_to, "proxy lost");
        let lost = tapes_to.map_or_else(
            || "lost".to_owned(),
            |path| format!("lost; its last tapes are to be written to {path}"),
        );
        let pid = pid.to_string();
        self.record(EventKind::Proxy, (None, Some(&pid)), None, &lost);
    }

    /// Where its recording goes; `None`: nowhere.
    fn plan_burial(&mut self, now: Instant, at: Instant) -> Option<PathBuf> {
        let ends = &self.recorder.ends;
        let rests = ends.last.is_some_and(|last| now < last + SPACING);
        if self.stopping.is_some() || rests || ends.burial.is_some() {
            return None;
        }
        let dir = self.kept_dir()?;
        let job = self.job_of(now, (dir, store::PROXY_ENDED), Vec::new());
        let path = job.path();
        self.recorder.ends.last = Some(now);
        self.recorder.ends.burial = Some((at, job));
        Some(path)
    }

    /// The runner says how a proxy process ended.
    pub(super) fn heard_of_end(&mut self, now: Instant, pid: Option<i32>, how: &str) {
        let Some(pid) = pid else { return };
        let ends = &mut self.recorder.ends;
        let how = ends.how(pid, how);
        let of = u32::try_from(pid).unwrap_or(0);
        let mut known = false;
        if let Some((until, job)) = &mut ends.burial
            && job.heard(of, &how)
        {
            known = true;
            *until = now;
        }
        if let Some(dead) = &mut ends.dead {
            known |= dead.heard(of, &how);
        }
        if !known {
            ends.heard = Some((pid, how));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::shm::Words;
    use crate::recorder::blackbox::BlackBox as Written;

    #[test]
    fn a_process_that_left_no_tape_is_said_to_have_left_none() {
        time::count_from(clock::now());
        let tapes = BlackBox::create().unwrap();
        let words = Words::map(tapes.fd().try_clone_to_owned().unwrap(), WORDS).unwrap();
        let (now, booted) = clock::both();
        let booted_ns = u64::try_from(booted.as_nanos()).unwrap();
        let written = Written::begin(Arc::new(words), time::nanos(now), booted_ns).unwrap();
        let ended = Ended {
            pid: 7,
            t: 0,
            how: "exit code 1".into(),
        };
        let dead = Dead { tapes, ended };
        let left = |dead: &Dead| dead.sections().1;
        let none = "of proxy process 7, which ended: it left no tape of a server";
        assert_eq!(left(&dead).as_deref(), Some(none));
        let _seat = written.seat("p/a").unwrap();
        let empty = "of proxy process 7, which ended: 1 tapes make no sense";
        assert_eq!(left(&dead).as_deref(), Some(empty));
    }
}
