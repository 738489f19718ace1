//! What can happen to the active node, what is configured, and how one run is measured: the same
//! for the tool that makes the table (`tests/failover`) and the tests that hold lbd to it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use lbd::net::clock;
use nix::sys::signal::Signal;

use super::peers::Version;
use super::{LB1, LB2, Pair, Role, SEED, config};

/// What happens to lb2, which holds the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// SIGTERM to lbd, or to keepalived.
    Sigterm,
    /// The VRRP daemon is killed; its proxy goes on.
    KeeperKilled,
    /// The same, and a service manager starts it again after 100 ms.
    KeeperRestarted,
    /// Every process is killed.
    AllKilled,
    /// The node is off the switch: its interface keeps its carrier, nothing passes.
    Vanishes,
    /// The interface loses its carrier.
    LinkDown,
    /// Every process is stopped.
    AllStopped,
    /// The node was off the switch until the other had taken over, and comes back.
    Heals,
    /// Someone deletes the address.
    VipDeleted,
    /// The proxy is stopped.
    ProxyStopped,
}

impl Scenario {
    pub const ALL: [Self; 10] = [
        Self::Sigterm,
        Self::KeeperKilled,
        Self::KeeperRestarted,
        Self::AllKilled,
        Self::Vanishes,
        Self::LinkDown,
        Self::AllStopped,
        Self::Heals,
        Self::VipDeleted,
        Self::ProxyStopped,
    ];

    /// The word that `--only` takes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sigterm => "sigterm",
            Self::KeeperKilled => "keeper-killed",
            Self::KeeperRestarted => "keeper-restarted",
            Self::AllKilled => "all-killed",
            Self::Vanishes => "vanishes",
            Self::LinkDown => "link-down",
            Self::AllStopped => "all-stopped",
            Self::Heals => "heals",
            Self::VipDeleted => "vip-deleted",
            Self::ProxyStopped => "proxy-stopped",
        }
    }

    /// What the table says.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sigterm => "planned leave: SIGTERM",
            Self::KeeperKilled => "VRRP daemon: kill -9",
            Self::KeeperRestarted => "VRRP daemon: kill -9, restarted after 100 ms",
            Self::AllKilled => "everything: kill -9",
            Self::Vanishes => "node vanishes from the network",
            Self::LinkDown => "link down",
            Self::AllStopped => "everything: SIGSTOP",
            Self::Heals => "partition heals",
            Self::VipDeleted => "VIP deleted by hand",
            Self::ProxyStopped => "proxy: SIGSTOP",
        }
    }

    /// How long to look at least: a gap may begin late, and a dead node's address ends with its
    /// lease.
    fn watch(self, setup: &Setup) -> Duration {
        let slow = setup.interval >= Duration::from_secs(1);
        let ms = match self {
            Self::KeeperKilled | Self::AllKilled | Self::AllStopped if slow => 4_500,
            Self::KeeperRestarted | Self::Vanishes | Self::LinkDown | Self::Heals if slow => 4_500,
            Self::KeeperKilled | Self::AllKilled | Self::AllStopped => 3_000,
            Self::ProxyStopped => 3_000,
            Self::Sigterm if slow => 2_500,
            Self::Sigterm | Self::VipDeleted => 1_500,
            Self::KeeperRestarted | Self::Vanishes | Self::LinkDown | Self::Heals => 1_500,
        };
        Duration::from_millis(ms)
    }
}

/// Version and interval.
#[derive(Debug)]
pub struct Setup {
    /// The word that `--only` takes.
    pub word: &'static str,
    /// keepalived's file.
    pub version: Version,
    /// Between two adverts.
    pub interval: Duration,
    /// Labs at once that don't disturb each other on two processors.
    pub parallel: usize,
}

pub const V2_1S: Setup = Setup {
    word: "v2-1s",
    version: Version::V2,
    interval: Duration::from_secs(1),
    parallel: 4,
};
pub const V3_100MS: Setup = Setup {
    word: "v3-100ms",
    version: Version::V3,
    interval: Duration::from_millis(100),
    parallel: 3,
};
pub const V3_10MS: Setup = Setup {
    word: "v3-10ms",
    version: Version::V3,
    interval: Duration::from_millis(10),
    parallel: 2,
};

impl Setup {
    /// lbd's file.
    pub fn lbd(&self) -> String {
        let vip = match self.version {
            // lbd's own default: preempt after 10 s.
            Version::V2 => SEED.replace("preempt = true\n", ""),
            Version::V3 => {
                let ms = self.interval.as_millis();
                format!("version = 3\nadvert-interval = \"{ms}ms\"")
            }
        };
        config(&vip)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stack {
    Lbd,
    Keepalived,
}

/// What one run showed.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The client's gap; `None`: it never ended.
    pub gap: Option<Duration>,
    pub refused: usize,
    pub failed: usize,
    /// Long-lived connections that broke, of five.
    pub lost: usize,
    /// How long lb2 kept the address; `None`: it has it at the end.
    pub kept: Option<Duration>,
    /// How long two nodes had it; `None`: they still had when we stopped looking.
    pub double: Option<Duration>,
    /// What this machine adds: `Pair::slack`.
    pub slack: Duration,
    /// How much longer than alone on the machine things took: `Noise::since`.
    pub busy: u32,
}

/// The pair, serving, lb2 in charge, lb1 fit to replace it.
pub fn pair(stack: Stack, setup: &Setup) -> Pair {
    let mut pair = Pair::new();
    for node in [LB2, LB1] {
        start(&mut pair, node, stack, setup);
        if stack == Stack::Keepalived {
            pair.start_haproxy(node);
        }
        if node == LB2 {
            pair.until("lb2 holds the VIP", 20_000, |pair| pair.holds(LB2));
        }
    }
    pair.settle();
    if stack == Stack::Lbd {
        pair.until_fit(LB1);
    }
    pair
}

fn start(pair: &mut Pair, node: usize, stack: Stack, setup: &Setup) {
    match stack {
        Stack::Lbd => pair.start_lbd(node, &setup.lbd()),
        Stack::Keepalived => pair.start_keepalived_at(node, setup.version, setup.interval),
    }
}

/// One run.
pub fn measure(stack: Stack, scenario: Scenario, setup: &Setup) -> Seen {
    let mut pair = pair(stack, setup);
    // Not always at the same point of the advert interval.
    let interval = u64::try_from(setup.interval.as_micros()).expect("short");
    let phase = clock::wall()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::from(now.subsec_micros()) % interval);
    std::thread::sleep(Duration::from_millis(100) + Duration::from_micros(phase));
    let at = provoke(&mut pair, stack, scenario, setup);
    let served_again = wait_for_recovery(&pair, at, scenario.watch(setup));
    let now = clock::now();
    let until = served_again.unwrap_or(now);
    let counts = pair.client().tally(|tally| tally.counts(at, until));
    let kept = pair.held_after(LB2, at);
    Seen {
        gap: served_again.map(|_| pair.gap(at)),
        refused: counts.refused,
        failed: counts.failed(),
        lost: pair.client().tally(|tally| tally.lost_since(at)),
        kept: (!pair.holds(LB2)).then_some(kept),
        double: (!(pair.holds(LB1) && pair.holds(LB2))).then(|| pair.double(at)),
        slack: pair.slack(),
        busy: pair.noise.since(at),
    }
}

fn provoke(pair: &mut Pair, stack: Stack, scenario: Scenario, setup: &Setup) -> Instant {
    match scenario {
        Scenario::Sigterm => pair.signal(LB2, Role::Keeper, Signal::SIGTERM),
        Scenario::KeeperKilled => pair.signal(LB2, Role::Keeper, Signal::SIGKILL),
        Scenario::KeeperRestarted => {
            let at = pair.signal(LB2, Role::Keeper, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(100));
            // Waited for, as a service manager does.
            pair.ended(LB2);
            start(pair, LB2, stack, setup);
            at
        }
        Scenario::AllKilled => pair.signal(LB2, Role::All, Signal::SIGKILL),
        Scenario::Vanishes => pair.bridge(LB2, false),
        Scenario::LinkDown => pair.plug(LB2, false),
        Scenario::AllStopped => pair.signal(LB2, Role::All, Signal::SIGSTOP),
        Scenario::Heals => {
            pair.bridge(LB2, false);
            pair.until("lb1 holds the VIP, too", 8_000, |pair| pair.holds(LB1));
            pair.until_served(1_000, 8_000);
            pair.bridge(LB2, true)
        }
        Scenario::VipDeleted => pair.delete_vip(LB2),
        Scenario::ProxyStopped => pair.signal(LB2, Role::Proxy, Signal::SIGSTOP),
    }
}

/// When the client had been served for 600 ms without a failure (and everything had had time to
/// happen); `None` when that did not come within another 3.5 s.
fn wait_for_recovery(pair: &Pair, at: Instant, least: Duration) -> Option<Instant> {
    let quiet = Duration::from_millis(600);
    let long = Duration::from_millis(3_500);
    loop {
        let now = clock::now();
        // A starved client makes fewer attempts.
        let busy = pair.noise.since(at);
        let many = usize::try_from(20 * 100 / busy).unwrap().max(3);
        let counts = pair.client().tally(|tally| tally.counts(now - quiet, now));
        if counts.failed() == 0 && counts.served > many && now > at + least {
            return Some(now);
        }
        if now > at + least + long * busy / 100 {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
