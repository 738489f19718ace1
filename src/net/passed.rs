//! Descriptors that another program left open for this one, and the change of a process's program that
//! leaves them open: sd_listen_fds(3), execve(2).
#![expect(
    unsafe_code,
    reason = "descriptors that a program was started with come as plain numbers"
)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that a service manager passes.
const LISTEN_FDS_START: RawFd = 3;
/// More than this many are not looked at.
const PASSED_MAX: RawFd = 16_384;

/// The descriptors that the service manager passed under this name (`LISTEN_PID`, `LISTEN_FDS`,
/// `LISTEN_FDNAMES`). Those under other names are closed: nobody knows what they are for.
#[must_use]
pub fn from_manager(name: &str) -> Vec<OwnedFd> {
    let variable = |key: &str| std::env::var(key).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() {
        return Vec::new();
    }
    let count: RawFd = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let numbers = LISTEN_FDS_START..LISTEN_FDS_START.saturating_add(count.min(PASSED_MAX));
    numbers
        .filter_map(|number| {
            let named = names.next() == Some(name);
            let fd = take(number).ok()?;
            named.then_some(fd)
        })
        .collect()
}

/// The descriptor of this number, which this program was started with. Close-on-exec from here on.
///
/// # Errors
/// `AlreadyExists` when it was taken before; when it isn't open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if number < LISTEN_FDS_START || taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: setting the flags of a descriptor touches no memory; one that isn't open is refused.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.push(number);
    // SAFETY: it is open (just asked), was passed to this program, which is told its number once, and
    // is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Leaves a descriptor open for the program that this process is about to run; its number there.
///
/// # Errors
/// The kernel's.
pub fn leave_open(fd: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(fd.as_raw_fd())
}

/// Takes [`leave_open`] back.
///
/// # Errors
/// The kernel's.
pub fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// The program that this process runs, wherever its file is now.
///
/// # Errors
/// The kernel's.
pub fn own_program() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(super::process::OWN_PROGRAM)?.into())
}

/// Which program.
#[derive(Debug, Clone, Copy)]
pub enum Program<'a> {
    /// The one at this path.
    At(&'a Path),
    /// The one in this open file.
    In(BorrowedFd<'a>),
}

/// Makes this process run another program with the capabilities it has, with `arguments` (the first is
/// its name), and with this process's environment but for what speaks of passed descriptors, and with
/// `also`. The signals that are blocked stay so.
///
/// Returns only if that failed; then everything is as before.
#[must_use]
pub fn run_instead(program: Program<'_>, arguments: &[OsString], also: (&str, &str)) -> io::Error {
    match try_run_instead(program, arguments, also) {
        Ok(never) => match never {},
        Err(error) => {
            if let Err(error) = super::privileges::leave_nothing_ambient() {
                tracing::debug!(%error, "ambient capabilities stay");
            }
            error
        }
    }
}

fn try_run_instead(
    program: Program<'_>,
    arguments: &[OsString],
    also: (&str, &str),
) -> io::Result<std::convert::Infallible> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let arguments = arguments.iter().map(|argument| text(argument.as_bytes()));
    let arguments: Vec<CString> = arguments.collect::<io::Result<_>>()?;
    let spoken_of = |key: &OsString| {
        let key = key.as_bytes();
        key.starts_with(b"LISTEN_") || key == also.0.as_bytes()
    };
    let mut environment = Vec::new();
    for (key, value) in std::env::vars_os().filter(|(key, _)| !spoken_of(key)) {
        let line = [key.as_bytes(), b"=", value.as_bytes()].concat();
        environment.push(text(&line)?);
    }
    environment.push(text(format!("{}={}", also.0, also.1).as_bytes())?);
    super::capset::pass_on_all()?;
    let never = match program {
        Program::At(path) => {
            let path = text(path.as_os_str().as_bytes())?;
            nix::unistd::execve(&path, &arguments, &environment)
        }
        Program::In(fd) => nix::unistd::fexecve(fd.as_fd(), &arguments, &environment),
    };
    Ok(never?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_descriptor_is_taken_once_and_only_if_it_is_open() {
        let held = std::fs::File::open("/dev/null").unwrap();
        leave_open(held.as_fd()).unwrap();
        let number = held.into_raw_fd();
        let taken = take(number).unwrap();
        assert_eq!(
            take(number).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let flags = fcntl(&taken, FcntlArg::F_GETFD).unwrap();
        assert_eq!(FdFlag::from_bits_retain(flags), FdFlag::FD_CLOEXEC);
        assert!(take(99_999).is_err());
        assert!(take(1).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_leaves_this_one_running() {
        let nowhere = Path::new("/nonexistent/lbd");
        let error = std::thread::spawn(|| {
            run_instead(Program::At(nowhere), &["lbd".into()], ("LBD_TEST", "1"))
        });
        assert_eq!(error.join().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
