//! Each way to choose, beside slots that fill up.

use super::*;
use crate::proxy::balance::seed;

fn slots(limits: &[u32]) -> Vec<Slots> {
    let slots = limits.iter().map(|limit| {
        let slots = Slots::new();
        slots.set_limit(*limit);
        slots
    });
    slots.collect()
}

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let places = (0..).zip(weights);
    let all = places.map(|(place, weight)| Candidate {
        place,
        weight: *weight,
        seed: seed(&format!("api-{}", place + 1)),
    });
    all.collect()
}

fn plan(balance: Balance, weights: &[u32]) -> Plan {
    let before = Plan::empty(0);
    Plan::follow(&before, balance, candidates(weights), &mut Owed::default()).unwrap()
}

fn pick(plan: &Plan, slots: &[Slots]) -> Option<usize> {
    plan.pick(slots, Door::Front, Key::NONE, |_| true)
}

fn picks(plan: &Plan, slots: &[Slots], count: usize) -> Vec<usize> {
    (0..count).filter_map(|_| pick(plan, slots)).collect()
}

fn used(slots: &[Slots]) -> Vec<u32> {
    slots.iter().map(Slots::used).collect()
}

fn client(number: u32) -> Key {
    Key::of(std::net::Ipv4Addr::from(0x0a00_0000 + number).into())
}

const ALL: [Balance; 5] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::Random,
    Balance::SourceHash,
    Balance::First,
];

#[test]
fn the_rotation_is_smooth_and_goes_on_where_it_was() {
    let slots = slots(&[9, 9, 9]);
    let first = plan(Balance::RoundRobin, &[100, 200, 300]);
    assert_eq!(picks(&first, &slots, 8), [2, 1, 0, 2, 1, 2, 2, 1]);
    let mut owed = Owed::default();
    let same = candidates(&[100, 200, 300]);
    let next = Plan::follow(&first, Balance::RoundRobin, same, &mut owed).unwrap();
    assert_eq!(picks(&next, &slots, 4), [0, 2, 1, 2]);
}

#[test]
fn in_the_rotation_a_full_server_is_passed_over_and_the_others_keep_their_shares() {
    let slots = slots(&[1, 90, 90]);
    let plan = plan(Balance::RoundRobin, &[5, 1, 2]);
    let taken = picks(&plan, &slots, 31);
    let count = |server| taken.iter().filter(|s| **s == server).count();
    assert_eq!([count(0), count(1), count(2)], [1, 10, 20]);
}

#[test]
fn whatever_the_strategy_room_is_found_to_the_last_slot_and_nobody_overtakes() {
    for balance in ALL {
        let slots = slots(&[1, 2, 3]);
        let plan = plan(balance, &[3, 1, 2]);
        assert_eq!(picks(&plan, &slots, 9).len(), 6, "{balance:?}");
        assert_eq!(used(&slots), [1, 2, 3], "{balance:?}");
        slots[1].give_back();
        slots.iter().for_each(Slots::hold);
        assert_eq!(pick(&plan, &slots), None, "{balance:?}");
        let elsewhere = plan.pick(&slots, Door::Queue, Key::NONE, |server| server != 1);
        assert_eq!(elsewhere, None, "{balance:?}");
        let queue = |plan: &Plan| plan.pick(&slots, Door::Queue, Key::NONE, |_| true);
        assert_eq!((queue(&plan), queue(&plan)), (Some(1), None), "{balance:?}");
    }
}

#[test]
fn without_servers_nobody_is_picked() {
    for balance in ALL {
        assert_eq!(pick(&plan(balance, &[]), &slots(&[9])), None);
    }
    assert_eq!(pick(&Plan::empty(0), &slots(&[9])), None);
}

#[test]
fn only_a_rotation_too_long_is_left_to_the_lock() {
    for balance in ALL {
        let long = candidates(&[251 << 8, 241 << 4, 239 << 4, 1]);
        let plan = Plan::follow(&Plan::empty(0), balance, long, &mut Owed::default());
        assert_eq!(plan.is_none(), balance == Balance::RoundRobin);
    }
}

#[test]
fn connections_that_stay_are_spread_by_weight_to_the_last_one() {
    let slots = slots(&[999, 999, 999]);
    let plan = plan(Balance::LeastConnections, &[1, 2, 3]);
    for turn in 1..=50 {
        picks(&plan, &slots, 6);
        assert_eq!(used(&slots), [turn, 2 * turn, 3 * turn]);
    }
}

#[test]
fn the_least_loaded_gets_all_until_it_is_as_loaded_as_the_others() {
    let slots = slots(&[99, 99, 99]);
    let plan = plan(Balance::LeastConnections, &[1, 1, 1]);
    picks(&plan, &slots, 30);
    (0..6).for_each(|_| {
        slots[1].give_back();
    });
    assert_eq!(picks(&plan, &slots, 6), [1; 6]);
    slots[2].set_limit(3);
    assert!(!picks(&plan, &slots, 20).contains(&2));
}

#[test]
fn among_idle_servers_least_connections_is_a_weighted_rotation() {
    let slots = slots(&[9, 9, 9]);
    let plan = plan(Balance::LeastConnections, &[1, 2, 3]);
    let mut order = Vec::new();
    for _ in 0..12 {
        let server = pick(&plan, &slots).unwrap();
        slots[server].give_back();
        order.push(server);
    }
    assert_eq!(order, [2, 1, 0, 2, 1, 2, 2, 1, 0, 2, 1, 2]);
}

#[test]
fn four_workers_spread_connections_as_evenly_as_one() {
    for _ in 0..20 {
        let slots = slots(&[9_999, 9_999, 9_999]);
        let plan = plan(Balance::LeastConnections, &[1, 1, 2]);
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(picks(&plan, &slots, 1_000).len(), 1_000);
                });
            }
        });
        assert_eq!(used(&slots), [1_000, 1_000, 2_000]);
    }
}

#[test]
fn draws_follow_the_weights_where_load_is_even() {
    let slots = slots(&[9, 9, 9]);
    let plan = plan(Balance::Random, &[1, 2, 3]);
    let mut taken = [0; 3];
    for _ in 0..60_000 {
        let server = pick(&plan, &slots).unwrap();
        slots[server].give_back();
        taken[server] += 1;
    }
    // 10,000, 20,000 and 30,000, within four standard deviations.
    for (taken, expected) in taken.iter().zip([10_000_i32, 20_000, 30_000]) {
        assert!((taken - expected).abs() < 490, "{taken:?}");
    }
}

#[test]
fn two_draws_keep_the_fullest_server_near_the_others() {
    // One draw would leave the fullest of 20 near 570: the mean and three standard deviations.
    let slots = slots(&[9_999; 20]);
    let plan = plan(Balance::Random, &[1; 20]);
    picks(&plan, &slots, 10_000);
    let used = used(&slots);
    assert!(
        used.iter().all(|used| (490..=510).contains(used)),
        "{used:?}"
    );
}

#[test]
fn two_processes_draw_differently() {
    let order = |from| {
        let slots = slots(&[9_999; 3]);
        let all = candidates(&[1, 1, 1]);
        let before = Plan::empty(from);
        let plan = Plan::follow(&before, Balance::Random, all, &mut Owed::default());
        picks(&plan.unwrap(), &slots, 40)
    };
    assert_eq!(order(1_000_000), order(1_000_000));
    assert_ne!(order(1_000_000), order(2_000_000));
}

#[test]
fn a_client_keeps_its_server_while_the_load_is_light_and_nodes_agree() {
    let two_nodes = [(); 2].map(|()| (plan(Balance::SourceHash, &[1, 1, 1]), slots(&[999; 3])));
    let at = |node: usize, number| {
        let (plan, slots) = &two_nodes[node];
        plan.pick(slots, Door::Front, client(number), |_| true)
    };
    let mut placed = Vec::new();
    for number in 0..9 {
        placed.push(at(0, number).unwrap() + 1);
        assert_eq!(at(0, number), at(1, number));
    }
    // As balance/rendezvous/tests.rs has them from another program.
    assert_eq!(placed, [2, 2, 1, 2, 2, 2, 2, 1, 3]);
}

#[test]
fn under_source_hash_no_server_has_a_quarter_more_than_its_share() {
    for weights in [[1, 1, 1], [1, 2, 3]] {
        let slots = slots(&[99_999; 3]);
        let plan = plan(Balance::SourceHash, &weights);
        // 1,000 connections of one client, and then one each of 5,000.
        for number in (0..1_000).map(|_| 7).chain(0..5_000) {
            assert!(
                plan.pick(&slots, Door::Front, client(number), |_| true)
                    .is_some()
            );
            let used = used(&slots);
            let total: u32 = used.iter().sum();
            for (used, weight) in used.iter().zip(&weights) {
                let sum: u32 = weights.iter().sum();
                let most = (total * 5 * weight).div_ceil(sum * 4).max(16);
                assert!(*used <= most, "{used} of {total}, weight {weight}");
            }
        }
    }
}

#[test]
fn a_client_beyond_the_bound_goes_to_its_next_choice_and_comes_back() {
    let slots = slots(&[999; 3]);
    let plan = plan(Balance::SourceHash, &[1, 1, 1]);
    let go = || plan.pick(&slots, Door::Front, client(0), |_| true).unwrap();
    let mut seen: Vec<usize> = (0..48).map(|_| go()).collect();
    assert_eq!(seen[..16], [1; 16]);
    // Its second choice fills up to the bound before its third gets one.
    assert_eq!(seen[16..32], [seen[16]; 16]);
    assert_eq!(used(&slots).iter().sum::<u32>(), 48);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2]);
    for server in [0, 1, 2] {
        (0..slots[server].used()).for_each(|_| {
            slots[server].give_back();
        });
    }
    assert_eq!(go(), 1);
}

#[test]
fn the_first_server_is_filled_before_the_second_gets_anything() {
    let slots = slots(&[2, 3, 9]);
    let plan = plan(Balance::First, &[1, 256, 3]);
    assert_eq!(picks(&plan, &slots, 7), [0, 0, 1, 1, 1, 2, 2]);
    slots[0].give_back();
    assert_eq!(picks(&plan, &slots, 2), [0, 2]);
}

#[test]
fn a_slot_given_back_twice_leaves_the_count_right() {
    let slots = &slots(&[1])[0];
    assert_eq!(slots.take(Door::Front), Take::Taken);
    slots.give_back();
    slots.give_back();
    assert_eq!(slots.used(), 0);
    assert_eq!(slots.take(Door::Front), Take::Taken);
    assert_eq!(slots.take(Door::Front), Take::Full);
}

#[test]
fn a_slot_is_taken_as_seen_or_not_at_all() {
    let slots = &slots(&[2])[0];
    let seen = slots.look();
    assert_eq!(slots.take_as_seen(seen, Door::Front), Some(Take::Taken));
    assert_eq!(slots.take_as_seen(seen, Door::Front), None);
    slots.hold();
    let held = slots.look();
    assert_eq!(slots.take_as_seen(held, Door::Front), Some(Take::Held));
    assert_eq!(slots.take_as_seen(held, Door::Queue), Some(Take::Taken));
    assert_eq!(
        slots.take_as_seen(slots.look(), Door::Queue),
        Some(Take::Full)
    );
    assert_eq!((slots.used(), slots.most()), (2, 2));
}
