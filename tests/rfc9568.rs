//! Requirements of RFC 9568 that no other test states as such (`docs/rfc9568.md` names them), asked
//! of the public machine and codec. Times are worked out by hand.
#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lbd::config::model::{Garp, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version, Vrid};
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth, Settings};
use lbd::vrrp::packet::{Addresses, Advertisement, WireAuth};
use lbd::vrrp::validate::Accepted;

const ME: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const LOWER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Greater as a number, lesser as text.
const HIGHER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 10);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn interval(millis: u64) -> AdvertInterval {
    AdvertInterval::new(Version::V3, ms(millis)).unwrap()
}

fn settings(priority: i64, preempt: Preempt) -> Settings {
    Settings {
        version: Version::V3,
        me: ME.into(),
        base: Priority::try_from(priority).unwrap(),
        interval: interval(1000),
        spacing: ms(1000),
        preempt,
        lease: None,
        garp: Garp {
            repeat: 5,
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            interval: Duration::ZERO,
        },
        recovery_delay: ms(1000),
        alone: false,
    }
}

/// A node that can serve, and has just come up.
fn started(settings: Settings) -> (Machine, Instant, Vec<Action>) {
    let start = lbd::net::clock::now();
    let mut machine = Machine::new(settings, start);
    let health = NodeHealth {
        can_serve: true,
        known: true,
        weight: 0,
        probe_epoch: NodeHealth::NO_PROBE,
    };
    machine.handle(start, Input::Health(health));
    let actions = machine.handle(start, Input::Up).iter().collect();
    (machine, start, actions)
}

/// The same, once it has become Active for want of others, with the moment of that.
fn active(settings: Settings) -> (Machine, Instant) {
    let (mut machine, start, _) = started(settings);
    let mut now = start;
    for _ in 0..3 {
        now = machine.deadline().unwrap();
        machine.handle(now, Input::Timer);
        if machine.state() == VrrpState::Active {
            break;
        }
    }
    assert_eq!(machine.state(), VrrpState::Active);
    (machine, now)
}

fn advert(sender: Ipv4Addr, priority: u8, millis: u64) -> Input {
    Input::Advert(Accepted {
        sender: IpAddr::V4(sender),
        peer: 0,
        priority,
        interval: interval(millis),
        interval_as_sent: true,
        same_addresses: true,
    })
}

fn hears(machine: &mut Machine, now: Instant, input: Input) -> Vec<Action> {
    machine.handle(now, input).iter().collect()
}

#[test]
fn an_owner_claims_announces_and_advertises_at_its_start() {
    let (machine, start, actions) = started(settings(255, Preempt::Always));
    assert_eq!(machine.state(), VrrpState::Active);
    assert_eq!(
        actions,
        [Action::Claim, Action::Garp(5), Action::Advertise(255)]
    );
    assert_eq!(machine.deadline(), Some(start + ms(1000)));
}

#[test]
fn a_backup_starts_with_the_active_down_interval_of_its_own_settings() {
    // 3 · 1000 ms + (256 − 192)/256 · 1000 ms.
    let (machine, start, actions) = started(settings(192, Preempt::Always));
    assert_eq!(machine.state(), VrrpState::Backup);
    assert_eq!(actions, []);
    assert_eq!(machine.deadline(), Some(start + ms(3250)));
}

#[test]
fn a_backup_holds_nothing_and_says_nothing_whatever_it_hears() {
    let (mut machine, start, _) = started(settings(128, Preempt::Never));
    for (millis, priority) in [(0, 100), (10, 128), (20, 255), (30, 1), (40, 200)] {
        let actions = hears(
            &mut machine,
            start + ms(millis),
            advert(LOWER, priority, 1000),
        );
        let quiet = actions.iter().all(|action| *action == Action::Probe);
        assert!(quiet, "{priority}: {actions:?}");
        assert!(!machine.holds());
    }
}

#[test]
fn a_backup_whose_interface_goes_down_waits_for_nothing() {
    let (mut machine, start, _) = started(settings(128, Preempt::Always));
    assert_eq!(hears(&mut machine, start, Input::Down), []);
    assert_eq!(machine.state(), VrrpState::Initialize);
    assert_eq!(machine.deadline(), None);
    assert_eq!(hears(&mut machine, start + ms(9000), Input::Timer), []);
}

#[test]
fn a_backup_takes_over_with_the_address_before_the_announcement_before_the_advert() {
    let (mut machine, start, _) = started(settings(128, Preempt::Always));
    let due = start + ms(3500);
    assert_eq!(machine.deadline(), Some(due));
    let actions = hears(&mut machine, due, Input::Timer);
    assert_eq!(
        actions,
        [Action::Claim, Action::Garp(5), Action::Advertise(128)]
    );
    assert_eq!(machine.deadline(), Some(due + ms(1000)));
}

#[test]
fn a_backup_adopts_the_interval_of_whom_it_obeys_and_starts_its_timer_anew() {
    for (preempt, priority) in [
        (Preempt::Always, 128),
        (Preempt::Always, 129),
        (Preempt::Never, 127),
        (Preempt::Never, 255),
    ] {
        let (mut machine, start, _) = started(settings(128, preempt));
        hears(&mut machine, start + ms(500), advert(LOWER, priority, 2000));
        // 500 + 3 · 2000 + 128/256 · 2000.
        assert_eq!(machine.deadline(), Some(start + ms(7500)), "{priority}");
    }
}

#[test]
fn a_backup_that_preempts_discards_the_adverts_of_a_weaker_active() {
    let (mut machine, start, _) = started(settings(128, Preempt::Always));
    let due = machine.deadline();
    for millis in [500, 1000, 2500] {
        hears(&mut machine, start + ms(millis), advert(LOWER, 127, 2000));
        assert_eq!(machine.deadline(), due);
    }
}

#[test]
fn a_resignation_cuts_the_wait_to_skew_time() {
    let (mut machine, start, _) = started(settings(128, Preempt::Always));
    hears(&mut machine, start, advert(HIGHER, 200, 1000));
    hears(&mut machine, start + ms(700), advert(HIGHER, 0, 1000));
    // 128/256 of the Active's interval.
    assert_eq!(machine.deadline(), Some(start + ms(1200)));
}

#[test]
fn an_active_advertises_each_interval() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    for second in 1..=5 {
        let due = since + ms(second * 1000);
        assert_eq!(machine.deadline(), Some(due));
        let actions = hears(&mut machine, due, Input::Timer);
        assert_eq!(actions, [Action::Advertise(128)]);
    }
}

#[test]
fn an_active_that_hears_a_resignation_advertises_at_once() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    let actions = hears(&mut machine, since + ms(400), advert(HIGHER, 0, 1000));
    assert!(actions.contains(&Action::Advertise(128)));
    assert_eq!(machine.state(), VrrpState::Active);
}

#[test]
fn an_active_asserts_itself_at_once_against_what_loses_to_it() {
    for (sender, priority) in [(HIGHER, 127), (LOWER, 128), (LOWER, 1)] {
        let (mut machine, since) = active(settings(128, Preempt::Always));
        let actions = hears(
            &mut machine,
            since + ms(400),
            advert(sender, priority, 1000),
        );
        assert_eq!(actions.first(), Some(&Action::Advertise(128)));
        assert_eq!(machine.state(), VrrpState::Active);
        // What was received moves no timer.
        assert_eq!(machine.deadline(), Some(since + ms(1000)));
    }
}

#[test]
fn an_active_yields_to_a_higher_priority_or_the_same_from_a_greater_address() {
    for (sender, priority) in [(LOWER, 129), (HIGHER, 128), (HIGHER, 255)] {
        let (mut machine, since) = active(settings(128, Preempt::Always));
        let actions = hears(
            &mut machine,
            since + ms(400),
            advert(sender, priority, 2000),
        );
        assert!(actions.contains(&Action::Release { graceful: true }));
        assert_eq!(machine.state(), VrrpState::Backup);
        // 400 + 3 · 2000 + 128/256 · 2000: the interval is the other's from here on.
        assert_eq!(machine.deadline(), Some(since + ms(7400)), "{priority}");
    }
}

#[test]
fn of_two_owners_the_greater_address_stays() {
    let (mut machine, start, _) = started(settings(255, Preempt::Always));
    hears(&mut machine, start + ms(10), advert(LOWER, 255, 1000));
    assert_eq!(machine.state(), VrrpState::Active);
    hears(&mut machine, start + ms(20), advert(HIGHER, 255, 1000));
    assert_eq!(machine.state(), VrrpState::Backup);
}

#[test]
fn an_active_that_shuts_down_advertises_priority_0_and_ends_in_initialize() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    let mut zeros = hears(&mut machine, since + ms(100), Input::Resign);
    for _ in 0..10 {
        if let Some(due) = machine.deadline() {
            zeros.extend(hears(&mut machine, due, Input::Timer));
        }
    }
    assert_eq!(machine.state(), VrrpState::Initialize);
    assert_eq!(
        zeros,
        [
            Action::Advertise(0),
            Action::Advertise(0),
            Action::Advertise(0),
            Action::Release { graceful: true },
        ]
    );
}

#[test]
fn an_advert_on_the_wire_has_the_fields_of_the_rfc() {
    let bytes = |version, centiseconds| {
        let advert = Advertisement {
            version,
            vrid: Vrid::try_from(51).unwrap(),
            priority: 200,
            interval: AdvertInterval::from_wire_v3(centiseconds).unwrap(),
            addresses: Addresses::V4(&[[192, 0, 2, 100], [192, 0, 2, 101]]),
            auth: WireAuth::None,
        };
        let mut out = Vec::new();
        let (source, group) = (
            Ipv4Addr::new(198, 51, 100, 10),
            Ipv4Addr::new(224, 0, 0, 18),
        );
        advert
            .encode(source.into(), group.into(), &mut out)
            .unwrap();
        out
    };
    let longest = bytes(Version::V3, 0x0fff);
    assert_eq!(longest[..6], [0x31, 51, 200, 2, 0x0f, 0xff]);
    assert_eq!(longest[8..], [192, 0, 2, 100, 192, 0, 2, 101]);
    // The reserved bits are zero in the shortest, too.
    assert_eq!(bytes(Version::V3, 1)[4..6], [0x00, 0x01]);
}

#[test]
fn an_interval_is_1_to_4095_centiseconds() {
    for (millis, fits) in [(0, false), (10, true), (40_950, true), (40_960, false)] {
        let made = AdvertInterval::new(Version::V3, ms(millis));
        assert_eq!(made.is_ok(), fits, "{millis} ms");
    }
    assert_eq!(AdvertInterval::from_wire_v3(0), None);
    assert_eq!(AdvertInterval::from_wire_v3(0x1000), None);
}
