//! The control loop: wait, one input, act. Verdicts go into the farms, orders into the engine,
//! signs of life to the keeper. Nothing here waits for the data path or for the keeper.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::ProxyError;
use super::access::{Access, AccessLog};
use super::chronicle::Chronicle;
use super::clients::Clients;
use super::discoveries;
use super::limits::Limits;
use super::link::{Event, Tie};
use super::memory::Memory;
use super::news::News;
use super::occasions::Occasions;
use super::orders::{OUTSTANDING_MAX, Outstanding};
use super::placement::Workers;
use super::reload::{Reload, Sandbox};
use super::report::{Changing, Doors, Fixed, Shared, source};
use super::setup::{alarm, as_operators_left_it, first_verdicts_within, machines, restore};
use super::sharing::SharedLimits;
use super::shelf::{Shelf, Writer};
use super::signals::Signals;
use super::start::Begin;
use super::tapes::Lasting;
use super::verbosity::Verbosity;
use super::watchers::Watchers;
use crate::admin::{Order, Orders, Source};
use crate::config::model::Config;
use crate::health::board::Board;
use crate::health::probe::Probe;
use crate::health::task::Finding;
use crate::ipc::confinement::Confinement;
use crate::ipc::message::ToProxy;
use crate::log;
use crate::net::clock;
use crate::proxy::dispatch::verdicts::Checked;
use crate::proxy::engine::{Engine, EngineOptions, Listeners, Placement};
use crate::proxy::farm::Farm;

/// Signs of life to the keeper, and how often pending news is looked at.
const BEAT: Duration = Duration::from_millis(50);
/// Between two attempts to open a door that a process about to go still has open.
const KNOCK: Duration = Duration::from_millis(20);
/// Slowstart ramps.
const TICK: Duration = Duration::from_millis(250);
/// Between the last check of a server and one that a suspicion brings about, at most.
const SUSPICION_PAUSE_MAX: Duration = Duration::from_millis(500);
/// SIGTERM to this process alone.
const GRACE_ON_SIGNAL: Duration = Duration::from_secs(5);
/// What the process before counted is waited for so long, once this one serves; until then nobody is
/// answered who asks for counts.
const TALLIES_WITHIN: Duration = Duration::from_secs(2);
/// Findings on their way to this loop; the health tasks wait when it is full.
const FINDINGS_MAX: usize = 64;

/// What the control loop begins with.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) keeper_socket: PathBuf,
    pub(super) begin: Begin,
    pub(super) probes: Vec<Vec<Probe>>,
    pub(super) access: Option<Access>,
    pub(super) doors: Doors,
    pub(super) limits: Limits,
    pub(super) workers: Workers,
    pub(super) memory: Memory,
    pub(super) chronicle: Chronicle,
    pub(super) sandbox: Sandbox,
    /// This machine's names.
    pub(super) names: Vec<String>,
}

/// The control thread's state.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) digest: u64,
    pub(super) keeper_socket: PathBuf,
    pub(super) keeper: Tie,
    /// Until serving begins; then the engine has them.
    pub(super) listeners: Option<Listeners>,
    pub(super) doors: Doors,
    chronicle: Chronicle,
    verbosity: Verbosity,
    occasions: Occasions,
    findings: mpsc::Receiver<Finding>,
    pub(super) watchers: Watchers,
    pub(super) discoveries: discoveries::Discoveries,
    discovered: mpsc::Receiver<discoveries::Finding>,
    /// A server is to be checked at once.
    pub(super) alarm: Arc<Notify>,
    serve_by: Instant,
    pub(super) news: News,
    pub(super) clients: Clients,
    /// From the admin socket, and what it sends them with.
    orders: mpsc::Receiver<Order>,
    orders_sender: Orders,
    pub(super) outstanding: Outstanding,
    pub(super) memory: Memory,
    pub(super) shelf: Option<Writer>,
    /// The task that stops the engine, once somebody said stop.
    pub(super) stopping: Option<JoinHandle<()>>,
    /// What the sandbox lets this process use.
    pub(super) sandbox: Sandbox,
    pub(super) reload: Reload,
    /// Slots of farms whose members are not those of the file yet.
    pub(super) unsettled: Vec<usize>,
    /// Kept together with another process, while there is one.
    pub(super) limits: SharedLimits,
}

impl Control {
    /// Starts the health tasks and the access log; nothing is served yet.
    pub(super) fn new(config: Arc<Config>, plan: Plan, now: Instant) -> Result<Self, ProxyError> {
        let Begin {
            link,
            welcome,
            digest,
            listeners,
            vrrp,
            events,
            table,
            before,
            ..
        } = plan.begin;
        let (mut chronicle, mut memory) = (plan.chronicle, plan.memory);
        chronicle.take_in(events);
        let mut verbosity = Verbosity::default();
        verbosity.follow(vrrp.as_ref().and_then(|vrrp| vrrp.log.as_ref()), now);
        let farms: Vec<Arc<Farm>> = config.proxies.iter().map(Farm::new).map(Arc::new).collect();
        let (mut board, mut machines) = (Board::new(&config, now), machines(&config, now));
        memory.restore(&config, &farms);
        memory.apply(&farms, now);
        as_operators_left_it(&farms, &mut board, now);
        restore(&welcome, &mut board, &farms, &mut machines, now);
        let limits = SharedLimits::new(table, &farms);
        let (lasting, (sender, findings)) = (plan.begin.lasting, mpsc::channel(FINDINGS_MAX));
        let watchers = Watchers::begin(&config, &farms, plan.probes, machines, (sender, lasting));
        let (discoveries, discovered, known) = discoveries::start(&config);
        let (clients, alarm) = (Clients::new(&config), alarm(&farms));
        let fixed = Fixed {
            workers: plan.workers,
            config,
            access: AccessLog::new(plan.access, farms.clone()).map_err(ProxyError::Setup)?,
            farms,
            started: now,
            limits: plan.limits,
            names: plan.names,
        };
        let changing = Changing {
            vrrp,
            removed: memory.removed(),
            ..Changing::new(board, known, welcome, now)
        };
        let (orders_sender, orders) = mpsc::channel(OUTSTANDING_MAX);
        Ok(Self {
            serve_by: now + first_verdicts_within(&fixed.config),
            shared: Shared::begun(fixed, changing, before),
            digest,
            keeper_socket: plan.keeper_socket,
            keeper: Tie::Connected(link),
            listeners: Some(listeners),
            doors: plan.doors,
            chronicle,
            verbosity,
            occasions: Occasions::default(),
            findings,
            watchers,
            discoveries,
            discovered,
            alarm,
            news: News::default(),
            clients,
            orders,
            orders_sender,
            outstanding: Outstanding::default(),
            shelf: memory.shelf.as_ref().map(Shelf::writer),
            memory,
            stopping: None,
            limits,
            sandbox: plan.sandbox,
            reload: Reload::default(),
            unsettled: Vec::new(),
        })
    }

    /// What keeper and runner may do, and this process.
    pub(super) fn know_rights(&self, (others, own): (Vec<Confinement>, Confinement)) {
        let mut changing = self.shared.changing();
        changing.others = others;
        changing.own = own;
    }

    /// Until somebody says stop.
    pub(super) async fn run(mut self, mut signals: Signals) -> Result<(), ProxyError> {
        // However this ends, by a fault too, it ends before the machines do.
        let _life = self.watchers.lasting.as_ref().map(Lasting::life);
        let source = source(&self.shared);
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut knock = interval(KNOCK);
        knock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.keeper.next(&self.keeper_socket) => self.on_keeper(event).await?,
                Some(finding) = self.findings.recv() => self.on_finding(&finding)?,
                Some(found) = self.discovered.recv() => self.on_discovery(found)?,
                Some(order) = self.orders.recv() => self.on_order(order),
                checks = self.reload.checked() => self.on_checked(checks),
                () = self.alarm.notified() => self.on_suspicion(clock::now()),
                _ = beat.tick() => self.on_beat(clock::now())?,
                _ = knock.tick(), if self.doors.is_blocked() => {
                    self.doors.serve(&source, &self.orders_sender, clock::now());
                }
                _ = tick.tick() => self.on_tick(clock::now(), &source),
                Some(()) = signals.terminate.recv() => self.stop(GRACE_ON_SIGNAL, "SIGTERM"),
                () = stopped(&mut self.stopping) => break,
            }
        }
        self.say_last().await;
        self.shared.access.drain().await;
        self.chronicle.close().await;
        self.doors.close();
        tracing::info!("proxy stopped");
        Ok(())
    }

    pub(super) fn on_finding(&mut self, finding: &Finding) -> Result<(), ProxyError> {
        if let Some(farm) = self.shared.in_force().farms.get(finding.proxy) {
            let checked = Checked {
                health: finding.health,
                found: finding.verdict.health(),
                began: finding.started,
            };
            farm.on_check(finding.server, checked, finding.finished);
            if finding.verdict.is_ready() {
                farm.passed_check(finding.server, finding.finished);
            }
        }
        self.shared.changing().board.record(finding);
        self.news.snapshot_due = true;
        if finding.change.is_some() {
            self.on_beat(clock::now())?;
        }
        Ok(())
    }

    fn on_discovery(&mut self, found: discoveries::Finding) -> Result<(), ProxyError> {
        let (proxy, now) = (found.proxy, clock::now());
        discoveries::take_in(&self.shared, found);
        self.follow_rosters(now);
        discoveries::settle(&self.shared, proxy);
        self.on_beat(now)
    }

    /// Begins to serve when that is possible, and tells the keeper what it should know.
    fn on_beat(&mut self, now: Instant) -> Result<(), ProxyError> {
        self.try_begin(now)?;
        self.try_prepare();
        for farm in &self.shared.in_force().farms {
            farm.watch(now);
        }
        self.limits.settle(&self.shared, self.stopping.is_none());
        // Those that it was too early for.
        self.on_suspicion(now);
        let heard = {
            let mut changing = self.shared.changing();
            changing.turned = now;
            changing.keeper_heard
        };
        self.outstanding.tick(now, heard);
        self.news.note(log::happenings());
        let Tie::Connected(link) = &self.keeper else {
            return Ok(());
        };
        if let Err(error) = self.news.tell(link, &self.shared, &mut self.memory, now) {
            tracing::debug!(%error, "keeper cannot be told");
        }
        Ok(())
    }

    fn on_tick(&mut self, now: Instant, source: &Source) {
        self.verbosity.tick(now);
        self.occasions.tick(&self.shared, now);
        discoveries::again(&self.shared);
        self.settle_again();
        self.follow_rosters(now);
        let in_force = self.shared.in_force();
        in_force.farms.iter().for_each(|farm| farm.tick(now));
        self.see_leavers_off(now);
        self.shared.look(now);
        self.doors.serve(source, &self.orders_sender, now);
        if let (Some(engine), Tie::Connected(link)) = (self.shared.engine.get(), &self.keeper)
            && let Err(error) = self.clients.tick(engine, link, now)
        {
            tracing::debug!(%error, "keeper cannot be told of clients");
        }
    }

    /// Health checks begin and end with their servers; those that come are as operators left them.
    pub(super) fn follow_rosters(&mut self, now: Instant) {
        let in_force = self.shared.in_force();
        self.memory.apply(&in_force.farms, now);
        let mut changing = self.shared.changing();
        for (slot, farm) in in_force.watched() {
            let board = &mut changing.board;
            self.watchers
                .follow(slot, &farm.config(), &farm, board, now);
        }
    }

    /// Starts the data path once every server has a verdict, or none came in time.
    fn try_begin(&mut self, now: Instant) -> Result<(), ProxyError> {
        let ready = self.shared.changing().board.is_all_probed() || now >= self.serve_by;
        if !ready || self.stopping.is_some() {
            return Ok(());
        }
        let Some(listeners) = self.listeners.take() else {
            return Ok(());
        };
        let shared = &self.shared;
        let in_force = shared.in_force();
        if !in_force.farms.is_empty() {
            let options = EngineOptions {
                workers: shared.workers.count,
                max_connections: in_force.limits.max_connections,
                access: shared.access.sink(),
            };
            let placement = Placement {
                cpus: shared.workers.cpus.clone(),
                descriptors: in_force.limits.descriptors,
                shared: self.limits.joined(in_force.limits.asked),
            };
            let (config, farms) = (&in_force.config, &in_force.farms);
            let engine = Engine::start_placed(config, farms, listeners, options, placement)
                .map_err(ProxyError::Engine)?;
            if shared.engine.set(Arc::new(engine)).is_err() {
                tracing::error!("data path was started twice");
            }
        }
        let elapsed_ms = now.saturating_duration_since(shared.started).as_millis();
        shared.changing().serving = true;
        self.doors.release_at(now + TALLIES_WITHIN);
        let Workers { count, cpus } = &shared.workers;
        // Named only when they are pinned: none is no news.
        let cpus = (!cpus.is_empty()).then(|| tracing::field::debug(cpus));
        tracing::info!(elapsed_ms, workers = count, cpus, "serving");
        Ok(())
    }

    /// Has servers checked at once that the data path, or another server's check, has made suspect.
    /// Not right after its last check, as checks follow each other in transition: more haste would
    /// take a server down for a shorter fault than its check was set up for.
    fn on_suspicion(&self, now: Instant) {
        for (proxy, farm) in self.shared.in_force().farms.iter().enumerate() {
            let pause = farm.config().check.fast_interval.min(SUSPICION_PAUSE_MAX);
            for (place, _) in farm.roster().present() {
                if !farm.is_suspect(place) {
                    continue;
                }
                let checked = self.shared.changing().board.checked(proxy, place);
                let rested = |checked| now.saturating_duration_since(checked) >= pause;
                if checked.is_none_or(rested) && farm.take_suspect(place) {
                    self.watchers.hurry(proxy, place);
                }
            }
        }
    }

    pub(super) async fn on_keeper(&mut self, event: Event) -> Result<(), ProxyError> {
        match event {
            Event::Message(message, fds) => {
                self.shared.changing().keeper_heard = Some(clock::now());
                self.on_message(*message, fds);
            }
            Event::Lost(error) => {
                self.keeper = Tie::Lost;
                self.outstanding.keeper_lost();
                self.drop_reload();
                self.shared.changing().keeper_heard = None;
                if self.listeners.is_some() {
                    return Err(ProxyError::KeeperLost(error));
                }
                if self.stopping.is_none() {
                    tracing::warn!(%error, "keeper lost, serving goes on");
                }
            }
            Event::Found(link) => {
                if let Err(error) = self.offer_adoption(&link).await {
                    tracing::debug!(%error, "keeper does not take this process over");
                    return Ok(());
                }
                self.keeper = Tie::Connected(link);
                self.news.start_over();
                self.memory.untold = true;
                self.clients.start_over();
                self.news.tallies.start_over(&self.shared);
                self.shared.changing().keeper_heard = Some(clock::now());
            }
        }
        Ok(())
    }

    fn on_message(&mut self, message: ToProxy, fds: Vec<OwnedFd>) {
        match message {
            ToProxy::Welcome(welcome) => self.on_adopted(welcome, fds),
            // An adopted process has its sockets; these close, unless a reload waits for them.
            ToProxy::Listeners(group) => self.on_fresh(group, fds),
            ToProxy::ListenersDone => self.on_fresh_done(),
            // It has had its own from the beginning.
            ToProxy::Shares { .. } => {}
            ToProxy::Share { shared } => self.limits.set(&self.shared, shared),
            ToProxy::Tally(page) => self.on_tally(page),
            // Said before it served.
            ToProxy::Succeeds => {}
            ToProxy::Events(events) => self.chronicle.take_in(events),
            ToProxy::Vrrp(status) => {
                self.verbosity.follow(status.log.as_ref(), clock::now());
                self.shared.changing().vrrp = Some(*status);
            }
            ToProxy::ResetLocal(addresses) => {
                if let Some(engine) = self.shared.engine.get().map(Arc::clone) {
                    tokio::task::spawn_blocking(move || engine.reset_local(&addresses));
                }
            }
            ToProxy::Confined(others) => self.shared.changing().others = others,
            ToProxy::Probe => {
                self.watchers.hurry_all();
            }
            ToProxy::Outcome { id, outcome } => self.outstanding.settle(id, outcome),
            ToProxy::Prepare { id } => self.on_prepare(id, fds),
            ToProxy::Commit { id } => self.on_commit(id),
            ToProxy::Abort { id } => self.on_abort(id),
            ToProxy::Record(order) => self.on_record(order),
            ToProxy::Stop { grace_ms } => {
                self.stop(Duration::from_millis(grace_ms.into()), "keeper");
            }
            ToProxy::Drain { grace_ms } => {
                // The successor answers questions from here on, with what was counted until now.
                self.doors.close();
                self.hand_over_counts(clock::now());
                self.stop(Duration::from_millis(grace_ms.into()), "succeeded");
            }
        }
    }

    /// Stops accepting, lets connections finish, then ends the loop. A second call can only
    /// shorten the first one's grace.
    pub(super) fn stop(&mut self, grace: Duration, reason: &'static str) {
        let elapsed_ms = grace.as_millis();
        tracing::info!(reason, elapsed_ms, "stopping");
        self.shared.changing().serving = false;
        let engine = self.shared.engine.get().map(Arc::clone);
        let task = tokio::task::spawn_blocking(move || {
            if let Some(engine) = engine {
                engine.stop(grace);
            }
        });
        // The first task is the one that waits for the workers.
        self.stopping.get_or_insert(task);
    }
}

/// Waits for the engine's stop, for ever when nobody has said so.
async fn stopped(stopping: &mut Option<JoinHandle<()>>) {
    let Some(task) = stopping else {
        return std::future::pending().await;
    };
    if let Err(error) = task.await {
        tracing::error!(%error, "stop of the data path failed");
    }
}
