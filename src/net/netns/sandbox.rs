//! A process namespace around a whole program: the program runs again as the first process of a
//! namespace, and when that process ends, however it ends, the kernel kills all that it started.
//! As root, or unprivileged through a user namespace in which the user is root.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getegid, geteuid, getpid};

/// Set for the inner run.
const MARK: &str = "LBD_SANDBOX";

/// Which of the two runs this is.
#[derive(Debug)]
pub enum Sandbox {
    /// The inner one: first process of its namespace.
    Inside(Inside),
    /// The outer one, after the inner one ended.
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

/// Runs the program again inside a sandbox and waits for it (the outer run), or tells the inner
/// run that it is inside. To be called from main, before any thread is started.
///
/// # Errors
/// [`SandboxError`]; nothing was started then.
pub fn enter() -> Result<Sandbox, SandboxError> {
    match env::var(MARK) {
        Ok(kind) if getpid() == Pid::from_raw(1) => inner(kind == "user").map(Sandbox::Inside),
        Ok(_) | Err(_) => outer().map(Sandbox::Ended),
    }
}

fn inner(user_namespace: bool) -> Result<Inside, SandboxError> {
    // /proc is still the outer one: its `self` is our number out there.
    let outer_pid = fs::read_link("/proc/self")
        .ok()
        .and_then(|path| path.to_str().and_then(|pid| pid.parse().ok()))
        .unwrap_or(0);
    set_pdeathsig(Signal::SIGKILL).map_err(|error| SandboxError::Start(error.into()))?;
    watched()
        .thread_unblock()
        .map_err(|error| SandboxError::Start(error.into()))?;
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

fn outer() -> Result<u8, SandboxError> {
    let kind = match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => "root",
        Err(_denied) => {
            user_namespace()?;
            "user"
        }
    };
    let failed = |error: io::Error| SandboxError::Start(error);
    watched()
        .thread_block()
        .map_err(|error| failed(error.into()))?;
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "lbd".into());
    let mut child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(MARK, kind)
        .spawn()
        .map_err(failed)?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(code(status));
        }
        let signal = watched().wait().map_err(|error| failed(error.into()))?;
        if signal != Signal::SIGCHLD {
            super::send(pid, signal).map_err(|error| failed(error.into()))?;
        }
    }
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

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
