//! What operators look at, while a pair on one wire loses its active node: `lbd top` in a terminal
//! and the status page in a browser. Needs root; one case at a time. With `LBD_PICTURES=DIR` the
//! screens are kept there.

#![cfg(test)]
#![expect(unreachable_pub, reason = "a test program")]

#[path = "../lab/mod.rs"]
mod lab;

mod browser;
mod page;
mod screen;
mod top;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use lab::cases::Case;

use lab::{LB1, LB2, Pair};
use lbd::net::netns::Process;
use nix::sys::signal::{Signal, kill};

fn main() -> ExitCode {
    let cases = [top::CASES, page::CASES];
    lab::cases::run("views", &cases)
}

/// Adverts each 100 ms, a channel between the nodes, lb2 in charge, a client.
fn pair() -> Pair {
    let fast = "version = 3\nadvert-interval = \"100ms\"\npreempt = true";
    let config = lab::config(fast) + "\n[peer]\nkey-file = \"/run/lbd/peer.key\"\n";
    let mut pair = Pair::new();
    for node in [LB2, LB1] {
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all("/run/lbd")?;
            std::fs::write("/run/lbd/peer.key", "c".repeat(64))?;
            std::fs::set_permissions("/run/lbd/peer.key", std::fs::Permissions::from_mode(0o600))
        };
        pair.lab.nodes[node].host.run(write).unwrap().unwrap();
        pair.start_lbd(node, &config);
    }
    pair.settle();
    pair.until("the nodes see each other", 5_000, |pair| {
        (0..2).all(|node| pair.metric(node, "lbd_peer_reachable{") == Some(1))
    });
    pair
}

/// The keeper alone: whoever looks at it is an lbd, too.
fn kill_keeper(pair: &Pair, node: usize) {
    let all = pair.lab.nodes[node].host.processes().unwrap();
    let is_keeper = |process: &&Process| process.has_argument("--config");
    let keeper = all.iter().find(is_keeper).expect("a keeper runs");
    kill(keeper.pid, Signal::SIGKILL).unwrap();
}

/// Where pictures are kept, if they are.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("LBD_PICTURES").map(PathBuf::from)
}
