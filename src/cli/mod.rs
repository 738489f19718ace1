//! The command line: the only component that prints.
pub mod demo;
