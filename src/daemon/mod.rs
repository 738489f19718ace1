//! The processes: keeper, runner, proxy; who starts, watches and stops whom. The only place that
//! wires components.

mod confined;
pub mod judge;
pub mod keeper;
pub mod played;
pub mod proxy;
pub mod runner;
pub mod supervise;
