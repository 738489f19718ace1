//! The turn in which another configuration begins to count. Nothing here fails.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::read::{Found, Place};
use super::routers::NextRouters;
use super::routes::NextRoutes;
use crate::config;
use crate::config::diff::Change;
use crate::config::local::LocalVip;
use crate::config::model::Config;
use crate::daemon::keeper::Keeper;
use crate::daemon::keeper::adoption::Phase;
use crate::daemon::keeper::listeners::Listeners;
use crate::daemon::keeper::peers::Peers;
use crate::daemon::keeper::start::workers;
use crate::daemon::keeper::succession::Cause;
use crate::daemon::supervise::Input;
use crate::log;

/// What the keeper's own part needs.
#[derive(Debug)]
pub(super) struct Ready {
    routers: NextRouters,
    routes: NextRoutes,
}

impl Keeper {
    /// Does what can fail; nothing has changed yet.
    pub(super) fn ready(&mut self, now: Instant, found: &Found) -> Result<Ready, String> {
        let configs = (&self.args.config, &found.config);
        let locals = (self.reload.locals.as_slice(), found.locals.as_slice());
        let routers = self.routers.prepare(now, locals, configs, &self.epoll)?;
        let routes = self.routes.prepare(&found.config, &self.epoll)?;
        Ok(Ready { routers, routes })
    }

    /// The new configuration counts. Gives back what is told of it.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        found: Found,
        ready: Ready,
    ) -> (Vec<Change>, String) {
        let Found {
            text,
            config,
            config_fd,
            locals,
            changes,
            diagnostics,
            listeners,
        } = found;
        self.digest = config::digest(&text);
        self.args.config_text = text;
        let old = std::mem::replace(&mut self.args.config, config);
        self.proxies.config_fd = config_fd;
        self.place_listeners(listeners);
        self.keep_listeners();
        self.proxies.workers = workers(&self.args.config);
        let new = &self.args.config;
        if old.log != new.log
            && let Err(error) = log::configure(&new.log)
        {
            tracing::error!(error = error.to_string(), "[log] stays as it was");
        }
        self.board.carry(&old, new);
        self.scripts.carry(now, &old.scripts, &new.scripts);
        self.notifiers.carry(&ready.routers.lineage, &locals);
        let lineage = ready.routers.lineage.clone();
        let before = self.routers.router_names();
        let moved = self
            .routers
            .commit(now, ready.routers, &locals, new, &self.epoll);
        self.commands.carry(now, &moved, &self.routers);
        let names = self.routers.present_names(before, &moved);
        let lines = (names.as_slice(), lineage.as_slice());
        self.tracks.carry(now, (&old, new), &self.routers, lines);
        self.routes.commit(now, ready.routes, new);
        let routes = self.routes.status(now);
        self.record
            .carry_routes(routes.iter().map(|route| route.announced).collect());
        self.follow_peers(now, &old, &locals);
        self.reload.locals = locals;
        self.watch_config();
        self.order_examination(now);
        if old.track_files != self.args.config.track_files {
            self.order_files(now);
        }
        (changes, diagnostics)
    }

    /// Sockets that the new file has no place for close here.
    fn place_listeners(&mut self, places: Vec<Vec<Place>>) {
        let Phase::Settled(present) = &mut self.proxies.phase else {
            return;
        };
        let mut taken = |proxy: usize, listen: usize| -> Vec<OwnedFd> {
            let groups = present.0.get_mut(proxy);
            let group = groups.and_then(|groups| groups.get_mut(listen));
            group.map(std::mem::take).unwrap_or_default()
        };
        let mut group = |place| match place {
            Place::Opened(fds) => fds,
            Place::Kept(proxy, listen) | Place::Moved(proxy, listen) => taken(proxy, listen),
        };
        let of_proxy = |places: Vec<Place>| places.into_iter().map(&mut group).collect();
        let all = places.into_iter().map(of_proxy).collect();
        *present = Listeners(all);
    }

    /// The channel between the nodes begins anew where it or its routers are others.
    fn follow_peers(&mut self, now: Instant, old: &Config, locals: &[LocalVip]) {
        let new = &self.args.config;
        let wires = |locals: &[LocalVip]| -> Vec<LocalVip> {
            let wire = |local: &LocalVip| {
                let mut local = local.clone();
                local.vip.track.clear();
                local.vip.notify = None;
                local
            };
            locals.iter().map(wire).collect()
        };
        if old.peer == new.peer && wires(&self.reload.locals) == wires(locals) {
            return;
        }
        // Its ports are needed.
        self.peers = Peers::default();
        self.peers = Peers::open(&self.args.config, locals, &self.routers, now);
    }

    /// Another process gets the configuration, beside the present one, which goes on until that
    /// serves.
    pub(super) fn replace_proxy(&mut self, now: Instant) {
        match self.begin_succession(now, Cause::Reload, None) {
            Ok(()) => {
                if let Some(current) = &mut self.proxies.current {
                    current.outdated = true;
                }
            }
            Err(reason) => {
                tracing::warn!(reason, "no other proxy process takes over yet");
                self.replace_outright(now);
            }
        }
    }

    /// The same where that process did not come up: another and another is tried, while the one that
    /// was there goes on with the configuration that it has.
    pub(in crate::daemon::keeper) fn replace_outright(&mut self, now: Instant) {
        let Some(current) = self.proxies.current.take() else {
            return;
        };
        if let Err(error) = self.epoll.remove(&current.process) {
            tracing::debug!(%error, "the proxy's end was not watched");
        }
        self.proxies.replaced = Some((current.link, now));
        self.board.new_process();
        self.commands.forget();
        self.supervise(now, Input::Ended);
    }
}
