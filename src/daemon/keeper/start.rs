//! How the keeper comes up: the order of steps, and what each needs of the one before.

use std::time::Duration;

use super::{
    FIRST_FREE, Handover, Keeper, KeeperArgs, KeeperError, SIGNALS, SOCKET, command, events,
    health, log_level, notify, peers, proxies, publish, recorder, reload, route, routers,
    runtime_dir::RuntimeDir, sandbox::Sandbox, scripts, tracks, upgrade, user,
};
use crate::config::model::Config;
use crate::config::{self, local};
use crate::daemon::supervise::recorded::RecordedSupervisor;
use crate::ipc::event::EventKind;
use crate::ipc::message::MESSAGE_BYTES_MAX;
use crate::net::epoll::{Epoll, Interest};
use crate::net::notify::Notify;
use crate::net::privileges::{self, KeeperNeeds};
use crate::net::seqpacket::Listener;
use crate::net::signal::Signals;
use crate::net::{clock, cpus, memfd, netlink, passed, realtime};

/// The service manager keeps the listening sockets under this name while the service is restarted.
pub(super) const KEPT_NAME: &str = "listen";

/// Worker threads of a proxy.
pub(super) fn workers(config: &Config) -> usize {
    let workers = config.limits.workers;
    workers.map_or_else(cpus::usable, |workers| usize::from(workers.get()))
}

/// This node's part of each VIP.
fn locals(args: &KeeperArgs) -> Result<Vec<local::LocalVip>, KeeperError> {
    if args.config.vips.is_empty() {
        return Ok(Vec::new());
    }
    let facts = netlink::host_facts().map_err(KeeperError::Facts)?;
    local::resolve(&args.config, &facts, args.node.as_deref()).map_err(KeeperError::Local)
}

/// Names the failed step.
fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> KeeperError {
    move |source| KeeperError::System { what, source }
}

impl Keeper {
    /// Lock, socket, virtual routers, runner, listeners, in this order: a second keeper must fail
    /// before it touches anything, an orphaned proxy shall find the socket at once, and an address
    /// that this node still holds must be renewed before anything slow.
    ///
    /// With a `handover` this process was the keeper before, as another program.
    pub(super) fn start(
        args: KeeperArgs,
        handover: Option<&Handover>,
        sandbox: Sandbox,
    ) -> Result<Self, KeeperError> {
        let began = clock::now();
        let lock = handover.map(Handover::lock).transpose();
        let lock = lock.map_err(system("handover"))?;
        let dir = RuntimeDir::open(&args.runtime_dir, lock)?;
        let socket = Listener::bind(&dir.socket()).map_err(|source| KeeperError::RuntimeDir {
            path: dir.socket(),
            source,
        })?;
        let signals = Signals::open().map_err(system("signal descriptor"))?;
        let epoll = Epoll::new().map_err(system("epoll instance"))?;
        for (fd, token) in [
            (signals_fd(&signals), SIGNALS),
            (socket_fd(&socket), SOCKET),
        ] {
            epoll
                .add(fd, token, Interest::READ)
                .map_err(system("epoll instance"))?;
        }
        let state = dir.read().unwrap_or_default();
        let orphan = state.proxy;
        let locals = locals(&args)?;
        let routers = routers::Routers::open(&locals, &state, &epoll, &args.config)?;
        let peers = peers::Peers::open(&args.config, &locals, &routers, clock::now());
        let routes = route::Routes::open(&args.config, &epoll, clock::now())?;
        let text = memfd::sealed("lb.toml", args.config_text.as_bytes());
        let config_fd = text.map_err(system("memory file"))?;
        let workers = workers(&args.config);
        let reload = reload::Reload::new(&args.config, locals.clone(), &epoll);
        let reload = reload.map_err(system("event descriptor"))?;
        let mut keeper = Self {
            digest: config::digest(&args.config_text),
            began,
            epoll,
            next_token: FIRST_FREE,
            signals,
            socket,
            buffer: vec![0; MESSAGE_BYTES_MAX],
            supervisor: RecordedSupervisor::new(began),
            board: health::Board::new(args.config.proxies.len()),
            tracks: tracks::Tracks::new(&args.config, &routers, began),
            routers,
            peers,
            routes,
            proxies: proxies::Proxies::new(config_fd, workers),
            scripts: scripts::Scripts::new(&args.config.scripts, began),
            notifiers: notify::Notifiers::new(&locals),
            record: events::Record::new(),
            log_override: log_level::LogOverride::default(),
            published: publish::Published::new(state, began),
            commands: command::Commands::default(),
            stopping: None,
            upgrade: upgrade::Upgrade::new(began, None),
            reload,
            recorder: recorder::Recorder::default(),
            sandbox,
            notify: Notify::from_env().unwrap_or_else(|error| {
                tracing::warn!(%error, "service manager cannot be reached");
                Notify::none()
            }),
            realtime: false,
            dir,
            args,
        };
        keeper.resume_from(handover).map_err(system("handover"))?;
        keeper.start_runner(began);
        keeper.enter_realtime();
        keeper.expect_proxy(clock::now(), orphan)?;
        Ok(keeper)
    }

    /// Takes over what an earlier program of this process, or the service manager, has kept.
    fn resume_from(&mut self, handover: Option<&Handover>) -> std::io::Result<()> {
        let kept_by_manager = passed::from_manager(KEPT_NAME);
        let Some(handover) = handover else {
            self.proxies.kept = kept_by_manager;
            self.record(EventKind::Keeper, (None, None), None, "keeper started");
            return Ok(());
        };
        let words = &handover.words;
        self.proxies.kept = handover.listeners()?;
        self.proxies.notes.clone_from(&words.notes);
        if !words.snapshot.is_empty() {
            self.proxies.snapshot = Some((self.began, words.snapshot.clone()));
        }
        let counted = (words.proxy_starts, words.proxy_starved, words.proxy_hung);
        self.supervisor.count_on_from(counted);
        self.record.restore(&words.events, words.next_event);
        self.scripts.expect_end(words.runner);
        self.upgrade = upgrade::Upgrade::new(self.began, words.upgrade.clone());
        self.resumed(self.began, &words.version, words.failed.as_deref());
        Ok(())
    }

    fn has_addresses(&self) -> bool {
        let config = &self.args.config;
        !config.vips.is_empty() || !config.routes.is_empty()
    }

    /// Only where there is an address to keep: a proxy alone needs neither.
    fn enter_realtime(&mut self) {
        if !self.has_addresses() {
            return;
        }
        match realtime::schedule() {
            Ok(()) => self.realtime = true,
            Err(error) => tracing::warn!(%error, "real-time scheduling not permitted"),
        }
        if let Err(error) = realtime::lock_memory() {
            tracing::warn!(%error, "memory not locked");
        }
    }

    /// Once the listeners are open nothing but VRRP needs rights.
    pub(super) fn confine(&mut self) {
        let needs = if self.has_addresses() {
            KeeperNeeds::VirtualRouters
        } else {
            KeeperNeeds::Nothing
        };
        let config = &self.args.config;
        let (source, ports) = (config.has_client_source(), user::keeps_low_ports(config));
        let report = privileges::confine_keeper(needs, source, ports, &self.sandbox.wide);
        let rights = self.note_own_rights(report);
        let elapsed = clock::now().saturating_duration_since(self.began);
        tracing::info!(
            rights,
            realtime = self.realtime,
            vips = self.args.config.vips.len(),
            routes = self.args.config.routes.len(),
            proxies = self.args.config.proxies.len(),
            elapsed_ms = elapsed.min(Duration::from_secs(3600)).as_millis(),
            "keeper started"
        );
    }
}

fn signals_fd(signals: &Signals) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(signals)
}

fn socket_fd(socket: &Listener) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(socket)
}
