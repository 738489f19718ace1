//! All servers pause for a second, as in a snapshot of their hypervisor.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::client::{Attempt, Clients, Habits, PATIENCE};
use super::measure::{Options, together};
use super::place::{LB1, PORT, Place};
use super::table::{maybe, median};
use super::targets::{Running, Target, Wish};

const HELD: usize = 30;

#[derive(Debug, Clone)]
pub struct Seen {
    pub attempts: usize,
    /// New connections that were not answered.
    pub lost: usize,
    pub slowest: Duration,
    pub held: usize,
    /// Established connections that broke.
    pub broken: usize,
}

/// One run.
pub fn measure(target: Target, pause: Duration) -> Seen {
    let place = Place::new(1);
    let _running = Running::start(&place.nodes[0], target, &Wish::default());
    let habits = Habits {
        target: SocketAddr::new(LB1.into(), PORT),
        rate: 100,
        held: HELD,
    };
    let clients = Clients::start(&place.client, habits);
    let end = clock::now() + PATIENCE;
    while clients.look(|record| record.held.len() < HELD) {
        assert!(clock::now() < end, "no {HELD} established clients");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_secs(1));
    let at = clock::now();
    for server in &place.servers {
        server.signal(Signal::SIGSTOP);
    }
    thread::sleep(pause);
    for server in &place.servers {
        server.signal(Signal::SIGCONT);
    }
    // Who is told, is told by then.
    thread::sleep(Duration::from_secs(4));
    let record = clients.finish();
    let within: Vec<&Attempt> = record
        .attempts
        .iter()
        .filter(|attempt| attempt.ended >= at)
        .collect();
    let established = record.held.iter().filter(|held| held.since < at);
    Seen {
        attempts: within.len(),
        lost: within.iter().filter(|attempt| attempt.is_lost()).count(),
        slowest: within
            .iter()
            .map(|attempt| attempt.took())
            .max()
            .unwrap_or_default(),
        held: established.clone().count(),
        broken: established.filter(|held| held.told.is_some()).count(),
    }
}

pub fn table(options: &Options) -> String {
    let mut text = String::from(
        "| all servers pause | | established connections broken | new connections lost | slowest \
         |\n|---|---|---|---|---|\n",
    );
    for ms in [1_000, 3_000] {
        let mut done = Vec::new();
        for round in 1..=options.runs {
            let pause = Duration::from_millis(ms);
            for (target, seen) in together(&options.targets, |target| measure(target, pause)) {
                println!("[{round}] pause {ms} ms {:<15} {seen:?}", target.title());
                done.push((target, seen));
            }
        }
        for target in &options.targets {
            let seen = || {
                done.iter()
                    .filter(|(of, _)| of == target)
                    .map(|(_, seen)| seen)
            };
            let number = |of: fn(&Seen) -> usize| median(seen().map(of)).unwrap_or(0);
            text.push_str(&format!(
                "| {} s | {} | {} of {} | {} of {} | {} |\n",
                ms / 1_000,
                target.title(),
                number(|one| one.broken),
                number(|one| one.held),
                number(|one| one.lost),
                number(|one| one.attempts),
                maybe(median(seen().map(|one| one.slowest)), "–"),
            ));
        }
    }
    text
}
