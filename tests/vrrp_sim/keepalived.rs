//! A model of keepalived's rules as a peer sees them: its election, timers and announcements, as
//! measured on 2.2.7 and 2.4.3. What it lacks is what matters here: it has no lease, gives the
//! address up before its successor has it, yields without a word, and takes a late timer at its
//! word.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::Action;
use lbd::vrrp::timing::{active_down_interval, skew_time};
use lbd::vrrp::validate::Accepted;

const GARPS: u8 = 5;
const GARP_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fault,
    Backup {
        due: Instant,
    },
    Master {
        advert: Instant,
        again: Option<Instant>,
    },
    Gone,
}

pub(crate) struct Keepalived {
    pub(crate) version: Version,
    pub(crate) me: IpAddr,
    pub(crate) base: Priority,
    pub(crate) interval: AdvertInterval,
    pub(crate) preempt: bool,
    /// The present master's.
    learned: AdvertInterval,
    state: State,
}

impl Keepalived {
    pub(crate) fn new(
        version: Version,
        me: IpAddr,
        base: Priority,
        interval: AdvertInterval,
        preempt: bool,
    ) -> Self {
        Self {
            version,
            me,
            base,
            interval,
            preempt,
            learned: interval,
            state: State::Gone,
        }
    }

    pub(crate) fn start(&mut self, now: Instant) -> Vec<Action> {
        self.learned = self.interval;
        if self.base == Priority::OWNER {
            return self.promote(now);
        }
        self.watch(now);
        Vec::new()
    }

    pub(crate) fn is_master(&self) -> bool {
        matches!(self.state, State::Master { .. })
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether it would take a vacant address.
    pub(crate) fn takes_part(&self) -> bool {
        match self.state {
            State::Fault | State::Gone => false,
            State::Backup { .. } | State::Master { .. } => true,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Fault | State::Gone => None,
            State::Backup { due } => Some(due),
            State::Master { advert, again } => {
                Some(again.map_or(advert, |again| again.min(advert)))
            }
        }
    }

    fn watch(&mut self, now: Instant) {
        let wait = active_down_interval(self.version, self.learned, self.base);
        self.state = State::Backup { due: now + wait };
    }

    fn promote(&mut self, now: Instant) -> Vec<Action> {
        self.learned = self.interval;
        self.state = State::Master {
            advert: now + self.interval.duration(),
            again: Some(now + GARP_DELAY),
        };
        let advert = Action::Advertise(self.base.get());
        vec![advert, Action::Claim, Action::Garp(GARPS)]
    }

    pub(crate) fn timer(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Backup { due } if due <= now => self.promote(now),
            State::Master { advert, again } => {
                let mut actions = Vec::new();
                let (mut advert, mut again) = (advert, again);
                if again.is_some_and(|at| at <= now) {
                    again = None;
                    actions.push(Action::Garp(GARPS));
                }
                if advert <= now {
                    advert = now + self.interval.duration();
                    actions.push(Action::Advertise(self.base.get()));
                }
                self.state = State::Master { advert, again };
                actions
            }
            State::Fault | State::Gone | State::Backup { .. } => Vec::new(),
        }
    }

    pub(crate) fn hear(&mut self, now: Instant, advert: &Accepted) -> Vec<Action> {
        let own = self.base.get();
        match self.state {
            State::Fault | State::Gone => Vec::new(),
            State::Backup { .. } => {
                if advert.priority == 0 {
                    let due = now + skew_time(self.version, self.learned, self.base);
                    self.state = State::Backup { due };
                } else if advert.priority >= own || !self.preempt {
                    if self.version == Version::V3 {
                        self.learned = advert.interval;
                    }
                    self.watch(now);
                }
                Vec::new()
            }
            State::Master { .. } => {
                let stronger =
                    advert.priority > own || (advert.priority == own && advert.sender > self.me);
                if stronger {
                    self.learned = advert.interval;
                    self.watch(now);
                    return vec![Action::Release { graceful: false }];
                }
                let again = (advert.priority > 0).then(|| now + GARP_DELAY);
                self.state = State::Master {
                    advert: now + self.interval.duration(),
                    again,
                };
                let mut actions = vec![Action::Advertise(own)];
                if advert.priority > 0 {
                    actions.push(Action::Garp(GARPS));
                }
                actions
            }
        }
    }

    /// A check script without a weight says so.
    pub(crate) fn judge(&mut self, now: Instant, can_serve: bool) -> Vec<Action> {
        match (self.state, can_serve) {
            (State::Fault, true) => self.start(now),
            (State::Backup { .. }, false) => {
                self.state = State::Fault;
                Vec::new()
            }
            (State::Master { .. }, false) => {
                self.state = State::Fault;
                vec![Action::Advertise(0), Action::Release { graceful: false }]
            }
            (State::Gone | State::Fault, _)
            | (State::Backup { .. } | State::Master { .. }, true) => Vec::new(),
        }
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) -> Vec<Action> {
        let master = self.is_master();
        self.state = State::Gone;
        if master {
            vec![Action::Advertise(0), Action::Release { graceful: false }]
        } else {
            Vec::new()
        }
    }
}
