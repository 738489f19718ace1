//! May this node serve? Scripts and the own proxy, reduced to a verdict and a weight.
//!
//! `fsm` schedules a script's runs and turns exit codes into a verdict; `verdict` reduces all that
//! a virtual router tracks to what its priority needs. Both are pure. The keeper owns the clock
//! and the list; the runner process executes.

pub mod fsm;
pub mod verdict;
