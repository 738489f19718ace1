//! lbd on both nodes, with the seed's settings: version 2, an advert each second, a password.
//! lb2 (priority 110) is in charge at the start; a Backup waits 3.6 s for a silent Active.

use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::lab::cases::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};

/// Two nodes may both hold the VIP for this long at a hand-over: make before break.
const OVERLAP: Duration = Duration::from_millis(200);
/// The address of a node that is dead as a whole is gone after this: lease (2 s) + 0.6 s.
const LEASE: Duration = Duration::from_millis(2600);
/// A Backup has taken over from a silent Active by then: 3 intervals + Skew_Time + slack.
const TAKE_OVER_MS: u64 = 4500;

pub const CASES: &[Case] = &[
    (
        "exactly_one_node_takes_the_vip_and_every_connection_is_served_from_then_on",
        &[],
        start,
    ),
    (
        "a_planned_leave_hands_the_vip_over_without_a_refused_connection",
        &[],
        planned_leave,
    ),
    ("a_killed_keeper_loses_the_vip_by_lease", &[], keeper_killed),
    (
        "a_stopped_keeper_loses_the_vip_by_lease_and_yields_when_it_goes_on",
        &[],
        keeper_stopped,
    ),
    (
        "a_node_killed_as_a_whole_loses_the_vip_by_lease_and_returns",
        &[],
        all_killed_and_return,
    ),
    (
        "a_node_stopped_as_a_whole_loses_the_vip_by_lease_and_yields_when_it_goes_on",
        &[],
        all_stopped,
    ),
    (
        "a_node_without_a_cable_gives_up_and_takes_the_vip_back_later",
        &[],
        link_down_and_return,
    ),
];

fn pair() -> Pair {
    Pair::of_lbd(&lab::config(SEED))
}

fn no_longer_than(what: &str, bound: Duration, seen: Duration, pair: &Pair) {
    println!("    {what}: {} ms", seen.as_millis());
    assert!(
        seen <= bound,
        "{what}: {seen:?}, more than {bound:?}\n{}",
        pair.report()
    );
}

/// The client's gap, with what a busy machine adds to it.
fn gap_no_longer_than(bound_ms: u64, since: Instant, pair: &Pair) {
    let bound = pair.bound(Duration::from_millis(bound_ms), since);
    no_longer_than("gap", bound, pair.gap(since), pair);
}

fn one_holder(pair: &Pair, since: Instant) {
    let bound = pair.bound(OVERLAP, since);
    no_longer_than("two holders", bound, pair.double(since), pair);
}

fn refused(pair: &Pair, since: Instant) -> usize {
    let counts = pair
        .client()
        .tally(|tally| tally.counts(since, clock::now()));
    println!("    {counts:?}");
    counts.refused
}

fn lb1_takes_over(pair: &Pair, within_ms: u64) {
    pair.until("lb1 alone holds the VIP", within_ms, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 5_000);
}

fn start() {
    let began = clock::now();
    let mut pair = Pair::new();
    let config = lab::config(SEED);
    pair.start_lbd(LB1, &config);
    pair.start_lbd(LB2, &config);
    pair.until("a node holds the VIP", 15_000, |pair| {
        pair.holds(LB1) || pair.holds(LB2)
    });
    let held = clock::now();
    pair.start_client();
    pair.until_served(1_000, 10_000);
    let counts = pair
        .client()
        .tally(|tally| tally.counts(held, clock::now()));
    assert_eq!(counts.failed(), 0, "{counts:?}\n{}", pair.report());
    pair.until("lb2 alone holds the VIP", 15_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    one_holder(&pair, began);
}

fn planned_leave() {
    let pair = pair();
    let at = pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    lb1_takes_over(&pair, 3_000);
    pair.until("lb2's processes are gone", 15_000, |pair| {
        pair.ended(LB2) && pair.processes(LB2, Role::All).is_empty()
    });
    assert_eq!(refused(&pair, at), 0, "{}", pair.report());
    gap_no_longer_than(100, at, &pair);
    one_holder(&pair, at);
}

fn keeper_killed() {
    let pair = pair();
    let at = pair.signal(LB2, Role::Keeper, Signal::SIGKILL);
    pair.until("lb2's address is gone", 3_000, |pair| !pair.holds(LB2));
    no_longer_than("lb2 kept it", LEASE, pair.held_after(LB2, at), &pair);
    lb1_takes_over(&pair, TAKE_OVER_MS);
    one_holder(&pair, at);
}

fn keeper_stopped() {
    let pair = pair();
    let at = pair.signal(LB2, Role::Keeper, Signal::SIGSTOP);
    pair.until("lb2's address is gone", 3_000, |pair| !pair.holds(LB2));
    no_longer_than("lb2 kept it", LEASE, pair.held_after(LB2, at), &pair);
    lb1_takes_over(&pair, TAKE_OVER_MS);
    pair.signal(LB2, Role::Keeper, Signal::SIGCONT);
    pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
    one_holder(&pair, at);
}

fn all_killed_and_return() {
    let mut pair = pair();
    let at = pair.signal(LB2, Role::All, Signal::SIGKILL);
    pair.until("lb2's address is gone", 3_000, |pair| !pair.holds(LB2));
    no_longer_than("lb2 kept it", LEASE, pair.held_after(LB2, at), &pair);
    lb1_takes_over(&pair, TAKE_OVER_MS);
    one_holder(&pair, at);
    let back = clock::now();
    pair.until("lb2 runs nothing", 1_000, |pair| pair.ended(LB2));
    pair.start_lbd(LB2, &lab::config(SEED));
    pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
    one_holder(&pair, back);
    gap_no_longer_than(200, back, &pair);
}

fn all_stopped() {
    let pair = pair();
    let at = pair.signal(LB2, Role::All, Signal::SIGSTOP);
    pair.until("lb2's address is gone", 3_000, |pair| !pair.holds(LB2));
    no_longer_than("lb2 kept it", LEASE, pair.held_after(LB2, at), &pair);
    lb1_takes_over(&pair, TAKE_OVER_MS);
    pair.signal(LB2, Role::All, Signal::SIGCONT);
    pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
    one_holder(&pair, at);
}

fn link_down_and_return() {
    let mut pair = pair();
    let at = pair.plug(LB2, false);
    pair.until("lb2 gives the address up", 3_000, |pair| !pair.holds(LB2));
    lb1_takes_over(&pair, TAKE_OVER_MS);
    one_holder(&pair, at);
    let back = pair.plug(LB2, true);
    pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
    one_holder(&pair, back);
}
