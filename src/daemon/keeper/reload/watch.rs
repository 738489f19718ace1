//! `reload.watch`: a thread that sleeps until the file has changed, and rings. It reads nothing: the
//! reload that follows does, and finds out whether anything differs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    changed: Arc<AtomicBool>,
    stop: Arc<Bell>,
}

impl Watch {
    /// Starts the thread, which rings `bell` whenever the file may be another, and once at first:
    /// it may have changed before.
    pub(super) fn begin(path: &Path, bell: Arc<Bell>) -> io::Result<Self> {
        let file = FileWatch::open(path)?;
        let stop = Arc::new(Bell::new()?);
        let epoll = Epoll::new()?;
        epoll.add(&file, FILE, Interest::READ)?;
        epoll.add(&*stop, STOP, Interest::READ)?;
        let changed = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            file,
            epoll,
            changed: Arc::clone(&changed),
            bell,
            // It stays open until the thread has seen it.
            stop: Arc::clone(&stop),
        };
        std::thread::Builder::new()
            .name("file-watch".to_owned())
            // All of it may be locked in memory.
            .stack_size(STACK_BYTES)
            .spawn(move || thread.run())?;
        Ok(Self { changed, stop })
    }

    /// Whether it has rung since this was asked.
    pub(super) fn take(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
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
    changed: Arc<AtomicBool>,
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
        self.changed.store(true, Ordering::Release);
        if let Err(error) = self.bell.ring() {
            tracing::error!(%error, "the keeper cannot be woken");
        }
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
