//! The shipped unit under a service manager: what is restarted, what hands the VIP off, and what is
//! only warned of. In network namespaces, as root; one case at a time.
//! `cargo test --test manager -- PART_OF_A_NAME` runs some of them.

#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test program"
)]

#[path = "../lab/mod.rs"]
mod lab;

mod faults;
mod manners;
mod measured;
mod sandbox;
mod service;
mod unit;
mod upgrades;

use std::process::ExitCode;

use lab::cases::Case;

fn main() -> ExitCode {
    if let Some(code) = sandbox::wrapped() {
        return code;
    }
    let cases: Vec<Case> = [
        manners::CASES,
        faults::CASES,
        upgrades::CASES,
        measured::CASES,
    ]
    .concat();
    lab::cases::run("manager", &cases)
}
