//! `reload.watch`: a thread that sleeps until the file has changed, and rings. It reads nothing: the
//! reload that follows does, and finds out whether anything differs. Whatever looks at the file system is
//! done there: one that hangs holds up nobody else.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::net::clock;
use crate::net::epoll::{Epoll, Events, Interest};
use crate::net::eventfd::Bell;
use crate::net::file_watch::{FileWatch, Seen};

/// The file is left alone for so long before it is read: what changes it may change it again.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// One that never is left alone is read this long after its first change.
const AT_LATEST: Duration = Duration::from_secs(2);
/// After a failure of the kernel, as a rule for want of memory.
const PAUSE: Duration = Duration::from_secs(1);

const STACK_BYTES: usize = 128 * 1024;

const FILE: u64 = 0;
const STOP: u64 = 1;

/// The watch; it ends with this.
#[derive(Debug)]
pub(super) struct Watch {
    told: Arc<Told>,
    stop: Arc<Bell>,
}

/// What the thread has to say.
#[derive(Debug, Default)]
struct Told {
    changed: AtomicBool,
    /// There is no watch.
    failure: OnceLock<io::Error>,
}

impl Watch {
    /// Starts the thread, which rings `bell` whenever the file may be another, and once at first:
    /// it may have changed before. It also rings where nothing can be watched.
    pub(super) fn begin(path: &Path, bell: Arc<Bell>) -> io::Result<Self> {
        let path = path.to_owned();
        Self::by(bell, move || FileWatch::open(&path))
    }

    /// `open` goes the way to the file first.
    fn by(
        bell: Arc<Bell>,
        open: impl FnOnce() -> io::Result<FileWatch> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Bell::new()?);
        let epoll = Epoll::new()?;
        epoll.add(&*stop, STOP, Interest::READ)?;
        let told = Arc::new(Told::default());
        // The thread has its own hold on what it rings and what stops it.
        let (tells, stops) = (Arc::clone(&told), Arc::clone(&stop));
        let run = move || {
            let file = open().and_then(|file| {
                epoll.add(&file, FILE, Interest::READ)?;
                Ok(file)
            });
            match file {
                Ok(file) => Thread {
                    file,
                    epoll,
                    told: tells,
                    bell,
                    stop: stops,
                }
                .run(),
                Err(error) => {
                    tells.failure.get_or_init(|| error);
                    ring(&bell);
                }
            }
        };
        std::thread::Builder::new()
            .name("file-watch".to_owned())
            // All of it may be locked in memory.
            .stack_size(STACK_BYTES)
            .spawn(run)?;
        Ok(Self { told, stop })
    }

    /// Whether it has rung since this was asked.
    pub(super) fn take(&self) -> bool {
        self.told.changed.swap(false, Ordering::AcqRel)
    }

    /// Why there is no watch.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.told.failure.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = self.stop.ring() {
            tracing::debug!(%error, "the watch over the configuration goes on");
        }
    }
}

struct Thread {
    file: FileWatch,
    epoll: Epoll,
    told: Arc<Told>,
    bell: Arc<Bell>,
    stop: Arc<Bell>,
}

impl Thread {
    fn run(mut self) {
        let mut rhythm = Rhythm::default();
        rhythm.note(clock::now(), Seen::Changed);
        let mut events = Events::with_capacity(2);
        loop {
            let now = clock::now();
            let wait = rhythm.due().map(|due| due.saturating_duration_since(now));
            if let Err(error) = self.epoll.wait(&mut events, wait) {
                tracing::error!(%error, "the configuration is no longer watched");
                return;
            }
            if events.iter().any(|event| event.token == STOP) {
                tracing::debug!(stop = ?self.stop, "watch over the configuration ended");
                return;
            }
            let now = clock::now();
            match self.file.take() {
                Ok(seen) => seen.into_iter().for_each(|seen| rhythm.note(now, seen)),
                Err(error) => {
                    tracing::warn!(%error, "changes of the configuration are not heard of");
                    rhythm.note(now, Seen::Changed);
                    std::thread::sleep(PAUSE);
                }
            }
            if rhythm.take(now) {
                self.ring();
            }
        }
    }

    /// Watches first, so that what changes while the file is read is told, too.
    fn ring(&mut self) {
        if let Err(error) = self.file.renew() {
            tracing::warn!(%error, "the path of the configuration is watched as it was");
        } else if let Err(error) = self.epoll.add(&self.file, FILE, Interest::READ) {
            // The former watch is gone, and nothing wakes this thread for the new one.
            tracing::error!(%error, "the configuration is no longer watched");
        }
        self.told.changed.store(true, Ordering::Release);
        ring(&self.bell);
    }
}

fn ring(bell: &Bell) {
    if let Err(error) = bell.ring() {
        tracing::error!(%error, "the keeper cannot be woken");
    }
}

/// When a file that changes is read.
#[derive(Debug, Default)]
struct Rhythm {
    /// The first and the last change that nobody was told of.
    changes: Option<(Instant, Instant)>,
    writing: bool,
}

impl Rhythm {
    fn note(&mut self, now: Instant, seen: Seen) {
        match seen {
            Seen::Writing => self.writing = true,
            Seen::Changed => {
                self.writing = false;
                let first = self.changes.map_or(now, |(first, _)| first);
                self.changes = Some((first, now));
            }
        }
    }

    /// Half a file may be a whole one to its reader: it waits until it is closed.
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.changes.filter(|_| !self.writing)?;
        Some((last + QUIET_FOR).min(first + AT_LATEST))
    }

    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| now >= due);
        if is_due {
            self.changes = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Waits for the bell, and silences it.
    fn heard(bell: &Bell) {
        let epoll = Epoll::new().unwrap();
        epoll.add(bell, 0, Interest::READ).unwrap();
        let mut events = Events::with_capacity(1);
        let limit = Duration::from_secs(30);
        epoll.wait(&mut events, Some(limit)).unwrap();
        assert_eq!(events.iter().count(), 1, "rung within {limit:?}");
        bell.silence().unwrap();
    }

    #[test]
    fn a_file_system_that_hangs_holds_up_nobody_else() {
        let bell = Arc::new(Bell::new().unwrap());
        let (goes_on, hangs) = mpsc::sync_channel::<()>(1);
        let (begins, begun) = mpsc::sync_channel(1);
        let path = std::env::current_exe().unwrap();
        let walk = move || {
            begins.send(std::thread::current().id()).unwrap();
            hangs.recv().unwrap();
            FileWatch::open(&path)
        };
        let watch = Watch::by(Arc::clone(&bell), walk).unwrap();
        assert_ne!(begun.recv().unwrap(), std::thread::current().id());
        // It hangs, and here is somebody who goes on.
        assert!(!watch.take());
        assert!(watch.failure().is_none());
        goes_on.send(()).unwrap();
        heard(&bell);
        assert!(watch.take());
        // One that still hangs is not waited for.
        let (never, hangs) = mpsc::sync_channel::<()>(1);
        let walk = move || {
            hangs.recv().unwrap_err();
            Err(io::ErrorKind::TimedOut.into())
        };
        let stuck = Watch::by(Arc::clone(&bell), walk).unwrap();
        let told = Arc::clone(&stuck.told);
        drop(stuck);
        assert!(told.failure.get().is_none());
        drop(never);
        heard(&bell);
        assert!(told.failure.get().is_some());
    }

    #[test]
    fn what_cannot_be_watched_is_told() {
        let bell = Arc::new(Bell::new().unwrap());
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let watch = Watch::by(Arc::clone(&bell), denied).unwrap();
        heard(&bell);
        assert!(!watch.take());
        let why = watch.failure().map(io::Error::kind);
        assert_eq!(why, Some(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn it_is_read_once_it_was_left_alone_and_at_last_if_it_never_is() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.due(), None);
        rhythm.note(at(0), Seen::Changed);
        assert!(!rhythm.take(at(199)));
        rhythm.note(at(199), Seen::Changed);
        assert_eq!(rhythm.due(), Some(at(399)));
        assert!(rhythm.take(at(399)));
        assert!(!rhythm.take(at(9_000)));
        for ms in (10_000..11_950).step_by(50) {
            rhythm.note(at(ms), Seen::Changed);
            assert!(!rhythm.take(at(ms)), "{ms}");
        }
        rhythm.note(at(11_990), Seen::Changed);
        assert_eq!(rhythm.due(), Some(at(12_000)));
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let start = clock::now();
        let mut rhythm = Rhythm::default();
        rhythm.note(start, Seen::Changed);
        rhythm.note(start, Seen::Writing);
        assert_eq!(rhythm.due(), None);
        let closed = start + Duration::from_secs(60);
        rhythm.note(closed, Seen::Changed);
        // Long overdue: its first change was a minute ago.
        assert!(rhythm.take(closed));
    }
}
