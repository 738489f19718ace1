//! The virtual routers of another configuration: those that stay as they are or are changed in
//! place, those that take over from one with another configuration, new ones, and those that leave,
//! make before break.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::config::local::LocalVip;
use crate::config::model::{Config, Vip};
use crate::daemon::keeper::ROUTERS;
use crate::daemon::keeper::forgotten::remove_devices;
use crate::daemon::keeper::groups::{groups, refused, union};
use crate::daemon::keeper::interfaces::Interfaces;
use crate::daemon::keeper::reload::lineage::lineage;
use crate::daemon::keeper::routers::{Router, Routers, Watched, check_interval};
use crate::daemon::keeper::wish::Wish;
use crate::ipc::message::VrrpState;
use crate::net::clock;
use crate::net::epoll::{Epoll, Interest};
use crate::net::link::LinkEvents;
use crate::net::netlink::Netlink;
use crate::vrrp::task::{RouterEvent, SharedNetlink, VirtualRouter};

/// All that can fail of it is done.
#[derive(Debug)]
pub(in crate::daemon::keeper) struct NextRouters {
    routers: Vec<Next>,
    /// `None`: the same are tracked.
    interfaces: Option<Interfaces>,
    /// As which `[vip]` of the old file each of the new one goes on.
    pub(super) lineage: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Next {
    origin: Origin,
    members: Vec<LocalVip>,
    vips: Vec<usize>,
    tracked: Vip,
}

#[derive(Debug)]
enum Origin {
    /// The router at this position goes on.
    Kept(usize),
    /// A new one takes over from the routers at these positions; none: there was no such router.
    Successor(Box<VirtualRouter>, Vec<usize>),
}

impl Routers {
    /// Opens what the new routers need; nothing changes yet.
    ///
    /// # Errors
    /// Why it can't be done now, for people.
    pub(in crate::daemon::keeper) fn prepare(
        &mut self,
        now: Instant,
        (former, locals): (&[LocalVip], &[LocalVip]),
        (old, new): (&Config, &Config),
        epoll: &Epoll,
    ) -> Result<NextRouters, String> {
        let failed = |error: io::Error| format!("netlink socket: {error}");
        let mut next = NextRouters {
            routers: Vec::new(),
            interfaces: None,
            lineage: lineage(former, locals),
        };
        if self.links.is_none() && !(locals.is_empty() && new.track_interfaces.is_empty()) {
            let links = LinkEvents::open().map_err(failed)?;
            epoll.add(&links, ROUTERS, Interest::READ).map_err(failed)?;
            self.watched.insert(0, Watched::Links);
            self.links = Some(links);
        }
        let netlink = self.request_socket().map_err(failed)?;
        if old.track_interfaces != new.track_interfaces {
            let names = &new.track_interfaces;
            let opened = Interfaces::open(names, &mut netlink.borrow_mut(), clock::now());
            next.interfaces = Some(opened.map_err(failed)?);
        }
        for vips in groups(locals) {
            let members = vips.iter().filter_map(|vip| locals.get(*vip).cloned());
            let members: Vec<LocalVip> = members.collect();
            let Some(tracked) = union(&members) else {
                continue;
            };
            let from = |vip: &usize| next.lineage.get(*vip).copied().flatten();
            let from: Vec<usize> = vips.iter().filter_map(from).collect();
            next.routers.push(Next {
                origin: self.origin(now, &members, &from, &netlink)?,
                members,
                vips,
                tracked,
            });
        }
        Ok(next)
    }

    fn request_socket(&mut self) -> io::Result<SharedNetlink> {
        if let Some(netlink) = &self.netlink {
            return Ok(Rc::clone(netlink));
        }
        let netlink = Rc::new(RefCell::new(Netlink::open()?));
        self.netlink = Some(Rc::clone(&netlink));
        Ok(netlink)
    }

    /// `from`: the positions in the old file of what its members go on as.
    fn origin(
        &self,
        now: Instant,
        members: &[LocalVip],
        from: &[usize],
        netlink: &SharedNetlink,
    ) -> Result<Origin, String> {
        let before: Vec<usize> = self
            .routers
            .iter()
            .enumerate()
            .filter(|(_, router)| router.vips.iter().any(|vip| from.contains(vip)))
            .map(|(index, _)| index)
            .collect();
        if let [only] = before.as_slice()
            && let Some(router) = self.routers.get(*only)
            && router.vips.iter().all(|vip| from.contains(vip))
            && router.inner.can_adjust(members)
        {
            return Ok(Origin::Kept(*only));
        }
        for index in &before {
            if self.state_of(*index) == Some(VrrpState::Leaving) {
                let name = self.routers.get(*index).map_or("", |router| &router.name);
                return Err(format!(
                    "vip {name} is being handed over: try again once that is done"
                ));
            }
        }
        if let Some(name) = self.departing.iter().find_map(|old| old.meets(members)) {
            return Err(format!(
                "vip {name}, which an earlier reload removed, is being handed over: try again once that is done"
            ));
        }
        let opened = VirtualRouter::prepare(members, netlink, now);
        let opened = opened.map_err(|error| refused(&error).to_string())?;
        Ok(Origin::Successor(Box::new(opened), before))
    }

    /// The new configuration counts. Where each router of the old one is from here on.
    pub(in crate::daemon::keeper) fn commit(
        &mut self,
        now: Instant,
        next: NextRouters,
        locals: &[LocalVip],
        config: &Config,
        epoll: &Epoll,
    ) -> Vec<Option<usize>> {
        if let Some(interfaces) = next.interfaces {
            self.interfaces = interfaces;
        }
        let old = std::mem::take(&mut self.routers);
        let mut moved = vec![None; old.len()];
        let mut old: Vec<Option<Router>> = old.into_iter().map(Some).collect();
        // Before any is noted under its new position, which may be the old one of another.
        let wanted = self.make_room(&next.routers, old.len());
        let mut remade = false;
        for next in next.routers {
            let index = self.routers.len();
            let Next {
                origin,
                members,
                vips,
                tracked,
            } = next;
            match origin {
                Origin::Kept(from) => {
                    let Some(mut router) = old.get_mut(from).and_then(Option::take) else {
                        continue;
                    };
                    note(&mut moved, from, index);
                    router.inner.adjust(&members);
                    router.vips = vips;
                    router.name = tracked.sync_group.as_ref().unwrap_or(&tracked.name).clone();
                    router.tracked = tracked;
                    self.routers.push(router);
                }
                Origin::Successor(inner, from) => {
                    remade = true;
                    for from in &from {
                        note(&mut moved, *from, index);
                    }
                    let inner = self.begun(now, *inner, &old, &from);
                    if let Err(error) = self.watch(inner, vips, tracked, epoll) {
                        tracing::error!(%error, "adverts cannot be waited for");
                    }
                }
            }
        }
        self.leave_to_others(&mut old);
        self.see_through(now, &mut old, &moved, &wanted);
        remade |= old.iter().any(Option::is_some);
        self.part(now, old);
        self.renumber(&moved);
        for router in &mut self.routers {
            let delay = check_interval(config, &router.tracked);
            router.inner.set_recovery_delay(delay);
            router.inner.set_siblings(now, locals);
        }
        if remade {
            self.remove_unused_devices();
        }
        moved
    }

    /// Forgets the descriptors of routers that others take over from. For each router of the old file:
    /// `None` if nobody does, else the addresses that its successors have.
    fn make_room(&mut self, next: &[Next], old: usize) -> Vec<Option<Vec<IpAddr>>> {
        let mut wanted = vec![None; old];
        for next in next {
            let Origin::Successor(_, from) = &next.origin else {
                continue;
            };
            let members = next.members.iter();
            let addresses = members.flat_map(|local| &local.vip.addresses);
            let addresses: Vec<IpAddr> = addresses.map(|vip| vip.ip).collect();
            for from in from {
                if let Some(entry) = wanted.get_mut(*from) {
                    entry.get_or_insert_with(Vec::new).extend(&addresses);
                }
            }
        }
        for (index, _) in wanted.iter().enumerate().filter(|(_, one)| one.is_some()) {
            self.forget_places(index);
        }
        wanted
    }

    /// A new one in the place of those at the positions `from`, which may have other successors, too.
    fn begun(
        &self,
        now: Instant,
        mut inner: VirtualRouter,
        old: &[Option<Router>],
        from: &[usize],
    ) -> VirtualRouter {
        let before: Vec<&VirtualRouter> = from
            .iter()
            .filter_map(|from| Some(&old.get(*from)?.as_ref()?.inner))
            .collect();
        if before.is_empty() {
            let there: Vec<(u32, IpAddr)> = old
                .iter()
                .flatten()
                .flat_map(|old| old.inner.held())
                .collect();
            inner.begin_anew(now, &there, &self.boot_id);
        } else {
            inner.succeed(now, &before, &self.boot_id);
        }
        inner
    }

    /// What the routers of the old file held and those of the new one hold stays where it is.
    fn leave_to_others(&self, old: &mut [Option<Router>]) {
        let present = self.routers.iter();
        let held: Vec<(u32, IpAddr)> = present.flat_map(|router| router.inner.held()).collect();
        for router in old.iter_mut().flatten() {
            router.inner.leave_to(&held);
        }
    }

    /// Ends those that others have taken over from, with the addresses that none of these has.
    fn see_through(
        &mut self,
        now: Instant,
        old: &mut [Option<Router>],
        moved: &[Option<usize>],
        wanted: &[Option<Vec<IpAddr>>],
    ) {
        for ((old, wanted), to) in old.iter_mut().zip(wanted).zip(moved) {
            let Some(wanted) = wanted else { continue };
            let successor = to.and_then(|to| self.routers.get_mut(to));
            if let (Some(mut before), Some(successor)) = (old.take(), successor) {
                let inner = &mut before.inner;
                successor.inner.leave_unwanted(now, inner, wanted);
            }
        }
    }

    /// Those that nobody took over from leave.
    fn part(&mut self, now: Instant, old: Vec<Option<Router>>) {
        for router in old.into_iter().flatten() {
            let mut inner = router.inner;
            tracing::info!(vip = router.name, "virtual router is no longer in the file");
            let present = self.routers.iter().map(|router| &router.inner);
            if inner.has_addresses() && !inner.is_followed(present) {
                inner.resign(now);
            } else {
                inner.leave_silently(now);
            }
            self.departing.push(inner);
        }
    }

    /// What the routers of the old file are called by now, by their positions there.
    pub(super) fn present_names(
        &self,
        before: Vec<String>,
        moved: &[Option<usize>],
    ) -> Vec<String> {
        let now_called = |(name, to): (String, &Option<usize>)| {
            let router = to.and_then(|to| self.routers.get(to));
            router.map_or(name, |router| router.name.clone())
        };
        before.into_iter().zip(moved).map(now_called).collect()
    }

    /// The descriptors under the new positions of their routers.
    fn renumber(&mut self, moved: &[Option<usize>]) {
        for entry in &mut self.watched {
            // Entries of routers made just now are found by their descriptors.
            if let Watched::Router { index, fd } = *entry {
                let now_at = self.routers.iter().position(|router| {
                    let mut fds = router.inner.fds();
                    fds.any(|own| std::os::fd::AsRawFd::as_raw_fd(&own) == fd)
                });
                *entry = match (now_at, moved.get(index).copied().flatten()) {
                    (Some(index), _) | (None, Some(index)) => Watched::Router { index, fd },
                    (None, None) => Watched::Departing(fd),
                };
            }
        }
    }

    fn forget_places(&mut self, of: usize) {
        for entry in &mut self.watched {
            if matches!(entry, Watched::Router { index, .. } if *index == of) {
                *entry = Watched::Nothing;
            }
        }
    }

    /// Where so many descriptors in a row can be noted.
    pub(in crate::daemon::keeper) fn free_places(&mut self, count: usize) -> usize {
        let free = |places: &[Watched]| places.iter().all(|entry| *entry == Watched::Nothing);
        let found = self.watched.windows(count.max(1)).position(free);
        found.unwrap_or_else(|| {
            let first = self.watched.len();
            self.watched.resize(first + count, Watched::Nothing);
            first
        })
    }

    /// What those on their way out want done.
    pub(in crate::daemon::keeper) fn last_wishes(&mut self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for router in &mut self.departing {
            while let Some(event) = router.pop_event() {
                if let RouterEvent::Releasing(addresses) = event {
                    wishes.push(Wish::Reset(addresses));
                }
            }
        }
        wishes
    }

    /// Lets go of those that have left.
    pub(in crate::daemon::keeper) fn see_off(&mut self, now: Instant) {
        if self.departing.is_empty() {
            return;
        }
        // Not before what they want done is known.
        let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.departing)
            .into_iter()
            .partition(|router| router.is_released() && !router.has_news());
        self.departing = left;
        for mut router in gone {
            let fds = router.fds().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
            for fd in fds.collect::<Vec<_>>() {
                let entries = self.watched.iter_mut();
                for entry in entries.filter(|entry| **entry == Watched::Departing(fd)) {
                    *entry = Watched::Nothing;
                }
            }
            // Whatever it made for itself goes with it.
            router.give_up(now);
        }
    }

    /// Removes what was made for addresses that no router has.
    pub(in crate::daemon::keeper) fn remove_unused_devices(&self) {
        // Nothing can be there.
        if self.routers.is_empty() && self.departing.is_empty() {
            return;
        }
        let Some(netlink) = &self.netlink else {
            return;
        };
        let present = self.routers.iter().map(|router| &router.inner);
        let devices: Vec<&str> = present
            .chain(&self.departing)
            .flat_map(VirtualRouter::devices)
            .collect();
        remove_devices(&mut netlink.borrow_mut(), |name| devices.contains(&name));
    }
}

fn note(moved: &mut [Option<usize>], from: usize, to: usize) {
    if let Some(entry) = moved.get_mut(from) {
        *entry = Some(to);
    }
}
