//! lbd: a high-availability TCP load balancer for Kubernetes API servers. One binary runs VRRP,
//! which claims a virtual IP, beside an L4 proxy with health checks.
//!
//! The components, each allowed to name only what stands left of it (`tests/tidy.rs` checks):
//!
//! ```text
//! units ← config ← import, net, ipc, metrics ← log ← health ← discovery ← proxy ← track ← vrrp ← peer ← admin ← daemon ← cli ← main
//! ```

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod health;
pub mod import;
pub mod ipc;
pub mod log;
pub mod metrics;
pub mod net;
pub mod peer;
pub mod proxy;
pub mod recorder;
pub mod track;
pub mod units;
pub mod vrrp;
