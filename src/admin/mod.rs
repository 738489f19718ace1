//! What operators see: status, metrics, the admin socket and HTTP.
//!
//! `status` is the one value behind everything, `judge` says what is wrong in it, in one headline,
//! `gather` makes it out of what proxy and health know, and `tally` adds what processes before this one
//! counted (all pure). `table` renders it for
//! people, `families` as metrics;
//! `discovery` is the part of both about where servers come from. `events` is what happened so far. `socket` answers questions and takes orders over a Unix socket
//! (`protocol` is its vocabulary and its client, `servers` that of orders about servers), `http` answers Prometheus, load balancers and
//! browsers (`page` is what those show). Both ask a [`Source`] for the present status; orders go to the control loop, and
//! those for the keeper on to it, by way of [`Orders`]. Whoever asks is bounded in number, size and time.

mod channel;
pub mod compat;
pub mod discovery;
pub mod events;
pub mod families;
pub mod gather;
pub mod http;
mod judge;
pub mod measures;
pub mod pace;
mod page;
pub mod protocol;
pub mod servers;
pub mod socket;
pub mod status;
pub mod table;
pub mod talkers;
pub mod tally;
pub mod who;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use self::servers::{ServerCommand, ServersOutcome};
use self::who::Who;
use crate::ipc::command::{Command, Outcome};

/// Gives the present status to whoever was asked for it.
pub type Source = Arc<dyn Fn() -> status::Status + Send + Sync>;

/// Takes orders. Bounded: an order that finds it full is refused.
pub type Orders = mpsc::Sender<Order>;

/// An order, and where to say what became of it. Dropped: nobody knows.
#[derive(Debug)]
pub enum Order {
    /// For the keeper.
    Keeper(Command, oneshot::Sender<Outcome>),
    /// About servers, from the user with this number.
    Servers(ServerCommand, u32, oneshot::Sender<ServersOutcome>),
    /// Which connections have this address; no order, but it takes the workers to answer.
    Who(SocketAddr, oneshot::Sender<Who>),
}

#[cfg(test)]
pub(crate) mod tests;
