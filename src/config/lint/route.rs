//! Lints of addresses that are announced as routes.

use std::net::IpAddr;

use super::Host;
use crate::config::model::{RouteVip, TrackTarget, VipAddress};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

pub(super) fn lint(draft: &Draft, problems: &mut Vec<Problem>) {
    for (index, route) in draft.config.routes.iter().enumerate() {
        twins(draft, index, route, problems);
        lease(draft, route, problems);
        follows(draft, route, problems);
    }
}

/// From this machine.
pub(super) fn here(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for route in &draft.config.routes {
        interface(draft, route, host, problems);
        for (index, address) in route.addresses.iter().enumerate() {
            lan(draft, route, index, *address, host, problems);
        }
    }
}

fn twins(draft: &Draft, position: usize, route: &RouteVip, problems: &mut Vec<Problem>) {
    let routers = draft
        .config
        .vips
        .iter()
        .map(|vip| (&vip.name, &vip.addresses));
    let earlier = draft.config.routes.iter().take(position);
    let others: Vec<(&String, &Vec<VipAddress>)> = routers
        .chain(earlier.map(|route| (&route.name, &route.addresses)))
        .collect();
    for (index, address) in route.addresses.iter().enumerate() {
        let holds = |all: &[VipAddress]| all.iter().any(|own| own.ip == address.ip);
        if let Some((name, _)) = others.iter().find(|(_, all)| holds(all)) {
            let path = format!("vip/{}/address/{index}", route.name);
            problems.push(
                Problem::error("E0212", format!("two `[vip.NAME]` hold {}", address.ip))
                    .at(&draft.spans.at(&path), "again here")
                    .context(
                        &draft.spans.at(&format!("vip/{name}/address")),
                        "first here",
                    ),
            );
        }
    }
}

fn lease(draft: &Draft, route: &RouteVip, problems: &mut Vec<Problem>) {
    if route.lease.is_some() {
        return;
    }
    let path = format!("vip/{}/lease", route.name);
    problems.push(
        Problem::warning(
            "W0252",
            format!("a hung lbd would go on announcing `vip.{}`", route.name),
        )
        .at(
            &draft.spans.at(&path),
            "without a lease nobody removes the address of an lbd that is stuck or killed",
        )
        .help("leave it out: the kernel then withdraws the address after 2s"),
    );
}

fn follows(draft: &Draft, route: &RouteVip, problems: &mut Vec<Problem>) {
    let is_proxy = |target| matches!(target, TrackTarget::Proxy(_));
    let tracked = route.track.iter().any(|track| is_proxy(track.target));
    if tracked || draft.proxy_names.is_empty() {
        return;
    }
    problems.push(
        Problem::warning(
            "W0215",
            format!(
                "`vip.{}` doesn't follow the proxies of this file",
                route.name
            ),
        )
        .at(
            &draft.spans.at(&format!("vip/{}/track", route.name)),
            "a node whose proxy can't serve goes on attracting clients",
        )
        .help("leave `track` out to follow all of them, or add \"proxy:NAME\""),
    );
}

fn interface(draft: &Draft, route: &RouteVip, host: &Host<'_>, problems: &mut Vec<Problem>) {
    if route.interface != "lo" && host.facts.interface(&route.interface).is_none() {
        let path = format!("vip/{}/interface", route.name);
        problems.push(
            Problem::error(
                "E0205",
                format!("no interface `{}` on this machine", route.interface),
            )
            .at(&draft.spans.at(&path), "")
            .help("leave `interface` out: by default it is lo"),
        );
    }
}

/// Every node would answer for such an address on that LAN, in ARP or neighbour discovery.
fn lan(
    draft: &Draft,
    route: &RouteVip,
    index: usize,
    address: VipAddress,
    host: &Host<'_>,
    problems: &mut Vec<Problem>,
) {
    let near = host.facts.interfaces.iter().find_map(|interface| {
        let mut subnets = interface.addresses.iter();
        let subnet = subnets.find(|own| own.ip != address.ip && covers(**own, address.ip))?;
        Some((interface, *subnet))
    });
    let Some((interface, subnet)) = near else {
        return;
    };
    let path = format!("vip/{}/address/{index}", route.name);
    problems.push(
        Problem::warning(
            "W0251",
            format!("{} belongs to the LAN of {}", address.ip, interface.name),
        )
        .at(
            &draft.spans.at(&path),
            format!(
                "{subnet} is there: hosts of that LAN ask for it by ARP, and every node answers"
            ),
        )
        .help(
            "take an address outside of every LAN, which is reached through the routers alone; \
             else hosts of that LAN pick a node at random (net.ipv4.conf.all.arp_ignore = 1 keeps \
             the nodes silent, and then those hosts don't reach it at all)",
        ),
    );
}

/// Whether `ip` lies in a subnet that holds more than one host.
fn covers(subnet: VipAddress, ip: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let shift = bits.saturating_sub(u32::from(subnet.prefix));
        shift > 0 && a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (subnet.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
