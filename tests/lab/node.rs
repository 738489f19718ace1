//! A running lbd with its files, on this machine or in a namespace of `segment.rs`.

#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part of this"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{self, Folder, wait_for};

/// A hand-off that the other node was too late for is repeated after 10 s.
pub const SOON: Duration = Duration::from_secs(30);

/// One running lbd. Dropping it kills all its processes.
pub struct Node {
    pub keeper: Option<Child>,
    pub namespace: Option<String>,
    /// What is run.
    pub program: PathBuf,
    pub config: PathBuf,
    pub runtime: PathBuf,
    pub log: PathBuf,
}

impl Node {
    pub fn start(folder: &Folder, name: &str, config: &str, namespace: Option<&str>) -> Self {
        let mut node = Self::prepare(folder, name, config, namespace);
        node.restart();
        node
    }

    /// Everything but the process.
    pub fn prepare(folder: &Folder, name: &str, config: &str, namespace: Option<&str>) -> Self {
        let file = |suffix: &str| folder.0.join(format!("{name}{suffix}"));
        fs::write(file(".toml"), config).unwrap();
        Self {
            keeper: None,
            namespace: namespace.map(str::to_owned),
            program: env!("CARGO_BIN_EXE_lbd").into(),
            config: file(".toml"),
            runtime: file(""),
            log: file(".log"),
        }
    }

    pub fn restart(&mut self) {
        self.keeper = Some(self.launch());
    }

    /// Another lbd with the same arguments.
    pub fn launch(&self) -> Child {
        let command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", namespace])
                    .arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        program::start(command, &self.config, &self.runtime, &self.log)
    }

    /// Where it takes questions and orders.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }

    /// `lbd WORDS`, asked of this node.
    pub fn lbd(&self, words: &[&str]) -> Output {
        program::order(&self.socket(), words)
    }

    pub fn keeper(&mut self) -> &mut Child {
        self.keeper.as_mut().unwrap()
    }

    /// The exit code, once it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_for("the keeper's end", SOON, || {
            self.keeper().try_wait().unwrap()
        })
        .code()
    }

    pub fn signal_keeper(&self, signal: Signal) {
        kill(Pid::from_raw(self.keeper_pid()), signal).unwrap();
    }

    /// `ip netns exec` has become lbd itself.
    pub fn keeper_pid(&self) -> i32 {
        i32::try_from(self.keeper.as_ref().unwrap().id()).unwrap()
    }

    /// Kills the keeper and waits until it is gone.
    pub fn kill_keeper(&mut self) {
        self.keeper().kill().unwrap();
        self.keeper().wait().unwrap();
    }

    /// The proxy processes of this node, which have its runtime directory among their arguments.
    pub fn proxies(&self) -> Vec<i32> {
        self.processes("\0proxy\0")
    }

    /// The runner of the present keeper.
    pub fn runner(&self) -> Option<i32> {
        let keeper = self.keeper.as_ref()?.id();
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = fs::read_to_string(path).ok()?;
        let mut runners = children.split_whitespace().filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == b"lbd\0runner\0"
        });
        runners.next()?.parse().ok()
    }

    pub fn proxy(&self) -> i32 {
        wait_for("one proxy process", SOON, || match self.proxies()[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }

    /// The proxy process that answers questions.
    pub fn proxy_that_serves(&self) -> i32 {
        wait_for("a status", SOON, || {
            let status = self.status();
            let (_, after) = status.split_once("\"pid\":")?;
            let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        })
    }

    pub fn processes(&self, word: &str) -> Vec<i32> {
        let runtime = self.runtime.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pid = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).into_owned();
            (line.contains(word) && line.contains(runtime)).then_some(pid)
        };
        entries.filter_map(pid).collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What `lbd status -o json` says, without blanks.
    pub fn status(&self) -> String {
        let said = self.lbd(&["status", "-o", "json"]).stdout;
        let text = String::from_utf8_lossy(&said);
        text.split_whitespace().collect()
    }

    pub fn wait_log(&self, text: &str) {
        wait_for(text, SOON, || self.log().contains(text).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.log());
        }
        if let Some(keeper) = &mut self.keeper {
            drop(keeper.kill());
            drop(keeper.wait());
        }
        for pid in self.proxies() {
            // It may have ended meanwhile.
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
    }
}
