//! The whole daemon: keeper, runner and proxy as real processes, killed and stopped under clients.
//! What a service manager does about it is in tests/manager.

#![cfg(test)]

mod alone;
mod black_box;
mod limits;
mod node;
mod pair;
#[path = "../lab/port.rs"]
mod port;
mod recorder;
mod reload;
mod reload_files;
mod reload_moves;
mod reload_routers;
mod sandbox;
mod totals;
mod upgrade;
