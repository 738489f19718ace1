//! The runtime directory: the lock that keeps a second keeper out, and the state file through
//! which one keeper speaks to the next.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::KeeperError;
use crate::config;
use crate::net::clock;
use crate::vrrp::stamp::{HoldMark, Stamp};

/// The longest state file that is read, bytes.
const STATE_BYTES_MAX: usize = 64 * 1024;
/// Length and digest before the encoded state.
const HEADER_BYTES: usize = 16;

/// The runtime directory, held by this keeper alone.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    lock: Flock<File>,
    state: File,
}

/// What one keeper leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The boot it speaks of.
    pub(super) boot_id: String,
    /// The proxy that was running.
    pub(super) proxy: Option<ProxyMark>,
    /// When each router last advertised as Active.
    pub(super) stamps: Vec<Stamp>,
    /// Which routers preempt nobody after a failover by command.
    pub(super) holds: Vec<HoldMark>,
}

/// One process of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProxyMark {
    pub(super) pid: i32,
    /// `net::process::start_time`.
    pub(super) start_time: u64,
}

impl RuntimeDir {
    /// Makes the directory if need be and takes its lock, unless an earlier program of this process
    /// `held` it.
    ///
    /// # Errors
    /// [`KeeperError::AlreadyRunning`] when another keeper holds it; [`KeeperError::RuntimeDir`].
    pub(super) fn open(path: &Path, held: Option<File>) -> Result<Self, KeeperError> {
        let failed = |source| KeeperError::RuntimeDir {
            path: path.to_path_buf(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder.create(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let lock = match held {
            Some(held) => held,
            None => options.open(path.join("keeper.lock")).map_err(failed)?,
        };
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(KeeperError::AlreadyRunning {
                    path: path.to_path_buf(),
                });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let state = options.open(path.join("keeper.state")).map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            lock,
            state,
        })
    }

    /// The lock that keeps a second keeper out.
    pub(super) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the proxy connects.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("keeper.sock")
    }

    /// What the previous keeper left, if it was of this boot and is whole.
    pub(super) fn read(&self) -> Option<State> {
        let mut bytes = vec![0; STATE_BYTES_MAX];
        let length = self.state.read_at(&mut bytes, 0).ok()?;
        let state = decode(bytes.get(..length)?)?;
        (state.boot_id == boot_id()).then_some(state)
    }

    /// Replaces the state in one write.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn write(&self, state: &State) -> io::Result<()> {
        let bytes = encode(state).map_err(io::Error::other)?;
        self.state.write_all_at(&bytes, 0)
    }
}

/// The kernel's name for this boot; empty where unknown.
pub(super) fn boot_id() -> String {
    clock::boot_id().map_or_else(String::new, |id| format!("{id:032x}"))
}

fn encode(state: &State) -> Result<Vec<u8>, postcard::Error> {
    let body = postcard::to_stdvec(state)?;
    let length = u64::try_from(body.len()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(digest(&body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<State> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    if digest(body) != u64::from_le_bytes(*expected) {
        return None;
    }
    postcard::from_bytes(body).ok()
}

/// FNV-1a 64 of bytes that needn't be text.
fn digest(bytes: &[u8]) -> u64 {
    config::digest(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            boot_id: boot_id(),
            proxy: Some(ProxyMark {
                pid: 77,
                start_time: 4711,
            }),
            stamps: Vec::new(),
            holds: Vec::new(),
        }
    }

    #[test]
    fn a_torn_or_foreign_state_is_no_state() {
        let bytes = encode(&state()).unwrap();
        assert_eq!(decode(&bytes), Some(state()));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{end}");
        }
        let mut torn = bytes.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(decode(&torn), None);
        assert_eq!(decode(&[0xff; 64]), None);
    }

    #[test]
    fn a_second_keeper_is_kept_out_and_the_next_one_reads_the_state() {
        let dir = std::env::temp_dir().join(format!("lbd-runtime-{}", std::process::id()));
        let first = RuntimeDir::open(&dir, None).unwrap();
        assert_eq!(first.read(), None);
        let second = RuntimeDir::open(&dir, None);
        assert!(matches!(second, Err(KeeperError::AlreadyRunning { .. })));
        first.write(&state()).unwrap();
        drop(first);
        let third = RuntimeDir::open(&dir, None).unwrap();
        assert_eq!(third.read(), Some(state()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
