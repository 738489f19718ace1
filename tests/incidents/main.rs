//! What clients see when something happens to a server: lbd beside HAProxy with the guide's own
//! file and with a tuned one, in laboratories that run at the same time.
//!
//! Without arguments the short forms run, with bounds that hold on a busy machine (parts of names
//! choose some). `tests/faults` makes the tables of docs/health.md (`tests/faults --help`).

#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::float_arithmetic,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test program"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod capacity;
mod client;
mod etcd;
mod etcd_place;
mod faults;
mod gates;
mod herd;
mod measure;
mod pause;
mod place;
mod server;
mod shares;
mod sources;
mod table;
mod targets;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--serve") => server::main(&arguments[1..]),
        Some("--measure") => measure::main(&arguments[1..]),
        Some(_) | None => lab::cases::run("incidents", &[gates::CASES]),
    }
}
