//! One server as the dispatcher sees it: operational state and administrative state kept apart
//! (HAProxy's `server-t.h`). Its connections are counted in [`super::dispatch::slots`]. Pure.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{balance, slowstart};
use crate::config::model;

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

/// One member of a proxy's `backends`.
#[derive(Debug, Clone)]
pub struct Server {
    seed: u64,
    backup: bool,
    weight: u32,
    max: Option<NonZeroU32>,
    operational: Operational,
    admin: AdminState,
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
            operational: Operational::Unprobed,
            admin: if config.disabled {
                AdminState::Maint
            } else {
                AdminState::Ready
            },
            ramp_since: None,
            share: slowstart::FULL,
            changed: None,
            downs: 0,
            down_time: Duration::ZERO,
            down_since: None,
        }
    }

    /// It is to have this weight and limit, and to be a backup or not, from here on.
    pub fn update(&mut self, config: &model::Server) {
        self.backup = config.backup;
        self.weight = u32::from(config.weight.get());
        self.max = config.max_connections;
    }

    /// Whether it may get new connections.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.weight > 0 && self.operational == Operational::Up && self.admin == AdminState::Ready
    }

    /// A health verdict; answers whether anything changed. `ramp` is the slowstart to begin with.
    pub fn set_up(&mut self, up: bool, ramp: Duration, now: Instant) -> bool {
        let before = self.operational;
        let after = if up {
            Operational::Up
        } else {
            Operational::Down
        };
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
                self.stop_ramp();
            }
            (_, Operational::Up | Operational::Unprobed) => {}
        }
        true
    }

    /// What an earlier process knew: a verdict, and how far a slowstart had come.
    pub fn restore(&mut self, up: bool, elapsed: Option<Duration>, ramp: Duration, now: Instant) {
        self.operational = if up {
            Operational::Up
        } else {
            Operational::Down
        };
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
