//! What docs/upgrade.md and docs/reload.md say in numbers: restarts, upgrades and reloads of the
//! active node, lbd beside keepalived + HAProxy in the same laboratory under the same load, in turn.
//! `LBD_BINARY=target/release/lbd LBD_ROUNDS=5 cargo test --test manager -- measured`

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbd::cli::demo::client::{Client, Habits};
use lbd::net::clock;
use nix::sys::signal::{Signal, kill};

use super::faults::{Managed, wait};
use super::lab::cases::Case;
use super::lab::peers::{HAPROXY_CFG, Version};
use super::lab::{self, LB2, Pair, Role, SEED};
use super::upgrades::{lost, upgrade};

const RIVALS: &[&str] = &["keepalived", "haproxy"];

pub const CASES: &[Case] = &[
    ("measured_restarts_and_upgrades", RIVALS, restarts),
    ("measured_reloads", RIVALS, reloads),
    (
        "an_upgrade_between_two_versions_loses_no_connection_either_way",
        &[],
        versions,
    ),
];

/// How often each is done: none without `$LBD_ROUNDS`.
fn rounds() -> usize {
    let rounds = std::env::var("LBD_ROUNDS").ok();
    let rounds = rounds.map_or(0, |rounds| rounds.parse().expect("LBD_ROUNDS: a number"));
    if rounds == 0 {
        println!("    nothing is measured: LBD_ROUNDS=N asks for it");
    }
    rounds
}

/// What the client of one round saw.
#[derive(Debug, Clone, Copy)]
struct Round {
    gap: Duration,
    calm: Duration,
    refused: usize,
    timed_out: usize,
    reset: usize,
    lost: usize,
    moves: usize,
}

impl Round {
    fn seen(pair: &Pair, at: Instant) -> Self {
        let now = clock::now();
        let counts = pair.client().tally(|tally| tally.counts(at, now));
        let round = Self {
            gap: pair.gap(at),
            calm: pair.slack() / 3,
            refused: counts.refused,
            timed_out: counts.timed_out,
            reset: counts.cut,
            lost: pair.client().tally(|tally| tally.lost_since(at)),
            moves: pair.lab.history(|history| history.moves(at, now)),
        };
        println!("    {round:?}");
        round
    }
}

/// lb2 has the VIP (again), and clients are served.
fn settled(pair: &Pair) {
    pair.until("lb2 has the VIP again", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 15_000);
}

fn restart_lbd() -> Round {
    let lb = Managed::start();
    let at = clock::now();
    lb.service.restart();
    wait("READY=1", 10_000, || {
        lb.service.said_since(at, "READY=1") == 1
    });
    settled(&lb.pair);
    Round::seen(&lb.pair, at)
}

fn upgrade_lbd() -> Round {
    let lb = Managed::start();
    lb.service.install(&lab::lbd());
    let at = clock::now();
    upgrade(&lb);
    settled(&lb.pair);
    Round::seen(&lb.pair, at)
}

/// As `systemctl restart haproxy` and then `systemctl restart keepalived` do it: each is told to end,
/// and started once it has.
fn restart_rivals() -> Round {
    let mut pair = Pair::of_rivals();
    let at = clock::now();
    for role in [Role::Proxy, Role::Keeper] {
        pair.signal(LB2, role, Signal::SIGTERM);
        pair.until("it has ended", 30_000, |pair| {
            pair.ended(LB2);
            pair.processes(LB2, role).is_empty()
        });
        match role {
            Role::Proxy => pair.start_haproxy_master(LB2),
            Role::Keeper | Role::All => pair.start_keepalived(LB2, Version::V2),
        }
    }
    // keepalived gives the VIP up and takes it back: not before both.
    settled(&pair);
    Round::seen(&pair, at)
}

/// Its name, and how a round of it goes.
type Kind = (&'static str, fn() -> Round);

fn restarts() {
    let kinds: [Kind; 3] = [
        ("`lbd upgrade`", upgrade_lbd),
        ("`systemctl restart lbd`", restart_lbd),
        ("`systemctl restart haproxy keepalived`", restart_rivals),
    ];
    let mut seen: [Vec<Round>; 3] = Default::default();
    for _ in 0..rounds() {
        for ((name, run), seen) in kinds.iter().zip(&mut seen) {
            println!("    {name}");
            seen.push(run());
        }
    }
    if seen[0].is_empty() {
        return;
    }
    println!(
        "| on the active node | gap | refused | timed out | reset | long-lived | moves | calm |"
    );
    for ((name, _), seen) in kinds.iter().zip(&seen) {
        let ms = |of: fn(&Round) -> Duration| {
            let (median, worst) = spread(seen.iter().map(of));
            format!("{} / {} ms", median.as_millis(), worst.as_millis())
        };
        let count = |of: fn(&Round) -> usize| {
            let (median, worst) = spread(seen.iter().map(of));
            format!("{median} / {worst}")
        };
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} |",
            ms(|round| round.gap),
            count(|round| round.refused),
            count(|round| round.timed_out),
            count(|round| round.reset),
            count(|round| round.lost),
            count(|round| round.moves),
            ms(|round| round.calm),
        );
    }
}

/// Median (the lower of two) and largest.
fn spread<T: Ord + Copy>(values: impl Iterator<Item = T>) -> (T, T) {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let last = values.len() - 1;
    (values[last / 2], values[last])
}

/// 300 connections a second, and 50 long-lived ones.
fn crowd(pair: &Pair) -> Client {
    let habits = Habits {
        target: "172.16.0.10:6443".parse().expect("an address"),
        interval: Duration::from_micros(3_333),
        timeout: Duration::from_secs(5),
        held: 50,
        held_interval: Duration::from_millis(250),
        servers: pair.lab.server_names.clone(),
    };
    let tls = Arc::clone(&pair.lab.tls.client);
    Client::start(&pair.lab.client, habits, tls).expect("the client starts")
}

fn pause(ms: u64) {
    let end = clock::now() + Duration::from_millis(ms);
    wait("time", ms + 5_000, || clock::now() >= end);
}

/// Twenty reloads, and one while a server can't be reached; `reload` is given its number.
fn reloaded(name: &str, pair: &mut Pair, reload: &dyn Fn(&Pair, usize)) {
    let client = crowd(pair);
    pause(3_000);
    let calm = clock::now();
    pause(2_000);
    let at = clock::now();
    for number in 1..=20 {
        reload(pair, number);
        pause(250);
    }
    pause(1_000);
    let now = clock::now();
    let (quiet, counts) = client.tally(|tally| (tally.counts(calm, at), tally.counts(at, now)));
    let slowest = client.tally(|tally| (tally.slowest(calm, at), tally.slowest(at, now)));
    let broken = client.tally(|tally| tally.lost_since(at));
    let processes = pair.processes(LB2, Role::Proxy).len();
    println!(
        "    {name}: before {quiet:?}, during {counts:?} in {:?}",
        now - at
    );
    println!("    {name}: slowest before, during {slowest:?}, streams broken {broken}");
    println!("    {name}: proxy processes afterwards {processes}");
    drop(client);
    // A server vanishes; once its check has failed nobody is sent there.
    pair.lab
        .wire
        .plug("server1", false)
        .expect("the cable is there");
    pair.until_served(2_000, 60_000);
    let at = clock::now();
    reload(pair, 21);
    pause(5_000);
    let now = clock::now();
    let counts = pair.client().tally(|tally| tally.counts(at, now));
    println!("    {name}: a reload while a server is down, 5 s: {counts:?}");
}

fn reloads() {
    for _ in 0..rounds() {
        let text = |number: usize| {
            let limit = format!("max-connections = {}", 250 + number % 2);
            lab::config(SEED).replace("max-connections = 250", &limit)
        };
        let Managed { service, mut pair } = Managed::start();
        reloaded("lbd", &mut pair, &|pair, number| {
            let done = service.reload(&text(number));
            assert!(done.status.success(), "{done:?}\n{}", pair.report());
        });
        drop((service, pair));
        let mut pair = Pair::of_rivals();
        reloaded("HAProxy", &mut pair, &|pair, number| {
            let text = HAPROXY_CFG.replace("maxconn 250", &format!("maxconn {}", 250 + number % 2));
            let host = &pair.lab.nodes[LB2].host;
            let loaded = |pair: &Pair| {
                let log = pair.lab.nodes[LB2].log().unwrap_or_default();
                log.matches("Loading success").count()
            };
            let before = loaded(pair);
            let written = host.run(|| std::fs::write("/run/lbd/haproxy.cfg", text));
            written
                .expect("the host is there")
                .expect("it can be written");
            // The Debian unit's ExecReload: SIGUSR2 to the master, the first process. It loses one
            // that comes before it is done with the last.
            let master = pair.processes(LB2, Role::Proxy)[0];
            kill(master, Signal::SIGUSR2).expect("it runs");
            pair.until("it is reloaded", 10_000, |pair| loaded(pair) > before);
        });
    }
}

/// From the program under test to `$LBD_OTHER`, and back.
fn versions() {
    let Some(other) = std::env::var_os("LBD_OTHER").map(PathBuf::from) else {
        println!("    skipped: LBD_OTHER names no program of another version");
        return;
    };
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output();
        let output = output.expect("it runs").stdout;
        let text = String::from_utf8_lossy(&output).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let present = lab::lbd();
    assert_ne!(version(&present), version(&other));
    let lb = Managed::start();
    let keeper = lb.service.main_pid();
    for (round, program) in [&other, &present].into_iter().enumerate() {
        lb.service.install(program);
        let at = clock::now();
        let said = upgrade(&lb);
        println!("    to {}: {}", version(program), said.trim());
        lb.pair.until_served(500, 5_000);
        assert_eq!(lb.log().matches("keeper replaced from").count(), round + 1);
        assert_eq!(lb.service.main_pid(), keeper);
        lb.stays(at);
        assert_eq!(lb.refused(at), 0, "{}", lb.pair.report());
        assert_eq!(lb.failed(at), 0, "{}", lb.pair.report());
        assert_eq!(lost(&lb, at), 0, "{}", lb.pair.report());
        let told = version(program);
        let number = told.split(' ').nth(1).expect("a number");
        let mut command = Command::new(&present);
        command.args(["status", "-o", "json", "--socket", "/run/lbd/admin.sock"]);
        let status = lb.pair.lab.nodes[LB2].host.run(|| command.output());
        let status = status.expect("the host is there").expect("lbd runs");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains(&format!("\"{number}\"")), "{status}");
        lb.gap_within(100, at);
    }
}
