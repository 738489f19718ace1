//! The machine by example, by its whole table (state × input), and by seeded random runs.

use std::net::Ipv4Addr;

use super::*;
use crate::config::model::{Garp, Preempt};
use crate::units::Version;

const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const LOWER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const HIGHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));

fn settings(version: Version, ms: u64, base: i64, preempt: Preempt) -> Settings {
    Settings {
        version,
        me: ME,
        base: Priority::try_from(base).unwrap(),
        interval: AdvertInterval::new(version, Duration::from_millis(ms)).unwrap(),
        spacing: Duration::from_millis(ms),
        preempt,
        lease: Some(Duration::from_secs(2)),
        garp: Garp {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            interval: Duration::ZERO,
        },
        recovery_delay: Duration::from_secs(1),
        alone: false,
    }
}

fn health(known: bool, can_serve: bool, probe_epoch: u64) -> Input {
    Input::Health(NodeHealth {
        can_serve,
        known,
        weight: 0,
        probe_epoch,
    })
}

/// A machine with a clock in microseconds since its start.
struct Rig {
    machine: Machine,
    start: Instant,
    at: Duration,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let start = crate::net::clock::now();
        Self {
            machine: Machine::new(settings, start),
            start,
            at: Duration::ZERO,
        }
    }

    /// Watching since time 0, healthy, nothing heard.
    fn backup(settings: Settings) -> Self {
        let mut rig = Self::new(settings);
        rig.tell(Input::Up);
        rig.tell(health(true, true, 0));
        rig
    }

    fn active(settings: Settings) -> Self {
        let mut rig = Self::backup(settings);
        rig.run_to_deadline();
        assert_eq!(rig.machine.state(), VrrpState::Active);
        rig
    }

    fn v3() -> Settings {
        settings(Version::V3, 1000, 150, Preempt::Always)
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        let now = self.start + self.at;
        self.machine.handle(now, input).iter().collect()
    }

    fn hear(&mut self, sender: IpAddr, priority: u8) -> Vec<Action> {
        let interval = self.machine.settings().interval;
        self.tell(Input::Advert(Accepted {
            sender,
            peer: 0,
            priority,
            interval,
            interval_as_sent: true,
            same_addresses: true,
        }))
    }

    fn pass(&mut self, ms: u64) {
        self.at += Duration::from_millis(ms);
    }

    fn run_to_deadline(&mut self) -> Vec<Action> {
        let due = self.machine.deadline().expect("a deadline");
        self.at = self.at.max(due - self.start);
        self.tell(Input::Timer)
    }

    /// Timers only, until this time.
    fn run_to(&mut self, ms: u64) -> Vec<Action> {
        let mut all = Vec::new();
        let end = Duration::from_millis(ms);
        while let Some(due) = self.machine.deadline() {
            if due - self.start > end {
                break;
            }
            all.extend(self.run_to_deadline());
        }
        self.at = end;
        all
    }

    /// Microseconds until the deadline.
    fn wait(&self) -> i64 {
        let due = self.machine.deadline().expect("a deadline") - self.start;
        let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap();
        (nanos(due) - nanos(self.at)).div_euclid(1000)
    }
}

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
fn an_active_advertises_each_interval_and_renews_its_lease_twice_a_second() {
    let mut rig = Rig::active(Rig::v3());
    let begin = u64::try_from(rig.at.as_millis()).unwrap();
    let actions = rig.run_to(begin + 3001);
    let count = |wanted| actions.iter().filter(|action| **action == wanted).count();
    assert_eq!(count(Action::Advertise(150)), 3);
    assert_eq!(count(Action::Renew), 6);
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
    assert_eq!(rig.wait(), 150_000, "200 ms after the first announcement");
    assert_eq!(rig.run_to_deadline(), [Action::Garp(5)]);
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
fn a_resumed_keeper_goes_on_as_active() {
    let mut rig = Rig::new(Rig::v3());
    let actions = rig.tell(Input::Resume);
    let expected = [Action::Claim, Action::Garp(5), Action::Advertise(150)];
    assert_eq!(actions, expected);
    assert_eq!(rig.machine.state(), VrrpState::Active);
}

fn in_state(state: VrrpState) -> Rig {
    match state {
        VrrpState::Initialize => Rig::new(Rig::v3()),
        VrrpState::Backup => Rig::backup(Rig::v3()),
        VrrpState::Active => {
            let mut rig = Rig::active(Rig::v3());
            rig.pass(1);
            rig
        }
        VrrpState::Leaving => {
            let mut rig = Rig::active(Rig::v3());
            rig.pass(1);
            rig.tell(health(true, false, 0));
            rig
        }
    }
}

fn inputs() -> Vec<(&'static str, Input)> {
    let advert = |sender, priority| {
        Input::Advert(Accepted {
            sender,
            peer: 0,
            priority,
            interval: AdvertInterval::from_wire_v3(100).unwrap(),
            interval_as_sent: true,
            same_addresses: true,
        })
    };
    vec![
        ("up", Input::Up),
        ("down", Input::Down),
        ("resume", Input::Resume),
        ("hear 0", advert(LOWER, 0)),
        ("hear 1", advert(LOWER, 1)),
        ("hear 149", advert(HIGHER, 149)),
        ("hear 150<", advert(LOWER, 150)),
        ("hear 150>", advert(HIGHER, 150)),
        ("hear 255", advert(LOWER, 255)),
        ("timer early", Input::Timer),
        ("fit", health(true, true, 1)),
        ("unfit", health(true, false, 0)),
        ("unknown", health(false, false, 0)),
        ("lost", Input::AddressLost),
        ("failed", Input::AddressFailed),
        ("not renewed", Input::NotRenewed),
        ("resign", Input::Resign),
    ]
}

fn letters(actions: &[Action]) -> String {
    let words: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Claim => "claim".into(),
            Action::Renew => "renew".into(),
            Action::Restore => "restore".into(),
            Action::Release { graceful: true } => "release".into(),
            Action::Release { graceful: false } => "drop".into(),
            Action::Advertise(priority) => format!("say{priority}"),
            Action::Garp(frames) => format!("garp{frames}"),
            Action::Probe => "probe".into(),
            Action::IgnoredResign => "ignored".into(),
            Action::FailedOver { taken } => format!("taken:{taken}"),
        })
        .collect();
    words.join(" ")
}

/// The whole table: from each state, each input: next state, actions, microseconds to the deadline.
#[test]
fn each_state_answers_each_input_as_the_table_says() {
    let mut lines = Vec::new();
    for state in [
        VrrpState::Initialize,
        VrrpState::Backup,
        VrrpState::Active,
        VrrpState::Leaving,
    ] {
        for (name, input) in inputs() {
            let mut rig = in_state(state);
            let actions = rig.tell(input);
            let wait = rig.machine.deadline().map(|_| rig.wait());
            let wait = wait.map_or("never".into(), |wait| wait.to_string());
            let after = format!("{:?}", rig.machine.state());
            let row = format!(
                "{state:?} | {name} | {after} | {} | {wait}",
                letters(&actions)
            );
            lines.push(row);
        }
    }
    let table: Vec<&str> = include_str!("table.txt").lines().collect();
    for (got, expected) in lines.iter().zip(&table) {
        assert_eq!(got, expected);
    }
    assert_eq!(lines.len(), table.len(), "{}", lines.join("\n"));
}

#[test]
fn random_events_keep_the_invariants() {
    for seed in 1..=64u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut roll = |end: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % end
        };
        let preempt = match roll(3) {
            0 => Preempt::Never,
            1 => Preempt::Always,
            _ => Preempt::After(Duration::from_secs(2)),
        };
        let mut rig = Rig::new(settings(Version::V3, 100, 150, preempt));
        rig.tell(Input::Up);
        let inputs = inputs();
        let mut holding = false;
        for _ in 0..500 {
            rig.at += Duration::from_micros(roll(200_000));
            let place = usize::try_from(roll(u64::try_from(inputs.len()).unwrap())).unwrap();
            // Leaving for good would end the run.
            let (name, input) = inputs[place];
            if name == "resign" {
                continue;
            }
            let actions = rig.tell(input);
            for action in &actions {
                match action {
                    Action::Claim => holding = true,
                    Action::Release { .. } => {
                        assert!(holding, "seed {seed}: gives up what it does not have");
                        holding = false;
                    }
                    Action::Renew | Action::Restore | Action::Garp(_) => {
                        assert!(holding, "seed {seed}: {action:?} without the address");
                    }
                    Action::Advertise(priority) => {
                        assert!(holding || *priority == 0, "seed {seed}: advertises a lie");
                    }
                    Action::Probe | Action::IgnoredResign | Action::FailedOver { .. } => {}
                }
            }
            assert_eq!(holding, rig.machine.holds(), "seed {seed}");
            let up = rig.machine.state() != VrrpState::Initialize;
            assert_eq!(up, rig.machine.deadline().is_some(), "seed {seed}");
            if input == Input::Timer && up {
                assert!(rig.wait() > 0, "seed {seed}: would spin");
            }
            let priority = rig.machine.effective_priority().get();
            assert!((1..=254).contains(&priority), "seed {seed}");
        }
    }
}
