//! The runner process: starts the proxy, track scripts and notify programs for the keeper, which is
//! too precious to fork, and looks at tracked files, which may lie on a slow disk. One thread, one
//! epoll loop, no network capabilities. It judges nothing: what to run comes over descriptor 3, how
//! it ended goes back.
//!
//! A program runs as the leader of its own process group, as its own user, without capabilities and
//! without a way to gain any, with stdin at /dev/null, an environment of `PATH` and `LBD_*` alone,
//! and the end of its output kept. At its timeout the group gets SIGTERM, a second later SIGKILL.
//! When the keeper goes, its programs are ended and the runner leaves; the proxy goes on and waits
//! for the next keeper. `files` watches files, `output` reads what programs write.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::daemon::confined;
use crate::ipc::confinement::Confinement;
use crate::ipc::message::CodecError;
use crate::ipc::runner::{FromRunner, Job, Outcome, Program, Run, ToRunner};
use crate::net::clock;
use crate::net::epoll::{Epoll, Events, Interest};
use crate::net::privileges::{self, RunnerNeeds};
use crate::net::process::{self, Ended, Launch, Process};
use crate::net::program;
use crate::net::seqpacket::Connection;
use crate::net::signal;

mod files;
mod output;

use files::Files;
use output::Output;

#[cfg(test)]
mod tests;

/// Between SIGTERM and SIGKILL for a program that overstays.
const KILL_AFTER: Duration = Duration::from_secs(1);
/// Programs at a time; more are answered as not started. A configuration has few, and each has at
/// most one run plus one that is being ended.
const CHILDREN_MAX: usize = 256;
/// Where they find programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const KEEPER: u64 = 0;
const FILES: u64 = 1;
/// Children count from here; the output of one has its token with this bit.
const FIRST_CHILD: u64 = 16;
const OUTPUT: u64 = 1 << 62;

/// The runner can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// It was not started by a keeper.
    #[error("descriptor 3 is no socket of a keeper")]
    NoKeeper(#[source] io::Error),
    /// The kernel refused something its loop needs.
    #[error("the runner's loop failed")]
    Loop(#[source] io::Error),
    /// The keeper speaks another language.
    #[error("a message of the keeper was not understood")]
    Message(#[source] CodecError),
}

/// The process behind `lbd runner`: serves the keeper at descriptor 3 until it goes.
///
/// # Errors
/// [`RunnerError`].
pub fn run(needs: RunnerNeeds) -> Result<(), RunnerError> {
    signal::unblock_all().map_err(RunnerError::Loop)?;
    let report = confined::of_process("runner", privileges::confine_runner(needs), None);
    let keeper = process::take_fd3()
        .and_then(Connection::from_fd)
        .map_err(RunnerError::NoKeeper)?;
    serve(keeper, report)
}

/// The loop, until the keeper closes its end.
fn serve(keeper: Connection, report: Confinement) -> Result<(), RunnerError> {
    let mut runner = Runner::new(keeper).map_err(RunnerError::Loop)?;
    runner.tell(&FromRunner::Ready(report));
    let outcome = runner.serve();
    runner.end_programs();
    outcome
}

#[derive(Debug)]
struct Runner {
    keeper: Connection,
    epoll: Epoll,
    children: BTreeMap<u64, Child>,
    next_token: u64,
    files: Option<Files>,
}

#[derive(Debug)]
struct Child {
    process: Process,
    what: What,
}

#[derive(Debug)]
enum What {
    Proxy,
    Program {
        job: Job,
        run: u64,
        /// The next step of ending it, and when.
        end_at: Instant,
        timed_out: bool,
        output: Output,
    },
}

impl Runner {
    fn new(keeper: Connection) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&keeper, KEEPER, Interest::READ)?;
        Ok(Self {
            keeper,
            epoll,
            children: BTreeMap::new(),
            next_token: FIRST_CHILD,
            files: None,
        })
    }

    fn serve(&mut self) -> Result<(), RunnerError> {
        let mut events = Events::with_capacity(32);
        let mut buffer = vec![0; crate::ipc::message::MESSAGE_BYTES_MAX];
        loop {
            let now = clock::now();
            let wait = self.deadline().map(|at| at.saturating_duration_since(now));
            self.epoll
                .wait(&mut events, wait)
                .map_err(RunnerError::Loop)?;
            for event in events.iter() {
                match event.token {
                    KEEPER if !self.read_keeper(&mut buffer)? => return Ok(()),
                    KEEPER => {}
                    FILES => self.files_changed(),
                    token if token & OUTPUT != 0 => self.read_output(token & !OUTPUT),
                    token => self.child_ended(token),
                }
            }
            let now = clock::now();
            self.end_overdue(now);
            self.look_at_files(now);
        }
    }

    /// Takes the keeper's waiting messages; false when it has gone.
    fn read_keeper(&mut self, buffer: &mut [u8]) -> Result<bool, RunnerError> {
        loop {
            let received = match self.keeper.receive(buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(true),
                // It went without reading what it was told last.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(RunnerError::Loop(error)),
            };
            let bytes = buffer.get(..received.len).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(false);
            }
            match ToRunner::decode(bytes).map_err(RunnerError::Message)? {
                ToRunner::StartProxy {
                    keeper_socket,
                    runtime_dir,
                    program,
                    successor,
                } => {
                    let program = program.as_deref().unwrap_or(process::OWN_PROGRAM);
                    self.start_proxy(&keeper_socket, &runtime_dir, program, successor);
                }
                ToRunner::Run(run) => self.start_program(&run),
                ToRunner::Examine(programs) => self.examine(&programs),
                ToRunner::Watch(paths) => self.watch_files(paths),
            }
        }
    }

    fn start_proxy(
        &mut self,
        keeper_socket: &str,
        runtime_dir: &str,
        program: &str,
        successor: bool,
    ) {
        let args = [
            "proxy",
            "--keeper-socket",
            keeper_socket,
            "--runtime-dir",
            runtime_dir,
        ];
        let launched = process::launch(&Launch {
            program: Path::new(program),
            name: Some("lbd"),
            args: &args.map(OsStr::new),
            env: None,
            fd3: None,
            quiet: false,
            // The runner has it only where the proxy is to have it.
            net_raw: true,
            on_parent_death: None,
        });
        let started = launched.and_then(|process| {
            let pid = process.pid();
            self.watch(process, What::Proxy).map(|()| pid)
        });
        match started {
            Ok(pid) => self.tell(&FromRunner::ProxyStarted {
                pid: pid.unsigned_abs(),
                successor,
            }),
            Err(error) => self.tell(&FromRunner::ProxyNotStarted {
                error: error.to_string(),
                successor,
            }),
        };
    }

    fn start_program(&mut self, run: &Run) {
        if let Err(error) = self.try_start_program(run) {
            self.tell(&FromRunner::Ended {
                job: run.job,
                run: run.run,
                how: Outcome::NotStarted(error.to_string()),
                output: String::new(),
            });
        }
    }

    fn try_start_program(&mut self, run: &Run) -> io::Result<()> {
        let Some(program) = run.command.first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if self.children.len() >= CHILDREN_MAX {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let identity = program::prepare(Path::new(program), run.user.as_ref());
        let identity = identity.map_err(io::Error::other)?;
        let mut env = vec![("PATH", PATH)];
        env.extend(run.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let running = program::start(program::Run {
            command: &run.command,
            env: &env,
            identity,
        })?;
        let (job, number) = (run.job, run.run);
        let token = OUTPUT | self.next_token;
        self.epoll.add(&running.output, token, Interest::READ)?;
        let what = What::Program {
            job,
            run: number,
            end_at: clock::now() + Duration::from_millis(run.timeout_ms),
            timed_out: false,
            output: Output::new(running.output),
        };
        self.watch(running.process, what)
    }

    fn examine(&self, programs: &[Program]) {
        for examined in programs {
            let found = program::prepare(Path::new(&examined.program), examined.user.as_ref());
            if let Err(trouble) = found {
                self.tell(&FromRunner::Trouble {
                    name: examined.name.clone(),
                    trouble: trouble.to_string(),
                });
            }
        }
    }

    fn watch_files(&mut self, paths: Vec<String>) {
        let files = Files::new(paths, clock::now());
        if let Some(fd) = files.fd()
            && let Err(error) = self.epoll.add(fd, FILES, Interest::READ)
        {
            tracing::warn!(%error, "tracked files are looked at slowly");
        }
        self.files = Some(files);
    }

    fn files_changed(&mut self) {
        if let Some(files) = &mut self.files {
            files.on_events(clock::now());
        }
    }

    fn look_at_files(&mut self, now: Instant) {
        let Some(files) = &mut self.files else { return };
        if files.deadline().is_none_or(|at| now < at) {
            return;
        }
        let news = files.look(now);
        for (file, reading) in news {
            let told = self.tell(&FromRunner::File { file, reading });
            if let Some(files) = &mut self.files
                && !told
            {
                files.not_told(file);
            }
        }
    }

    fn read_output(&mut self, token: u64) {
        let Some(child) = self.children.get_mut(&token) else {
            return;
        };
        if let What::Program { output, .. } = &mut child.what {
            output.read();
        }
    }

    fn watch(&mut self, process: Process, what: What) -> io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        self.epoll.add(&process, token, Interest::READ)?;
        self.children.insert(token, Child { process, what });
        Ok(())
    }

    fn child_ended(&mut self, token: u64) {
        let Some(child) = self.children.get(&token) else {
            return;
        };
        match child.what {
            What::Proxy => {}
            // What it left behind in its group goes with it. Its own pid, not collected yet, keeps
            // the group's number from being given to anybody else.
            What::Program { .. } => signal_group(child.process.pid(), Signal::SIGKILL),
        }
        let how = match child.process.reap() {
            Ok(None) => return,
            Ok(Some(Ended::Exited(code))) => Outcome::Exited(code),
            Ok(Some(Ended::Signalled(number))) => Outcome::Signalled(number),
            Err(error) => Outcome::NotStarted(error.to_string()),
        };
        let Some(child) = self.children.remove(&token) else {
            return;
        };
        let message = match child.what {
            What::Proxy => FromRunner::ProxyEnded {
                pid: child.process.pid().unsigned_abs(),
                how,
            },
            What::Program {
                job,
                run,
                timed_out,
                mut output,
                ..
            } => {
                output.read();
                FromRunner::Ended {
                    job,
                    run,
                    how: if timed_out { Outcome::TimedOut } else { how },
                    output: output.text(),
                }
            }
        };
        self.tell(&message);
    }

    fn deadline(&self) -> Option<Instant> {
        let due = |child: &Child| match &child.what {
            What::Proxy => None,
            What::Program { end_at, .. } => Some(*end_at),
        };
        let children = self.children.values().filter_map(due);
        let files = self.files.as_ref().and_then(Files::deadline);
        children.chain(files).min()
    }

    fn end_overdue(&mut self, now: Instant) {
        for child in self.children.values_mut() {
            let What::Program {
                end_at, timed_out, ..
            } = &mut child.what
            else {
                continue;
            };
            if now < *end_at {
                continue;
            }
            let signal = if *timed_out {
                Signal::SIGKILL
            } else {
                Signal::SIGTERM
            };
            *timed_out = true;
            *end_at = now + KILL_AFTER;
            signal_group(child.process.pid(), signal);
        }
    }

    fn end_programs(&self) {
        for child in self.children.values() {
            match child.what {
                What::Proxy => {}
                What::Program { .. } => signal_group(child.process.pid(), Signal::SIGKILL),
            }
        }
    }

    /// False when the keeper doesn't read: the message is lost, and its own deadlines cover that.
    fn tell(&self, message: &FromRunner) -> bool {
        let sent = message
            .encode()
            .map_err(io::Error::other)
            .and_then(|bytes| self.keeper.send(&bytes, &[]));
        if let Err(error) = &sent {
            tracing::warn!(%error, "keeper not told");
        }
        sent.is_ok()
    }
}

/// Signals a group that may have no member left.
fn signal_group(leader: i32, signal: Signal) {
    match process::signal_group(leader, signal) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => tracing::warn!(%error, pid = leader, "program not signalled"),
    }
}
