//! A real lbd with its keeper, and what /proc tells of its proxy process.

use std::collections::BTreeMap;
use std::env::var;
use std::fs;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lbd::admin::protocol::ask_status;
use lbd::admin::status::Status;
use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{self, Folder};

/// Every wait ends after this long, and the test with it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The cases measure, so they don't run side by side.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether lbd is one with a sanitizer in it, which has memory of its own.
pub fn is_instrumented() -> bool {
    var("LBD_SANITIZED").is_ok()
}

/// Whether the condition comes true in time.
pub fn within_patience(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        if clock::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(within_patience(condition), "waited in vain: {what}");
}

/// What a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Descriptors by kind.
    pub descriptors: BTreeMap<String, usize>,
    /// Descriptors that some epoll instance watches.
    pub watched: usize,
}

pub struct Daemon {
    dir: Folder,
    keeper: Child,
}

impl Daemon {
    pub fn start(name: &str, config: &str) -> Self {
        let dir = Folder::new(name);
        fs::write(dir.0.join("lb.toml"), config).unwrap();
        let keeper = program::start_in(&dir.0, program::lbd());
        Self { dir, keeper }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.0.join("log")).unwrap_or_default()
    }

    pub fn try_status(&self) -> Option<Status> {
        ask_status(&self.dir.0.join("run/admin.sock")).ok()
    }

    pub fn status(&self) -> Status {
        let mut status = None;
        wait_until("status", || {
            status = self.try_status();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits until the process serves and every server of all proxies, at least `proxies`, is up.
    pub fn wait_served(&self, proxies: usize) {
        wait_until("it serves", || {
            self.try_status().is_some_and(|status| {
                let up = |proxy: &lbd::admin::status::ProxyStatus| {
                    proxy.probed && proxy.usable == proxy.servers.len() as u64
                };
                status.process.serving
                    && status.proxies.len() >= proxies
                    && status.proxies.iter().all(up)
            })
        });
    }

    fn proxy(&self) -> u32 {
        self.status().process.pid
    }

    /// What the proxy process holds now. Checks and questions come and go: their sockets are left
    /// out by comparing until it is equal.
    pub fn census(&self) -> Census {
        let folder = format!("/proc/{}", self.proxy());
        let mut descriptors = BTreeMap::new();
        let mut watched = 0;
        for entry in fs::read_dir(format!("{folder}/fd")).unwrap().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            let kind = target.split(":[").next().unwrap_or(&target).to_owned();
            if target == "anon_inode:[eventpoll]" {
                let number = entry.file_name();
                let path = format!("{folder}/fdinfo/{}", number.to_string_lossy());
                let info = fs::read_to_string(path).unwrap_or_default();
                watched += info.lines().filter(|line| line.starts_with("tfd:")).count();
            }
            *descriptors.entry(kind).or_insert(0) += 1;
        }
        Census {
            descriptors,
            watched,
        }
    }

    /// The proportional set size of the proxy process, bytes.
    pub fn pss(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.proxy());
        let rollup = fs::read_to_string(path).unwrap();
        let line = rollup
            .lines()
            .find(|line| line.starts_with("Pss:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    /// Ends it as the service manager does; its exit code.
    pub fn stop(&mut self) -> i32 {
        let pid = Pid::from_raw(i32::try_from(self.keeper.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let mut status = None;
        wait_until("its end", || {
            status = self.keeper.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("lbd said:\n{}", self.log());
        }
        let proxy = self.try_status().map(|status| status.process.pid);
        self.keeper.kill().unwrap_or_default();
        self.keeper.wait().map(drop).unwrap_or_default();
        if let Some(pid) = proxy.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}
