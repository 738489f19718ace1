//! Each scenario once, with the bound that docs/SPECIFICATION.md promises. A busy machine with
//! a debug build is allowed three times as much, and three times the longest gap that it showed
//! while nothing happened. The record is made by `tests/failover --runs 10`.

use std::time::Duration;

use super::lab::cases::Case;
use super::lab::scenario::{Scenario, Setup, Stack, V2_1S, V3_10MS, V3_100MS, measure};

/// What a busy machine is allowed, beside its own gaps.
const FACTOR: u32 = 3;
/// Two holders at a hand-over: make before break.
const OVERLAP: Duration = Duration::from_millis(200);
/// A dead node's address: lease (2 s) + 0.6 s.
const LEASE: Duration = Duration::from_millis(2_600);

pub const CASES: &[Case] = &[
    ("promise_sigterm_at_1_s_20_ms", &[], || {
        keeps(Scenario::Sigterm, &V2_1S, 20);
    }),
    ("promise_sigterm_at_100_ms_20_ms", &[], || {
        keeps(Scenario::Sigterm, &V3_100MS, 20);
    }),
    ("promise_sigterm_at_10_ms_20_ms", &[], || {
        keeps(Scenario::Sigterm, &V3_10MS, 20);
    }),
    ("promise_keeper_killed_at_100_ms_380_ms", &[], || {
        keeps(Scenario::KeeperKilled, &V3_100MS, 380);
    }),
    (
        "promise_keeper_killed_and_restarted_at_1_s_nobody_fails",
        &[],
        || {
            keeps(Scenario::KeeperRestarted, &V2_1S, 20);
        },
    ),
    ("promise_everything_killed_at_100_ms_380_ms", &[], || {
        keeps(Scenario::AllKilled, &V3_100MS, 380);
    }),
    ("promise_node_vanishes_at_100_ms_380_ms", &[], || {
        keeps(Scenario::Vanishes, &V3_100MS, 380);
    }),
    ("promise_node_vanishes_at_10_ms_60_ms", &[], || {
        keeps(Scenario::Vanishes, &V3_10MS, 60);
    }),
    ("promise_link_down_at_100_ms_380_ms", &[], || {
        keeps(Scenario::LinkDown, &V3_100MS, 380);
    }),
    ("promise_everything_stopped_at_100_ms_380_ms", &[], || {
        keeps(Scenario::AllStopped, &V3_100MS, 380);
    }),
    ("promise_partition_heals_at_100_ms_50_ms", &[], || {
        keeps(Scenario::Heals, &V3_100MS, 50);
    }),
    ("promise_vip_deleted_at_1_s_20_ms", &[], || {
        keeps(Scenario::VipDeleted, &V2_1S, 20);
    }),
    ("promise_proxy_stopped_at_100_ms_420_ms", &[], || {
        keeps(Scenario::ProxyStopped, &V3_100MS, 420);
    }),
];

fn keeps(scenario: Scenario, setup: &Setup, promised_ms: u64) {
    let seen = measure(Stack::Lbd, scenario, setup);
    let promised = Duration::from_millis(promised_ms);
    let bound = promised * FACTOR * seen.busy / 100 + seen.slack;
    println!(
        "    gap {:?}, promised {promised:?}, bound {bound:?}; {} failed, {} refused, two holders {:?}",
        seen.gap, seen.failed, seen.refused, seen.double
    );
    let gap = seen.gap.expect("the gap ends");
    assert!(gap <= bound, "{seen:?}");
    match scenario {
        Scenario::Sigterm | Scenario::LinkDown | Scenario::ProxyStopped | Scenario::Heals => {
            assert_eq!(seen.refused, 0, "{seen:?}");
            assert!(
                seen.double
                    .is_some_and(|double| double <= OVERLAP * seen.busy / 100 + seen.slack),
                "{seen:?}"
            );
        }
        Scenario::KeeperKilled | Scenario::AllKilled | Scenario::AllStopped => {
            assert!(
                seen.kept
                    .is_some_and(|kept| kept <= LEASE * seen.busy / 100),
                "{seen:?}"
            );
        }
        Scenario::KeeperRestarted => {
            assert_eq!((seen.failed, seen.lost), (0, 0), "{seen:?}");
            assert_eq!(seen.kept, None, "{seen:?}");
        }
        Scenario::VipDeleted => {
            // Where the machine made it late, those that came meanwhile found nobody.
            let late = gap.saturating_sub(promised).as_millis().div_ceil(5);
            let late = usize::try_from(late).unwrap_or(usize::MAX);
            let most = if seen.busy > 100 { late } else { 0 };
            assert!(seen.failed <= most, "{seen:?}");
            assert_eq!((seen.lost, seen.kept), (0, None), "{seen:?}");
        }
        // Nobody can tell a node that is cut off; it holds its address as it likes.
        Scenario::Vanishes => {}
    }
}
