//! An Active that the others can't hear, by example.

use super::*;

/// Active since time 0 at 1 s, mute or unheard since 1 ms.
fn doubted(input: Input) -> Rig {
    let mut rig = Rig::new(Rig::v3());
    rig.tell(Input::Resume);
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    rig.pass(1);
    rig.tell(input);
    rig
}

/// Hears the same Active each 200 ms until `end`; all actions, with the time in milliseconds.
fn hear_until(rig: &mut Rig, end: u64, sender: IpAddr, priority: u8) -> Vec<(u128, Action)> {
    let mut all = Vec::new();
    while rig.at < Duration::from_millis(end) {
        let next = u64::try_from(rig.at.as_millis()).unwrap() + 200;
        let due = |rig: &Rig| rig.machine.deadline().unwrap() - rig.start;
        while due(rig) <= Duration::from_millis(next) {
            let actions = rig.run_to_deadline();
            all.extend(
                actions
                    .into_iter()
                    .map(|action| (rig.at.as_millis(), action)),
            );
        }
        rig.at = Duration::from_millis(next);
        let actions = rig.hear(sender, priority);
        all.extend(
            actions
                .into_iter()
                .map(|action| (rig.at.as_millis(), action)),
        );
    }
    all
}

fn probes(actions: &[(u128, Action)]) -> Vec<u128> {
    actions
        .iter()
        .filter(|(_, action)| *action == Action::Advertise(2))
        .map(|(at, _)| *at)
        .collect()
}

#[test]
fn a_mute_active_yields_to_the_first_advert_of_a_weaker_one() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(3_500);
    let actions = rig.hear(LOWER, 100);
    assert_eq!(actions, [Action::Release { graceful: true }]);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    assert_eq!(rig.machine.active(), Some(LOWER));
    let reason = "no advert can be sent: another node is active";
    assert_eq!(
        rig.machine.reason(),
        "holding back: the others may not hear this node"
    );
    rig.hear(HIGHER, 200);
    assert_eq!(rig.machine.reason(), reason);
}

#[test]
fn one_failed_round_alone_makes_nobody_yield() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(900);
    assert_eq!(rig.hear(LOWER, 100), [Action::Advertise(150)]);
    rig.tell(Input::Mute(false));
    rig.run_to(1_500);
    assert_eq!(
        rig.hear(LOWER, 100),
        [Action::Advertise(150), Action::Garp(5)]
    );
}

#[test]
fn a_mute_active_that_hears_nobody_stays() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(60_000);
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_mute_active_stays_where_the_other_cannot_serve() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(3_500);
    rig.hear(LOWER, 1);
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_mute_backup_takes_a_vacant_address() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(3_500);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_414_062);
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_mute_backup_asks_with_back_off_whether_it_is_heard_and_preempts_when_a_send_works() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(1_600);
    rig.hear(LOWER, 100);
    let actions = hear_until(&mut rig, 40_000, LOWER, 100);
    // At 1 s, and 2, 4, 8, 16 s after the one before, at the next advert of the Active.
    assert_eq!(probes(&actions), [2_600, 4_600, 8_600, 16_600, 32_600]);
    assert_eq!(actions.len(), 5, "nothing else: {actions:?}");
    assert_eq!(rig.wait(), 2_914_062);
    let more = hear_until(&mut rig, 63_000, LOWER, 100);
    assert_eq!(probes(&more), [62_600], "at most half a minute");
    // That last one left the machine.
    rig.tell(Input::Mute(false));
    rig.pass(100);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_814_062, "the timer runs on");
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn a_send_that_works_by_chance_is_not_believed_before_the_back_off_has_passed() {
    let mut rig = doubted(Input::Mute(true));
    rig.run_to(1_600);
    rig.hear(LOWER, 100);
    rig.tell(Input::Mute(false));
    rig.run_to(2_400);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_414_062);
    rig.run_to(2_700);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_114_062, "a second after it yielded");
}

#[test]
fn an_unheard_active_yields_to_a_weaker_one_that_goes_on_for_an_interval() {
    let mut rig = doubted(Input::Unheard(true));
    rig.run_to(3_400);
    let first = rig.hear(LOWER, 100);
    assert_eq!(
        first,
        [Action::Advertise(150)],
        "no announcement: it may have to yield"
    );
    let actions = hear_until(&mut rig, 4_200, LOWER, 100);
    assert_eq!(rig.machine.state(), VrrpState::Active);
    assert!(
        !actions
            .iter()
            .any(|(_, action)| matches!(action, Action::Garp(_)))
    );
    let last = hear_until(&mut rig, 4_400, LOWER, 100);
    assert_eq!(
        last.last(),
        Some(&(4_400, Action::Release { graceful: true }))
    );
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    assert_eq!(rig.wait(), 3_414_062);
}

#[test]
fn an_unheard_active_whose_rival_yields_announces_itself() {
    let mut rig = doubted(Input::Unheard(true));
    rig.run_to(3_400);
    rig.hear(LOWER, 100);
    let actions = rig.run_to(5_500);
    assert_eq!(
        actions
            .iter()
            .filter(|action| **action == Action::Garp(5))
            .count(),
        1
    );
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

#[test]
fn an_unheard_node_that_yielded_waits_until_a_peer_hears_it() {
    let mut rig = doubted(Input::Unheard(true));
    rig.run_to(1_400);
    hear_until(&mut rig, 2_600, LOWER, 100);
    assert_eq!(rig.machine.state(), VrrpState::Backup);
    let actions = hear_until(&mut rig, 12_000, LOWER, 100);
    assert_eq!(probes(&actions), [3_600, 5_600, 9_600]);
    rig.tell(Input::Unheard(false));
    rig.pass(100);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 2_814_062, "the timer runs on");
}

#[test]
fn a_report_that_goes_stale_lets_the_back_off_decide() {
    let mut rig = doubted(Input::Unheard(true));
    let mut yields = Vec::new();
    for _ in 0..400 {
        let end = u64::try_from(rig.at.as_millis()).unwrap() + 200;
        let was = rig.machine.state();
        hear_until(&mut rig, end, LOWER, 100);
        match (was, rig.machine.state()) {
            // The peer says so only of an Active.
            (VrrpState::Active, VrrpState::Backup) => {
                yields.push(rig.at.as_secs());
                rig.tell(Input::Unheard(false));
            }
            (VrrpState::Backup, VrrpState::Active) => {
                rig.tell(Input::Unheard(true));
            }
            _ => {}
        }
    }
    assert_eq!(yields, [1, 6, 11, 19, 31, 51], "ever more seldom");
}

#[test]
fn a_report_while_it_watches_keeps_nobody_from_preempting() {
    let mut rig = Rig::backup(Rig::v3());
    rig.tell(health(true, true, NodeHealth::NO_PROBE));
    rig.tell(Input::Unheard(true));
    rig.pass(100);
    rig.hear(LOWER, 100);
    assert_eq!(rig.wait(), 3_314_062, "the timer runs on");
    rig.run_to_deadline();
    assert_eq!(rig.machine.state(), VrrpState::Active);
    rig.hear(LOWER, 100);
    assert_eq!(
        rig.machine.state(),
        VrrpState::Active,
        "the other yields first"
    );
}
