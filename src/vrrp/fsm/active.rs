//! The rules of an Active (RFC 9568 §6.4.3) and of one that is leaving: it holds the addresses,
//! advertises nothing, and waits for its successor.

use std::time::{Duration, Instant};

use super::{Action, Actions, Machine, NodeHealth, RENEW_AGAIN, RENEWAL, State};
use crate::config::model::Preempt;
use crate::units::Priority;
use crate::vrrp::garp::Schedule;
use crate::vrrp::timing;
use crate::vrrp::validate::Accepted;

/// Copies of a priority-0 advert, and the most time between two of them.
const COPIES: u8 = 3;
const COPY_SPACING: Duration = Duration::from_millis(4);
/// Between two answers to weaker adverts, and between two announcements with them.
const ANSWER_SPACING: Duration = Duration::from_millis(5);
const ANNOUNCE_SPACING: Duration = Duration::from_millis(200);
/// Between two times an address is put back at once; sooner, it waits that long.
const RESTORE_SPACING: Duration = Duration::from_millis(20);
/// A hand-off nobody took is repeated after this (doubling up to the most) where the peers don't
/// preempt.
const HAND_OFF_AGAIN: Duration = Duration::from_secs(10);
const HAND_OFF_AGAIN_MOST: Duration = Duration::from_secs(300);

/// The addresses and when to care for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    /// The last time the kernel was given the lifetime, and the time before, which counts if it
    /// turns out that the kernel did not take it.
    renewed: Instant,
    renewed_before: Instant,
    renew_at: Option<Instant>,
    restore_after: Instant,
    garp: Schedule,
}

impl Hold {
    fn note_renewal(&mut self, now: Instant) {
        self.renewed_before = self.renewed;
        self.renewed = now;
    }
}

/// Holding the addresses and saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Active {
    hold: Hold,
    next_advert: Instant,
    answer_after: Instant,
    announce_after: Instant,
    /// When the hand-off is tried again, and how long to wait after that.
    hand_off_at: Option<Instant>,
    back_off: Duration,
}

/// Holding the addresses in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaving {
    hold: Hold,
    /// Leaves for good (as opposed to a hand-off, which is taken back when nobody comes).
    last: bool,
    copies_left: u8,
    next_copy: Instant,
    spacing: Duration,
    until: Instant,
    back_off: Duration,
}

impl Active {
    pub(super) fn deadline(&self) -> Instant {
        [
            self.hold.renew_at,
            self.hold.garp.deadline(),
            self.hand_off_at,
        ]
        .into_iter()
        .flatten()
        .fold(self.next_advert, Instant::min)
    }

    pub(super) fn renewed(&self) -> Instant {
        self.hold.renewed
    }
}

impl Leaving {
    pub(super) fn for_good(active: Active) -> Self {
        Self::new(active.hold, true, HAND_OFF_AGAIN)
    }

    pub(super) fn now_for_good(self) -> Self {
        Self::new(self.hold, true, HAND_OFF_AGAIN)
    }

    fn new(hold: Hold, last: bool, back_off: Duration) -> Self {
        Self {
            next_copy: hold.renewed,
            until: hold.renewed,
            hold,
            last,
            copies_left: COPIES,
            spacing: COPY_SPACING,
            back_off,
        }
    }

    pub(super) fn is_final(&self) -> bool {
        self.last
    }

    pub(super) fn renewed(&self) -> Instant {
        self.hold.renewed
    }

    pub(super) fn deadline(&self) -> Instant {
        let copy = (self.copies_left > 0).then_some(self.next_copy);
        [self.hold.renew_at, copy]
            .into_iter()
            .flatten()
            .fold(self.until, Instant::min)
    }
}

impl Machine {
    pub(super) fn become_active(&mut self, now: Instant, reason: &'static str, out: &mut Actions) {
        self.interval = self.settings.interval;
        self.heard = None;
        self.raise_at = None;
        self.reason = reason;
        let mut hold = Hold {
            renewed: now,
            renewed_before: now,
            renew_at: self.settings.lease.map(|_| now + RENEWAL),
            restore_after: now,
            garp: Schedule::start(&self.settings.garp, now),
        };
        // TODO-correctness(RFC 9568 §6.4.2): the advert follows the announcement instead of going
        // before it, so that a node that leaves on hearing it leaves nobody without an answer.
        out.push(Action::Claim);
        self.announce(now, &mut hold, out);
        self.hold_on(now, hold, HAND_OFF_AGAIN, out);
    }

    /// Advertises and goes on as Active.
    fn hold_on(&mut self, now: Instant, hold: Hold, back_off: Duration, out: &mut Actions) {
        let repeat = self.is_unfit() && !self.is_owner() && self.settings.preempt == Preempt::Never;
        self.state = State::Active(Active {
            hold,
            next_advert: now + self.settings.spacing,
            answer_after: now,
            announce_after: now,
            hand_off_at: repeat.then_some(now + back_off),
            back_off: (back_off * 2).min(HAND_OFF_AGAIN_MOST),
        });
        out.push(Action::Advertise(self.effective_priority().get()));
    }

    fn announce(&self, now: Instant, hold: &mut Hold, out: &mut Actions) {
        let frames = hold.garp.due(&self.settings.garp, now);
        if frames > 0 {
            out.push(Action::Garp(frames));
        }
    }

    pub(super) fn announce_again(&mut self, now: Instant, mut active: Active, out: &mut Actions) {
        active.hold.garp = Schedule::start(&self.settings.garp, now);
        self.announce(now, &mut active.hold, out);
        self.state = State::Active(active);
    }

    fn renew(&self, now: Instant, hold: &mut Hold, out: &mut Actions) {
        if hold.renew_at.is_some_and(|at| at <= now) {
            hold.note_renewal(now);
            hold.renew_at = self.settings.lease.map(|_| now + RENEWAL);
            out.push(Action::Renew);
        }
    }

    pub(super) fn active_timer(&mut self, now: Instant, mut active: Active, out: &mut Actions) {
        self.renew(now, &mut active.hold, out);
        if active.hand_off_at.is_some_and(|at| at <= now) {
            let leaving = Leaving::new(active.hold, false, active.back_off);
            self.begin_leaving(now, leaving, out);
            return;
        }
        let late = now.saturating_duration_since(active.next_advert);
        // So long after the advert before, a strong Backup has taken over.
        if late + self.settings.spacing > 3 * self.settings.interval.duration() {
            active.hold.garp = Schedule::start(&self.settings.garp, now);
        }
        self.announce(now, &mut active.hold, out);
        if active.next_advert <= now {
            // TODO-correctness(RFC 9568 §6.4.3): there one each Advertisement_Interval. Whoever
            // accepts an advert restarts its timer, so more of them only bear more loss.
            let spacing = self.settings.spacing;
            active.next_advert += spacing;
            if active.next_advert <= now {
                active.next_advert = now + spacing;
            }
            out.push(Action::Advertise(self.effective_priority().get()));
        }
        self.state = State::Active(active);
    }

    /// A stronger node hears us once more before we yield, so that it announces itself again: after
    /// a healed partition nobody else would tell the neighbours. A weaker one is put right at once.
    pub(super) fn active_hears(
        &mut self,
        now: Instant,
        mut active: Active,
        advert: Accepted,
        out: &mut Actions,
    ) {
        let own = self.effective_priority().get();
        let stronger =
            advert.priority > own || (advert.priority == own && advert.sender > self.settings.me);
        if stronger {
            out.push(Action::Advertise(own));
            out.push(Action::Release { graceful: true });
            self.follow(now, advert, "a stronger node is active", out);
            return;
        }
        if now >= active.answer_after {
            active.answer_after = now + ANSWER_SPACING;
            out.push(Action::Advertise(own));
        }
        // Who says this, held the address a moment ago: the neighbours are told again. Too soon
        // after the last announcement that is put off, never left out.
        let at = now.max(active.announce_after);
        active.hold.garp = Schedule::start(&self.settings.garp, at);
        if at == now {
            active.announce_after = now + ANNOUNCE_SPACING;
            self.announce(now, &mut active.hold, out);
        }
        self.state = State::Active(active);
    }

    /// A holder that can't serve any more offers the addresses; one that can again says so at once.
    pub(super) fn active_judged(
        &mut self,
        now: Instant,
        mut active: Active,
        before: NodeHealth,
        out: &mut Actions,
    ) {
        match (before.is_unfit(), self.is_unfit()) {
            (false, true) if !self.is_owner() && !self.settings.alone => {
                let leaving = Leaving::new(active.hold, false, HAND_OFF_AGAIN);
                self.begin_leaving(now, leaving, out);
            }
            (true, false) => {
                active.hand_off_at = None;
                active.back_off = HAND_OFF_AGAIN;
                active.next_advert = now + self.settings.spacing;
                self.state = State::Active(active);
                self.reason = "able to serve again";
                out.push(Action::Advertise(self.effective_priority().get()));
            }
            (false, true) | (true, true) | (false, false) => {}
        }
    }

    /// Make before break: three times priority 0, then silence, the addresses stay.
    pub(super) fn begin_leaving(&mut self, now: Instant, mut leaving: Leaving, out: &mut Actions) {
        let interval = self.settings.interval;
        let version = self.settings.version;
        let patience = if !leaving.last {
            timing::skew_base(version, interval) * 3 / 4
        } else if self.settings.alone {
            Duration::ZERO
        } else {
            // The successor may count itself at the lowest priority.
            timing::active_down_interval(version, interval, Priority::LOWEST) + interval.duration()
        };
        self.reason = if leaving.last {
            "resigning"
        } else {
            "cannot serve: handing off"
        };
        leaving.spacing = COPY_SPACING.min(timing::skew_base(version, interval) / 4);
        leaving.copies_left = COPIES - 1;
        leaving.next_copy = now + leaving.spacing;
        leaving.until = now + patience;
        self.state = State::Leaving(leaving);
        out.push(Action::Advertise(0));
        if patience.is_zero() {
            self.leaving_timer(now, leaving, out);
        }
    }

    pub(super) fn leaving_timer(&mut self, now: Instant, mut leaving: Leaving, out: &mut Actions) {
        self.renew(now, &mut leaving.hold, out);
        if leaving.until <= now {
            if leaving.last {
                out.push(Action::Release { graceful: true });
                self.leave("resigned");
            } else {
                self.reason = "cannot serve, but no other node took over";
                self.announce(now, &mut leaving.hold, out);
                self.hold_on(now, leaving.hold, leaving.back_off, out);
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

    /// The successor's first advert ends the wait. It is told once more that we resign, so that it
    /// announces itself again: had it been Active all the time behind a partition that healed, the
    /// neighbours would go on sending to us.
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
        out.push(Action::Advertise(0));
        out.push(Action::Release { graceful: true });
        if leaving.last {
            self.leave("resigned");
        } else {
            self.follow(now, advert, "handed off", out);
        }
    }

    /// Somebody else removed an address: put it back in place, without an election.
    pub(super) fn address_lost(&mut self, now: Instant, out: &mut Actions) {
        let Some(hold) = self.hold_mut() else { return };
        if now < hold.restore_after {
            let soon = hold.restore_after;
            hold.renew_at = Some(hold.renew_at.map_or(soon, |at| at.min(soon)));
            return;
        }
        hold.restore_after = now + RESTORE_SPACING;
        hold.note_renewal(now);
        out.push(Action::Restore);
        out.push(Action::Garp(1));
    }

    /// Tried again soon, while the lifetime lasts. One that ends before that is given up now, so
    /// that it is given up with a word to the others.
    pub(super) fn not_renewed(&mut self, now: Instant, out: &mut Actions) {
        let lease = self.settings.lease;
        let Some(hold) = self.hold_mut() else { return };
        hold.renewed = hold.renewed_before;
        let again = now + RENEW_AGAIN;
        hold.renew_at = Some(again);
        if lease.is_some_and(|lease| again >= hold.renewed + lease) {
            self.address_failed(now, out);
        }
    }

    fn hold_mut(&mut self) -> Option<&mut Hold> {
        match &mut self.state {
            State::Initialize(_) | State::Backup(_) => None,
            State::Active(active) => Some(&mut active.hold),
            State::Leaving(leaving) => Some(&mut leaving.hold),
        }
    }
}
