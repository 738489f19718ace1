//! The shipped unit under a service manager: what is restarted, what hands the VIP off, and what is
//! only warned of. In network namespaces, as root; one case at a time.
//! `cargo test --test manager -- PART_OF_A_NAME` runs some of them.

#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

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

fn main() -> ExitCode {
    if let Some(code) = sandbox::wrapped() {
        return code;
    }
    let cases = [
        manners::CASES,
        faults::CASES,
        upgrades::CASES,
        measured::CASES,
    ];
    lab::cases::run("manager", &cases)
}
