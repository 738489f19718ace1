//! One server as the dispatcher sees it: operational state and administrative state kept apart
//! (HAProxy's `server-t.h`). Its connections are counted in [`super::dispatch::slots`]. Pure.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::damping::Damping;
use super::evidence::Evidence;
use super::{balance, slowstart};
use crate::config::model;
use crate::health::fsm::Health;

/// What the health checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operational {
    /// No verdict yet: gets no connection.
    Unprobed,
    /// Fit to serve.
    Up,
    /// Not fit to serve.
    Down,
}

/// What the administrator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// In service.
    Ready,
    /// No new connections; those it has go on.
    Drain,
    /// Out of service.
    Maint,
}

/// Results of checks in a row that were all good, or all bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    good: bool,
    /// When the first of them began.
    since: Instant,
    /// When the last of them began.
    last: Instant,
}

impl Run {
    /// Whether `other` is good where this one is bad, at the same time.
    #[must_use]
    pub fn is_outlived_by(self, other: Self) -> bool {
        !self.good && other.good && self.since <= other.last && other.since <= self.last
    }
}

/// One member of a proxy's `backends`.
#[derive(Debug, Clone)]
pub struct Server {
    seed: u64,
    backup: bool,
    weight: u32,
    max: Option<NonZeroU32>,
    connects_per_second: Option<NonZeroU32>,
    operational: Operational,
    /// By the checks, in full.
    health: Option<Health>,
    run: Option<Run>,
    /// What real traffic tells.
    pub evidence: Evidence,
    /// What its ups and downs tell.
    pub damping: Damping,
    /// Held back or not, it is used: there is no other.
    spared: bool,
    /// Its established connections are being closed.
    closing: bool,
    admin: AdminState,
    /// It was out of service: its first verdict begins a slowstart.
    returning: bool,
    ramp_since: Option<Instant>,
    share: u32,
    changed: Option<Instant>,
    downs: u64,
    down_time: Duration,
    down_since: Option<Instant>,
}

impl Server {
    /// A server that was never probed; in maintenance if the file says `disabled`.
    #[must_use]
    pub fn new(config: &model::Server) -> Self {
        Self {
            seed: balance::seed(&config.name),
            backup: config.backup,
            weight: u32::from(config.weight.get()),
            max: config.max_connections,
            connects_per_second: config.connects_per_second,
            operational: Operational::Unprobed,
            health: None,
            run: None,
            evidence: Evidence::default(),
            damping: Damping::default(),
            spared: false,
            closing: false,
            admin: if config.disabled {
                AdminState::Maint
            } else {
                AdminState::Ready
            },
            returning: false,
            ramp_since: None,
            share: slowstart::FULL,
            changed: None,
            downs: 0,
            down_time: Duration::ZERO,
            down_since: None,
        }
    }

    /// It is to have this weight, limit and pace, and to be a backup or not, from here on.
    pub fn update(&mut self, config: &model::Server) {
        self.backup = config.backup;
        self.weight = u32::from(config.weight.get());
        self.max = config.max_connections;
        self.connects_per_second = config.connects_per_second;
    }

    /// Nobody probes it any more: there is no verdict until somebody does again.
    pub fn forget(&mut self, now: Instant) {
        if let Some(since) = self.down_since.take() {
            self.down_time += now.saturating_duration_since(since);
        }
        self.operational = Operational::Unprobed;
        (self.health, self.run) = (None, None);
        self.evidence.end_ejection();
        self.damping = Damping::default();
        self.returning = true;
        self.stop_ramp();
    }

    /// Whether it may get new connections.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.able() && (self.spared || !self.held())
    }

    /// Whether it could serve, as far as checks and the operator say.
    #[must_use]
    pub fn able(&self) -> bool {
        self.weight > 0 && self.operational == Operational::Up && self.admin == AdminState::Ready
    }

    /// Whether it is kept out although its checks say that it is well: ejected for what traffic
    /// told, or not believed yet after many outages.
    #[must_use]
    pub const fn held(&self) -> bool {
        self.evidence.ejected().is_some() || self.damping.holds()
    }

    /// Whether it is used although it is held.
    #[must_use]
    pub fn spared(&self) -> bool {
        self.spared && self.held() && self.able()
    }

    /// Whether those that are held are used, for want of others.
    pub const fn spare(&mut self, spared: bool) {
        self.spared = spared;
    }

    /// Whether its established connections are being closed.
    #[must_use]
    pub const fn closing(&self) -> bool {
        self.closing
    }

    /// Begins or stops to close its established connections; answers whether that is new.
    pub const fn set_closing(&mut self, closing: bool) -> bool {
        std::mem::replace(&mut self.closing, closing) != closing
    }

    /// Begins a slowstart after it was held back.
    pub fn believe(&mut self, ramp: Duration, now: Instant) {
        self.start_ramp(now, ramp);
    }

    /// A check that began at `began` was good, or bad.
    pub fn note_result(&mut self, good: bool, began: Instant) {
        self.run = Some(match self.run {
            Some(run) if run.good == good => Run { last: began, ..run },
            Some(_) | None => Run {
                good,
                since: began,
                last: began,
            },
        });
    }

    /// The present run of results.
    #[must_use]
    pub const fn run(&self) -> Option<Run> {
        self.run
    }

    /// By the checks; `None`: no verdict yet.
    #[must_use]
    pub const fn health(&self) -> Option<Health> {
        self.health
    }

    /// A health verdict; answers whether it went up, down, or stayed. `ramp` is the slowstart to
    /// begin with.
    pub fn set_health(&mut self, health: Health, ramp: Duration, now: Instant) -> bool {
        let before = self.operational;
        let after = if health.is_ready() {
            Operational::Up
        } else {
            Operational::Down
        };
        self.health = Some(health);
        if before == after {
            return false;
        }
        self.operational = after;
        self.changed = Some(now);
        match (before, after) {
            (Operational::Down, Operational::Up) => {
                if let Some(since) = self.down_since.take() {
                    self.down_time += now.saturating_duration_since(since);
                }
                self.start_ramp(now, ramp);
            }
            (_, Operational::Down) => {
                self.down_since = Some(now);
                self.downs += u64::from(before == Operational::Up);
                if before == Operational::Up {
                    self.damping.went_down(now);
                }
                self.evidence.end_ejection();
                self.stop_ramp();
            }
            (Operational::Unprobed, Operational::Up) if self.returning => {
                self.start_ramp(now, ramp);
            }
            (_, Operational::Up | Operational::Unprobed) => {}
        }
        self.returning = false;
        true
    }

    /// What an earlier process knew: a verdict, and how far a slowstart had come.
    pub fn restore(&mut self, up: bool, elapsed: Option<Duration>, ramp: Duration, now: Instant) {
        self.operational = if up {
            Operational::Up
        } else {
            Operational::Down
        };
        self.health = Some(Health::up_or_not(up));
        self.changed = Some(now);
        self.down_since = (!up).then_some(now);
        self.stop_ramp();
        if let Some(elapsed) = elapsed.filter(|e| up && *e < ramp) {
            self.ramp_since = now.checked_sub(elapsed);
            self.advance(ramp, now);
        }
    }

    /// An administrator's word; answers whether anything changed.
    pub fn set_admin(&mut self, state: AdminState, ramp: Duration, now: Instant) -> bool {
        let before = self.admin;
        self.admin = state;
        match (before, state) {
            (AdminState::Maint, AdminState::Ready) if self.operational == Operational::Up => {
                self.start_ramp(now, ramp);
            }
            (_, AdminState::Maint) => self.stop_ramp(),
            (_, AdminState::Ready | AdminState::Drain) => {}
        }
        before != state
    }

    /// Moves a slowstart on to `now`; answers whether the share changed.
    pub fn advance(&mut self, ramp: Duration, now: Instant) -> bool {
        let Some(since) = self.ramp_since else {
            return false;
        };
        let before = self.share;
        self.share = slowstart::share(now.saturating_duration_since(since), ramp);
        if self.share == slowstart::FULL {
            self.ramp_since = None;
        }
        self.share != before || self.ramp_since.is_none()
    }

    fn start_ramp(&mut self, now: Instant, ramp: Duration) {
        self.ramp_since = Some(now);
        self.advance(ramp, now);
    }

    fn stop_ramp(&mut self) {
        self.ramp_since = None;
        self.share = slowstart::FULL;
    }

    /// Whether it is warming up.
    #[must_use]
    pub const fn ramping(&self) -> bool {
        self.ramp_since.is_some()
    }

    /// How far its slowstart has come.
    #[must_use]
    pub fn ramp_elapsed(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.ramp_since?))
    }

    /// Its weight in the rotation, in 1/[`slowstart::FULL`] of the configured unit.
    #[must_use]
    pub const fn effective_weight(&self) -> u32 {
        self.weight * self.share
    }

    /// The connections it may have; `ramped`: whether a slowstart bounds them.
    #[must_use]
    pub fn limit(&self, ramped: bool) -> u32 {
        match self.max {
            None => u32::MAX,
            Some(max) if ramped && self.ramping() => slowstart::limit(max, self.share),
            Some(max) => max.get(),
        }
    }

    /// What the health checks say.
    #[must_use]
    pub const fn operational(&self) -> Operational {
        self.operational
    }

    /// What the administrator says.
    #[must_use]
    pub const fn admin(&self) -> AdminState {
        self.admin
    }

    /// The configured weight.
    #[must_use]
    pub const fn weight(&self) -> u32 {
        self.weight
    }

    /// What stands for its name.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether it is used only when no other server is usable.
    #[must_use]
    pub const fn backup(&self) -> bool {
        self.backup
    }

    /// The configured limit.
    #[must_use]
    pub const fn max(&self) -> Option<NonZeroU32> {
        self.max
    }

    /// The configured pace of new connections; `None`: as they come.
    #[must_use]
    pub const fn connects_per_second(&self) -> Option<NonZeroU32> {
        self.connects_per_second
    }

    /// The present share, up to [`slowstart::FULL`].
    #[must_use]
    pub const fn share(&self) -> u32 {
        self.share
    }

    /// When its operational state last changed.
    #[must_use]
    pub const fn changed(&self) -> Option<Instant> {
        self.changed
    }

    /// How often it went down.
    #[must_use]
    pub const fn downs(&self) -> u64 {
        self.downs
    }

    /// How long it has been down in all.
    #[must_use]
    pub fn down_time(&self, now: Instant) -> Duration {
        let present = self
            .down_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.down_time + present
    }
}
