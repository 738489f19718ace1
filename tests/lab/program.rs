//! The program under test as real processes: started from a folder of the test's own, asked, ended.

#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of this"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Waits until `condition` gives a value, at most `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = clock::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = clock::now() - begin;
        assert!(waited < limit, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of this test alone, which goes with its owner unless the test failed.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let program = env!("CARGO_CRATE_NAME");
        let unique = format!("lbd-{program}-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("recordings and logs are left in {}", self.0.display());
            return;
        }
        drop(fs::remove_dir_all(&self.0));
    }
}

/// `lbd`, built beside the tests.
pub fn lbd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lbd"))
}

/// Starts a keeper by this command; what it says is added to `log`.
pub fn start(mut command: Command, config: &Path, runtime: &Path, log: &Path) -> Child {
    let mut options = fs::OpenOptions::new();
    let log = options.append(true).create(true).open(log).unwrap();
    command.arg("--config").arg(config);
    command.arg("--runtime-dir").arg(runtime);
    command.env_remove("STATE_DIRECTORY").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// The same with a folder's `lb.toml`, `run` and `log`.
pub fn start_in(folder: &Path, command: Command) -> Child {
    let [config, runtime, log] = ["lb.toml", "run", "log"].map(|name| folder.join(name));
    start(command, &config, &runtime, &log)
}

/// `lbd WORDS` beside the daemon that listens there.
pub fn order(socket: &Path, words: &[&str]) -> Output {
    let mut command = lbd();
    command.args(words).arg("--socket").arg(socket);
    command.output().unwrap()
}

/// As a service manager does it: SIGTERM, the end, and SIGKILL where that takes too long.
pub fn end(child: &mut Child, patience: Duration) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let told = kill(pid, Signal::SIGTERM);
    let deadline = clock::now() + patience;
    while told.is_ok() && child.try_wait().is_ok_and(|end| end.is_none()) {
        if clock::now() >= deadline {
            child.kill().unwrap_or_default();
        }
        thread::sleep(Duration::from_millis(5));
    }
}
