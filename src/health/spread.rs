//! Spreads probes over time. Pure.
//!
//! Probes of many servers that begin together, at the start of the process, after one network
//! failure for all, on suspicions that came together, would go on together. So each server has its
//! own turn in every interval, spread evenly whatever their number, and a probe begins at its turn
//! if that costs at most a quarter of the pause; where the turn is further off it begins earlier by
//! a random part of that quarter, until the turn is in reach. It never begins later than it is due.
//! Two nodes count from different beginnings, so that their turns differ, too.

use std::time::{Duration, Instant};

/// The golden ratio in 2⁻⁶⁴ths: multiples of it are spread evenly, however many they are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Between the numbers of servers of two proxies.
const PROXY: u64 = 1_000_003;

/// One server's turn.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    beginning: Instant,
    /// In 2⁻⁶⁴ths of an interval.
    turn: u64,
    /// State of a generator of random numbers, never 0.
    random: u64,
}

impl Spread {
    /// The turn of a server by its places, counted from a `beginning` that all of a process share.
    pub(super) fn new(beginning: Instant, proxy: usize, server: usize, seed: u64) -> Self {
        let number = |place: usize| u64::try_from(place).unwrap_or(u64::MAX);
        let number = number(proxy)
            .wrapping_mul(PROXY)
            .wrapping_add(number(server));
        Self {
            beginning,
            turn: number.wrapping_mul(GOLDEN),
            random: seed | 1,
        }
    }

    /// When a probe that is due at `due` begins, after one that ended at `ended`.
    pub(super) fn begin(&mut self, due: Instant, ended: Instant) -> Instant {
        let pause = due.saturating_duration_since(ended);
        let most = pause / 4;
        let since_turn = self.since_turn(due, pause);
        let early = match since_turn {
            Some(early) if early <= most => early,
            Some(_) => self.part_of(most),
            None => Duration::ZERO,
        };
        due.checked_sub(early).unwrap_or(due)
    }

    /// How long before `due` the last turn was; `None` without a pause.
    fn since_turn(&self, due: Instant, pause: Duration) -> Option<Duration> {
        let period = u64::try_from(pause.as_nanos()).ok()?;
        let elapsed = due.saturating_duration_since(self.beginning).as_nanos();
        let turn = share(period, self.turn);
        let elapsed = elapsed.checked_sub(u128::from(turn))?;
        let since = elapsed.checked_rem(u128::from(period))?;
        Some(Duration::from_nanos(u64::try_from(since).ok()?))
    }

    /// A random part of `most`.
    fn part_of(&mut self, most: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let most = u64::try_from(most.as_nanos()).unwrap_or(0);
        Duration::from_nanos(share(most, self.random))
    }
}

/// So many 2⁻⁶⁴ths of `whole`.
fn share(whole: u64, of: u64) -> u64 {
    u64::try_from((u128::from(whole) * u128::from(of)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Probes of 200 servers, each `lasting` so long, that all end at once `at` after the
    /// beginning; answers when those begin that begin in `second`, milliseconds in it.
    fn begun(at: Duration, lasting: Duration, second: Duration) -> Vec<u128> {
        let beginning = crate::net::clock::now();
        let mut begun = Vec::new();
        for server in 0..200 {
            let seed = u64::try_from(server)
                .unwrap()
                .wrapping_mul(0xD134_2543_DE82_EF95);
            let mut spread = Spread::new(beginning, 0, server, seed);
            let mut ended = beginning + at;
            loop {
                let begin = spread.begin(ended + SECOND, ended);
                if begin >= beginning + second + SECOND {
                    break;
                }
                if begin >= beginning + second {
                    begun.push((begin - beginning - second).as_millis());
                }
                ended = begin + lasting;
            }
        }
        begun
    }

    /// The most that begin within one twentieth of a second.
    fn crowd(begun: &[u128]) -> usize {
        let crowds = (0..20).map(|slot| begun.iter().filter(|at| **at / 50 == slot).count());
        crowds.max().unwrap()
    }

    #[test]
    fn probes_in_step_are_spread_evenly_within_some_intervals() {
        let at = Duration::from_secs(100);
        let soon = begun(at, ms(3), at + SECOND / 2);
        assert_eq!(soon.len(), 200);
        assert!(crowd(&soon) > 30, "{}", crowd(&soon));
        let later = begun(at, ms(3), at + 10 * SECOND);
        assert_eq!(later.len(), 200);
        assert!(crowd(&later) <= 12, "{}", crowd(&later));
    }

    #[test]
    fn probes_that_run_into_their_timeout_together_are_soon_spread_too() {
        let at = Duration::from_secs(100);
        let later = begun(at, ms(500), at + 15 * SECOND);
        // Each takes 1.38 s on average, so 145 begin in a second.
        assert!((130..=160).contains(&later.len()), "{}", later.len());
        assert!(crowd(&later) <= 18, "{}", crowd(&later));
    }

    #[test]
    fn a_probe_begins_at_most_a_quarter_of_the_pause_before_it_is_due_and_never_after() {
        let beginning = crate::net::clock::now();
        for server in 0..500 {
            let mut spread = Spread::new(beginning, 3, server, 7);
            let mut ended = beginning + ms(17);
            for _ in 0..20 {
                let due = ended + SECOND;
                let begin = spread.begin(due, ended);
                assert!(begin <= due && due - begin <= ms(250), "{server}");
                ended = begin + ms(40);
            }
            assert_eq!(spread.begin(ended, ended), ended);
        }
    }

    #[test]
    fn a_server_at_its_turn_is_probed_at_a_steady_rate() {
        let beginning = crate::net::clock::now();
        let mut spread = Spread::new(beginning, 0, 0, 1);
        // The turn of the first server of the first proxy is the beginning of each second.
        for second in 5..100 {
            let begun = beginning + second * SECOND;
            let ended = begun + ms(u64::from(second));
            assert_eq!(spread.begin(ended + SECOND, ended), begun + SECOND);
        }
    }
}
