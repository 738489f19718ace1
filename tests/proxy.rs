//! The data path with real sockets on 127.0.0.1, with one worker and with two.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests panic like tests"
)]

#[path = "proxy/headers.rs"]
mod headers;
#[path = "proxy/lab.rs"]
mod lab;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/relaying.rs"]
mod relaying;
#[path = "proxy/servers.rs"]
mod servers;
#[path = "proxy/stalls.rs"]
mod stalls;
#[path = "proxy/storms.rs"]
mod storms;
#[path = "proxy/timeouts.rs"]
mod timeouts;
#[path = "proxy/traps.rs"]
mod traps;
