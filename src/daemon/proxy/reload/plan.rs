//! What a new configuration takes, with everything done that can fail: files read, sockets opened,
//! places counted. Nothing of it is in force, and all of it can be dropped.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::access::{self, Running};
use super::super::control::Control;
use super::super::force::InForce;
use super::super::limits::Limits;
use super::super::placement::Workers;
use super::super::report::HttpDoor;
use super::super::start;
use super::super::watchers;
use super::checks::Precheck;
use super::{Fresh, needed};
use crate::config;
use crate::config::model::{Config, Proxy};
use crate::health::fsm::Machine;
use crate::ipc::note::AdminWord;
use crate::net::clock;
use crate::net::privileges::is_readable;
use crate::proxy::engine::Engine;
use crate::proxy::farm::Farm;
use crate::proxy::reshape::Group;
use crate::proxy::roster::ServerSpec;

/// Farms that one process may have had: each name that ever was in the file is one.
const SLOTS_MAX: usize = 1024;

/// Why a configuration can't be put in force here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// Another process can have it.
    Process(String),
    /// Nobody can, at this moment.
    Refused(Vec<String>),
}

/// A configuration that can be put in force.
#[derive(Debug)]
pub(in super::super) struct Prepared {
    pub(super) config: Arc<Config>,
    pub(super) digest: u64,
    /// The proxies, in file order.
    pub(super) proxies: Vec<Planned>,
    /// All listening sockets.
    pub(super) groups: Vec<Group>,
    pub(super) limits: Limits,
    pub(super) access: AccessPlan,
    pub(super) http: HttpDoor,
    /// For new servers, before they are checked.
    candidates: Vec<watchers::Prepared>,
    /// Checks for members that are checked in another way from here on.
    pub(super) renewed: Vec<watchers::Prepared>,
    pub(super) checks: Vec<Precheck>,
}

/// One proxy of the new file.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) slot: usize,
    pub(super) config: Arc<Proxy>,
    pub(super) farm: Arc<Farm>,
    pub(super) kind: Kind,
}

/// What a proxy of the new file is to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody of this name was here before.
    New,
    /// One of this name was here once, or is leaving.
    Back,
    /// Its settings or its servers differ.
    Changed {
        /// Members are checked in another way.
        checks: bool,
        /// Sources of servers are others.
        sources: bool,
    },
    /// All is as it was.
    Same,
}

/// The proxies of the new file, checks of new servers, and new checks of servers that stay.
type Proxies = (
    Vec<Planned>,
    Vec<watchers::Prepared>,
    Vec<watchers::Prepared>,
);

/// What becomes of the access log.
#[derive(Debug)]
pub(super) enum AccessPlan {
    Same,
    Off,
    Next(Running),
}

impl Prepared {
    /// The servers that are to be checked before anything changes.
    pub(super) fn take_checks(&mut self) -> Vec<watchers::Prepared> {
        std::mem::take(&mut self.candidates)
    }

    /// They were.
    pub(super) fn checked(&mut self, checks: Vec<Precheck>) {
        self.checks = checks;
    }
}

impl Control {
    /// Does everything that can fail.
    pub(super) fn plan(&self, text: &str, fresh: Fresh) -> Result<Prepared, Hindrance> {
        let config = config::load(text).map_err(|problems| {
            let lines = problems
                .into_iter()
                .map(|p| format!("{}: {}", p.code, p.message));
            Hindrance::Refused(lines.collect())
        })?;
        let in_force = self.shared.in_force();
        let old = &in_force.config;
        self.is_permitted(&config)?;
        let (proxies, candidates, renewed) = self.plan_proxies(&config)?;
        let metrics = (old.metrics.listen, config.metrics.listen);
        let http = HttpDoor::open(metrics.0, metrics.1).map_err(|error| {
            let at = metrics.1.map_or_else(String::new, |at| at.to_string());
            Hindrance::Refused(vec![format!("metrics.listen {at}: {error}")])
        })?;
        self.is_within_reach(old, &config, &proxies)?;
        let access = self.plan_access(old, &config)?;
        let groups = self.plan_groups(&proxies, fresh)?;
        let limits = Limits::of(&config, self.shared.workers.count);
        Ok(Prepared {
            digest: config::digest(text),
            config: Arc::new(config),
            proxies,
            groups,
            limits,
            access,
            http,
            candidates,
            renewed,
            checks: Vec::new(),
        })
    }

    /// Whether the sandbox permits what it asks for.
    fn is_permitted(&self, config: &Config) -> Result<(), Hindrance> {
        if config.has_client_source() && !self.sandbox.client_source {
            let why = "`source = \"client\"` takes a right that this process has given up";
            return Err(Hindrance::Process(why.to_owned()));
        }
        let unreadable = needed(config);
        let mut unreadable = unreadable
            .iter()
            .filter(|p| !is_readable(&self.sandbox.read, p));
        match unreadable.next() {
            None => Ok(()),
            Some(path) => Err(Hindrance::Process(format!(
                "{} is out of reach of its sandbox",
                path.display()
            ))),
        }
    }

    /// Whether a running process can have it.
    fn is_within_reach(
        &self,
        old: &Config,
        new: &Config,
        proxies: &[Planned],
    ) -> Result<(), Hindrance> {
        let process = |why: &str| Err(Hindrance::Process(why.to_owned()));
        let target = |log: &config::model::Log| config::model::Log {
            level: config::model::Level::Info,
            ..log.clone()
        };
        if target(&old.log) != target(&new.log) {
            return process("target, format and facility of [log] are set when a process begins");
        }
        if old.state_dir != new.state_dir {
            return process("state-dir is opened when a process begins");
        }
        if old.admin != new.admin {
            return process("admin.socket is opened when a process begins");
        }
        let workers = &self.shared.workers;
        let asked = |limits: &config::model::Limits| (limits.workers, limits.pin_workers);
        if self.shared.engine.get().is_none() && !new.proxies.is_empty() {
            return process("it has no workers, and the file has its first proxy");
        }
        if asked(&old.limits) != asked(&new.limits)
            && !new.proxies.is_empty()
            && Workers::of(new) != *workers
        {
            return process("the number of workers, or their CPUs, are set when a process begins");
        }
        let slots = proxies.iter().map(|planned| planned.slot + 1).max();
        if slots > Some(SLOTS_MAX) {
            return process("it has had too many proxies of different names");
        }
        for planned in proxies {
            let missing = planned.farm.lacks_places(&planned.config);
            if planned.kind != Kind::New && missing > 0 {
                let name = &planned.config.name;
                return process(&format!(
                    "proxy {name} has no room for so many servers: {missing} places are missing"
                ));
            }
        }
        Ok(())
    }

    /// A farm for each proxy, and the checks of servers that need a new one.
    fn plan_proxies(&self, config: &Config) -> Result<Proxies, Hindrance> {
        let in_force = self.shared.in_force();
        let mut problems = Vec::new();
        let (mut planned, mut candidates, mut renewed) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = in_force.farms.len();
        for proxy in &config.proxies {
            let one = plan_one(&in_force, proxy, &mut next);
            if one.kind == Kind::New
                && let Some(engine) = self.shared.engine.get()
                && let Err(error) = engine.attach(one.slot, &one.farm)
            {
                problems.push(error.to_string());
            }
            let roster = one.farm.roster();
            let member = |spec: &ServerSpec| {
                let mut present = roster.present();
                one.kind != Kind::New && present.any(|(_, member)| member.is_at(spec))
            };
            for spec in proxy.servers.iter().filter(|spec| !member(spec)) {
                match start::probe(proxy, spec) {
                    Err(error) => problems.push(said(&error)),
                    Ok(probe) if self.is_in_service(proxy, spec) => {
                        candidates.push(watchers::Prepared {
                            slot: one.slot,
                            server: spec.name.clone(),
                            address: spec.check_address,
                            probe,
                            machine: Machine::new(&proxy.check, clock::now()),
                        });
                    }
                    Ok(_not_now) => {}
                }
            }
            if one.renews() {
                for (_, member) in roster.present() {
                    match start::probe(proxy, member) {
                        Err(error) => problems.push(said(&error)),
                        Ok(probe) => renewed.push(watchers::Prepared {
                            slot: one.slot,
                            server: member.name.clone(),
                            address: member.check_address,
                            probe,
                            machine: Machine::new(&proxy.check, clock::now()),
                        }),
                    }
                }
            }
            planned.push(one);
        }
        if problems.is_empty() {
            return Ok((planned, candidates, renewed));
        }
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        Err(Hindrance::Refused(problems))
    }

    /// Whether a server that comes with the file is to take connections at once.
    fn is_in_service(&self, proxy: &Proxy, spec: &ServerSpec) -> bool {
        let note = self.memory.note_of(&proxy.name, &spec.name);
        let word = note.and_then(|note| note.admin);
        let start = if spec.disabled {
            AdminWord::Maint
        } else {
            AdminWord::Ready
        };
        let removed = note.is_some_and(|note| note.removed);
        !removed && word.unwrap_or(start) == AdminWord::Ready
    }

    fn plan_access(&self, old: &Config, new: &Config) -> Result<AccessPlan, Hindrance> {
        if old.access_log == new.access_log {
            return Ok(AccessPlan::Same);
        }
        let refused = |error: String| Hindrance::Refused(vec![format!("[access-log]: {error}")]);
        let next = access::start(new).map_err(|error| refused(error.to_string()))?;
        let Some(next) = next else {
            return Ok(AccessPlan::Off);
        };
        let farms = Arc::clone(&self.shared.access.farms);
        let running = next
            .spawn(farms)
            .map_err(|error| refused(error.to_string()))?;
        Ok(AccessPlan::Next(running))
    }

    /// All listening sockets: those that stay, and new ones.
    fn plan_groups(&self, proxies: &[Planned], fresh: Fresh) -> Result<Vec<Group>, Hindrance> {
        let Some(engine) = self.shared.engine.get() else {
            return Ok(Vec::new());
        };
        let in_force = self.shared.in_force();
        let mut fresh = gathered(fresh);
        let present = engine.groups();
        let mut groups = Vec::new();
        for (at, planned) in proxies.iter().enumerate() {
            for (listen, address) in planned.config.listen.iter().enumerate() {
                let new = fresh.iter().position(|(to, _)| *to == (at, listen));
                if let Some(new) = new {
                    let (_, sockets) = fresh.swap_remove(new);
                    groups.push(group(engine, planned, listen, sockets)?);
                    continue;
                }
                let before = in_force.proxy(planned.slot);
                let before = before.and_then(|placed| {
                    let mut listens = placed.config.listen.iter();
                    listens.position(|known| known == address)
                });
                let mut own = present.iter().filter(|group| group.proxy == planned.slot);
                let known = own.find(|group| Some(group.listen) == before);
                let Some(mut known) = known.cloned() else {
                    let name = &planned.config.name;
                    let problem = format!("proxy {name}: no socket came for {address}");
                    return Err(Hindrance::Refused(vec![problem]));
                };
                known.listen = listen;
                groups.push(known);
            }
        }
        Ok(groups)
    }
}

impl Planned {
    /// Whether its members are to be checked in another way.
    pub(super) const fn renews(&self) -> bool {
        match self.kind {
            Kind::Changed { checks, .. } => checks,
            Kind::Back => true,
            Kind::New | Kind::Same => false,
        }
    }
}

fn plan_one(in_force: &InForce, proxy: &Proxy, next: &mut usize) -> Planned {
    let config = Arc::new(proxy.clone());
    let known = in_force.slot_of(&proxy.name);
    let known = known.and_then(|slot| Some((slot, in_force.farms.get(slot)?)));
    let Some((slot, farm)) = known else {
        *next += 1;
        return Planned {
            slot: *next - 1,
            farm: Arc::new(Farm::new(proxy)),
            config,
            kind: Kind::New,
        };
    };
    let kind = match in_force.proxy(slot) {
        None => Kind::Back,
        Some(placed) if *placed.config == *proxy => Kind::Same,
        Some(placed) => {
            let before = placed.config;
            let send = |proxy: &Proxy| proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
            let way = (before.source, send(before)) != (proxy.source, send(proxy));
            let seeds = |proxy: &Proxy| -> Vec<_> {
                proxy.servers.iter().map(|server| server.address).collect()
            };
            let asks = proxy.discovery.kubernetes.is_some();
            Kind::Changed {
                checks: before.check != proxy.check || way,
                sources: before.discovery != proxy.discovery
                    || asks && (way || seeds(before) != seeds(proxy)),
            }
        }
    };
    Planned {
        slot,
        config,
        farm: Arc::clone(farm),
        kind,
    }
}

fn group(
    engine: &Engine,
    planned: &Planned,
    listen: usize,
    sockets: Vec<std::os::fd::OwnedFd>,
) -> Result<Group, Hindrance> {
    let group = engine.group((planned.slot, listen), &planned.config, sockets);
    group.map_err(|error| Hindrance::Refused(vec![said(&error)]))
}

/// The sockets of each entry together: many come in several messages.
fn gathered(fresh: Fresh) -> Vec<((usize, usize), Vec<std::os::fd::OwnedFd>)> {
    let mut all: Vec<((usize, usize), Vec<std::os::fd::OwnedFd>)> = Vec::new();
    for (group, sockets) in fresh {
        let to = (usize::from(group.proxy), usize::from(group.listen));
        match all.iter_mut().find(|(known, _)| *known == to) {
            Some((_, known)) => known.extend(sockets),
            None => all.push((to, sockets)),
        }
    }
    all
}

/// An error with its causes, on one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each proxy of the second text is to a process that began with the first.
    fn kinds(before: &str, after: &str) -> Vec<(usize, Kind)> {
        let before = config::load(before).unwrap();
        let farms = before.proxies.iter().map(Farm::new).map(Arc::new).collect();
        let limits = Limits::of(&before, 1);
        let in_force = InForce::new(Arc::new(before), farms, limits);
        let mut next = in_force.farms.len();
        let after = config::load(after).unwrap();
        let planned = after.proxies.iter();
        let planned = planned.map(|proxy| plan_one(&in_force, proxy, &mut next));
        planned.map(|one| (one.slot, one.kind)).collect()
    }

    fn proxy(name: &str, more: &str) -> String {
        format!("[proxy.{name}]\nlisten = \"127.0.0.1:1\"\nbackends = [\"10.0.0.1:1\"]\n{more}\n")
    }

    #[test]
    fn only_what_differs_is_touched_and_slots_stay() {
        let (p, q) = (proxy("p", ""), proxy("q", "").replace(":1\"", ":2\""));
        let both = format!("{p}{q}");
        assert_eq!(kinds(&both, &both), [(0, Kind::Same), (1, Kind::Same)]);
        let turned = format!("# turned\n{q}{p}");
        assert_eq!(kinds(&both, &turned), [(1, Kind::Same), (0, Kind::Same)]);
        let other = proxy("r", "").replace(":1\"", ":3\"");
        let third = format!("{other}{q}");
        assert_eq!(kinds(&both, &third), [(2, Kind::New), (1, Kind::Same)]);
    }

    #[test]
    fn checks_begin_anew_only_where_they_are_made_in_another_way() {
        let kind = |more: &str| kinds(&proxy("p", ""), &proxy("p", more)).remove(0).1;
        let changed = |checks, sources| Kind::Changed { checks, sources };
        assert_eq!(kind("idle-timeout = \"1m\""), changed(false, false));
        assert_eq!(kind("balance = \"first\""), changed(false, false));
        assert_eq!(kind("check = { interval = \"3s\" }"), changed(true, false));
        assert_eq!(kind("source = \"10.0.0.9\""), changed(true, false));
        assert_eq!(
            kind("proxy-protocol = { send = \"v2\" }"),
            changed(true, false)
        );
        assert_eq!(
            kind("backends-file = \"/etc/lbd/b.json\""),
            changed(false, true)
        );
    }
}
