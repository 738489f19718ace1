//! The machine by example, by its whole table (state × input), and by seeded random runs. Here:
//! what these share.

mod active;
mod backup;
mod doubt;
mod leaving;
mod random;
mod table;

use std::net::Ipv4Addr;

use super::*;
use crate::config::model::{Garp, Preempt};
use crate::units::Version;

const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const LOWER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const HIGHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));

fn settings(version: Version, ms: u64, base: i64, preempt: Preempt) -> Settings {
    Settings {
        version,
        me: ME,
        base: Priority::try_from(base).unwrap(),
        interval: AdvertInterval::new(version, Duration::from_millis(ms)).unwrap(),
        spacing: Duration::from_millis(ms),
        preempt,
        lease: Some(Duration::from_secs(2)),
        garp: Garp {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            interval: Duration::ZERO,
        },
        recovery_delay: Duration::from_secs(1),
        alone: false,
    }
}

fn health(known: bool, can_serve: bool, probe_epoch: u64) -> Input {
    Input::Health(NodeHealth {
        can_serve,
        known,
        weight: 0,
        probe_epoch,
    })
}

/// A machine with a clock in microseconds since its start.
struct Rig {
    machine: Machine,
    start: Instant,
    at: Duration,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let start = crate::net::clock::now();
        Self {
            machine: Machine::new(settings, start),
            start,
            at: Duration::ZERO,
        }
    }

    /// Watching since time 0, healthy, nothing heard.
    fn backup(settings: Settings) -> Self {
        let mut rig = Self::new(settings);
        rig.tell(Input::Up);
        rig.tell(health(true, true, 0));
        rig
    }

    fn active(settings: Settings) -> Self {
        let mut rig = Self::backup(settings);
        rig.run_to_deadline();
        assert_eq!(rig.machine.state(), VrrpState::Active);
        rig
    }

    fn v3() -> Settings {
        settings(Version::V3, 1000, 150, Preempt::Always)
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        let now = self.start + self.at;
        self.machine.handle(now, input).iter().collect()
    }

    fn hear(&mut self, sender: IpAddr, priority: u8) -> Vec<Action> {
        let interval = self.machine.settings().interval;
        self.tell(Input::Advert(Accepted {
            sender,
            peer: 0,
            priority,
            interval,
            interval_as_sent: true,
            same_addresses: true,
        }))
    }

    fn pass(&mut self, ms: u64) {
        self.at += Duration::from_millis(ms);
    }

    fn run_to_deadline(&mut self) -> Vec<Action> {
        let due = self.machine.deadline().expect("a deadline");
        self.at = self.at.max(due - self.start);
        self.tell(Input::Timer)
    }

    /// Timers only, until this time.
    fn run_to(&mut self, ms: u64) -> Vec<Action> {
        let mut all = Vec::new();
        let end = Duration::from_millis(ms);
        while let Some(due) = self.machine.deadline() {
            if due - self.start > end {
                break;
            }
            all.extend(self.run_to_deadline());
        }
        self.at = end;
        all
    }

    /// Microseconds until the deadline.
    fn wait(&self) -> i64 {
        let due = self.machine.deadline().expect("a deadline") - self.start;
        let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap();
        (nanos(due) - nanos(self.at)).div_euclid(1000)
    }
}
