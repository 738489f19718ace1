//! What connections leave behind in the real processes: descriptors, pipes, watches, memory,
//! counts. The cases run one at a time. `LBD_LONG=1` makes ten times as many connections,
//! `LBD_CONNECTIONS` as many as it says; with `LBD_SANITIZED`, which tests/sanitize sets, lbd has a
//! sanitizer in it, and nothing is said of memory.
#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

#[path = "leaks/crowd.rs"]
mod crowd;
#[path = "leaks/daemon.rs"]
mod daemon;
#[path = "lab/port.rs"]
mod port;
#[path = "lab/program.rs"]
mod program;
#[path = "leaks/readers.rs"]
mod readers;

use std::env::var;

use crowd::{Crowd, Servers};
use daemon::{Census, Daemon, is_instrumented, wait_until};

/// Connections of the crowd.
fn connections() -> u64 {
    match (var("LBD_CONNECTIONS"), var("LBD_LONG")) {
        (Ok(count), _) => count.parse().unwrap(),
        (Err(_), Ok(_)) => 1_000_000,
        (Err(_), Err(_)) => 100_000,
    }
}

#[test]
fn a_hundred_thousand_connections_of_every_kind_leave_nothing_behind() {
    let _alone = daemon::alone();
    let servers = Servers::start();
    let (config, crowd) = crowd::config(&servers);
    let mut daemon = Daemon::start("crowd", &config);
    daemon.wait_served(3);
    let fresh = daemon.census();
    let count = connections();
    // Slabs, pools and the allocator reach their size.
    let mut asked = run(&crowd, 0, count / 10);
    settled(&daemon, &fresh);
    let warm = daemon.pss();
    asked += run(&crowd, count / 10, count);
    settled(&daemon, &fresh);
    let grown = daemon.pss().saturating_sub(warm);
    if !is_instrumented() {
        assert!(grown <= 768 << 10, "{} KiB more", grown >> 10);
    }
    every_connection_is_counted(&daemon, asked);
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
}

fn run(crowd: &Crowd, from: u64, to: u64) -> u64 {
    crowd.run(from, to)
}

/// Every descriptor, pipe and watch is gone again: spare ones are closed with time.
fn settled(daemon: &Daemon, fresh: &Census) {
    wait_until("what it was before", || {
        let status = daemon.status();
        status.process.connections == 0 && status.proxies.iter().all(|proxy| proxy.queue == 0)
    });
    let mut now = daemon.census();
    let same = daemon::within_patience(|| {
        now = daemon.census();
        now == *fresh
    });
    assert!(same, "before {fresh:#?}\nafter {now:#?}");
}

fn every_connection_is_counted(daemon: &Daemon, asked: u64) {
    let status = daemon.status();
    let mut accepted = 0;
    for proxy in &status.proxies {
        let totals = &proxy.totals;
        let failed: u64 = totals.failed.iter().map(|(_, count)| count).sum();
        assert_eq!(totals.accepted, totals.finished + failed, "{proxy:#?}");
        assert_eq!(proxy.connections, 0);
        for server in &proxy.servers {
            assert_eq!(server.connections, 0, "{proxy:#?}");
        }
        accepted += totals.accepted;
    }
    assert_eq!(accepted, asked);
    let mixed = &status.proxies[0];
    let failed = |reason: &str| {
        let found = |proxy: &lbd::admin::status::ProxyStatus| -> u64 {
            let failed = proxy.totals.failed.iter();
            failed
                .filter(|(name, _)| name == reason)
                .map(|(_, count)| count)
                .sum()
        };
        status.proxies.iter().map(found).sum::<u64>()
    };
    // Each kind did what it was meant to.
    assert!(mixed.totals.bytes_spliced > 0);
    assert!(mixed.servers[1].connect_errors > 0, "{mixed:#?}");
    for reason in ["client-left", "unreachable", "client-abort", "server-abort"] {
        assert!(failed(reason) > 0, "{reason} {status:#?}");
    }
}
