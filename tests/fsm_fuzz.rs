//! The election machine under any input at any time: whatever order events come in, however long
//! the machine sleeps between them, in any configuration. What must hold after each step stands in
//! `Watch::step`, what must come true in the end in `is_taken_in_the_end`. `LBD_FUZZ_STEPS` says how
//! long, `LBD_FUZZ_SEED` where to begin; a failure names the seed that replays it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of a test may stop it, and a failure says how to replay it"
)]

#[path = "lab/dice.rs"]
mod dice;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use dice::Dice;
use lbd::config::model::{Garp, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth, Settings};
use lbd::vrrp::timing::bounded_interval;
use lbd::vrrp::validate::Accepted;

const STEPS_PER_SEED: u32 = 400;
/// Between two renewals of the addresses' lifetime.
const RENEWAL: Duration = Duration::from_millis(500);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn settings(dice: &mut Dice) -> Settings {
    let version = dice.one_of(&[Version::V2, Version::V3]);
    let interval = match version {
        Version::V2 => dice.one_of(&[1000, 2000, 255_000]),
        Version::V3 => dice.one_of(&[10, 20, 100, 1000, 3000, 40_950]),
    };
    let times = [0, 1, 20, 500, 5000, 30_000];
    let interval = AdvertInterval::new(version, ms(interval)).unwrap();
    Settings {
        version,
        me: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 2)),
        base: Priority::try_from(dice.one_of(&[2, 100, 200, 254, 254, 255])).unwrap(),
        interval,
        spacing: dice.one_of(&[interval.default_spacing(), interval.duration()]),
        preempt: match dice.below(4) {
            0 => Preempt::Never,
            1 => Preempt::Always,
            2 => Preempt::After(Duration::ZERO),
            _ => Preempt::After(ms(dice.below(20_000))),
        },
        lease: dice.one_of(&[None, Some(ms(1000)), Some(ms(2000)), Some(ms(60_000))]),
        garp: Garp {
            repeat: dice.one_of(&[0, 1, 5, 255]),
            delay: ms(dice.one_of(&times)),
            refresh: ms(dice.one_of(&times)),
            interval: ms(dice.one_of(&[0, 0, 1, 50])),
        },
        recovery_delay: ms(dice.one_of(&times)),
        alone: dice.below(8) == 0,
    }
}

fn advert(dice: &mut Dice, settings: &Settings) -> Input {
    let interval = match settings.version {
        Version::V2 => settings.interval,
        // What validation lets through.
        Version::V3 => {
            let sent = u16::try_from(1 + dice.below(4095)).unwrap();
            let sent = dice.one_of(&[sent, settings.interval.centiseconds()]);
            bounded_interval(
                settings.interval,
                AdvertInterval::from_wire_v3(sent).unwrap(),
            )
        }
    };
    let other = dice.byte();
    Input::Advert(Accepted {
        sender: IpAddr::V4(Ipv4Addr::new(172, 16, 0, dice.one_of(&[1, 3, 10]))),
        peer: 0,
        priority: dice.one_of(&[0, 0, 1, 99, 100, 101, 200, 254, 255, other]),
        interval,
        interval_as_sent: true,
        same_addresses: true,
    })
}

fn health(dice: &mut Dice) -> Input {
    Input::Health(NodeHealth {
        can_serve: dice.coin(),
        known: dice.below(8) != 0,
        weight: dice.one_of(&[0, 0, 20, -60, 253, i32::MIN, i32::MAX]),
        probe_epoch: dice.one_of(&[0, 1, 2, NodeHealth::NO_PROBE]),
    })
}

fn input(dice: &mut Dice, settings: &Settings) -> Input {
    match dice.below(40) {
        0 | 1 => Input::Up,
        2 => Input::Down,
        3 => Input::Resume,
        4..=14 => advert(dice, settings),
        15..=30 => Input::Timer,
        31..=34 => health(dice),
        35 => Input::AddressLost,
        36 if dice.below(4) == 0 => Input::AddressFailed,
        37 => Input::NotRenewed,
        38 if dice.below(30) == 0 => Input::Resign,
        38 if dice.coin() => Input::Failover {
            hold: dice.one_of(&[None, Some(ms(1)), Some(ms(20_000))]),
        },
        38 => Input::ReleaseHold,
        39 if dice.coin() => Input::Unheard(dice.coin()),
        39 => Input::Mute(dice.coin()),
        _ => Input::Timer,
    }
}

/// What an observer of inputs and actions knows.
struct Watch {
    machine: Machine,
    now: Instant,
    /// The addresses are here, as far as the actions say.
    claimed: bool,
    /// When the kernel was last given the lifetime, and the time before.
    renewed: [Instant; 2],
    /// The last advert of an Active's timer.
    advertised: Option<Instant>,
    /// It was told that the link is up, or that it was Active a moment ago.
    part: bool,
    visited: [u32; 4],
}

impl Watch {
    fn step(&mut self, input: Input) {
        let before = self.machine.clone();
        let actions: Vec<Action> = self.machine.handle(self.now, input).iter().collect();
        let told = format!("{input:?} in {before:?} gave {actions:?}");
        match input {
            Input::Up => self.part = true,
            Input::Resume => self.part |= self.machine.state() == VrrpState::Active,
            Input::Down => self.part = false,
            Input::Advert(_)
            | Input::Timer
            | Input::Health(_)
            | Input::AddressLost
            | Input::AddressFailed
            | Input::Resign
            | Input::Failover { .. }
            | Input::ReleaseHold
            | Input::Unheard(_)
            | Input::Mute(_) => {}
            Input::NotRenewed => self.renewed[0] = self.renewed[1],
        }
        for action in &actions {
            match action {
                Action::Claim => {
                    assert!(!self.claimed, "claimed twice: {told}");
                    self.claimed = true;
                    self.renewed = [self.now; 2];
                }
                Action::Release { .. } => {
                    assert!(self.claimed, "released twice: {told}");
                    self.claimed = false;
                }
                Action::Renew | Action::Restore => {
                    assert!(self.claimed, "without the addresses: {told}");
                    self.renewed = [self.now, self.renewed[0]];
                }
                // A Backup that doubts that it is heard asks with the lowest priority but one.
                Action::Advertise(2) if self.machine.state() == VrrpState::Backup => {}
                Action::Garp(_) | Action::Advertise(_) => {
                    assert!(self.claimed, "without the addresses: {told}");
                }
                Action::FailedOver { .. } | Action::Probe | Action::IgnoredResign => {}
            }
            assert_ne!(*action, Action::Garp(0), "{told}");
        }
        let active = before.state() == VrrpState::Active;
        let advertises = |action: &Action| matches!(action, Action::Advertise(1..));
        if input == Input::Timer && active && actions.iter().any(advertises) {
            let once = self.advertised.is_none_or(|at| at < self.now);
            assert!(once, "advertised twice at one moment: {told}");
            self.advertised = Some(self.now);
        }
        self.check(&before, &told);
        if before.is_released() {
            let answered = actions == [Action::FailedOver { taken: false }];
            assert!(actions.is_empty() || answered, "left for good: {told}");
        }
    }

    fn check(&mut self, before: &Machine, told: &str) {
        let machine = &self.machine;
        assert_eq!(machine.holds(), self.claimed, "{told}");
        let state = machine.state();
        let holds = matches!(state, VrrpState::Active | VrrpState::Leaving);
        assert_eq!(holds, self.claimed, "{told}");
        assert!(
            self.part || state == VrrpState::Initialize,
            "no link: {told}"
        );
        assert_eq!(
            machine.deadline().is_none(),
            state == VrrpState::Initialize,
            "{told}"
        );
        if before.is_released() {
            assert!(machine.is_released(), "came back: {told}");
        }
        let owner = machine.settings().base == Priority::OWNER;
        let priority = machine.effective_priority();
        assert_eq!(priority == Priority::OWNER, owner, "{told}");
        if let (Some(deadline), true, Some(lease)) =
            (machine.deadline(), holds, machine.settings().lease)
        {
            assert!(deadline <= self.now + RENEWAL, "renews too late: {told}");
            // The kernel has dropped them otherwise.
            assert!(self.now < self.renewed[0] + lease, "lapsed: {told}");
        }
        self.visited[match state {
            VrrpState::Initialize => 0,
            VrrpState::Backup => 1,
            VrrpState::Active => 2,
            VrrpState::Leaving => 3,
        }] += 1;
    }

    /// A machine whose timer is due makes progress: asked again and again at one moment, it soon
    /// wants nothing before a later one.
    fn settles(&mut self) {
        for _ in 0..8 {
            if self.machine.deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.step(Input::Timer);
        }
        let left = self.machine.deadline().map(|at| at - self.now);
        panic!("spins: due in {left:?} {:?}", self.machine);
    }

    /// Nobody else is there and the link is up: the addresses are taken, within a bound.
    fn is_taken_in_the_end(&self) {
        let mut other = Self {
            machine: self.machine.clone(),
            ..*self
        };
        let own = other.machine.settings().interval;
        let longest = other.machine.interval().duration().max(own.duration());
        let bound = 5 * longest + Duration::from_secs(10) + other.machine.settings().recovery_delay;
        let until = other.now + bound;
        for step in 0.. {
            if other.machine.state() == VrrpState::Active {
                return;
            }
            assert!(step < 100_000, "spins: {:?}", other.machine);
            let state = other.machine.state();
            assert_ne!(state, VrrpState::Initialize, "{:?}", self.machine);
            let due = other.machine.deadline().unwrap();
            assert!(due <= until, "not within {bound:?}: {:?}", self.machine);
            other.now = other.now.max(due);
            other.step(Input::Timer);
        }
    }
}

fn play(seed: u64) -> [u32; 4] {
    let mut dice = Dice(seed);
    let settings = settings(&mut dice);
    let now = lbd::net::clock::now();
    let mut watch = Watch {
        machine: Machine::new(settings.clone(), now),
        now,
        claimed: false,
        renewed: [now; 2],
        advertised: None,
        part: false,
        visited: [0; 4],
    };
    for _ in 0..STEPS_PER_SEED {
        // Mostly to the deadline, where the decisions are; also no time at all, and far too much.
        let to_deadline = watch
            .machine
            .deadline()
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(watch.now));
        watch.now += match dice.below(12) {
            0 => Duration::ZERO,
            1 => ms(dice.below(20)),
            2 => ms(dice.below(5000)),
            3 if dice.below(10) == 0 => ms(dice.below(600_000)),
            4 => to_deadline + settings.interval.duration() * 2 / 3,
            5 => to_deadline.saturating_sub(Duration::from_nanos(1)),
            _ => to_deadline,
        };
        let next = input(&mut dice, &settings);
        watch.step(next);
        if next == Input::Timer {
            watch.settles();
        }
        if watch.machine.is_released() && dice.below(8) == 0 {
            watch.machine = Machine::new(settings.clone(), watch.now);
            watch.part = false;
        } else if !watch.part && dice.below(4) == 0 {
            watch.step(Input::Up);
        }
        let leaves = watch.machine.is_released() || !watch.part;
        if !leaves && watch.machine.state() != VrrpState::Leaving && dice.below(16) == 0 {
            watch.is_taken_in_the_end();
        }
        if dice.below(100) == 0 {
            let delay = ms(dice.below(10_000));
            watch.machine.set_recovery_delay(delay);
        }
    }
    watch.visited
}

#[test]
fn whatever_happens_the_machine_keeps_its_promises() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let steps = number("LBD_FUZZ_STEPS", 500_000);
    let first = number("LBD_FUZZ_SEED", 0);
    let seeds = (steps / u64::from(STEPS_PER_SEED)).max(1);
    let mut visited = [0; 4];
    for seed in first..first + seeds {
        match std::panic::catch_unwind(|| play(seed)) {
            Ok(counts) => {
                for (all, count) in visited.iter_mut().zip(counts) {
                    *all += count;
                }
            }
            Err(panic) => {
                println!("replay with LBD_FUZZ_SEED={seed} LBD_FUZZ_STEPS={STEPS_PER_SEED}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds, states after a step: {visited:?}");
    let each = u32::try_from(steps / 100).unwrap();
    assert!(visited.iter().all(|count| *count > each), "{visited:?}");
}
