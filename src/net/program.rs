//! Programs that users give lbd to run: whether they may be run, as whom, and how they are started:
//! without capabilities, without a way to gain any, without descriptors of ours.
#![expect(unsafe_code, reason = "the step between fork and exec")]

use std::ffi::{CString, OsStr};
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use caps::{CapSet, Capability};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, pipe2, read, setgroups, setresgid,
    setresuid, setsid, write,
};

use super::privileges;
use super::process::Process;
use crate::config::Trouble;
use crate::config::model::RunAs;

/// What a program may lock in memory, bytes: the kernel's own old default.
const LOCKED_BYTES_MAX: u64 = 64 << 10;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Whose rights a program gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Looks at a program that is to be run; `None`: as the user we are.
///
/// # Errors
/// Why it is not to be run.
pub fn prepare(program: &Path, run_as: Option<&RunAs>) -> Result<Option<Identity>, Trouble> {
    let identity = run_as.map(identity_of).transpose()?;
    let own = |identity: &Identity| identity.uid == geteuid() && identity.gid == getegid();
    let identity = identity.filter(|identity| !own(identity));
    if identity.is_some() && !may_change_identity() {
        return Err(Trouble::NotPermitted);
    }
    let found = fs::metadata(program).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Trouble::Missing
        } else {
            Trouble::NotExecutable
        }
    })?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(Trouble::NotExecutable);
    }
    let uid = identity
        .as_ref()
        .map_or_else(geteuid, |identity| identity.uid);
    if uid.is_root() {
        refuse_changeable(program)?;
    }
    Ok(identity)
}

fn identity_of(run_as: &RunAs) -> Result<Identity, Trouble> {
    let no_user = |_| Trouble::NoSuchUser(run_as.user.clone());
    let user = User::from_name(&run_as.user).map_err(no_user)?;
    let user = user.ok_or_else(|| Trouble::NoSuchUser(run_as.user.clone()))?;
    let gid = match &run_as.group {
        None => user.gid,
        Some(name) => {
            let group = Group::from_name(name).ok().flatten();
            group.ok_or_else(|| Trouble::NoSuchGroup(name.clone()))?.gid
        }
    };
    let name = CString::new(run_as.user.as_str());
    let name = name.map_err(|_nul| Trouble::NoSuchUser(run_as.user.clone()))?;
    Ok(Identity {
        uid: user.uid,
        gid,
        groups: getgrouplist(&name, gid).map_err(no_user)?,
    })
}

/// Only root's runner has what it takes: another user's lost every capability when it was started.
fn may_change_identity() -> bool {
    let held = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    geteuid().is_root() && held(Capability::CAP_SETUID) && held(Capability::CAP_SETGID)
}

/// Refuses what somebody beside root could exchange: the file, and every directory above it, both
/// as written and with its symbolic links resolved.
fn refuse_changeable(program: &Path) -> Result<(), Trouble> {
    let resolved = fs::canonicalize(program).map_err(|_error| Trouble::Missing)?;
    for place in program.ancestors().chain(resolved.ancestors()) {
        let found = fs::metadata(place).map_err(|_error| Trouble::Missing)?;
        if !is_roots_alone(&found) {
            return Err(Trouble::ChangeableByOthers(place.to_owned()));
        }
    }
    Ok(())
}

/// In a sticky directory nobody can move or replace what belongs to root.
fn is_roots_alone(found: &Metadata) -> bool {
    let mode = found.permissions().mode();
    let sticky = found.is_dir() && mode & STICKY != 0;
    let group = mode & WRITABLE_BY_GROUP != 0 && found.gid() != 0;
    let writable = mode & WRITABLE_BY_OTHERS != 0 || group;
    found.uid() == 0 && (sticky || !writable)
}

/// What to run.
#[derive(Debug)]
pub struct Run<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// Exactly this environment.
    pub env: &'a [(&'a str, &'a str)],
    /// From [`prepare`].
    pub identity: Option<Identity>,
}

/// A running program and the end of the pipe it writes to (non-blocking).
#[derive(Debug)]
pub struct Running {
    /// The leader of its own session and process group.
    pub process: Process,
    /// Its stdout and stderr.
    pub output: OwnedFd,
}

/// Starts a program: own session and process group, stdin from /dev/null, stdout and stderr into
/// one pipe, working directory `/`, no signal blocked, no capability, no_new_privs, not real-time. It is killed
/// when the thread that started it ends.
///
/// # Errors
/// What fork or exec said.
pub fn start(run: Run<'_>) -> io::Result<Running> {
    let Some((program, args)) = run.command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let (output, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut command = Command::new(program);
    command
        .args(args.iter().map(OsStr::new))
        .env_clear()
        .envs(run.env.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    let identity = run.identity;
    let between = move || {
        setsid()?;
        be_ordinary()?;
        SigSet::empty().thread_set_mask()?;
        if let Some(identity) = &identity {
            setgroups(&identity.groups)?;
            setresgid(identity.gid, identity.gid, identity.gid)?;
            setresuid(identity.uid, identity.uid, identity.uid)?;
        }
        prctl::set_no_new_privs()?;
        privileges::give_up_all()?;
        keep_nothing_open();
        // Behind the change of user, which clears it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    };
    // SAFETY: the closure only makes system calls; what they read was allocated before the fork.
    let command = unsafe { command.pre_exec(between) };
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Running {
        process: Process::open(pid)?,
        output,
    })
}

/// Takes back what a service manager gives the keeper alone: the rights to be real-time and to lock
/// memory, and to be spared when memory runs out. Before the change of user, behind which /proc/self
/// may be root's.
fn be_ordinary() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_RTPRIO, 0, 0)?;
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let most = most.min(LOCKED_BYTES_MAX);
    setrlimit(Resource::RLIMIT_MEMLOCK, most, most)?;
    // Where there is no /proc nothing was given either. Programs of root in lbd's own sandbox can't write
    // there, and keep what somebody gave the keeper.
    if let Ok(score) = open(c"/proc/self/oom_score_adj", OFlag::O_RDWR, Mode::empty()) {
        let mut sign = [0];
        if read(&score, &mut sign)? == 1 && sign == *b"-" {
            write(&score, b"0")?;
        }
    }
    Ok(())
}

/// Marks every descriptor beyond stderr to be closed by exec, also those that we inherited.
fn keep_nothing_open() {
    let first: libc::c_uint = 3;
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: close_range takes three integers, and with this flag closes nothing by itself.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if done == 0 {
        return;
    }
    // Kernels before 5.11.
    for fd in 3..1024 {
        // SAFETY: sets a flag of a descriptor, or fails where there is none.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Reads what a program has written; `Some(0)` once nobody writes any more, `None` when there is
/// nothing at the moment.
///
/// # Errors
/// The kernel's.
pub fn read_output(output: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match read(output, buffer) {
        Ok(length) => Ok(Some(length)),
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
