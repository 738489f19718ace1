//! What the keeper tells others: verdicts to the routers, their state to the proxy, stamps to the
//! next keeper, readiness and signs of life to the service manager.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::Keeper;
use super::health::{Names, Results};
use super::routers::word;
use super::runtime_dir::{ProxyMark, State, boot_id};
use super::wish::Wish;
use crate::daemon::supervise::Standing;
use crate::ipc::message::{ToProxy, VrrpState, VrrpStatus};
use crate::log::spacing::is_due;
use crate::vrrp::fsm::FELL_SILENT;
use crate::vrrp::stamp::{HoldMark, Stamp};

/// The proxy hears of the virtual routers at least this often.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// A state file that can't be written is complained of this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// The service manager is told that the node is ready after this long, serving or not.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// What was told last, so that only news is told.
#[derive(Debug)]
pub(super) struct Published {
    boot_id: String,
    /// The routers' states at the last status.
    states: Vec<(VrrpState, bool)>,
    /// The count of changes of routes and of the log level then.
    changes: u64,
    proxy: Option<ProxyMark>,
    /// The process id that `proxy` is the mark of.
    marked: Option<i32>,
    stamps: Vec<Stamp>,
    holds: Vec<HoldMark>,
    /// Stamps alone are not written before.
    save_after: Instant,
    complained: Option<Instant>,
    status_at: Instant,
    ready: bool,
    ready_at: Instant,
    fed_at: Option<Instant>,
    feed_every: Option<Duration>,
    line: String,
}

impl Published {
    /// `last`: what the last keeper left. Its proxy stays noted until one is connected: should this
    /// keeper end before, the next one must know of it.
    pub(super) fn new(last: State, now: Instant) -> Self {
        Self {
            boot_id: boot_id(),
            states: Vec::new(),
            changes: 0,
            proxy: last.proxy,
            marked: None,
            stamps: last.stamps,
            holds: last.holds,
            save_after: now,
            complained: None,
            status_at: now,
            ready: false,
            ready_at: now + READY_WITHIN,
            fed_at: None,
            feed_every: None,
            line: String::new(),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let fed = self.fed_at.zip(self.feed_every);
        fed.map_or(self.status_at, |(at, every)| {
            (at + every).min(self.status_at)
        })
    }
}

impl Keeper {
    /// After each turn of the loop.
    pub(super) fn publish(&mut self, now: Instant) {
        let standing = self.supervisor.standing(now);
        for index in 0..self.routers.count() {
            self.judge(now, index, standing);
        }
        self.judge_routes(now, standing);
        self.note_tracks(standing);
        for wish in self.routers.take_wishes(&self.epoll) {
            self.grant(now, wish);
        }
        self.tick_commands(now);
        self.tick_log(now);
        self.drive_notify(now);
        self.tell_events(now);
        self.tell_rights(now);
        let states = self.routers.states();
        let changes = self.routes.changes() + self.log_override.changes();
        let news = states != self.published.states || changes != self.published.changes;
        self.save_state(now, news);
        if news || now >= self.published.status_at {
            self.published.states = states;
            self.published.changes = changes;
            self.published.status_at = now + STATUS_EVERY;
            let status = self.status(now, standing);
            self.note_routes(&status.routes);
            self.notify_manager(now, standing, &status);
            if self.proxy_reads() {
                self.tell_proxy(now, &ToProxy::Vrrp(Box::new(status)));
            }
        }
        self.feed_watchdog(now);
    }

    /// Does what a virtual router wants done.
    fn grant(&mut self, now: Instant, wish: Wish) {
        match wish {
            Wish::Reset(addresses) => {
                self.peers.left(&addresses);
                self.tell_proxies(now, &ToProxy::ResetLocal(addresses));
            }
            Wish::Probe => self.tell_proxy(now, &ToProxy::Probe),
            Wish::Changed(router, from, to, reason) => {
                if reason == FELL_SILENT {
                    self.peers.took_over(now, router);
                }
                self.router_changed(now, router, (from, to), reason);
            }
            Wish::Conflict(router, address, mac) => self.note_conflict(router, address, mac),
            Wish::FailedOver { index, taken } => {
                self.note_failover(index, taken);
                self.commands.failed_over(now, index, taken, &self.routers);
            }
        }
    }

    /// Tells a virtual router what this node can do.
    fn judge(&mut self, now: Instant, index: usize, standing: Standing) {
        if let Some(health) = self.look(now, index, standing) {
            self.routers.set_health(index, now, health);
        }
    }

    /// Tells each route what this node can do.
    fn judge_routes(&mut self, now: Instant, standing: Standing) {
        let results = Results {
            scripts: self.scripts.verdicts(),
            files: self.tracks.files(),
            interfaces: self.routers.interfaces.ok(),
        };
        for (index, route) in self.args.config.routes.iter().enumerate() {
            let able = self.board.can_serve(&route.track, standing, &results);
            self.routes.judge(index, now, able);
        }
        for addresses in self.routes.take_resets() {
            self.tell_proxies(now, &ToProxy::ResetLocal(addresses));
        }
    }

    fn status(&self, now: Instant, standing: Standing) -> VrrpStatus {
        let names = Names::of(&self.args.config);
        let results = Results {
            scripts: self.scripts.verdicts(),
            files: self.tracks.files(),
            interfaces: self.routers.interfaces.ok(),
        };
        let mut vips = self.routers.status(now);
        for (status, vip) in vips.iter_mut().zip(&self.args.config.vips) {
            status.tracks = self.board.tracks(&vip.track, standing, &results, names);
        }
        let mut routes = self.routes.status(now);
        for (status, route) in routes.iter_mut().zip(&self.args.config.routes) {
            status.tracks = self.board.tracks(&route.track, standing, &results, names);
        }
        VrrpStatus {
            vips,
            routes,
            keeper_pid: std::process::id(),
            proxy_starts: self.supervisor.started,
            proxy_starved: self.supervisor.starved,
            proxy_hung: self.supervisor.hung,
            realtime: self.realtime,
            keeper_version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: self.proxies.draining(),
            upgrade: self.upgrade.status(),
            channel: self.peers.status(now),
            log: self.log_override.state(now),
            reload: self.reload_status(),
        }
    }

    /// Each advert of an Active is a stamp for the next keeper. Many adverts in a short time are
    /// written down once, a change of state at once.
    pub(super) fn save_state(&mut self, now: Instant, news: bool) {
        let connected = self.proxies.pid();
        let published = &mut self.published;
        if !news && published.marked == connected && now < published.save_after {
            return;
        }
        published.save_after = now + self.routers.stamp_spacing();
        let stamps = self.routers.news(&published.stamps);
        let holds = self.routers.hold_news(&published.holds);
        if published.marked == connected && stamps.is_none() && holds.is_none() {
            return;
        }
        if published.marked != connected {
            published.proxy = self.proxies.mark();
            published.marked = connected;
        }
        if let Some(stamps) = stamps {
            published.stamps = stamps;
        }
        if let Some(holds) = holds {
            published.holds = holds;
        }
        let state = State {
            boot_id: published.boot_id.clone(),
            proxy: published.proxy,
            stamps: published.stamps.clone(),
            holds: published.holds.clone(),
        };
        if let Err(error) = self.dir.write(&state)
            && is_due(&mut published.complained, COMPLAIN_EVERY, now)
        {
            tracing::warn!(%error, "state for the next keeper not written");
        }
    }

    fn notify_manager(&mut self, now: Instant, standing: Standing, status: &VrrpStatus) {
        let published = &mut self.published;
        if !published.ready && (standing == Standing::Fine || now >= published.ready_at) {
            published.ready = true;
            self.notify.send("READY=1");
        }
        let mut line = String::from(match standing {
            Standing::Unknown => "STATUS=proxy starting",
            Standing::Fine => "STATUS=proxy serving",
            Standing::Lost => "STATUS=proxy not serving",
        });
        for vip in &status.vips {
            // Writing to a String can't fail.
            write!(line, ", {} {}", vip.name, word(vip.state)).unwrap_or_default();
        }
        for route in &status.routes {
            let word = route.word();
            write!(line, ", {} {word}", route.name).unwrap_or_default();
        }
        if line != published.line {
            self.notify.send(&line);
            published.line = line;
        }
    }

    fn feed_watchdog(&mut self, now: Instant) {
        let published = &mut self.published;
        published.feed_every = self.notify.feed_interval();
        let Some(every) = published.feed_every else {
            return;
        };
        let fed = published.fed_at;
        if fed.is_none_or(|at| now.saturating_duration_since(at) >= every) {
            published.fed_at = Some(now);
            self.notify.send("WATCHDOG=1");
        }
    }
}
