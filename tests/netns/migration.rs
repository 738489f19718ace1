//! keepalived + HAProxy on both nodes, replaced by lbd one node after the other, under a client:
//! the steps of docs/migration.md, with the files of the users' guide.

use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};

use super::lab::cases::Case;
use super::lab::peers::Version;
use super::lab::{self, LB1, LB2, Pair, Role, SEED};

pub const CASES: &[Case] = &[(
    "a_pair_of_keepalived_and_haproxy_is_replaced_by_lbd_node_by_node",
    &["keepalived", "haproxy"],
    replace,
)];

/// What the whole replacement may cost a client, beside what a busy machine adds to each step.
const TOTAL: Duration = Duration::from_millis(600);
/// Both may hold the VIP for this long at a hand-over; keepalived yields when it hears lbd's advert.
const OVERLAP: Duration = Duration::from_millis(300);

struct Replacement {
    pair: Pair,
    step: Instant,
    total: Duration,
    steps: u32,
}

impl Replacement {
    /// Ends a step: what the client saw of it.
    fn done(&mut self, step: &str) {
        self.pair.until_served(1_000, 10_000);
        let now = clock::now();
        let gap = self.pair.gap(self.step);
        let (from, to) = (self.step, now);
        let counts = self.pair.client().tally(|tally| tally.counts(from, to));
        let double = self.pair.double(self.step);
        println!(
            "    {step}: gap {} ms, {} failed, {} refused, two holders {} ms",
            gap.as_millis(),
            counts.failed(),
            counts.refused,
            double.as_millis()
        );
        assert!(
            double <= self.pair.bound(OVERLAP, self.step),
            "two holders for {double:?}\n{}",
            self.pair.report()
        );
        self.total += gap;
        self.steps += 1;
        self.step = now;
    }

    /// Ends what runs on a node that is not in charge.
    fn clear(&self, node: usize) {
        for role in [Role::Keeper, Role::Proxy] {
            self.pair.signal(node, role, Signal::SIGTERM);
        }
        self.pair
            .until("nothing runs on the node", 10_000, |pair| pair.ended(node));
    }

    fn waits_for(&self, node: usize) {
        self.pair.until("the VIP to move", 30_000, |pair| {
            pair.only_holder() == Some(node)
        });
    }
}

fn replace() {
    let config = lab::config(SEED);
    let mut pair = Pair::new();
    for node in [LB2, LB1] {
        pair.start_haproxy(node);
        pair.start_keepalived(node, Version::V2);
    }
    pair.settle();
    let slack = pair.slack();
    let began = clock::now();
    let mut steps = Replacement {
        pair,
        step: began,
        total: Duration::ZERO,
        steps: 0,
    };
    // The node that is not in charge first.
    steps.clear(LB1);
    steps.pair.start_lbd(LB1, &config);
    steps.pair.until("lb1 hears keepalived", 10_000, |pair| {
        let received = pair.metric(LB1, "lbd_vrrp_adverts_received_total{");
        received.is_some_and(|count| count >= 3)
    });
    steps.pair.until_fit(LB1);
    assert_eq!(
        steps.pair.only_holder(),
        Some(LB2),
        "{}",
        steps.pair.report()
    );
    steps.done("keepalived on lb1 replaced");
    // keepalived's priority below lbd's, and a reload: nobody leaves before somebody came.
    steps
        .pair
        .rewrite_keepalived(LB2, "priority 110", "priority 50");
    let parent = steps.pair.processes(LB2, Role::Keeper)[0];
    kill(parent, Signal::SIGHUP).expect("it runs");
    steps.waits_for(LB1);
    steps.done("VIP moved from keepalived to lbd");
    steps.clear(LB2);
    steps.pair.start_lbd(LB2, &config);
    steps.pair.until_fit(LB2);
    steps.done("keepalived on lb2 replaced");
    // lb2 is the preferred node again.
    steps.waits_for(LB2);
    steps.done("VIP moved from lbd to lbd");
    println!(
        "    total of {} steps: {} ms",
        steps.steps,
        steps.total.as_millis()
    );
    let bound = steps.pair.noise.stretched(TOTAL, began) + slack * steps.steps;
    assert!(
        steps.total <= bound,
        "{:?}, more than {bound:?}",
        steps.total
    );
    // And the new pair does what a pair has to do.
    let at = steps.pair.signal(LB2, Role::Keeper, Signal::SIGTERM);
    steps.waits_for(LB1);
    steps.pair.until_served(500, 5_000);
    println!(
        "    planned leave afterwards: gap {} ms",
        steps.pair.gap(at).as_millis()
    );
}
