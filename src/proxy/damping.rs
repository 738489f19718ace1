//! A server that goes down again and again has to prove itself for longer before it is believed:
//! its `rise` grows. That never keeps a server out which is the only one: [`super::dispatch`] sees
//! to that. Pure.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use super::recurrence::Recurrence;

/// So often a server may go down within the time that [`super::recurrence`] keeps before it is
/// damped.
const FREE: u32 = 2;
/// `rise` is doubled so often at most.
const DOUBLINGS_MAX: u32 = 3;
/// Nobody is held back for longer.
const HELD_MAX: Duration = Duration::from_secs(30);

/// What is known of one server's ups and downs.
#[derive(Debug, Clone, Default)]
pub struct Damping {
    downs: Recurrence,
    doublings: u32,
    held: Option<Held>,
}

/// It is up, but not believed yet.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Successes in a row that it needs beyond its `rise`.
    needs: u16,
    /// Those that are still missing.
    missing: NonZeroU16,
    until: Instant,
}

impl Damping {
    /// It went down.
    pub fn went_down(&mut self, now: Instant) {
        let lately = self.downs.count(now);
        self.doublings = lately.saturating_sub(FREE).min(DOUBLINGS_MAX);
        self.held = None;
    }

    /// It came up, after `rise` successes; answers whether it is held back.
    pub fn came_up(&mut self, rise: u16, now: Instant) -> bool {
        let needs = rise.saturating_mul((1 << self.doublings) - 1);
        self.held = NonZeroU16::new(needs).map(|missing| Held {
            needs,
            missing,
            until: now + HELD_MAX,
        });
        self.held.is_some()
    }

    /// A check of a server that is up found it well, or not; answers whether it is believed from
    /// here on.
    pub fn on_check(&mut self, well: bool, now: Instant) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        let missing = if well {
            NonZeroU16::new(held.missing.get() - 1)
        } else {
            held.until = now + HELD_MAX;
            NonZeroU16::new(held.needs)
        };
        match missing {
            Some(missing) if now < held.until => held.missing = missing,
            Some(_) | None => self.held = None,
        }
        self.held.is_none()
    }

    /// Whether it is held back.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Successes in a row that are still missing.
    #[must_use]
    pub fn missing(&self) -> u16 {
        self.held.map_or(0, |held| held.missing.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn from_the_third_time_within_minutes_it_takes_more_successes() {
        let start = crate::net::clock::now();
        let mut damping = Damping::default();
        // Down at this second; successes needed beyond a rise of 2.
        let table = [
            (0, 0),
            (10, 0),
            (20, 2),
            (30, 6),
            (40, 14),
            (50, 14),
            // Two quiet minutes: six are four, and this is the fifth.
            (170, 14),
            // Three more: this is the third.
            (350, 2),
            (3_600, 0),
        ];
        for (second, expected) in table {
            damping.went_down(at(start, second));
            let held = damping.came_up(2, at(start, second + 1));
            assert_eq!(damping.missing(), expected, "second {second}");
            assert_eq!(held, expected > 0, "second {second}");
        }
    }

    fn flapped(start: Instant) -> Damping {
        let mut damping = Damping::default();
        for second in 0..3 {
            damping.went_down(at(start, second));
        }
        assert!(damping.came_up(2, at(start, 3)));
        damping
    }

    #[test]
    fn a_failure_starts_over() {
        let start = crate::net::clock::now();
        let mut damping = flapped(start);
        assert!(!damping.on_check(true, at(start, 4)));
        assert!(!damping.on_check(false, at(start, 5)));
        assert!(!damping.on_check(true, at(start, 6)));
        assert!(damping.on_check(true, at(start, 7)));
        assert!(!damping.holds());
        assert!(!damping.on_check(true, at(start, 8)), "told once");
    }

    #[test]
    fn nobody_is_held_back_for_more_than_half_a_minute() {
        let start = crate::net::clock::now();
        let mut damping = flapped(start);
        assert!(!damping.on_check(true, at(start, 32)));
        assert!(damping.holds());
        let mut damping = flapped(start);
        assert!(damping.on_check(true, at(start, 33)));
    }

    #[test]
    fn one_that_goes_down_is_not_held_but_down() {
        let start = crate::net::clock::now();
        let mut damping = flapped(start);
        damping.went_down(at(start, 5));
        assert!(!damping.holds());
    }
}
