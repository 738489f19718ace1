//! Lints against this machine: its addresses, its interfaces, its files.

use std::path::Path;

use super::vip::{in_subnet, is_host};
use super::{Host, check, discovery, origin, track};
use crate::config::local::{self, LocalError, LocalVip};
use crate::config::model::{Node, Vip};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

/// Where a running lbd answers by default.
const ADMIN_SOCKET: &str = "/run/lbd/admin.sock";

/// As `node`, whose facts are unknown.
pub(super) fn named(draft: &Draft, node: &str, problems: &mut Vec<Problem>) {
    for vip in &draft.config.vips {
        if vip.node(node).is_none() {
            let labels: Vec<String> = vip.nodes.iter().map(Node::label).collect();
            problems.push(
                Problem::error("E0202", format!("`vip.{}` has no node `{node}`", vip.name)).at(
                    &draft.spans.at(&format!("vip/{}/nodes", vip.name)),
                    format!("these are {}", labels.join(", ")),
                ),
            );
        }
    }
}

/// From this machine.
pub(super) fn lint(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for vip in &draft.config.vips {
        match local::one(vip, host.facts, host.node) {
            Ok(local) => subnet(draft, &local, host, problems),
            Err(error) => problems.push(misfit(draft, vip, &error, host)),
        }
    }
    for script in &draft.config.scripts {
        let path = format!("track/script/{}/command", script.name);
        if let Some(program) = script.command.first() {
            file(draft, Path::new(program), &path, host, problems);
        }
    }
    track::here(draft, host, problems);
    ports(draft, host, problems);
    key_file(draft, host, problems);
    origin::here(draft, host, problems);
    check::here(draft, host, problems);
    discovery::here(draft, host, problems);
}

/// A key file that is there but can't be used.
fn key_file(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    let Some(peer) = &draft.config.peer else {
        return;
    };
    let path = "peer/key-file";
    file(draft, &peer.key_file, path, host, problems);
    if (host.file_exists)(&peer.key_file)
        && let Some(problem) = (host.key_problem)(&peer.key_file)
    {
        problems.push(
            Problem::error("E0270", "the key file of the peer channel cannot be used")
                .at(&draft.spans.at(path), problem)
                .help("one key per line, 32 characters or more, one or two of them, for owner and group alone"),
        );
    }
}

/// A listener whose port is taken, unless lbd seems to run here and hold it itself.
fn ports(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    let admin = draft.config.admin.socket.as_deref();
    if (host.file_exists)(admin.unwrap_or(Path::new(ADMIN_SOCKET))) {
        return;
    }
    for proxy in &draft.config.proxies {
        for (index, listen) in proxy.listen.iter().enumerate() {
            if (host.port_held)(*listen) {
                let path = format!("proxy/{}/listen/{index}", proxy.name);
                problems.push(
                    Problem::warning("W0309", format!("another process holds {listen}"))
                        .at(&draft.spans.at(&path), "lbd can't start beside it")
                        .help("stop it first; is it HAProxy?"),
                );
            }
        }
    }
}

fn misfit(draft: &Draft, vip: &Vip, error: &LocalError, host: &Host<'_>) -> Problem {
    let nodes = draft.spans.at(&format!("vip/{}/nodes", vip.name));
    match error {
        LocalError::NotANode { .. } => Problem::error("E0202", error.to_string())
            .at(&nodes, "none of these addresses is here")
            .help(format!("this machine has {}", host.facts.describe()))
            .help(match vip.nodes.first() {
                Some(node) => format!(
                    "checking another node's file? `lbd check --as {}`, or `--offline`",
                    node.label()
                ),
                None => "checking another node's file? `lbd check --offline`".to_owned(),
            }),
        LocalError::SeveralNodes { .. }
        | LocalError::NoSuchNode { .. }
        | LocalError::SeveralInterfaces { .. }
        | LocalError::NoAddress { .. } => Problem::error("E0202", error.to_string())
            .at(&nodes, "")
            .help(format!("this machine has {}", host.facts.describe())),
        LocalError::NoInterface { interface, .. } => {
            let me = vip
                .nodes
                .iter()
                .position(|node| host.facts.interface_with(node.address).is_some());
            let own = me.map(|index| format!("vip/{}/nodes/{index}/interface", vip.name));
            let path = own
                .filter(|path| draft.spans.has(path))
                .unwrap_or_else(|| format!("vip/{}/interface", vip.name));
            let holder = me
                .and_then(|index| vip.nodes.get(index))
                .and_then(|node| Some((node.address, host.facts.interface_with(node.address)?)));
            let problem = Problem::error(
                "E0205",
                format!("no interface `{interface}` on this machine"),
            );
            match holder {
                Some((address, holder)) => problem
                    .at(
                        &draft.spans.at(&path),
                        format!("{address} is on {}", holder.name),
                    )
                    .help(
                        "leave `interface` out: by default it is the one with the node's address",
                    ),
                None => problem
                    .at(&draft.spans.at(&path), "")
                    .help(format!("this machine has {}", host.facts.describe())),
            }
        }
    }
}

/// A virtual address that no subnet of its interface covers reaches nobody.
fn subnet(draft: &Draft, local: &LocalVip, host: &Host<'_>, problems: &mut Vec<Problem>) {
    let Some(interface) = host.facts.interface(&local.interface) else {
        return;
    };
    for (index, address) in local.vip.addresses.iter().enumerate() {
        let mut own = interface
            .addresses
            .iter()
            .filter(|own| own.ip != address.ip);
        if is_host(*address) && !own.any(|own| in_subnet(*own, address.ip)) {
            problems.push(
                Problem::warning(
                    "W0203",
                    format!(
                        "{} is outside the subnets of {}",
                        address.ip, interface.name
                    ),
                )
                .at(
                    &draft
                        .spans
                        .at(&format!("vip/{}/address/{index}", local.vip.name)),
                    "hosts of that LAN need a route to it",
                ),
            );
        }
    }
}

pub(super) fn file(
    draft: &Draft,
    file: &Path,
    path: &str,
    host: &Host<'_>,
    problems: &mut Vec<Problem>,
) {
    if !(host.file_exists)(file) {
        problems.push(
            Problem::error("E0307", format!("there is no file {}", file.display()))
                .at(&draft.spans.at(path), "not on this machine")
                .help("checking another node's file? `lbd check --offline`"),
        );
    }
}
