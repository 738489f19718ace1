//! Lints of `proxy-protocol` and `source`: whom is believed, and from where servers are reached.

use std::net::IpAddr;

use super::Host;
use super::proxy::kubernetes_like;
use crate::config::model::{Config, Proxy, Source};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

pub(super) fn lint(draft: &Draft, problems: &mut Vec<Problem>) {
    for proxy in &draft.config.proxies {
        everybody(draft, proxy, problems);
        apiservers(draft, proxy, problems);
        for (ip, path) in sources(draft, proxy) {
            source(draft, proxy, ip, &path, problems);
        }
    }
}

/// The fixed addresses of `source`, with their places.
fn sources(draft: &Draft, proxy: &Proxy) -> Vec<(IpAddr, String)> {
    let Source::Fixed { v4, v6 } = proxy.source else {
        return Vec::new();
    };
    let path = format!("proxy/{}/source", proxy.name);
    let both = [v4.map(IpAddr::V4), v6.map(IpAddr::V6)];
    let place = |ip: IpAddr| {
        let items = (0..2).map(|index| format!("{path}/{index}"));
        let is_it = |item: &String| draft.spans.text(item).parse() == Ok(ip);
        items
            .into_iter()
            .find(is_it)
            .unwrap_or_else(|| path.clone())
    };
    both.into_iter()
        .flatten()
        .map(|ip| (ip, place(ip)))
        .collect()
}

fn everybody(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    let accept = proxy.proxy_protocol.iter().flat_map(|pp| &pp.accept);
    for (index, network) in accept.enumerate() {
        if !network.is_everybody() {
            continue;
        }
        let path = format!("proxy/{}/proxy-protocol/accept", proxy.name);
        let item = format!("{path}/{index}");
        let place = if draft.spans.has(&item) { &item } else { &path };
        problems.push(
            Problem::warning(
                "W0310",
                format!("anybody may tell `proxy.{}` who the client is", proxy.name),
            )
            .at(
                &draft.spans.at(place),
                format!("{network} is everybody: whoever connects can forge client addresses"),
            )
            .help("name the load balancers that stand before this one"),
        );
    }
}

fn apiservers(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    let sends = proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
    if sends.is_none() || !kubernetes_like(proxy) {
        return;
    }
    problems.push(
        Problem::warning(
            "W0314",
            format!(
                "the servers of `proxy.{}` don't know the PROXY protocol",
                proxy.name
            ),
        )
        .at(
            &draft
                .spans
                .at(&format!("proxy/{}/proxy-protocol/send", proxy.name)),
            "kube-apiserver takes the header for a broken TLS handshake",
        )
        .help("`source = \"client\"` shows it the client's address where this node is its gateway"),
    );
}

fn source(draft: &Draft, proxy: &Proxy, ip: IpAddr, path: &str, problems: &mut Vec<Problem>) {
    let at = draft.spans.at(path);
    if is_virtual(&draft.config, ip) {
        problems.push(
            Problem::error(
                "E0311",
                format!("`proxy.{}` would connect from a virtual address", proxy.name),
            )
            .at(&at, "only the active node has it")
            .help("a backup couldn't check its servers, and so never take over; use an address of each node's own"),
        );
    }
    let mut servers = proxy.servers.iter();
    let all_named = proxy.discovery.is_off();
    if all_named && servers.all(|server| server.address.is_ipv4() != ip.is_ipv4()) {
        problems.push(
            Problem::warning(
                "W0313",
                format!("no server of `proxy.{}` is reached from {ip}", proxy.name),
            )
            .at(&at, "all are of the other family"),
        );
    }
}

fn is_virtual(config: &Config, ip: IpAddr) -> bool {
    let vips = config.vips.iter().flat_map(|vip| &vip.addresses);
    let routes = config.routes.iter().flat_map(|route| &route.addresses);
    vips.chain(routes).any(|address| address.ip == ip)
}

/// On this machine.
pub(super) fn here(draft: &Draft, host: &Host<'_>, problems: &mut Vec<Problem>) {
    for proxy in &draft.config.proxies {
        for (ip, path) in sources(draft, proxy) {
            let own = host.facts.interface_with(ip).is_some();
            let loopback = matches!(ip, IpAddr::V4(ip) if ip.is_loopback());
            if own || loopback || is_virtual(&draft.config, ip) {
                continue;
            }
            problems.push(
                Problem::warning(
                    "W0312",
                    format!("{ip} is not on this machine: servers of `proxy.{}` can't be reached from it", proxy.name),
                )
                .at(&draft.spans.at(&path), "every connect and every check would fail")
                .help(format!("this machine has {}", host.facts.describe())),
            );
        }
    }
}
