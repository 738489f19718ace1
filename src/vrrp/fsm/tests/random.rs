//! Seeded random runs: any input at any time, and the invariants after each.

use super::*;

/// xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn input(&mut self) -> Input {
        let pick = |dice: &mut Self, from: &[u8]| {
            let end = u64::try_from(from.len()).unwrap();
            from[usize::try_from(dice.below(end)).unwrap()]
        };
        match self.below(30) {
            0 => Input::Up,
            1 => Input::Down,
            2 => Input::Resume,
            3..=9 => {
                let sender = if self.below(2) == 0 { LOWER } else { HIGHER };
                Input::Advert(Accepted {
                    sender,
                    peer: 0,
                    priority: pick(self, &[0, 1, 2, 100, 149, 150, 151, 254, 255]),
                    interval: AdvertInterval::from_wire_v3(10).unwrap(),
                    interval_as_sent: true,
                    same_addresses: true,
                })
            }
            10..=17 => Input::Timer,
            18 | 19 => health(self.below(4) > 0, self.below(2) == 0, self.below(3)),
            20 => Input::AddressLost,
            21 => Input::AddressFailed,
            22 => Input::NotRenewed,
            23 | 24 => Input::Failover {
                hold: (self.below(2) == 0).then_some(Duration::from_secs(5)),
            },
            25 => Input::ReleaseHold,
            26 => Input::Unheard(self.below(2) == 0),
            27 | 28 => Input::Mute(self.below(2) == 0),
            _ => Input::Health(NodeHealth {
                weight: -60,
                ..NodeHealth::UNKNOWN
            }),
        }
    }
}

fn random_settings(dice: &mut Dice) -> Settings {
    let preempt = match dice.below(3) {
        0 => Preempt::Never,
        1 => Preempt::Always,
        _ => Preempt::After(Duration::from_secs(2)),
    };
    let base = if dice.below(8) == 0 { 255 } else { 150 };
    let mut settings = match dice.below(3) {
        0 => settings(Version::V2, 1_000, base, preempt),
        1 => settings(Version::V3, 10, base, preempt),
        _ => settings(Version::V3, 100, base, preempt),
    };
    settings.spacing = settings.interval.default_spacing();
    settings.alone = dice.below(10) == 0;
    if dice.below(10) == 0 {
        settings.lease = None;
    }
    settings
}

/// Failovers told and not yet answered.
struct Watch {
    seed: u64,
    holding: bool,
    failing_over: bool,
}

impl Watch {
    fn see(&mut self, input: Input, actions: &[Action]) {
        let seed = self.seed;
        let mut answers = 0;
        for action in actions {
            match action {
                Action::Claim => self.holding = true,
                Action::Release { .. } => {
                    assert!(self.holding, "seed {seed}: gives up what it does not have");
                    self.holding = false;
                }
                Action::Renew | Action::Restore | Action::Garp(_) => {
                    assert!(self.holding, "seed {seed}: {action:?} without the address");
                }
                Action::Advertise(priority) => {
                    let asks = *priority == 2;
                    let honest = self.holding || *priority == 0 || asks;
                    assert!(honest, "seed {seed}: advertises a lie");
                }
                Action::Probe | Action::IgnoredResign => {}
                Action::FailedOver { .. } => answers += 1,
            }
        }
        let told = matches!(input, Input::Failover { .. });
        if self.failing_over || told {
            assert!(answers <= 1, "seed {seed}: answered twice");
            self.failing_over = answers == 0;
        } else {
            assert_eq!(answers, 0, "seed {seed}: answers what nobody asked");
        }
    }
}

#[test]
fn random_events_keep_the_invariants() {
    for seed in 1..=256u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let settings = random_settings(&mut dice);
        let owner = settings.base == Priority::OWNER;
        let mut rig = Rig::new(settings);
        rig.tell(Input::Up);
        let mut watch = Watch {
            seed,
            holding: rig.machine.holds(),
            failing_over: false,
        };
        for _ in 0..500 {
            rig.at += match dice.below(3) {
                0 => Duration::ZERO,
                1 => Duration::from_micros(dice.below(20_000)),
                _ => Duration::from_micros(dice.below(300_000)),
            };
            let input = dice.input();
            let actions = rig.tell(input);
            watch.see(input, &actions);
            let machine = &rig.machine;
            assert_eq!(watch.holding, machine.holds(), "seed {seed}");
            let leaving = machine.state() == VrrpState::Leaving;
            assert!(!watch.failing_over || leaving, "seed {seed}: no answer");
            let up = machine.state() != VrrpState::Initialize;
            assert_eq!(up, machine.deadline().is_some(), "seed {seed}");
            let holds_back = machine.hold_until().is_some();
            assert!(!holds_back || !machine.holds(), "seed {seed}: stands down");
            if input == Input::Timer && up {
                assert!(rig.wait() > 0, "seed {seed}: would spin");
            }
            let priority = machine.effective_priority().get();
            assert!((1..=254).contains(&priority) || owner, "seed {seed}");
        }
        let actions = rig.tell(Input::Resign);
        watch.see(Input::Resign, &actions);
        assert!(
            !watch.failing_over,
            "seed {seed}: resigned without an answer"
        );
    }
}
