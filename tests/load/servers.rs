//! Servers that come and go, for both nodes and for one.

use std::time::Duration;

use lbd::net::clock;

use super::floods::transitions;
use super::forge::LB2 as LB2_IP;
use super::lab::cases::Case;
use super::lab::scenario::{Stack, V2_1S, V3_100MS, pair};
use super::lab::{LB1, LB2, Pair};
use super::loss::cut_off_servers;
use super::tap::Tap;
use super::{is_long, pass};

pub const CASES: &[Case] = &[
    (
        "all_servers_off_and_on_again_and_again_moves_nothing",
        &[],
        off_and_on,
    ),
    (
        "a_node_that_loses_its_servers_is_replaced_within_skew_time",
        &["nft"],
        || {
            // (256 − 100) / 256 s.
            one_loses(&V2_1S, Duration::from_millis(609));
            one_loses(&V3_100MS, Duration::from_millis(61));
        },
    ),
];

fn off_and_on() {
    let mut pair = pair(Stack::Lbd, &V3_100MS);
    let (began, before) = (clock::now(), transitions(&pair));
    let rounds = if is_long() { 20 } else { 4 };
    for round in 1..=rounds {
        pair.lab.stop_servers();
        usable_everywhere(&pair, 0);
        // Not always the same moment of the checks.
        pass(Duration::from_millis(190) * (round % 4), String::new);
        on(&mut pair);
        usable_everywhere(&pair, 3);
        pair.until_fit(LB1);
        pair.until_fit(LB2);
        if is_long() {
            println!(
                "    {round} of {rounds}: {:?} transitions",
                transitions(&pair)
            );
        }
    }
    pair.until_served(500, 10_000);
    let moves = pair
        .lab
        .history(|history| history.moves(began, clock::now()));
    let double = pair.double(began);
    println!("    {moves} moves, two holders {} ms", double.as_millis());
    assert_eq!(moves, 0, "{}", pair.report());
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
    let after = transitions(&pair);
    println!("    transitions before {before:?}, after {after:?}");
    assert_eq!(after[LB1], before[LB1], "{}", pair.report());
}

/// Waits until each node counts so many servers as usable.
fn usable_everywhere(pair: &Pair, count: u64) {
    for node in [LB1, LB2] {
        pair.until("every node has noticed", 15_000, |pair| {
            pair.metric(node, "lbd_proxy_usable_servers{") == Some(count)
        });
    }
}

/// The address may still be bound for a moment.
fn on(pair: &mut Pair) {
    let end = clock::now() + Duration::from_secs(5);
    while let Err(error) = pair.lab.start_servers() {
        assert!(clock::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn one_loses(setup: &super::lab::scenario::Setup, skew: Duration) {
    let pair = pair(Stack::Lbd, setup);
    let tap = Tap::start(&pair);
    let at = clock::now();
    let wall = clock::wall();
    cut_off_servers(&pair, LB2);
    pair.until("lb1 alone holds the VIP", 10_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    let took = clock::now() - at;
    pair.until_served(500, 5_000);
    let adverts = tap.of(LB2_IP);
    let resigned = adverts
        .iter()
        .find(|advert| advert.priority == 0)
        .expect("it resigned");
    let began = wall
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    // The holders are looked up each 10 ms.
    let taken = pair
        .lab
        .history(|history| history.last_change_of(LB1))
        .expect("it holds");
    let after = (began + (taken - at)).saturating_sub(resigned.at);
    println!(
        "    {}: lb1 holds it {} ms after lb2 resigned (Skew_Time {} ms), {} ms after the servers \
         were lost; gap {} ms",
        setup.word,
        after.as_millis(),
        skew.as_millis(),
        took.as_millis(),
        pair.gap(at).as_millis()
    );
    let bound = skew + pair.bound(Duration::from_millis(100), at);
    assert!(
        after <= bound,
        "{after:?}, more than {bound:?}\n{}",
        pair.report()
    );
    assert!(
        pair.double(at) <= pair.bound(Duration::from_millis(200), at),
        "{}",
        pair.report()
    );
}
