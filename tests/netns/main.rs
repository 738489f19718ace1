//! The pair in network namespaces: real lbd, real keepalived, three TLS servers, a client that
//! opens a connection each 5 ms, and a watcher of the VIP. Needs root; one case at a time.
//! `cargo test --test netns -- PART_OF_A_NAME` runs some of them.

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

mod lbd_pair;
mod mixed_pair;
mod operator;
mod routed;
mod routed_lab;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lbd::net::clock;
use lbd::net::netns::sandbox::{self, Sandbox};
use lbd::net::netns::wire::Wire;

/// A case, and the programs it needs.
type Case = (&'static str, &'static [&'static str], fn());

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!("netns: skipped: making namespaces with other daemons in them needs root");
        return ExitCode::SUCCESS;
    }
    match sandbox::enter() {
        Ok(Sandbox::Inside(_)) => {}
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            println!("netns: skipped: {error}");
            return ExitCode::SUCCESS;
        }
    }
    if let Err(error) = Wire::new() {
        println!("netns: skipped: {error}");
        return ExitCode::SUCCESS;
    }
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let cases: Vec<Case> = [
        lbd_pair::CASES,
        mixed_pair::CASES,
        operator::CASES,
        routed::CASES,
    ]
    .concat();
    let chosen = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    let mut failed = Vec::new();
    let mut ran = 0;
    for (name, needs, case) in cases.into_iter().filter(|(name, ..)| chosen(name)) {
        let missing = needs.iter().find(|program| !lab::peers::installed(program));
        if let Some(missing) = missing {
            println!("netns: {name} ... skipped: {missing} is not installed");
            continue;
        }
        let start = clock::now();
        ran += 1;
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let seconds = (clock::now() - start).as_secs_f32();
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("netns: {name} ... {verdict} ({seconds:.1} s)");
        if !passed {
            failed.push(name);
        }
    }
    println!("netns: {ran} cases, {} failed {failed:?}", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
