//! Does a peer that takes no more bytes rest, or is it gone? Pure.
//!
//! The kernel's TCP_USER_TIMEOUT can't tell: a peer that keeps its window shut and answers every
//! probe counts as gone, and so does one that missed a single keepalive probe. So connections with
//! unacknowledged bytes are looked at a few times per `user-timeout`, and a peer is gone when over
//! that time it left several probes or repetitions in a row without an answer.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::net::tcp::Answers;

/// Looks per `user-timeout`.
const LOOKS: u32 = 4;
/// Answers that must be missing: the loss of one packet is no proof.
const MISSING: u8 = 2;

/// How often peers are looked at.
pub(super) fn look_every(user_timeout: Duration) -> Duration {
    user_timeout / LOOKS
}

/// Since when a peer has been seen without an answer. Milliseconds in 32 bits, which wrap around;
/// a span is good for 24 days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Silence(Option<NonZeroU32>);

impl Silence {
    /// It answers.
    pub(super) const NONE: Self = Self(None);

    /// It answered, or has nothing to answer.
    pub(super) fn broken(&mut self) {
        self.0 = None;
    }

    /// Takes a look at `now`, milliseconds; answers whether the peer is gone.
    pub(super) fn look(&mut self, answers: Answers, user_timeout: Duration, now: u64) -> bool {
        if answers.missing == 0 {
            self.broken();
            return false;
        }
        let now = u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0);
        let now = NonZeroU32::new(now).unwrap_or(NonZeroU32::MIN);
        let since = *self.0.get_or_insert(now);
        let seen = Duration::from_millis(now.get().wrapping_sub(since.get()).into());
        // The first look came up to one interval after the first answer went missing.
        let enough = user_timeout - look_every(user_timeout);
        answers.missing >= MISSING && answers.last >= user_timeout && seen >= enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    const fn answers(missing: u8, last: u64) -> Answers {
        Answers {
            missing,
            last: Duration::from_secs(last),
            shut: true,
        }
    }

    fn looks(looks: &[(u64, u8, u64)]) -> Vec<bool> {
        let mut silence = Silence::default();
        looks
            .iter()
            .map(|&(now, missing, last)| silence.look(answers(missing, last), TIMEOUT, now * 1000))
            .collect()
    }

    #[test]
    fn a_peer_that_answers_its_probes_may_rest_for_ever() {
        assert_eq!(
            looks(&[(5, 0, 1), (10, 0, 60), (500, 0, 119), (99_999, 0, 119)]),
            [false; 4]
        );
    }

    #[test]
    fn a_peer_that_answers_nothing_for_the_timeout_is_gone() {
        assert_eq!(
            looks(&[
                (5, 1, 5),
                (10, 3, 10),
                (15, 4, 15),
                (19, 4, 19),
                (20, 5, 20)
            ]),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn one_lost_probe_is_no_proof() {
        assert_eq!(
            looks(&[
                (5, 1, 90),
                (30, 1, 115),
                (60, 1, 145),
                (65, 0, 1),
                (70, 2, 30)
            ]),
            [false; 5]
        );
    }

    #[test]
    fn bytes_after_a_long_rest_get_their_time_too() {
        assert_eq!(
            looks(&[(3600, 2, 3600), (3614, 5, 3614), (3615, 5, 3615)]),
            [false, false, true]
        );
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut silence = Silence::default();
        let wrap = u64::from(u32::MAX);
        assert!(!silence.look(answers(2, 30), TIMEOUT, wrap - 1000));
        assert!(!silence.look(answers(2, 30), TIMEOUT, wrap + 13_000));
        assert!(silence.look(answers(2, 30), TIMEOUT, wrap + 14_100));
    }
}
