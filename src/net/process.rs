//! Processes: starting them, watching and ending them through pidfds (a number that can't be
//! reused under us), and what /proc says about their threads.
#![expect(
    unsafe_code,
    reason = "pidfd system calls, and the step between fork and exec"
)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// This program's own file, also when it was replaced on disk.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// A process that can be awaited with epoll and signalled without risk of hitting another.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Exit code.
    Exited(i32),
    /// Number of the signal that killed it.
    Signalled(i32),
}

impl Process {
    /// The running process `pid`.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a descriptor or −1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: pidfd_open has just returned this descriptor to us alone (close-on-exec).
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { pid, fd })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended; `PermissionDenied`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        let number = signal as libc::c_int;
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: `fd` is an open pidfd; a null siginfo is allowed and means kill(2)'s.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, 0_u32) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Collects an ended child; `None` while it runs.
    ///
    /// # Errors
    /// `ECHILD` when it is not our child.
    pub fn reap(&self) -> io::Result<Option<Ended>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        Ok(match waitid(Id::PIDFd(self.fd.as_fd()), flags)? {
            WaitStatus::Exited(_, code) => Some(Ended::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Some(Ended::Signalled(signal as i32)),
            WaitStatus::StillAlive
            | WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_) => None,
        })
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Signals the whole process group that `leader` leads.
///
/// # Errors
/// `ESRCH` when no member is left.
pub fn signal_group(leader: i32, signal: Signal) -> io::Result<()> {
    Ok(killpg(Pid::from_raw(leader), signal)?)
}

/// What to start and in which surroundings.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program's path.
    pub program: &'a Path,
    /// `argv[0]`, where it shall differ from the path.
    pub name: Option<&'a str>,
    /// Its arguments.
    pub args: &'a [&'a OsStr],
    /// `None`: inherits the environment; else exactly these.
    pub env: Option<&'a [(&'a str, &'a str)]>,
    /// Becomes descriptor 3 of the new process.
    pub fd3: Option<BorrowedFd<'a>>,
    /// True: stdout and stderr go to /dev/null (stdin always does).
    pub quiet: bool,
    /// It gets CAP_NET_RAW, if the thread that starts it has it.
    pub net_raw: bool,
    /// Sent to the new process when the thread that started it ends.
    pub on_parent_death: Option<Signal>,
}

/// Starts a program as the leader of its own session and process group, with no signal blocked and
/// no ambient capability but the one it is given. (In its parent's session it would be sent SIGHUP and SIGCONT if it is
/// stopped when the parent ends.)
///
/// # Errors
/// What fork or exec said.
pub fn launch(what: &Launch<'_>) -> io::Result<Process> {
    let mut command = Command::new(what.program);
    if let Some(name) = what.name {
        command.arg0(name);
    }
    command.args(what.args).stdin(Stdio::null());
    if what.quiet {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    if let Some(env) = what.env {
        command.env_clear().envs(env.iter().copied());
    }
    let fd3 = what.fd3.map(|fd| fd.as_raw_fd());
    let on_parent_death = what.on_parent_death;
    let net_raw = what.net_raw;
    let between = move || {
        nix::unistd::setsid()?;
        SigSet::empty().thread_set_mask()?;
        super::privileges::leave_nothing_ambient()?;
        if net_raw {
            super::privileges::pass_on_net_raw()?;
        }
        if on_parent_death.is_some() {
            nix::sys::prctl::set_pdeathsig(on_parent_death)?;
        }
        match fd3 {
            Some(fd) => install_fd3(fd),
            None => Ok(()),
        }
    };
    // SAFETY: the closure only makes async-signal-safe system calls and allocates nothing.
    let command = unsafe { command.pre_exec(between) };
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Process::open(pid)
}

/// Between fork and exec: makes `fd` descriptor 3 that survives the exec.
fn install_fd3(fd: i32) -> io::Result<()> {
    let result = if fd == 3 {
        // SAFETY: clearing the flags of a descriptor touches no memory.
        unsafe { libc::fcntl(3, libc::F_SETFD, 0) }
    } else {
        // SAFETY: dup2 takes two integers; descriptor 3 of the child is nobody's concern.
        unsafe { libc::dup2(fd, 3) }
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The socket a parent passed down as descriptor 3.
///
/// # Errors
/// When nothing was passed, or it was taken before.
pub fn take_fd3() -> io::Result<OwnedFd> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if TAKEN.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: reading the flags of a descriptor touches no memory.
    if unsafe { libc::fcntl(3, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: descriptor 3 is open (just asked), was passed down for us, and is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(3) })
}

/// Waits for a process to end and collects it if it is a child; false when it still runs after
/// `limit`. For the end of a program: nothing else happens meanwhile.
#[must_use]
pub fn await_end(process: &Process, limit: std::time::Duration) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let ended = poll(&mut fds, timeout).is_ok_and(|ready| ready > 0);
    if ended && let Err(error) = process.reap() {
        tracing::debug!(%error, "not our child");
    }
    ended
}

/// A thread as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadState {
    /// R running or runnable, S sleeping, D uninterruptible, T stopped, t traced, Z ended.
    pub state: char,
    /// Nanoseconds it ran on a CPU so far.
    pub run_ns: u64,
    /// Nanoseconds it was runnable and waited for a CPU so far.
    pub wait_ns: u64,
}

/// Looks at thread `tid` of process `pid`.
///
/// # Errors
/// `NotFound` when it has ended; `InvalidData` when /proc speaks differently.
pub fn thread_state(pid: i32, tid: i32) -> io::Result<ThreadState> {
    let dir = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
    let stat = std::fs::read_to_string(dir.join("stat"))?;
    let schedstat = std::fs::read_to_string(dir.join("schedstat")).unwrap_or_default();
    parse_thread_state(&stat, &schedstat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The thread ids of process `pid`, in no order, at most `max` of them.
///
/// # Errors
/// `NotFound` when it has ended.
pub fn threads(pid: i32, max: usize) -> io::Result<Vec<i32>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    let tid = |task: std::fs::DirEntry| task.file_name().to_str()?.parse().ok();
    Ok(tasks
        .map_while(Result::ok)
        .filter_map(tid)
        .take(max)
        .collect())
}

/// Fields of proc(5): the state follows the command name, which ends at the last parenthesis.
fn parse_thread_state(stat: &str, schedstat: &str) -> Option<ThreadState> {
    let (_, after) = stat.rsplit_once(") ")?;
    let state = after.chars().next()?;
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let run_ns = next();
    let wait_ns = next();
    Some(ThreadState {
        state,
        run_ns,
        wait_ns,
    })
}

/// When process `pid` started, in clock ticks since boot: with the pid it names one process of
/// this boot.
///
/// # Errors
/// `NotFound` when there is none; `InvalidData` when /proc speaks differently.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let field = after.split_ascii_whitespace().nth(19);
    field
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn shell(script: &str) -> Process {
        let args = [OsStr::new("-c"), OsStr::new(script)];
        launch(&Launch {
            program: Path::new("/bin/sh"),
            name: None,
            args: &args,
            env: Some(&[("PATH", "/usr/bin:/bin")]),
            fd3: None,
            quiet: true,
            net_raw: false,
            on_parent_death: Some(Signal::SIGKILL),
        })
        .unwrap()
    }

    fn await_end(child: &Process) -> Ended {
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)).unwrap(), 1);
        child.reap().unwrap().unwrap()
    }

    #[test]
    fn a_child_is_awaited_and_collected_through_its_pidfd() {
        assert_eq!(await_end(&shell("exit 7")), Ended::Exited(7));
        let sleeper = shell("exec sleep 30");
        assert_eq!(sleeper.reap().unwrap(), None);
        sleeper.signal(Signal::SIGKILL).unwrap();
        assert_eq!(await_end(&sleeper), Ended::Signalled(9));
    }

    #[test]
    fn a_signal_to_the_group_reaches_the_grandchildren() {
        let (read, write) = io::pipe().unwrap();
        let args = [OsStr::new("-c"), OsStr::new("sleep 30 & wait")];
        let child = launch(&Launch {
            program: Path::new("/bin/sh"),
            name: None,
            args: &args,
            env: None,
            fd3: Some(write.as_fd()),
            quiet: true,
            net_raw: false,
            on_parent_death: Some(Signal::SIGKILL),
        })
        .unwrap();
        drop(write);
        signal_group(child.pid(), Signal::SIGKILL).unwrap();
        assert_eq!(await_end(&child), Ended::Signalled(9));
        // Descriptor 3 was the pipe: end of file proves that no member of the group is left.
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)).unwrap(), 1);
    }

    #[test]
    fn a_stopped_process_shows_as_stopped() {
        let child = shell("exec sleep 30");
        child.signal(Signal::SIGSTOP).unwrap();
        let stopped = (0..1000).any(|_| {
            poll(&mut [], PollTimeout::from(1_u16)).unwrap();
            thread_state(child.pid(), child.pid()).unwrap().state == 'T'
        });
        child.signal(Signal::SIGKILL).unwrap();
        await_end(&child);
        assert!(stopped);
    }

    #[test]
    fn threads_are_listed_up_to_a_bound_and_none_of_a_process_that_has_gone() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = nix::unistd::gettid().as_raw();
        let all = threads(pid, 4096).unwrap();
        assert!(all.contains(&pid) && all.contains(&own), "{all:?}");
        assert_eq!(threads(pid, 1).unwrap().len(), 1);
        assert!(threads(0, 1).is_err());
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_confuse() {
        let state = parse_thread_state("12 (a) R (b) S 1 12", "500 40 3\n").unwrap();
        assert_eq!((state.state, state.run_ns, state.wait_ns), ('S', 500, 40));
        assert_eq!(parse_thread_state("", ""), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_said_at_once() {
        let result = launch(&Launch {
            program: Path::new("/nonexistent/check"),
            name: None,
            args: &[],
            env: None,
            fd3: None,
            quiet: true,
            net_raw: false,
            on_parent_death: None,
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_process_is_named_by_its_pid_and_its_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(pid).unwrap() > 0);
        assert_eq!(start_time(pid).unwrap(), start_time(pid).unwrap());
    }
}
