//! What the control thread knows, shared with those who answer questions about it; and the doors
//! they stand at.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::AbortHandle;

use super::access::AccessLog;
use super::force::InForce;
use super::limits::Limits;
use super::placement::Workers;
use super::start::Before;
use crate::admin::events::Feed;
use crate::admin::measures::ProcessMeasures;
use crate::admin::pace::Paces;
use crate::admin::status::{ProcessStatus, ProxyStatus, Status};
use crate::admin::tally::{Ledger, Told};
use crate::admin::{Orders, Source, discovery, gather, http, socket};
use crate::config::model::Config;
use crate::discovery::known::Known;
use crate::health::board::Board;
use crate::ipc::message::{VrrpStatus, Welcome};
use crate::ipc::tally::Page;
use crate::log;
use crate::net::clock;
use crate::proxy::engine::Engine;
use crate::proxy::farm::Farm;

/// State that both the control loop and the answering tasks see.
#[derive(Debug)]
pub(super) struct Shared {
    in_force: ArcSwap<InForce>,
    /// Set when serving begins; stays empty in a file without `[proxy]`.
    pub(super) engine: OnceLock<Arc<Engine>>,
    pub(super) access: AccessLog,
    pub(super) started: Instant,
    /// The same, seconds since 1970.
    began: u64,
    pub(super) workers: Workers,
    changing: Mutex<Changing>,
}

/// What changes.
#[derive(Debug)]
pub(super) struct Changing {
    pub(super) board: Board,
    /// What sources of servers have found.
    pub(super) known: Known,
    pub(super) vrrp: Option<VrrpStatus>,
    /// When the keeper last spoke; `None`: it is not connected.
    pub(super) keeper_heard: Option<Instant>,
    pub(super) generation: u32,
    pub(super) node: Option<String>,
    pub(super) config_path: String,
    pub(super) serving: bool,
    /// Servers of the file that operators removed: names of proxy and server.
    pub(super) removed: Vec<(String, String)>,
    /// Rates and averages.
    pub(super) paces: Paces,
    /// What processes before this one counted.
    pub(super) ledger: Ledger,
    /// A successor answers questions: what is asked here still gets this.
    pub(super) last: Option<Status>,
}

impl Changing {
    /// At the start, the keeper having said `welcome` just now.
    pub(super) fn new(board: Board, known: Known, welcome: Welcome, now: Instant) -> Self {
        Self {
            board,
            known,
            vrrp: None,
            keeper_heard: Some(now),
            generation: welcome.generation,
            node: welcome.node,
            config_path: welcome.config_path,
            serving: false,
            removed: Vec::new(),
            paces: Paces::default(),
            ledger: Ledger::new(clock::unix_time(), std::process::id()),
            last: None,
        }
    }
}

/// What a [`Shared`] is made of.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) config: Arc<Config>,
    pub(super) farms: Vec<Arc<Farm>>,
    pub(super) access: AccessLog,
    pub(super) started: Instant,
    pub(super) limits: Limits,
    pub(super) workers: Workers,
}

impl Shared {
    pub(super) fn new(fixed: Fixed, changing: Changing) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(InForce::new(fixed.config, fixed.farms, fixed.limits)),
            engine: OnceLock::new(),
            access: fixed.access,
            started: fixed.started,
            began: clock::unix_time().as_secs(),
            workers: fixed.workers,
            changing: Mutex::new(changing),
        }
    }

    /// The same after the processes before this one.
    pub(super) fn begun(fixed: Fixed, changing: Changing, before: Before) -> Arc<Self> {
        let shared = Self::new(fixed, changing);
        for page in before.pages {
            shared.take_in(page, shared.started);
        }
        Arc::new(shared)
    }

    /// The configuration in force, and its farms.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Puts another one in force.
    pub(super) fn put_in_force(&self, next: InForce) {
        self.in_force.store(Arc::new(next));
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a second: what rates are made of.
    pub(super) fn look(&self, now: Instant) {
        let in_force = self.in_force();
        if !in_force.config.metrics.compat || !self.changing().paces.is_due(now) {
            return;
        }
        let farms = in_force.proxies().map(|placed| placed.farm);
        let all: Vec<_> = farms.map(|farm| farm.stats(now)).collect();
        self.changing().paces.look(&all, now);
    }

    /// Everything, at `now`.
    pub(super) fn status(&self, now: Instant) -> Status {
        let changing = self.changing();
        if let Some(last) = &changing.last {
            return last.clone();
        }
        let own = self.own_status(&changing, now);
        changing.ledger.show(own, clock::unix_time()).judged()
    }

    /// A successor serves: what this process knows of counts is for it.
    pub(super) fn hand_over(&self, now: Instant) -> (Vec<Page>, Told) {
        let mut changing = self.changing();
        let own = self.own_status(&changing, now);
        let wall = clock::unix_time();
        let handed = changing.ledger.hand_over(&own, wall);
        let shown = changing.ledger.show(own, wall).judged();
        changing.last.get_or_insert(shown);
        handed
    }

    /// What was counted since it was `told`; `ended`: for the last time.
    pub(super) fn tell_again(&self, told: &mut Told, ended: bool, now: Instant) -> Vec<Page> {
        let changing = self.changing();
        let own = self.own_status(&changing, now);
        changing.ledger.tell_again(&own, told, ended)
    }

    /// All that was told, once more.
    pub(super) fn known(&self, told: &Told) -> Vec<Page> {
        self.changing().ledger.known(told)
    }

    /// What was told last.
    pub(super) fn repeat(&self, told: &Told) -> Vec<Page> {
        self.changing().ledger.repeat(told, false)
    }

    /// Takes in what another process counted. One that was succeeded itself has told its own already.
    pub(super) fn take_in(&self, page: Page, now: Instant) {
        let mut changing = self.changing();
        if changing.last.is_some() {
            return;
        }
        let mut ledger = std::mem::take(&mut changing.ledger);
        ledger.take_in(page, || self.own_status(&changing, now));
        changing.ledger = ledger;
    }

    /// Everything as this process alone knows it.
    fn own_status(&self, changing: &Changing, now: Instant) -> Status {
        let in_force = self.in_force();
        let millis = |since: Instant| {
            let age = now.saturating_duration_since(since).as_millis();
            u64::try_from(age).unwrap_or(u64::MAX)
        };
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let connections = self.engine.get().map_or(0, |engine| engine.connections());
        let shortages = self.engine.get().map(|engine| engine.shortages());
        let shortages = shortages.into_iter().flatten();
        let shortages = shortages
            .map(|(what, count)| (what.word().to_owned(), count))
            .collect();
        let process = ProcessStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: changing.node.clone(),
            name: gather::own_name(&in_force.config.vips, changing.vrrp.as_ref()),
            config_path: changing.config_path.clone(),
            generation: changing.generation,
            uptime_ms: millis(self.started),
            serving: changing.serving,
            keeper_heard_ms: changing.keeper_heard.map(millis),
            connections: wide(connections),
            max_connections: in_force.limits.max_connections.into(),
            workers: wide(self.workers.count),
            worker_cpus: self.workers.cpus.iter().copied().map(wide).collect(),
            shortages,
            log_dropped: log::dropped(),
            access_log_dropped: self.access.dropped(),
            measures: ProcessMeasures {
                started: self.began,
                compat: in_force.config.metrics.compat,
            },
        };
        let proxies = in_force.proxies().map(|placed| {
            let (at, config, farm) = (placed.slot, placed.config, placed.farm);
            let (health, probed) = (changing.board.servers(at), changing.board.is_probed(at));
            let paces = &changing.paces;
            let stats = farm.stats(now);
            let status = gather::proxy_status(config, &stats, health, probed, paces, now);
            let removed = changing.removed.iter();
            let removed = removed.filter(|(proxy, _)| *proxy == config.name);
            ProxyStatus {
                removed: removed.map(|(_, server)| server.clone()).collect(),
                discovery: discovery::gather(changing.known.sources(at), now),
                ..status
            }
        });
        Status {
            process,
            vrrp: changing.vrrp.clone(),
            proxies: proxies.collect(),
            ..Status::default()
        }
    }
}

/// Between two attempts to open a door that somebody blocks. A process that is succeeded goes as soon
/// as this one serves; until then nobody answers probes.
const RETRY_EVERY: Duration = Duration::from_millis(15);

/// A door to the outside: not open yet, or served by a task.
#[derive(Debug)]
enum Door<A, L> {
    /// Somebody else (a proxy process that is about to go) still stands there.
    Blocked(A),
    Bound(L),
    Served(AbortHandle),
    /// For good.
    Closed,
}

/// The admin socket and the HTTP listener.
#[derive(Debug)]
pub(super) struct Doors {
    admin_path: PathBuf,
    admin: Door<PathBuf, UnixListener>,
    http: Option<Door<SocketAddr, TcpListener>>,
    tried: Instant,
    /// Whoever is succeeded has not told yet what it counted: until then nobody is answered here.
    held: bool,
    /// Nothing is waited for any longer then.
    release_at: Option<Instant>,
    feed: Arc<Feed>,
}

impl Doors {
    /// Opens what can be opened; [`Doors::serve`] tries the rest again.
    /// `held`: not before [`Doors::release`].
    pub(super) fn open(config: &Config, runtime_dir: &Path, held: bool) -> Self {
        let default = || runtime_dir.join("admin.sock");
        let admin_path = config.admin.socket.clone().unwrap_or_else(default);
        let mut doors = Self {
            admin: Door::Blocked(admin_path.clone()),
            admin_path,
            http: config.metrics.listen.map(Door::Blocked),
            tried: clock::now(),
            held,
            release_at: None,
            feed: Arc::default(),
        };
        doors.bind(true);
        doors
    }

    /// Nothing is waited for after this.
    pub(super) fn release_at(&mut self, at: Instant) {
        self.release_at = Some(at);
    }

    /// Nothing more is waited for.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// The events that the admin socket tells of.
    pub(super) fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// Puts a task behind every open door, and tries the closed ones again.
    pub(super) fn serve(&mut self, source: &Source, orders: &Orders, now: Instant) {
        if now.saturating_duration_since(self.tried) >= RETRY_EVERY {
            self.tried = now;
            self.held &= self.release_at.is_none_or(|at| now < at);
            self.bind(false);
        }
        self.admin = match std::mem::replace(&mut self.admin, Door::Closed) {
            Door::Bound(listener) => {
                let (source, feed) = (Arc::clone(source), Arc::clone(&self.feed));
                let orders = orders.clone();
                let task = tokio::spawn(async move {
                    if let Err(error) = socket::serve(listener, source, feed, orders).await {
                        tracing::error!(%error, "admin socket cannot be served");
                    }
                });
                Door::Served(task.abort_handle())
            }
            other @ (Door::Blocked(_) | Door::Served(_) | Door::Closed) => other,
        };
        self.http = self.http.take().map(|door| match door {
            Door::Bound(listener) => {
                let (source, feed) = (Arc::clone(source), Arc::clone(&self.feed));
                let task = tokio::spawn(async move {
                    if let Err(error) = http::serve(listener, source, feed).await {
                        tracing::error!(%error, "metrics listener cannot be served");
                    }
                });
                Door::Served(task.abort_handle())
            }
            other @ (Door::Blocked(_) | Door::Served(_) | Door::Closed) => other,
        });
    }

    /// Whether one of them is still somebody else's.
    pub(super) const fn is_blocked(&self) -> bool {
        matches!(self.admin, Door::Blocked(_)) || matches!(self.http, Some(Door::Blocked(_)))
    }

    /// Takes no further questions, and leaves no socket file behind. What was asked is answered.
    pub(super) fn close(&mut self) {
        match std::mem::replace(&mut self.admin, Door::Closed) {
            Door::Served(task) => {
                task.abort();
                if let Err(error) = std::fs::remove_file(&self.admin_path) {
                    tracing::debug!(%error, "admin socket stays in place");
                }
            }
            Door::Blocked(_) | Door::Bound(_) | Door::Closed => {}
        }
        match self.http.replace(Door::Closed) {
            Some(Door::Served(task)) => task.abort(),
            Some(Door::Blocked(_) | Door::Bound(_) | Door::Closed) | None => {}
        }
    }

    /// Has questions over HTTP answered there and no longer here.
    pub(super) fn move_http(&mut self, to: HttpDoor) {
        let door = match to {
            HttpDoor::Same => return,
            HttpDoor::Off => None,
            HttpDoor::Blocked(address) => Some(Door::Blocked(address)),
            HttpDoor::Bound(listener) => Some(Door::Bound(listener)),
        };
        if let Some(Door::Served(task)) = std::mem::replace(&mut self.http, door) {
            task.abort();
        }
    }

    fn bind(&mut self, first: bool) {
        if self.held {
            return;
        }
        if let Door::Blocked(path) = &self.admin {
            match socket::bind(path) {
                Ok(listener) => self.admin = Door::Bound(listener),
                Err(error) => complain(first, &path.display().to_string(), &error),
            }
        }
        if let Some(Door::Blocked(address)) = self.http {
            match http::bind(address) {
                Ok(listener) => self.http = Some(Door::Bound(listener)),
                Err(error) => complain(first, &address.to_string(), &error),
            }
        }
    }
}

/// Where questions over HTTP are to be answered.
#[derive(Debug)]
pub(super) enum HttpDoor {
    /// Where they are.
    Same,
    /// Nowhere.
    Off,
    /// Here, once the present door is closed.
    Blocked(SocketAddr),
    /// Here.
    Bound(TcpListener),
}

impl HttpDoor {
    /// Opens what `to` asks for beside the door at `from`.
    pub(super) fn open(from: Option<SocketAddr>, to: Option<SocketAddr>) -> std::io::Result<Self> {
        let Some(address) = to.filter(|_| from != to) else {
            return Ok(if from == to { Self::Same } else { Self::Off });
        };
        match http::bind(address) {
            Ok(listener) => Ok(Self::Bound(listener)),
            // In its own way, as far as one can tell: the same port of another address.
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && from.is_some_and(|from| from.port() == address.port()) =>
            {
                Ok(Self::Blocked(address))
            }
            Err(error) => Err(error),
        }
    }
}

fn complain(first: bool, at: &str, error: &std::io::Error) {
    if first {
        tracing::warn!(key = at, %error, "cannot listen for questions, will try again");
    }
}

/// Gives the present status to whoever asks.
pub(super) fn source(shared: &Arc<Shared>) -> Source {
    let shared = Arc::clone(shared);
    Arc::new(move || shared.status(clock::now()))
}
