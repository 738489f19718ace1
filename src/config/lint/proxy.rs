//! Lints of proxies: addresses that collide, loops, time limits and checks that disappoint.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::model::{Balance, CheckKind, Config, Listen, Proxy};
use crate::config::parse::Draft;
use crate::config::problem::Problem;

/// Shorter than this, quiet `kubectl exec` and `logs -f` sessions are cut.
const IDLE_MIN: Duration = Duration::from_secs(5 * 60);

pub(super) fn lint(draft: &Draft, problems: &mut Vec<Problem>) {
    listeners(draft, problems);
    for proxy in &draft.config.proxies {
        servers(draft, proxy, problems);
        idlers(draft, proxy, problems);
        loops(draft, proxy, problems);
        idle(draft, proxy, problems);
        check(draft, proxy, problems);
    }
}

/// The place of the server at `index`, in either form of `backends`.
fn server_path(draft: &Draft, proxy: &Proxy, index: usize) -> String {
    let listed = format!("proxy/{}/backends/{index}", proxy.name);
    let name = proxy
        .servers
        .get(index)
        .map_or("", |server| server.name.as_str());
    let named = format!("proxy/{}/backends/{name}", proxy.name);
    let long = format!("{named}/address");
    [long, named, listed]
        .into_iter()
        .find(|path| draft.spans.has(path))
        .unwrap_or_else(|| format!("proxy/{}/backends", proxy.name))
}

/// Whether one listener would get connections meant for the other.
pub(super) fn overlap(one: Listen, other: Listen) -> bool {
    let (one, other) = match (one, other) {
        (Listen::Any(one), Listen::Any(other)) => return one == other,
        (Listen::Any(port), Listen::Addr(addr)) | (Listen::Addr(addr), Listen::Any(port)) => {
            return port == addr.port();
        }
        (Listen::Addr(one), Listen::Addr(other)) => (one, other),
    };
    let covers = |wide: SocketAddr, other: SocketAddr| {
        wide.ip() == other.ip() || (wide.ip().is_unspecified() && wide.is_ipv4() == other.is_ipv4())
    };
    one.port() == other.port() && (covers(one, other) || covers(other, one))
}

fn listeners(draft: &Draft, problems: &mut Vec<Problem>) {
    let mut seen: Vec<(Listen, String)> = Vec::new();
    if let Some(addr) = draft.config.metrics.listen {
        seen.push((Listen::Addr(addr), "metrics/listen".to_owned()));
    }
    for proxy in &draft.config.proxies {
        for (index, listen) in proxy.listen.iter().enumerate() {
            let path = format!("proxy/{}/listen/{index}", proxy.name);
            if let Some((_, first)) = seen.iter().find(|(other, _)| overlap(*other, *listen)) {
                let problem =
                    Problem::error("E0301", format!("something else listens on {listen}"))
                        .at(&draft.spans.at(&path), "again here");
                problems.push(if draft.spans.has(first) || first != "metrics/listen" {
                    problem.context(&draft.spans.at(first), "first here")
                } else {
                    problem.help("`metrics.listen` is 127.0.0.1:9633 by default")
                });
            }
            seen.push((*listen, path));
        }
    }
}

fn servers(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    for (index, server) in proxy.servers.iter().enumerate() {
        let earlier = proxy.servers.iter().take(index);
        if let Some(twin) = earlier
            .clone()
            .position(|other| other.address == server.address)
        {
            problems.push(
                Problem::error(
                    "E0302",
                    format!("server {} is listed twice", server.address),
                )
                .at(
                    &draft.spans.at(&server_path(draft, proxy, index)),
                    "again here",
                )
                .context(
                    &draft.spans.at(&server_path(draft, proxy, twin)),
                    "first here",
                )
                .help("give it a larger `weight` if it should get more connections"),
            );
        }
    }
    let idle = proxy
        .servers
        .iter()
        .all(|server| server.disabled || server.weight.get() == 0);
    if idle && proxy.discovery.is_off() {
        problems.push(
            Problem::warning(
                "W0308",
                format!("no server of `proxy.{}` takes connections", proxy.name),
            )
            .at(
                &draft.spans.at(&format!("proxy/{}/backends", proxy.name)),
                "each is disabled or has weight 0",
            ),
        );
    }
}

/// Servers that wait for something that never comes.
fn idlers(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    let all_named = proxy.discovery.is_off();
    if all_named && proxy.servers.iter().all(|server| server.backup) {
        problems.push(
            Problem::warning(
                "W0315",
                format!("every server of `proxy.{}` is a backup", proxy.name),
            )
            .at(
                &draft.spans.at(&format!("proxy/{}/backends", proxy.name)),
                "there is none that they stand in for",
            )
            .help("without another server the backups are used like any servers"),
        );
    }
    if proxy.balance != Balance::First {
        return;
    }
    let takers = proxy
        .servers
        .iter()
        .enumerate()
        .filter(|(_, server)| !server.backup && !server.disabled && server.weight.get() > 0);
    let takers: Vec<_> = takers.collect();
    let Some((_, rest)) = takers.split_last() else {
        return;
    };
    let endless = rest
        .iter()
        .find(|(_, server)| server.max_connections.is_none());
    if let Some((index, server)) = endless {
        problems.push(
            Problem::warning(
                "W0316",
                format!(
                    "the servers behind {} get no connections while it is up",
                    server.name
                ),
            )
            .at(
                &draft.spans.at(&server_path(draft, proxy, *index)),
                "it has no `max-connections`, so it never is full",
            )
            .help("with `balance = \"first\"` each server but the last needs a limit"),
        );
    }
}

/// What a server's address would be on a load balancer itself.
fn own_address(config: &Config, ip: IpAddr) -> Option<(&'static str, String)> {
    for vip in &config.vips {
        if let Some(index) = vip.addresses.iter().position(|own| own.ip == ip) {
            return Some((
                "the virtual address",
                format!("vip/{}/address/{index}", vip.name),
            ));
        }
        if let Some(index) = vip.nodes.iter().position(|node| node.address == ip) {
            return Some((
                "a node of the VIP",
                format!("vip/{}/nodes/{index}", vip.name),
            ));
        }
    }
    for route in &config.routes {
        if let Some(index) = route.addresses.iter().position(|own| own.ip == ip) {
            return Some((
                "the virtual address",
                format!("vip/{}/address/{index}", route.name),
            ));
        }
    }
    ip.is_loopback().then_some(("this machine", String::new()))
}

/// What this address would be on the load balancer itself, if the proxy's own listener took the
/// connections to it.
fn own_listener(
    config: &Config,
    proxy: &Proxy,
    address: SocketAddr,
) -> Option<(&'static str, String)> {
    let ip = address.ip().to_canonical();
    let mut any = false;
    for listen in &proxy.listen {
        match listen {
            Listen::Any(port) => any |= *port == address.port(),
            Listen::Addr(addr) if addr.port() != address.port() => {}
            Listen::Addr(addr) if addr.ip().is_unspecified() => any = true,
            Listen::Addr(addr) if addr.ip().to_canonical() == ip => {
                let own = own_address(config, ip);
                return Some(own.unwrap_or(("the listen address", String::new())));
            }
            Listen::Addr(_) => {}
        }
    }
    any.then(|| own_address(config, ip)).flatten()
}

/// Whether connections of a proxy to this address would come back to it.
#[must_use]
pub fn comes_back(config: &Config, proxy: &Proxy, address: SocketAddr) -> bool {
    own_listener(config, proxy, address).is_some()
}

fn loops(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    for (index, server) in proxy.servers.iter().enumerate() {
        let Some((what, path)) = own_listener(&draft.config, proxy, server.address) else {
            continue;
        };
        let problem = Problem::error(
            "E0303",
            format!("`proxy.{}` would connect to itself", proxy.name),
        )
        .at(
            &draft.spans.at(&server_path(draft, proxy, index)),
            format!("this is {what} and the listen port"),
        );
        let problem = if path.is_empty() {
            problem
        } else {
            problem.context(&draft.spans.at(&path), what)
        };
        problems.push(problem.help(
            "where the API server runs on the load balancer itself, let lbd listen on another port, e.g. \":8443\"",
        ));
    }
}

fn idle(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    if proxy.idle_timeout >= IDLE_MIN {
        return;
    }
    problems.push(
        Problem::warning(
            "W0304",
            format!("`proxy.{}.idle-timeout` cuts quiet connections", proxy.name),
        )
        .at(
            &draft
                .spans
                .at(&format!("proxy/{}/idle-timeout", proxy.name)),
            "under 5m: `kubectl exec`, `logs -f` and watches are often quiet for longer",
        )
        .help("dead peers are found by `keepalive` and `user-timeout`; the default is \"1h\""),
    );
}

/// Whether the servers look like API servers.
pub(super) fn kubernetes_like(proxy: &Proxy) -> bool {
    let name = proxy.name.to_ascii_lowercase();
    let named = ["kube", "k8s", "apiserver"]
        .iter()
        .any(|word| name.contains(word));
    named
        || proxy
            .servers
            .iter()
            .any(|server| server.address.port() == 6443)
}

fn check(draft: &Draft, proxy: &Proxy, problems: &mut Vec<Problem>) {
    let CheckKind::Tcp = proxy.check.kind else {
        return;
    };
    if !kubernetes_like(proxy) {
        return;
    }
    let path = format!("proxy/{}/check", proxy.name);
    let kind = format!("{path}/type");
    let span = draft
        .spans
        .at(if draft.spans.has(&kind) { &kind } else { &path });
    let problem = Problem::warning(
        "W0305",
        format!(
            "`proxy.{}`: a TCP check doesn't notice a hung API server",
            proxy.name
        ),
    )
    .at(&span, "a server that accepts and never answers stays up");
    problems.push(if draft.spans.has(&path) {
        problem.fix("ask /readyz over TLS", &span, "\"kube-apiserver\"")
    } else {
        problem.help("write `check = \"kube-apiserver\"` to ask /readyz over TLS")
    });
}
