//! The laboratory that a configuration calls for: hosts, addresses, where the client goes. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::model::{CheckKind, Config, Listen, Proxy, Verify, Vip};

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the client goes: the VIP and the proxy's port.
    pub target: SocketAddr,
    /// The prefix length of the wire's subnet.
    pub prefix: u8,
    /// The load balancers.
    pub nodes: Vec<PlanNode>,
    /// The servers.
    pub servers: Vec<PlanServer>,
    /// The client's address.
    pub client: IpAddr,
    /// One line about the virtual router.
    pub about: String,
    /// How long a Backup waits for a silent Active, at most.
    pub take_over: Duration,
    /// Where a node answers `lbd status`.
    pub admin_socket: PathBuf,
    /// The VIP's kernel lifetime; `None`: a dead node keeps it.
    pub lease: Option<Duration>,
    /// What the laboratory does differently from the file.
    pub notes: Vec<String>,
}

/// A load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanNode {
    /// Its name, or its address.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its interface.
    pub interface: String,
    /// Its address of the other family and that one's prefix length, in a pair of both.
    pub twin: Option<(IpAddr, u8)>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanServer {
    /// Its name in the file.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Draws the plan.
///
/// # Errors
/// Every reason why the laboratory can't show this configuration.
pub fn plan(config: &Config) -> Result<Plan, Vec<String>> {
    let (Some(vip), Some(first)) = (config.vips.first(), config.proxies.first()) else {
        return Err(vec![
            "the demo needs a [vip] and a [proxy] in the file".into(),
        ]);
    };
    let Some(address) = vip.addresses.first() else {
        return Err(vec![format!("vip.{} has no address", vip.name)]);
    };
    let mut problems = Vec::new();
    let port = client_port(first, address.ip).unwrap_or_else(|| {
        problems.push(format!(
            "proxy.{}: no `listen` covers {}",
            first.name, address.ip
        ));
        0
    });
    if vip.nodes.len() < 2 {
        problems.push(format!(
            "vip.{}: a failover needs two `nodes`, the file has {}",
            vip.name,
            vip.nodes.len()
        ));
    }
    let servers = servers(&config.proxies, &mut problems);
    let nodes = nodes(config, vip);
    let hosts: BTreeSet<IpAddr> = nodes
        .iter()
        .map(|node| node.ip)
        .chain(servers.iter().map(|server| server.address.ip()))
        .collect();
    let prefix = wire_prefix(address.ip, address.prefix);
    for host in &hosts {
        if !same_subnet(*host, address.ip, prefix) {
            problems.push(format!(
                "{host} is not in {}/{prefix}: the demo has one wire and no router",
                address.ip
            ));
        }
    }
    let Some(client) = free_address(address.ip, prefix, &hosts) else {
        problems.push(format!(
            "no address for the client in {}/{prefix}",
            address.ip
        ));
        return Err(problems);
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Plan {
        target: SocketAddr::new(address.ip, port),
        prefix,
        nodes,
        servers,
        client,
        about: about(vip),
        take_over: vip.advert_interval.duration() * 4 + Duration::from_secs(1),
        admin_socket: admin_socket(config),
        lease: vip.lease,
        notes: notes(config, vip, first),
    })
}

fn admin_socket(config: &Config) -> PathBuf {
    let socket = config.admin.socket.clone();
    socket.unwrap_or_else(|| "/run/lbd/admin.sock".into())
}

fn client_port(proxy: &Proxy, vip: IpAddr) -> Option<u16> {
    proxy.listen.iter().find_map(|listen| match listen {
        Listen::Any(port) => Some(*port),
        Listen::Addr(address) => {
            let covers = address.ip() == vip || address.ip().is_unspecified();
            covers.then_some(address.port())
        }
    })
}

fn nodes(config: &Config, vip: &Vip) -> Vec<PlanNode> {
    let is_twin = |other: &&Vip| other.sync_group.is_some() && other.sync_group == vip.sync_group;
    let twins = config.vips.iter().skip(1).filter(is_twin);
    let prefix = twins
        .filter_map(|other| other.addresses.first())
        .map(|address| wire_prefix(address.ip, address.prefix))
        .next();
    vip.nodes
        .iter()
        .map(|node| PlanNode {
            name: node.label(),
            ip: node.address,
            interface: node
                .interface
                .clone()
                .or_else(|| vip.interface.clone())
                .unwrap_or_else(|| "eth0".into()),
            twin: node.twin.zip(prefix),
        })
        .collect()
}

fn servers(proxies: &[Proxy], problems: &mut Vec<String>) -> Vec<PlanServer> {
    let mut servers: Vec<PlanServer> = Vec::new();
    for proxy in proxies {
        let verified = match &proxy.check.kind {
            CheckKind::Tcp => None,
            CheckKind::Http(_) => {
                problems.push(format!(
                    "proxy.{}: the demo's servers speak TLS, an `http` check finds them down",
                    proxy.name
                ));
                None
            }
            CheckKind::Tls(tls) | CheckKind::Https(tls, _) => Some(tls),
        };
        if verified.is_some_and(|tls| tls.verify == Verify::Required) {
            problems.push(format!(
                "proxy.{}: the demo's servers have a certificate made for this run, which \
                 `ca-file` does not vouch for",
                proxy.name
            ));
        }
        for server in &proxy.servers {
            let known = servers.iter().any(|known| known.address == server.address);
            if !known {
                servers.push(PlanServer {
                    name: server.name.clone(),
                    address: server.address,
                });
            }
        }
    }
    servers
}

fn about(vip: &Vip) -> String {
    format!(
        "VRRP v{}, vrid {}, an advert each {:?}",
        vip.version.get(),
        vip.vrid.get(),
        vip.advert_interval.duration()
    )
}

fn notes(config: &Config, vip: &Vip, proxy: &Proxy) -> Vec<String> {
    let mut notes = Vec::new();
    if config.vips.len() > 1 {
        notes.push(format!(
            "the client goes to the first VIP, vip.{}",
            vip.name
        ));
    }
    if config.proxies.len() > 1 {
        notes.push(format!(
            "the client goes to the first proxy, proxy.{}",
            proxy.name
        ));
    }
    if vip.lease.is_none() {
        notes.push(
            "`lease` is off: the killed node keeps the VIP, and two nodes will hold it".into(),
        );
    }
    notes
}

/// A VIP without a subnet of its own lives in a /24 or /64 here.
fn wire_prefix(vip: IpAddr, prefix: u8) -> u8 {
    match vip {
        IpAddr::V4(_) if prefix == 32 => 24,
        IpAddr::V6(_) if prefix == 128 => 64,
        IpAddr::V4(_) | IpAddr::V6(_) => prefix,
    }
}

fn same_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The subnet's hundredth address if it is free, else the first free one.
fn free_address(vip: IpAddr, prefix: u8, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let candidate = |number: u8| match vip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(
                (ip.to_bits() & mask) | u32::from(number),
            ))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(
                (ip.to_bits() & mask) | u128::from(number),
            ))
        }
    };
    let free = |ip: &IpAddr| *ip != vip && !taken.contains(ip) && same_subnet(*ip, vip, prefix);
    std::iter::once(100)
        .chain(1..=254)
        .map(candidate)
        .find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
[vip.kube]
address = "172.16.0.10/24"
nodes = ["172.16.0.2", "172.16.0.3"]

[proxy.kube-apiserver]
listen = ":6443"
backends = ["172.16.0.4:6443", "172.16.0.5:6443"]
check = "kube-apiserver"
"#;

    fn drawn(text: &str) -> Result<Plan, Vec<String>> {
        plan(&crate::config::load(text).unwrap())
    }

    #[test]
    fn the_minimal_file_calls_for_two_nodes_two_servers_and_a_client() {
        let plan = drawn(MINIMAL).unwrap();
        assert_eq!(plan.target, "172.16.0.10:6443".parse().unwrap());
        assert_eq!(plan.prefix, 24);
        assert_eq!(plan.nodes.len(), 2);
        assert_eq!(plan.nodes[1].name, "172.16.0.3");
        assert_eq!(plan.nodes[1].interface, "eth0");
        assert_eq!(plan.servers.len(), 2);
        assert_eq!(plan.client, v4(100));
        assert_eq!(plan.take_over, Duration::from_secs(5));
        assert_eq!(plan.notes, Vec::<String>::new());
    }

    #[test]
    fn the_demos_own_file_can_be_shown() {
        let plan = drawn(include_str!("pair.toml")).unwrap();
        assert_eq!(plan.nodes[0].name, "lb1");
        assert_eq!(plan.servers[2].name, "kube-apiserver-3");
        assert_eq!(plan.about, "VRRP v2, vrid 60, an advert each 1s");
    }

    #[test]
    fn what_the_wire_cannot_show_is_refused_with_the_reason() {
        let one_node = MINIMAL.replace(r#", "172.16.0.3""#, "");
        let reasons = drawn(&one_node).unwrap_err();
        assert_eq!(
            reasons,
            ["vip.kube: a failover needs two `nodes`, the file has 1"]
        );
        let far_away = MINIMAL.replace("172.16.0.5:6443", "10.0.0.5:6443");
        let reasons = drawn(&far_away).unwrap_err();
        assert_eq!(
            reasons,
            ["10.0.0.5 is not in 172.16.0.10/24: the demo has one wire and no router"]
        );
        let elsewhere = MINIMAL.replace(":6443\"\nbackends", "172.16.0.77:6443\"\nbackends");
        let reasons = drawn(&elsewhere).unwrap_err();
        assert_eq!(
            reasons,
            ["proxy.kube-apiserver: no `listen` covers 172.16.0.10"]
        );
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(172, 16, 0, last))
    }

    #[test]
    fn the_client_takes_the_hundredth_address_unless_it_is_taken() {
        let mut taken = BTreeSet::from([v4(2), v4(3)]);
        assert_eq!(free_address(v4(10), 24, &taken), Some(v4(100)));
        taken.insert(v4(100));
        assert_eq!(free_address(v4(10), 24, &taken), Some(v4(1)));
        assert_eq!(free_address(v4(10), 29, &taken), Some(v4(9)));
    }

    #[test]
    fn hosts_outside_the_subnet_are_told_apart() {
        assert!(same_subnet(v4(2), v4(254), 24));
        assert!(!same_subnet(v4(2), v4(10), 29));
        assert!(!same_subnet(v4(2), IpAddr::V6(Ipv6Addr::LOCALHOST), 0));
        assert!(same_subnet(v4(2), v4(200), 0));
    }
}
