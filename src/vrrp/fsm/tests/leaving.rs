//! Hand-off, failover by command and planned leave, by example.

use super::*;

#[test]
fn a_holder_that_cannot_serve_offers_the_address_and_takes_it_back_at_priority_1() {
    let mut rig = Rig::active(Rig::v3());
    rig.pass(10);
    assert_eq!(rig.tell(health(true, false, 0)), [Action::Advertise(0)]);
    assert_eq!(rig.machine.state(), VrrpState::Leaving);
    assert_eq!(rig.wait(), 4_000);
    assert_eq!(rig.run_to_deadline(), [Action::Advertise(0)]);
    assert_eq!(rig.run_to_deadline(), [Action::Advertise(0)]);
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    let silence = rig.run_to(begin + 700);
    assert_eq!(silence, [Action::Renew], "only the lease goes on");
    let back = rig.run_to_deadline();
    assert_eq!(back, [Action::Advertise(1)]);
    assert_eq!(rig.machine.state(), VrrpState::Active);
    rig.pass(100);
    assert_eq!(rig.tell(health(true, true, 1)), [Action::Advertise(150)]);
}

#[test]
fn a_hand_off_ends_with_the_successors_first_advert() {
    let mut rig = Rig::active(Rig::v3());
    rig.tell(health(true, false, 0));
    let actions = rig.hear(LOWER, 100);
    let expected = [Action::Advertise(0), Action::Release { graceful: true }];
    assert_eq!(actions, expected);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    assert_eq!(rig.machine.active(), Some(LOWER));
}

#[test]
fn all_servers_off_and_on_again_move_nothing() {
    let mut holder = Rig::active(Rig::v3());
    let mut other = Rig::backup(settings(Version::V3, 1000, 140, Preempt::Always));
    other.hear(ME, 150);
    holder.tell(health(true, false, 0));
    other.hear(ME, 0);
    other.pass(300);
    other.tell(health(true, false, 0));
    other.pass(450);
    other.hear(ME, 1);
    assert_eq!(other.wait(), 3_996_093);
    // All return: the other node's probe is the first to succeed, and waits a check interval.
    other.pass(500);
    other.tell(health(true, true, 1));
    assert_eq!(other.machine.effective_priority().get(), 1);
    assert_eq!(other.wait(), 1_000_000, "then its recovery counts");
    other.pass(400);
    other.hear(ME, 150);
    other.pass(600);
    other.tell(Input::Timer);
    assert_eq!(other.machine.effective_priority().get(), 140);
    assert_eq!(other.machine.state(), VrrpState::Backup);
    assert_eq!(other.wait(), 2_853_125);
}

#[test]
fn without_preemption_the_hand_off_is_repeated_with_back_off() {
    let mut rig = Rig::active(settings(Version::V3, 1000, 150, Preempt::Never));
    rig.tell(health(true, false, 0));
    let mut bursts = Vec::new();
    while rig.at < Duration::from_secs(100) {
        let first = rig.machine.state() == VrrpState::Active;
        let actions = rig.run_to_deadline();
        if first && actions.contains(&Action::Advertise(0)) {
            bursts.push(rig.at.as_secs());
        }
    }
    assert_eq!(bursts, [14, 34, 75]);
}

#[test]
fn without_preemption_a_node_of_low_priority_takes_over_from_one_that_cannot_serve_too() {
    let never = |base| settings(Version::V3, 1000, base, Preempt::Never);
    let mut holder = Rig::active(never(60));
    let mut other = Rig::backup(never(50));
    other.hear(ME, 60);
    holder.tell(health(true, false, 0));
    other.hear(ME, 0);
    other.pass(10);
    other.tell(health(true, true, 1));
    assert_eq!(other.wait(), 794_687);
    // The holder is silent for 750 ms, then goes on at 1: nobody has come yet.
    other.pass(740);
    other.hear(ME, 1);
    assert_eq!(other.wait(), 54_687, "it is on its way");
    other.run_to_deadline();
    assert_eq!(other.machine.state(), VrrpState::Active);
}

#[test]
fn a_planned_leave_waits_for_the_successor_and_then_goes() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    assert_eq!(rig.tell(Input::Resign), [Action::Advertise(0)]);
    let kept = rig.run_to(begin + 4_900);
    let resigns = |actions: &[Action]| {
        let zero = |action: &&Action| **action == Action::Advertise(0);
        actions.iter().filter(zero).count()
    };
    assert_eq!(resigns(&kept), 2);
    assert_eq!(kept.len(), 2 + 9, "the lease is kept: {kept:?}");
    let last = rig.run_to(begin + 5_100);
    assert!(last.contains(&Action::Release { graceful: true }));
    assert!(rig.machine.is_released());
    assert_eq!(rig.machine.deadline(), None);
}

#[test]
fn a_node_alone_leaves_at_once() {
    let mut alone = Rig::v3();
    alone.alone = true;
    let mut rig = Rig::active(alone);
    let actions = rig.tell(Input::Resign);
    assert!(actions.contains(&Action::Release { graceful: true }));
    assert!(rig.machine.is_released());
}

fn failover(seconds: u64) -> Input {
    Input::Failover {
        hold: (seconds > 0).then(|| Duration::from_secs(seconds)),
    }
}

const TAKEN: Action = Action::FailedOver { taken: true };
const NOT_TAKEN: Action = Action::FailedOver { taken: false };

/// Failed over to `LOWER` at 100.
fn failed_over(settings: Settings, seconds: u64) -> Rig {
    let mut rig = Rig::active(settings);
    rig.pass(10);
    assert_eq!(rig.tell(failover(seconds)), [Action::Advertise(0)]);
    rig.pass(600);
    let actions = rig.hear(LOWER, 100);
    let release = Action::Release { graceful: true };
    assert_eq!(actions, [Action::Advertise(0), release, TAKEN]);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    rig
}

#[test]
fn a_failover_keeps_the_address_until_the_successors_first_advert() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    assert_eq!(rig.tell(failover(0)), [Action::Advertise(0)]);
    let actions = rig.run_to(begin + 600);
    assert_eq!(
        actions,
        [Action::Advertise(0), Action::Advertise(0), Action::Renew]
    );
    assert_eq!(rig.machine.reason(), "failing over by command");
    assert!(rig.machine.holds());
    assert!(rig.hear(LOWER, 100).contains(&TAKEN));
    assert!(!rig.machine.holds());
    assert_eq!(rig.machine.reason(), "holding back after a failover");
    assert_eq!(rig.machine.hold_until(), Some(StandDown::UntilReleased));
}

#[test]
fn a_failover_nobody_follows_is_taken_back_and_said_to_be() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    rig.tell(failover(60));
    // Active_Down_Interval of priority 1 and one interval: 3.996 s + 1 s.
    let kept = rig.run_to(begin + 4_990);
    assert!(!kept.contains(&NOT_TAKEN));
    let back = rig.run_to(begin + 5_000);
    assert_eq!(back, [Action::Garp(5), Action::Advertise(150), NOT_TAKEN]);
    assert_eq!(rig.machine.state(), VrrpState::Active);
    assert_eq!(rig.machine.reason(), "no other node took over");
    assert_eq!(rig.machine.hold_until(), None);
}

#[test]
fn a_node_that_failed_over_preempts_nobody_until_it_is_released() {
    let mut rig = failed_over(Rig::v3(), 0);
    for _ in 0..100 {
        rig.pass(1_000);
        assert_eq!(rig.hear(LOWER, 100), []);
        assert_eq!(rig.wait(), 3_414_062);
    }
    rig.tell(Input::ReleaseHold);
    assert_eq!(rig.machine.hold_until(), None);
    rig.pass(1_000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_414_062, "the timer runs on");
}

#[test]
fn a_failover_cancelled_while_it_waits_leaves_no_hold_behind() {
    for (seconds, again) in [(0, None), (30, None), (0, Some(60))] {
        let mut rig = Rig::active(Rig::v3());
        rig.tell(failover(seconds));
        rig.pass(100);
        assert!(rig.machine.will_stand_down());
        assert_eq!(rig.tell(Input::ReleaseHold), []);
        assert!(!rig.machine.will_stand_down());
        if let Some(seconds) = again {
            // The last word counts.
            assert_eq!(rig.tell(failover(seconds)), []);
            assert!(rig.machine.will_stand_down());
        }
        assert!(rig.hear(LOWER, 100).contains(&TAKEN));
        assert_eq!(rig.machine.hold_until().is_some(), again.is_some());
        assert!(!rig.machine.will_stand_down());
    }
}

#[test]
fn the_hold_of_a_previous_keeper_is_taken_up_by_all_but_a_holder() {
    let mut rig = Rig::backup(Rig::v3());
    rig.machine.hold_back(StandDown::UntilReleased);
    for _ in 0..10 {
        rig.pass(1_000);
        assert_eq!(rig.hear(LOWER, 100), []);
    }
    assert_eq!(rig.machine.reason(), "holding back after a failover");
    let mut rig = Rig::active(Rig::v3());
    rig.machine.hold_back(StandDown::UntilReleased);
    assert_eq!(rig.machine.hold_until(), None);
}

#[test]
fn a_node_that_failed_over_preempts_when_its_time_has_passed() {
    let ten = Preempt::After(Duration::from_secs(10));
    for preempt in [Preempt::Always, ten] {
        let mut rig = failed_over(settings(Version::V3, 1000, 150, preempt), 30);
        for _ in 0..29 {
            rig.pass(1_000);
            rig.hear(LOWER, 100);
            assert_eq!(rig.wait(), 3_414_062);
        }
        rig.pass(1_000);
        rig.hear(LOWER, 100);
        assert_eq!(rig.wait(), 2_414_062, "the timer runs on");
    }
}

#[test]
fn the_hold_after_a_failover_ends_when_the_active_fails_or_resigns_or_cannot_serve() {
    let mut silent = failed_over(Rig::v3(), 0);
    silent.run_to_deadline();
    let mut resigned = failed_over(Rig::v3(), 0);
    resigned.tell(health(true, true, NodeHealth::NO_PROBE));
    resigned.hear(LOWER, 0);
    assert_eq!(resigned.wait(), 414_062);
    resigned.run_to_deadline();
    let mut unfit = failed_over(Rig::v3(), 0);
    unfit.tell(health(true, true, NodeHealth::NO_PROBE));
    unfit.hear(LOWER, 1);
    assert_eq!(unfit.wait(), 414_062);
    unfit.run_to_deadline();
    for rig in [silent, resigned, unfit] {
        assert_eq!(rig.machine.state(), VrrpState::Active);
        assert_eq!(rig.machine.hold_until(), None);
    }
}

#[test]
fn the_hold_after_a_failover_outlasts_a_link_that_goes_and_comes() {
    for base in [150, 255] {
        let mut rig = failed_over(settings(Version::V3, 1000, base, Preempt::Always), 0);
        rig.tell(Input::Down);
        assert_eq!(rig.tell(Input::Up), []);
        assert_eq!(rig.machine.state(), VrrpState::Backup);
        rig.hear(LOWER, 100);
        assert_eq!(rig.machine.reason(), "holding back after a failover");
    }
}

#[test]
fn an_address_owner_fails_over_when_told_and_preempts_when_released_whatever_the_setting() {
    let mut rig = failed_over(settings(Version::V3, 1000, 255, Preempt::Never), 0);
    rig.pass(1_000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_003_906);
    rig.tell(Input::ReleaseHold);
    rig.pass(1_000);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_003_906, "the timer runs on");
}

#[test]
fn nothing_is_failed_over_by_a_node_that_is_not_active_or_alone_or_leaving_for_good() {
    let mut rig = Rig::backup(Rig::v3());
    assert_eq!(rig.tell(failover(0)), [NOT_TAKEN]);
    assert_eq!(rig.machine.hold_until(), None);
    let mut rig = Rig::new(Rig::v3());
    assert_eq!(rig.tell(failover(0)), [NOT_TAKEN]);
    let mut alone = Rig::v3();
    alone.alone = true;
    let mut rig = Rig::active(alone);
    assert_eq!(rig.tell(failover(0)), [NOT_TAKEN]);
    assert_eq!(rig.machine.state(), VrrpState::Active);
    let mut rig = Rig::active(Rig::v3());
    rig.tell(Input::Resign);
    assert_eq!(rig.tell(failover(0)), [NOT_TAKEN]);
}

#[test]
fn by_command_nothing_is_given_to_a_node_that_cannot_serve() {
    let mut rig = Rig::active(Rig::v3());
    rig.tell(failover(0));
    rig.pass(997);
    let actions = rig.hear(LOWER, 1);
    let expected = [Action::Garp(5), Action::Advertise(150), NOT_TAKEN];
    assert_eq!(actions[actions.len() - 3..], expected);
    assert_eq!(rig.machine.state(), VrrpState::Active);
    // Neither of the two can serve: as commanded.
    let mut rig = Rig::active(Rig::v3());
    rig.tell(failover(0));
    rig.tell(health(true, false, 0));
    assert!(rig.hear(LOWER, 1).contains(&TAKEN));
}

#[test]
fn a_failover_ends_unsuccessfully_with_whatever_ends_it() {
    let under_way = || {
        let mut rig = Rig::active(Rig::v3());
        rig.tell(failover(0));
        rig
    };
    assert!(under_way().tell(Input::Resign).contains(&NOT_TAKEN));
    assert!(under_way().tell(Input::Down).contains(&NOT_TAKEN));
    assert!(under_way().tell(Input::AddressFailed).contains(&NOT_TAKEN));
    let mut stalled = under_way();
    stalled.pass(2_001);
    assert!(stalled.tell(Input::Timer).contains(&NOT_TAKEN));
    let mut again = under_way();
    assert_eq!(
        again.tell(failover(60)),
        [],
        "the first answer answers both"
    );
    again.hear(LOWER, 100);
    let until = again.start + again.at + Duration::from_secs(60);
    assert_eq!(again.machine.hold_until(), Some(StandDown::Until(until)));
}

#[test]
fn a_hand_off_becomes_a_failover_when_told_so() {
    let mut rig = Rig::active(Rig::v3());
    rig.tell(health(true, false, 0));
    rig.pass(500);
    assert_eq!(
        rig.tell(failover(0))[..],
        [Action::Renew, Action::Advertise(0)][1..]
    );
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    let kept = rig.run_to(begin + 4_990);
    assert!(!kept.contains(&Action::Advertise(1)));
    let back = rig.run_to(begin + 5_000);
    assert_eq!(back, [Action::Garp(5), Action::Advertise(1), NOT_TAKEN]);
}
