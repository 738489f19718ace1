//! Orders about servers, carried out: all of one order or nothing. Whoever gave it is answered once
//! it lies on disk, or it is clear that it won't.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::memory::{Full, Memory, spec, state, word};
use super::report::Shared;
use super::shelf::Writer;
use crate::admin::servers::{
    AddServer, Kept, ServerChange, ServerCommand, ServerName, ServersDone, SetWeight,
};
use crate::config;
use crate::config::model::{Proxy, Server};
use crate::ipc::event::{EventKind, Happening};
use crate::ipc::note::{AddedServer, AdminWord, ServerNote};
use crate::proxy::farm::Farm;
use crate::proxy::roster::{AddError, Member, Origin};
use crate::units::Weight;

/// Said where no state directory is there.
pub(super) const NO_SHELF: &str = "there is no state-dir: it is forgotten when the daemon ends";

/// What orders are carried out on.
#[derive(Debug)]
struct Desk<'a> {
    config: &'a config::model::Config,
    proxies: &'a [Proxy],
    farms: &'a [Arc<Farm>],
    memory: &'a mut Memory,
    now: Instant,
}

/// A member of a farm.
#[derive(Debug)]
struct Found {
    farm: Arc<Farm>,
    config: Proxy,
    place: usize,
    member: Arc<Member>,
}

impl Found {
    fn key(&self) -> (String, String) {
        (self.config.name.clone(), self.member.name.clone())
    }

    /// Whether the file has it.
    fn in_file(&self) -> bool {
        let mut servers = self.config.servers.iter();
        servers.any(|server| server.name == self.member.name)
    }

    fn connections(&self, now: Instant) -> u64 {
        let stats = self.farm.stats(now);
        let mut servers = stats.servers.iter();
        let own = servers.find(|server| server.place == self.place);
        own.map_or(0, |server| server.connections.into())
    }

    fn change(&self, from: String, to: String, now: Instant) -> ServerChange {
        ServerChange {
            proxy: self.config.name.clone(),
            server: self.member.name.clone(),
            from,
            to,
            connections: self.connections(now),
            usable: u64::try_from(self.farm.usable()).unwrap_or(u64::MAX),
        }
    }
}

impl Desk<'_> {
    fn carry_out(&mut self, command: ServerCommand) -> Result<ServersDone, String> {
        let servers = match command {
            ServerCommand::State(word, names) => self.set_state(word, &names)?,
            ServerCommand::Weight(order) => vec![self.set_weight(&order)?],
            ServerCommand::Add(order) => vec![self.add(&order)?],
            ServerCommand::Remove(name) => vec![self.remove(&name)?],
        };
        Ok(ServersDone {
            servers,
            kept: Kept::Restart(NO_SHELF.to_owned()),
        })
    }

    fn set_state(
        &mut self,
        to: AdminWord,
        names: &[ServerName],
    ) -> Result<Vec<ServerChange>, String> {
        let found: Result<Vec<Found>, String> = names.iter().map(|name| self.find(name)).collect();
        let found = found?;
        let keys: Vec<_> = found.iter().map(Found::key).collect();
        self.memory.has_room_for(&keys).map_err(full)?;
        let mut changes = Vec::with_capacity(found.len());
        for one in &found {
            let from = one.farm.admin(one.place).map(word);
            one.farm.set_admin(one.place, state(to), self.now);
            // What the file says needs no note.
            let start = if one.member.disabled {
                AdminWord::Maint
            } else {
                AdminWord::Ready
            };
            let (proxy, server) = one.key();
            self.memory.note(&proxy, &server, |note| {
                note.admin = (to != start).then_some(to);
            });
            let from = from.map_or("absent", AdminWord::word);
            changes.push(one.change(from.to_owned(), to.word().to_owned(), self.now));
        }
        // Only now is it clear how many are left.
        for (change, one) in changes.iter_mut().zip(&found) {
            change.usable = u64::try_from(one.farm.usable()).unwrap_or(u64::MAX);
        }
        Ok(changes)
    }

    fn set_weight(&mut self, order: &SetWeight) -> Result<ServerChange, String> {
        let found = self.find(&order.server)?;
        let weight = order.weight.map(weight).transpose()?;
        self.memory.has_room_for(&[found.key()]).map_err(full)?;
        let from = found.member.weight;
        found.farm.set_weight(found.place, weight);
        let to = found.farm.member(found.place).map(|member| member.weight);
        let (proxy, server) = found.key();
        self.memory
            .note(&proxy, &server, |note| note.weight = order.weight);
        let to = to.unwrap_or(from);
        Ok(found.change(
            format!("weight {}", from.get()),
            format!("weight {}", to.get()),
            self.now,
        ))
    }

    fn add(&mut self, order: &AddServer) -> Result<ServerChange, String> {
        let (config, farm) = self.proxy(order.server.proxy.as_deref())?;
        let name = order.server.server.as_str();
        let listed = config.servers.iter().find(|server| server.name == name);
        let key = (config.name.clone(), name.to_owned());
        self.memory.has_room_for(&[key]).map_err(full)?;
        let (spec, origin, added) = match (order.address, listed) {
            (None, Some(server)) if order.is_name_alone() => (server.clone(), Origin::File, None),
            (Some(address), None) => {
                if !config::is_name(name) {
                    return Err(format!(
                        "`{name}` can't be a name: use 1 to 64 letters, digits, `-`, `_` and `.`"
                    ));
                }
                let added = AddedServer {
                    address,
                    check_address: order.check_address.unwrap_or(address),
                    weight: weight(order.weight.unwrap_or(1))?.get(),
                    max_connections: order
                        .max_connections
                        .or(common(&config, |s| s.max_connections)),
                    connects_per_second: common(&config, |s| s.connects_per_second),
                    backup: order.backup,
                };
                reachable(&added)?;
                self.is_new(&config, &farm, (name, address))?;
                (spec(name, &added), Origin::Operator, Some(added))
            }
            (None, None) => return Err("an address is needed: IP:PORT".to_owned()),
            (_, Some(_)) => {
                return Err(format!(
                    "the file has a server {name} in {}: it comes back as it is there, by its name \
                     alone",
                    config.name
                ));
            }
        };
        let place = farm.add(&spec, origin).map_err(|error| error.to_string())?;
        let member = farm.member(place).ok_or("it left at once")?;
        self.memory.note(&config.name, name, |note| {
            *note = ServerNote {
                added,
                ..ServerNote::new(&note.proxy, &note.server)
            };
        });
        let found = Found {
            farm,
            config,
            place,
            member,
        };
        let to = found.farm.admin(place).map_or("ready", |s| word(s).word());
        Ok(found.change("absent".to_owned(), to.to_owned(), self.now))
    }

    /// That connections to this address don't come back here, and that no other server has it.
    fn is_new(
        &self,
        config: &Proxy,
        farm: &Farm,
        (name, address): (&str, SocketAddr),
    ) -> Result<(), String> {
        if config::comes_back(self.config, config, address) {
            let proxy = &config.name;
            return Err(format!("{address} is where {proxy} itself listens"));
        }
        let roster = farm.roster();
        if roster.place(name).is_some() {
            return Err(AddError::NameTaken.to_string());
        }
        let same = |member: &Member| {
            let other = member.address;
            (other.ip().to_canonical(), other.port())
                == (address.ip().to_canonical(), address.port())
        };
        match roster.present().find(|(_, member)| same(member)) {
            Some((_, twin)) => Err(format!(
                "{address} is the address of {}: give that one another weight if it should get \
                 more connections",
                twin.name
            )),
            None => Ok(()),
        }
    }

    fn remove(&mut self, name: &ServerName) -> Result<ServerChange, String> {
        let found = self.find(name)?;
        if found.member.origin == Origin::Discovered {
            return Err(format!(
                "discovery found {} and would add it again: `maint` takes it out of service",
                found.member.name
            ));
        }
        self.memory.has_room_for(&[found.key()]).map_err(full)?;
        let from = found
            .farm
            .admin(found.place)
            .map_or("ready", |s| word(s).word());
        let connections = found.connections(self.now);
        found.farm.remove(found.place);
        let (proxy, server) = found.key();
        let removed = found.in_file();
        self.memory.note(&proxy, &server, |note| {
            *note = ServerNote {
                removed,
                ..ServerNote::new(&note.proxy, &note.server)
            };
        });
        let change = found.change(from.to_owned(), "absent".to_owned(), self.now);
        Ok(ServerChange {
            connections,
            ..change
        })
    }

    /// The server of this name; a proxy left out is found by its server.
    fn find(&self, name: &ServerName) -> Result<Found, String> {
        let proxies = self.proxies.iter().zip(self.farms);
        let mut found = Vec::new();
        for (config, farm) in proxies {
            if name
                .proxy
                .as_ref()
                .is_some_and(|proxy| *proxy != config.name)
            {
                continue;
            }
            let roster = farm.roster();
            let place = roster.place(&name.server);
            if let Some((place, member)) = place.and_then(|at| Some((at, roster.member(at)?))) {
                found.push(Found {
                    farm: Arc::clone(farm),
                    config: config.clone(),
                    place,
                    member: Arc::clone(member),
                });
            }
        }
        match found.len() {
            0 => Err(self.unknown(name)),
            1 => found.pop().ok_or_else(|| self.unknown(name)),
            _ => {
                let proxies: Vec<String> = found
                    .iter()
                    .map(|found| format!("{}/{}", found.config.name, name.server))
                    .collect();
                Err(format!(
                    "several proxies have a server {}: say which, {}",
                    name.server,
                    proxies.join(" or ")
                ))
            }
        }
    }

    fn unknown(&self, name: &ServerName) -> String {
        if let Some(proxy) = &name.proxy
            && let Err(why) = self.proxy(Some(proxy))
        {
            return why;
        }
        let wanted = |farm: &&Arc<Farm>| name.proxy.as_deref().is_none_or(|p| p == farm.name());
        let farms = self.farms.iter().filter(wanted);
        let names: Vec<String> = farms
            .flat_map(|farm| {
                let roster = farm.roster();
                let names = roster.present().map(|(_, member)| member.name.clone());
                names.collect::<Vec<_>>()
            })
            .collect();
        let names = names.iter().map(String::as_str);
        let hint = match config::nearest(&name.server, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
        };
        match &name.proxy {
            Some(proxy) => format!("no server {} in proxy {proxy}: {hint}", name.server),
            None => format!("no server {}: {hint}", name.server),
        }
    }

    /// The proxy of this name, or the only one.
    fn proxy(&self, name: Option<&str>) -> Result<(Proxy, Arc<Farm>), String> {
        let mut proxies = self.proxies.iter().zip(self.farms);
        let found = match (name, self.proxies.len()) {
            (Some(name), _) => proxies.find(|(config, _)| config.name == name),
            (None, 1) => proxies.next(),
            (None, 0) => return Err("this node has no [proxy]".to_owned()),
            (None, _) => return Err("say which proxy: PROXY/SERVER".to_owned()),
        };
        let names = || self.proxies.iter().map(|proxy| proxy.name.as_str());
        match found {
            Some((config, farm)) => Ok((config.clone(), Arc::clone(farm))),
            None => Err(format!(
                "no [proxy.{}]: there are: {}",
                name.unwrap_or_default(),
                names().collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

/// A limit on which all servers of the file agree holds for one that is added, too.
fn common(config: &Proxy, limit: impl Fn(&Server) -> Option<NonZeroU32>) -> Option<u32> {
    let mut limits = config.servers.iter().map(limit);
    let first = limits.next()??;
    limits
        .all(|other| other == Some(first))
        .then_some(first.get())
}

fn weight(number: u16) -> Result<Weight, String> {
    Weight::try_from(i64::from(number)).map_err(|error| error.to_string())
}

fn full(_: Full) -> String {
    "too many servers differ from the file already: write it into lb.toml".to_owned()
}

/// What the file would be refused for.
fn reachable(added: &AddedServer) -> Result<(), String> {
    for address in [added.address, added.check_address] {
        if address.port() == 0 {
            return Err(format!("{address}: port 0 is no port"));
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(format!("{address} is no server's address"));
        }
    }
    if added.max_connections == Some(0) {
        return Err("max-connections is at least 1; `maint` takes a server out".to_owned());
    }
    Ok(())
}

/// Carries out an order of the user with this number; answers what was done, and the events of it
/// for the record.
///
/// # Errors
/// Why nothing was done.
pub(super) fn carry_out(
    shared: &Shared,
    memory: &mut Memory,
    command: ServerCommand,
    (uid, now): (u32, Instant),
) -> Result<(ServersDone, Vec<Happening>), String> {
    let in_force = shared.in_force();
    let mut desk = Desk {
        config: &in_force.config,
        proxies: &in_force.config.proxies,
        farms: &in_force.present(),
        memory,
        now,
    };
    let done = desk.carry_out(command)?;
    shared.changing().removed = memory.removed();
    let events: Vec<Happening> = done.servers.iter().map(|to| event(to, uid)).collect();
    for event in &events {
        let (server, from, to) = (&event.subject, &event.from, &event.to);
        tracing::info!(server, from, to, uid, "server changed by order");
    }
    Ok((done, events))
}

/// Sends notes to the disk, and says for how long they are kept once that is known.
pub(super) async fn keep(shelf: Writer, notes: Vec<ServerNote>) -> Kept {
    let (answer, written) = oneshot::channel();
    let sent = shelf.send((notes, answer)).await;
    let written = match sent {
        Ok(()) => written.await.map_err(|_gone| NO_WRITER.to_owned()),
        Err(_gone) => Err(NO_WRITER.to_owned()),
    };
    match written {
        Ok(Ok(())) => Kept::Reboot,
        Ok(Err(error)) => Kept::Restart(format!("state-dir cannot be written: {error}")),
        Err(why) => Kept::Restart(why),
    }
}

const NO_WRITER: &str = "this process is ending";

/// The event of a change, for the record.
fn event(change: &ServerChange, uid: u32) -> Happening {
    Happening {
        kind: EventKind::Server,
        subject: Some(format!("{}/{}", change.proxy, change.server)),
        from: Some(change.from.clone()),
        to: Some(change.to.clone()),
        reason: format!("ordered by user {uid}"),
    }
}
