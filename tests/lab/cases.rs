//! Runs cases one after the other in a process namespace, so that nothing outlives a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lbd::net::clock;
use lbd::net::netns::sandbox::{self, Sandbox};
use lbd::net::netns::wire::Wire;

use super::peers::installed;

/// A case, and the programs it needs.
pub type Case = (&'static str, &'static [&'static str], fn());

/// The main function of a test program: runs the cases whose names contain one of the arguments
/// (all without any). Says what it skips, and why.
pub fn run(program: &str, cases: &[&[Case]]) -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        for (name, ..) in cases.iter().copied().flatten() {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("{program}: skipped: making namespaces with other daemons in them needs root");
        return ExitCode::SUCCESS;
    }
    match sandbox::enter() {
        Ok(Sandbox::Inside(_)) => {}
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            println!("{program}: skipped: {error}");
            return ExitCode::SUCCESS;
        }
    }
    if let Err(error) = Wire::new() {
        println!("{program}: skipped: {error}");
        return ExitCode::SUCCESS;
    }
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let chosen = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
    let mut failed = Vec::new();
    let mut ran = 0;
    let all = cases.iter().copied().flatten();
    for (name, needs, case) in all.filter(|(name, ..)| chosen(name)) {
        if let Some(missing) = needs.iter().find(|needed| !installed(needed)) {
            println!("{program}: {name} ... skipped: {missing} is not installed");
            continue;
        }
        let start = clock::now();
        ran += 1;
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let seconds = (clock::now() - start).as_secs_f32();
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("{program}: {name} ... {verdict} ({seconds:.1} s)");
        if !passed {
            failed.push(*name);
        }
    }
    println!("{program}: {ran} cases, {} failed {failed:?}", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
