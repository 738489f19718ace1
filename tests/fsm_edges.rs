//! Edges of the election machine that mutation testing found unwatched: small promises between the
//! large ones. Times are worked out by hand.
#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lbd::config::model::{Garp, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth, Settings};
use lbd::vrrp::validate::Accepted;

const ME: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 3);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn settings(priority: i64, preempt: Preempt) -> Settings {
    Settings {
        version: Version::V3,
        me: ME.into(),
        base: Priority::try_from(priority).unwrap(),
        interval: AdvertInterval::new(Version::V3, ms(1000)).unwrap(),
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

fn health(can_serve: bool, known: bool) -> Input {
    Input::Health(NodeHealth {
        can_serve,
        known,
        weight: 0,
        probe_epoch: NodeHealth::NO_PROBE,
    })
}

fn backup(settings: Settings) -> (Machine, Instant) {
    let start = lbd::net::clock::now();
    let mut machine = Machine::new(settings, start);
    machine.handle(start, health(true, true));
    machine.handle(start, Input::Up);
    (machine, start)
}

/// Active since the moment returned, for want of others.
fn active(settings: Settings) -> (Machine, Instant) {
    let (mut machine, _) = backup(settings);
    let now = machine.deadline().unwrap();
    machine.handle(now, Input::Timer);
    assert_eq!(machine.state(), VrrpState::Active);
    (machine, now)
}

fn advert(priority: u8) -> Input {
    advert_of(PEER, priority)
}

fn advert_of(sender: Ipv4Addr, priority: u8) -> Input {
    Input::Advert(Accepted {
        sender: IpAddr::V4(sender),
        peer: 0,
        priority,
        interval: AdvertInterval::new(Version::V3, ms(1000)).unwrap(),
        interval_as_sent: true,
        same_addresses: true,
    })
}

fn hears(machine: &mut Machine, now: Instant, input: Input) -> Vec<Action> {
    machine.handle(now, input).iter().collect()
}

#[test]
fn the_own_active_down_interval_is_that_of_the_configured_priority() {
    let (machine, _) = backup(settings(192, Preempt::Always));
    assert_eq!(machine.own_active_down_interval(), ms(3250));
}

#[test]
fn before_it_takes_part_a_node_counts_only_once_it_is_known_to_serve() {
    let start = lbd::net::clock::now();
    for (can_serve, known, priority) in [
        (false, false, 1),
        (true, false, 1),
        (false, true, 1),
        (true, true, 128),
    ] {
        let mut machine = Machine::new(settings(128, Preempt::Always), start);
        machine.handle(start, health(can_serve, known));
        assert_eq!(machine.effective_priority().get(), priority);
    }
}

#[test]
fn a_changed_recovery_delay_holds_for_the_next_recovery() {
    for (delay, counts_at) in [(ms(1000), 1000), (ms(300), 300)] {
        let (mut machine, start) = backup(settings(128, Preempt::Always));
        machine.set_recovery_delay(delay);
        machine.handle(start, health(false, true));
        machine.handle(start, health(true, true));
        let at = start + ms(counts_at);
        assert_eq!(machine.deadline(), Some(at));
        assert_eq!(machine.effective_priority().get(), 1);
        machine.handle(at, Input::Timer);
        assert_eq!(machine.effective_priority().get(), 128);
    }
}

#[test]
fn a_link_lost_while_leaving_for_good_ends_the_leave() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    machine.handle(since, Input::Resign);
    let actions = hears(&mut machine, since + ms(10), Input::Down);
    assert_eq!(actions, [Action::Release { graceful: false }]);
    assert!(machine.is_released());
    assert_eq!(hears(&mut machine, since + ms(20), Input::Up), []);
    assert_eq!(machine.state(), VrrpState::Initialize);
}

#[test]
fn a_link_lost_while_handing_off_ends_the_hand_off_alone() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    machine.handle(since, health(false, true));
    assert_eq!(machine.state(), VrrpState::Leaving);
    machine.handle(since + ms(10), Input::Down);
    assert!(!machine.is_released());
    machine.handle(since + ms(20), Input::Up);
    assert_eq!(machine.state(), VrrpState::Backup);
}

#[test]
fn who_is_leaving_for_good_is_not_told_twice() {
    let (mut machine, since) = active(settings(128, Preempt::Always));
    assert_eq!(
        hears(&mut machine, since, Input::Resign),
        [Action::Advertise(0)]
    );
    let due = machine.deadline();
    assert_eq!(hears(&mut machine, since + ms(1), Input::Resign), []);
    assert_eq!(machine.deadline(), due);
}

#[test]
fn good_news_of_a_sound_node_does_not_put_its_preemption_off() {
    let (mut machine, start) = backup(settings(128, Preempt::After(ms(10_000))));
    for second in 0..10 {
        machine.handle(start + ms(second * 1000), advert(100));
        machine.handle(start + ms(second * 1000 + 500), health(true, true));
    }
    // Last obeyed at 9 s; from 10 s on the weaker one is not heard any more.
    let due = start + ms(9000 + 3500);
    assert_eq!(machine.deadline(), Some(due));
    machine.handle(start + ms(10_000), advert(100));
    assert_eq!(machine.deadline(), Some(due));
}

#[test]
fn who_advertises_after_a_resignation_is_the_active_we_name() {
    let (mut machine, start) = backup(settings(128, Preempt::Always));
    machine.handle(start, advert(200));
    assert_eq!(machine.active(), Some(PEER.into()));
    machine.handle(start + ms(100), advert(0));
    let other = Ipv4Addr::new(172, 16, 0, 4);
    machine.handle(start + ms(200), advert_of(other, 50));
    assert_eq!(machine.active(), Some(other.into()));
}
