//! May this node serve? Scripts, interfaces, files and the own proxy, reduced to a verdict and a
//! weight.
//!
//! `fsm` schedules a script's runs and turns exit codes into a verdict, `file` turns the content of
//! a file into a number, `servers` counts usable servers so that a flapping one moves nothing;
//! `verdict` reduces all that a virtual router tracks to what its priority needs. All are pure. The
//! keeper owns the clock and the list; the runner process executes and reads.

pub mod file;
pub mod fsm;
pub mod servers;
pub mod verdict;
