//! The addresses announced as routes of another configuration. One whose table didn't change goes
//! on, also with other tracks; any other is withdrawn, make before break, and announced anew.

use std::time::Instant;

use crate::config::model::{Config, RouteVip};
use crate::daemon::keeper::ROUTES;
use crate::daemon::keeper::route::{Kernel, Route, Routes};
use crate::net::epoll::{Epoll, Interest};
use crate::net::link::LinkEvents;
use crate::net::netlink::Netlink;

/// The interface of each route of the new file.
#[derive(Debug)]
pub(in crate::daemon::keeper) struct NextRoutes(Vec<u32>);

impl Routes {
    /// Looks up the interfaces; nothing changes yet.
    ///
    /// # Errors
    /// Why it can't be done now, for people.
    pub(in crate::daemon::keeper) fn prepare(
        &mut self,
        config: &Config,
        epoll: &Epoll,
    ) -> Result<NextRoutes, String> {
        if config.routes.is_empty() {
            return Ok(NextRoutes(Vec::new()));
        }
        if self.kernel.is_none() {
            let failed = |error: std::io::Error| format!("netlink socket: {error}");
            let links = LinkEvents::open().map_err(failed)?;
            epoll.add(&links, ROUTES, Interest::READ).map_err(failed)?;
            let mut netlink = Netlink::open().map_err(failed)?;
            let loopback = netlink.link("lo").map_err(failed)?.index;
            self.kernel = Some(Kernel {
                netlink,
                links,
                loopback,
            });
        }
        let Some(kernel) = &mut self.kernel else {
            return Err("netlink socket".to_owned());
        };
        let index = |vip: &RouteVip| {
            let link = kernel.netlink.link(&vip.interface);
            link.map(|link| link.index)
                .map_err(|error| format!("vip {}: interface {}: {error}", vip.name, vip.interface))
        };
        let indexes: Result<Vec<u32>, String> = config.routes.iter().map(index).collect();
        indexes.map(NextRoutes)
    }

    /// The new configuration counts.
    pub(in crate::daemon::keeper) fn commit(
        &mut self,
        now: Instant,
        NextRoutes(indexes): NextRoutes,
        config: &Config,
    ) {
        let Some(loopback) = self.kernel.as_ref().map(|kernel| kernel.loopback) else {
            return;
        };
        let mut before = std::mem::take(&mut self.routes);
        for (vip, index) in config.routes.iter().zip(indexes) {
            let same = |route: &Route| !route.leaves && is_same(&route.config, vip);
            let route = match before.iter().position(same) {
                Some(at) => {
                    let mut route = before.remove(at);
                    route.config = vip.clone();
                    route
                }
                None => Route::new(vip.clone(), index, loopback, now),
            };
            self.routes.push(route);
        }
        let first_gone = self.routes.len();
        self.routes.extend(before);
        for index in first_gone..self.routes.len() {
            self.withdraw_for_good(now, index);
        }
    }
}

/// The same but for what it tracks.
fn is_same(one: &RouteVip, other: &RouteVip) -> bool {
    let track = other.track.clone();
    RouteVip {
        track,
        ..one.clone()
    } == *other
}
