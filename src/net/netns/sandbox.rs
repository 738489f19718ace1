//! A process namespace around a whole program: the program runs again below the first process of
//! a namespace, and when either ends, however it ends, the kernel kills all that was started.
//! As root, or unprivileged through a user namespace in which the user is root.
//!
//! Three runs of one program: the outer one waits; the first process of the namespace (`init`)
//! buries orphans; the one inside is the program proper.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getpid, getppid};

/// Set for the inner runs.
const MARK: &str = "LBD_SANDBOX";

/// Which of the runs this is.
#[derive(Debug)]
pub enum Sandbox {
    /// The program proper, inside.
    Inside(Inside),
    /// One of those around it, after it ended.
    Ended(u8),
}

/// What the inner run should know.
#[derive(Debug, Clone, Copy)]
pub struct Inside {
    /// The process id by which the outside knows this process.
    pub outer_pid: u32,
    /// Whether it runs in a user namespace, without real privileges.
    pub user_namespace: bool,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Neither root nor user namespaces.
    #[error(
        "this kernel lets only root make namespaces here (unshare: {0}); run it as root, or allow \
         user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces)"
    )]
    NoNamespaces(#[source] io::Error),
    /// The user could not be mapped to root inside.
    #[error("cannot map this user to root in a user namespace")]
    Map(#[source] io::Error),
    /// The program could not be started again.
    #[error("cannot start this program again in a process namespace")]
    Start(#[source] io::Error),
    /// No /proc of its own.
    #[error("cannot mount a /proc for the process namespace; run it as root outside containers")]
    Proc(#[source] io::Error),
}

/// Runs the program again inside a sandbox and waits for it, or tells the run inside that it is
/// there. To be called from main, before any thread is started.
///
/// # Errors
/// [`SandboxError`]; nothing was started then.
pub fn enter() -> Result<Sandbox, SandboxError> {
    let first = Pid::from_raw(1);
    match env::var(MARK).as_deref() {
        Ok(kind) if getpid() == first => init(kind).map(Sandbox::Ended),
        Ok(kind) if getppid() == first => inside(kind == "user").map(Sandbox::Inside),
        Ok(_) | Err(_) => outer().map(Sandbox::Ended),
    }
}

fn outer() -> Result<u8, SandboxError> {
    let kind = match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => "root",
        Err(_denied) => {
            user_namespace()?;
            "user"
        }
    };
    watched().thread_block().map_err(failed)?;
    accompany(kind)
}

/// The first process: its end is the end of all others, so it ends with the outer run.
fn init(kind: &str) -> Result<u8, SandboxError> {
    set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    accompany(kind)
}

fn inside(user_namespace: bool) -> Result<Inside, SandboxError> {
    // /proc is still the outer one: its `self` is our number out there.
    let outer_pid = fs::read_link("/proc/self")
        .ok()
        .and_then(|path| path.to_str().and_then(|pid| pid.parse().ok()))
        .unwrap_or(0);
    watched().thread_unblock().map_err(failed)?;
    own_proc().map_err(|error| SandboxError::Proc(error.into()))?;
    Ok(Inside {
        outer_pid,
        user_namespace,
    })
}

fn own_proc() -> nix::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
}

/// Starts the program again, hands signals on to it, and buries whoever ends, until it ends.
fn accompany(kind: &str) -> Result<u8, SandboxError> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "lbd".into());
    let child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(MARK, kind)
        .spawn()
        .map_err(SandboxError::Start)?;
    let child = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    loop {
        let signal = watched().wait().map_err(failed)?;
        if signal != Signal::SIGCHLD {
            super::send(child, signal).map_err(failed)?;
            continue;
        }
        if let Some(code) = bury(child)? {
            return Ok(code);
        }
    }
}

/// Takes note of all that ended; the exit code if the child is among them.
fn bury(child: Pid) -> Result<Option<u8>, SandboxError> {
    loop {
        let status = waitpid(None, Some(WaitPidFlag::WNOHANG)).map_err(failed)?;
        if status.pid().is_none() {
            return Ok(None);
        }
        if status.pid() != Some(child) {
            continue;
        }
        if let WaitStatus::Exited(_, code) = status {
            return Ok(Some(u8::try_from(code).unwrap_or(1)));
        }
        if let WaitStatus::Signaled(_, signal, _) = status {
            return Ok(Some(u8::try_from(128 + signal as i32).unwrap_or(1)));
        }
    }
}

fn failed(error: nix::Error) -> SandboxError {
    SandboxError::Start(error.into())
}

fn user_namespace() -> Result<(), SandboxError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
        .map_err(|error| SandboxError::NoNamespaces(error.into()))?;
    let write = |path: &str, text: &str| fs::write(path, text).map_err(SandboxError::Map);
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))
}

fn watched() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set
}
