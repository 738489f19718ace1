//! When are this node's adverts lost on their way? The other node says so, by the channel. Pure.
//!
//! What is said once stands until the other node has heard something, be it the machine's question
//! whether it is heard, or until the other node says nothing any more. When to yield and when to
//! try again is for `vrrp::fsm` to decide.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Whether this node advertises as Active.
    pub active: bool,
    /// Our advert interval.
    #[serde(with = "crate::recorder::time::span")]
    pub interval: Duration,
    /// What the nodes that take part say; `None`: there is no fresh report.
    pub word: Option<Word>,
}

/// What all nodes together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The longest [`silence`].
    #[serde(with = "crate::recorder::time::span")]
    pub silence: Duration,
    /// Since when at the latest each of them has heard an advert of ours; `None`: one never has.
    #[serde(with = "crate::recorder::time::maybe")]
    pub heard: Option<Instant>,
}

/// Whether one virtual router's adverts are unheard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OneWay {
    #[serde(with = "crate::recorder::time::maybe")]
    since: Option<Instant>,
}

/// The part of a reported silence during which we spoke: as Active since then, as far as the
/// report, made at that time or later, can tell.
#[must_use]
pub fn silence(active_since: Option<Instant>, made: Instant, reported: Duration) -> Duration {
    active_since.map_or(reported, |since| {
        reported.min(made.saturating_duration_since(since))
    })
}

/// Whether a silence of that length is a loss.
#[must_use]
pub fn is_lost(interval: Duration, silence: Duration) -> bool {
    silence > interval.saturating_mul(2)
}

impl OneWay {
    /// Looks again; whether the adverts are unheard, if that has changed.
    pub fn judge(&mut self, now: Instant, look: &Look) -> Option<bool> {
        let unheard = match (look.word, self.since) {
            (None, _) => false,
            (Some(word), _) if look.active => is_lost(look.interval, word.silence),
            (Some(word), Some(since)) => word.heard.is_none_or(|heard| heard <= since),
            (Some(_), None) => false,
        };
        if unheard == self.since.is_some() {
            return None;
        }
        self.since = unheard.then_some(now);
        Some(unheard)
    }

    /// Whether they are, as it was judged last.
    #[must_use]
    pub const fn is_unheard(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// With adverts each 100 ms.
    fn look(active: bool, silence: u64, heard: Option<Instant>) -> Look {
        Look {
            active,
            interval: ms(100),
            word: Some(Word {
                silence: ms(silence),
                heard,
            }),
        }
    }

    #[test]
    fn an_active_that_is_not_heard_for_over_two_intervals_is_unheard() {
        let now = crate::net::clock::now();
        let mut one = OneWay::default();
        assert_eq!(one.judge(now, &look(true, 90, None)), None);
        assert_eq!(one.judge(now, &look(true, 200, None)), None);
        assert_eq!(one.judge(now, &look(true, 201, None)), Some(true));
        assert_eq!(one.judge(now, &look(true, 300, None)), None);
        assert_eq!(one.judge(now, &look(true, 20, Some(now))), Some(false));
    }

    #[test]
    fn silence_before_we_spoke_is_no_loss() {
        let start = crate::net::clock::now();
        let made = start + ms(50);
        assert_eq!(silence(Some(start), made, ms(60_000)), ms(50));
        assert_eq!(silence(Some(start), made, ms(20)), ms(20));
        assert_eq!(silence(Some(made), start, ms(60_000)), ms(0));
        assert_eq!(silence(None, made, ms(60_000)), ms(60_000));
    }

    #[test]
    fn without_a_fresh_report_nothing_is_unheard() {
        let now = crate::net::clock::now();
        for active in [true, false] {
            let mut one = OneWay::default();
            one.judge(now, &look(true, 300, None));
            let silent = Look {
                active,
                interval: ms(100),
                word: None,
            };
            assert_eq!(one.judge(now, &silent), Some(false));
        }
    }

    #[test]
    fn a_backup_is_not_expected_to_be_heard() {
        let now = crate::net::clock::now();
        let mut one = OneWay::default();
        assert_eq!(one.judge(now, &look(false, 60_000, None)), None);
    }

    #[test]
    fn one_that_yielded_is_unheard_until_something_of_it_was_heard() {
        let start = crate::net::clock::now();
        let mut one = OneWay::default();
        let before = Some(start - ms(300));
        assert_eq!(one.judge(start, &look(true, 300, before)), Some(true));
        let later = start + ms(60_000);
        assert_eq!(one.judge(later, &look(false, 60_300, before)), None);
        assert_eq!(one.judge(later, &look(false, 500, None)), None);
        let asked = Some(later - ms(100));
        assert_eq!(one.judge(later, &look(false, 100, asked)), Some(false));
    }
}
