//! The keeper process: VRRP, addresses, listening sockets, and the watch over the proxy. One thread,
//! one epoll loop; it reads no byte from a TCP client and waits for nobody.
//!
//! `start` brings it up, this file holds the loop, `routers` the virtual routers, `route` the
//! addresses without an election, `proxies` the proxy processes, `adoption` the one an earlier
//! keeper left, `succession` one that takes over from another, `upgrade` the change of the program
//! (`handover` is what the next one gets), `watch` the supervision, `scripts` the runner and the track scripts, `publish`
//! what others learn of it (health to the routers, state to proxy, next keeper and service
//! manager), `command` what operators order, `stop` how it leaves. `health` reduces what is
//! known to what a router needs, `tracks` and `interfaces` know files and interfaces, `notify`
//! and `notifier` tell programs, `events` keeps the record and `cause` what
//! led to a move, `log_level` is what operators want logged.
//!
//! A file with only `[proxy]` needs no privileges. One with only `[vip]` gets a proxy process, too,
//! without listeners and workers: it answers `lbd status` and /metrics.

mod adoption;
mod blackbox;
mod cause;
mod command;
mod door;
mod events;
mod forgotten;
mod groups;
mod handover;
mod health;
mod interfaces;
mod leaving;
mod link;
mod listeners;
mod log_level;
mod notifier;
mod notify;
mod peers;
mod proxies;
mod publish;
mod recorder;
mod reload;
mod route;
mod routers;
mod runner_link;
mod runtime_dir;
mod sandbox;
mod scripts;
mod sharing;
mod stamps;
mod start;
mod stop;
mod succession;
mod tallies;
mod tracks;
mod upgrade;
mod user;
mod watch;
mod welcome;
mod wish;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::local::LocalError;
use crate::config::model::Config;
use crate::daemon::supervise::Input;
use crate::daemon::supervise::recorded::RecordedSupervisor;
use crate::net::clock;
use crate::net::epoll::{Epoll, Event, Events};
use crate::net::notify::Notify;
use crate::net::seqpacket::Listener;
use crate::net::signal::Signals;
use crate::net::tcp::ListenError;

pub use handover::Handover;
use runtime_dir::RuntimeDir;

/// What `lbd --config FILE` starts with.
#[derive(Debug)]
pub struct KeeperArgs {
    /// Where lb.toml was read from, for messages.
    pub config_path: PathBuf,
    /// Its text.
    pub config_text: String,
    /// Its meaning.
    pub config: Config,
    /// `--node`.
    pub node: Option<String>,
    /// `--runtime-dir`.
    pub runtime_dir: PathBuf,
    /// What an earlier program of this process left.
    pub handover: Option<Handover>,
}

/// Why the keeper does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The log can't be opened.
    #[error("the log cannot be opened")]
    Log(#[source] crate::log::LogError),
    /// The runtime directory can't be used.
    #[error("runtime directory {} cannot be used", path.display())]
    RuntimeDir {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another keeper holds it.
    #[error("another lbd runs with runtime directory {}", path.display())]
    AlreadyRunning {
        /// Which.
        path: PathBuf,
    },
    /// This machine has no place in the configuration.
    #[error("{}", joined(.0))]
    Local(Vec<LocalError>),
    /// The kernel doesn't say what interfaces and addresses there are.
    #[error("interfaces and addresses cannot be read")]
    Facts(#[source] io::Error),
    /// A listening socket can't be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A virtual router can't be opened.
    #[error("{reason}")]
    Router {
        /// Which and why, with what would help.
        reason: String,
        /// Whether rights are what is missing.
        permission: bool,
    },
    /// `user` names nobody.
    #[error("there is no user {name}: make one, or set `user = \"root\"` to stay root")]
    User {
        /// As in the file.
        name: String,
    },
    /// The kernel refused something the loop needs.
    #[error("the keeper's {what} failed")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn joined(errors: &[LocalError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

impl KeeperError {
    /// The exit code that tells a service manager what kind of failure it was: 78 the
    /// configuration can't be used on this machine, 77 rights are missing, 1 anything else. It
    /// tries again after all but 78: an address or interface that is late at boot is a 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Local(errors) if !errors.iter().all(LocalError::may_pass) => 78,
            Self::User { .. } => 78,
            Self::Router { permission, .. } if *permission => 77,
            Self::RuntimeDir { source, .. } if denied(source) => 77,
            Self::Listen(ListenError::Kernel { source, .. }) if denied(source) => 77,
            Self::Log(_)
            | Self::Local(_)
            | Self::RuntimeDir { .. }
            | Self::AlreadyRunning { .. }
            | Self::Facts(_)
            | Self::Listen(_)
            | Self::Router { .. }
            | Self::System { .. } => 1,
        }
    }
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// [`KeeperError`].
pub fn run(mut args: KeeperArgs) -> Result<(), KeeperError> {
    let handover = args.handover.take();
    let begun = begin(args, handover.as_ref());
    let mut keeper = begun.inspect_err(|error| {
        if let Some(handover) = &handover {
            tracing::error!(%error, "the program on disk does not come up: back to the one before");
            let failure = handover.go_back(&error.to_string());
            tracing::error!(error = %failure, "no way back");
        }
    })?;
    drop(handover);
    let served = catch_unwind(AssertUnwindSafe(|| keeper.serve()));
    let outcome = served.unwrap_or_else(|fault| {
        keeper.record_panic();
        resume_unwind(fault)
    });
    keeper.close();
    keeper.write_last_recording();
    outcome
}

fn begin(args: KeeperArgs, handover: Option<&Handover>) -> Result<Keeper, KeeperError> {
    // Who takes over goes on as whom it was started as: that must be able to go back.
    let became = handover.is_none().then(|| user::leave_root(&args));
    let became = became.transpose()?;
    // Before the log, which opens what it writes to for good.
    let sandbox = sandbox::Sandbox::enter(&args, handover);
    crate::log::init(&args.config.log, "keeper").map_err(KeeperError::Log)?;
    if let Some(became) = became {
        became.say();
    }
    Keeper::start(args, handover, sandbox)
}

/// Tokens of the epoll instance. Connections count from [`FIRST_FREE`] up, the routers'
/// descriptors from [`ROUTERS`].
const SIGNALS: u64 = 0;
const SOCKET: u64 = 1;
const RUNNER: u64 = 2;
const RUNNER_END: u64 = 3;
const ROUTES: u64 = 4;
const RELOAD: u64 = 7;
/// The peer channel's sockets, so many at most.
const PEERS: u64 = 8;
const PEERS_MAX: usize = 8;
const FIRST_FREE: u64 = 16;
const ROUTERS: u64 = 1 << 32;

/// The node's one keeper.
#[derive(Debug)]
struct Keeper {
    args: KeeperArgs,
    digest: u64,
    began: Instant,
    dir: RuntimeDir,
    epoll: Epoll,
    next_token: u64,
    signals: Signals,
    socket: Listener,
    buffer: Vec<u8>,
    supervisor: RecordedSupervisor,
    board: health::Board,
    routers: routers::Routers,
    peers: peers::Peers,
    routes: route::Routes,
    proxies: proxies::Proxies,
    scripts: scripts::Scripts,
    tracks: tracks::Tracks,
    notifiers: notify::Notifiers,
    record: events::Record,
    log_override: log_level::LogOverride,
    published: publish::Published,
    commands: command::Commands,
    stopping: Option<stop::Stopping>,
    upgrade: upgrade::Upgrade,
    reload: reload::Reload,
    recorder: recorder::Recorder,
    sandbox: sandbox::Sandbox,
    notify: Notify,
    realtime: bool,
}

impl Keeper {
    /// The loop: wait, take what came, let the clocks run, tell others.
    fn serve(&mut self) -> Result<(), KeeperError> {
        let mut events = Events::with_capacity(64);
        loop {
            let now = clock::now();
            let wait = self.deadline(now).saturating_duration_since(now);
            let waited = self.epoll.wait(&mut events, Some(wait));
            waited.map_err(|source| KeeperError::System {
                what: "event loop",
                source,
            })?;
            let now = clock::now();
            for event in events.iter() {
                self.dispatch(now, event)?;
            }
            let now = clock::now();
            self.routers.on_deadlines(now);
            self.routes.on_deadlines(now);
            self.tick(now)?;
            self.tick_peers(now);
            self.publish(now);
            if self.is_over(now) {
                return Ok(());
            }
        }
    }

    fn dispatch(&mut self, now: Instant, event: Event) -> Result<(), KeeperError> {
        match event.token {
            SIGNALS => self.take_signals(now),
            SOCKET => self.accept(now),
            RUNNER => self.read_runner(now, event),
            RUNNER_END => self.runner_ended(now),
            token if (PEERS..FIRST_FREE).contains(&token) => self.read_peers(token - PEERS, now),
            ROUTES => self.routes.on_readable(now),
            RELOAD => self.file_was_read(now),
            token if token >= ROUTERS => self.routers.on_readable(token - ROUTERS, now),
            token => return self.on_connection(now, token, event),
        }
        Ok(())
    }

    /// When something is due at the latest. What is past must be dealt with by `tick`, or the
    /// loop spins.
    fn deadline(&self, now: Instant) -> Instant {
        let running = self.stopping.is_none();
        let supervised = running && self.proxies.is_settled();
        let supervisor = supervised.then(|| self.supervisor.deadline(now));
        let scripts = running.then(|| self.scripts.deadline());
        let all = [
            supervisor.flatten(),
            scripts.flatten(),
            self.tracks.deadline(),
            self.notifiers.deadline(&self.args.config),
            self.routers.deadline(),
            self.peers.deadline(),
            self.routes.deadline(),
            self.proxies.deadline(),
            self.stopping.as_ref().map(stop::Stopping::deadline),
            self.upgrade.deadline(),
            self.reload.deadline(),
            self.recorder.deadline(),
            Some(self.published.deadline()),
        ];
        let latest = now + Duration::from_secs(1);
        all.into_iter().flatten().min().unwrap_or(latest)
    }

    fn tick(&mut self, now: Instant) -> Result<(), KeeperError> {
        self.tick_proxies(now)?;
        self.tick_scripts(now);
        if self.proxies.is_settled() && self.stopping.is_none() {
            let due = self.supervisor.deadline(now).is_some_and(|at| now >= at);
            if due {
                self.supervise(now, Input::Tick);
            }
        }
        self.tick_stopping(now);
        self.tick_upgrade(now);
        self.tick_reload(now);
        self.tick_recorder(now);
        Ok(())
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_pass_by_itself_stops_the_service() {
        let vip = || "v".to_owned();
        let late = || LocalError::NotANode { vip: vip() };
        let wrong = LocalError::NoSuchNode {
            vip: vip(),
            node: "lb9".into(),
            nodes: "lb1, lb2".into(),
        };
        assert_eq!(KeeperError::Local(vec![late()]).exit_code(), 1);
        assert_eq!(KeeperError::Local(vec![late(), wrong]).exit_code(), 78);
    }
}
