//! The rise/fall machine of one server, HAProxy's counter exactly. Pure.
//!
//! `health` runs from 0 to rise + fall − 1; the server is up while it is at least `rise`. A success
//! adds one and, at `rise`, jumps to the top; a failure takes one away and, below `rise`, drops to
//! 0. So `fall` failures in a row take a server down, `rise` successes in a row bring it back, and
//! any failure on the way up starts over. Unlike HAProxy's, a server begins unknown, not up: its
//! first result decides at once.
//!
//! A server that is down is down in one of two ways. It is unresponsive after `fall` results in a
//! row that were no sign of life, or when its first result was none; else it is merely not ready.
//! One sign of life makes an unresponsive server one that is not ready.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::model::Check;

/// How a server is: what one probe says, and what the rules make of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Takes connections.
    Ready,
    /// Alive, but takes no new connections.
    NotReady,
    /// No sign of life.
    Unresponsive,
}

impl Health {
    /// Whether it takes connections.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Ready, or alive and not ready.
    #[must_use]
    pub const fn up_or_not(up: bool) -> Self {
        if up { Self::Ready } else { Self::NotReady }
    }

    /// The word users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// What a machine knows of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No probe has finished yet: not usable.
    Unknown,
    /// By the rules.
    Known(Health),
}

impl State {
    /// Takes connections.
    pub const UP: Self = Self::Known(Health::Ready);

    /// By the rules; `None`: no probe has finished yet.
    #[must_use]
    pub const fn health(self) -> Option<Health> {
        match self {
            Self::Unknown => None,
            Self::Known(health) => Some(health),
        }
    }
}

/// A change of verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The state it left.
    pub from: State,
    /// The state it is in.
    pub to: State,
}

/// The rules of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Rules {
    rise: u16,
    fall: u16,
    #[serde(with = "crate::recorder::time::span")]
    interval: Duration,
    #[serde(with = "crate::recorder::time::span")]
    fast_interval: Duration,
    #[serde(with = "crate::recorder::time::span")]
    down_interval: Duration,
}

impl Rules {
    fn top(self) -> u16 {
        self.rise.saturating_add(self.fall).saturating_sub(1)
    }
}

/// One server's health.
///
/// Drive it so: start a probe when [`Machine::deadline`] has come, and report what it found with
/// [`Machine::on_result`] when it has finished. One probe at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    rules: Rules,
    state: State,
    health: u16,
    /// Results in a row that were no sign of life, up to `fall`.
    lifeless: u16,
    #[serde(with = "crate::recorder::time")]
    deadline: Instant,
    /// Shortens the first steady interval, so that servers probed together drift apart.
    #[serde(with = "crate::recorder::time::maybe_span")]
    stagger: Option<Duration>,
}

impl Machine {
    /// A server nothing is known of; the first probe is due at once.
    #[must_use]
    pub fn new(check: &Check, now: Instant) -> Self {
        Self {
            rules: Rules {
                rise: check.rise.get().into(),
                fall: check.fall.get().into(),
                interval: check.interval,
                fast_interval: check.fast_interval,
                down_interval: check.down_interval,
            },
            state: State::Unknown,
            health: 0,
            lifeless: 0,
            deadline: now,
            stagger: None,
        }
    }

    /// Takes `stagger` (at most half an interval) off the first interval after the first result.
    #[must_use]
    pub fn staggered(mut self, stagger: Duration) -> Self {
        self.stagger = Some(stagger);
        self
    }

    /// Takes over a verdict that is young enough to count as probed. How a server was down is not
    /// passed on: it counts as alive until checks say otherwise.
    pub fn restore(&mut self, up: bool) {
        self.decide(Health::up_or_not(up));
    }

    /// Takes over how the server is by other rules than these: that stands until checks by these
    /// say otherwise.
    pub fn resume(&mut self, health: Health) {
        self.decide(health);
    }

    fn decide(&mut self, health: Health) {
        self.state = State::Known(health);
        (self.health, self.lifeless) = match health {
            Health::Ready => (self.rules.top(), 0),
            Health::NotReady => (0, 0),
            Health::Unresponsive => (0, self.rules.fall),
        };
    }

    /// The present verdict.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// When the next probe is due.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// HAProxy's `check status` pair: the counter, and where it turns: `(2, 2)` of `L4OK 2/2`.
    #[must_use]
    pub const fn counter(&self) -> (u16, u16) {
        match self.state {
            State::UP => {
                let above = self.health.saturating_add(1);
                (above.saturating_sub(self.rules.rise), self.rules.fall)
            }
            State::Known(_) | State::Unknown => (self.health, self.rules.rise),
        }
    }

    /// A probe has finished at `now`, and found this.
    pub fn on_result(&mut self, found: Health, now: Instant) -> Option<Change> {
        let from = self.state;
        self.lifeless = match found {
            Health::Unresponsive => self.lifeless.saturating_add(1).min(self.rules.fall),
            Health::Ready | Health::NotReady => 0,
        };
        match (self.state, found) {
            (State::Unknown, first) => self.decide(first),
            (State::Known(_), Health::Ready) => self.success(),
            (State::Known(_), Health::NotReady | Health::Unresponsive) => self.failure(),
        }
        let mut pause = self.pause();
        if let Some(stagger) = self.stagger.take() {
            pause -= stagger.min(pause / 2);
        }
        self.deadline = now + pause;
        (from != self.state).then_some(Change {
            from,
            to: self.state,
        })
    }

    /// A probe that says nothing has finished at `now`: the next one decides.
    pub fn skip(&mut self, now: Instant) {
        self.deadline = now + self.rules.fast_interval.min(self.pause());
    }

    fn success(&mut self) {
        self.health = self.health.saturating_add(1).min(self.rules.top());
        if self.health >= self.rules.rise {
            self.health = self.rules.top();
            self.state = State::UP;
        } else {
            self.state = State::Known(Health::NotReady);
        }
    }

    fn failure(&mut self) {
        self.health = self.health.saturating_sub(1);
        if self.health < self.rules.rise {
            self.health = 0;
            self.state = State::Known(if self.lifeless >= self.rules.fall {
                Health::Unresponsive
            } else {
                Health::NotReady
            });
        }
    }

    /// From the end of one probe to the start of the next.
    fn pause(&self) -> Duration {
        if self.health == self.rules.top() {
            self.rules.interval
        } else if self.health == 0 {
            self.rules.down_interval
        } else {
            self.rules.fast_interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::CheckKind;
    use crate::units::Count;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(rise: i64, fall: i64) -> Check {
        Check {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(10),
            fast_interval: Duration::from_secs(2),
            down_interval: Duration::from_secs(5),
            timeout: SECOND,
            rise: Count::try_from(rise).unwrap(),
            fall: Count::try_from(fall).unwrap(),
        }
    }

    fn now() -> Instant {
        crate::net::clock::now()
    }

    #[test]
    fn a_probe_that_says_nothing_is_repeated_soon_and_leaves_the_verdict() {
        let start = now();
        let mut machine = Machine::new(&check(2, 2), start);
        machine.on_result(Health::Ready, start);
        let counter = machine.counter();
        machine.skip(start + SECOND);
        assert_eq!(machine.deadline(), start + SECOND * 3);
        assert_eq!((machine.state(), machine.counter()), (State::UP, counter));
    }

    /// A row each: rise, fall, results, and what [`run`] writes down of them.
    fn follows(table: &[(i64, i64, &str, &str)]) {
        for (rise, fall, results, expected) in table {
            let mut machine = Machine::new(&check(*rise, *fall), now());
            let trace = run(&mut machine, results);
            assert_eq!(trace, *expected, "{rise} {fall} {results}");
        }
    }

    /// Feeds `results` (`+` ready, `-` not ready, `x` no sign of life) and writes down the state (U
    /// up, D not ready, X unresponsive) and the pause in seconds after each.
    fn run(machine: &mut Machine, results: &str) -> String {
        let start = now();
        let mut trace = Vec::new();
        for result in results.chars() {
            machine.on_result(found(result), start);
            let state = match machine.state().health() {
                None => '?',
                Some(Health::Ready) => 'U',
                Some(Health::NotReady) => 'D',
                Some(Health::Unresponsive) => 'X',
            };
            trace.push(format!("{state}{}", (machine.deadline() - start).as_secs()));
        }
        trace.join(" ")
    }

    fn found(result: char) -> Health {
        match result {
            '+' => Health::Ready,
            '-' => Health::NotReady,
            'x' => Health::Unresponsive,
            other => panic!("no result: {other}"),
        }
    }

    #[test]
    fn a_server_is_unresponsive_after_fall_results_without_a_sign_of_life() {
        let table = [
            (2, 2, "+xx", "U10 U2 X5"),
            // Down, but the results without a sign of life are not enough yet.
            (2, 2, "+-x", "U10 U2 D5"),
            (2, 2, "+-xx", "U10 U2 D5 X5"),
            (2, 2, "+x-", "U10 U2 D5"),
            (2, 3, "+-xxx", "U10 U2 U2 D5 X5"),
            // One sign of life is enough to be no longer unresponsive, whatever it says.
            (2, 2, "+xx-xx", "U10 U2 X5 D5 D5 X5"),
            (2, 2, "+xx+", "U10 U2 X5 D2"),
            (2, 2, "+xx+xx", "U10 U2 X5 D2 D5 X5"),
            (2, 2, "+xx++", "U10 U2 X5 D2 U10"),
            // Nobody is connected to a server whose first result it is.
            (2, 3, "x", "X5"),
            (2, 3, "xxxxxx++", "X5 X5 X5 X5 X5 X5 D2 U10"),
            (1, 1, "+x-x+", "U10 X5 D5 X5 U10"),
            // A success on the way down starts the count over.
            (2, 2, "+x+xx", "U10 U2 U10 U2 X5"),
        ];
        follows(&table);
    }

    #[test]
    fn which_kind_of_failure_it_is_never_changes_the_counter() {
        for number in 0..3_usize.pow(8) {
            let kinds = |bad: [char; 2]| -> String {
                let digits = (0..8).map(|place| number / 3_usize.pow(place) % 3);
                digits.map(|digit| ['+', bad[0], bad[1]][digit]).collect()
            };
            let (mixed, plain) = (kinds(['-', 'x']), kinds(['-', '-']));
            let mut machines = [(); 2].map(|()| Machine::new(&check(2, 3), now()));
            let [a, b] = &mut machines;
            let a = run(a, &mixed).replace('X', "D");
            assert_eq!(a, run(b, &plain), "{mixed}");
        }
    }

    // Worked out by hand from HAProxy's check.c (anchors: proxy.md §2.4).
    #[test]
    fn results_move_the_counter_as_in_haproxy() {
        let table = [
            (2, 2, "+-", "U10 U2"),
            (2, 2, "+--", "U10 U2 D5"),
            (2, 2, "+-+", "U10 U2 U10"),
            (2, 2, "-++", "D5 D2 U10"),
            (2, 2, "-+-++", "D5 D2 D5 D2 U10"),
            (3, 2, "-++-+++", "D5 D2 D2 D5 D2 D2 U10"),
            (2, 3, "+-+--+---", "U10 U2 U10 U2 U2 U10 U2 U2 D5"),
            (1, 1, "+-+", "U10 D5 U10"),
            (1, 3, "---+", "D5 D5 D5 U10"),
        ];
        follows(&table);
    }

    #[test]
    fn the_first_result_decides_at_once() {
        let start = now();
        let mut machine = Machine::new(&check(3, 3), start);
        assert_eq!(machine.state(), State::Unknown);
        assert_eq!(machine.deadline(), start);
        let change = machine.on_result(Health::Ready, start);
        assert_eq!(
            change,
            Some(Change {
                from: State::Unknown,
                to: State::UP
            })
        );
        let mut machine = Machine::new(&check(3, 3), start);
        let change = machine.on_result(Health::NotReady, start);
        assert_eq!(
            change,
            Some(Change {
                from: State::Unknown,
                to: State::Known(Health::NotReady)
            })
        );
    }

    #[test]
    fn only_a_change_is_reported() {
        let mut machine = Machine::new(&check(2, 2), now());
        let changes: Vec<bool> = "++---+++"
            .chars()
            .map(|result| machine.on_result(found(result), now()).is_some())
            .collect();
        assert_eq!(
            changes,
            [true, false, false, true, false, false, true, false]
        );
        let changes: Vec<bool> = "xxx"
            .chars()
            .map(|result| machine.on_result(found(result), now()).is_some())
            .collect();
        assert_eq!(changes, [false, true, false]);
    }

    #[test]
    fn a_restored_verdict_stands_until_the_rules_change_it() {
        let mut machine = Machine::new(&check(2, 2), now());
        machine.restore(true);
        assert_eq!(run(&mut machine, "--"), "U2 D5");
        let mut machine = Machine::new(&check(2, 2), now());
        machine.restore(false);
        assert_eq!(run(&mut machine, "++"), "D2 U10");
    }

    #[test]
    fn stagger_shortens_the_first_interval_only_and_by_half_at_most() {
        let start = now();
        let mut machine = Machine::new(&check(2, 2), start).staggered(3 * SECOND);
        machine.on_result(Health::Ready, start);
        assert_eq!(machine.deadline() - start, 7 * SECOND);
        machine.on_result(Health::Ready, start);
        assert_eq!(machine.deadline() - start, 10 * SECOND);
        let mut machine = Machine::new(&check(2, 2), start).staggered(9 * SECOND);
        machine.on_result(Health::Ready, start);
        assert_eq!(machine.deadline() - start, 5 * SECOND);
    }

    /// An independent statement of the same rules: runs of equal results, no counter.
    fn oracle(history: &[bool], rise: usize, fall: usize) -> bool {
        let mut up = history[0];
        let mut run = if up { usize::MAX } else { 0 };
        let mut failures = 0;
        for &ok in &history[1..] {
            if up {
                // On the way down a success repairs everything: the counter jumps to the top.
                failures = if ok { 0 } else { failures + 1 };
                if failures >= fall {
                    (up, run, failures) = (false, 0, 0);
                }
            } else {
                run = if ok { run + 1 } else { 0 };
                if run >= rise {
                    (up, failures) = (true, 0);
                }
            }
        }
        up
    }

    #[test]
    fn random_runs_agree_with_the_rules_in_words() {
        for seed in 1..=300_u64 {
            let mut random = seed;
            let mut next = || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random >> 33
            };
            let (rise, fall) = (1 + next() % 5, 1 + next() % 5);
            let mut machine = Machine::new(
                &check(i64::try_from(rise).unwrap(), i64::try_from(fall).unwrap()),
                now(),
            );
            let mut history = Vec::new();
            for step in 0..400 {
                let ok = next() % 3 != 0;
                history.push(ok);
                let bad = [Health::NotReady, Health::Unresponsive][step % 2];
                machine.on_result(if ok { Health::Ready } else { bad }, now());
                let up = machine.state() == State::UP;
                let (rise, fall) = (
                    usize::try_from(rise).unwrap(),
                    usize::try_from(fall).unwrap(),
                );
                assert_eq!(up, oracle(&history, rise, fall), "seed {seed} step {step}");
                let (value, of) = machine.counter();
                assert!(value <= of.max(1), "seed {seed} step {step}: {value}/{of}");
            }
        }
    }
}
