//! The pair under floods, load and loss: junk and forged adverts, saturated processors, lost
//! adverts, servers that come and go. In network namespaces, as root; one case at a time, a few
//! seconds each. `LBD_LONG=1 cargo test --release --test load -- PART_OF_A_NAME` takes the record:
//! minutes each, with progress.

#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

#[path = "../lab/mod.rs"]
mod lab;

mod floods;
mod forge;
mod loss;
mod saturation;
mod servers;
mod tap;

use std::process::ExitCode;
use std::time::Duration;

use lbd::net::clock;

fn main() -> ExitCode {
    let cases = [
        floods::CASES,
        saturation::CASES,
        loss::CASES,
        servers::CASES,
    ];
    lab::cases::run("load", &cases)
}

/// `quick` seconds, or `long` ones for the record.
fn seconds(quick: u64, long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { quick })
}

fn is_long() -> bool {
    std::env::var_os("LBD_LONG").is_some_and(|value| value == "1")
}

/// Waits so long; every ten seconds it says how far it is.
fn pass(time: Duration, look: impl FnMut() -> String) {
    work_for(time, || {}, look);
}

/// Does something each millisecond for so long; every ten seconds it says how far it is.
fn work_for(time: Duration, mut work: impl FnMut(), mut look: impl FnMut() -> String) {
    let begin = clock::now();
    let mut said = begin;
    while clock::now() < begin + time {
        work();
        let now = clock::now();
        if now >= said + Duration::from_secs(10) {
            said = now;
            let (passed, of) = ((now - begin).as_secs(), time.as_secs());
            println!("    {passed} of {of} s: {}", look());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
