//! The nodes' halves of each virtual router as one `[vip.NAME]`.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, comment, key, list, string};
use super::super::{haproxy, words};
use super::behaviour::{garp, notify, preempt, sync_group};
use super::instance::{Address, Auth, Instance};
use super::nodes::{hosts, nodes, own_interface, rank, usable_interface};
use super::traps::{self, Rank};
use super::{File, Said, track};

/// lbd's limits.
const ADDRESSES_MAX: usize = 20;
/// keepalived's priority where a file has none.
pub(super) const PRIORITY: u64 = 100;

/// The halves of one virtual router, each with its file.
pub(super) struct Group<'a> {
    pub(super) name: String,
    pub(super) members: Vec<(&'a File, &'a Instance)>,
}

/// All tables about virtual routers and what they track.
pub(super) fn tables(files: &[File], proxies: &[haproxy::Proxy], work: &mut Work) -> Vec<Table> {
    let groups = groups(files, work);
    let mut made = Vec::new();
    let mut tracks = track::Tracks::new(files, proxies, groups.len(), work.health);
    for group in &groups {
        made.extend(vip(group, files, &mut tracks, work));
    }
    made.extend(tracks.tables(work));
    made
}

/// Which instances are one virtual router: the same vrid, at most one of each file.
fn groups<'a>(files: &'a [File], work: &mut Work) -> Vec<Group<'a>> {
    let mut found: Vec<Group<'a>> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    for file in files {
        for instance in &file.instances {
            let vrid = |i: &Instance| i.vrid.as_ref().map(|said| said.value);
            let fits = |group: &&mut Group<'a>| {
                let same = |(_, other): &(&File, &Instance)| match (vrid(other), vrid(instance)) {
                    (Some(other), Some(own)) => other == own,
                    _ => other.name == instance.name,
                };
                let own = group
                    .members
                    .iter()
                    .any(|(other, _)| std::ptr::eq(*other, file));
                !own && group.members.iter().any(same)
            };
            if let Some(group) = found.iter_mut().find(fits) {
                let same = group
                    .members
                    .first()
                    .is_some_and(|(_, first)| first.name == instance.name);
                let note = format!("a part of vip {}", group.name);
                work.ledger.mark(
                    instance.id,
                    if same { Fate::Exact } else { Fate::Changed },
                    if same { "" } else { &note },
                );
                group.members.push((file, instance));
                continue;
            }
            let name = words::unique(&instance.name, &taken);
            let same = name == instance.name;
            let note = if same {
                String::new()
            } else {
                format!("called {name}")
            };
            work.ledger.mark(
                instance.id,
                if same { Fate::Exact } else { Fate::Changed },
                note,
            );
            taken.push(name.clone());
            found.push(Group {
                name,
                members: vec![(file, instance)],
            });
        }
    }
    found
}

/// What all nodes must say alike: the first one's word, and every line that says it.
pub(super) fn agree<T: Clone + PartialEq>(
    vip: &str,
    what: &str,
    given: &[Option<&Said<T>>],
    work: &mut Work,
) -> Option<(T, Vec<Id>)> {
    let mut said = given.iter().flatten();
    let first = said.next()?;
    work.ledger.mark(first.id, Fate::Exact, "");
    let mut ids = vec![first.id];
    let mut others = Vec::new();
    for other in said {
        if other.value == first.value {
            work.ledger.mark(other.id, Fate::Exact, "");
            ids.push(other.id);
        } else {
            let note = format!("{} counts", work.ledger.place(first.id));
            work.ledger.mark(other.id, Fate::Changed, note);
            others.push(work.ledger.origin(other.id));
        }
    }
    if !others.is_empty() {
        others.insert(0, work.ledger.origin(first.id));
        traps::differs(vip, what, &others, work);
    }
    Some((first.value.clone(), ids))
}

pub(super) fn put(table: &mut Table, key: &str, value: &str, ids: &[Id], work: &Work) {
    table.put(key, value, comment(&work.ledger, ids));
}

fn vip(
    group: &Group<'_>,
    files: &[File],
    tracks: &mut track::Tracks<'_>,
    work: &mut Work,
) -> Vec<Table> {
    let name = group.name.as_str();
    let about = group
        .members
        .first()
        .map_or_else(String::new, |(_, i)| work.ledger.origin(i.id));
    let mut table = Table::new(format!("[vip.{}]", key(name)), about);
    let Some(v6) = addresses(group, &mut table, work) else {
        work.needs
            .push(format!("vip {name} has no address that lbd can hold"));
        return Vec::new();
    };
    let shared = interface(group, &mut table, work);
    vrid(group, &mut table, work);
    let version = version(group, v6, &mut table, work);
    advert(group, version, &mut table, work);
    authentication(group, version, &mut table, work);
    let multicast = group.members.iter().any(|(_, i)| i.peers.is_none());
    let hosts = hosts(group, files, (multicast, v6, shared), work);
    if multicast {
        table.put("mode", "\"multicast\"", "no unicast_peer".to_owned());
        traps::multicast(name, work);
    }
    preempt(group, &mut table, work);
    garp(group, &mut table, work);
    if let Some((_, first)) = group.members.iter().find(|(_, i)| i.vmac.is_some()) {
        put(
            &mut table,
            "virtual-mac",
            "true",
            &first.vmac.into_iter().collect::<Vec<_>>(),
            work,
        );
    }
    sync_group(group, &mut table, work);
    let ranks: Vec<Rank> = hosts.iter().map(rank).collect();
    if let Some((value, ids)) = tracks.of(group, &ranks, work) {
        put(&mut table, "track", &value, &ids, work);
    }
    nodes(&hosts, &mut table);
    let states = group.members.iter().map(|(file, i)| {
        let priority = i.priority.as_ref().map_or(PRIORITY, |p| p.value);
        let label = file.node.clone().unwrap_or_else(|| work.ledger.place(i.id));
        let rank = Rank {
            label,
            priority: i64::try_from(priority).unwrap_or(0),
        };
        (rank, i.state.as_ref().map(|s| s.value.clone()))
    });
    let states: Vec<(Rank, Option<String>)> = states.collect();
    traps::states(name, &states, work);
    let notify = notify(group, work);
    std::iter::once(table).chain(notify).collect()
}

/// The virtual addresses, of the family of the first; whether that is IPv6.
fn addresses(group: &Group<'_>, table: &mut Table, work: &mut Work) -> Option<bool> {
    let all: Vec<&Said<Address>> = group
        .members
        .iter()
        .flat_map(|(_, i)| &i.addresses)
        .collect();
    let v6 = all.first()?.value.ip.is_ipv6();
    let mut kept: Vec<&Said<Address>> = Vec::new();
    let mut ids: Vec<Id> = Vec::new();
    for said in all {
        if said.value.ip.is_ipv6() != v6 {
            work.ledger.mark(
                said.id,
                Fate::Lost,
                "of another family than the first: write a [vip] of its own",
            );
            continue;
        }
        if let Some(twin) = kept.iter().find(|other| other.value.ip == said.value.ip) {
            if twin.value.text != said.value.text {
                let note = format!("{} counts", work.ledger.place(twin.id));
                work.ledger.mark(said.id, Fate::Changed, note);
            }
            ids.push(said.id);
        } else if kept.len() < ADDRESSES_MAX {
            kept.push(said);
            ids.push(said.id);
        } else {
            work.ledger.mark(
                said.id,
                Fate::Lost,
                format!("lbd has {ADDRESSES_MAX} addresses at most"),
            );
        }
    }
    let counts: Vec<usize> = group
        .members
        .iter()
        .map(|(_, i)| i.addresses.len())
        .collect();
    if counts.iter().any(|count| Some(count) != counts.first()) {
        let places: Vec<String> = group
            .members
            .iter()
            .map(|(_, i)| work.ledger.place(i.id))
            .collect();
        traps::differs(&group.name, "virtual_ipaddress", &places, work);
    }
    let values: Vec<String> = kept.iter().map(|said| string(&said.value.text)).collect();
    put(table, "address", &list(&values), &ids, work);
    Some(v6)
}

/// The interface, where it is the same on every node.
fn interface(group: &Group<'_>, table: &mut Table, work: &mut Work) -> bool {
    let given: Vec<Option<&Said<String>>> = group
        .members
        .iter()
        .map(|(file, i)| own_interface(file, i))
        .collect();
    for said in given.iter().flatten() {
        let fine = usable_interface(&said.value);
        work.ledger.mark(
            said.id,
            if fine { Fate::Exact } else { Fate::Lost },
            if fine { "" } else { "no interface" },
        );
    }
    let values: Vec<&str> = given
        .iter()
        .flatten()
        .map(|said| said.value.as_str())
        .collect();
    let Some(first) = values
        .first()
        .filter(|first| values.iter().all(|v| v == *first))
    else {
        return false;
    };
    if !usable_interface(first) {
        return false;
    }
    let ids: Vec<Id> = given.iter().flatten().map(|said| said.id).collect();
    put(table, "interface", &string(first), &ids, work);
    true
}

fn vrid(group: &Group<'_>, table: &mut Table, work: &mut Work) {
    let given: Vec<_> = group.members.iter().map(|(_, i)| i.vrid.as_ref()).collect();
    match agree(&group.name, "virtual_router_id", &given, work) {
        Some((vrid, ids)) if (1..=255).contains(&vrid) => {
            put(table, "vrid", &vrid.to_string(), &ids, work);
        }
        _ => work.needs.push(format!(
            "vip {} has no virtual_router_id from 1 to 255",
            group.name
        )),
    }
}

fn version(group: &Group<'_>, v6: bool, table: &mut Table, work: &mut Work) -> u64 {
    let own = |(file, i): &(&'_ File, &'_ Instance)| {
        i.version.clone().or_else(|| file.globals.version.clone())
    };
    let own: Vec<Option<Said<u64>>> = group.members.iter().map(own).collect();
    for (file, instance) in &group.members {
        if let (Some(_), Some(global)) = (&instance.version, &file.globals.version) {
            work.ledger
                .otherwise(global.id, Fate::NotNeeded, "the instances say their own");
        }
    }
    let given: Vec<Option<&Said<u64>>> = own.iter().map(Option::as_ref).collect();
    let (version, ids) = agree(&group.name, "the version", &given, work).unwrap_or((2, Vec::new()));
    if v6 {
        return 3;
    }
    match version {
        3 => put(table, "version", "3", &ids, work),
        2 if ids.is_empty() => table.put("version", "2", "keepalived's default".to_owned()),
        2 => put(table, "version", "2", &ids, work),
        _ => {
            for id in ids {
                work.ledger
                    .mark(id, Fate::Lost, "there are versions 2 and 3");
            }
            table.put("version", "2", "keepalived's default".to_owned());
            return 2;
        }
    }
    version
}

fn advert(group: &Group<'_>, version: u64, table: &mut Table, work: &mut Work) {
    let given: Vec<_> = group
        .members
        .iter()
        .map(|(_, i)| i.advert.as_ref())
        .collect();
    let Some((ms, ids)) = agree(&group.name, "advert_int", &given, work) else {
        return;
    };
    let fit = if version == 3 {
        (ms / 10 * 10).clamp(10, 40_950)
    } else {
        ms.div_ceil(1_000)
            .saturating_mul(1_000)
            .clamp(1_000, 255_000)
    };
    if fit != ms {
        for id in &ids {
            work.ledger
                .mark(*id, Fate::Changed, "what the version can carry");
        }
    }
    // The form of keepalived's users: seconds.
    put(table, "advert-interval", &words::duration(fit), &ids, work);
}

fn authentication(group: &Group<'_>, version: u64, table: &mut Table, work: &mut Work) {
    let given: Vec<_> = group.members.iter().map(|(_, i)| i.auth.as_ref()).collect();
    let present = given.iter().flatten().count();
    if present > 0 && present < given.len() {
        let places: Vec<String> = group
            .members
            .iter()
            .map(|(_, i)| work.ledger.place(i.id))
            .collect();
        traps::differs(&group.name, "authentication", &places, work);
    }
    let Some((auth, ids)) = agree(&group.name, "authentication", &given, work) else {
        return;
    };
    let lost = |why: &str, work: &mut Work| {
        for id in &ids {
            work.ledger.mark(*id, Fate::Lost, why);
        }
    };
    match auth {
        Auth::Pass(_) if version == 3 => {
            for id in &ids {
                work.ledger.mark(
                    *id,
                    Fate::Changed,
                    "version 3 has no password; keepalived ignores it, too",
                );
            }
        }
        Auth::Pass(word) if word.is_empty() => lost("an empty password", work),
        Auth::Pass(word) => {
            let mut short = String::new();
            for c in word.chars().take_while(|c| !c.is_control()) {
                if short.len() + c.len_utf8() > 8 {
                    break;
                }
                short.push(c);
            }
            if short != word {
                for id in &ids {
                    work.ledger.mark(
                        *id,
                        Fate::Changed,
                        "its first 8 bytes, as keepalived sends it",
                    );
                }
            }
            traps::password(&group.name, short != word, work);
            let value = format!("{{ type = \"pass\", key = {} }}", string(&short));
            put(table, "auth", &value, &ids, work);
        }
        Auth::Hmac(keys) => {
            let fine = |(id, key): &(u64, String)| {
                (1..=255).contains(id) && (32..=64).contains(&key.len())
            };
            if keys.is_empty() || keys.len() > 4 || !keys.iter().all(fine) {
                lost(
                    "lbd's keys have a number from 1 to 255 and 32 to 64 bytes",
                    work,
                );
                return;
            }
            let keys: Vec<String> = keys
                .iter()
                .map(|(id, key)| format!("{{ id = {id}, key = {} }}", string(key)))
                .collect();
            let value = format!("{{ type = \"hmac\", keys = [{}] }}", keys.join(", "));
            put(table, "auth", &value, &ids, work);
        }
    }
}
