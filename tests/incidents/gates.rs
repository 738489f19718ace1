//! The short forms that run with every other test: lbd alone, with bounds that a busy machine
//! keeps.

use std::time::Duration;

use super::capacity;
use super::etcd::{self, Event};
use super::faults::{self, Fault, Seen};
use super::herd;
use super::lab::cases::Case;
use super::pause;
use super::shares;
use super::sources;
use super::table;
use super::targets::Target;

pub const CASES: &[Case] = &[
    ("nobody_meets_a_killed_server", NEEDS, || {
        let seen = fault(Fault::Refused, 4);
        in_flight_alone(&seen);
        served_within(&seen, 250);
        down_within(&seen, 2_000);
    }),
    ("nobody_loses_a_connection_to_a_black_hole", NEEDS, || {
        let seen = fault(Fault::BlackHole, 6);
        in_flight_alone(&seen);
        served_within(&seen, 500);
        down_within(&seen, 3_000);
        told_within(&seen, 3_000);
    }),
    ("clients_of_a_stopped_server_are_told", NEEDS, || {
        let seen = fault(Fault::Stopped, 6);
        // A third of the clients, until what they tell takes it out of service: 0.4 s.
        lost_within(&seen, 800);
        down_within(&seen, 1_500);
        told_within(&seen, 3_000);
    }),
    ("hardly_anybody_meets_a_server_that_resets", NEEDS, || {
        let seen = fault(Fault::Resets, 4);
        lost_within(&seen, 200);
        down_within(&seen, 1_000);
    }),
    ("clients_of_a_server_that_is_not_ready_stay", NEEDS, || {
        let seen = fault(Fault::NotReady, 4);
        assert_eq!(seen.lost, 0, "{}", table::one(&seen));
        assert_eq!(seen.told_count, 0, "{}", table::one(&seen));
        down_within(&seen, 3_000);
    }),
    ("a_pause_of_all_servers_resets_nobody", NEEDS, || {
        let seen = pause::measure(Target::Lbd, Duration::from_secs(1));
        println!("    {seen:?}");
        assert_eq!(seen.broken, 0, "{seen:?}");
        assert_eq!(seen.held, 30, "{seen:?}");
    }),
    ("700_clients_are_served_soon_after_an_outage", NEEDS, || {
        let seen = herd::measure(Target::Lbd, herd::CLIENTS, Duration::from_secs(2));
        let last = seen.served.last().copied();
        println!("    last after {last:?}, {} failed", seen.failed);
        assert_eq!(seen.served.len(), herd::CLIENTS);
        assert!(last < Some(Duration::from_secs(10)), "{last:?}");
    }),
    ("limits_hold_against_3000_clients", NEEDS, || {
        let seen = capacity::measure(Target::Lbd);
        println!("    {seen:?}");
        assert!(capacity::within_limits(&seen), "{seen:?}");
        // Of 32,640; a machine that is late for one of them is late for some.
        assert!(seen.disorder <= 100, "{seen:?}");
    }),
    ("weights_are_kept_exactly", NEEDS, || {
        let counts = shares::weighted(Target::Lbd, [1, 2, 3], 600);
        assert_eq!(counts, [100, 200, 300]);
    }),
    ("a_returned_server_ramps_as_promised", NEEDS, || {
        let points = shares::ramp(Target::Lbd, 8, Duration::from_secs(2));
        let off = shares::worst(&points);
        println!("    off by {off:.1} points: {points:?}");
        assert_eq!(points.len(), 4);
        assert!(off <= 6.0, "{off:.1} points: {points:?}");
    }),
    (
        "both_nodes_choose_the_same_server_by_address",
        NEEDS,
        || {
            let seen = sources::measure(Target::Lbd, 300);
            println!("    {seen:?}");
            assert_eq!((seen.clients, seen.different, seen.moved), (300, 0, 0));
            assert!(seen.stayed_on_others < 300 && seen.fewest >= 50, "{seen:?}");
        },
    ),
    (
        "no_watch_of_etcd_is_lost_when_a_member_is_killed",
        &["ip", "sysctl", "etcd", "etcdctl"],
        || {
            for (_, seen) in etcd::measure(Target::Lbd, &[Event::FollowerKilled]) {
                println!("    {seen:?}");
                assert_eq!((seen.lost, seen.ended, seen.failed), (0, 0, 0), "{seen:?}");
                assert!(seen.untold.is_empty(), "{seen:?}");
                assert!(seen.latest < Some(Duration::from_secs(3)), "{seen:?}");
            }
        },
    ),
];

const NEEDS: &[&str] = &["ip", "sysctl"];
/// Connections that a server had accepted when it died, and that nobody can move.
const IN_FLIGHT: usize = 3;

fn fault(fault: Fault, seconds: u64) -> Seen {
    let seen = faults::measure(Target::Lbd, fault, Duration::from_secs(seconds));
    println!("    {}", table::one(&seen));
    let all = usize::try_from(seconds).unwrap() * 200;
    assert!(seen.attempts >= all, "{} attempts", seen.attempts);
    seen
}

/// So many milliseconds, more on a busy machine, and three times what this one needs when nothing
/// happens.
fn slack(seen: &Seen, ms: u64) -> Duration {
    Duration::from_millis(ms) * seen.busy / 100 + seen.calm * 3
}

/// Of 100 connections a second that the bad server got: those under way when it died.
fn in_flight_alone(seen: &Seen) {
    let slow = usize::try_from(seen.calm.as_millis() / 10).unwrap();
    assert!(seen.lost <= IN_FLIGHT + slow, "{}", table::one(seen));
}

/// Everybody who was served at all.
fn served_within(seen: &Seen, ms: u64) {
    let bound = slack(seen, ms);
    assert!(
        seen.slowest_served <= bound,
        "slowest served {:?}: {}",
        seen.slowest_served,
        table::one(seen)
    );
}

fn down_within(seen: &Seen, ms: u64) {
    let bound = slack(seen, ms);
    assert!(
        seen.marked.is_some_and(|marked| marked <= bound),
        "{}",
        table::one(seen)
    );
}

/// No more than come for one of three servers in so many milliseconds, at 300 each second.
fn lost_within(seen: &Seen, ms: u64) {
    let most = slack(seen, ms).as_millis() / 10;
    assert!(
        u128::try_from(seen.lost).is_ok_and(|lost| lost <= most),
        "{}",
        table::one(seen)
    );
}

/// The established clients of the bad server, all of them, and no others.
fn told_within(seen: &Seen, ms: u64) {
    let bound = slack(seen, ms);
    assert!(
        seen.told.is_some_and(|told| told <= bound) && seen.innocent == 0,
        "{}",
        table::one(seen)
    );
}
