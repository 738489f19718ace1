//! The service is restarted or upgraded while clients connect: what they notice. lb2, which holds the
//! VIP, is the managed node.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbd::cli::demo::client::{Client, Habits};
use lbd::net::clock;
use nix::sys::signal::{Signal, kill};

use super::faults::{Managed, wait};

use super::lab::cases::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED, V3};
use super::service::Service;

pub const CASES: &[Case] = &[
    (
        "an_upgrade_of_the_active_node_moves_no_vip_and_loses_no_connection",
        &[],
        upgraded,
    ),
    (
        "an_upgrade_at_fast_adverts_hands_over_first",
        &[],
        upgraded_fast,
    ),
    (
        "a_restart_of_the_active_node_hands_the_vip_over_and_refuses_nobody",
        &[],
        restarted,
    ),
    (
        "a_restart_of_a_node_with_proxies_alone_refuses_nobody",
        &[],
        restarted_alone,
    ),
    (
        "a_signal_to_reload_while_an_upgrade_is_under_way_is_obeyed_after_it",
        &[],
        hung_up_meanwhile,
    ),
];

/// `lbd upgrade` on lb2.
pub fn upgrade(lb: &Managed) -> String {
    let mut command = Command::new(lab::lbd());
    command.args(["upgrade", "--socket", "/run/lbd/admin.sock"]);
    let host = &lb.pair.lab.nodes[LB2].host;
    let output = host.run(|| command.output()).expect("the host is there");
    let output = output.expect("lbd runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}\n{}", lb.pair.report());
    said
}

pub fn lost(lb: &Managed, at: Instant) -> usize {
    lb.pair.client().tally(|tally| tally.lost_since(at))
}

fn hung_up_meanwhile() {
    let lb = Managed::start();
    let keeper = lb.service.main_pid().expect("it runs");
    lb.service.install(&lab::lbd());
    kill(keeper, Signal::SIGUSR2).expect("it runs");
    wait("the upgrade to begin", 5_000, || {
        lb.log().contains("upgrade begun")
    });
    kill(keeper, Signal::SIGHUP).expect("it runs");
    wait("the reload", 10_000, || {
        lb.log().contains("configuration reloaded")
    });
    let log = lb.log();
    assert!(log.contains("keeper replaced from"), "{log}");
    assert_eq!(lb.service.main_pid(), Some(keeper));
}

fn upgraded() {
    let lb = Managed::start();
    let (keeper, proxy) = (lb.service.main_pid(), lb.proxy());
    for round in 1..=3 {
        lb.service.install(&lab::lbd());
        let at = clock::now();
        let said = upgrade(&lb);
        println!("    {}", said.lines().next().unwrap_or_default());
        lb.pair.until_served(500, 5_000);
        assert_eq!(lb.log().matches("keeper replaced from").count(), round);
        assert_eq!(lb.service.main_pid(), keeper);
        assert_eq!(lb.service.starts_since(at), 0);
        lb.stays(at);
        assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
        assert_eq!(lb.failed(at), 0, "{}", lb.pair.report());
        assert_eq!(lost(&lb, at), 0, "{}", lb.pair.report());
        lb.gap_within(100, at);
    }
    // The client's long-lived connections keep the first process.
    let now = lb.pair.processes(LB2, Role::Proxy);
    assert!(now.contains(&proxy) && now.len() >= 2, "{now:?}");
    // Longer than lb1 would wait for an advert, and than the watchdog does.
    let end = clock::now() + Duration::from_secs(4);
    wait("four seconds", 5_000, || clock::now() > end);
    assert_eq!(lb.service.main_pid(), keeper, "{}", lb.pair.report());
    assert_eq!(lb.pair.only_holder(), Some(LB2), "{}", lb.pair.report());
}

fn upgraded_fast() {
    let lb = Managed::with(&V3.replace("\"1s\"", "\"20ms\""));
    let at = clock::now();
    upgrade(&lb);
    assert!(
        lb.said("addresses are handed over while"),
        "{}",
        lb.pair.report()
    );
    lb.pair.until("lb2 has the VIP again", 15_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    lb.pair.until_served(500, 5_000);
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    // At this interval a machine that is late by 70 ms moves it once more.
    let missed = lb.pair.lab.nodes.iter().any(|node| {
        let log = node.log().unwrap_or_default();
        log.contains("the active node fell silent")
    });
    let moves = lb.moves(at);
    assert!(moves == 2 || missed && moves > 2, "{}", lb.pair.report());
    // Two moves of the address, make before break.
    lb.gap_within(200, at);
    lb.one_holder(at);
}

fn restarted() {
    let lb = Managed::start();
    let at = clock::now();
    lb.service.restart();
    lb.pair.until("lb2 has the VIP again", 15_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    lb.pair.until_served(500, 5_000);
    println!("    long-lived connections lost: {}", lost(&lb, at));
    // What was under way when the address moved is reset; nobody is refused.
    assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
    let failed = lb.failed(at);
    assert!(failed <= 10, "{failed} failed\n{}", lb.pair.report());
    assert_eq!(lb.moves(at), 2, "{}", lb.pair.report());
    lb.gap_within(200, at);
    lb.one_holder(at);
}

fn restarted_alone() {
    let text = lab::config(SEED);
    let (before, rest) = text.split_once("[vip.").expect("a VIP");
    let (_, proxy) = rest.split_once("[proxy.").expect("a proxy");
    let config = format!("{before}[proxy.{proxy}");
    let pair = Pair::new();
    let began = clock::now();
    let node = &pair.lab.nodes[LB2];
    let service = Service::start(&node.host, &config);
    wait("READY=1", 10_000, || {
        service.said_since(began, "READY=1") == 1
    });
    let sockets = service.kept();
    assert!(sockets > 0, "no socket is kept");
    // The servers' certificate is for this address.
    let mut rtnl = node.host.rtnl().expect("a socket");
    let link = rtnl.link_index("eth0").expect("the interface is there");
    let address = "172.16.0.10".parse().expect("an address");
    rtnl.add_address(link, address, 24).expect("it is free");
    let habits = Habits {
        target: "172.16.0.10:6443".parse().expect("an address"),
        interval: Duration::from_millis(5),
        timeout: Duration::from_secs(3),
        held: 0,
        held_interval: Duration::from_millis(50),
        servers: pair.lab.server_names.clone(),
    };
    let client = Client::start(&pair.lab.client, habits, Arc::clone(&pair.lab.tls.client));
    let client = client.expect("the client starts");
    for _ in 0..3 {
        let at = clock::now();
        let half = at + Duration::from_millis(500);
        wait("half a second", 2_000, || clock::now() > half);
        service.restart();
        wait("READY=1", 10_000, || service.said_since(at, "READY=1") == 1);
        let ready = clock::now();
        wait("twenty answers", 5_000, || {
            client.tally(|tally| tally.counts(ready, clock::now()).served > 20)
        });
        let (counts, gap) = client.tally(|tally| {
            let now = clock::now();
            (tally.counts(at, now), tally.longest_gap(at, now))
        });
        println!("    {counts:?}, gap {} ms", gap.as_millis());
        assert_eq!(counts.failed(), 0, "{counts:?}\n{}", pair.report());
        assert_eq!(service.kept(), sockets);
    }
    assert_eq!(pair.processes(LB1, Role::All), []);
}
