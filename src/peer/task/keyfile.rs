//! The key file: read at the start, and again when it has changed, so that a roll-over needs no
//! restart. A file that can't be used leaves the last keys in force.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::peer::key::{FILE_BYTES_MAX, KeyError, Keys};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Any right of others.
const OTHERS: u32 = 0o007;

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("key file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Everybody on this machine may read or write it.
    #[error("key file is open to every user of this machine; `chmod o= FILE` mends that")]
    Open,
    /// It holds no usable keys.
    #[error("key file: {0}")]
    Keys(#[from] KeyError),
}

/// Reads a key file.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    // Whatever the name leads to, the keeper must not wait for it.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::other("it is no regular file").into());
    }
    if facts.mode() & OTHERS != 0 {
        return Err(KeyFileError::Open);
    }
    let most = u64::try_from(FILE_BYTES_MAX).map_err(io::Error::other)? + 1;
    let mut bytes = Vec::with_capacity(FILE_BYTES_MAX + 1);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Keys::parse(&bytes)?)
}

/// What tells one content of a file from the next: device, inode, size, time of change.
type Mark = (u64, u64, u64, i64, i64);

/// The key file and what it held.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    mark: Option<Mark>,
    look_at: Instant,
    pub(super) keys: Option<Keys>,
    pub(super) fault: Option<String>,
}

impl KeyFile {
    pub(super) fn open(path: &Path, now: Instant) -> Self {
        let mut file = Self {
            path: path.to_owned(),
            mark: None,
            look_at: now,
            keys: None,
            fault: None,
        };
        file.load();
        file
    }

    /// Looks at the file if it is time to.
    pub(super) fn tick(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        if mark(&self.path) != self.mark {
            self.load();
        }
    }

    fn load(&mut self) {
        self.mark = mark(&self.path);
        match read(&self.path) {
            Ok(keys) => {
                tracing::info!(keys = keys.count(), "keys of the peer channel read");
                self.keys = Some(keys);
                self.fault = None;
            }
            Err(error) => {
                tracing::error!(%error, "keys of the peer channel not read");
                self.fault = Some(error.to_string());
            }
        }
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let data = fs::metadata(path).ok()?;
    let changed = (data.ctime(), data.ctime_nsec());
    Some((data.dev(), data.ino(), data.size(), changed.0, changed.1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::clock;

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("lbd-{}-{name}", std::process::id()));
            let file = Self(path);
            file.write(text, mode);
            file
        }

        fn write(&self, text: &str, mode: u32) {
            fs::write(&self.0, text).unwrap();
            fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            drop(fs::remove_file(&self.0));
        }
    }

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn a_key_file_that_others_may_read_is_not_used() {
        let file = File::new("open.key", A, 0o644);
        assert!(matches!(read(&file.0), Err(KeyFileError::Open)));
        file.write(A, 0o640);
        assert_eq!(read(&file.0).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_leads_to_no_file_is_not_waited_for() {
        let file = File::new("fifo.key", A, 0o600);
        fs::remove_file(&file.0).unwrap();
        nix::unistd::mkfifo(&file.0, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&file.0), Err(KeyFileError::Io(_))));
        assert!(matches!(read(Path::new("/proc")), Err(KeyFileError::Io(_))));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_leaves_the_last_keys() {
        let file = File::new("rolled.key", A, 0o600);
        let now = clock::now();
        let mut keys = KeyFile::open(&file.0, now);
        assert_eq!(keys.keys.as_ref().unwrap().count(), 1);
        file.write(&format!("{B}\n{A}\n"), 0o600);
        keys.tick(now + Duration::from_secs(2));
        assert_eq!(keys.keys.as_ref().unwrap().count(), 2);
        file.write("short", 0o600);
        keys.tick(now + Duration::from_secs(3));
        assert_eq!(keys.fault, None);
        keys.tick(now + Duration::from_secs(4));
        assert!(keys.fault.as_ref().unwrap().contains("line 1 is shorter"));
        assert_eq!(keys.keys.as_ref().unwrap().count(), 2);
    }
}
