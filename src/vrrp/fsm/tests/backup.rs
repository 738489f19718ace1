//! A Backup by example.

use super::*;

#[test]
fn a_backup_that_hears_nobody_takes_over_after_active_down_interval() {
    let mut rig = Rig::backup(settings(Version::V2, 1000, 100, Preempt::Always));
    assert_eq!(rig.wait(), 3_609_375);
    let actions = rig.run_to_deadline();
    let expected = [Action::Claim, Action::Garp(5), Action::Advertise(100)];
    assert_eq!(actions, expected);
    assert_eq!(rig.wait(), 500_000, "the lease is renewed next");
    let mut short = Rig::backup(settings(Version::V3, 10, 100, Preempt::Always));
    assert_eq!(short.wait(), 36_093);
    short.run_to_deadline();
    assert_eq!(short.wait(), 10_000);
}

#[test]
fn a_resigning_active_is_replaced_after_skew_time() {
    let mut rig = Rig::backup(Rig::v3());
    rig.hear(HIGHER, 200);
    rig.pass(100);
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    assert_eq!(rig.hear(HIGHER, 0), [Action::Probe]);
    assert_eq!(rig.wait(), 414_062);
    rig.pass(4);
    assert_eq!(rig.hear(HIGHER, 0), [], "the second copy changes nothing");
    assert_eq!(rig.wait(), 410_062);
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_resignation_counts_only_from_the_present_active() {
    let mut rig = Rig::backup(Rig::v3());
    assert_eq!(rig.hear(HIGHER, 0), [Action::IgnoredResign]);
    assert_eq!(rig.wait(), 3_414_062);
    rig.hear(HIGHER, 200);
    assert_eq!(rig.hear(LOWER, 0), [Action::IgnoredResign]);
    assert_eq!(rig.wait(), 3_414_062);
}

#[test]
fn a_backup_whose_servers_are_unconfirmed_counts_itself_at_1_until_a_probe_succeeds() {
    let mut rig = Rig::backup(Rig::v3());
    rig.hear(HIGHER, 200);
    rig.hear(HIGHER, 0);
    assert_eq!(rig.machine.effective_priority().get(), 1);
    assert_eq!(rig.wait(), 996_093);
    rig.pass(100);
    rig.tell(health(true, true, 1));
    assert_eq!(rig.machine.effective_priority().get(), 150);
    assert_eq!(rig.wait(), 314_062);
}

#[test]
fn a_confirmation_that_comes_after_skew_time_takes_over_at_once() {
    let mut rig = Rig::backup(Rig::v3());
    rig.hear(HIGHER, 200);
    rig.hear(HIGHER, 0);
    rig.pass(750);
    rig.hear(HIGHER, 1);
    assert_eq!(rig.wait(), 3_996_093, "at 1 against 1 it defers");
    rig.pass(100);
    rig.tell(health(true, true, 1));
    assert_eq!(rig.wait(), 0);
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_node_that_cannot_serve_takes_over_when_it_hears_nobody() {
    let mut rig = Rig::backup(Rig::v3());
    rig.tell(health(true, false, 0));
    assert_eq!(rig.wait(), 3_996_093);
    let actions = rig.run_to_deadline();
    let expected = [Action::Claim, Action::Garp(5), Action::Advertise(1)];
    assert_eq!(actions, expected);
}

#[test]
fn a_node_without_a_verdict_waits_out_the_grace_of_its_start() {
    let mut rig = Rig::new(settings(Version::V3, 10, 150, Preempt::Always));
    rig.tell(Input::Up);
    assert_eq!(rig.wait(), 3_000_000);
    rig.pass(20);
    rig.tell(health(true, true, 1));
    assert_eq!(rig.wait(), 14_140);
}

#[test]
fn preemption_waits_for_its_delay_but_not_behind_an_active_that_cannot_serve() {
    let ten = Preempt::After(Duration::from_secs(10));
    let mut rig = Rig::backup(settings(Version::V3, 1000, 150, ten));
    for _ in 0..9 {
        rig.pass(1000);
        rig.hear(LOWER, 100);
        assert_eq!(rig.wait(), 3_414_062);
    }
    rig.pass(1000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_414_062, "the timer runs on");
    assert_eq!(rig.machine.reason(), "waiting for the preempt delay");
    rig.pass(1000);
    rig.hear(LOWER, 100);
    rig.pass(1000);
    rig.hear(LOWER, 100);
    rig.run_to_deadline();
    assert_eq!(
        rig.machine.reason(),
        "stronger than the node that was active"
    );
    let mut rig = Rig::backup(settings(Version::V3, 1000, 150, ten));
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    rig.pass(1000);
    rig.hear(LOWER, 1);
    assert_eq!(rig.wait(), 414_062);
}

#[test]
fn a_node_that_keeps_failing_preempts_nobody() {
    let ten = Preempt::After(Duration::from_secs(10));
    let mut rig = Rig::backup(settings(Version::V3, 1000, 150, ten));
    rig.pass(20_000);
    rig.tell(health(true, false, 0));
    rig.hear(LOWER, 100);
    rig.pass(1000);
    // It counts as fit again a check interval later; the delay counts from the recovery itself.
    rig.tell(health(true, true, 1));
    for second in 1..10 {
        rig.pass(1000);
        rig.tell(Input::Timer);
        rig.hear(LOWER, 100);
        assert_eq!(rig.wait(), 3_414_062, "{second} s");
        assert_eq!(rig.machine.reason(), "waiting for the preempt delay");
    }
    rig.pass(1000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_414_062, "the timer runs on");
    // Behind an Active that can't serve either it doesn't wait.
    rig.tell(health(true, false, 1));
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    rig.pass(1000);
    rig.tell(Input::Timer);
    rig.hear(LOWER, 1);
    assert_eq!(rig.wait(), 414_062);
}

#[test]
fn a_short_failure_of_a_holder_makes_its_preemption_wait_too() {
    let ten = Preempt::After(Duration::from_secs(10));
    let mut rig = Rig::active(settings(Version::V3, 1000, 150, ten));
    rig.run_to(20_000);
    rig.tell(health(true, false, 0));
    rig.pass(5);
    rig.tell(health(true, true, 1));
    rig.hear(LOWER, 100);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    rig.pass(1000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_414_062);
    assert_eq!(rig.machine.reason(), "waiting for the preempt delay");
    rig.hear(HIGHER, 200);
    assert_eq!(rig.machine.reason(), "handed off");
}

#[test]
fn without_preemption_any_active_is_obeyed_and_a_resignation_still_counts() {
    let mut rig = Rig::backup(settings(Version::V3, 1000, 150, Preempt::Never));
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    rig.pass(1000);
    rig.hear(LOWER, 2);
    assert_eq!(rig.wait(), 3_414_062);
    rig.hear(LOWER, 0);
    assert_eq!(rig.wait(), 414_062);
}

#[test]
fn a_late_timer_alone_takes_nothing() {
    let mut rig = Rig::backup(Rig::v3());
    rig.hear(HIGHER, 200);
    rig.pass(3_415 + 600);
    assert_eq!(rig.tell(Input::Timer), []);
    assert_eq!(rig.wait(), 1_000_000, "one more interval is granted");
    rig.pass(900);
    rig.hear(HIGHER, 200);
    assert_eq!(rig.wait(), 3_414_062);
    for _ in 0..3 {
        rig.pass(5_000);
        assert_eq!(rig.tell(Input::Timer), []);
    }
    rig.pass(5_000);
    rig.tell(Input::Timer);
    assert_eq!(rig.machine.state(), VrrpState::Active, "not for ever");
}

#[test]
fn the_interval_of_the_active_is_learned_and_forgotten_on_take_over() {
    let mut rig = Rig::backup(Rig::v3());
    rig.tell(Input::Advert(Accepted {
        sender: HIGHER,
        peer: 0,
        priority: 200,
        interval: AdvertInterval::from_wire_v3(10).unwrap(),
        interval_as_sent: true,
        same_addresses: true,
    }));
    assert_eq!(rig.wait(), 341_406);
    rig.run_to_deadline();
    assert_eq!(rig.machine.interval().centiseconds(), 100);
}

#[test]
fn an_active_that_advertises_densely_is_missed_half_an_interval_sooner() {
    let mut rig = Rig::backup(Rig::v3());
    rig.hear(HIGHER, 200);
    for _ in 0..3 {
        rig.pass(200);
        rig.hear(HIGHER, 200);
    }
    assert_eq!(rig.wait(), 3_414_062, "three times is no habit");
    rig.pass(200);
    rig.hear(HIGHER, 200);
    assert_eq!(rig.wait(), 2_914_062);
    rig.pass(1000);
    rig.hear(HIGHER, 200);
    assert_eq!(rig.wait(), 3_414_062, "it has slowed down");
    for _ in 0..4 {
        rig.pass(200);
        rig.hear(HIGHER, 200);
    }
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
    assert_eq!(rig.machine.reason(), "the active node fell silent");
}
