//! What operators changed about servers: applied to the farms, told to the keeper for the next proxy
//! process, and written to the state directory for the next boot.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use super::shelf::Shelf;
use crate::config::{
    self,
    model::{Config, Proxy},
};
use crate::ipc::note::{AddedServer, AdminWord, NOTES_MAX, ServerNote};
use crate::proxy::farm::Farm;
use crate::proxy::roster::{Member, Origin, ServerSpec};
use crate::proxy::server::AdminState;
use crate::units::Weight;

/// All notes, by names of proxy and server.
#[derive(Debug)]
pub(super) struct Memory {
    notes: BTreeMap<(String, String), ServerNote>,
    pub(super) shelf: Option<Shelf>,
    /// Whether the keeper has not heard of the present notes.
    pub(super) untold: bool,
    /// By proxy and place, the member to which its note was applied.
    applied: Vec<Vec<u64>>,
}

/// As many servers as are kept differ from the file already.
#[derive(Debug)]
pub(super) struct Full;

impl Memory {
    /// From the keeper, if it has heard of any, else from the state directory.
    pub(super) fn new(told: Option<Vec<ServerNote>>, shelf: Option<Shelf>) -> Self {
        let from_keeper = told.is_some();
        let notes = told.unwrap_or_else(|| shelf.as_ref().map_or_else(Vec::new, Shelf::load));
        let keyed = notes.into_iter().take(NOTES_MAX);
        Self {
            notes: keyed.map(|note| (key(&note), note)).collect(),
            shelf,
            untold: !from_keeper,
            applied: Vec::new(),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<ServerNote> {
        self.notes.values().cloned().collect()
    }

    /// Whether all these servers have, or could have, a note.
    pub(super) fn has_room_for(&self, servers: &[(String, String)]) -> Result<(), Full> {
        let new = servers.iter().filter(|key| !self.notes.contains_key(*key));
        if self.notes.len() + new.count() > NOTES_MAX {
            return Err(Full);
        }
        Ok(())
    }

    /// Changes what is kept of a server.
    pub(super) fn note(&mut self, proxy: &str, server: &str, change: impl FnOnce(&mut ServerNote)) {
        let key = (proxy.to_owned(), server.to_owned());
        let mut note = self
            .notes
            .remove(&key)
            .unwrap_or_else(|| ServerNote::new(proxy, server));
        change(&mut note);
        if !note.is_empty() {
            self.notes.insert(key, note);
        }
        self.untold = true;
    }

    /// What is kept of this server.
    pub(super) fn note_of(&self, proxy: &str, server: &str) -> Option<&ServerNote> {
        self.notes.get(&(proxy.to_owned(), server.to_owned()))
    }

    /// The file has changed: a server that was added and is in the file now is the file's, and one
    /// that was removed and is no longer in the file is nobody's. What concerns proxies that the
    /// file doesn't have stays: they may come back.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut idle = Vec::new();
        for (proxy, server) in self.notes.keys() {
            let known = config.proxies.iter().find(|known| known.name == *proxy);
            if let Some(known) = known {
                let listed = known.servers.iter().any(|spec| spec.name == *server);
                idle.push((proxy.clone(), server.clone(), listed));
            }
        }
        for (proxy, server, listed) in idle {
            let note = self.note_of(&proxy, &server);
            let stale =
                note.is_some_and(|note| listed && note.added.is_some() || !listed && note.removed);
            if stale {
                self.note(&proxy, &server, |note| {
                    note.added = note.added.filter(|_| !listed);
                    note.removed &= listed;
                });
            }
        }
    }

    /// The file's servers that operators removed, by names of proxy and server.
    pub(super) fn removed(&self) -> Vec<(String, String)> {
        let notes = self.notes.values().filter(|note| note.removed);
        notes.map(key).collect()
    }

    /// At the start: members that were added are there again, removed ones are not.
    pub(super) fn restore(&self, config: &Config, farms: &[Arc<Farm>]) {
        for (proxy, farm) in config.proxies.iter().zip(farms) {
            self.restore_one(config, proxy, farm);
        }
    }

    /// The same for one proxy.
    pub(super) fn restore_one(&self, config: &Config, proxy: &Proxy, farm: &Farm) {
        {
            let of_farm = self.notes.values().filter(|note| note.proxy == farm.name());
            for note in of_farm {
                if let Some(added) = &note.added {
                    if config::comes_back(config, proxy, added.address) {
                        let (proxy, server, error) =
                            (farm.name(), &note.server, "it is this load balancer itself");
                        tracing::warn!(
                            proxy,
                            server,
                            error,
                            "server that was added once is left out"
                        );
                        continue;
                    }
                    let spec = spec(&note.server, added);
                    if let Err(error) = farm.add(&spec, Origin::Operator) {
                        let (proxy, server) = (farm.name(), &note.server);
                        tracing::warn!(proxy, server, %error, "server that was added once is left out");
                    }
                }
                let place = farm.roster().place(&note.server);
                if note.removed
                    && let Some(place) = place
                {
                    farm.remove(place);
                }
            }
        }
    }

    /// Brings state and weight to members that have come since the last call.
    pub(super) fn apply(&mut self, farms: &[Arc<Farm>], now: Instant) {
        self.applied.resize(farms.len(), Vec::new());
        for (farm, applied) in farms.iter().zip(&mut self.applied) {
            let roster = farm.roster();
            for (place, member) in roster.present() {
                if applied.len() <= place {
                    applied.resize(place + 1, 0);
                }
                let Some(applied) = applied.get_mut(place) else {
                    continue;
                };
                if std::mem::replace(applied, member.id) == member.id {
                    continue;
                }
                let key = (farm.name().to_owned(), member.name.clone());
                let noted = self.notes.get(&key);
                // One that was just added is as its order says.
                if let Some(note) = noted.filter(|n| n.admin.is_some() || n.weight.is_some()) {
                    recall(note, farm, place, member, now);
                }
            }
        }
    }
}

fn key(note: &ServerNote) -> (String, String) {
    (note.proxy.clone(), note.server.clone())
}

fn recall(note: &ServerNote, farm: &Farm, place: usize, member: &Member, now: Instant) {
    if let Some(word) = note.admin {
        farm.set_admin(place, state(word), now);
    }
    let weight = note
        .weight
        .map(|weight| Weight::try_from(i64::from(weight)));
    match weight {
        None => {}
        Some(Ok(weight)) => {
            farm.set_weight(place, Some(weight));
        }
        Some(Err(error)) => {
            let (proxy, server) = (farm.name(), &member.name);
            tracing::warn!(proxy, server, %error, "kept weight is left out");
        }
    }
    let (proxy, server) = (farm.name(), &member.name);
    let state = note.admin.map(AdminWord::word);
    tracing::info!(
        proxy,
        server,
        state,
        weight = note.weight,
        "as operators left it"
    );
}

/// A server as it was added.
pub(super) fn spec(name: &str, added: &AddedServer) -> ServerSpec {
    ServerSpec {
        name: name.to_owned(),
        address: added.address,
        check_address: added.check_address,
        weight: Weight::try_from(i64::from(added.weight)).unwrap_or(Weight::ONE),
        max_connections: added.max_connections.and_then(NonZeroU32::new),
        connects_per_second: added.connects_per_second.and_then(NonZeroU32::new),
        disabled: false,
        backup: added.backup,
    }
}

/// The farm's word for an operator's.
pub(super) const fn state(word: AdminWord) -> AdminState {
    match word {
        AdminWord::Ready => AdminState::Ready,
        AdminWord::Drain => AdminState::Drain,
        AdminWord::Maint => AdminState::Maint,
    }
}

/// An operator's word for the farm's.
pub(super) const fn word(state: AdminState) -> AdminWord {
    match state {
        AdminState::Ready => AdminWord::Ready,
        AdminState::Drain => AdminWord::Drain,
        AdminState::Maint => AdminWord::Maint,
    }
}
