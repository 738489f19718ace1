//! The programs under test: which there are, and how each is started and ended.

mod configs;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use lbd::net::clock;

use crate::client::{Load, Talk, Then, Work};
use crate::lab::Lab;
use crate::pattern::Pattern;
use crate::usage::{Memory, Processes};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// No proxy: the limit of load, servers and kernel.
    Direct,
    /// HAProxy with its defaults: the reference.
    Haproxy,
    /// HAProxy with splicing on; bulk only.
    HaproxySplice,
    /// HAProxy with an access log into a file; short connections only.
    HaproxyLog,
    /// nginx with the stream module, when it is installed.
    Nginx,
    Lbd,
    /// lbd with an access log into a file; short connections only.
    LbdLog,
    /// One that `--extra` names.
    #[value(skip)]
    Extra,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::HaproxyLog => "haproxy-log",
            Self::Nginx => "nginx",
            Self::Lbd => "lbd",
            Self::LbdLog => "lbd-log",
            Self::Extra => "extra",
        }
    }
}

/// A program that can be started.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// What it is called in the results: its kind, and with a further HAProxy the version.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Those before the addresses; [`Kind::Extra`] only.
    pub(crate) arguments: Vec<OsString>,
    /// Major and minor; HAProxy only.
    pub(crate) version: (u32, u32),
}

/// A program that the command line names: `NAME=COMMAND`, the command's parts by spaces.
#[derive(Clone)]
pub(crate) struct Extra {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl FromStr for Extra {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, command) = text.split_once('=').ok_or("not NAME=COMMAND")?;
        let mut parts = command.split_whitespace();
        let path = parts.next().ok_or("no command")?;
        Ok(Self {
            name: name.to_owned(),
            path: path.into(),
            arguments: parts.map(OsString::from).collect(),
        })
    }
}

/// What all programs are given.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) threads: usize,
    /// Connections each may have: never the limit of a measurement.
    pub(crate) max_connections: u64,
    pub(crate) scratch: PathBuf,
}

/// A program that serves.
pub(crate) struct Target {
    pub(crate) program: Program,
    pub(crate) name: String,
    /// Where the client connects, in turn.
    pub(crate) addresses: Vec<SocketAddr>,
    cage: Option<Child>,
    processes: Processes,
    pipes_at_start: usize,
}

impl Target {
    /// Starts it and waits for the first answer through it.
    pub(crate) fn start(
        program: &Program,
        lab: &mut Lab,
        programs: &Programs,
        pattern: &Pattern,
    ) -> io::Result<Self> {
        let mut target = Self {
            program: program.clone(),
            name: program.name.clone(),
            addresses: lab.direct.clone(),
            cage: None,
            processes: Processes::none(),
            pipes_at_start: 0,
        };
        if program.kind == Kind::Direct {
            return Ok(target);
        }
        let port = lab.fresh_port();
        let listen = SocketAddr::from((lab.proxy_ip, port));
        let folder = programs.scratch.join(format!("{}-{port}", program.name));
        fs::create_dir_all(&folder)?;
        let command_line = configs::command_line(program, &folder, listen, &lab.servers, programs)?;
        let log = File::create(folder.join("log"))?;
        let cage = lab
            .at_proxy()?
            .arg(std::env::current_exe()?)
            .args(["cage", "--"])
            .args(command_line)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        target.cage = Some(cage);
        target.addresses = vec![listen];
        target.await_service(pattern, &folder)?;
        target.find_processes();
        target.pipes_at_start = target.processes.pipes();
        Ok(target)
    }

    /// Looks for its processes anew: one may have been restarted.
    pub(crate) fn find_processes(&mut self) {
        if let Some(cage) = &self.cage {
            self.processes = Processes::under(cage.id());
            self.processes.weigh_like_us();
        }
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.processes.cpu()
    }

    pub(crate) fn memory(&self) -> Memory {
        self.processes.memory()
    }

    /// Pipes it has opened since it started: splicing needs them.
    pub(crate) fn pipes_since_start(&self) -> Option<usize> {
        let pipes = self.processes.pipes();
        self.cage
            .is_some()
            .then(|| pipes.saturating_sub(self.pipes_at_start))
    }

    fn await_service(&self, pattern: &Pattern, folder: &Path) -> io::Result<()> {
        let end = clock::now() + Duration::from_secs(10);
        loop {
            let mut load = Load::new(self.addresses.clone(), pattern)?;
            load.open(small(Then::Close), 1);
            load.run_until_done(1, Duration::from_secs(1))?;
            let counts = load.finish(Duration::ZERO)?;
            if counts.failed() == 0 && counts.done == 1 {
                return Ok(());
            }
            if clock::now() > end {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                let reason = format!("{} does not serve; it said:\n{log}", self.name);
                return Err(io::Error::other(reason));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(mut cage) = self.cage.take() else {
            return;
        };
        drop(cage.stdin.take());
        if let Err(error) = cage.wait() {
            eprintln!("note: {} did not end: {error}", self.name);
        }
    }
}

/// Exchanges of one small request and one small answer.
pub(crate) fn small(then: Then) -> Work {
    let talk = Talk::Exchange {
        request: 1_024,
        answer: 2_048,
    };
    Work { talk, then }
}
