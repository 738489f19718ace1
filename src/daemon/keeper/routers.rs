//! The virtual routers of this node, and their descriptors in the keeper's epoll instance.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::forgotten::{remove_devices, remove_forgotten};
use super::groups::{groups, hold_left, refused, union};
use super::health::tracked_proxies;
use super::interfaces::Interfaces;
use super::runtime_dir::{State, boot_id};
use super::wish::Wish;
use super::{KeeperError, ROUTERS};
use crate::config::local::LocalVip;
use crate::config::model::{Config, Vip};
use crate::ipc::message::{PeerStatus, VipStatus, VrrpState};
use crate::net::clock;
use crate::net::epoll::{Epoll, Interest};
use crate::net::link::{LinkEvent, LinkEvents};
use crate::net::netlink::Netlink;
use crate::vrrp::fsm::NodeHealth;
use crate::vrrp::stamp::{Resume, Stamp};
use crate::vrrp::task::{RouterEvent, SharedNetlink, VirtualRouter};

/// Messages of the kernel read in one turn of the loop.
const LINK_READS_MAX: usize = 64;
/// All of them.
#[derive(Debug)]
pub(super) struct Routers {
    pub(super) boot_id: String,
    pub(super) routers: Vec<Router>,
    /// Those that the file no longer has, until their addresses are gone.
    pub(super) departing: Vec<VirtualRouter>,
    /// Descriptors by token: `ROUTERS` + position.
    pub(super) watched: Vec<Watched>,
    pub(super) links: Option<LinkEvents>,
    pub(super) netlink: Option<SharedNetlink>,
    /// What is tracked beside the routers' own.
    pub(super) interfaces: Interfaces,
}

/// One `[vip.NAME]`, or the sync-group of several.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) inner: VirtualRouter,
    pub(super) name: String,
    /// Positions of its members in the file.
    pub(super) vips: Vec<usize>,
    /// The first member with the tracks of all.
    pub(super) tracked: Vip,
    pub(super) told: Option<NodeHealth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Links,
    Router {
        index: usize,
        fd: RawFd,
    },
    /// Of a router on its way out.
    Departing(RawFd),
    /// Free.
    Nothing,
}

impl Routers {
    /// Opens every router of this node. One that a previous keeper left a stamp for may resume.
    ///
    /// # Errors
    /// [`KeeperError`] when one of them can't start: better no node than half a node.
    pub(super) fn open(
        locals: &[LocalVip],
        left: &State,
        epoll: &Epoll,
        config: &Config,
    ) -> Result<Self, KeeperError> {
        let mut routers = Self {
            boot_id: boot_id(),
            routers: Vec::with_capacity(locals.len()),
            departing: Vec::new(),
            watched: Vec::new(),
            links: None,
            netlink: None,
            interfaces: Interfaces::default(),
        };
        if locals.is_empty() && config.track_interfaces.is_empty() {
            return Ok(routers);
        }
        let failed = |source| KeeperError::System {
            what: "netlink socket",
            source,
        };
        // Before the first look at the present state, so that no change falls between.
        let links = LinkEvents::open().map_err(failed)?;
        epoll.add(&links, ROUTERS, Interest::READ).map_err(failed)?;
        routers.watched.push(Watched::Links);
        routers.links = Some(links);
        let mut netlink = Netlink::open().map_err(failed)?;
        let interfaces = Interfaces::open(&config.track_interfaces, &mut netlink, clock::now());
        routers.interfaces = interfaces.map_err(failed)?;
        remove_forgotten(&mut netlink, config);
        let netlink = Rc::new(RefCell::new(netlink));
        let shared = Rc::clone(&netlink);
        routers.netlink = Some(Rc::clone(&netlink));
        for vips in groups(locals) {
            let members: Vec<LocalVip> = vips
                .iter()
                .filter_map(|vip| locals.get(*vip).cloned())
                .collect();
            let resume = routers.resume(&members, &left.stamps);
            let now = clock::now();
            let opened = VirtualRouter::open(&members, Rc::clone(&netlink), now, resume);
            let mut router = opened.map_err(|error| refused(&error))?;
            let Some(tracked) = union(&members) else {
                continue;
            };
            if let Some(hold) = hold_left(&members, &left.holds, now) {
                tracing::info!(vip = %tracked.name, "still held back after a failover");
                router.hold_back(hold);
            }
            router.set_recovery_delay(check_interval(config, &tracked));
            router.set_siblings(now, locals);
            routers
                .watch(router, vips, tracked, epoll)
                .map_err(failed)?;
        }
        let devices = || {
            routers
                .routers
                .iter()
                .flat_map(|router| router.inner.devices())
        };
        remove_devices(&mut shared.borrow_mut(), |name| {
            devices().any(|device| device == name)
        });
        Ok(routers)
    }

    /// The stamp of a group is that of whichever member was its first.
    fn resume(&self, members: &[LocalVip], stamps: &[Stamp]) -> Option<Resume> {
        let same = |stamp: &&Stamp| {
            members
                .iter()
                .any(|local| stamp.name == local.vip.name && stamp.vrid == local.vip.vrid.get())
        };
        Some(Resume {
            stamp: stamps.iter().find(same)?.clone(),
            boot_id: self.boot_id.clone(),
            boottime: clock::boottime(),
        })
    }

    pub(super) fn watch(
        &mut self,
        inner: VirtualRouter,
        vips: Vec<usize>,
        tracked: Vip,
        epoll: &Epoll,
    ) -> io::Result<()> {
        let index = self.routers.len();
        let fds: Vec<_> = inner.fds().collect();
        let first = self.free_places(fds.len());
        for (place, fd) in (first..).zip(fds) {
            let position = u64::try_from(place).map_err(io::Error::other)?;
            epoll.add(fd, ROUTERS + position, Interest::READ)?;
            let fd = fd.as_raw_fd();
            if let Some(entry) = self.watched.get_mut(place) {
                *entry = Watched::Router { index, fd };
            }
        }
        self.routers.push(Router {
            inner,
            name: tracked.sync_group.as_ref().unwrap_or(&tracked.name).clone(),
            vips,
            tracked,
            told: None,
        });
        Ok(())
    }

    /// How many there are: a sync-group is one.
    pub(super) fn count(&self) -> usize {
        self.routers.len()
    }

    /// Its members' positions in the file.
    pub(super) fn members(&self, index: usize) -> &[usize] {
        self.routers.get(index).map_or(&[], |router| &router.vips)
    }

    /// What each router tracks, in order: a group what any of its members does.
    pub(super) fn tracked(&self, index: usize) -> Option<&Vip> {
        self.routers.get(index).map(|router| &router.tracked)
    }

    /// Something can be read from descriptor `position`.
    pub(super) fn on_readable(&mut self, position: u64, now: Instant) {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        match self.watched.get(position).copied() {
            Some(Watched::Links) => self.read_links(now),
            Some(Watched::Router { index, fd }) => {
                if let Some(router) = self.routers.get_mut(index) {
                    router.inner.on_readable(fd, now);
                }
            }
            Some(Watched::Departing(fd)) => {
                for router in &mut self.departing {
                    router.on_readable(fd, now);
                }
            }
            Some(Watched::Nothing) | None => {}
        }
    }

    fn read_links(&mut self, now: Instant) {
        let Self {
            routers,
            departing,
            links,
            interfaces,
            ..
        } = self;
        let Some(links) = links else { return };
        for _ in 0..LINK_READS_MAX {
            let take = |event: LinkEvent| {
                interfaces.on_link(&event, now);
                let present = routers.iter_mut().map(|router| &mut router.inner);
                for router in present.chain(departing.iter_mut()) {
                    router.on_link(now, &event);
                }
            };
            match links.read(take) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "interface events cannot be read");
                    return;
                }
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let present = self.routers.iter().map(|router| &router.inner);
        let all = present.chain(&self.departing);
        all.filter_map(VirtualRouter::deadline).min()
    }

    pub(super) fn on_deadlines(&mut self, now: Instant) {
        let present = self.routers.iter_mut().map(|router| &mut router.inner);
        for router in present.chain(&mut self.departing) {
            if router.deadline().is_some_and(|at| at <= now) {
                router.on_deadline(now);
            }
        }
        self.see_off(now);
    }

    /// Tells a router what has changed since it was told last.
    pub(super) fn set_health(&mut self, index: usize, now: Instant, health: NodeHealth) {
        let Some(router) = self.routers.get_mut(index) else {
            return;
        };
        if router.told != Some(health) {
            router.told = Some(health);
            router.inner.set_health(now, health);
        }
    }

    /// Those that are Active and advertise more often than each `interval`.
    pub(super) fn hasty(&self, interval: Duration) -> Vec<usize> {
        let all = self.routers.iter().enumerate();
        all.filter(|(_, router)| router.inner.state() == VrrpState::Active)
            .filter(|(_, router)| router.inner.own_interval() < interval)
            .map(|(index, _)| index)
            .collect()
    }

    /// What others have to do, in order.
    pub(super) fn take_wishes(&mut self, epoll: &Epoll) -> Vec<Wish> {
        let mut wishes = self.last_wishes();
        let Self {
            routers, watched, ..
        } = self;
        for (index, router) in routers.iter_mut().enumerate() {
            while let Some(event) = router.inner.pop_event() {
                match event {
                    RouterEvent::Changed { from, to, reason } => {
                        wishes.push(Wish::Changed(index, from, to, reason));
                    }
                    RouterEvent::Conflict { address, mac } => {
                        wishes.push(Wish::Conflict(index, address, mac));
                    }
                    RouterEvent::Releasing(addresses) => wishes.push(Wish::Reset(addresses)),
                    RouterEvent::Released => {
                        tracing::info!(vip = router.name, "addresses released");
                    }
                    RouterEvent::Reopened(member) => {
                        watch_again(router, (index, member), watched, epoll);
                    }
                    RouterEvent::Probe => wishes.push(Wish::Probe),
                    RouterEvent::FailedOver { taken } => {
                        wishes.push(Wish::FailedOver { index, taken });
                    }
                }
            }
        }
        wishes
    }

    /// What this node is called where it takes part first.
    pub(super) fn own_name(&self) -> Option<String> {
        self.routers.first()?.inner.own_name()
    }

    /// What each is called, in order.
    pub(super) fn router_names(&self) -> Vec<String> {
        let all = self.routers.iter();
        all.map(|router| router.name.clone()).collect()
    }

    /// What each router's machine was told of late.
    pub(super) fn tapes(&self, now: Instant) -> Vec<(&'static str, String, Vec<u8>)> {
        let all = self.routers.iter();
        all.map(|router| ("vrrp", router.name.clone(), router.inner.tape(now)))
            .collect()
    }

    /// Whether the router at this position holds its addresses.
    pub(super) fn holds(&self, index: usize) -> bool {
        let router = self.routers.get(index);
        router.is_some_and(|router| router.inner.holds())
    }

    /// The routers themselves, in order.
    pub(super) fn inner(&self) -> impl Iterator<Item = &VirtualRouter> {
        self.routers.iter().map(|router| &router.inner)
    }

    /// Name of each router, and the positions of its members in the file.
    pub(super) fn named_members(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let all = self.routers.iter();
        all.map(|router| (router.name.as_str(), router.vips.as_slice()))
    }

    /// Whether this node is known to be able to serve clients at all of them.
    pub(super) fn can_serve(&self) -> bool {
        let told = |router: &Router| router.told.is_some_and(|told| told.known && told.can_serve);
        self.routers.iter().all(told)
    }

    /// The other nodes say whether they hear a router's adverts.
    pub(super) fn set_unheard(&mut self, index: usize, now: Instant, unheard: bool) {
        if let Some(router) = self.routers.get_mut(index) {
            router.inner.set_unheard(now, unheard);
        }
    }

    /// State of each router, and whether it holds its addresses.
    pub(super) fn states(&self) -> Vec<(VrrpState, bool)> {
        let all = self.routers.iter();
        all.map(|router| (router.inner.state(), router.inner.holds()))
            .collect()
    }

    /// One for each `[vip.NAME]`, in the order of the file.
    pub(super) fn status(&self, now: Instant) -> Vec<VipStatus> {
        let of = |router: &Router| -> Vec<(usize, VipStatus)> {
            let vips = router.vips.iter().copied();
            vips.zip(router.inner.status(now)).collect()
        };
        let mut all: Vec<(usize, VipStatus)> = self.routers.iter().flat_map(of).collect();
        all.sort_by_key(|(vip, _)| *vip);
        all.into_iter().map(|(_, status)| status).collect()
    }

    /// Every name with its router's position.
    pub(super) fn names(&self, now: Instant) -> Vec<(String, Option<usize>)> {
        let all = self.routers.iter().enumerate();
        all.flat_map(|(index, router)| {
            let members = router.inner.status(now);
            members.map(move |status| (status.name, Some(index)))
        })
        .collect()
    }

    pub(super) fn state_of(&self, index: usize) -> Option<VrrpState> {
        Some(self.routers.get(index)?.inner.state())
    }

    /// Hands over to another node; a [`Wish::FailedOver`] follows.
    pub(super) fn failover(&mut self, index: usize, now: Instant, hold: Option<Duration>) {
        if let Some(router) = self.routers.get_mut(index) {
            router.inner.failover(now, hold);
        }
    }

    /// Lets a router preempt again; whether it was held back.
    pub(super) fn release_hold(&mut self, index: usize, now: Instant) -> bool {
        let Some(router) = self.routers.get_mut(index) else {
            return false;
        };
        router.inner.release_hold(now)
    }

    /// Who is Active for the `[vip.NAME]` called so, as far as its router knows: address and name.
    pub(super) fn holder(
        &self,
        index: usize,
        name: &str,
        now: Instant,
    ) -> (Option<IpAddr>, Option<String>) {
        let router = self.routers.get(index);
        let mut members = router
            .into_iter()
            .flat_map(|router| router.inner.status(now));
        let Some(status) = members.find(|status| status.name == name) else {
            return (None, None);
        };
        let active = |peer: &&PeerStatus| Some(peer.address) == status.active;
        let node = status.peers.iter().find(active);
        (status.active, node.and_then(|peer| peer.name.clone()))
    }

    pub(super) fn resign(&mut self, now: Instant) {
        for router in &mut self.routers {
            router.inner.resign(now);
        }
    }

    /// Leaves without waiting for anybody.
    pub(super) fn give_up(&mut self, now: Instant) {
        let present = self.routers.iter_mut().map(|router| &mut router.inner);
        for router in present.chain(&mut self.departing) {
            router.give_up(now);
        }
    }

    pub(super) fn are_released(&self) -> bool {
        let present = self.routers.iter().map(|router| &router.inner);
        present
            .chain(&self.departing)
            .all(VirtualRouter::is_released)
    }
}

/// However the keeper ends, it leaves no address behind: one without a lease would stay for ever.
impl Drop for Routers {
    fn drop(&mut self) {
        self.give_up(clock::now());
    }
}

/// Waits for a member's new descriptor under the token of the old one, whose registration ended
/// with it.
fn watch_again(
    router: &Router,
    (index, member): (usize, usize),
    watched: &mut [Watched],
    epoll: &Epoll,
) {
    let own = |(_, entry): &(usize, &mut Watched)| matches!(entry, Watched::Router { index: of, .. } if *of == index);
    let entry = watched.iter_mut().enumerate().filter(own).nth(member);
    let (Some((position, entry)), Some(fd)) = (entry, router.inner.fds().nth(member)) else {
        return;
    };
    let Ok(position) = u64::try_from(position) else {
        return;
    };
    *entry = Watched::Router {
        index,
        fd: fd.as_raw_fd(),
    };
    if let Err(error) = epoll.add(fd, ROUTERS + position, Interest::READ) {
        tracing::error!(%error, vip = router.name, "adverts cannot be waited for");
    }
}

/// How users read a state.
pub(super) fn word(state: VrrpState) -> &'static str {
    match state {
        VrrpState::Initialize => "initialize",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active (MASTER)",
        VrrpState::Leaving => "leaving",
    }
}

/// The longest check interval among the proxies that `vip` tracks.
pub(super) fn check_interval(config: &Config, vip: &Vip) -> Duration {
    let tracked = tracked_proxies(vip).filter_map(|index| config.proxies.get(index));
    let intervals = tracked.map(|proxy| proxy.check.interval);
    intervals.max().unwrap_or(Duration::ZERO)
}
