//! One node: its election machine (lbd's, or the model of keepalived), its clock, its kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lbd::ipc::message::VrrpState;
use lbd::vrrp::fsm::{Action, Input, Machine, NodeHealth, Settings};
use lbd::vrrp::validate::Accepted;

use super::keepalived::Keepalived;

/// Longer than an advert takes.
const MARGIN: Ns = 2_000_000;

/// Nanoseconds of the world since its beginning.
pub(crate) type Ns = u64;

pub(crate) fn ns(span: Duration) -> Ns {
    u64::try_from(span.as_nanos()).unwrap()
}

pub(crate) fn address(place: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(place + 1).unwrap()))
}

/// A node's own time: it runs at `rate` per mille of the world's.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) base: Instant,
    pub(crate) rate: u64,
}

impl Clock {
    pub(crate) fn local(&self, world: Ns) -> Instant {
        self.base + Duration::from_nanos(world * self.rate / 1_000)
    }

    pub(crate) fn world(&self, local: Instant) -> Ns {
        (ns(local - self.base) * 1_000).div_ceil(self.rate)
    }

    /// How long a span of this clock lasts in the world.
    pub(crate) fn span(&self, local: Duration) -> Ns {
        (ns(local) * 1_000).div_ceil(self.rate)
    }
}

pub(crate) enum Brain {
    Lbd(Box<Machine>),
    Keepalived(Keepalived),
}

impl Brain {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Lbd(machine) => machine.deadline(),
            Self::Keepalived(model) => model.deadline(),
        }
    }

    pub(crate) fn hear(&mut self, now: Instant, advert: &Accepted) -> Vec<Action> {
        match self {
            Self::Lbd(machine) => machine.handle(now, Input::Advert(*advert)).iter().collect(),
            Self::Keepalived(model) => model.hear(now, advert),
        }
    }

    pub(crate) fn timer(&mut self, now: Instant) -> Vec<Action> {
        match self {
            Self::Lbd(machine) => machine.handle(now, Input::Timer).iter().collect(),
            Self::Keepalived(model) => model.timer(now),
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        match self {
            Self::Lbd(machine) => machine.state() == VrrpState::Active,
            Self::Keepalived(model) => model.is_master(),
        }
    }

    /// Whether it would take a vacant address.
    pub(crate) fn takes_part(&self) -> bool {
        match self {
            Self::Lbd(machine) => !machine.is_released(),
            Self::Keepalived(model) => model.takes_part(),
        }
    }

    /// Whether it has left for good.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Lbd(machine) => machine.is_released(),
            Self::Keepalived(model) => model.is_gone(),
        }
    }

    pub(crate) fn is_lbd(&self) -> bool {
        matches!(self, Self::Lbd(_))
    }

    pub(crate) fn machine(&self) -> Option<&Machine> {
        match self {
            Self::Lbd(machine) => Some(machine),
            Self::Keepalived(_) => None,
        }
    }

    pub(crate) fn story(&self) -> String {
        match self {
            Self::Lbd(machine) => format!("{:?}: {}", machine.state(), machine.reason()),
            Self::Keepalived(model) if model.is_master() => "MASTER".to_owned(),
            Self::Keepalived(model) if model.takes_part() => "BACKUP".to_owned(),
            Self::Keepalived(_) => "FAULT or gone".to_owned(),
        }
    }
}

/// What becomes of what a node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Free,
    /// A firewall of its own refuses its adverts; its ARP leaves.
    NoAdverts,
    /// It refuses everything.
    Nothing,
}

/// What a peer said by the peer channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) made: Ns,
    /// When it last heard an advert of ours.
    pub(crate) heard: Option<Ns>,
}

pub(crate) struct Node {
    pub(crate) brain: Brain,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) alive: bool,
    pub(crate) paused_until: Option<Ns>,
    pub(crate) inbox: Vec<Accepted>,
    /// The kernel removes the address then; `Ns::MAX`: never.
    pub(crate) vip_until: Option<Ns>,
    /// Which part of a torn network it is in.
    pub(crate) island: u8,
    pub(crate) output: Output,
    pub(crate) health: NodeHealth,
    /// What the machine was told last.
    pub(crate) seen: NodeHealth,
    /// When it wants to be woken; other wake-ups are stale.
    pub(crate) next_wake: Option<Ns>,
    /// Since when nothing has been done to it.
    pub(crate) undisturbed: Ns,
    /// Its last advert, for a keeper that resumes.
    pub(crate) advertised: Option<Ns>,
    /// Active since then, or not since then.
    pub(crate) active: Result<Ns, Ns>,
    /// When it last heard each of the others, and what these said.
    pub(crate) heard: Vec<Option<Ns>>,
    pub(crate) reports: Vec<Option<Report>>,
    /// What the machine was told by the channel.
    pub(crate) unheard: bool,
    /// A failover that waits for its answer, since.
    pub(crate) failing_over: Option<Ns>,
}

impl Node {
    pub(crate) fn new(brain: Brain, settings: Settings, clock: Clock, nodes: usize) -> Self {
        Self {
            brain,
            settings,
            clock,
            alive: true,
            paused_until: None,
            inbox: Vec::new(),
            vip_until: None,
            island: 0,
            output: Output::Free,
            health: NodeHealth::UNKNOWN,
            seen: NodeHealth::UNKNOWN,
            next_wake: None,
            undisturbed: 0,
            advertised: None,
            active: Err(0),
            heard: vec![None; nodes],
            reports: vec![None; nodes],
            unheard: false,
            failing_over: None,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.alive && self.paused_until.is_none()
    }

    pub(crate) fn holds(&self) -> bool {
        self.vip_until.is_some()
    }

    pub(crate) fn interval(&self) -> Duration {
        self.settings.interval.duration()
    }

    /// What the channel says of our adverts: whether they are unheard, if that is to be told.
    pub(crate) fn judge_reports(&self, now: Ns, fresh: Ns) -> Option<bool> {
        let reports = || {
            self.reports
                .iter()
                .flatten()
                .filter(|report| now - report.made <= fresh)
        };
        let lost = 2 * self.clock.span(self.interval());
        let unheard = if reports().count() == 0 {
            false
        } else {
            match self.active {
                // How much of its silence it should have heard us.
                Ok(since) => reports().any(|report| {
                    let heard = report.heard.unwrap_or(0).max(since).min(report.made);
                    report.made - heard > lost
                }),
                // Silent since then: heard again only by what it sends to ask.
                Err(since) => {
                    let heard =
                        |report: &Report| report.heard.is_some_and(|at| at > since + MARGIN);
                    self.unheard && !reports().any(heard)
                }
            }
        };
        (unheard != self.unheard).then_some(unheard)
    }
}
