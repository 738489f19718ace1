//! Several election machines in a simulated network: two to five nodes, lbd's and modelled
//! keepalived's, at intervals from 10 ms to 40 s, version 2 and 3, with clocks that drift. Loss, one-way
//! loss, torn networks, pauses, crashes, restarts with and without resume, blocked output,
//! hand-offs, failovers by command, deleted addresses, a peer channel that works or doesn't, and a
//! client that believes the last gratuitous ARP. 256 seeds, or `LBD_SIM_SEEDS`; `LBD_SIM_SEED=n`
//! replays one and prints its story.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of a test may stop it, and a replayed seed tells its story"
)]

mod check;
#[path = "../lab/dice.rs"]
mod dice;
mod faults;
mod keepalived;
mod node;
mod plan;
mod scenes;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lbd::config::model::Preempt;
use lbd::units::Priority;

use dice::Dice;
use plan::Plan;
use world::World;

/// What the seeds of a test come to.
#[derive(Default)]
struct Sum {
    moves: AtomicU64,
    seconds: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Sum {
    fn add(&self, world: &World) {
        let add = |to: &AtomicU64, count: usize| {
            to.fetch_add(u64::try_from(count).unwrap(), Ordering::Relaxed);
        };
        add(&self.moves, world.takeovers);
        add(&self.taken, world.answers.0);
        add(&self.refused, world.answers.1);
        self.seconds
            .fetch_add(world.now / 1_000_000_000, Ordering::Relaxed);
    }

    fn print(&self, seeds: u64) {
        println!(
            "{seeds} seeds: {} virtual hours, {} take-overs, {} failovers taken and {} refused",
            self.seconds.load(Ordering::Relaxed) / 3_600,
            self.moves.load(Ordering::Relaxed),
            self.taken.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        );
    }
}

/// Long enough for an election and a start with its grace.
fn calm(world: &World) -> Duration {
    20 * world.interval.duration() + Duration::from_secs(8)
}

/// How long a node that could not be heard may take to ask again.
const DOUBT: Duration = Duration::from_secs(40);

fn disturbed(seed: u64, story: bool) -> World {
    let mut dice = Dice(seed);
    let plan = Plan::random(&mut dice);
    let mut world = World::new(&plan, dice, story);
    world.run(Duration::from_secs(8));
    let disturbances = 10 + world.dice.below(20);
    for _ in 0..disturbances {
        world.disturb();
        let pause = match world.dice.below(4) {
            0 => world.dice.below(100),
            1 => world.dice.below(15_000),
            _ => world.dice.below(3_000),
        };
        world.run(Duration::from_millis(pause));
    }
    world
}

fn settle(world: &mut World) {
    world.heal();
    let calm = calm(world);
    world.run(calm);
    world.restart_all();
    world.run(calm + DOUBT);
}

fn play(seed: u64, story: bool, sum: &Sum) {
    let mut world = disturbed(seed, story);
    settle(&mut world);
    world.expect_one_good_holder();
    let moves = world.takeovers;
    let calm = calm(&world);
    world.run(calm);
    world.expect_one_good_holder();
    assert_eq!(moves, world.takeovers, "moved although all is well");
    sum.add(&world);
}

/// Two days of a world where faults are hours apart.
fn play_days(seed: u64, story: bool, sum: &Sum) {
    let mut dice = Dice(seed);
    let plan = Plan::slow(&mut dice);
    let mut world = World::new(&plan, dice, story);
    let day = Duration::from_secs(24 * 3_600);
    while Duration::from_nanos(world.now) < 2 * day {
        world.disturb();
        let pause = world.dice.below(4 * 3_600);
        world.run(Duration::from_secs(pause));
        if world.dice.chance(30) {
            settle(&mut world);
            world.expect_one_good_holder();
            let moves = world.takeovers;
            let calm = calm(&world);
            world.run(calm);
            assert_eq!(moves, world.takeovers, "moved although all is well");
        }
    }
    sum.add(&world);
}

/// Some nodes can serve and some cannot, for good.
fn play_unfit(seed: u64, story: bool, sum: &Sum) {
    let mut world = disturbed(seed, story);
    let owned = |world: &World| {
        let mut all = world.nodes.iter();
        all.any(|node| node.settings.base == Priority::OWNER)
    };
    if owned(&world) {
        // It holds whatever its servers do.
        return;
    }
    settle(&mut world);
    let fit = world.dice.place(world.nodes.len());
    for node in 0..world.nodes.len() {
        let able = node == fit || world.dice.chance(30);
        world.judge(node, able);
        let pause = world.dice.below(2_500);
        world.run(Duration::from_millis(pause));
    }
    // Where nobody preempts the hand-off is repeated with back-off.
    let again = if world.preempt == Preempt::Never {
        400
    } else {
        0
    };
    let calm = calm(&world);
    world.run(calm + Duration::from_secs(again));
    let holders = world.holders();
    assert_eq!(holders.len(), 1, "holders {holders:?}");
    assert!(
        world.nodes[holders[0]].health.can_serve,
        "held by a node that cannot serve"
    );
    let moves = world.takeovers;
    world.run(calm);
    assert_eq!(moves, world.takeovers, "moved although nothing changed");
    sum.add(&world);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Plays the seeds on all cores; stops at the first that fails and says which it is.
fn play_all(seeds: u64, play: fn(u64, bool, &Sum)) -> Sum {
    let sum = Sum::default();
    if let Some(seed) = number("LBD_SIM_SEED") {
        play(seed, true, &sum);
        return sum;
    }
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| play(seed, false, &sum));
                    if let Err(panic) = outcome {
                        println!("replay with LBD_SIM_SEED={seed}");
                        next.store(seeds, Ordering::Relaxed);
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
    sum.print(seeds);
    sum
}

#[test]
fn one_node_holds_the_address_whatever_happens() {
    let seeds = number("LBD_SIM_SEEDS").unwrap_or(256);
    let sum = play_all(seeds, play);
    if number("LBD_SIM_SEED").is_none() {
        let moves = sum.moves.load(Ordering::Relaxed);
        assert!(moves > seeds, "the disturbances disturbed nobody");
        assert!(sum.taken.load(Ordering::Relaxed) > seeds / 8);
        assert!(sum.refused.load(Ordering::Relaxed) > seeds / 8);
    }
}

#[test]
fn a_node_that_can_serve_ends_up_with_the_address() {
    let seeds = number("LBD_SIM_SEEDS").unwrap_or(256) / 4;
    play_all(seeds.max(1), play_unfit);
}

#[test]
fn over_days_an_address_moves_only_with_a_reason() {
    let seeds = number("LBD_SIM_SEEDS").unwrap_or(256) / 4;
    let sum = play_all(seeds.max(1), play_days);
    assert!(sum.moves.load(Ordering::Relaxed) > 0);
}
