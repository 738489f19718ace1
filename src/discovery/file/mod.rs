//! The driver of a backends file: look, and read it again when it is another one. It is looked at
//! by its name each time, so that a rename and a swapped symbolic link are seen alike, on every
//! kind of file system.

mod format;

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::task::Reporter;
use crate::config::discovery::Template;
use crate::config::model::Server;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The largest file that is read, bytes: 512 servers with labels need far less.
const BYTES_MAX: u64 = 1024 * 1024;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a look is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There was none, or it could not be looked at.
    Nothing(Option<i32>),
    File(Stamp),
}

/// What was read, and what the last look saw.
#[derive(Debug, Default)]
struct Watch {
    told: Option<Seen>,
    last: Option<Seen>,
}

impl Watch {
    /// Whether what a look saw is to be read: it is new, and was there at the look before, so that
    /// nobody is still writing it. The first is not delayed.
    fn is_due(&mut self, seen: Seen) -> bool {
        let settled = self.told.is_none() || self.last == Some(seen);
        self.last = Some(seen);
        settled && self.told != Some(seen)
    }
}

/// Follows the file for ever.
pub(super) async fn follow(path: PathBuf, template: Template, reporter: Reporter) {
    let is_toml = path.extension().is_some_and(|ending| ending == "toml");
    let mut watch = Watch::default();
    loop {
        let looked = path.clone();
        // A file system that hangs must not stop the control thread.
        let look = tokio::task::spawn_blocking(move || look(&looked)).await;
        let seen = look.unwrap_or(Seen::Nothing(None));
        if watch.is_due(seen) {
            let from = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&from, is_toml, template)).await;
            let (outcome, stamp) = match read {
                Ok(read) => read,
                Err(error) => (Err(error.to_string()), None),
            };
            watch.told = Some(stamp.map_or(seen, Seen::File));
            if !reporter.say(outcome).await {
                return;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look(path: &Path) -> Seen {
    match std::fs::metadata(path) {
        Ok(meta) => Seen::File(Stamp::of(&meta)),
        Err(error) => Seen::Nothing(error.raw_os_error()),
    }
}

/// The servers, and the stamp of what was read.
fn read(
    path: &Path,
    is_toml: bool,
    template: Template,
) -> (Result<Vec<Server>, String>, Option<Stamp>) {
    match text(path) {
        Ok((text, stamp)) => (format::servers(&text, is_toml, template), Some(stamp)),
        Err(error) => (Err(error.to_string()), None),
    }
}

fn text(path: &Path) -> io::Result<(String, Stamp)> {
    // Looked at first: to open a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > BYTES_MAX) {
        return Err(io::Error::other("it is over 1 MiB"));
    }
    // From before the bytes: whoever wrote meanwhile left another.
    Ok((text, Stamp::of(&meta)))
}

#[cfg(test)]
mod tests;
