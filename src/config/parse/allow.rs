//! `allow-from`: routers beyond `nodes` that may take part.

use std::net::IpAddr;

use super::address;
use super::fields::Fields;
use super::given::{Sink, Text};
use crate::config::model::{Node, VipAddress};
use crate::config::problem::Problem;

const MAX: usize = 16;

/// The addresses, each of a family that the VIP has, none of them a node's or the VIP's.
pub(super) fn allow_from(
    fields: &mut Fields<'_, '_>,
    addresses: &[VipAddress],
    nodes: &[Node],
    sink: &mut Sink,
) -> Vec<IpAddr> {
    let Some(given) = fields.take("allow-from", sink) else {
        return Vec::new();
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for item in given.one_or_more(MAX, sink) {
        let Some(text) = item.text(sink) else {
            continue;
        };
        if text.text.contains('/') {
            sink.push(
                Problem::error("E0108", format!("`{}` is a network", text.name))
                    .at(&text.span, "name each router by its address")
                    .help("adverts are sent to each of them, too, and judged by who sent them"),
            );
            continue;
        }
        let Some(ip) = address::node_address(&text, sink) else {
            continue;
        };
        let known = found.contains(&ip);
        if let Some(problem) = misfit(&text, ip, addresses, nodes, known) {
            sink.push(problem);
        } else {
            found.push(ip);
        }
    }
    found
}

fn misfit(
    text: &Text<'_>,
    ip: IpAddr,
    addresses: &[VipAddress],
    nodes: &[Node],
    known: bool,
) -> Option<Problem> {
    let name = &text.name;
    let is_node = nodes
        .iter()
        .any(|node| node.address == ip || node.twin == Some(ip));
    if is_node || known {
        let problem = Problem::error("E0204", format!("`{name}`: {ip} is listed twice"));
        return Some(if is_node {
            problem.at(&text.span, "it is one of `nodes`, which take part anyway")
        } else {
            problem.at(&text.span, "again here")
        });
    }
    if addresses.iter().any(|address| address.ip == ip) {
        return Some(
            Problem::error(
                "E0206",
                format!("{ip} is both a router and the virtual address"),
            )
            .at(&text.span, "a router speaks from an address of its own"),
        );
    }
    let families = addresses.iter();
    if !addresses.is_empty() && families.clone().all(|own| own.ip.is_ipv4() != ip.is_ipv4()) {
        return Some(
            Problem::error("E0105", format!("`{name}` is of another family"))
                .at(&text.span, "no virtual address here is"),
        );
    }
    None
}
