//! The processes: keeper, runner, proxy; who starts, watches and stops whom. The only place that
//! wires components.

pub mod keeper;
pub mod proxy;
pub mod runner;
pub mod supervise;
