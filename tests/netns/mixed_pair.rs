//! lbd on one node, keepalived 2.2.7 and HAProxy with the users' own files on the other: exactly
//! one of them holds the VIP through start, failover and return.

use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::lab::cases::Case;
use super::lab::peers::Version;
use super::lab::{self, LB1, LB2, Pair, Role, SEED, V3};

/// Both may hold the VIP for this long at a hand-over. keepalived's `state MASTER` starts as one
/// and yields or wins at the first advert.
const OVERLAP: Duration = Duration::from_millis(300);

const PEERS: &[&str] = &["keepalived", "haproxy"];

pub const CASES: &[Case] = &[
    (
        "mixed_pair_v2_with_lbd_preferred_has_one_holder",
        PEERS,
        || {
            through_a_life(LB2, Version::V2);
        },
    ),
    (
        "mixed_pair_v2_with_keepalived_preferred_has_one_holder",
        PEERS,
        || {
            through_a_life(LB1, Version::V2);
        },
    ),
    (
        "mixed_pair_v3_with_lbd_preferred_has_one_holder",
        PEERS,
        || {
            through_a_life(LB2, Version::V3);
        },
    ),
    (
        "mixed_pair_v3_with_keepalived_preferred_has_one_holder",
        PEERS,
        || {
            through_a_life(LB1, Version::V3);
        },
    ),
];

fn through_a_life(lbd: usize, version: Version) {
    let mut pair = Pair::new();
    let began = clock::now();
    for node in [LB1, LB2] {
        start(&mut pair, node, lbd, version);
    }
    pair.settle();
    // The preferred node leaves, and comes back.
    pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    pair.until("lb1 alone holds the VIP", 6_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 8_000);
    pair.until("lb2's VRRP is gone", 15_000, |pair| {
        pair.processes(LB2, Role::Keeper).is_empty()
    });
    stop(&pair, LB2);
    start(&mut pair, LB2, lbd, version);
    pair.until("lb2 alone holds the VIP again", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 8_000);
    // The other one leaves and comes back: nothing moves.
    let steady = clock::now();
    stop(&pair, LB1);
    start(&mut pair, LB1, lbd, version);
    pair.until_served(3_000, 15_000);
    let moves = pair
        .lab
        .history(|history| history.moves(steady, clock::now()));
    assert_eq!(moves, 0, "{}", pair.report());
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
    // Without warning: the other takes over. keepalived would keep its address for ever.
    if lbd == LB2 {
        let at = pair.signal(LB2, Role::All, Signal::SIGKILL);
        pair.until("lb1 alone holds the VIP", 6_000, |pair| {
            pair.only_holder() == Some(LB1)
        });
        pair.until_served(500, 8_000);
        println!(
            "    gap after kill -9 of all: {} ms",
            pair.gap(at).as_millis()
        );
    }
    let double = pair.double(began);
    println!("    two holders: {} ms", double.as_millis());
    assert!(
        double <= pair.bound(OVERLAP, began),
        "two holders for {double:?}\n{}",
        pair.report()
    );
}

fn start(pair: &mut Pair, node: usize, lbd: usize, version: Version) {
    if node == lbd {
        let vip = match version {
            Version::V2 => SEED,
            Version::V3 => V3,
        };
        pair.start_lbd(node, &lab::config(vip));
    } else {
        pair.start_haproxy(node);
        pair.start_keepalived(node, version);
    }
}

/// Kills what is left of a node that is not in charge.
fn stop(pair: &Pair, node: usize) {
    if !pair.processes(node, Role::All).is_empty() {
        pair.signal(node, Role::All, Signal::SIGKILL);
    }
    pair.until("nothing runs on the node", 5_000, |pair| pair.ended(node));
}
