//! Adverts that get lost: at random, and in one direction. nftables drops them on the receiving
//! host, before its raw sockets.

use std::process::Command;
use std::time::Duration;

use lbd::net::clock;

use super::floods::transitions;
use super::forge::LB2 as LB2_IP;
use super::lab::cases::Case;
use super::lab::scenario::{Stack, V3_100MS, pair};
use super::lab::{LB1, LB2, Pair};
use super::tap::Tap;
use super::{pass, seconds};

pub const CASES: &[Case] = &[
    (
        "a_third_of_the_adverts_lost_moves_nothing_at_100_ms",
        &["nft"],
        a_third,
    ),
    (
        "adverts_lost_one_way_end_with_one_holder_once_they_arrive_again",
        &["nft"],
        one_way,
    ),
];

fn a_third() {
    let pair = pair(Stack::Lbd, &V3_100MS);
    let tap = Tap::start(&pair);
    let (before, at) = (transitions(&pair), clock::now());
    for node in [LB1, LB2] {
        drop_adverts(&pair, node, "numgen random mod 3 0");
    }
    let time = seconds(15, 60);
    pass(time, || format!("{:?} transitions", transitions(&pair)));
    let moves = pair.lab.history(|history| history.moves(at, clock::now()));
    let lost = dropped(&pair, LB1);
    let sent = tap.of(LB2_IP).len();
    println!(
        "    {lost} of {sent} adverts lost, {moves} moves; {}",
        tap.spacing(LB2_IP).describe()
    );
    let share = lost * 100 / sent;
    assert!((20..=45).contains(&share), "{share} % lost");
    assert_eq!(moves, 0, "{}", pair.report());
    assert_eq!(transitions(&pair), before, "{}", pair.report());
    let counts = pair.client().tally(|tally| tally.counts(at, clock::now()));
    assert_eq!(counts.failed(), 0, "{counts:?}");
}

fn one_way() {
    let pair = pair(Stack::Lbd, &V3_100MS);
    let at = clock::now();
    // lb1 hears nothing, lb2 everything.
    drop_adverts(&pair, LB1, "ip saddr 172.16.0.3");
    pair.until("lb1 takes over", 3_000, |pair| pair.holds(LB1));
    pass(Duration::from_secs(3), String::new);
    let both = pair.double(at);
    println!(
        "    two holders for {} ms of 3 s without a peer channel",
        both.as_millis()
    );
    let mended = clock::now();
    nft(&pair, LB1, "flush ruleset");
    pair.until("one node holds the VIP", 3_000, |pair| {
        pair.only_holder().is_some()
    });
    println!(
        "    one holder {} ms after the repair",
        (clock::now() - mended).as_millis()
    );
    pair.until_served(500, 5_000);
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
    let gap = pair.gap(mended);
    println!("    gap after the repair: {} ms", gap.as_millis());
    let bound = pair.bound(Duration::from_millis(150), mended);
    assert!(gap <= bound, "{gap:?}, more than {bound:?}");
}

/// Has a host drop adverts that match, and count them.
fn drop_adverts(pair: &Pair, node: usize, matching: &str) {
    nft(
        pair,
        node,
        &format!(
            "table inet loss {{ chain in {{ type filter hook input priority 0; \
             ip protocol 112 {matching} counter drop; }}; }}"
        ),
    );
}

fn dropped(pair: &Pair, node: usize) -> usize {
    let rules = nft(pair, node, "list ruleset");
    let after = rules.split("packets ").nth(1).expect("a counter");
    let count = after.split(' ').next().expect("a number");
    count.parse().expect("a number")
}

/// Runs nft on a host.
fn nft(pair: &Pair, node: usize, line: &str) -> String {
    let host = &pair.lab.nodes[node].host;
    let output = host.run(|| Command::new("nft").arg(line).output());
    let output = output.and_then(|output| output).expect("nft runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Has a host refuse its own connections to the servers, or no longer.
pub fn cut_off_servers(pair: &Pair, node: usize) {
    nft(
        pair,
        node,
        "table inet cut { chain out { type filter hook output priority 0; \
         ip daddr 172.16.0.4-172.16.0.6 tcp dport 6443 reject with tcp reset; }; }",
    );
}
