//! An Active by example.

use super::*;

#[test]
fn an_active_advertises_each_interval_and_renews_its_lease_twice_a_second() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    let actions = rig.run_to(begin + 3001);
    let count = |wanted| actions.iter().filter(|action| **action == wanted).count();
    assert_eq!(count(Action::Advertise(150)), 3);
    assert_eq!(count(Action::Renew), 6);
}

#[test]
fn only_two_actives_compare_addresses() {
    let mut backup = Rig::backup(Rig::v3());
    backup.pass(1000);
    backup.hear(LOWER, 150);
    assert_eq!(backup.wait(), 3_414_062, "a Backup defers to its equal");
    let mut active = Rig::active(Rig::v3());
    active.pass(1);
    let answer = active.hear(LOWER, 150);
    assert_eq!(answer, [Action::Advertise(150), Action::Garp(5)]);
    active.hear(HIGHER, 150);
    assert_eq!(active.machine.state(), VrrpState::Backup);
}

#[test]
fn answers_to_weaker_adverts_are_bounded_and_no_announcement_is_lost() {
    let mut rig = Rig::active(Rig::v3());
    rig.pass(1);
    let mut answers = 0;
    for _ in 0..1000 {
        answers += rig
            .hear(LOWER, 100)
            .iter()
            .filter(|action| matches!(action, Action::Advertise(_)))
            .count();
        rig.at += Duration::from_micros(50);
    }
    assert_eq!(answers, 10, "one each 5 ms");
    assert_eq!(rig.wait(), 10_000, "40 ms after the second announcement");
    assert_eq!(rig.run_to_deadline(), [Action::Garp(5)]);
}

#[test]
fn an_active_that_stalled_past_its_lease_brings_nothing_back() {
    let mut rig = Rig::active(Rig::v3());
    rig.pass(1_999);
    assert_eq!(rig.tell(Input::Timer)[0], Action::Renew);
    rig.pass(2_000);
    let actions = rig.tell(Input::AddressLost);
    assert_eq!(actions, [Action::Release { graceful: false }]);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    assert_eq!(rig.wait(), 3_414_062);
}

#[test]
fn a_deleted_address_is_put_back_at_once_but_not_in_a_storm() {
    let mut rig = Rig::active(Rig::v3());
    rig.pass(100);
    let actions = rig.tell(Input::AddressLost);
    assert_eq!(actions, [Action::Restore, Action::Garp(1)]);
    rig.pass(5);
    assert_eq!(rig.tell(Input::AddressLost), []);
    assert_eq!(rig.wait(), 15_000);
    assert_eq!(rig.run_to_deadline(), [Action::Renew]);
}

#[test]
fn a_renewal_the_kernel_was_too_busy_for_is_tried_again_while_the_lease_lasts() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    let mut tried = Vec::new();
    while rig.machine.state() == VrrpState::Active {
        let actions = rig.run_to_deadline();
        if !actions.contains(&Action::Renew) {
            continue;
        }
        tried.push(u64::try_from(rig.at.as_millis()).unwrap() - begin);
        let more = rig.tell(Input::NotRenewed);
        if rig.machine.state() != VrrpState::Active {
            let expected = [Action::Advertise(0), Action::Release { graceful: false }];
            assert_eq!(more, expected);
        }
    }
    let (first, last) = (tried[0], *tried.last().unwrap());
    assert_eq!((first, last, tried.len()), (500, 1_900, 15));
    assert_eq!(rig.machine.reason(), "the kernel refused the address");
}

#[test]
fn a_renewal_that_succeeds_at_last_lasts_for_a_whole_lease() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    rig.run_to(begin + 501);
    rig.tell(Input::NotRenewed);
    let again = rig.run_to(begin + 1_700);
    assert_eq!(again[0], Action::Renew);
    assert_eq!(rig.tell(Input::NotRenewed), []);
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn an_address_owner_starts_as_active_and_never_hands_off() {
    let mut rig = Rig::new(settings(Version::V3, 1000, 255, Preempt::Always));
    let actions = rig.tell(Input::Up);
    let expected = [Action::Claim, Action::Garp(5), Action::Advertise(255)];
    assert_eq!(actions, expected);
    rig.tell(health(true, false, 0));
    assert_eq!(rig.machine.state(), VrrpState::Active);
    assert_eq!(rig.machine.effective_priority().get(), 255);
}

#[test]
fn a_resumed_keeper_goes_on_as_active() {
    let mut rig = Rig::new(Rig::v3());
    let actions = rig.tell(Input::Resume);
    let expected = [Action::Claim, Action::Garp(5), Action::Advertise(150)];
    assert_eq!(actions, expected);
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn adverts_go_out_more_often_than_their_interval_says() {
    let mut often = Rig::v3();
    often.spacing = Duration::from_millis(200);
    let mut rig = Rig::active(often);
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    assert_eq!(rig.wait(), 200_000);
    let actions = rig.run_to(begin + 3_001);
    let advert = |action: &&Action| **action == Action::Advertise(150);
    assert_eq!(actions.iter().filter(advert).count(), 15);
    assert_eq!(rig.machine.interval().centiseconds(), 100);
    rig.tell(health(true, false, 0));
    rig.run_to(begin + 3_900);
    rig.tell(health(true, true, 1));
    assert_eq!(rig.wait(), 100_062, "the lease");
    rig.run_to_deadline();
    assert_eq!(rig.wait(), 99_937, "the advert");
}

#[test]
fn an_active_that_was_away_for_as_long_as_backups_wait_announces_itself_again() {
    let mut often = settings(Version::V3, 100, 150, Preempt::Always);
    often.spacing = Duration::from_millis(20);
    let mut rig = Rig::active(often.clone());
    rig.pass(299);
    assert_eq!(rig.tell(Input::Timer), [Action::Advertise(150)]);
    let mut rig = Rig::active(often);
    rig.pass(301);
    let expected = [Action::Garp(5), Action::Advertise(150)];
    assert_eq!(rig.tell(Input::Timer), expected);
}
