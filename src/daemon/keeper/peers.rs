//! The channel to the other nodes in the keeper's loop: what it is told of the virtual routers,
//! and what follows from what it hears.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::routers::Routers;
use super::{Keeper, PEERS, PEERS_MAX};
use crate::config::local::LocalVip;
use crate::config::model::{Config, Node};
use crate::ipc::event::EventKind;
use crate::ipc::message::{ChannelStatus, ClientFlow, VrrpState};
use crate::net::epoll::Interest;
use crate::peer::task::{Channel, Heard, Loss, Neighbour, RouterLook, Setup, View};

/// The channel, if the file asks for it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    channel: Option<Channel>,
    view: View,
    routers: Vec<Observed>,
}

/// What the channel needs to know of a router beyond its state.
#[derive(Debug)]
struct Observed {
    name: String,
    /// The position of its first member in the file.
    vip: Option<usize>,
    /// On all its wires.
    addresses: Vec<IpAddr>,
    /// The other nodes in the router's order, as positions among the neighbours.
    others: Vec<usize>,
    active_since: Option<Instant>,
    listening_since: Option<Instant>,
}

impl Peers {
    pub(super) fn open(
        config: &Config,
        locals: &[LocalVip],
        routers: &Routers,
        now: Instant,
    ) -> Self {
        let mut peers = Self {
            channel: None,
            view: View::default(),
            routers: Vec::new(),
        };
        let Some(settings) = config.peer.as_ref().filter(|_| !locals.is_empty()) else {
            return peers;
        };
        let mut neighbours: Vec<Neighbour> = Vec::new();
        let mut facts = Vec::new();
        for (name, vips) in routers.named_members() {
            let members: Vec<&LocalVip> = vips.iter().filter_map(|vip| locals.get(*vip)).collect();
            let Some(first) = members.first() else {
                continue;
            };
            let addresses = members.iter().flat_map(|local| &local.vip.addresses);
            let addresses: Vec<IpAddr> = addresses.map(|address| address.ip).collect();
            let Some(address) = addresses.first().copied() else {
                continue;
            };
            facts.push((name.to_owned(), first.vip.vrid.get(), address));
            peers.routers.push(Observed {
                name: name.to_owned(),
                vip: vips.first().copied(),
                addresses,
                others: others(first)
                    .map(|node| place(&mut neighbours, node, first))
                    .collect(),
                active_since: None,
                listening_since: None,
            });
        }
        let own = locals
            .first()
            .and_then(|local| local.vip.nodes.get(local.me));
        let setup = Setup {
            config: settings.clone(),
            name: own.map_or_else(String::new, Node::label),
            neighbours,
            routers: facts,
        };
        match Channel::open(setup, now) {
            Ok(channel) if channel.doors() > PEERS_MAX => {
                tracing::error!("more own addresses than the peer channel serves");
            }
            Ok(channel) => peers.channel = Some(channel),
            Err(error) => tracing::error!(%error, "peer channel cannot be opened"),
        }
        peers
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.channel.as_ref().map(Channel::deadline)
    }

    pub(super) fn status(&self, now: Instant) -> Option<ChannelStatus> {
        let channel = self.channel.as_ref();
        channel.map(|channel| channel.status(now, &self.view))
    }

    /// What was made of the others' word on each router's adverts, of late.
    pub(super) fn tapes(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&'static str, String, Vec<u8>)> {
        let all = self.channel.iter().flat_map(move |one| one.tapes(now));
        all.map(|(name, tape)| ("peer", name.to_owned(), tape))
    }

    /// A piece of the list of client connections of one process, by the token of its link.
    pub(super) fn set_clients(&mut self, process: u64, piece: (bool, bool), flows: &[ClientFlow]) {
        if let Some(channel) = &mut self.channel {
            channel.set_clients(process, piece.0, piece.1, flows);
        }
    }

    /// A process has ended.
    pub(super) fn forget_clients(&mut self, process: u64) {
        if let Some(channel) = &mut self.channel {
            channel.forget_clients(process);
        }
    }

    fn loss(&mut self, now: Instant) -> Option<Loss> {
        let channel = self.channel.as_mut()?;
        channel.losses(now, &self.view)
    }

    /// A router of this node is Active because the last one fell silent. Each of its members, by
    /// its position in the file, says so; the first stands for all.
    pub(super) fn took_over(&mut self, now: Instant, vip: usize) {
        let first = |router: &&Observed| router.vip == Some(vip);
        let router = self.routers.iter().find(first);
        if let (Some(channel), Some(router)) = (&mut self.channel, router) {
            channel.took_over(now, &router.name, &router.addresses);
        }
    }

    pub(super) fn left(&mut self, addresses: &[IpAddr]) {
        if let Some(channel) = &mut self.channel {
            channel.left(addresses);
        }
    }

    /// Looks at the routers; takes no memory once it has done so.
    fn look(&mut self, routers: &Routers, now: Instant) {
        let Self {
            view,
            routers: observed,
            ..
        } = self;
        view.can_serve = routers.can_serve();
        view.routers.clear();
        view.heard.clear();
        for (place, (router, observed)) in routers.inner().zip(observed).enumerate() {
            let state = router.state();
            note(&mut observed.active_since, state == VrrpState::Active, now);
            let listens = state != VrrpState::Initialize;
            note(&mut observed.listening_since, listens, now);
            view.routers.push(RouterLook {
                state,
                priority: router.priority(),
                interval: router.own_interval(),
                active_since: observed.active_since,
                listening_since: observed.listening_since,
            });
            // One round of the other nodes for each wire; heard on one is heard.
            let base = view.heard.len();
            let count = observed.others.len();
            for (at, (_, _, ago)) in router.peers_heard(now).enumerate() {
                let node = at.checked_rem(count).unwrap_or(0);
                let Some(neighbour) = observed.others.get(node).copied() else {
                    continue;
                };
                match view.heard.get_mut(base + node) {
                    Some(known) => known.ago = sooner(known.ago, ago),
                    None => view.heard.push(Heard {
                        router: place,
                        neighbour,
                        ago,
                    }),
                }
            }
        }
    }
}

fn others(local: &LocalVip) -> impl Iterator<Item = &Node> {
    let me = local.me;
    let nodes = local.vip.nodes.iter().enumerate();
    nodes.filter(move |(at, _)| *at != me).map(|(_, node)| node)
}

/// The node's position among the neighbours, where it stands once.
fn place(neighbours: &mut Vec<Neighbour>, node: &Node, local: &LocalVip) -> usize {
    let name = node.label();
    let same = |known: &Neighbour| {
        known.address == node.address || (node.name.is_some() && known.name == name)
    };
    neighbours.iter().position(same).unwrap_or_else(|| {
        neighbours.push(Neighbour {
            name,
            address: node.address,
            own: local.source,
            interface: local.interface.clone(),
        });
        neighbours.len() - 1
    })
}

/// Since when something has been so.
fn note(since: &mut Option<Instant>, is_so: bool, now: Instant) {
    *since = if is_so { since.or(Some(now)) } else { None };
}

fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Keeper {
    /// After each turn of the loop: tells the others what they should know, and the routers what
    /// the others said.
    pub(super) fn tick_peers(&mut self, now: Instant) {
        let Self {
            peers,
            routers,
            epoll,
            ..
        } = self;
        if peers.channel.is_none() {
            return;
        }
        peers.look(routers, now);
        let Some(channel) = &mut peers.channel else {
            return;
        };
        channel.open_doors(now, |place, socket| {
            let token = PEERS + u64::try_from(place).unwrap_or(0);
            if let Err(error) = epoll.add(socket, token, Interest::READ) {
                tracing::error!(%error, "peer channel cannot be waited for");
            }
        });
        for place in 0..channel.doors() {
            if channel.is_rested(place, now) {
                watch(channel, place, epoll, Interest::READ);
            }
        }
        channel.tick(now, &peers.view);
        while let Some(loss) = self.peers.loss(now) {
            self.routers.set_unheard(loss.router, now, loss.unheard);
            let reason = if loss.unheard {
                "adverts to peer are lost: one-way"
            } else {
                "adverts count as heard again"
            };
            let vip = self.peers.routers.get(loss.router);
            let vip = vip.map(|router| router.name.clone());
            let about = (vip.as_deref(), loss.peer.as_deref());
            self.record(EventKind::Peer, about, None, reason);
        }
    }

    /// Something can be read from the channel's socket at `place`.
    pub(super) fn read_peers(&mut self, place: u64, now: Instant) {
        let Self { peers, epoll, .. } = self;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let Some(channel) = &mut peers.channel else {
            return;
        };
        if channel.on_readable(place, now, &peers.view) {
            watch(channel, place, epoll, Interest::NONE);
        }
    }
}

fn watch(channel: &Channel, place: usize, epoll: &crate::net::epoll::Epoll, interest: Interest) {
    let token = PEERS + u64::try_from(place).unwrap_or(0);
    let socket = channel.socket(place);
    if let Some(Err(error)) = socket.map(|socket| epoll.modify(socket, token, interest)) {
        tracing::error!(%error, "peer channel cannot be waited for");
    }
}
