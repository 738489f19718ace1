//! The rules of a Backup (RFC 9568 §6.4.2): when it defers, when it waits, when it takes over.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::doubt::PROBE_PRIORITY;
use super::{
    Action, Actions, FELL_SILENT, Heard, Machine, NodeHealth, RESIGNED, STARTUP_GRACE, State,
};
use crate::config::model::Preempt;
use crate::units::Priority;
use crate::vrrp::timing;
use crate::vrrp::validate::Accepted;

/// How often a take-over is put off because the timer came late. Each time the socket has been
/// drained before, so an Active that is alive has been heard by then.
const LATE_GRANTS: u8 = 3;
/// A probe that confirms this node within this time of the resignation counts at once, a later
/// one only after the recovery delay.
const CONFIRMATION: Duration = Duration::from_millis(500);

/// What the timer of a Backup waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Wait {
    /// Silence of the Active: `Active_Down_Interval`.
    ActiveDown,
    /// The Active gave up or can't serve: `Skew_Time`.
    Skew,
}

/// What keeps this Backup from displacing a weaker Active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Bar {
    /// The configuration.
    Never,
    /// It has not been sound for long enough.
    Delay,
    /// It has failed over by command.
    StandDown,
    /// The others may not hear it.
    Doubt,
}

/// The Active resigned, or holds the address at the lowest priority because it can't serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Resignation {
    #[serde(with = "crate::recorder::time")]
    at: Instant,
    probe_epoch: u64,
    /// Whether a probe has succeeded here since.
    confirmed: bool,
}

/// Watching an Active, or the lack of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backup {
    wait: Wait,
    #[serde(with = "crate::recorder::time")]
    since: Instant,
    /// The timer is not due before this: a rule changed in the meantime, or it came late.
    #[serde(with = "crate::recorder::time")]
    not_before: Instant,
    late_grants: u8,
    /// The Active is weaker; that alone stands between it and us.
    held_back: Option<Bar>,
    resignation: Option<Resignation>,
}

impl Backup {
    pub(super) fn watching(now: Instant) -> Self {
        Self {
            wait: Wait::ActiveDown,
            since: now,
            not_before: now,
            late_grants: 0,
            held_back: None,
            resignation: None,
        }
    }

    pub(super) fn held_back(&self) -> Option<Bar> {
        self.held_back
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.resignation
            .is_none_or(|resignation| resignation.confirmed)
    }

    fn restart(&mut self, wait: Wait, now: Instant) {
        self.wait = wait;
        self.since = now;
        self.not_before = now;
        self.late_grants = 0;
        self.held_back = None;
    }
}

impl Machine {
    /// When this Backup takes over unless it hears something.
    pub(super) fn backup_due(&self, backup: &Backup) -> Instant {
        let version = self.settings.version;
        let priority = self.effective_priority();
        let span = match backup.wait {
            Wait::ActiveDown => {
                // TODO-correctness(RFC 9568 §6.4.2): there it is the same however often the Active
                // advertises.
                let sooner = self.heard.map_or(Duration::ZERO, |heard| {
                    let interval = self.interval.duration();
                    self.rhythm.head_start(heard.sender, interval)
                });
                timing::active_down_interval(version, self.interval, priority) - sooner
            }
            Wait::Skew => timing::skew_time(version, self.interval, priority),
        };
        let due = (backup.since + span).max(backup.not_before);
        if self.health.known {
            due
        } else {
            due.max(self.started + STARTUP_GRACE)
        }
    }

    pub(super) fn backup_timer(&mut self, now: Instant, backup: Backup, out: &mut Actions) {
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = None;
            self.reconsider(now, backup);
        }
        let State::Backup(mut backup) = self.state else {
            return;
        };
        let due = self.backup_due(&backup);
        let Some(late) = now.checked_duration_since(due) else {
            return;
        };
        let interval = self.interval.duration();
        if late > interval / 2 && backup.late_grants < LATE_GRANTS {
            backup.late_grants += 1;
            backup.not_before = now + interval;
            self.state = State::Backup(backup);
            return;
        }
        let reason = match (backup.wait, self.heard) {
            (Wait::Skew, _) => RESIGNED,
            (Wait::ActiveDown, None) => "no active node was heard",
            (Wait::ActiveDown, Some(heard)) => {
                if now.saturating_duration_since(heard.at) < 2 * interval {
                    "stronger than the node that was active"
                } else {
                    FELL_SILENT
                }
            }
        };
        self.become_active(now, reason, out);
    }

    pub(super) fn backup_hears(
        &mut self,
        now: Instant,
        mut backup: Backup,
        advert: Accepted,
        out: &mut Actions,
    ) {
        let Some(priority) = Priority::from_wire(advert.priority) else {
            self.backup_hears_resignation(now, backup, advert, out);
            return;
        };
        let weak = priority == Priority::LOWEST;
        if !weak {
            backup.resignation = None;
        } else if backup.resignation.is_none() {
            backup.resignation = Some(self.resignation(now));
            out.push(Action::Probe);
        }
        self.state = State::Backup(backup);
        let heard = Heard {
            sender: advert.sender,
            priority: advert.priority,
            at: now,
        };
        // It offered the address, found nobody in time and goes on, but we are on our way.
        let awaited = weak && backup.wait == Wait::Skew;
        let weaker = priority < self.effective_priority();
        let bar = self.bar(now, priority);
        if weaker && (awaited || bar.is_none()) {
            if self.heard.is_none_or(|known| self.outlives(heard, known)) {
                self.heard = Some(heard);
            }
            if weak {
                self.reconsider(now, backup);
            }
            return;
        }
        self.rhythm
            .note(advert.sender, now, advert.interval.duration());
        backup.restart(Wait::ActiveDown, now);
        backup.held_back = bar.filter(|_| weaker);
        self.state = State::Backup(backup);
        if backup.held_back == Some(Bar::Doubt) && self.doubt.probes(now) {
            // TODO-correctness(RFC 9568 §6.4.2): there a Backup sends nothing.
            out.push(Action::Advertise(PROBE_PRIORITY));
        }
        self.interval = advert.interval;
        self.heard = Some(heard);
    }

    /// Priority 0 counts only from the Active we know, and once per resignation.
    fn backup_hears_resignation(
        &mut self,
        now: Instant,
        mut backup: Backup,
        advert: Accepted,
        out: &mut Actions,
    ) {
        // TODO-correctness(RFC 9568 §6.4.2): there any router's priority 0 counts.
        let Some(heard) = self.heard.filter(|heard| heard.sender == advert.sender) else {
            out.push(Action::IgnoredResign);
            return;
        };
        if backup.wait == Wait::Skew {
            return;
        }
        backup.restart(Wait::Skew, now);
        backup.resignation = Some(self.resignation(now));
        self.state = State::Backup(backup);
        self.heard = Some(Heard {
            priority: 0,
            at: now,
            ..heard
        });
        out.push(Action::Probe);
    }

    fn resignation(&self, now: Instant) -> Resignation {
        Resignation {
            at: now,
            probe_epoch: self.health.probe_epoch,
            confirmed: self.health.probe_epoch == NodeHealth::NO_PROBE,
        }
    }

    /// A weaker Active replaces the known one in our books only if that is the same node, a weaker
    /// one still, or long silent.
    fn outlives(&self, heard: Heard, known: Heard) -> bool {
        known.sender == heard.sender
            || known.priority < heard.priority
            || heard.at.saturating_duration_since(known.at) > 3 * self.interval.duration()
    }

    /// What keeps us from displacing an Active of that priority, if it is weaker.
    fn bar(&self, now: Instant, active: Priority) -> Option<Bar> {
        // RFC 9568 §6.1: the owner preempts whatever the setting.
        if self.settings.preempt == Preempt::Never && !self.is_owner() {
            return Some(Bar::Never);
        }
        let weak = active == Priority::LOWEST;
        if self.stand_down.is_some() && !weak {
            return Some(Bar::StandDown);
        }
        let delay = match self.settings.preempt {
            Preempt::After(delay) if !weak && !self.is_owner() => delay,
            Preempt::Never | Preempt::Always | Preempt::After(_) => Duration::ZERO,
        };
        if now.saturating_duration_since(self.sound_since) < delay {
            return Some(Bar::Delay);
        }
        let matters = active.get() > PROBE_PRIORITY;
        (matters && self.doubt.forbids(now)).then_some(Bar::Doubt)
    }

    /// The verdict about this node changed while it watches.
    pub(super) fn backup_judged(&mut self, now: Instant, mut backup: Backup, before: NodeHealth) {
        let health = self.health;
        let serves = health.known && health.can_serve;
        if !serves {
            self.raise_at = None;
        } else if before.is_unfit() {
            self.raise_at = Some(now + self.settings.recovery_delay);
        }
        if let Some(resignation) = &mut backup.resignation
            && !resignation.confirmed
            && serves
            // A new proxy process counts from 0 again.
            && (health.probe_epoch != resignation.probe_epoch
                || health.probe_epoch == NodeHealth::NO_PROBE)
        {
            resignation.confirmed = true;
            let base = timing::skew_base(self.settings.version, self.interval);
            let quick = base.max(CONFIRMATION);
            if now.saturating_duration_since(resignation.at) > quick && self.raise_at.is_none() {
                self.raise_at = Some(now + self.settings.recovery_delay);
            }
        }
        self.reconsider(now, backup);
    }

    /// Our priority may have changed: an Active that resigned or can't serve is displaced
    /// `Skew_Time` after it said so, but never in the past.
    fn reconsider(&mut self, now: Instant, mut backup: Backup) {
        backup.not_before = backup.not_before.max(now);
        self.state = State::Backup(backup);
        let weak = self.heard.is_some_and(|heard| heard.priority <= 1);
        if let Some(resignation) = backup.resignation
            && weak
            && self.settings.preempt != Preempt::Never
            && self.effective_priority() > Priority::LOWEST
        {
            backup.wait = Wait::Skew;
            backup.since = resignation.at;
            self.state = State::Backup(backup);
        }
    }
}
