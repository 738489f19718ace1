//! What kind of world it is: nodes, version, intervals, chosen by hand or by chance.

use std::time::Duration;

use lbd::config::model::{Garp, Preempt};
use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::Settings;

use super::dice::Dice;
use super::node::address;

const LEASE: Duration = Duration::from_secs(2);

/// What kind of world it is.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) version: Version,
    pub(crate) interval: Duration,
    pub(crate) spacing: Duration,
    pub(crate) preempt: Preempt,
    pub(crate) lease: Option<Duration>,
    /// `garp.refresh`.
    pub(crate) refresh: Duration,
    /// Priority and whether it is keepalived, by node.
    pub(crate) nodes: Vec<(u8, bool)>,
    /// Clocks run at up to so much per mille more or less.
    pub(crate) drift: u64,
    /// Whether there is a peer channel.
    pub(crate) channel: bool,
}

impl Plan {
    /// Two lbd nodes, all well.
    pub(crate) fn pair(version: Version, ms: u64) -> Self {
        let interval = Duration::from_millis(ms);
        Self {
            version,
            interval,
            spacing: (interval / 5).max(Duration::from_millis(10)),
            preempt: Preempt::Always,
            lease: Some(LEASE),
            refresh: Duration::from_secs(5),
            nodes: vec![(200, false), (190, false)],
            drift: 0,
            channel: false,
        }
    }

    pub(crate) fn random(dice: &mut Dice) -> Self {
        let version = if dice.chance(30) {
            Version::V2
        } else {
            Version::V3
        };
        let ms = match version {
            Version::V2 => dice.one_of(&[1_000, 1_000, 2_000]),
            Version::V3 => dice.one_of(&[10, 20, 100, 100, 250, 1_000, 1_000, 3_000]),
        };
        let spacing = match dice.below(4) {
            0 => Duration::from_millis(ms),
            _ => Duration::from_millis((ms / 5).max(10)),
        };
        let preempt = match dice.below(3) {
            0 => Preempt::Never,
            1 => Preempt::Always,
            _ => Preempt::After(Duration::from_secs(3)),
        };
        Self {
            spacing,
            preempt,
            lease: (!dice.chance(5)).then_some(LEASE),
            nodes: Self::random_nodes(dice),
            drift: dice.one_of(&[0, 20, 100]),
            channel: dice.chance(60),
            ..Self::pair(version, ms)
        }
    }

    /// A world of long intervals, where faults are hours apart.
    pub(crate) fn slow(dice: &mut Dice) -> Self {
        Self {
            lease: None,
            refresh: Duration::from_secs(120),
            nodes: Self::random_nodes(dice),
            drift: dice.one_of(&[0, 20, 100]),
            ..Self::pair(Version::V3, dice.one_of(&[10_000, 40_000]))
        }
    }

    fn random_nodes(dice: &mut Dice) -> Vec<(u8, bool)> {
        let count = 2 + dice.place(4);
        let mixed = dice.chance(25);
        let node = |place| {
            let owner = place == 0 && dice.chance(10);
            let equal = dice.chance(20);
            let base = match (owner, equal) {
                (true, _) => 255,
                (false, true) => 100,
                (false, false) => 200 - 10 * u8::try_from(place).unwrap(),
            };
            (base, mixed && dice.chance(50))
        };
        (0..count).map(node).collect()
    }

    pub(crate) fn settings(&self, place: usize) -> Settings {
        Settings {
            version: self.version,
            me: address(place),
            base: Priority::try_from(i64::from(self.nodes[place].0)).unwrap(),
            interval: AdvertInterval::new(self.version, self.interval).unwrap(),
            spacing: self.spacing,
            preempt: self.preempt,
            lease: self.lease,
            garp: Garp {
                repeat: 5,
                delay: Duration::ZERO,
                refresh: self.refresh,
                interval: Duration::ZERO,
            },
            recovery_delay: Duration::from_secs(1),
            alone: false,
        }
    }
}
