//! `lbd demo`: the pair on one machine, killed and healed before the user's eyes.
//!
//! `plan` draws the laboratory from a configuration, `lab` builds it (namespaces, servers, nodes,
//! a watcher of the VIP), `client` goes through the VIP, `tally` and `history` answer what the
//! client and the watcher saw, `play` is the plot, `show` the screen. Nothing here knows how lbd
//! works inside: the nodes are the program itself, started as an operator starts it.

pub mod certificate;
pub mod client;
pub mod history;
pub mod lab;
pub mod plan;
pub mod server;
pub mod tally;

#[cfg(test)]
mod tests;
