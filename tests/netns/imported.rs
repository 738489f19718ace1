//! The users' guide's own files, imported: the result runs beside a keepalived that still has its
//! old file, takes over from it, and then does alone what a pair has to do.

use std::path::Path;

use lbd::import::{Input, Source, import};
use nix::sys::signal::Signal;

use super::lab::cases::Case;
use super::lab::peers::Version;
use super::lab::{LB1, LB2, Pair, Role};

pub const CASES: &[Case] = &[(
    "the_guide_s_imported_files_run_beside_its_keepalived_and_alone",
    &["keepalived", "haproxy"],
    run,
)];

/// The imported lb.toml; messages go where the laboratory looks.
fn imported() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import/kubesphere");
    let texts = ["haproxy.cfg", "lb1.conf", "lb2.conf"].map(|name| {
        let text = std::fs::read_to_string(folder.join(name)).expect("the data is there");
        (name, text)
    });
    let [haproxy, lb1, lb2] = texts.each_ref().map(|(name, text)| Source { name, text });
    let outcome = import(&Input {
        haproxy: Some(haproxy),
        keepalived: vec![lb1, lb2],
        nodes: Vec::new(),
    });
    assert!(outcome.accepted && outcome.needs.is_empty());
    let lines = outcome
        .text
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("target") => "target = \"stderr\"",
            // Of syslog alone.
            Some("facility") => "",
            _ => line,
        });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert_ne!(text, outcome.text);
    text
}

fn run() {
    let config = imported();
    let mut pair = Pair::new();
    pair.start_haproxy(LB2);
    pair.start_keepalived(LB2, Version::V2);
    pair.start_lbd(LB1, &config);
    pair.settle();
    pair.until("lb1 hears keepalived", 10_000, |pair| {
        let received = pair.metric(LB1, "lbd_vrrp_adverts_received_total{");
        received.is_some_and(|count| count >= 3)
    });
    let metrics = pair.metrics(LB1).expect("lbd answers");
    let rejected: Vec<&str> = metrics
        .lines()
        .filter(|line| {
            line.starts_with("lbd_vrrp_packets_rejected_total{") && !line.ends_with(" 0")
        })
        .collect();
    assert_eq!(rejected, [""; 0], "the two don't understand each other");
    // keepalived leaves, the imported file serves.
    pair.until_fit(LB1);
    pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    pair.until("lb1 alone holds the VIP", 10_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 8_000);
    pair.signal(LB2, Role::Proxy, Signal::SIGTERM);
    pair.until("nothing runs on lb2", 15_000, |pair| pair.ended(LB2));
    // The same file on the other node, which is the preferred one.
    pair.start_lbd(LB2, &config);
    pair.until("lb2 alone holds the VIP again", 30_000, |pair| {
        pair.only_holder() == Some(LB2)
    });
    pair.until_served(500, 8_000);
    // And leaves it as a pair has to.
    pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    pair.until("lb1 takes over", 10_000, |pair| {
        pair.only_holder() == Some(LB1)
    });
    pair.until_served(500, 8_000);
}
