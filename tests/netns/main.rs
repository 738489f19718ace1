//! The pair in network namespaces: real lbd, real keepalived, three TLS servers, a client that
//! opens a connection each 5 ms, and a watcher of the VIP. Needs root; one case at a time.
//! `cargo test --test netns -- PART_OF_A_NAME` runs some of them.

#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

#[path = "../lab/mod.rs"]
mod lab;

mod doctor;
mod imported;
mod lbd_pair;
mod migration;
mod mixed_pair;
mod operator;
mod promises;
mod routed;
mod routed_lab;
mod scrape;
mod strangers;
mod template_lab;
mod templates;
mod transparent;

use std::process::ExitCode;

use lab::cases::Case;

fn main() -> ExitCode {
    let cases = [
        lbd_pair::CASES,
        mixed_pair::CASES,
        promises::CASES,
        migration::CASES,
        imported::CASES,
        operator::CASES,
        routed::CASES,
        scrape::CASES,
        strangers::CASES,
        templates::CASES,
        transparent::CASES,
        doctor::CASES,
    ];
    lab::cases::run("netns", &cases)
}
