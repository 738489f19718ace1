//! Lints of virtual routers: nodes, subnets, priorities, weights.

use std::net::IpAddr;

use super::track;
use crate::config::model::{
    Auth, HmacMode, Mode, Node, Preempt, Track, TrackTarget, Vip, VipAddress,
};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

pub(super) fn lint(draft: &Draft, problems: &mut Vec<Problem>) {
    for (index, vip) in draft.config.vips.iter().enumerate() {
        let before = problems.len();
        nodes(draft, vip, problems);
        subnet(draft, vip, problems);
        priorities(draft, vip, problems);
        authentication(draft, vip, problems);
        weights(draft, vip, problems);
        follows(draft, vip, problems);
        track::servers(draft, vip, problems);
        for other in draft.config.vips.iter().skip(index + 1) {
            collision(draft, vip, other, problems);
        }
        let table = |vip: &Vip| draft.spans.at(&format!("vip/{}", vip.name));
        let earlier = draft.config.vips.iter().take(index);
        if earlier.map(table).any(|other| other == table(vip)) {
            say_once(problems, before);
        }
    }
}

/// The two routers of one table have the same mistakes in the same places: one complaint each.
fn say_once(problems: &mut Vec<Problem>, from: usize) {
    let news = problems.split_off(from);
    for problem in news {
        let same =
            |other: &Problem| other.code == problem.code && other.position() == problem.position();
        if !problems.iter().any(same) {
            problems.push(problem);
        }
    }
}

/// Whether `ip` lies in the subnet of `address`; not for host addresses, which have none.
pub(super) fn in_subnet(address: VipAddress, ip: IpAddr) -> bool {
    let prefix = u32::from(address.prefix);
    match (address.ip, ip) {
        (IpAddr::V4(base), IpAddr::V4(ip)) => {
            let shift = 32_u32.saturating_sub(prefix);
            (base.to_bits() ^ ip.to_bits())
                .checked_shr(shift)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(base), IpAddr::V6(ip)) => {
            let shift = 128_u32.saturating_sub(prefix);
            (base.to_bits() ^ ip.to_bits())
                .checked_shr(shift)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Whether an address comes without a subnet.
pub(super) fn is_host(address: VipAddress) -> bool {
    address.prefix == if address.ip.is_ipv4() { 32 } else { 128 }
}

fn nodes(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let place = |index: usize| draft.spans.at(&format!("vip/{}/nodes/{index}", vip.name));
    for (index, node) in vip.nodes.iter().enumerate() {
        let earlier = vip.nodes.iter().take(index);
        let twin = earlier.clone().position(|other| {
            other.address == node.address || (node.name.is_some() && other.name == node.name)
        });
        if let Some(twin) = twin {
            problems.push(
                Problem::error("E0204", format!("node {} is listed twice", node.label()))
                    .at(&place(index), "again here")
                    .context(&place(twin), "first here"),
            );
        }
        let min_ttl = format!("vip/{}/nodes/{index}/min-ttl", vip.name);
        if vip.mode == Mode::Multicast && draft.spans.has(&min_ttl) {
            problems.push(
                Problem::error(
                    "E0109",
                    format!(
                        "`vip.{}.nodes[{index}].min-ttl` has no meaning here",
                        vip.name
                    ),
                )
                .at(
                    &draft.spans.at(&min_ttl),
                    "by multicast the TTL must be 255",
                )
                .context(
                    &draft.spans.at(&format!("vip/{}/mode", vip.name)),
                    "the mode",
                ),
            );
        }
        if let Some(position) = vip.addresses.iter().position(|own| own.ip == node.address) {
            problems.push(
                Problem::error(
                    "E0206",
                    format!("{} is both a node and the virtual address", node.address),
                )
                .at(
                    &place(index),
                    "a node keeps its own address when the virtual one moves",
                )
                .context(
                    &draft
                        .spans
                        .at(&format!("vip/{}/address/{position}", vip.name)),
                    "the virtual address",
                ),
            );
        }
    }
    if let [only] = vip.nodes.as_slice()
        && vip.allow_from.is_empty()
    {
        problems.push(
            Problem::warning("W0217", format!("`vip.{}` has only one node", vip.name)).at(
                &place(0),
                format!("nobody takes over from {}", only.label()),
            ),
        );
    }
}

fn subnet(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let subnets: Vec<VipAddress> = vip
        .addresses
        .iter()
        .copied()
        .filter(|address| !is_host(*address))
        .collect();
    if subnets.is_empty() || subnets.len() < vip.addresses.len() {
        return;
    }
    for (index, node) in vip.nodes.iter().enumerate() {
        let own = vip
            .addresses
            .iter()
            .any(|address| address.ip == node.address);
        // Each LAN has all link-local addresses.
        let local = matches!(node.address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !own
            && !local
            && !subnets
                .iter()
                .any(|subnet| in_subnet(*subnet, node.address))
        {
            problems.push(
                Problem::warning(
                    "W0203",
                    format!(
                        "node {} is outside the virtual address's subnet",
                        node.label()
                    ),
                )
                .at(
                    &draft.spans.at(&format!("vip/{}/nodes/{index}", vip.name)),
                    "is its interface on the virtual address's LAN?",
                )
                .context(
                    &draft.spans.at(&format!("vip/{}/address", vip.name)),
                    "the virtual address",
                ),
            );
        }
    }
}

fn priorities(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let place = |index: usize| {
        draft
            .spans
            .at(&format!("vip/{}/nodes/{index}/priority", vip.name))
    };
    for (index, node) in vip.nodes.iter().enumerate() {
        let earlier = vip.nodes.iter().take(index);
        if let Some(twin) = earlier
            .clone()
            .position(|other| other.priority == node.priority)
        {
            problems.push(
                Problem::warning(
                    "W0207",
                    format!("two nodes have priority {}", node.priority),
                )
                .at(&place(index), "")
                .context(&place(twin), "")
                .help("neither is preferred; the higher address wins if both start at once"),
            );
        }
        if node.priority == crate::units::Priority::OWNER {
            problems.push(
                Problem::warning("W0214", "priority 255 belongs to an owner of the address")
                    .at(&place(index), "a failed track can't lower it; use 254")
                    .fix("use", &place(index), "254"),
            );
        }
    }
}

fn authentication(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    match &vip.auth {
        Auth::None => {}
        Auth::Hmac(hmac) => {
            let accepts = match hmac.mode {
                HmacMode::Enforce => return,
                HmacMode::Permissive => "it still accepts adverts that nobody signed",
                HmacMode::ReceiveOnly => {
                    "it signs nothing and still accepts adverts that nobody signed"
                }
            };
            let place = draft.spans.at(&format!("vip/{}/auth/mode", vip.name));
            problems.push(
                Problem::warning(
                    "W0211",
                    format!("`vip.{}.auth` doesn't protect yet", vip.name),
                )
                .at(&place, accepts)
                .fix("once every node signs", &place, "\"enforce\""),
            );
        }
        Auth::Pass(_) => problems.push(
            Problem::warning(
                "W0211",
                format!("`vip.{}.auth` sends its password in clear", vip.name),
            )
            .at(
                &draft.spans.at(&format!("vip/{}/auth", vip.name)),
                "anyone on the LAN can read it in an advert: it guards against mistakes only",
            )
            .help("once no keepalived before 2.4.2 is left: `version = 3` and `type = \"hmac\"`"),
        ),
    }
}

/// The two nodes between which an election is decided.
pub(super) fn strongest_two(vip: &Vip) -> Option<(&Node, &Node)> {
    let mut nodes: Vec<&Node> = vip.nodes.iter().collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.priority));
    match nodes.as_slice() {
        [first, second, ..] => Some((first, second)),
        [] | [_] => None,
    }
}

fn weights(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let Some((first, second)) = strongest_two(vip) else {
        return;
    };
    let (first, second) = (
        i16::from(first.priority.get()),
        i16::from(second.priority.get()),
    );
    for (index, track) in vip.track.iter().enumerate() {
        let Some(weight) = track.weight else {
            continue;
        };
        let weight = weight.get();
        // The number in a file may raise a node: nothing fails then.
        if weight > 0 && matches!(track.target, TrackTarget::File(_)) {
            continue;
        }
        let (failed, healthy) = if weight > 0 {
            (first, (second + weight).min(254))
        } else {
            ((first + weight).max(1), second)
        };
        let name = target_name(draft, track);
        let own = format!("track/{}/{name}/weight", kind(track.target));
        let entry = format!("vip/{}/track/{index}", vip.name);
        let has_table = matches!(track.target, TrackTarget::Script(_) | TrackTarget::File(_));
        let in_script = has_table && !entry_has_weight(draft, &entry);
        let path = if in_script { own } else { entry };
        let span = draft.spans.at(&path);
        if vip.preempt == Preempt::Never {
            let preempt = draft.spans.at(&format!("vip/{}/preempt", vip.name));
            problems.push(
                Problem::warning(
                    "W0208",
                    format!("if `{name}` fails on the active node, the VIP stays there"),
                )
                .at(&span, "a lower priority alone moves nothing")
                .context(&preempt, "no node takes over from a weaker one")
                .help("leave the weight out: a failed check then releases the VIP"),
            );
        } else if healthy <= failed {
            let verb = if healthy == failed {
                "ties with"
            } else {
                "still beats"
            };
            let gap = first - second;
            let decisive = -(gap + 1);
            let text = if in_script {
                decisive.to_string()
            } else {
                format!("\"{}:{name}:{decisive}\"", kind(track.target))
            };
            problems.push(
                Problem::warning("W0208", format!("if `{name}` fails on the preferred node, the VIP stays there"))
                    .at(
                        &span,
                        format!("{failed} on the failed node {verb} {healthy} on the healthy one (gap {gap}, weight {weight})"),
                    )
                    .fix(
                        "make it decide the election, or leave the weight out: a failed check then releases the VIP",
                        &span,
                        text,
                    ),
            );
        }
    }
}

/// Whether the weight stands in the `track` list itself.
fn entry_has_weight(draft: &Draft, path: &str) -> bool {
    draft.spans.text(path).matches(':').count() > 1
}

const fn kind(target: TrackTarget) -> &'static str {
    match target {
        TrackTarget::Proxy(_) => "proxy",
        TrackTarget::Script(_) => "script",
        TrackTarget::Interface(_) => "interface",
        TrackTarget::File(_) => "file",
    }
}

fn target_name<'d>(draft: &'d Draft, track: &Track) -> &'d str {
    let name = match track.target {
        TrackTarget::Proxy(index) => draft.proxy_names.get(index),
        TrackTarget::Script(index) => draft.tracked.scripts.get(index).map(|entry| &entry.name),
        TrackTarget::File(index) => draft.tracked.files.get(index).map(|entry| &entry.name),
        TrackTarget::Interface(index) => draft.tracked.interfaces.get(index),
    };
    name.map_or("", String::as_str)
}

fn follows(draft: &Draft, vip: &Vip, problems: &mut Vec<Problem>) {
    let tracked = vip
        .track
        .iter()
        .any(|track| matches!(track.target, TrackTarget::Proxy(_)));
    if tracked || draft.proxy_names.is_empty() {
        return;
    }
    problems.push(
        Problem::warning(
            "W0215",
            format!("`vip.{}` doesn't follow the proxies of this file", vip.name),
        )
        .at(
            &draft.spans.at(&format!("vip/{}/track", vip.name)),
            "it stays on a node whose proxy can't serve",
        )
        .help("leave `track` out to follow all of them, or add \"proxy:NAME\""),
    );
}

fn collision(draft: &Draft, one: &Vip, other: &Vip, problems: &mut Vec<Problem>) {
    for (index, address) in other.addresses.iter().enumerate() {
        if one.addresses.iter().any(|own| own.ip == address.ip) {
            let path = format!("vip/{}/address/{index}", other.name);
            problems.push(
                Problem::error("E0212", format!("two virtual routers hold {}", address.ip))
                    .at(&draft.spans.at(&path), "again here")
                    .context(
                        &draft.spans.at(&format!("vip/{}/address", one.name)),
                        "first here",
                    ),
            );
        }
    }
    let meet = one.nodes.iter().any(|node| {
        let twins = other
            .nodes
            .iter()
            .filter(|twin| twin.address == node.address);
        let interface =
            |vip: &Vip, node: &Node| node.interface.clone().or_else(|| vip.interface.clone());
        let own = interface(one, node);
        twins.into_iter().any(|twin| interface(other, twin) == own)
    });
    if one.vrid == other.vrid && meet {
        let place = |vip: &Vip| {
            let vrid = format!("vip/{}/vrid", vip.name);
            let address = format!("vip/{}/address", vip.name);
            draft.spans.at(if draft.spans.has(&vrid) {
                &vrid
            } else {
                &address
            })
        };
        problems.push(
            Problem::error(
                "E0212",
                format!("two virtual routers have vrid {} on one LAN", one.vrid),
            )
            .at(&place(other), "again here")
            .context(&place(one), "first here")
            .help("by default the vrid is the address's last octet; give one of them another"),
        );
    }
}
