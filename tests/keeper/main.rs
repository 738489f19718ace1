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
#[path = "../lab/program.rs"]
mod program;
mod recorder;
mod reload;
mod reload_files;
mod reload_moves;
mod reload_routers;
#[path = "../lab/node.rs"]
mod running;
mod sandbox;
#[path = "../lab/segment.rs"]
mod segment;
mod totals;
mod upgrade;
