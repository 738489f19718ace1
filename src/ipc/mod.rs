//! What keeper and proxy say to each other over a SOCK_SEQPACKET Unix socket in the runtime
//! directory: one message per packet, descriptors beside it (SCM_RIGHTS).
//!
//! `message` is the pure vocabulary between keeper and proxy and its codec (postcard), `command` what
//! operators can order and what became of it, `note` what they changed about servers, `runner` the vocabulary between keeper and runner, over
//! a socket pair. The socket pair itself lives in
//! `net::seqpacket`. `reload` is how a new configuration is agreed on, `tally` what processes tell of their counts. The keeper listens, the proxy connects; peer credentials are checked; a
//! message that does not decode is counted and dropped, never trusted.

pub mod command;
pub mod confinement;
pub mod counters;
pub mod event;
pub mod message;
pub mod note;
pub mod record;
pub mod reload;
mod route;
pub mod runner;
pub mod tally;
pub mod upgrade;
