//! The addresses of a holder: their lifetime in the kernel, their announcements, and what becomes
//! of them when somebody else removes one.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Action, Actions, Machine, RENEW_AGAIN, RENEWAL, Settings, State};
use crate::vrrp::garp::Schedule;

/// Between two times an address is put back at once; sooner, it waits that long.
const RESTORE_SPACING: Duration = Duration::from_millis(20);

/// The addresses and when to care for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    /// The last time the kernel was given the lifetime, and the time before, which counts if it
    /// turns out that the kernel did not take it.
    #[serde(with = "crate::recorder::time")]
    renewed: Instant,
    #[serde(with = "crate::recorder::time")]
    renewed_before: Instant,
    #[serde(with = "crate::recorder::time::maybe")]
    renew_at: Option<Instant>,
    #[serde(with = "crate::recorder::time")]
    restore_after: Instant,
    garp: Schedule,
}

impl Hold {
    /// From the moment the addresses are claimed.
    pub(super) fn begin(settings: &Settings, now: Instant) -> Self {
        Self {
            renewed: now,
            renewed_before: now,
            renew_at: settings.lease.map(|_| now + RENEWAL),
            restore_after: now,
            garp: Schedule::start(&settings.garp, now),
        }
    }

    /// When the lifetime is to be renewed.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.renew_at
    }

    /// When the next announcement is due.
    pub(super) fn garp_at(&self) -> Option<Instant> {
        self.garp.deadline()
    }

    /// Plans all announcements anew, the first at `at`.
    pub(super) fn announce_from(&mut self, settings: &Settings, at: Instant) {
        self.garp = Schedule::start(&settings.garp, at);
    }

    /// Announces what is due.
    pub(super) fn announce(&mut self, settings: &Settings, now: Instant, out: &mut Actions) {
        let frames = self.garp.due(&settings.garp, now);
        if frames > 0 {
            out.push(Action::Garp(frames));
        }
    }

    /// Renews the lifetime if that is due.
    pub(super) fn renew(&mut self, settings: &Settings, now: Instant, out: &mut Actions) {
        if self.renew_at.is_some_and(|at| at <= now) {
            self.note_renewal(now);
            self.renew_at = settings.lease.map(|_| now + RENEWAL);
            out.push(Action::Renew);
        }
    }

    /// Whether the kernel has removed the addresses by `now`.
    pub(super) fn has_lapsed(&self, settings: &Settings, now: Instant) -> bool {
        settings
            .lease
            .is_some_and(|lease| now.saturating_duration_since(self.renewed) >= lease)
    }

    fn note_renewal(&mut self, now: Instant) {
        self.renewed_before = self.renewed;
        self.renewed = now;
    }
}

impl Machine {
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
