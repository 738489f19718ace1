//! May this node serve? Scripts, interfaces, files and the own proxy, reduced to a verdict and a
//! weight.
//!
//! `fsm` schedules a script's runs and turns exit codes into a verdict, `file` turns the content of
//! a file into a number, `interfaces` knows which are up, `servers` counts usable servers so that a flapping one moves nothing;
//! `verdict` reduces all that a virtual router tracks to what its priority needs; `recorded` are the machines with their tapes. All are pure. The
//! keeper owns the clock and the list; the runner process executes and reads.

pub mod file;
pub mod fsm;
pub mod interfaces;
pub mod recorded;
pub mod servers;
pub mod verdict;
