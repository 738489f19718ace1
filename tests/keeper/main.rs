//! The whole daemon: keeper, runner and proxy as real processes, killed and stopped under clients.
//! What a service manager does about it is in tests/manager.

#![cfg(test)]

mod alone;
mod limits;
mod node;
mod pair;
mod recorder;
mod reload;
mod totals;
mod upgrade;
