//! Whether this node announces an address: it holds it while it can serve. Pure: told what happened
//! and when, answers what to do, says when it wants to be told that time has passed.
//!
//! Every node decides for itself. Fail-static does not apply here: a node that finds no usable
//! server cannot know whether the others find one, and keeping the address would go on attracting
//! its share of the clients for nothing, for as long as the trouble lasts. So it withdraws, and if
//! no node can serve the route is gone everywhere: clients are told by the routers that the address
//! is unreachable, instead of by a RST.

use std::time::{Duration, Instant};

/// Between two renewals of the address's lifetime.
pub(super) const RENEWAL: Duration = Duration::from_millis(500);
/// A renewal that the kernel was too busy for is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_millis(100);
/// Between two times an address is put back at once.
const RESTORE_SPACING: Duration = Duration::from_millis(20);
/// From the order to reset connections to the end of their address: time for the RSTs to leave.
const RESET_TIME: Duration = Duration::from_millis(15);
/// How long a node must have been able to serve before it announces again; each withdrawal within
/// [`CALM`] of an announcement doubles it, up to the most: routers don't like routes that come and
/// go.
const STEADY: Duration = Duration::from_secs(1);
const STEADY_MOST: Duration = Duration::from_secs(32);
const CALM: Duration = Duration::from_secs(60);
/// An address taken over from the last keeper stays this long without any verdict about this node.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);
/// A refusal of the kernel is tried again after this.
const REFUSED_AGAIN: Duration = Duration::from_secs(1);

/// The part of the configuration that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// The kernel lifetime; `None`: the address stays until removed.
    pub(super) lease: Option<Duration>,
    /// How long what still arrives is served once the address is gone.
    pub(super) grace: Duration,
}

/// One thing to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Add the addresses or give them their full lifetime again; nothing else receives for them.
    Hold,
    /// Put back what somebody else removed.
    Restore,
    /// Remove the addresses, but go on receiving what is sent to them.
    Withdraw,
    /// Reset the connections to them.
    Reset,
    /// Receive no more for them.
    Deafen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing here.
    Silent,
    /// The addresses are here, for routing daemons to see.
    Announced {
        since: Instant,
        renewed: Instant,
        renew_at: Option<Instant>,
        restore_after: Instant,
    },
    /// Withdrawn, but still received for.
    Draining { until: Instant },
    /// The connections were reset a moment ago.
    Resetting { until: Instant },
}

/// What is known of this node's ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Able {
    Unknown,
    No,
    Since(Instant),
}

/// Decides for one `[vip.NAME]`.
#[derive(Debug)]
pub(super) struct Decision {
    settings: Settings,
    phase: Phase,
    able: Able,
    /// How long it must be able before it announces.
    steady: Duration,
    /// Not before this.
    not_before: Option<Instant>,
    /// Until when a verdict has to come.
    verdict_by: Option<Instant>,
    stopping: bool,
    reason: &'static str,
    since: Instant,
}

impl Decision {
    /// Announces nothing yet.
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            phase: Phase::Silent,
            able: Able::Unknown,
            steady: Duration::ZERO,
            not_before: None,
            verdict_by: None,
            stopping: false,
            reason: "waiting for a verdict about this node",
            since: now,
        }
    }

    /// The last keeper announced until a moment ago, and its addresses are still there.
    pub(super) fn adopt(&mut self, now: Instant) -> Vec<Act> {
        self.verdict_by = Some(now + VERDICT_WITHIN);
        self.announce(now, "taken over from the last keeper")
    }

    /// A verdict about this node; `None`: there is none yet.
    pub(super) fn judge(&mut self, now: Instant, able: Option<bool>) {
        self.able = match (able, self.able) {
            (Some(true), since @ Able::Since(_)) => since,
            (Some(true), Able::Unknown | Able::No) => Able::Since(now),
            (Some(false), _) => Able::No,
            // What was known stays true while the next process has said nothing.
            (None, before) => before,
        };
        if able.is_some() {
            self.verdict_by = None;
        }
    }

    /// Time has passed, or something was told.
    pub(super) fn step(&mut self, now: Instant) -> Vec<Act> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.phase {
            Phase::Silent => self.maybe_announce(now),
            Phase::Announced {
                renewed, renew_at, ..
            } => {
                let lapsed = |lease| now.saturating_duration_since(renewed) >= lease;
                if self.settings.lease.is_some_and(lapsed) {
                    // The kernel has removed it: routers know.
                    self.silence(now, "stalled for longer than the lease");
                    return vec![Act::Deafen];
                }
                if self.stopping {
                    return self.withdraw(now, "stopping");
                }
                if self.able == Able::No {
                    return self.withdraw(now, "this node can't serve");
                }
                if due(self.verdict_by) {
                    return self.withdraw(now, "no verdict about this node");
                }
                if due(renew_at) {
                    self.renewed(now);
                    return vec![Act::Hold];
                }
                Vec::new()
            }
            Phase::Draining { until } => {
                let again = self.maybe_announce(now);
                if again.is_empty() && until <= now {
                    return self.reset(now);
                }
                again
            }
            Phase::Resetting { until } if until <= now => {
                self.phase = Phase::Silent;
                vec![Act::Deafen]
            }
            Phase::Resetting { .. } => Vec::new(),
        }
    }

    /// Somebody else removed an address.
    pub(super) fn lost(&mut self, now: Instant) -> Vec<Act> {
        let Phase::Announced {
            renew_at,
            restore_after,
            renewed,
            ..
        } = &mut self.phase
        else {
            return Vec::new();
        };
        let lapsed = |lease| now.saturating_duration_since(*renewed) >= lease;
        if self.settings.lease.is_some_and(lapsed) {
            return Vec::new();
        }
        if now < *restore_after {
            let soon = *restore_after;
            *renew_at = Some(renew_at.map_or(soon, |at| at.min(soon)));
            return Vec::new();
        }
        *restore_after = now + RESTORE_SPACING;
        *renewed = now;
        vec![Act::Restore]
    }

    /// The kernel was too busy to renew.
    pub(super) fn not_renewed(&mut self, now: Instant, before: Instant) {
        if let Phase::Announced {
            renewed, renew_at, ..
        } = &mut self.phase
        {
            *renewed = before;
            *renew_at = Some(now + RENEW_AGAIN);
        }
    }

    /// The kernel refused to hold an address.
    pub(super) fn refused(&mut self, now: Instant) -> Vec<Act> {
        let acts = self.withdraw(now, "the kernel refused the address");
        self.not_before = Some(now + REFUSED_AGAIN);
        acts
    }

    /// Leaves: withdraws, serves on for the grace, resets what is left.
    pub(super) fn stop(&mut self, now: Instant) -> Vec<Act> {
        self.stopping = true;
        self.step(now)
    }

    /// Leaves at once.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<Act> {
        self.stopping = true;
        let acts = match self.phase {
            Phase::Silent => Vec::new(),
            Phase::Announced { .. } => vec![Act::Withdraw, Act::Reset, Act::Deafen],
            Phase::Draining { .. } => vec![Act::Reset, Act::Deafen],
            Phase::Resetting { .. } => vec![Act::Deafen],
        };
        self.silence(now, "stopping");
        acts
    }

    /// When [`step`](Self::step) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Silent => self.announce_at(),
            Phase::Announced {
                renewed, renew_at, ..
            } => {
                let lapse = self.settings.lease.map(|lease| renewed + lease);
                [renew_at, self.verdict_by, lapse]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::Draining { until } => Some(self.announce_at().map_or(until, |at| at.min(until))),
            Phase::Resetting { until } => Some(until),
        }
    }

    /// Whether the addresses are here for others to see.
    pub(super) fn is_announced(&self) -> bool {
        matches!(self.phase, Phase::Announced { .. })
    }

    /// Whether nothing is here any more.
    pub(super) fn is_silent(&self) -> bool {
        self.phase == Phase::Silent
    }

    /// Until when what still arrives is served.
    pub(super) fn draining_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until } => Some(until),
            Phase::Silent | Phase::Announced { .. } | Phase::Resetting { .. } => None,
        }
    }

    /// Why it is as it is, and since when.
    pub(super) fn reason(&self) -> (&'static str, Instant) {
        (self.reason, self.since)
    }

    /// The last renewal; to be given back when the kernel did not take the next one.
    pub(super) fn last_renewal(&self) -> Option<Instant> {
        match self.phase {
            Phase::Announced { renewed, .. } => Some(renewed),
            Phase::Silent | Phase::Draining { .. } | Phase::Resetting { .. } => None,
        }
    }

    fn announce_at(&self) -> Option<Instant> {
        let Able::Since(since) = self.able else {
            return None;
        };
        if self.stopping {
            return None;
        }
        let steady = since + self.steady;
        Some(self.not_before.map_or(steady, |at| at.max(steady)))
    }

    fn maybe_announce(&mut self, now: Instant) -> Vec<Act> {
        if self.announce_at().is_some_and(|at| at <= now) {
            return self.announce(now, "this node can serve");
        }
        Vec::new()
    }

    fn announce(&mut self, now: Instant, reason: &'static str) -> Vec<Act> {
        self.phase = Phase::Announced {
            since: now,
            renewed: now,
            renew_at: self.settings.lease.map(|_| now + RENEWAL),
            restore_after: now,
        };
        self.not_before = None;
        self.note(now, reason);
        vec![Act::Hold]
    }

    fn renewed(&mut self, now: Instant) {
        if let Phase::Announced {
            renewed, renew_at, ..
        } = &mut self.phase
        {
            *renewed = now;
            *renew_at = self.settings.lease.map(|_| now + RENEWAL);
        }
    }

    fn withdraw(&mut self, now: Instant, reason: &'static str) -> Vec<Act> {
        self.penalize(now);
        self.note(now, reason);
        self.phase = Phase::Draining {
            until: now + self.settings.grace,
        };
        let mut acts = vec![Act::Withdraw];
        if self.settings.grace.is_zero() {
            acts.extend(self.reset(now));
        }
        acts
    }

    fn reset(&mut self, now: Instant) -> Vec<Act> {
        self.phase = Phase::Resetting {
            until: now + RESET_TIME,
        };
        vec![Act::Reset]
    }

    /// Without a word: the addresses are gone already.
    fn silence(&mut self, now: Instant, reason: &'static str) {
        self.penalize(now);
        self.note(now, reason);
        if let Able::Since(_) = self.able {
            self.able = Able::Since(now);
        }
        self.phase = Phase::Silent;
    }

    fn penalize(&mut self, now: Instant) {
        if let Phase::Announced { since, .. } = self.phase {
            let short = now.saturating_duration_since(since) < CALM;
            let wait = if short { self.steady * 2 } else { STEADY };
            self.steady = wait.clamp(STEADY, STEADY_MOST);
        }
        self.verdict_by = None;
    }

    fn note(&mut self, now: Instant, reason: &'static str) {
        self.reason = reason;
        self.since = now;
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
