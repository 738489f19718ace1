//! A `[vip.NAME]` by its address families: whether nodes, version and mode fit them, and the split
//! of a table with addresses of both into two virtual routers that move together.

use std::net::IpAddr;

use super::Spans;
use super::given::Sink;
use crate::config::model::{Mode, Node, Vip};
use crate::config::problem::Problem;
use crate::units::Version;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

/// `vip` as one virtual router, or as two where it has addresses of both families: the first keeps
/// the name. None where something doesn't fit. `taken` says whether a table has that name.
pub(super) fn split(
    vip: Vip,
    taken: impl Fn(&str) -> bool,
    spans: &mut Spans,
    sink: &mut Sink,
) -> Vec<Vip> {
    let Some(first) = vip.addresses.first().map(|address| Family::of(address.ip)) else {
        return Vec::new();
    };
    let mut rest = vip.addresses.iter().map(|address| Family::of(address.ip));
    let second = rest.find(|family| *family != first);
    let before = sink.errors();
    for (index, node) in vip.nodes.iter().enumerate() {
        fits(&vip, (index, node), (first, second), spans, sink);
    }
    if first == Family::V6 || second == Some(Family::V6) {
        version(&vip, spans, sink);
        sources(&vip, spans, sink);
    }
    let Some(second) = second else {
        return if sink.errors() > before {
            Vec::new()
        } else {
            vec![vip]
        };
    };
    let twin = format!("{}-{}", vip.name, second.suffix());
    if taken(&twin) {
        sink.push(
            Problem::error("E0212", format!("two virtual routers are called `{twin}`"))
                .at(&spans.at(&format!("vip/{twin}")), "this one, and")
                .context(
                    &spans.at(&format!("vip/{}/address", vip.name)),
                    format!("the {} addresses of this one", second.word()),
                )
                .help("give this table another name"),
        );
    }
    if sink.errors() > before {
        return Vec::new();
    }
    let (one, other) = (half(&vip, first, &vip.name), half(&vip, second, &twin));
    spans.split(&vip.name, &twin, &positions(&vip, second));
    spans.split(&vip.name, &vip.name, &positions(&vip, first));
    vec![one, other]
}

/// The virtual router of one family.
fn half(vip: &Vip, family: Family, name: &str) -> Vip {
    let mut half = vip.clone();
    name.clone_into(&mut half.name);
    half.addresses
        .retain(|address| Family::of(address.ip) == family);
    half.sync_group = half.sync_group.or_else(|| Some(vip.name.clone()));
    for node in &mut half.nodes {
        if let Some(twin) = node.twin
            && Family::of(node.address) != family
        {
            node.twin = Some(node.address);
            node.address = twin;
        }
    }
    half
}

/// Where the addresses of a family stand in the list.
fn positions(vip: &Vip, family: Family) -> Vec<usize> {
    let all = vip.addresses.iter().enumerate();
    let of_it = all.filter(|(_, address)| Family::of(address.ip) == family);
    of_it.map(|(position, _)| position).collect()
}

/// A node needs one address of each family that the virtual addresses have, and no other.
fn fits(
    vip: &Vip,
    (index, node): (usize, &Node),
    (first, second): (Family, Option<Family>),
    spans: &Spans,
    sink: &mut Sink,
) {
    let own = [Some(node.address), node.twin];
    let has = |family| own.into_iter().flatten().any(|ip| Family::of(ip) == family);
    let place = spans.at(&format!("vip/{}/nodes/{index}", vip.name));
    let addresses = spans.at(&format!("vip/{}/address", vip.name));
    for family in [Some(first), second].into_iter().flatten() {
        if has(family) {
            continue;
        }
        let word = family.word();
        let problem = Problem::error(
            "E0240",
            format!("node {} has no {word} address", node.label()),
        )
        .at(&place, format!("the source of its {word} adverts"))
        .context(&addresses, format!("a virtual address is {word}"));
        sink.push(if second.is_some() {
            problem
                .help("give each node one address of each family: [\"172.16.0.2\", \"fd00:16::2\"]")
        } else {
            problem
        });
    }
    for ip in own.into_iter().flatten() {
        let family = Family::of(ip);
        if family != first && Some(family) != second && has(first) {
            sink.push(
                Problem::error("E0109", format!("{ip} has no meaning here"))
                    .at(&place, format!("a node with an {} address", family.word()))
                    .context(
                        &addresses,
                        format!("no virtual address is {}", family.word()),
                    ),
            );
        }
    }
}

/// Version 2 knows no IPv6.
fn version(vip: &Vip, spans: &Spans, sink: &mut Sink) {
    if vip.version == Version::V3 {
        return;
    }
    let span = spans.at(&format!("vip/{}/version", vip.name));
    sink.push(
        Problem::error(
            "E0241",
            format!("`vip.{}`: version 2 has no IPv6", vip.name),
        )
        .context(
            &spans.at(&format!("vip/{}/address", vip.name)),
            "a virtual address is IPv6",
        )
        .at(&span, "RFC 3768 is for IPv4 alone")
        .fix("on every node", &span, "3"),
    );
}

/// Adverts to a group come from link-local addresses (RFC 9568 §5.1.2.1), so that these are the
/// ones that tell the nodes apart.
fn sources(vip: &Vip, spans: &Spans, sink: &mut Sink) {
    if vip.mode == Mode::Unicast {
        return;
    }
    for (index, node) in vip.nodes.iter().enumerate() {
        for ip in [Some(node.address), node.twin].into_iter().flatten() {
            let IpAddr::V6(v6) = ip else { continue };
            if !v6.is_unicast_link_local() {
                sink.push(
                    Problem::error("E0242", format!("node address {ip} is not link-local"))
                        .at(
                            &spans.at(&format!("vip/{}/nodes/{index}", vip.name)),
                            "by multicast, IPv6 adverts come from link-local addresses",
                        )
                        .help("on that node, `ip -6 address show scope link` says which it has")
                        .help("or leave `mode` out: unicast takes any address"),
                );
            }
        }
    }
}
