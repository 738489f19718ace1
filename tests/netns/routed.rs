//! `announce = "route"`: two load balancers and Debian's FRR, a router that spreads connections
//! over those that announce the address (ECMP).

use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Case;
use super::routed_lab::{CALL_TIMEOUT as PATIENCE, LB1, LB2, Routed, ask};

pub const CASES: &[Case] = &[(
    "a_route_is_announced_joined_withdrawn_and_lost_with_the_nodes_ability_to_serve",
    &["vtysh", "ip"],
    routed,
)];

/// lease (2 s) + 0.6 s.
const LEASE: Duration = Duration::from_millis(2_600);

fn keeper(lab: &Routed, node: usize) -> Pid {
    let processes = lab.nodes[node].host.processes().unwrap();
    let keeper = processes.iter().find(|process| {
        let command = &process.command;
        let is_lbd = command.first().is_some_and(|name| name.ends_with("/lbd"));
        is_lbd && command.iter().any(|argument| argument == "--config")
    });
    keeper.expect("a keeper runs").pid
}

fn send(lab: &Routed, node: usize, signal: Signal) -> Instant {
    let pid = keeper(lab, node);
    let at = clock::now();
    kill(pid, signal).unwrap();
    at
}

fn ms(from: Instant, to: Instant) -> u128 {
    to.saturating_duration_since(from).as_millis()
}

/// What the client saw since then, attempts that are still waiting included.
fn tell(lab: &Routed, what: &str, since: Instant) -> usize {
    let now = clock::now();
    lab.until("the client goes on", 5_000, |lab| {
        let served: usize = lab.used(now + PATIENCE).iter().sum();
        served > 10
    });
    let (all, failed, gap) = lab.tally(since);
    println!(
        "    {what}: {failed} of {all} attempts failed, gap {} ms",
        gap.as_millis()
    );
    failed
}

fn routed() {
    let mut lab = Routed::new();
    announced(&mut lab);
    joined(&mut lab);
    stopped(&mut lab);
    hung(&lab);
    without_servers(&lab);
    put_back(&lab);
}

fn announced(lab: &mut Routed) {
    let start = clock::now();
    lab.start_lbd(LB1);
    let held = lab.until("lb1 has the address", 10_000, |lab| lab.holds(LB1));
    let known = lab.until("the router knows lb1", 10_000, |lab| {
        lab.next_hops() == [LB1]
    });
    println!(
        "    announce: address {} ms after lbd's start, first route of FRR {} ms later",
        ms(start, held),
        ms(held, known)
    );
    assert!(
        lab.status(LB1).contains("announced for "),
        "{}",
        lab.report()
    );
    lab.start_client();
    let since = clock::now();
    lab.until("the client is served by lb1", 5_000, |lab| {
        lab.used(since)[LB1] > 50
    });
}

fn joined(lab: &mut Routed) {
    let start = clock::now();
    lab.start_lbd(LB2);
    let held = lab.until("lb2 has the address", 10_000, |lab| lab.holds(LB2));
    let both = lab.until("the router sends to both", 10_000, |lab| {
        lab.next_hops() == [LB1, LB2]
    });
    println!(
        "    join: second next hop {} ms after the address",
        ms(held, both)
    );
    lab.until("both serve", 5_000, |lab| {
        lab.used(both).iter().all(|served| *served > 25)
    });
    // Connections that the router moves in the middle are reset by the node they come to.
    let failed = tell(lab, "join", start);
    assert!(
        failed <= lab.at_most(5, start),
        "{failed}\n{}",
        lab.report()
    );
}

/// New connections don't notice; those that stay are served until the router sends them elsewhere.
fn stopped(lab: &mut Routed) {
    let mut stays = (0..50)
        .map(|_| lab.dial())
        .find_map(|mut stream| (ask(&mut stream).ok() == Some(LB2)).then_some(stream))
        .expect("some connection goes through lb2");
    let at = send(lab, LB2, Signal::SIGTERM);
    let gone = lab.until("lb2's address is gone", 2_000, |lab| !lab.holds(LB2));
    let alone = lab.until("the router sends to lb1 alone", 5_000, |lab| {
        lab.next_hops() == [LB1]
    });
    println!(
        "    planned stop: address gone after {} ms, route {} ms later",
        ms(at, gone),
        ms(gone, alone)
    );
    assert!(
        lab.local_routes(LB2).contains("10.1.1.10"),
        "{}",
        lab.local_routes(LB2)
    );
    // The router sends it to lb1, which knows nothing of it.
    assert!(ask(&mut stays).is_err());
    lab.until("lb2's lbd has ended", 10_000, |lab| {
        let all = lab.nodes[LB2].host.processes().unwrap();
        !all.iter()
            .any(|process| process.command.iter().any(|a| a == "--config"))
    });
    assert_eq!(lab.local_routes(LB2), "");
    let failed = tell(lab, "planned stop", at);
    assert!(failed <= lab.at_most(2, at), "{failed}\n{}", lab.report());
    lab.start_lbd(LB2);
    lab.until("both again", 10_000, |lab| lab.next_hops() == [LB1, LB2]);
}

/// A keeper that hangs withdraws by the kernel's hand; its proxy serves on until then.
fn hung(lab: &Routed) {
    let at = send(lab, LB2, Signal::SIGSTOP);
    let gone = lab.until("lb2's address is gone", 4_000, |lab| !lab.holds(LB2));
    let alone = lab.until("the router sends to lb1 alone", 5_000, |lab| {
        lab.next_hops() == [LB1]
    });
    println!(
        "    hung: address gone after {} ms, route {} ms later",
        ms(at, gone),
        ms(gone, alone)
    );
    assert!(gone - at <= LEASE, "{}", lab.report());
    tell(lab, "hung", at);
    let on = send(lab, LB2, Signal::SIGCONT);
    let both = lab.until("both again", 10_000, |lab| lab.next_hops() == [LB1, LB2]);
    println!("    goes on: announced again after {} ms", ms(on, both));
}

/// One node loses its server, the other has it.
fn without_servers(lab: &Routed) {
    let at = clock::now();
    lab.server_reachable(LB1, false);
    let gone = lab.until("lb1 withdraws", 5_000, |lab| !lab.holds(LB1));
    let alone = lab.until("the router sends to lb2 alone", 5_000, |lab| {
        lab.next_hops() == [LB2]
    });
    println!(
        "    servers lost: address gone after {} ms, route {} ms later",
        ms(at, gone),
        ms(gone, alone)
    );
    tell(lab, "servers lost", at);
    assert!(
        lab.status(LB1).contains("this node can't serve"),
        "{}",
        lab.status(LB1)
    );
    let quiet = clock::now();
    lab.until("lb2 serves alone", 5_000, |lab| lab.used(quiet)[LB2] > 100);
    let failed = tell(lab, "lb2 alone", quiet);
    assert_eq!(failed, 0, "{}", lab.report());
    let back = clock::now();
    lab.server_reachable(LB1, true);
    let both = lab.until("both again", 10_000, |lab| lab.next_hops() == [LB1, LB2]);
    println!("    servers back: both after {} ms", ms(back, both));
}

fn put_back(lab: &Routed) {
    let mut rtnl = lab.nodes[LB1].host.rtnl().unwrap();
    let lo = rtnl.link_index("lo").unwrap();
    let at = clock::now();
    rtnl.delete_address(lo, super::routed_lab::VIP, 32).unwrap();
    let back = lab.until("the address is back", 1_000, |lab| lab.holds(LB1));
    println!("    deleted by hand: back after {} ms", ms(at, back));
    lab.until("both again", 5_000, |lab| lab.next_hops() == [LB1, LB2]);
    tell(lab, "deleted by hand", at);
}
