//! `benches/compare`: lbd, HAProxy, nginx and no proxy side by side, in interleaved rounds. How it
//! measures and what its numbers mean: docs/performance.md. Only the bench lives here; nothing of
//! the product may depend on it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result goes to standard output, talk to standard error"
)]
#![expect(
    clippy::float_arithmetic,
    reason = "rates and ratios for people, no decisions"
)]

mod backend;
mod cells;
mod client;
mod gates;
mod histogram;
mod lab;
mod options;
mod pattern;
mod plots;
mod protocol;
mod report;
mod roles;
mod run;
mod selftest;
mod setting;
mod stats;
mod tables;
mod targets;
mod usage;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;

fn main() -> ExitCode {
    let mut options = Options::parse();
    let outcome = match options.role.take() {
        Some(role) => roles::run(role).map(|()| true).map_err(Into::into),
        None if options.self_test => selftest::run(&options),
        None => run::compare(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches/compare: {error}");
            ExitCode::FAILURE
        }
    }
}
