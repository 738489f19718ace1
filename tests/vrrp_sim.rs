//! Several election machines on a simulated wire: loss, one-way loss, isolation, pauses, crashes,
//! restarts, hand-offs, a client that believes the last gratuitous ARP. 256 seeds;
//! `LBD_SIM_SEED=n` replays one and prints its story.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of a test may stop it, and a replayed seed tells its story"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lbd::config::model::{Garp, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth, Settings};
use lbd::vrrp::validate::Accepted;

const LEASE: Duration = Duration::from_secs(2);

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn place(&mut self, end: usize) -> usize {
        usize::try_from(self.below(u64::try_from(end).unwrap())).unwrap()
    }
}

struct Node {
    machine: Machine,
    settings: Settings,
    alive: bool,
    paused_until: Option<Instant>,
    inbox: Vec<Accepted>,
    /// The kernel removes the address at this time.
    vip_until: Option<Instant>,
    isolated: bool,
    health: NodeHealth,
    /// What the machine was told last.
    seen: NodeHealth,
    /// When it wants to be woken; other wake-ups are stale.
    next_wake: Option<Instant>,
    /// Since when nothing has been done to it.
    undisturbed: Instant,
}

impl Node {
    fn new(settings: Settings, now: Instant) -> Self {
        Self {
            machine: Machine::new(settings.clone(), now),
            settings,
            alive: true,
            paused_until: None,
            inbox: Vec::new(),
            vip_until: None,
            isolated: false,
            health: NodeHealth::UNKNOWN,
            seen: NodeHealth::UNKNOWN,
            next_wake: None,
            undisturbed: now,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake(usize),
    Deliver {
        to: usize,
        from: usize,
        priority: u8,
    },
}

struct World {
    dice: Dice,
    start: Instant,
    now: Instant,
    seq: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    nodes: Vec<Node>,
    /// Percent of packets lost from a node to another.
    loss: Vec<Vec<u64>>,
    interval: AdvertInterval,
    arp: Option<usize>,
    vacant_since: Instant,
    double_since: Option<Instant>,
    story: bool,
    takeovers: usize,
}

fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap()))
}

fn healthy(epoch: u64) -> NodeHealth {
    NodeHealth {
        can_serve: true,
        known: true,
        weight: 0,
        probe_epoch: epoch,
    }
}

impl World {
    fn new(seed: u64, story: bool) -> Self {
        let mut dice = Dice(seed);
        let count = 2 + dice.place(2);
        let version = if dice.chance(30) {
            Version::V2
        } else {
            Version::V3
        };
        let ms = match (version, dice.below(3)) {
            (Version::V2, _) | (Version::V3, 0) => 1000,
            (Version::V3, 1) => 100,
            (Version::V3, _) => 10,
        };
        let interval = AdvertInterval::new(version, Duration::from_millis(ms)).unwrap();
        let preempt = match dice.below(3) {
            0 => Preempt::Never,
            1 => Preempt::Always,
            _ => Preempt::After(Duration::from_secs(3)),
        };
        let now = lbd::net::clock::now();
        let nodes = (0..count)
            .map(|place| {
                let equal = dice.chance(20);
                let base = if equal { 100 } else { 200 - 10 * place };
                let settings = Settings {
                    version,
                    me: address(place),
                    base: Priority::try_from(i64::try_from(base).unwrap()).unwrap(),
                    interval,
                    spacing: interval.duration(),
                    preempt,
                    lease: Some(LEASE),
                    garp: Garp {
                        repeat: 5,
                        delay: Duration::ZERO,
                        refresh: Duration::from_secs(5),
                        interval: Duration::ZERO,
                    },
                    recovery_delay: Duration::from_secs(1),
                    alone: false,
                };
                Node::new(settings, now)
            })
            .collect();
        let mut world = Self {
            dice,
            start: now,
            now,
            seq: 0,
            queue: BinaryHeap::new(),
            nodes,
            loss: vec![vec![0; count]; count],
            interval,
            arp: None,
            vacant_since: now,
            double_since: None,
            story,
            takeovers: 0,
        };
        world.tell(&format!("{count} nodes {version:?} {ms} ms {preempt:?}"));
        for node in 0..count {
            world.input(node, Input::Up);
            let first = world.dice.below(1500);
            world.after(first, node);
        }
        world
    }

    fn tell(&self, what: &str) {
        if self.story {
            println!("{:>9.4} {what}", (self.now - self.start).as_secs_f64());
        }
    }

    fn after(&mut self, ms: u64, node: usize) {
        self.wake(self.now + Duration::from_millis(ms), node);
    }

    fn wake(&mut self, at: Instant, node: usize) {
        self.nodes[node].next_wake = Some(at);
        self.at(at, Event::Wake(node));
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq, event)));
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].alive && self.nodes[node].paused_until.is_none()
    }

    fn input(&mut self, place: usize, input: Input) {
        let before = self.nodes[place].machine.state();
        let actions = self.nodes[place].machine.handle(self.now, input);
        let after = self.nodes[place].machine.state();
        if before != after {
            let reason = self.nodes[place].machine.reason();
            self.tell(&format!("node {place} {before:?} -> {after:?}: {reason}"));
            if after == VrrpState::Active {
                self.takeovers += 1;
            }
        }
        for action in actions.iter() {
            self.act(place, action);
        }
        if let Some(deadline) = self.nodes[place].machine.deadline() {
            assert!(
                input != Input::Timer || deadline > self.now,
                "node {place} would spin in {after:?}"
            );
            // Scheduling is never exact.
            let jitter = Duration::from_micros(self.dice.below(900));
            if self.runs(place) {
                self.wake(deadline.max(self.now) + jitter, place);
            }
        }
    }

    fn act(&mut self, place: usize, action: Action) {
        match action {
            Action::Claim | Action::Renew | Action::Restore => {
                if action == Action::Renew {
                    let until = self.nodes[place].vip_until;
                    assert!(
                        until.is_some_and(|until| until > self.now),
                        "node {place} renews an address that the kernel has removed"
                    );
                }
                self.nodes[place].vip_until = Some(self.now + LEASE);
            }
            Action::Release { .. } => self.nodes[place].vip_until = None,
            Action::Advertise(priority) => {
                for to in 0..self.nodes.len() {
                    let percent = self.loss[place][to];
                    let lost = self.dice.chance(percent);
                    let apart = self.nodes[place].isolated || self.nodes[to].isolated;
                    if to != place && !lost && !apart {
                        let delay = Duration::from_micros(50 + self.dice.below(900));
                        let event = Event::Deliver {
                            to,
                            from: place,
                            priority,
                        };
                        self.at(self.now + delay, event);
                    }
                }
            }
            Action::Garp(_) => {
                assert!(
                    self.nodes[place].vip_until.is_some(),
                    "node {place} announces an address it does not have"
                );
                if !self.nodes[place].isolated {
                    self.arp = Some(place);
                }
            }
            Action::Probe => {
                // Answered at the next wake-up.
                if self.nodes[place].health.can_serve {
                    self.nodes[place].health.probe_epoch += 1;
                }
            }
            Action::IgnoredResign | Action::FailedOver { .. } => {}
        }
    }

    fn drain(&mut self, place: usize) {
        for advert in std::mem::take(&mut self.nodes[place].inbox) {
            self.input(place, Input::Advert(advert));
        }
    }

    fn probed(&mut self, place: usize) {
        let health = self.nodes[place].health;
        if self.nodes[place].seen != health {
            self.nodes[place].seen = health;
            self.input(place, Input::Health(health));
        }
    }

    fn step(&mut self, until: Instant) -> bool {
        let Some(Reverse((at, _, event))) = self.queue.pop() else {
            return false;
        };
        if at > until {
            self.at(at, event);
            self.now = until;
            return false;
        }
        self.now = at;
        for node in &mut self.nodes {
            if node.vip_until.is_some_and(|gone| gone <= at) {
                node.vip_until = None;
            }
        }
        match event {
            Event::Deliver { to, from, priority } => {
                if self.nodes[to].alive {
                    let advert = Accepted {
                        sender: address(from),
                        peer: from,
                        priority,
                        interval: self.interval,
                        interval_as_sent: true,
                        same_addresses: true,
                    };
                    self.nodes[to].inbox.push(advert);
                }
                if self.runs(to) {
                    self.drain(to);
                    self.probed(to);
                }
            }
            Event::Wake(place) if self.nodes[place].next_wake != Some(at) => {}
            Event::Wake(place) => {
                if self.nodes[place].paused_until.is_some_and(|end| end <= at) {
                    self.nodes[place].paused_until = None;
                    self.nodes[place].undisturbed = at;
                    self.tell(&format!("node {place} goes on"));
                }
                if self.runs(place) {
                    self.drain(place);
                    let due = self.nodes[place].machine.deadline();
                    if due.is_some_and(|due| due <= at) {
                        self.input(place, Input::Timer);
                    }
                    self.probed(place);
                    if self.nodes[place].next_wake == Some(at)
                        && let Some(deadline) = self.nodes[place].machine.deadline()
                    {
                        self.wake(deadline.max(at + Duration::from_micros(1)), place);
                    }
                }
            }
        }
        self.check();
        true
    }

    /// Two that hear each other don't both stay Active; a vacant address is taken.
    fn check(&mut self) {
        let interval = self.interval.duration();
        let fit: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.runs(*node) && !self.nodes[*node].isolated)
            .collect();
        let no_loss = fit
            .iter()
            .all(|from| fit.iter().all(|to| self.loss[*from][*to] == 0));
        let active = fit
            .iter()
            .filter(|node| self.nodes[**node].machine.state() == VrrpState::Active)
            .count();
        if active > 1 && no_loss {
            let since = *self.double_since.get_or_insert(self.now);
            let bound = 2 * interval + Duration::from_millis(10);
            assert!(
                self.now - since <= bound,
                "two actives that hear each other for more than {bound:?}"
            );
        } else {
            self.double_since = None;
        }
        let held = self.nodes.iter().any(|node| node.vip_until.is_some());
        // Of a node that could take it for long enough the bound holds: four intervals (one second
        // of skew in version 2 at the shortest), the grace at its start, late timers.
        let bound = 8 * interval + Duration::from_secs(4);
        let able = fit
            .iter()
            .map(|node| &self.nodes[*node])
            .any(|node| !node.machine.is_released() && self.now - node.undisturbed > bound);
        if held || !able {
            self.vacant_since = self.now;
        }
        assert!(
            self.now - self.vacant_since <= bound,
            "vacant for more than {bound:?}"
        );
    }

    fn disturb(&mut self) {
        let place = self.dice.place(self.nodes.len());
        let other = self.dice.place(self.nodes.len());
        let now = self.now;
        match self.dice.below(9) {
            0 => {
                self.loss[place][other] = 30 + self.dice.below(71);
                self.tell(&format!(
                    "loss {place}->{other} {}%",
                    self.loss[place][other]
                ));
            }
            1 => {
                self.nodes[place].isolated ^= true;
                self.nodes[place].undisturbed = now;
                self.tell(&format!("isolated {place}: {}", self.nodes[place].isolated));
            }
            2 => {
                let ms = self.dice.below(4000);
                self.nodes[place].paused_until = Some(now + Duration::from_millis(ms));
                self.nodes[place].undisturbed = now;
                self.tell(&format!("node {place} paused for {ms} ms"));
                self.after(ms, place);
            }
            3 => {
                self.tell(&format!("node {place} killed"));
                self.nodes[place].alive = false;
            }
            4 | 5 => self.restart(place),
            6 => self.health(place, false),
            7 => self.health(place, true),
            _ => {
                if self.runs(place) {
                    self.tell(&format!("node {place} resigns"));
                    self.input(place, Input::Resign);
                }
            }
        }
        if self.dice.chance(20) && self.runs(place) {
            self.tell(&format!("address deleted on {place}"));
            self.nodes[place].vip_until = None;
            self.input(place, Input::AddressLost);
            if self.nodes[place].machine.holds() {
                // A second deletion within milliseconds waits for the renewal.
                self.nodes[place].vip_until = Some(now + LEASE);
            }
        }
        self.double_since = None;
    }

    fn health(&mut self, place: usize, can_serve: bool) {
        let node = &mut self.nodes[place];
        let epoch = node.health.probe_epoch + u64::from(can_serve);
        node.health = NodeHealth {
            can_serve,
            ..healthy(epoch)
        };
        let health = node.health;
        self.tell(&format!("node {place} can serve: {can_serve}"));
        if self.runs(place) {
            self.nodes[place].seen = health;
            self.input(place, Input::Health(health));
        }
    }

    fn restart(&mut self, place: usize) {
        let gone = !self.nodes[place].alive || self.nodes[place].machine.is_released();
        if gone {
            self.tell(&format!("node {place} starts"));
            let node = &mut self.nodes[place];
            node.alive = true;
            node.paused_until = None;
            node.vip_until = None;
            node.inbox.clear();
            node.undisturbed = self.now;
            node.health = healthy(node.health.probe_epoch + 1);
            node.seen = NodeHealth::UNKNOWN;
            node.machine = Machine::new(node.settings.clone(), self.now);
            self.input(place, Input::Up);
        }
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
        self.now = until;
    }

    fn heal(&mut self) {
        self.tell("all is well again");
        for row in &mut self.loss {
            row.fill(0);
        }
        for place in 0..self.nodes.len() {
            self.nodes[place].isolated = false;
            self.nodes[place].paused_until = None;
            self.nodes[place].undisturbed = self.now;
            self.restart(place);
            self.health(place, true);
            self.after(0, place);
        }
        self.double_since = None;
    }

    fn holders(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].vip_until.is_some())
            .collect()
    }

    fn expect_one_good_holder(&self) {
        let holders = self.holders();
        assert_eq!(holders.len(), 1, "holders: {holders:?}");
        let holder = holders[0];
        assert_eq!(self.nodes[holder].machine.state(), VrrpState::Active);
        assert_eq!(self.arp, Some(holder), "the client's ARP entry is stale");
        let best = self.nodes.iter().map(|node| node.settings.base).max();
        if self.nodes[holder].settings.preempt != Preempt::Never {
            let base = self.nodes[holder].settings.base;
            assert_eq!(Some(base), best, "the holder is not the strongest node");
        }
    }
}

fn play(seed: u64, story: bool) -> usize {
    let mut world = World::new(seed, story);
    for node in 0..world.nodes.len() {
        world.nodes[node].health = healthy(0);
    }
    world.run(Duration::from_secs(8));
    let disturbances = 10 + world.dice.below(20);
    for _ in 0..disturbances {
        world.disturb();
        let pause = world.dice.below(3000);
        world.run(Duration::from_millis(pause));
    }
    world.heal();
    let calm = 20 * world.interval.duration() + Duration::from_secs(8);
    world.run(calm);
    for node in 0..world.nodes.len() {
        // Those that were about to leave have left by now.
        world.restart(node);
    }
    world.run(calm);
    world.expect_one_good_holder();
    let moves = world.takeovers;
    world.run(calm);
    world.expect_one_good_holder();
    assert_eq!(moves, world.takeovers, "moved although all is well");
    moves
}

/// Nodes of one kind, the first of them Active, all well.
fn calm(seed: u64) -> World {
    let mut world = World::new(seed, false);
    for node in 0..world.nodes.len() {
        world.nodes[node].health = healthy(0);
    }
    world.run(Duration::from_secs(12));
    world
}

#[test]
fn a_healed_partition_leaves_one_holder_and_no_stale_arp() {
    for seed in 0..200 {
        let mut world = calm(seed);
        let place = world.dice.place(world.nodes.len());
        world.nodes[place].isolated = true;
        let apart = Duration::from_micros(4_500_000 + world.dice.below(4_000_000));
        world.run(apart);
        world.nodes[place].isolated = false;
        let moment = world.interval.duration() + Duration::from_millis(50);
        world.run(moment);
        let holders = world.holders();
        assert_eq!(holders.len(), 1, "seed {seed}: {holders:?}");
        assert_eq!(world.arp, Some(holders[0]), "seed {seed}: stale ARP");
    }
}

#[test]
fn a_killed_holder_is_replaced_within_four_intervals() {
    for seed in 0..200 {
        let mut world = calm(seed);
        let holder = world.holders()[0];
        world.nodes[holder].alive = false;
        let version = world.nodes[holder].settings.version;
        let skew = match version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => world.interval.duration(),
        };
        let bound = 3 * world.interval.duration() + skew + Duration::from_millis(2);
        world.run(bound);
        let active =
            world.nodes.iter().enumerate().filter(|(place, node)| {
                *place != holder && node.machine.state() == VrrpState::Active
            });
        assert_eq!(active.count(), 1, "seed {seed}");
        world.run(LEASE);
        assert_eq!(
            world.holders().len(),
            1,
            "seed {seed}: the lease has not ended"
        );
    }
}

#[test]
fn one_node_holds_the_address_whatever_happens() {
    if let Ok(seed) = std::env::var("LBD_SIM_SEED") {
        play(seed.parse().unwrap(), true);
        return;
    }
    let seeds = std::env::var("LBD_SIM_SEEDS").map_or(256, |count| count.parse().unwrap());
    let mut moves = 0;
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| play(seed, false));
        match outcome {
            Ok(count) => moves += count,
            Err(panic) => {
                println!("replay with LBD_SIM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(moves > 256, "the disturbances disturbed nobody");
}

/// Some nodes can serve and some cannot, for good.
fn play_unfit(seed: u64, story: bool) {
    let mut world = World::new(seed, story);
    for node in 0..world.nodes.len() {
        world.nodes[node].health = healthy(0);
    }
    world.run(Duration::from_secs(8));
    for _ in 0..world.dice.below(12) {
        world.disturb();
        let pause = world.dice.below(3000);
        world.run(Duration::from_millis(pause));
    }
    world.heal();
    let calm = 20 * world.interval.duration() + Duration::from_secs(8);
    world.run(calm);
    for node in 0..world.nodes.len() {
        world.restart(node);
    }
    world.run(calm);
    let fit = world.dice.place(world.nodes.len());
    for node in 0..world.nodes.len() {
        let able = node == fit || world.dice.chance(30);
        world.health(node, able);
        let pause = world.dice.below(2500);
        world.run(Duration::from_millis(pause));
    }
    // Where nobody preempts the hand-off is repeated with back-off.
    let never = world.nodes[0].settings.preempt == Preempt::Never;
    let again = Duration::from_secs(if never { 400 } else { 0 });
    world.run(calm + again);
    let holders = world.holders();
    assert_eq!(holders.len(), 1, "holders {holders:?}");
    assert!(
        world.nodes[holders[0]].health.can_serve,
        "held by a node that cannot serve"
    );
    let moves = world.takeovers;
    world.run(calm);
    assert_eq!(moves, world.takeovers, "moved although nothing changed");
}

#[test]
fn a_node_that_can_serve_ends_up_with_the_address() {
    if let Ok(seed) = std::env::var("LBD_SIM_SEED") {
        play_unfit(seed.parse().unwrap(), true);
        return;
    }
    for seed in 0..64 {
        let outcome = std::panic::catch_unwind(|| play_unfit(seed, false));
        if let Err(panic) = outcome {
            println!("replay with LBD_SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
