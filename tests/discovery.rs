//! Sources of servers end to end: the watch against API servers over TLS, and each source in a real
//! daemon under its sandbox.

#![cfg(test)]

#[path = "discovery/api.rs"]
mod api;
#[path = "discovery/daemon.rs"]
mod daemon;
#[path = "lab/port.rs"]
mod port;
#[path = "lab/program.rs"]
mod program;
#[path = "discovery/watch.rs"]
mod watch;

use std::time::Duration;

use lbd::net::clock;

/// Every wait ends after this long, and the test with it.
const PATIENCE: Duration = Duration::from_secs(30);

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
