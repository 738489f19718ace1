//! What goes into the channel and what comes out: this node at one moment, and the others as they
//! described themselves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::SPACING;
use crate::config::model;
use crate::ipc::message::VrrpState;
use crate::peer::message::Ends;
use crate::peer::oneway;
use crate::peer::session::Session;
use crate::peer::tickle::Roster;

/// Another node of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name in the file, or its address.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// This node's address among the same nodes.
    pub own: IpAddr,
    /// The interface of that.
    pub interface: String,
}

/// What the channel is opened with.
#[derive(Debug)]
pub struct Setup {
    /// `[peer]`.
    pub config: model::Peer,
    /// This node's name, or its address.
    pub name: String,
    /// The other nodes, each once.
    pub neighbours: Vec<Neighbour>,
    /// The virtual routers of this node: name and first address.
    pub routers: Vec<(String, u8, IpAddr)>,
}

/// A virtual router of this node at one moment, in the order of the setup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterLook {
    /// Its state.
    pub state: VrrpState,
    /// Its priority with tracks applied.
    pub priority: u8,
    /// Its advert interval.
    pub interval: Duration,
    /// Since when it advertises as Active.
    pub active_since: Option<Instant>,
    /// Since when it has listened to others.
    pub listening_since: Option<Instant>,
}

/// This node at one moment.
#[derive(Debug, Default)]
pub struct View {
    /// Whether it can serve clients.
    pub can_serve: bool,
    /// Its virtual routers.
    pub routers: Vec<RouterLook>,
    /// What its routers have heard.
    pub heard: Vec<Heard>,
}

/// When a router last heard a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Position of the router.
    pub router: usize,
    /// Position of the node among the neighbours.
    pub neighbour: usize,
    /// How long ago; `None`: never.
    pub ago: Option<Duration>,
}

/// What a router of this node shall be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Position of the router.
    pub router: usize,
    /// Whether its adverts are unheard.
    pub unheard: bool,
    /// The node that says so.
    pub peer: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    pub(super) at: Instant,
    /// It was made then or later, between that and `at`.
    pub(super) made: Instant,
    pub(super) state: VrrpState,
    pub(super) priority: u8,
    pub(super) silence: Duration,
    pub(super) heard: bool,
}

/// What is known of another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: Neighbour,
    pub(super) door: usize,
    pub(super) session: Session,
    pub(super) heard: Option<Instant>,
    pub(super) interval: Duration,
    pub(super) version: String,
    pub(super) name: String,
    pub(super) can_serve: bool,
    pub(super) routers: Vec<Option<Reported>>,
    pub(super) roster: Roster,
    pub(super) answered: Option<Instant>,
    pub(super) next_part: u16,
}

impl Reported {
    /// How much of its silence it should have heard us.
    pub(super) fn silence_of(&self, active_since: Option<Instant>) -> Duration {
        oneway::silence(active_since, self.made, self.silence)
    }

    /// When it last heard an advert of ours, or a little later.
    pub(super) fn heard_at(&self) -> Option<Instant> {
        self.made.checked_sub(self.silence).filter(|_| self.heard)
    }
}

impl Peer {
    pub(super) fn ends(&self) -> Ends {
        Ends {
            from: self.node.own,
            to: self.node.address,
        }
    }

    pub(super) fn is_reachable(&self, now: Instant) -> bool {
        let patience = self.interval.max(SPACING * 10) * 3;
        self.heard
            .is_some_and(|at| now.saturating_duration_since(at) <= patience)
    }

    /// What it says of a router it takes part in, unless that is old.
    pub(super) fn fresh(&self, router: usize, now: Instant) -> Option<&Reported> {
        let patience = self.interval.max(SPACING * 10) * 3;
        let reported = self.routers.get(router)?.as_ref()?;
        let takes_part = match reported.state {
            VrrpState::Backup | VrrpState::Active => true,
            VrrpState::Initialize | VrrpState::Leaving => false,
        };
        let age = now.saturating_duration_since(reported.at);
        (takes_part && age <= patience).then_some(reported)
    }
}
