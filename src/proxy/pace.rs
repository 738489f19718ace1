//! How many connects a second a server gets at most: evenly spaced, under the dispatcher's lock.
//! Pure. Between two connects its slots are shut by the limit on their word, so that whoever
//! picks a server finds this one full, however it picks.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A wake-up that comes late is made up for, but not for more than this.
const MADE_UP_FOR: Duration = Duration::from_millis(100);

/// The pace of one server. In no stretch of time does it let more through than its rate times the
/// stretch, and one, apart from what a late wake-up left to be made up for.
#[derive(Debug, Clone)]
pub struct Pacer {
    rate: NonZeroU32,
    /// Between two connects.
    gap: Duration,
    /// From when the next one may begin; `None`: nobody came yet.
    next: Option<Instant>,
    /// Somebody has waited for that time to come.
    wanted: bool,
}

impl Pacer {
    /// A server that has had no connect yet; `rate` is connects in a second.
    #[must_use]
    pub fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            gap: Duration::from_secs(1) / rate.get(),
            next: None,
            wanted: false,
        }
    }

    /// Connects in a second.
    #[must_use]
    pub const fn rate(&self) -> NonZeroU32 {
        self.rate
    }

    /// Whether a connect may begin.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// When the next connect may begin; `None`: at any time.
    #[must_use]
    pub const fn opens(&self) -> Option<Instant> {
        self.next
    }

    /// A connect begins.
    pub fn take(&mut self, now: Instant) {
        let due = self.next.filter(|_| self.wanted);
        let oldest = now.checked_sub(MADE_UP_FOR).unwrap_or(now);
        let from = match due {
            Some(due) if due < now => due.max(oldest),
            Some(_) | None => self.next.map_or(now, |next| next.max(now)),
        };
        self.next = from.checked_add(self.gap);
        // Those behind it want the next turn too; if there are none, the queue says so.
    }

    /// Whether somebody waits while it is shut.
    pub const fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }
}

/// The pacers of a proxy's servers, by place; empty where none has one.
#[derive(Debug, Clone, Default)]
pub struct Pacers(Vec<Option<Pacer>>);

impl Pacers {
    /// Takes over the rates as they are; servers whose rate stays keep their turn.
    pub fn set(&mut self, rates: impl Iterator<Item = Option<NonZeroU32>>) {
        let mut old = std::mem::take(&mut self.0).into_iter();
        self.0 = rates
            .map(|rate| {
                let old = old.next().flatten();
                let kept = old.filter(|pacer| Some(pacer.rate()) == rate);
                kept.or_else(|| rate.map(Pacer::new))
            })
            .collect();
        if self.0.iter().all(Option::is_none) {
            self.0.clear();
        }
    }

    /// Whether no server has one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a connect to the server may begin.
    #[must_use]
    pub fn is_open(&self, server: usize, now: Instant) -> bool {
        let pacer = self.0.get(server).and_then(Option::as_ref);
        pacer.is_none_or(|pacer| pacer.is_open(now))
    }

    /// A connect to the server begins; answers whether that shut it.
    pub fn take(&mut self, server: usize, now: Instant) -> bool {
        let Some(Some(pacer)) = self.0.get_mut(server) else {
            return false;
        };
        pacer.take(now);
        !pacer.is_open(now)
    }

    /// Says whether somebody waits. Answers when to look again, if one of the servers `usable` is
    /// shut while somebody does.
    pub fn want(
        &mut self,
        wanted: bool,
        usable: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Option<Instant> {
        let mut soonest: Option<Instant> = None;
        for (server, pacer) in self.0.iter_mut().enumerate() {
            let Some(pacer) = pacer else {
                continue;
            };
            pacer.want(wanted);
            if let Some(opens) = pacer.opens().filter(|opens| wanted && *opens > now)
                && usable(server)
            {
                soonest = Some(soonest.map_or(opens, |soonest| soonest.min(opens)));
            }
        }
        soonest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    fn pacer(rate: u32) -> Pacer {
        Pacer::new(NonZeroU32::new(rate).unwrap())
    }

    #[test]
    fn connects_are_evenly_spaced_and_idle_time_is_not_saved_up() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacer = pacer(10);
        assert!(pacer.is_open(at(0)));
        pacer.take(at(0));
        assert!(!pacer.is_open(at(99)) && pacer.is_open(at(100)));
        // Nobody came for a while: still one at a time.
        pacer.take(at(5000));
        assert!(!pacer.is_open(at(5099)) && pacer.is_open(at(5100)));
    }

    #[test]
    fn a_late_wake_up_is_made_up_for_but_a_long_pause_is_not() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pacer = pacer(50);
        pacer.take(at(0));
        pacer.want(true);
        // Due at 20, looked at 70: those of 20, 40 and 60 may begin.
        for _ in 0..3 {
            assert!(pacer.is_open(at(70)));
            pacer.take(at(70));
        }
        assert!(!pacer.is_open(at(70)) && pacer.is_open(at(80)));
        // A second late: those of the last 100 ms, not fifty.
        let mut made_up = 0;
        while pacer.is_open(at(1080)) {
            pacer.take(at(1080));
            made_up += 1;
        }
        assert_eq!(made_up, 6);
    }

    #[test]
    fn over_any_seconds_the_rate_is_exact_to_one_however_ragged_the_looks() {
        for rate in [1, 3, 7, 50, 333, 1000] {
            let start = clock::now();
            let mut pacer = pacer(rate);
            let (mut taken, mut ms, mut dice) = (0_u32, 0, u64::from(rate));
            while ms < 10_000 {
                let now = start + Duration::from_millis(ms);
                while pacer.is_open(now) {
                    pacer.take(now);
                    taken += 1;
                }
                pacer.want(true);
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ms += 1 + (dice >> 33) % 50;
            }
            // The last look was up to 50 ms before the end.
            let missing = 1 + rate / 20;
            assert!(taken <= rate * 10 + 1, "{rate}: {taken}");
            assert!(taken + missing >= rate * 10, "{rate}: {taken}");
        }
    }

    #[test]
    fn a_server_keeps_its_turn_while_its_rate_stays() {
        let now = clock::now();
        let ten = NonZeroU32::new(10);
        let mut pacers = Pacers::default();
        pacers.set([ten, None, ten].into_iter());
        assert!(pacers.take(0, now) && !pacers.take(1, now) && pacers.take(2, now));
        pacers.set([ten, None, NonZeroU32::new(20)].into_iter());
        assert!(!pacers.is_open(0, now) && pacers.is_open(1, now) && pacers.is_open(2, now));
        let tenth = now + Duration::from_millis(100);
        assert_eq!(pacers.want(true, |_| true, now), Some(tenth));
        assert_eq!(pacers.want(true, |server| server != 0, now), None);
        assert_eq!(pacers.want(false, |_| true, now), None);
        pacers.set([None, None].into_iter());
        assert!(pacers.is_empty() && pacers.is_open(0, now));
    }
}
