//! The files that virtual routers track. The kernel tells of changes in their directories; a slow
//! look at all of them finds what it doesn't tell: targets of symbolic links, network file systems,
//! directories that come into being. The keeper would be held up by a slow disk, the runner may be.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::inotify::{InitFlags, Inotify};

use crate::ipc::runner::Reading;
use crate::net::file_watch::changes_in_directory;
use crate::track::file;

/// Between two looks that nobody asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Portions of events taken in one turn.
const READS_MAX: usize = 16;

/// The watched files.
#[derive(Debug)]
pub(super) struct Files {
    inotify: Option<Inotify>,
    files: Vec<Watched>,
    look_at: Instant,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    told: Option<Reading>,
}

impl Files {
    /// Begins to watch; a first [`look`](Self::look) is due.
    pub(super) fn new(paths: Vec<String>, now: Instant) -> Self {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let watched = |path: String| Watched {
            path: path.into(),
            told: None,
        };
        Self {
            inotify: Inotify::init(flags)
                .inspect_err(|error| tracing::warn!(%error, "tracked files are looked at slowly"))
                .ok(),
            files: paths.into_iter().map(watched).collect(),
            look_at: now,
        }
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// When the next [`look`](Self::look) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.files.is_empty()).then_some(self.look_at)
    }

    /// Takes the kernel's events in; a look is due if one of them is about one of the files.
    pub(super) fn on_events(&mut self, now: Instant) {
        let Some(inotify) = &self.inotify else { return };
        for _ in 0..READS_MAX {
            let Ok(events) = inotify.read_events() else {
                return;
            };
            let ours = |name: &std::ffi::OsString| {
                let names = self.files.iter().map(|file| file.path.file_name());
                names.flatten().any(|own| own == name)
            };
            // An event without a name is about a directory, or says that others were lost.
            if events
                .iter()
                .any(|event| event.name.as_ref().is_none_or(ours))
            {
                self.look_at = now;
            }
        }
    }

    /// Looks at every file; what has changed since the last look.
    pub(super) fn look(&mut self, now: Instant) -> Vec<(u16, Reading)> {
        self.look_at = now + LOOK_EVERY;
        let mut news = Vec::new();
        for (index, watched) in (0_u16..).zip(&mut self.files) {
            // Before the look, so that no change falls between. Adding a watch again renews it.
            if let Some(inotify) = &self.inotify {
                watch_directory(inotify, &watched.path);
            }
            let reading = read(&watched.path);
            if watched.told.as_ref() != Some(&reading) {
                watched.told = Some(reading.clone());
                news.push((index, reading));
            }
        }
        news
    }

    /// What was found in that file is not known yet where it should be: the next look finds it
    /// again.
    pub(super) fn not_told(&mut self, file: u16) {
        if let Some(watched) = self.files.get_mut(usize::from(file)) {
            watched.told = None;
        }
    }
}

fn watch_directory(inotify: &Inotify, path: &std::path::Path) {
    let Some(directory) = path.parent() else {
        return;
    };
    if let Err(error) = inotify.add_watch(directory, changes_in_directory()) {
        tracing::debug!(%error, path = %directory.display(), "directory not watched");
    }
}

fn read(path: &std::path::Path) -> Reading {
    match content(path) {
        Ok(content) => Reading::Number(file::number(content.as_deref())),
        Err(error) => Reading::Failed(error.to_string()),
    }
}

/// The first bytes of the file; `None` when it is not there.
fn content(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    // A pipe must not hold us up.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let limit = u64::try_from(file::BYTES_MAX + 1).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok(Some(content))
}
