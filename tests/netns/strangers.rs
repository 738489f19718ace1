//! `allow-from`: two lbd that don't list each other among their nodes.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::Case;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};

pub const CASES: &[Case] = &[(
    "a_router_beyond_the_nodes_takes_part_and_takes_over",
    &[],
    takes_over,
)];

const NODE_1: &str = r#"  { name = "lb1", address = "172.16.0.2", priority = 100 },
"#;
const NODE_2: &str = r#"  { name = "lb2", address = "172.16.0.3", priority = 110 },
"#;

/// The seed's file without one of the nodes, which is let in by its address alone.
fn config(without: &str, allowed: &str) -> String {
    let text = lab::config(SEED).replace(without, "");
    text.replace(
        "nodes = [",
        &format!("allow-from = [\"{allowed}\"]\nnodes = ["),
    )
}

fn takes_over() {
    let mut pair = Pair::new();
    pair.start_lbd(LB2, &config(NODE_1, "172.16.0.2"));
    pair.start_lbd(LB1, &config(NODE_2, "172.16.0.3"));
    pair.settle();
    let at = pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    pair.until("lb1 alone holds the VIP", 3_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 5_000);
    let gap = pair.gap(at);
    println!("    gap: {} ms", gap.as_millis());
    assert!(
        gap <= pair.bound(Duration::from_millis(20), at),
        "{}",
        pair.report()
    );
    pair.until("lb2's processes are gone", 15_000, |pair| pair.ended(LB2));
    pair.start_lbd(LB2, &config(NODE_1, "172.16.0.2"));
    pair.until("lb2 alone holds the VIP", 20_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 5_000);
    let two = pair.double(at);
    assert!(
        two <= pair.bound(Duration::from_millis(200), at),
        "{two:?}\n{}",
        pair.report()
    );
}
