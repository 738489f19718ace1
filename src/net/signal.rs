//! Signals as a descriptor: signalfd(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals of this thread, read like messages.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// What an operator or the service manager asks of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Upgrade,
}

impl Signals {
    /// Blocks SIGTERM, SIGINT, SIGHUP and SIGUSR2 for this thread (and those it starts) and reads them
    /// from a descriptor instead.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut set = SigSet::empty();
        let mine = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR2,
        ];
        for signal in mine {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// The next pending request; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self) -> io::Result<Option<Request>> {
        let Some(info) = self.0.read_signal()? else {
            return Ok(None);
        };
        let is = |signal: Signal| i32::try_from(info.ssi_signo) == Ok(signal as i32);
        Ok(Some(if is(Signal::SIGHUP) {
            Request::Reload
        } else if is(Signal::SIGUSR2) {
            Request::Upgrade
        } else {
            Request::Stop
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Keeps SIGHUP and SIGUSR2, which would end the process, until [`Signals`] reads them. For this
/// thread and those it starts.
///
/// # Errors
/// The kernel's.
pub fn keep_orders() -> io::Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    set.add(Signal::SIGUSR2);
    Ok(set.thread_block()?)
}

/// Sends this process SIGHUP. While [`Signals`] has it blocked it waits, also for the program that
/// this process runs next.
///
/// # Errors
/// The kernel's.
pub fn hang_up_self() -> io::Result<()> {
    Ok(nix::sys::signal::kill(
        nix::unistd::Pid::this(),
        Signal::SIGHUP,
    )?)
}

/// Lets every signal through again: a started program inherits what its parent had blocked.
///
/// # Errors
/// The kernel's.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_is_read_as_a_reload_request() {
        keep_orders().unwrap();
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        let signals = Signals::open().unwrap();
        assert_eq!(signals.take().unwrap(), Some(Request::Reload));
        assert_eq!(signals.take().unwrap(), None);
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert_eq!(signals.take().unwrap(), Some(Request::Reload));
        nix::sys::signal::raise(Signal::SIGINT).unwrap();
        assert_eq!(signals.take().unwrap(), Some(Request::Stop));
        unblock_all().unwrap();
    }
}
