//! Pipes and splice(2): bytes from socket to socket without passing through user space.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// What a pipe holds, bytes: as much as the kernel allows an unprivileged process. All pipes of
/// such a user share 64 MiB before the kernel shrinks new ones, so there may not be many.
pub const PIPE_BYTES: usize = 1024 * 1024;

/// A non-blocking pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A new, empty pipe.
    ///
    /// # Errors
    /// The kernel's, from `pipe2`, or because it would give the pipe no more than a few pages.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let size = i32::try_from(PIPE_BYTES).map_err(io::Error::other)?;
        fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))?;
        Ok(Self { read, write })
    }

    /// Whether both of its descriptors have numbers below this.
    #[must_use]
    pub fn is_below(&self, number: RawFd) -> bool {
        self.read.as_raw_fd().max(self.write.as_raw_fd()) < number
    }

    /// Moves up to `limit` bytes from a socket into the pipe; 0 means the stream has ended.
    ///
    /// # Errors
    /// The kernel's; "would block" when the socket has nothing or the pipe is full.
    pub fn fill(&self, from: impl AsFd, limit: usize) -> io::Result<usize> {
        move_bytes(from, &self.write, limit)
    }

    /// Moves up to `limit` bytes from the pipe into a socket.
    ///
    /// # Errors
    /// The kernel's; "would block" when the socket takes nothing or the pipe is empty.
    pub fn drain(&self, to: impl AsFd, limit: usize) -> io::Result<usize> {
        move_bytes(&self.read, to, limit)
    }
}

fn move_bytes(from: impl AsFd, to: impl AsFd, limit: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, limit, flags)?)
}
