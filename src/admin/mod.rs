//! What operators see: status, metrics, the admin socket and HTTP.
//!
//! `status` is the one value behind everything, `judge` says what is wrong in it, in one headline,
//! and `gather` makes it out of what proxy and health know (all pure). `table` renders it for
//! people, `families` as metrics. `events` is what happened so far. `socket` answers `lbd status` and
//! `lbd events` over a Unix socket (`protocol` is its vocabulary and its client), `http` answers Prometheus, load balancers and browsers. Both ask
//! a [`Source`] for the present status; whoever asks is bounded in number, size and time.

pub mod events;
pub mod families;
pub mod gather;
pub mod http;
mod judge;
pub mod protocol;
pub mod socket;
pub mod status;
pub mod table;

use std::sync::Arc;

/// Gives the present status to whoever was asked for it.
pub type Source = Arc<dyn Fn() -> status::Status + Send + Sync>;

#[cfg(test)]
mod tests;
