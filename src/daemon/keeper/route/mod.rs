//! Addresses announced as routes: held on `lo` while this node can serve, so that FRR or BIRD
//! redistributes them. `decision` says what to do, this file does it.
//!
//! Make before break: to a routing daemon the withdrawal is the removal of the address, and it
//! takes routers some time to act on it. Until then a local route lets this node go on receiving
//! for the address: connections are served as before, new ones too. After `withdraw-grace` what is
//! left is reset and the local route goes.
//!
//! A hung or killed keeper renews nothing: the kernel removes the address (lease), without a grace.

mod decision;

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{KeeperError, ROUTES, forgotten};
use crate::config::model::{Config, RouteVip};
use crate::ipc::message::{RouteCounters, RouteStatus};
use crate::log::spacing::is_due;
use crate::net::address::{self, Lease};
use crate::net::epoll::{Epoll, Interest};
use crate::net::link::{LinkEvent, LinkEvents};
use crate::net::local_route::LocalRoute;
use crate::net::netlink::{self, Netlink};
use decision::{Act, Decision, Settings};

/// Messages of the kernel read in one turn of the loop.
const LINK_READS_MAX: usize = 64;
/// Complaints about the kernel come this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// All of this node.
#[derive(Debug)]
pub(super) struct Routes {
    /// In the order of the file; behind them those that the file no longer has.
    pub(super) routes: Vec<Route>,
    pub(super) kernel: Option<Kernel>,
    /// Addresses whose connections are to be reset.
    resets: Vec<Vec<IpAddr>>,
    /// Counts what others may want to hear of.
    changes: u64,
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) netlink: Netlink,
    pub(super) links: LinkEvents,
    pub(super) loopback: u32,
}

#[derive(Debug)]
pub(super) struct Route {
    pub(super) config: RouteVip,
    /// The file no longer has it.
    pub(super) leaves: bool,
    interface: u32,
    leases: Vec<Lease>,
    local: Vec<LocalRoute>,
    decision: Decision,
    announced: bool,
    counters: RouteCounters,
    complained: Option<Instant>,
}

impl Routes {
    /// Looks up interfaces and takes over what an earlier keeper announced a moment ago.
    ///
    /// # Errors
    /// [`KeeperError`] when an interface is missing or the kernel doesn't answer.
    pub(super) fn open(config: &Config, epoll: &Epoll, now: Instant) -> Result<Self, KeeperError> {
        let mut routes = Self {
            routes: Vec::with_capacity(config.routes.len()),
            kernel: None,
            resets: Vec::new(),
            changes: 0,
        };
        if config.routes.is_empty() {
            return Ok(routes);
        }
        let failed = |source| KeeperError::System {
            what: "netlink socket",
            source,
        };
        // Before the first look at the present state, so that no change falls between.
        let links = LinkEvents::open().map_err(failed)?;
        epoll.add(&links, ROUTES, Interest::READ).map_err(failed)?;
        let mut netlink = Netlink::open().map_err(failed)?;
        let loopback = netlink.link("lo").map_err(failed)?.index;
        forgotten::remove_forgotten(&mut netlink, config);
        for vip in &config.routes {
            let interface = netlink.link(&vip.interface);
            let interface = interface.map_err(|source| KeeperError::Router {
                reason: format!("vip {}: interface {}: {source}", vip.name, vip.interface),
                permission: false,
            })?;
            let route = Route::new(vip.clone(), interface.index, loopback, now);
            routes.routes.push(route);
        }
        routes.kernel = Some(Kernel {
            netlink,
            links,
            loopback,
        });
        routes.adopt(now).map_err(failed)?;
        Ok(routes)
    }

    /// Addresses with our tag are an earlier keeper's; without a lease of its own none would be.
    fn adopt(&mut self, now: Instant) -> io::Result<()> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let there = kernel.netlink.addresses()?;
        for index in 0..self.routes.len() {
            let Some((route, kernel)) = self.one(index) else {
                continue;
            };
            for local in &mut route.local {
                if let Err(error) = local.remove(&mut kernel.netlink) {
                    tracing::debug!(%error, vip = route.config.name, "left-over route not removed");
                }
            }
            let adopted = route.config.addresses.iter().all(|own| {
                there.iter().any(|found| {
                    found.address == *own
                        && found.index == route.interface
                        && found.protocol == address::PROTOCOL
                })
            });
            if adopted {
                let acts = route.decision.adopt(now);
                self.carry_out(now, index, acts);
            }
        }
        Ok(())
    }

    fn one(&mut self, index: usize) -> Option<(&mut Route, &mut Kernel)> {
        self.routes.get_mut(index).zip(self.kernel.as_mut())
    }

    /// Whether this node can serve what route `index` announces; `None`: that isn't known yet.
    pub(super) fn judge(&mut self, index: usize, now: Instant, able: Option<bool>) {
        if let Some((route, _)) = self.one(index) {
            route.decision.judge(now, able);
            let acts = route.decision.step(now);
            self.carry_out(now, index, acts);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let all = self.routes.iter();
        all.filter_map(|route| route.decision.deadline()).min()
    }

    pub(super) fn on_deadlines(&mut self, now: Instant) {
        self.each(now, |decision| decision.step(now));
        self.routes
            .retain(|route| !route.leaves || !route.decision.is_silent());
    }

    /// Withdraws one that the file no longer has, make before break.
    pub(super) fn withdraw_for_good(&mut self, now: Instant, index: usize) {
        if let Some((route, _)) = self.one(index) {
            route.leaves = true;
            let acts = route.decision.stop(now);
            self.carry_out(now, index, acts);
        }
    }

    /// Withdraws everything, make before break.
    pub(super) fn stop(&mut self, now: Instant) {
        self.each(now, |decision| decision.stop(now));
    }

    /// Leaves without waiting.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.each(now, |decision| decision.give_up(now));
    }

    fn each(&mut self, now: Instant, event: impl Fn(&mut Decision) -> Vec<Act>) {
        for index in 0..self.routes.len() {
            if let Some((route, _)) = self.one(index) {
                let acts = event(&mut route.decision);
                self.carry_out(now, index, acts);
            }
        }
    }

    pub(super) fn are_silent(&self) -> bool {
        self.routes.iter().all(|route| route.decision.is_silent())
    }

    /// Addresses whose connections are to be reset.
    pub(super) fn take_resets(&mut self) -> Vec<Vec<IpAddr>> {
        std::mem::take(&mut self.resets)
    }

    /// Counts changes, for those who tell of them.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Something was heard from the kernel.
    pub(super) fn on_readable(&mut self, now: Instant) {
        let mut heard = Vec::new();
        if let Some(kernel) = &mut self.kernel {
            for _ in 0..LINK_READS_MAX {
                match kernel.links.read(|event| heard.push(event)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, "interface events cannot be read");
                        break;
                    }
                }
            }
        }
        for event in heard {
            self.on_link(now, &event);
        }
    }

    fn on_link(&mut self, now: Instant, event: &LinkEvent) {
        for index in 0..self.routes.len() {
            let Some((route, kernel)) = self.one(index) else {
                continue;
            };
            let lost = match event {
                LinkEvent::AddressGone { index, address } => {
                    *index == route.interface && route.has(*address)
                }
                LinkEvent::Link { index, name, .. } => {
                    *name == route.config.interface && *index != route.interface && {
                        // Made anew: everything prepared is for the old one.
                        route.attach(*index, kernel.loopback);
                        true
                    }
                }
                // Nobody knows what was missed: to hold an address that is there costs nothing.
                LinkEvent::Lost => true,
                LinkEvent::AddressThere { .. } | LinkEvent::Removed { .. } => false,
            };
            if lost {
                let acts = route.decision.lost(now);
                self.carry_out(now, index, acts);
            }
        }
    }

    fn carry_out(&mut self, now: Instant, index: usize, acts: Vec<Act>) {
        let Some((route, kernel)) = self.routes.get_mut(index).zip(self.kernel.as_mut()) else {
            return;
        };
        for act in acts {
            let before = route.decision.last_renewal();
            match act {
                Act::Hold | Act::Restore => {
                    route.counters.restored += u64::from(act == Act::Restore);
                    if let Err(error) = route.hold(&mut kernel.netlink) {
                        route.complain(now, "hold the address", &error);
                        if netlink::is_passing(&error) {
                            route.decision.not_renewed(now, before.unwrap_or(now));
                        } else {
                            let acts = route.decision.refused(now);
                            route.leave(now, &acts, kernel, &mut self.resets);
                        }
                    }
                }
                Act::Withdraw | Act::Reset | Act::Deafen => {
                    route.leave(now, &[act], kernel, &mut self.resets);
                }
            }
        }
        if route.note_change() {
            self.changes += 1;
        }
    }

    /// State of each route; the keeper adds the tracks.
    pub(super) fn status(&self, now: Instant) -> Vec<RouteStatus> {
        self.routes.iter().map(|route| route.status(now)).collect()
    }
}

/// However the keeper ends, it leaves no address behind: one without a lease would stay for ever.
impl Drop for Routes {
    fn drop(&mut self) {
        self.give_up(crate::net::clock::now());
    }
}

impl Route {
    pub(super) fn new(config: RouteVip, interface: u32, loopback: u32, now: Instant) -> Self {
        let settings = Settings {
            lease: config.lease,
            grace: config.grace,
        };
        let mut route = Self {
            config,
            leaves: false,
            interface,
            leases: Vec::new(),
            local: Vec::new(),
            decision: Decision::new(settings, now),
            announced: false,
            counters: RouteCounters::default(),
            complained: None,
        };
        route.attach(interface, loopback);
        route
    }

    fn attach(&mut self, interface: u32, loopback: u32) {
        self.interface = interface;
        let config = &self.config;
        let all = || config.addresses.iter();
        self.leases = all()
            .map(|address| Lease::new(*address, interface, config.lease))
            .collect();
        self.local = all()
            .map(|address| LocalRoute::new(address.ip, loopback))
            .collect();
    }

    fn has(&self, address: IpAddr) -> bool {
        self.config.addresses.iter().any(|own| own.ip == address)
    }

    /// The addresses first: there is no moment in which nobody receives.
    fn hold(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        for lease in &mut self.leases {
            lease.hold(netlink)?;
        }
        if !self.announced {
            for local in &mut self.local {
                local.remove(netlink)?;
            }
        }
        Ok(())
    }

    fn leave(
        &mut self,
        now: Instant,
        acts: &[Act],
        kernel: &mut Kernel,
        resets: &mut Vec<Vec<IpAddr>>,
    ) {
        for act in acts {
            match act {
                Act::Hold | Act::Restore => {}
                Act::Withdraw => self.withdraw(now, &mut kernel.netlink),
                Act::Reset => {
                    let addresses = self.config.addresses.iter();
                    resets.push(addresses.map(|address| address.ip).collect());
                }
                Act::Deafen => self.deafen(now, &mut kernel.netlink),
            }
        }
    }

    /// Each local route before its address goes.
    fn withdraw(&mut self, now: Instant, netlink: &mut Netlink) {
        let mut failed = Vec::new();
        for (local, lease) in self.local.iter_mut().zip(&mut self.leases) {
            failed.extend(local.add(netlink).err().map(|e| ("go on receiving", e)));
            failed.extend(
                lease
                    .release(netlink)
                    .err()
                    .map(|e| ("remove the address", e)),
            );
        }
        for (operation, error) in failed {
            self.complain(now, operation, &error);
        }
    }

    fn deafen(&mut self, now: Instant, netlink: &mut Netlink) {
        let removed = self.local.iter_mut().map(|local| local.remove(netlink));
        let failed: Vec<io::Error> = removed.filter_map(Result::err).collect();
        for error in failed {
            self.complain(now, "stop receiving", &error);
        }
    }

    fn complain(&mut self, now: Instant, operation: &'static str, error: &io::Error) {
        self.counters.errors += 1;
        if is_due(&mut self.complained, COMPLAIN_EVERY, now) {
            let vip = &self.config.name;
            tracing::warn!(vip, interface = self.config.interface, operation, %error, "the kernel refused");
        }
    }

    /// Logs what changed; whether it did.
    fn note_change(&mut self) -> bool {
        let announced = self.decision.is_announced();
        if announced == self.announced {
            return false;
        }
        self.announced = announced;
        let (reason, _) = self.decision.reason();
        let vip = &self.config.name;
        if announced {
            self.counters.announced += 1;
            tracing::info!(vip, reason, "route announced");
        } else {
            self.counters.withdrawn += 1;
            tracing::warn!(vip, reason, "route withdrawn");
        }
        true
    }

    fn status(&self, now: Instant) -> RouteStatus {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (reason, since) = self.decision.reason();
        let draining = self.decision.draining_until();
        RouteStatus {
            name: self.config.name.clone(),
            interface: self.config.interface.clone(),
            addresses: self
                .config
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            announced: self.decision.is_announced(),
            draining_ms: draining.map(|until| ms(until.saturating_duration_since(now))),
            reason: reason.to_owned(),
            since_ms: ms(now.saturating_duration_since(since)),
            tracks: Vec::new(),
            counters: self.counters,
        }
    }
}
