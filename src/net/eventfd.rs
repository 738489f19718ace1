//! eventfd(2): one thread wakes another out of its wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell that any thread may ring and one thread waits for.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// A silent bell, non-blocking.
    ///
    /// # Errors
    /// The kernel's, from `eventfd2`.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Makes the bell readable. A bell that rings already stays so.
    ///
    /// # Errors
    /// The kernel's, other than "would block".
    pub fn ring(&self) -> io::Result<()> {
        match self.0.write(1) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the bell silent again.
    ///
    /// # Errors
    /// The kernel's, other than "would block".
    pub fn silence(&self) -> io::Result<()> {
        match self.0.read() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
