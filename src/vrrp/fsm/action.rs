//! What goes into the machine and what comes out of it. Pure.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::model::{Garp, Preempt};
use crate::units::{AdvertInterval, Priority, Version};
use crate::vrrp::validate::Accepted;

/// The part of a virtual router's configuration that decides elections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// 2 or 3.
    pub version: Version,
    /// The source of our adverts: breaks a tie of two Actives.
    pub me: IpAddr,
    /// Configured priority.
    pub base: Priority,
    /// Our own interval, as advertised.
    pub interval: AdvertInterval,
    /// Time between two adverts sent, at most `interval`.
    #[serde(with = "crate::recorder::time::span")]
    pub spacing: Duration,
    /// Whether and when a weaker Active is displaced.
    pub preempt: Preempt,
    /// The kernel lifetime of the addresses; `None`: they stay until removed.
    #[serde(with = "crate::recorder::time::maybe_span")]
    pub lease: Option<Duration>,
    /// Gratuitous ARP policy.
    pub garp: Garp,
    /// How much later than a holder a Backup counts its own recovery: one check interval.
    #[serde(with = "crate::recorder::time::span")]
    pub recovery_delay: Duration,
    /// Whether no other node is configured.
    pub alone: bool,
}

/// For how long a node that failed over preempts nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StandDown {
    /// Until [`Input::ReleaseHold`].
    UntilReleased,
    /// Until then.
    Until(#[serde(with = "crate::recorder::time")] Instant),
}

/// What this node knows of its own ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Whether clients that come here would be served. Without meaning until `known`.
    pub can_serve: bool,
    /// Whether there is a verdict yet.
    pub known: bool,
    /// Sum of the track weights in force.
    pub weight: i32,
    /// Counts successful probes (`ipc::message::ProxyServing::probe_epoch`), or
    /// [`NO_PROBE`](Self::NO_PROBE).
    pub probe_epoch: u64,
}

impl NodeHealth {
    /// Nothing is probed on this node: its verdict is never stale.
    pub const NO_PROBE: u64 = u64::MAX;
    /// Before the first verdict.
    pub const UNKNOWN: Self = Self {
        can_serve: false,
        known: false,
        weight: 0,
        probe_epoch: 0,
    };

    /// Whether it is known that clients would not be served.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        self.known && !self.can_serve
    }
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The interface is up: take part. In Active: it was away for a moment, announce again.
    Up,
    /// The interface is down.
    Down,
    /// A previous keeper was Active a moment ago: go on where it stopped.
    Resume,
    /// A validated advert.
    Advert(Accepted),
    /// The deadline has passed and the socket has been drained.
    Timer,
    /// A new verdict about this node.
    Health(NodeHealth),
    /// Somebody else removed one of our addresses.
    AddressLost,
    /// The kernel refused to add or renew one of our addresses.
    AddressFailed,
    /// The kernel was too busy to renew the addresses. They are there while their lifetime lasts.
    NotRenewed,
    /// Leave for good, address last.
    Resign,
    /// Leave in favour of another node; taken back when nobody comes. Answered by one
    /// [`Action::FailedOver`], at once unless Active. Once another node has taken over, this one
    /// preempts nobody for `hold` (`None`: until [`Input::ReleaseHold`]), unless the Active fails,
    /// resigns or can't serve.
    Failover {
        /// For how long to preempt nobody.
        #[serde(with = "crate::recorder::time::maybe_span")]
        hold: Option<Duration>,
    },
    /// Preempting is allowed again after a [`Input::Failover`].
    ReleaseHold,
    /// By the peer channel a peer says that it does not hear our adverts although it listens, or
    /// (`false`) that it hears them, or it says nothing any more. While this node is not Active it
    /// has nothing to be heard by, so `false` is said only for an advert really heard.
    Unheard(bool),
    /// Each send of a whole round of adverts has failed on this machine; or (`false`) one worked.
    Mute(bool),
}

/// One thing to do. Actions are carried out in order; if `Claim`, `Renew` or `Restore` fails the
/// rest is dropped and [`Input::AddressFailed`] follows. If `Renew` or `Restore` fails for a reason
/// that passes, the rest is carried out and [`Input::NotRenewed`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Add the addresses, or take them over if they are there.
    Claim,
    /// Renew their lifetime.
    Renew,
    /// Put back an address that somebody removed.
    Restore,
    /// Give the addresses up. With `graceful` another node already answers for them, so there are
    /// some milliseconds to reset the connections that still use them.
    Release {
        /// Whether connections may be reset first.
        graceful: bool,
    },
    /// Advertise with this priority; 0 resigns.
    Advertise(u8),
    /// Send so many gratuitous ARP announcements per address.
    Garp(u8),
    /// Probe the servers at once: whether this node takes over depends on it.
    Probe,
    /// A resignation was ignored because its sender is not the Active we know.
    IgnoredResign,
    /// What became of [`Input::Failover`]: whether another node took over.
    FailedOver {
        /// Whether it did.
        taken: bool,
    },
}

const CAPACITY: usize = 8;

/// The actions that follow from one input: a short list without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions {
    items: [Option<Action>; CAPACITY],
}

impl Actions {
    /// Appends one. No input produces more than the list can hold (a test walks them all).
    pub(super) fn push(&mut self, action: Action) {
        let free = self.items.iter_mut().find(|item| item.is_none());
        debug_assert!(free.is_some(), "more actions than the list holds");
        if let Some(free) = free {
            *free = Some(action);
        }
    }

    /// In the order they are to be carried out.
    pub fn iter(&self) -> impl Iterator<Item = Action> + '_ {
        self.items.iter().copied().flatten()
    }
}

/// As a plain list.
impl Serialize for Actions {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}
