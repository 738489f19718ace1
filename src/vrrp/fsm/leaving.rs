//! The rules of a holder that is leaving, make before break: it says so with priority 0, keeps the
//! addresses in silence, and waits for its successor. For good, by command, or because it can't
//! serve; the latter two are taken back when nobody comes.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::active::Active;
use super::hold::Hold;
use super::{Action, Actions, Machine, StandDown, State};
use crate::units::Priority;
use crate::vrrp::timing;
use crate::vrrp::validate::Accepted;

/// Copies of a priority-0 advert, and the most time between two of them.
const COPIES: u8 = 3;
const COPY_SPACING: Duration = Duration::from_millis(4);
/// A hand-off nobody took is repeated after this (doubling up to the most) where the peers don't
/// preempt.
pub(super) const HAND_OFF_AGAIN: Duration = Duration::from_secs(10);
pub(super) const HAND_OFF_AGAIN_MOST: Duration = Duration::from_secs(300);

/// Why it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// For good.
    Resign,
    /// It can't serve.
    HandOff,
    /// By command; afterwards it preempts nobody for that long.
    Failover {
        #[serde(with = "crate::recorder::time::maybe_span")]
        hold: Option<Duration>,
    },
}

/// Holding the addresses in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) hold: Hold,
    purpose: Purpose,
    copies_left: u8,
    #[serde(with = "crate::recorder::time")]
    next_copy: Instant,
    #[serde(with = "crate::recorder::time::span")]
    spacing: Duration,
    #[serde(with = "crate::recorder::time")]
    until: Instant,
    #[serde(with = "crate::recorder::time::span")]
    back_off: Duration,
}

impl Leaving {
    pub(super) fn is_final(&self) -> bool {
        self.purpose == Purpose::Resign
    }

    pub(super) fn deadline(&self) -> Instant {
        let copy = (self.copies_left > 0).then_some(self.next_copy);
        [self.hold.renew_at(), copy]
            .into_iter()
            .flatten()
            .fold(self.until, Instant::min)
    }
}

impl Machine {
    pub(super) fn resign(&mut self, now: Instant, out: &mut Actions) {
        match self.state {
            State::Initialize(_) | State::Backup(_) => self.leave("resigned"),
            State::Active(active) => self.begin_leaving(now, active, Purpose::Resign, out),
            State::Leaving(leaving) if leaving.is_final() => {}
            State::Leaving(leaving) => {
                self.failover_ends(out);
                self.offer(now, leaving.hold, Purpose::Resign, HAND_OFF_AGAIN, out);
            }
        }
    }

    /// A second command before the first has come to an end only changes how long to hold.
    pub(super) fn failover(&mut self, now: Instant, hold: Option<Duration>, out: &mut Actions) {
        let purpose = Purpose::Failover { hold };
        match self.state {
            State::Active(active) if !self.settings.alone => {
                self.begin_leaving(now, active, purpose, out);
            }
            State::Leaving(mut leaving) => match leaving.purpose {
                Purpose::Resign => out.push(Action::FailedOver { taken: false }),
                Purpose::HandOff => self.offer(now, leaving.hold, purpose, leaving.back_off, out),
                Purpose::Failover { .. } => {
                    leaving.purpose = purpose;
                    self.state = State::Leaving(leaving);
                }
            },
            State::Initialize(_) | State::Backup(_) | State::Active(_) => {
                out.push(Action::FailedOver { taken: false });
            }
        }
    }

    /// A failover that is under way ends without a successor.
    pub(super) fn failover_ends(&self, out: &mut Actions) {
        if let State::Leaving(Leaving {
            purpose: Purpose::Failover { .. },
            ..
        }) = self.state
        {
            out.push(Action::FailedOver { taken: false });
        }
    }

    pub(super) fn begin_leaving(
        &mut self,
        now: Instant,
        active: Active,
        purpose: Purpose,
        out: &mut Actions,
    ) {
        let back_off = match purpose {
            Purpose::HandOff => active.hand_off_back_off(now),
            Purpose::Resign | Purpose::Failover { .. } => HAND_OFF_AGAIN,
        };
        self.offer(now, active.hold, purpose, back_off, out);
    }

    /// Make before break: three times priority 0, then silence, the addresses stay.
    fn offer(
        &mut self,
        now: Instant,
        hold: Hold,
        purpose: Purpose,
        back_off: Duration,
        out: &mut Actions,
    ) {
        let base = timing::skew_base(self.settings.version, self.settings.interval);
        let (patience, reason) = match purpose {
            Purpose::HandOff => (base * 3 / 4, "cannot serve: handing off"),
            Purpose::Resign if self.settings.alone => (Duration::ZERO, "resigning"),
            Purpose::Resign => (self.longest_wait(), "resigning"),
            Purpose::Failover { .. } => (self.longest_wait(), "failing over by command"),
        };
        self.reason = reason;
        let spacing = COPY_SPACING.min(base / 4);
        let leaving = Leaving {
            hold,
            purpose,
            copies_left: COPIES - 1,
            next_copy: now + spacing,
            spacing,
            until: now + patience,
            back_off,
        };
        self.state = State::Leaving(leaving);
        out.push(Action::Advertise(0));
        if patience.is_zero() {
            self.leaving_timer(now, leaving, out);
        }
    }

    /// How long a successor may take that counts itself at the lowest priority.
    fn longest_wait(&self) -> Duration {
        let interval = self.settings.interval;
        timing::active_down_interval(self.settings.version, interval, Priority::LOWEST)
            + interval.duration()
    }

    pub(super) fn leaving_timer(&mut self, now: Instant, mut leaving: Leaving, out: &mut Actions) {
        leaving.hold.renew(&self.settings, now, out);
        if leaving.until <= now {
            match leaving.purpose {
                Purpose::Resign => {
                    out.push(Action::Release { graceful: true });
                    self.leave("resigned");
                }
                Purpose::HandOff => {
                    self.reason = "cannot serve, but no other node took over";
                    leaving.hold.announce(&self.settings, now, out);
                    self.hold_on(now, leaving.hold, leaving.back_off, out);
                }
                Purpose::Failover { .. } => {
                    self.take_back(now, leaving, "no other node took over", out);
                }
            }
            return;
        }
        if leaving.copies_left > 0 && leaving.next_copy <= now {
            leaving.copies_left -= 1;
            leaving.next_copy = now + leaving.spacing;
            out.push(Action::Advertise(0));
        }
        self.state = State::Leaving(leaving);
    }

    /// A failover nobody followed: the neighbours hear who has the addresses.
    fn take_back(
        &mut self,
        now: Instant,
        mut leaving: Leaving,
        reason: &'static str,
        out: &mut Actions,
    ) {
        self.reason = reason;
        leaving.hold.announce_from(&self.settings, now);
        leaving.hold.announce(&self.settings, now, out);
        self.hold_on(now, leaving.hold, leaving.back_off, out);
        out.push(Action::FailedOver { taken: false });
    }

    /// The successor's first advert ends the wait. It is told once more that we resign, so that it
    /// announces itself again: had it been Active all the time behind a partition that healed, the
    /// neighbours would go on sending to us. By command nothing is given to a node that can't serve.
    pub(super) fn leaving_hears(
        &mut self,
        now: Instant,
        leaving: Leaving,
        advert: Accepted,
        out: &mut Actions,
    ) {
        if advert.priority == 0 {
            return;
        }
        let unfit = advert.priority == Priority::LOWEST.get() && !self.is_unfit();
        match leaving.purpose {
            Purpose::Failover { .. } if unfit => {
                self.take_back(now, leaving, "no node that can serve took over", out);
                return;
            }
            Purpose::Resign | Purpose::HandOff | Purpose::Failover { .. } => {}
        }
        out.push(Action::Advertise(0));
        out.push(Action::Release { graceful: true });
        match leaving.purpose {
            Purpose::Resign => self.leave("resigned"),
            Purpose::HandOff => self.follow(now, advert, "handed off", out),
            Purpose::Failover { hold } => {
                let until = hold.and_then(|hold| now.checked_add(hold));
                let stand_down = until.map_or(StandDown::UntilReleased, StandDown::Until);
                self.stand_down = (hold != Some(Duration::ZERO)).then_some(stand_down);
                self.follow(now, advert, "failed over by command", out);
                out.push(Action::FailedOver { taken: true });
            }
        }
    }

    /// Whether a failover by command is under way that will be followed by a time to preempt nobody.
    pub fn will_stand_down(&self) -> bool {
        match self.state {
            State::Leaving(leaving) => match leaving.purpose {
                Purpose::Failover { hold } => hold != Some(Duration::ZERO),
                Purpose::Resign | Purpose::HandOff => false,
            },
            State::Initialize(_) | State::Backup(_) | State::Active(_) => false,
        }
    }

    /// A previous keeper of this node preempted nobody, and so does this one.
    pub fn hold_back(&mut self, stand_down: StandDown) {
        if !self.holds() {
            self.stand_down = Some(stand_down);
        }
    }

    /// No time to preempt nobody, neither the present one nor that of a failover under way.
    pub(super) fn release_hold(&mut self) {
        self.stand_down = None;
        if let State::Leaving(leaving) = &mut self.state
            && let Purpose::Failover { hold } = &mut leaving.purpose
        {
            *hold = Some(Duration::ZERO);
        }
    }

    /// The time to preempt nobody may have ended.
    pub(super) fn stand_up_in_time(&mut self, now: Instant) {
        if let Some(StandDown::Until(end)) = self.stand_down
            && end <= now
        {
            self.stand_down = None;
        }
    }
}
