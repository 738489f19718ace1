//! The decision, step by step.

use super::*;

const LEASE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(5);

fn settings() -> Settings {
    Settings {
        lease: Some(LEASE),
        grace: GRACE,
    }
}

/// A decision and its clock.
struct Bench {
    decision: Decision,
    now: Instant,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let now = crate::net::clock::now();
        Self {
            decision: Decision::new(settings, now),
            now,
        }
    }

    fn judge(&mut self, able: bool) -> Vec<Act> {
        self.decision.judge(self.now, Some(able));
        self.decision.step(self.now)
    }

    /// Lets time pass, each deadline on time; everything that was done, but not the renewals.
    fn pass(&mut self, ms: u64) -> Vec<Act> {
        let end = self.now + Duration::from_millis(ms);
        let mut all = Vec::new();
        while let Some(at) = self.decision.deadline().filter(|at| *at <= end) {
            self.now = at;
            all.extend(self.decision.step(at));
        }
        self.now = end;
        let renewals = self.decision.is_announced();
        all.retain(|act| *act != Act::Hold || !renewals);
        all
    }
}

#[test]
fn a_node_announces_once_it_is_known_to_serve_and_not_before() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.decision.step(bench.now), []);
    assert_eq!(bench.decision.deadline(), None);
    assert_eq!(bench.judge(false), []);
    assert_eq!(bench.judge(true), [Act::Hold]);
    assert!(bench.decision.is_announced());
}

#[test]
fn the_lifetime_is_renewed_each_half_second() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    for _ in 0..10 {
        bench.now += Duration::from_millis(499);
        assert_eq!(bench.decision.step(bench.now), []);
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
    }
    let forever = Settings {
        lease: None,
        ..settings()
    };
    let mut bench = Bench::new(forever);
    bench.judge(true);
    assert_eq!(bench.decision.deadline(), None);
}

#[test]
fn a_node_that_cannot_serve_withdraws_and_serves_on_what_still_arrives_for_the_grace() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    assert_eq!(bench.judge(false), [Act::Withdraw]);
    assert!(!bench.decision.is_announced() && !bench.decision.is_silent());
    assert_eq!(bench.pass(4_999), []);
    assert_eq!(bench.pass(1), [Act::Reset]);
    assert_eq!(bench.pass(14), []);
    assert_eq!(bench.pass(1), [Act::Deafen]);
    assert!(bench.decision.is_silent());
}

#[test]
fn without_a_grace_connections_are_reset_at_once() {
    let none = Settings {
        grace: Duration::ZERO,
        ..settings()
    };
    let mut bench = Bench::new(none);
    bench.judge(true);
    assert_eq!(bench.judge(false), [Act::Withdraw, Act::Reset]);
    assert_eq!(bench.pass(15), [Act::Deafen]);
}

#[test]
fn a_node_that_recovers_announces_after_a_second_and_keeps_its_connections() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    bench.judge(false);
    bench.pass(500);
    assert_eq!(bench.judge(true), []);
    bench.now += Duration::from_millis(999);
    assert_eq!(bench.decision.step(bench.now), []);
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
    // Nothing was reset, and nothing will be.
    assert_eq!(bench.pass(60_000), []);
}

#[test]
fn a_node_that_comes_and_goes_waits_longer_each_time_and_is_forgiven_after_a_minute() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 32_000] {
        bench.judge(false);
        bench.pass(10_000);
        assert_eq!(bench.judge(true), []);
        bench.now += Duration::from_millis(wait_ms - 1);
        assert_eq!(bench.decision.step(bench.now), [], "{wait_ms}");
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.decision.step(bench.now), [Act::Hold], "{wait_ms}");
    }
    bench.pass(60_000);
    bench.judge(false);
    bench.judge(true);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
}

#[test]
fn an_address_that_the_kernel_has_removed_is_not_renewed_but_announced_anew() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    bench.now += LEASE;
    // The event of the removal may be read before the clock is looked at.
    assert_eq!(bench.decision.lost(bench.now), []);
    assert_eq!(bench.decision.step(bench.now), [Act::Deafen]);
    assert_eq!(
        bench.decision.reason().0,
        "stalled for longer than the lease"
    );
    bench.now += Duration::from_millis(999);
    assert_eq!(bench.decision.step(bench.now), []);
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
}

#[test]
fn an_address_removed_by_others_is_put_back_but_not_without_end() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    assert_eq!(bench.decision.lost(bench.now), [Act::Restore]);
    bench.now += Duration::from_millis(5);
    assert_eq!(bench.decision.lost(bench.now), []);
    bench.now += Duration::from_millis(14);
    assert_eq!(bench.decision.step(bench.now), []);
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
    bench.judge(false);
    assert_eq!(bench.decision.lost(bench.now), []);
}

#[test]
fn a_refusal_of_the_kernel_withdraws_and_is_tried_again_after_a_second() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    assert_eq!(bench.decision.refused(bench.now), [Act::Withdraw]);
    bench.now += Duration::from_millis(999);
    assert_eq!(bench.decision.step(bench.now), []);
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
}

#[test]
fn a_busy_kernel_is_asked_again_and_the_lifetime_counts_from_what_it_took() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    let before = bench.now;
    bench.now += RENEWAL;
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
    bench.decision.not_renewed(bench.now, before);
    bench.now += Duration::from_millis(100);
    assert_eq!(bench.decision.step(bench.now), [Act::Hold]);
    bench.decision.not_renewed(bench.now, before);
    bench.now = before + LEASE;
    assert_eq!(bench.decision.step(bench.now), [Act::Deafen]);
}

#[test]
fn a_node_that_stops_withdraws_drains_and_never_announces_again() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    assert_eq!(bench.decision.stop(bench.now), [Act::Withdraw]);
    assert_eq!(bench.judge(true), []);
    assert_eq!(bench.pass(5_000), [Act::Reset]);
    assert_eq!(bench.pass(15), [Act::Deafen]);
    assert!(bench.decision.is_silent());
    assert_eq!(bench.decision.deadline(), None);
}

#[test]
fn a_node_that_gives_up_leaves_nothing_behind() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.decision.give_up(bench.now), []);
    let mut bench = Bench::new(settings());
    bench.judge(true);
    let all = [Act::Withdraw, Act::Reset, Act::Deafen];
    assert_eq!(bench.decision.give_up(bench.now), all);
    assert!(bench.decision.is_silent());
    assert_eq!(bench.judge(true), []);
}

#[test]
fn an_adopted_address_stays_while_a_verdict_may_still_come() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.decision.adopt(bench.now), [Act::Hold]);
    bench.decision.judge(bench.now, None);
    assert_eq!(bench.pass(4_999), []);
    assert!(bench.decision.is_announced());
    assert_eq!(bench.pass(1), [Act::Withdraw]);
    let mut bench = Bench::new(settings());
    bench.decision.adopt(bench.now);
    assert_eq!(bench.judge(true), []);
    assert_eq!(bench.pass(60_000), []);
    assert!(bench.decision.is_announced());
}

#[test]
fn a_verdict_that_is_missing_again_changes_nothing() {
    let mut bench = Bench::new(settings());
    bench.judge(true);
    bench.decision.judge(bench.now, None);
    assert_eq!(bench.decision.step(bench.now), []);
    assert!(bench.decision.is_announced());
}
