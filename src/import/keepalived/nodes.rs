//! The nodes of a virtual router: addresses, priorities, and peers whose own files nobody gave.

use std::net::IpAddr;

use super::super::Work;
use super::super::ledger::Fate;
use super::super::toml::{Table, comment, string};
use super::instance::Instance;
use super::merge::{Group, PRIORITY};
use super::traps::{self, Rank};
use super::{File, Said};

const NODES_MAX: usize = 16;

/// A node as it will stand in the file.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) name: Option<String>,
    pub(super) priority: u64,
    pub(super) interface: Option<String>,
    pub(super) min_ttl: Option<u64>,
    pub(super) about: String,
}

pub(super) fn rank(host: &Host) -> Rank {
    Rank {
        label: host
            .name
            .clone()
            .unwrap_or_else(|| host.address.to_string()),
        priority: i64::try_from(host.priority).unwrap_or(0),
    }
}

pub(super) fn usable_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

pub(super) fn own_interface<'a>(
    file: &'a File,
    instance: &'a Instance,
) -> Option<&'a Said<String>> {
    instance
        .interface
        .as_ref()
        .or(file.globals.interface.as_ref())
}

/// A node's address: as somebody said, as its file says, or the one that the others' files leave.
fn address_of(member: usize, group: &Group<'_>) -> Option<IpAddr> {
    let said = |(file, i): &(&File, &Instance)| file.address.or(i.source.as_ref().map(|s| s.value));
    let (own_file, own) = group.members.get(member)?;
    if let Some(address) = said(&(*own_file, *own)) {
        return Some(address);
    }
    let known: Vec<IpAddr> = group.members.iter().filter_map(said).collect();
    let own_peers: Vec<IpAddr> = own.peers.iter().flatten().map(|p| p.value).collect();
    let peers = group
        .members
        .iter()
        .flat_map(|(_, i)| i.peers.iter().flatten().map(|p| p.value));
    let mut left: Vec<IpAddr> = peers
        .filter(|p| !known.contains(p) && !own_peers.contains(p))
        .collect();
    left.sort();
    left.dedup();
    match left.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

pub(super) fn hosts(
    group: &Group<'_>,
    files: &[File],
    (multicast, v6, shared): (bool, bool, bool),
    work: &mut Work,
) -> Vec<Host> {
    let mut found: Vec<Host> = Vec::new();
    for (index, (file, instance)) in group.members.iter().enumerate() {
        let priority = instance
            .priority
            .as_ref()
            .map_or(PRIORITY, |said| said.value);
        if let Some(said) = &instance.priority {
            let fits = (2..=255).contains(&said.value);
            work.ledger.mark(
                said.id,
                if fits { Fate::Exact } else { Fate::Changed },
                if fits { "" } else { "lbd's are 2 to 255" },
            );
        }
        let Some(address) = address_of(index, group).filter(|ip| ip.is_ipv6() == v6) else {
            let example = if files.len() == 2 {
                "lb1=ADDRESS,lb2=ADDRESS"
            } else {
                "NAME=ADDRESS, one for each file"
            };
            work.needs.push(format!(
                "{} doesn't say which address its node has: add --nodes {example}",
                work.ledger.place(instance.id)
            ));
            continue;
        };
        let used = instance
            .source
            .as_ref()
            .filter(|said| said.value == address);
        if let Some(said) = &instance.source {
            let fate = if used.is_some() {
                Fate::Exact
            } else {
                Fate::Changed
            };
            work.ledger.mark(
                said.id,
                fate,
                if used.is_some() {
                    ""
                } else {
                    "--nodes says otherwise"
                },
            );
        }
        let ids = [
            used.map(|said| said.id),
            instance.priority.as_ref().map(|said| said.id),
        ];
        let interface =
            own_interface(file, instance).filter(|said| !shared && usable_interface(&said.value));
        found.push(Host {
            address,
            name: file.node.clone(),
            priority: priority.clamp(2, 255),
            interface: interface.map(|said| said.value.clone()),
            min_ttl: min_ttl(instance, address, (group, multicast, v6), work),
            about: comment(&work.ledger, &ids.into_iter().flatten().collect::<Vec<_>>()),
        });
    }
    strangers(group, &mut found, (v6, multicast), work);
    found.dedup_by_key(|host| host.address);
    found.truncate(NODES_MAX);
    found
}

fn min_ttl(
    instance: &Instance,
    address: IpAddr,
    (group, multicast, v6): (&Group<'_>, bool, bool),
    work: &mut Work,
) -> Option<u64> {
    if let Some(said) = &instance.ttl {
        let fate = if multicast {
            Fate::NotNeeded
        } else {
            Fate::Exact
        };
        work.ledger.mark(said.id, fate, "");
    }
    let given = instance.ttl.as_ref().map(|said| said.value.clamp(1, 255));
    let given = given.into_iter().chain(accepted(group, address)).min();
    // keepalived sends IPv6 by unicast with the kernel's hop limit.
    given
        .or(v6.then_some(64))
        .filter(|ttl| !multicast && *ttl != 255)
}

/// The least TTL that the others accept from a node.
fn accepted(group: &Group<'_>, address: IpAddr) -> Option<u64> {
    let all = group.members.iter().flat_map(|(_, i)| &i.min_ttls);
    all.filter(|(peer, _)| *peer == address)
        .map(|(_, ttl)| *ttl)
        .min()
}

/// Peers whose own files nobody gave.
fn strangers(
    group: &Group<'_>,
    found: &mut Vec<Host>,
    (v6, multicast): (bool, bool),
    work: &mut Work,
) {
    if multicast {
        return;
    }
    for (_, instance) in &group.members {
        for peer in instance.peers.iter().flatten() {
            if found.iter().any(|host| host.address == peer.value) {
                continue;
            }
            if peer.value.is_ipv6() != v6 || found.len() >= NODES_MAX {
                work.ledger.mark(
                    peer.id,
                    Fate::Lost,
                    format!("lbd has {NODES_MAX} nodes at most, of the addresses' family"),
                );
                continue;
            }
            let own = instance
                .priority
                .as_ref()
                .map_or(PRIORITY, |said| said.value)
                .clamp(2, 255);
            let master = instance
                .state
                .as_ref()
                .is_some_and(|said| said.value == "MASTER");
            let priority = if master {
                own.saturating_sub(10).max(2)
            } else {
                own
            };
            traps::guessed(
                &group.name,
                &peer.value.to_string(),
                i64::try_from(priority).unwrap_or(0),
                work,
            );
            work.ledger
                .mark(peer.id, Fate::Changed, "its priority is a guess");
            found.push(Host {
                address: peer.value,
                name: None,
                priority,
                interface: None,
                min_ttl: accepted(group, peer.value)
                    .or(v6.then_some(64))
                    .filter(|ttl| *ttl != 255),
                about: format!("{}; its priority is a guess", work.ledger.origin(peer.id)),
            });
        }
    }
}

pub(super) fn nodes(hosts: &[Host], table: &mut Table) {
    table.row("nodes = [".to_owned(), String::new());
    let mut names: Vec<&str> = Vec::new();
    for host in hosts {
        let mut fields = Vec::new();
        if let Some(name) = host.name.as_deref().filter(|name| !names.contains(name)) {
            names.push(name);
            fields.push(format!("name = {}", string(name)));
        }
        fields.push(format!("address = \"{}\"", host.address));
        fields.push(format!("priority = {}", host.priority));
        fields.extend(
            host.interface
                .iter()
                .map(|name| format!("interface = {}", string(name))),
        );
        fields.extend(host.min_ttl.iter().map(|ttl| format!("min-ttl = {ttl}")));
        table.row(
            format!("  {{ {} }},", fields.join(", ")),
            host.about.clone(),
        );
    }
    table.row("]".to_owned(), String::new());
}
