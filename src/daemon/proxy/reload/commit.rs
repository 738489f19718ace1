//! A configuration that was planned is put in force, whole. Nothing here can fail: what a kernel
//! could still refuse is logged and tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::clients::Clients;
use super::super::control::Control;
use super::super::force::{InForce, Leaving};
use super::super::setup::rings;
use super::super::{discoveries, servers, watchers};
use super::checks::Precheck;
use super::plan::{AccessPlan, Kind, Planned, Prepared};
use crate::admin::servers::Kept;
use crate::health::task::Finding;
use crate::log::level;
use crate::proxy::farm::Farm;
use crate::proxy::farm::table::Reconciled;
use crate::proxy::reshape::Shape;
use crate::proxy::roster::ServerSpec;
use crate::proxy::server::AdminState;

/// Connections of a proxy that was removed go on for so long.
const REMOVED_GRACE: Duration = Duration::from_secs(600);

impl Control {
    /// Puts it in force.
    pub(super) fn commit(&mut self, prepared: Prepared, now: Instant) {
        let before = self.shared.in_force();
        self.enter(&prepared, &before, now);
        self.memory.follow(&prepared.config);
        if let Err(error) = level::configure(prepared.config.log.level) {
            tracing::debug!(error, "log level stays");
        }
        let settled = self.settle_farms(&prepared, now);
        self.reshape(&prepared);
        self.watch(
            prepared.renewed,
            prepared.checks,
            &prepared.proxies,
            settled,
            now,
        );
        self.follow_sources(&prepared.proxies, now);
        match prepared.access {
            AccessPlan::Same => {}
            AccessPlan::Off => self.shared.access.replace(None),
            AccessPlan::Next(running) => self.shared.access.replace(Some(running)),
        }
        self.doors.move_http(prepared.http);
        self.clients = Clients::new(&prepared.config);
        self.digest = prepared.digest;
        self.shared.changing().removed = self.memory.removed();
        self.news.reloaded();
        self.keep_notes();
        let elapsed_ms = crate::net::clock::now()
            .saturating_duration_since(now)
            .as_millis();
        tracing::info!(elapsed_ms, "configuration in force");
    }

    /// The file's proxies are these from here on; those it has no more begin to leave.
    fn enter(&mut self, prepared: &Prepared, before: &InForce, now: Instant) {
        let mut farms = before.farms.clone();
        let new = prepared.proxies.iter().filter(|p| p.kind == Kind::New);
        for planned in new {
            farms.push(Arc::clone(&planned.farm));
            rings(&planned.farm, &self.alarm);
            self.memory
                .restore_one(&prepared.config, &planned.config, &planned.farm);
        }
        let slots: Vec<usize> = prepared.proxies.iter().map(|p| p.slot).collect();
        let gone = before.slots.iter().filter(|slot| !slots.contains(slot));
        let gone = gone.map(|slot| Leaving {
            slot: *slot,
            until: now + REMOVED_GRACE,
        });
        let still = before.leaving.iter().copied();
        let leaving: Vec<Leaving> = still
            .filter(|leaving| !slots.contains(&leaving.slot))
            .chain(gone)
            .collect();
        for leaving in &leaving {
            self.discoveries.follow(leaving.slot, None);
        }
        let mut changing = self.shared.changing();
        for planned in &prepared.proxies {
            let was_leaving = before.leaving.iter().any(|l| l.slot == planned.slot);
            let comes = match planned.kind {
                Kind::New => true,
                Kind::Back => !was_leaving,
                Kind::Changed { .. } | Kind::Same => false,
            };
            if comes {
                changing.board.begin(planned.slot, &planned.config.name);
                if !planned.config.servers.is_empty() {
                    changing.board.discovered(planned.slot);
                }
            }
        }
        drop(changing);
        self.shared.access.farms.store(Arc::new(farms.clone()));
        self.shared.put_in_force(InForce {
            config: Arc::clone(&prepared.config),
            farms,
            slots,
            leaving,
            limits: prepared.limits,
        });
    }

    /// Settings and servers of the farms. Those that are new and were found ready take connections
    /// before any other goes. Answers what the first checks mean to the members they are of.
    fn settle_farms(&mut self, prepared: &Prepared, now: Instant) -> Vec<(usize, usize)> {
        let mut settled = Vec::new();
        for planned in &prepared.proxies {
            if planned.kind == Kind::Same {
                continue;
            }
            let farm = &planned.farm;
            if planned.kind != Kind::New {
                farm.set_config(&planned.config);
            }
            for (number, checked) in prepared.checks.iter().enumerate() {
                let candidate = &checked.candidate;
                let servers = planned.config.servers.iter();
                let mut servers = servers.filter(|spec| spec.name == candidate.server);
                if candidate.slot != planned.slot {
                    continue;
                }
                let Some(spec) = servers.next() else {
                    continue;
                };
                if let Some(place) = bring(farm, spec, checked) {
                    settled.push((number, place));
                }
            }
            self.settle_members(planned, now);
        }
        settled
    }

    /// The members that the file names are those of the file.
    fn settle_members(&mut self, planned: &Planned, now: Instant) {
        let farm = &planned.farm;
        let wanted = self.wanted(&planned.config);
        for spec in &wanted {
            let roster = farm.roster();
            let mut present = roster.present();
            let Some((place, member)) = present.find(|(_, member)| member.is_at(spec)) else {
                continue;
            };
            let word = self.memory.note_of(&planned.config.name, &spec.name);
            let ordered = word.is_some_and(|note| note.admin.is_some());
            if member.disabled != spec.disabled && !ordered {
                let state = if spec.disabled {
                    AdminState::Maint
                } else {
                    AdminState::Ready
                };
                farm.set_admin(place, state, now);
            }
        }
        let done = farm.reconcile_file(&wanted);
        say(farm.name(), &done);
        self.unsettled.retain(|slot| *slot != planned.slot);
        if !done.is_settled() {
            self.unsettled.push(planned.slot);
        }
    }

    /// The file's servers, but for those that operators removed.
    fn wanted(&self, config: &crate::config::model::Proxy) -> Vec<ServerSpec> {
        let removed = |spec: &&ServerSpec| {
            let note = self.memory.note_of(&config.name, &spec.name);
            note.is_some_and(|note| note.removed)
        };
        let servers = config.servers.iter();
        servers.filter(|spec| !removed(spec)).cloned().collect()
    }

    /// Tries again what could not be done with the file's servers.
    pub(in super::super) fn settle_again(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        let in_force = self.shared.in_force();
        for slot in std::mem::take(&mut self.unsettled) {
            let Some(placed) = in_force.proxy(slot) else {
                continue;
            };
            let done = placed.farm.reconcile_file(&self.wanted(placed.config));
            for server in &done.removed {
                let (proxy, reason) = (placed.farm.name(), "reload");
                tracing::info!(proxy, server, reason, "server removed");
            }
            if !done.is_settled() {
                self.unsettled.push(slot);
            }
        }
    }

    /// The workers have it from here on.
    fn reshape(&self, prepared: &Prepared) {
        let Some(engine) = self.shared.engine.get() else {
            return;
        };
        let changed = prepared.proxies.iter().filter(|p| p.kind != Kind::Same);
        let access = match &prepared.access {
            AccessPlan::Same => self.shared.access.sink(),
            AccessPlan::Off => None,
            AccessPlan::Next(running) => Some(running.sink()),
        };
        engine.commit(Shape {
            farms: changed.map(|p| (p.slot, Arc::clone(&p.farm))).collect(),
            groups: prepared.groups.clone(),
            max_connections: prepared.limits.max_connections,
            access,
        });
    }

    /// Checks begin, end, and go on by other rules.
    fn watch(
        &mut self,
        renewed: Vec<watchers::Prepared>,
        mut checks: Vec<Precheck>,
        proxies: &[Planned],
        settled: Vec<(usize, usize)>,
        now: Instant,
    ) {
        let findings: Vec<Finding> = settled
            .into_iter()
            .filter_map(|(number, place)| Some(checks.get_mut(number)?.finding(place)))
            .collect();
        let first = checks.into_iter().map(|checked| checked.candidate);
        self.watchers.prepare(first.chain(renewed).collect());
        self.follow_rosters(now);
        for planned in proxies {
            if planned.renews() {
                self.watchers
                    .renew(planned.slot, &planned.config, &planned.farm, now);
            }
        }
        self.watchers.prepare(Vec::new());
        for finding in &findings {
            self.shared.changing().board.record(finding);
        }
    }

    /// Sources of servers.
    fn follow_sources(&mut self, proxies: &[Planned], now: Instant) {
        for planned in proxies {
            let anew = match planned.kind {
                Kind::New | Kind::Back => true,
                Kind::Changed { sources, .. } => sources,
                Kind::Same => continue,
            };
            let (slot, config) = (planned.slot, &planned.config);
            let mut changing = self.shared.changing();
            let update = if anew {
                changing.known.change(slot, config, now)
            } else {
                changing.known.change_fixed(slot, config)
            };
            drop(changing);
            if anew {
                self.discoveries.follow(slot, Some(config));
            }
            discoveries::reconcile(&self.shared, &planned.farm, &update);
        }
        self.follow_rosters(now);
    }

    /// What operators ordered, where the file has made some of it idle.
    fn keep_notes(&mut self) {
        if !self.memory.untold {
            return;
        }
        if let Some(shelf) = &self.shelf {
            let kept = servers::keep(shelf.clone(), self.memory.all());
            tokio::spawn(async move {
                if let Kept::Restart(error) = kept.await {
                    tracing::warn!(error, "orders about servers are not kept");
                }
            });
        }
    }

    /// Proxies that were removed, and have no connection left, or had time enough.
    pub(in super::super) fn see_leavers_off(&mut self, now: Instant) {
        let in_force = self.shared.in_force();
        if in_force.leaving.is_empty() {
            return;
        }
        let mut left = Vec::new();
        for leaving in &in_force.leaving {
            let farm = in_force.farms.get(leaving.slot);
            let connections = farm.map_or(0, |farm| farm.connections());
            if connections == 0 {
                self.watchers.end_all(leaving.slot);
                self.shared.changing().board.end(leaving.slot);
                continue;
            }
            left.push(*leaving);
            if now >= leaving.until
                && let Some(engine) = self.shared.engine.get()
            {
                let proxy = farm.map(|farm| farm.name());
                tracing::warn!(
                    proxy,
                    connections,
                    "connections of a removed proxy are reset"
                );
                engine.end_proxy(leaving.slot);
            }
        }
        if left.len() < in_force.leaving.len() {
            self.shared.put_in_force(InForce {
                leaving: left,
                ..InForce::clone(&in_force)
            });
        }
    }
}

/// Makes a server that was checked a member, in place of another one of its name.
fn bring(farm: &Farm, spec: &ServerSpec, checked: &Precheck) -> Option<usize> {
    match farm.bring(spec, checked.checked()) {
        Ok(place) => Some(place),
        Err(error) => {
            let (proxy, server) = (farm.name(), &spec.name);
            tracing::warn!(proxy, server, %error, "server cannot be added");
            None
        }
    }
}

fn say(proxy: &str, done: &Reconciled) {
    let reason = "reload";
    for server in &done.added {
        tracing::info!(proxy, server, reason, "server added");
    }
    for server in &done.removed {
        tracing::info!(proxy, server, reason, "server removed");
    }
    for server in &done.changed {
        tracing::info!(proxy, server, reason, "server changed");
    }
    for server in &done.held {
        let reason = "no other is ready";
        tracing::warn!(proxy, server, reason, "server no longer in the file stays");
    }
    for (server, error) in &done.refused {
        tracing::warn!(proxy, server, %error, "server cannot be added");
    }
}
