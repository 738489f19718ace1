//! Network namespaces without names and without `ip`: the laboratory in which `lbd demo` and the
//! tests run several hosts on one machine. A namespace lives as long as its [`Namespace`] value or
//! a process inside; nothing is left behind on the host, whatever way the owner ends.
//!
//! `rtnl` makes links and addresses, `wire` the bridge that joins namespaces, `sandbox` the process
//! namespace whose end is the end of everything started in it.

pub mod rtnl;
pub mod sandbox;
pub mod wire;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use rtnl::Rtnl;

/// A host of the laboratory: a network namespace, and a mount namespace with some directories of
/// its own.
#[derive(Debug)]
pub struct Namespace {
    net: OwnedFd,
    mount: OwnedFd,
    inode: u64,
}

impl Namespace {
    /// Makes a namespace whose loopback is up. Each of `private` that exists becomes an empty
    /// directory (a tmpfs) inside, so that two hosts can use the same paths.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; what unshare(2), mount(2) and rtnetlink say.
    pub fn new(private: &[&Path]) -> io::Result<Self> {
        let private: Vec<PathBuf> = private.iter().map(|path| path.to_path_buf()).collect();
        let builder = thread::Builder::new().name("netns".into());
        join(builder.spawn(move || Self::unshare(&private))?)?
    }

    /// Runs in a thread that ends afterwards, because the thread stays inside.
    fn unshare(private: &[PathBuf]) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(|error| cannot("make a network namespace")(error.into()))?;
        let no_data: Option<&str> = None;
        mount(
            no_data,
            "/",
            no_data,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            no_data,
        )?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for path in private.iter().filter(|path| path.is_dir()) {
            mount(
                Some("tmpfs"),
                path,
                Some("tmpfs"),
                flags,
                Some("mode=755,size=256m"),
            )?;
        }
        let mut rtnl = Rtnl::open()?;
        let loopback = rtnl.link_index("lo")?;
        rtnl.set_up(loopback, true)?;
        let net = File::open("/proc/thread-self/ns/net")?;
        Ok(Self {
            inode: net.metadata()?.ino(),
            net: net.into(),
            mount: File::open("/proc/thread-self/ns/mnt")?.into(),
        })
    }

    /// Runs `f` inside, in a thread of its own, and waits for it.
    ///
    /// # Errors
    /// What setns(2) says, or that `f` panicked.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(self.net(), self.mount())?;
                Ok(f())
            });
            match inside.join() {
                Ok(result) => result,
                Err(_panic) => Err(panicked()),
            }
        })
    }

    /// Starts a thread inside.
    ///
    /// # Errors
    /// When no thread can be started. The thread's own result is an error when it can't enter.
    pub fn thread<T, F>(&self, name: &str, f: F) -> io::Result<JoinHandle<io::Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // Descriptors alone: a second `Namespace` would kill what runs inside when it is dropped.
        let (net, mount) = (self.net.try_clone()?, self.mount.try_clone()?);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            enter(net.as_fd(), mount.as_fd())?;
            drop((net, mount));
            Ok(f())
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// What fork(2), setns(2) and execve(2) say.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }

    /// An rtnetlink socket of this namespace, to be used from anywhere.
    ///
    /// # Errors
    /// What socket(2) and setns(2) say.
    pub fn rtnl(&self) -> io::Result<Rtnl> {
        self.run(Rtnl::open)?
    }

    /// The network namespace's descriptor.
    #[must_use]
    pub fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// The mount namespace's descriptor.
    #[must_use]
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// The processes inside that are alive, in the order of their ids; never the caller.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn processes(&self) -> io::Result<Vec<Process>> {
        let own = Pid::this().as_raw();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(pid) = name.and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // A process that ends meanwhile is not inside.
            let inside = fs::metadata(path.join("ns/net")).is_ok_and(|ns| ns.ino() == self.inode);
            if !inside || pid == own {
                continue;
            }
            if is_dead(&path) {
                continue;
            }
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let arguments = command.split(|byte| *byte == 0);
            found.push(Process {
                pid: Pid::from_raw(pid),
                command: arguments
                    .filter(|argument| !argument.is_empty())
                    .map(|argument| String::from_utf8_lossy(argument).into_owned())
                    .collect(),
            });
        }
        found.sort_by_key(|process| process.pid.as_raw());
        Ok(found)
    }

    /// Sends a signal to every process inside; how many there were.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn signal(&self, signal: Signal) -> io::Result<usize> {
        let processes = self.processes()?;
        for process in &processes {
            send(process.pid, signal)?;
        }
        Ok(processes.len())
    }
}

impl Drop for Namespace {
    /// Kills what still runs inside. The kernel removes the rest with the last descriptor.
    fn drop(&mut self) {
        for _round in 0..20 {
            match self.signal(Signal::SIGKILL) {
                Ok(0) | Err(_) => return,
                Ok(_) => thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
    }
}

/// Moves the calling thread inside.
fn enter(net: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> io::Result<()> {
    setns(net, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_FS)?;
    setns(mount, CloneFlags::CLONE_NEWNS)?;
    Ok(())
}

/// A process in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its program and arguments; empty in the middle of execve(2).
    pub command: Vec<String>,
}

impl Process {
    /// Whether it has this argument.
    #[must_use]
    pub fn has_argument(&self, argument: &str) -> bool {
        self.command.iter().any(|found| found == argument)
    }
}

/// Whether a process has ended and only waits for its parent to notice.
fn is_dead(proc_path: &Path) -> bool {
    let stat = fs::read_to_string(proc_path.join("stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    after_name.is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

/// Sends a signal to a process that may be gone already.
fn send(pid: Pid, signal: Signal) -> nix::Result<()> {
    let sent = kill(pid, signal);
    if sent == Err(nix::Error::ESRCH) {
        return Ok(());
    }
    sent
}

/// Says what could not be done beside the kernel's reason.
fn cannot(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn join<T>(handle: JoinHandle<T>) -> io::Result<T> {
    handle.join().map_err(|_panic| panicked())
}

fn panicked() -> io::Error {
    io::Error::other("a thread in a namespace panicked")
}

#[cfg(test)]
mod tests;
