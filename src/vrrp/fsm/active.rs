//! The rules of an Active (RFC 9568 §6.4.3): it advertises, answers weaker nodes, yields to
//! stronger ones and to those that can't hear it, and hands off when it can't serve.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::doubt::{PROBE_PRIORITY, Rival};
use super::hold::Hold;
use super::leaving::{HAND_OFF_AGAIN, HAND_OFF_AGAIN_MOST, Purpose};
use super::{Action, Actions, Machine, NodeHealth, State};
use crate::config::model::Preempt;
use crate::vrrp::validate::Accepted;

/// Between two answers to weaker adverts.
const ANSWER_SPACING: Duration = Duration::from_millis(5);
/// Between two announcements because of weaker adverts: short at first, for where several parts
/// of a network join each may move the address once more; doubled up to the most while it goes on.
const ANNOUNCE_SPACING: Duration = Duration::from_millis(20);
const ANNOUNCE_SPACING_MOST: Duration = Duration::from_millis(200);
/// Where the neighbours were not told anew for so long, it begins with the short one again.
const ANNOUNCE_QUIET: Duration = Duration::from_secs(2);

/// Holding the addresses and saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) hold: Hold,
    #[serde(with = "crate::recorder::time")]
    next_advert: Instant,
    #[serde(with = "crate::recorder::time")]
    answer_after: Instant,
    #[serde(with = "crate::recorder::time")]
    announce_after: Instant,
    #[serde(with = "crate::recorder::time::span")]
    announce_spacing: Duration,
    /// When the hand-off is tried again, and how long to wait after that.
    #[serde(with = "crate::recorder::time::maybe")]
    hand_off_at: Option<Instant>,
    #[serde(with = "crate::recorder::time::span")]
    back_off: Duration,
    /// A weaker Active that does not yield.
    rival: Option<Rival>,
}

impl Active {
    pub(super) fn deadline(&self) -> Instant {
        [self.hold.renew_at(), self.hold.garp_at(), self.hand_off_at]
            .into_iter()
            .flatten()
            .fold(self.next_advert, Instant::min)
    }

    /// How long to wait after the hand-off that begins now.
    pub(super) fn hand_off_back_off(&self, now: Instant) -> Duration {
        if self.hand_off_at.is_some_and(|at| at <= now) {
            self.back_off
        } else {
            HAND_OFF_AGAIN
        }
    }
}

impl Machine {
    pub(super) fn become_active(&mut self, now: Instant, reason: &'static str, out: &mut Actions) {
        self.interval = self.settings.interval;
        self.heard = None;
        self.raise_at = None;
        self.stand_down = None;
        self.doubt.note_take_over();
        self.reason = reason;
        let mut hold = Hold::begin(&self.settings, now);
        // TODO-correctness(RFC 9568 §6.4.2): the advert follows the announcement instead of going
        // before it, so that a node that leaves on hearing it leaves nobody without an answer.
        out.push(Action::Claim);
        hold.announce(&self.settings, now, out);
        self.hold_on(now, hold, HAND_OFF_AGAIN, out);
    }

    /// Advertises and goes on as Active.
    pub(super) fn hold_on(
        &mut self,
        now: Instant,
        hold: Hold,
        back_off: Duration,
        out: &mut Actions,
    ) {
        let repeat = self.is_unfit() && !self.is_owner() && self.settings.preempt == Preempt::Never;
        self.state = State::Active(Active {
            hold,
            next_advert: now + self.settings.spacing,
            answer_after: now,
            announce_after: now,
            announce_spacing: ANNOUNCE_SPACING,
            hand_off_at: repeat.then_some(now + back_off),
            back_off: (back_off * 2).min(HAND_OFF_AGAIN_MOST),
            rival: None,
        });
        out.push(Action::Advertise(self.effective_priority().get()));
    }

    pub(super) fn announce_again(&mut self, now: Instant, mut active: Active, out: &mut Actions) {
        active.hold.announce_from(&self.settings, now);
        active.hold.announce(&self.settings, now, out);
        self.state = State::Active(active);
    }

    pub(super) fn active_timer(&mut self, now: Instant, mut active: Active, out: &mut Actions) {
        active.hold.renew(&self.settings, now, out);
        if active.hand_off_at.is_some_and(|at| at <= now) {
            self.begin_leaving(now, active, Purpose::HandOff, out);
            return;
        }
        let late = now.saturating_duration_since(active.next_advert);
        // So long after the advert before, a strong Backup has taken over.
        if late + self.settings.spacing > 3 * self.settings.interval.duration() {
            active.hold.announce_from(&self.settings, now);
        }
        active.hold.announce(&self.settings, now, out);
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
    /// a healed partition nobody else would tell the neighbours. A weaker one is put right at once,
    /// unless it seems that it can't hear us.
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
        let deaf = advert.priority > PROBE_PRIORITY && self.doubt.is_there();
        if advert.priority > PROBE_PRIORITY {
            let interval = self.settings.interval.duration();
            let rival = Rival::heard(active.rival, advert.sender, now, 3 * interval);
            active.rival = Some(rival);
            if self.doubt.yields(&rival, now, interval) {
                self.yield_unheard(now, advert, out);
                return;
            }
        }
        if now >= active.answer_after {
            active.answer_after = now + ANSWER_SPACING;
            out.push(Action::Advertise(own));
        }
        // Who says this, held the address a moment ago: the neighbours are told again. Too soon
        // after the last announcement that is put off, never left out. Nor while it is open which
        // of us yields: if we do, the neighbours had better not hear of us last.
        let at = if deaf {
            now + 2 * self.settings.interval.duration()
        } else {
            now.max(active.announce_after)
        };
        active.hold.announce_from(&self.settings, at);
        if at == now {
            if now.saturating_duration_since(active.announce_after) > ANNOUNCE_QUIET {
                active.announce_spacing = ANNOUNCE_SPACING;
            }
            active.announce_after = now + active.announce_spacing;
            active.announce_spacing = (active.announce_spacing * 2).min(ANNOUNCE_SPACING_MOST);
            active.hold.announce(&self.settings, now, out);
        }
        self.state = State::Active(active);
    }

    /// Without a word: heard after all, it would make both yield.
    fn yield_unheard(&mut self, now: Instant, advert: Accepted, out: &mut Actions) {
        let reason = if self.doubt.is_mute() {
            "no advert can be sent: another node is active"
        } else {
            "not heard by the other active node"
        };
        self.doubt.note_yield(now);
        out.push(Action::Release { graceful: true });
        self.follow(now, advert, reason, out);
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
                self.begin_leaving(now, active, Purpose::HandOff, out);
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
}
