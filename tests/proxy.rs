//! The data path with real sockets on 127.0.0.1, with one worker and with two.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests panic like tests"
)]

#[path = "proxy/balancing.rs"]
mod balancing;
#[path = "proxy/capacity.rs"]
mod capacity;
#[path = "proxy/evidence.rs"]
mod evidence;
#[path = "proxy/fairness.rs"]
mod fairness;
#[path = "proxy/headers.rs"]
mod headers;
#[path = "proxy/hedge_storms.rs"]
mod hedge_storms;
#[path = "proxy/hedging.rs"]
mod hedging;
#[path = "proxy/lab.rs"]
mod lab;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/manners.rs"]
mod manners;
#[path = "proxy/mixture.rs"]
mod mixture;
#[path = "lab/noise.rs"]
mod noise;
#[path = "proxy/rebalancing.rs"]
mod rebalancing;
#[path = "proxy/relaying.rs"]
mod relaying;
#[path = "proxy/reload.rs"]
mod reload;
#[path = "proxy/resets.rs"]
mod resets;
#[path = "proxy/servers.rs"]
mod servers;
#[path = "proxy/sources.rs"]
mod sources;
#[path = "proxy/spread.rs"]
mod spread;
#[path = "proxy/stalls.rs"]
mod stalls;
#[path = "proxy/storms.rs"]
mod storms;
#[path = "proxy/streams.rs"]
mod streams;
#[path = "proxy/timeouts.rs"]
mod timeouts;
#[path = "proxy/traps.rs"]
mod traps;
#[path = "proxy/verdicts.rs"]
mod verdicts;
