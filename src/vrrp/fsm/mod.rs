//! The election machine of one virtual router: RFC 9568 §6.4 (version 3), RFC 3768 §6.4
//! (version 2), and what lbd adds: the kernel lease, make before break, the hand-off of a node
//! that can't serve, failover by command, yielding of an Active that can't be heard, no take-over
//! on a late timer alone. Pure: [`Machine::handle`] is told what happened and when, and answers
//! what to do; [`Machine::deadline`] says when it wants to be told that time has passed. `backup`,
//! `active` and `leaving` hold the rules of the states, `hold` the care for the addresses, `doubt`
//! what a node does that the others can't hear.
#![forbid(unsafe_code)]

mod action;
mod active;
mod backup;
mod doubt;
mod hold;
mod leaving;
mod rhythm;

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use action::{Action, Actions, Input, NodeHealth, Settings, StandDown};
use active::Active;
use backup::{Backup, Bar};
use doubt::Doubt;
use leaving::Leaving;
use rhythm::Rhythm;

use serde::{Deserialize, Serialize};

use super::validate::Accepted;
use super::{priority, timing};
use crate::ipc::message::VrrpState;
use crate::recorder::words::Words;
use crate::units::{AdvertInterval, Priority};

/// The reason of a take-over that nobody announced.
pub const FELL_SILENT: &str = "the active node fell silent";
/// The reason of a take-over that the Active asked for.
pub const RESIGNED: &str = "the active node resigned or cannot serve";
/// Between two renewals of the address's lifetime.
pub const RENEWAL: Duration = Duration::from_millis(500);
/// A renewal that the kernel was too busy for is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_millis(100);
/// How long a node without any verdict about itself leaves a vacant address alone after its start:
/// all servers are probed before the address is taken.
pub const STARTUP_GRACE: Duration = Duration::from_secs(3);

/// Why the machine takes no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Idle {
    Starting,
    LinkDown,
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Initialize(Idle),
    Backup(Backup),
    Active(Active),
    Leaving(Leaving),
}

/// The Active as last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    sender: IpAddr,
    priority: u8,
    #[serde(with = "crate::recorder::time")]
    at: Instant,
}

/// The state of one virtual router on this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    settings: Settings,
    state: State,
    /// Why it is in this state, in a few words.
    #[serde(with = "crate::recorder::words")]
    reason: Words,
    /// What [`Input::Down`] means.
    #[serde(with = "crate::recorder::words")]
    cut_off: Words,
    /// Since when this node takes part.
    #[serde(with = "crate::recorder::time")]
    started: Instant,
    /// Since when nothing has kept it from serving: its start, or a recovery since. A node that
    /// keeps failing preempts nobody.
    #[serde(with = "crate::recorder::time")]
    sound_since: Instant,
    health: NodeHealth,
    /// When a recovery begins to count.
    #[serde(with = "crate::recorder::time::maybe")]
    raise_at: Option<Instant>,
    heard: Option<Heard>,
    rhythm: Rhythm,
    /// The interval of the present Active.
    interval: AdvertInterval,
    /// Preempts nobody after a failover by command.
    stand_down: Option<StandDown>,
    /// Whether the others hear this node.
    doubt: Doubt,
}

impl Machine {
    /// A machine that waits for [`Input::Up`] or [`Input::Resume`].
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            interval: settings.interval,
            settings,
            state: State::Initialize(Idle::Starting),
            reason: "starting",
            cut_off: "interface down",
            started: now,
            sound_since: now,
            health: NodeHealth::UNKNOWN,
            raise_at: None,
            heard: None,
            rhythm: Rhythm::default(),
            stand_down: None,
            doubt: Doubt::NONE,
        }
    }

    /// Takes one event in and says what follows from it.
    pub fn handle(&mut self, now: Instant, input: Input) -> Actions {
        let mut out = Actions::default();
        self.lapse_if_late(now, &mut out);
        self.stand_up_in_time(now);
        match input {
            Input::Up => self.up(now, &mut out),
            Input::Down => self.down(&mut out),
            Input::Resume => self.resume(now, &mut out),
            Input::Advert(advert) => match self.state {
                State::Initialize(_) => {}
                State::Backup(backup) => self.backup_hears(now, backup, advert, &mut out),
                State::Active(active) => self.active_hears(now, active, advert, &mut out),
                State::Leaving(leaving) => self.leaving_hears(now, leaving, advert, &mut out),
            },
            Input::Timer => match self.state {
                State::Initialize(_) => {}
                State::Backup(backup) => self.backup_timer(now, backup, &mut out),
                State::Active(active) => self.active_timer(now, active, &mut out),
                State::Leaving(leaving) => self.leaving_timer(now, leaving, &mut out),
            },
            Input::Health(health) => self.judge(now, health, &mut out),
            Input::AddressLost => self.address_lost(now, &mut out),
            Input::AddressFailed => self.address_failed(now, &mut out),
            Input::NotRenewed => self.not_renewed(now, &mut out),
            Input::Resign => self.resign(now, &mut out),
            Input::Failover { hold } => self.failover(now, hold, &mut out),
            Input::ReleaseHold => self.release_hold(),
            // What follows from these follows when another Active is heard.
            Input::Unheard(unheard) => self.doubt.set_unheard(unheard),
            Input::Mute(mute) => self.doubt.set_mute(mute, now),
        }
        out
    }

    /// When [`Input::Timer`] is due; `None`: only another event can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Initialize(_) => None,
            State::Backup(backup) => {
                let due = self.backup_due(backup);
                Some(self.raise_at.map_or(due, |raise| raise.min(due)))
            }
            State::Active(active) => Some(active.deadline()),
            State::Leaving(leaving) => Some(leaving.deadline()),
        }
    }

    /// The state as users read it.
    #[must_use]
    pub fn state(&self) -> VrrpState {
        match self.state {
            State::Initialize(_) => VrrpState::Initialize,
            State::Backup(_) => VrrpState::Backup,
            State::Active(_) => VrrpState::Active,
            State::Leaving(_) => VrrpState::Leaving,
        }
    }

    /// Why it is in that state, in a few constant words.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match &self.state {
            State::Backup(backup) => match backup.held_back() {
                None | Some(Bar::Never) => self.reason,
                Some(Bar::Delay) => "waiting for the preempt delay",
                Some(Bar::StandDown) => "holding back after a failover",
                Some(Bar::Doubt) => "holding back: the others may not hear this node",
            },
            State::Initialize(_) | State::Active(_) | State::Leaving(_) => self.reason,
        }
    }

    /// Whether the addresses belong on this node.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.state {
            State::Active(_) | State::Leaving(_) => true,
            State::Initialize(_) | State::Backup(_) => false,
        }
    }

    /// Whether it has left for good.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.state == State::Initialize(Idle::Left)
    }

    /// Who is Active as far as this node knows.
    #[must_use]
    pub fn active(&self) -> Option<IpAddr> {
        match self.state {
            State::Active(_) | State::Leaving(_) => Some(self.settings.me),
            State::Backup(_) => self.heard.map(|heard| heard.sender),
            State::Initialize(_) => None,
        }
    }

    /// Until when it preempts nobody because it has failed over by command.
    #[must_use]
    pub fn hold_until(&self) -> Option<StandDown> {
        self.stand_down
    }

    /// Whether the last round of adverts failed as a whole.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.doubt.is_mute()
    }

    /// The interval in force: the Active's.
    #[must_use]
    pub fn interval(&self) -> AdvertInterval {
        self.interval
    }

    /// How long a Backup of our configured priority waits for an Active with our interval.
    #[must_use]
    pub fn own_active_down_interval(&self) -> Duration {
        timing::active_down_interval(
            self.settings.version,
            self.settings.interval,
            self.settings.base,
        )
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says what the next [`Input::Down`] means, in a few constant words.
    pub fn set_cut_off(&mut self, reason: &'static str) {
        self.cut_off = reason;
    }

    /// Takes over other settings, all but what decides on the wire: interval, version, lease and
    /// whether there are others must be as before.
    pub fn adjust(&mut self, settings: Settings) {
        let recovery_delay = self.settings.recovery_delay;
        self.settings = Settings {
            recovery_delay,
            ..settings
        };
    }

    /// Changes how much later than a holder a Backup counts its own recovery.
    pub fn set_recovery_delay(&mut self, delay: Duration) {
        self.settings.recovery_delay = delay;
    }

    /// The priority in force. A holder counts as serving until it is known that it doesn't; any
    /// other node only once it is known that it does, and after a resignation only once a probe
    /// has confirmed it.
    #[must_use]
    pub fn effective_priority(&self) -> Priority {
        let serving = match &self.state {
            State::Active(_) | State::Leaving(_) => !self.is_unfit(),
            State::Initialize(_) => self.health.known && self.health.can_serve,
            State::Backup(backup) => {
                self.health.known
                    && self.health.can_serve
                    && self.raise_at.is_none()
                    && backup.is_confirmed()
            }
        };
        priority::effective(self.settings.base, self.health.weight, serving)
    }

    fn is_unfit(&self) -> bool {
        self.health.is_unfit()
    }

    fn is_owner(&self) -> bool {
        self.settings.base == Priority::OWNER
    }

    fn up(&mut self, now: Instant, out: &mut Actions) {
        match self.state {
            State::Initialize(Idle::Starting | Idle::LinkDown) => {
                self.started = now;
                self.sound_since = now;
                self.interval = self.settings.interval;
                self.heard = None;
                self.raise_at = None;
                self.doubt.note_start();
                if self.is_owner() && self.stand_down.is_none() {
                    self.become_active(now, "address owner", out);
                } else {
                    self.state = State::Backup(Backup::watching(now));
                    self.reason = "listening for an active node";
                }
            }
            State::Active(active) => self.announce_again(now, active, out),
            State::Initialize(Idle::Left) | State::Backup(_) | State::Leaving(_) => {}
        }
    }

    fn down(&mut self, out: &mut Actions) {
        let next = match self.state {
            State::Initialize(Idle::Left) => return,
            State::Leaving(leaving) if leaving.is_final() => Idle::Left,
            State::Initialize(_) | State::Backup(_) | State::Active(_) | State::Leaving(_) => {
                Idle::LinkDown
            }
        };
        if self.holds() {
            out.push(Action::Release { graceful: false });
        }
        self.failover_ends(out);
        self.state = State::Initialize(next);
        self.reason = self.cut_off;
        self.heard = None;
    }

    fn resume(&mut self, now: Instant, out: &mut Actions) {
        if let State::Initialize(Idle::Starting) = self.state {
            self.started = now;
            self.become_active(
                now,
                "active already before a restart, upgrade or reload",
                out,
            );
        }
    }

    fn leave(&mut self, reason: &'static str) {
        self.state = State::Initialize(Idle::Left);
        self.stand_down = None;
        self.reason = reason;
        self.heard = None;
    }

    /// Another node is Active: watch it.
    fn follow(&mut self, now: Instant, advert: Accepted, reason: &'static str, out: &mut Actions) {
        self.state = State::Backup(Backup::watching(now));
        self.reason = reason;
        self.heard = None;
        self.raise_at = None;
        if let State::Backup(backup) = self.state {
            self.backup_hears(now, backup, advert, out);
        }
    }

    /// A new verdict about this node's ability to serve.
    fn judge(&mut self, now: Instant, health: NodeHealth, out: &mut Actions) {
        let before = self.health;
        self.health = health;
        if before.is_unfit() && !health.is_unfit() {
            self.sound_since = now;
        }
        match self.state {
            State::Initialize(_) | State::Leaving(_) => {}
            State::Backup(backup) => self.backup_judged(now, backup, before),
            State::Active(active) => self.active_judged(now, active, before, out),
        }
    }

    /// A holder that was away for longer than its lease has lost the addresses: nothing may bring
    /// them back but an election.
    fn lapse_if_late(&mut self, now: Instant, out: &mut Actions) {
        let (hold, last) = match &self.state {
            State::Initialize(_) | State::Backup(_) => return,
            State::Active(active) => (active.hold, false),
            State::Leaving(leaving) => (leaving.hold, leaving.is_final()),
        };
        let lapsed = hold.has_lapsed(&self.settings, now);
        if !lapsed {
            return;
        }
        out.push(Action::Release { graceful: false });
        self.failover_ends(out);
        if last {
            self.leave("resigned");
        } else {
            self.watch_again(now, "stalled for longer than the lease");
        }
    }

    fn address_failed(&mut self, now: Instant, out: &mut Actions) {
        match self.state {
            State::Initialize(_) | State::Backup(_) => {}
            State::Active(_) | State::Leaving(_) => {
                out.push(Action::Advertise(0));
                out.push(Action::Release { graceful: false });
                self.failover_ends(out);
                if matches!(self.state, State::Leaving(leaving) if leaving.is_final()) {
                    self.leave("resigned");
                } else {
                    self.watch_again(now, "the kernel refused the address");
                }
            }
        }
    }

    fn watch_again(&mut self, now: Instant, reason: &'static str) {
        self.state = State::Backup(Backup::watching(now));
        self.reason = reason;
        self.heard = None;
        self.raise_at = None;
        self.interval = self.settings.interval;
    }
}

#[cfg(test)]
mod tests;
