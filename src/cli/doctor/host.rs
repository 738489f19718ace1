//! This machine: kernel, links, kernel settings that are traps, the clock, files that hold secrets.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Facts;
use super::report::Finding;
use crate::config::local::LocalVip;
use crate::config::model::Source;
use crate::config::model::{Auth, Config, Listen};
use crate::net::ntp;
use crate::peer::task::keyfile;

/// The oldest kernel that lbd runs on.
const KERNEL_MIN: (u32, u32) = (5, 4);

/// All of it.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(clock(facts));
    for local in &facts.locals {
        findings.push(link(facts, local));
        findings.extend(traps(facts, local));
    }
    if let Some(config) = &facts.config {
        findings.extend(forwarding(config));
        findings.extend(chosen_ports(config));
        findings.extend(secrets(&facts.path, config));
    }
    findings
}

/// A kernel setting as text.
fn setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

fn number(path: &str) -> Option<u32> {
    setting(path)?.parse().ok()
}

fn kernel() -> Finding {
    let Some(release) = setting("kernel/osrelease") else {
        return Finding::not_checked("kernel", "", "/proc/sys is not readable");
    };
    match version(&release) {
        Some(version) if version < KERNEL_MIN => {
            Finding::failed("kernel", "", format!("Linux {release} is older than 5.4"))
                .remedy("a newer kernel")
        }
        Some(_) => Finding::ok("kernel", "", format!("Linux {release}")),
        None => Finding::not_checked("kernel", "", format!("no version in {release}")),
    }
}

/// `5.10.0-8-amd64` as (5, 10).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the clock is kept in step: signed adverts and certificates need it.
fn clock(facts: &Facts) -> Vec<Finding> {
    let vips = facts.config.iter().flat_map(|config| &config.vips);
    let signed = vips
        .into_iter()
        .any(|vip| matches!(vip.auth, Auth::Hmac(_)));
    let state = match ntp::discipline() {
        Ok(state) => state,
        Err(error) => {
            let why = format!("the kernel doesn't tell: {error}");
            return vec![Finding::not_checked("clock", "", why)];
        }
    };
    let finding = if state.synchronised {
        let off = state.error_max.as_millis();
        Finding::ok(
            "clock",
            "",
            format!("kept in step, off by {off} ms at most"),
        )
    } else {
        let text = "nobody keeps the clock in step";
        let finding = if signed {
            Finding::failed("clock", "", text).cause(
                "signed adverts (`auth = { type = \"hmac\" }`) are believed only from a near clock",
            )
        } else {
            Finding::warning("clock", "", text)
                .cause("certificates of servers, and times in logs of two nodes, depend on it")
        };
        finding.remedy("chrony or systemd-timesyncd; `timedatectl` says what is there")
    };
    let mut findings = vec![finding];
    if !signed && facts.locals.iter().any(|local| local.vip.nodes.len() > 1) {
        let why = "only signed adverts (`auth` of type hmac) tell another node's time";
        findings.push(Finding::not_checked("skew", "", why));
    }
    findings
}

fn link(facts: &Facts, local: &LocalVip) -> Finding {
    let name = local.vip.name.as_str();
    let interface = &local.interface;
    let up = facts.host.interface(interface).is_some_and(|link| link.up);
    if up {
        let source = local.source;
        return Finding::ok(
            "link",
            name,
            format!("{interface} is up, adverts come from {source}"),
        );
    }
    Finding::failed(
        "link",
        name,
        format!("{interface} is down or has no carrier"),
    )
    .cause("the cable, the switch's port, or `ip link set down`")
    .remedy(format!("`ip link show {interface}`"))
}

/// Kernel settings that keep an address from being found or reached.
fn traps(facts: &Facts, local: &LocalVip) -> Vec<Finding> {
    let name = local.vip.name.as_str();
    let interface = &local.interface;
    let of = |key: &str| {
        let all = number(&format!("net/ipv4/conf/all/{key}"));
        let own = number(&format!("net/ipv4/conf/{interface}/{key}"));
        // The kernel takes the larger one.
        all.max(own)
    };
    if !local.source.is_ipv4() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let (Some(ignore), Some(filter)) = (of("arp_ignore"), of("rp_filter")) else {
        let why = format!("/proc/sys/net/ipv4/conf/{interface} is not readable");
        return vec![Finding::not_checked("sysctl", name, why)];
    };
    findings.push(match ignore {
        8 => Finding::failed("sysctl", name, format!("arp_ignore is 8 on {interface}"))
            .cause("the kernel answers no ARP at all: nobody finds the address")
            .remedy(format!(
                "sysctl -w net.ipv4.conf.{interface}.arp_ignore=1, and `all` likewise"
            )),
        3 => Finding::warning("sysctl", name, format!("arp_ignore is 3 on {interface}"))
            .cause("addresses of scope host are not answered for")
            .remedy("0, 1 or 2 do"),
        0 if local.vip.virtual_mac => Finding::failed(
            "sysctl",
            name,
            format!("arp_ignore is 0 on {interface}, with `virtual-mac`"),
        )
        .cause("the interface itself answers for the address too, with its own hardware address")
        .remedy(format!("sysctl -w net.ipv4.conf.{interface}.arp_ignore=1")),
        value => Finding::ok(
            "sysctl",
            name,
            format!("arp_ignore is {value} on {interface}"),
        ),
    });
    let neighbours = || {
        facts.host.interfaces.iter().filter(|other| {
            let mut own = other.addresses.iter();
            other.name != *interface
                && own.any(|own| own.ip.is_ipv4() && !own.ip.is_loopback() && near(local, own.ip))
        })
    };
    findings.push(match (filter, neighbours().next()) {
        (1, Some(other)) => {
            let other = &other.name;
            Finding::warning(
                "sysctl",
                name,
                format!("rp_filter is 1 on {interface}, and {other} is on the same subnet"),
            )
            .cause(
                "packets that come by one interface and would be answered by the other are dropped",
            )
            .remedy(format!(
                "sysctl -w net.ipv4.conf.{interface}.rp_filter=2, or one interface per subnet"
            ))
        }
        (value, _) => Finding::ok(
            "sysctl",
            name,
            format!("rp_filter is {value} on {interface}"),
        ),
    });
    findings
}

/// Whether an address is in the subnet of a VIP.
fn near(local: &LocalVip, ip: IpAddr) -> bool {
    local.vip.addresses.iter().any(|vip| match (vip.ip, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(u32::from(vip.prefix));
            let head = |ip: u32| ip.checked_shr(shift).unwrap_or(0);
            vip.prefix < 32 && head(u32::from(a)) == head(u32::from(b))
        }
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => false,
    })
}

/// Connections from clients' own addresses need this node to be a router.
fn forwarding(config: &Config) -> Option<Finding> {
    let mut proxies = config.proxies.iter();
    let proxy = proxies.find(|proxy| matches!(proxy.source, Source::Client))?;
    Some(match number("net/ipv4/ip_forward") {
        Some(1) => Finding::ok(
            "sysctl",
            &proxy.name,
            "ip_forward is 1, as `source = \"client\"` wants",
        ),
        Some(_) => Finding::failed(
            "sysctl",
            &proxy.name,
            "ip_forward is 0, with `source = \"client\"`",
        )
        .cause("servers answer clients through this node, which doesn't forward")
        .remedy("sysctl -w net.ipv4.ip_forward=1; see docs/transparent.md"),
        None => Finding::not_checked("sysctl", &proxy.name, "ip_forward is not readable"),
    })
}

/// Ports that an outgoing connection may take before lbd does, and those that take a right.
fn chosen_ports(config: &Config) -> Vec<Finding> {
    let ports = config.proxies.iter().flat_map(|proxy| {
        let ports = proxy.listen.iter().map(|listen| match listen {
            Listen::Addr(addr) => addr.port(),
            Listen::Any(port) => *port,
        });
        ports.map(|port| (proxy.name.as_str(), port))
    });
    let metrics = config
        .metrics
        .listen
        .map(|addr: SocketAddr| ("metrics", addr.port()));
    let range = setting("net/ipv4/ip_local_port_range").and_then(|text| range(&text));
    let reserved = setting("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let low = number("net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let mut findings = Vec::new();
    for (name, port) in ports.chain(metrics) {
        if range.is_some_and(|(from, to)| (from..=to).contains(&port))
            && !is_reserved(&reserved, port)
        {
            findings.push(
                Finding::warning(
                    "port",
                    name,
                    format!("{port} is in the range of outgoing connections"),
                )
                .cause("one of them may have it when lbd starts")
                .remedy(format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports={port}, or another port"
                )),
            );
        }
        if u32::from(port) < low {
            findings.push(
                Finding::warning("port", name, format!("{port} takes CAP_NET_BIND_SERVICE"))
                    .cause("ports below ip_unprivileged_port_start are root's, and the unit as shipped has no such right")
                    .remedy("add CAP_NET_BIND_SERVICE to AmbientCapabilities and CapabilityBoundingSet: `systemctl edit lbd`"),
            );
        }
    }
    findings
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut ends = text.split_whitespace();
    Some((ends.next()?.parse().ok()?, ends.next()?.parse().ok()?))
}

/// Whether a list such as `6443,9000-9100` has a port.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
            (Ok(from), Ok(to)) => (from..=to).contains(&port),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
        }
    })
}

/// Files that hold keys: who else can read or change them.
fn secrets(path: &Path, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shown = path.display().to_string();
    if let Ok(data) = fs::metadata(path) {
        let keys = config.vips.iter().any(|vip| vip.auth != Auth::None);
        let mode = data.mode();
        findings.push(if mode & 0o002 != 0 {
            Finding::failed("file", &shown, "everybody on this machine can change it")
                .remedy(format!("chmod o-w {shown}"))
        } else if keys && mode & 0o004 != 0 {
            Finding::warning(
                "file",
                &shown,
                "it holds keys of `auth`, and everybody on this machine can read it",
            )
            .remedy(format!("chown root:lbd {shown}; chmod 640 {shown}"))
        } else {
            Finding::ok(
                "file",
                &shown,
                format!("mode {:o}, owner {}", mode & 0o777, data.uid()),
            )
        });
    }
    if let Some(peer) = &config.peer {
        let shown = peer.key_file.display().to_string();
        findings.push(match keyfile::read(&peer.key_file) {
            Ok(keys) => Finding::ok(
                "file",
                &shown,
                format!("{} keys, closed to others", keys.count()),
            ),
            Err(error) => Finding::failed("file", &shown, error.to_string()).remedy(format!(
                "one key per line, 32 characters or more; chown root:lbd {shown}; chmod 640 {shown}"
            )),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_ranges_and_lists_of_the_kernel_are_read() {
        assert_eq!(version("5.10.0-8-amd64"), Some((5, 10)));
        assert_eq!(version("6.1+"), Some((6, 1)));
        assert_eq!(version("mainline"), None);
        assert_eq!(range("32768\t60999"), Some((32_768, 60_999)));
        assert_eq!(range("32768"), None);
        assert!(is_reserved("80,36443", 36_443));
        assert!(is_reserved("36000-37000", 36_443));
        assert!(!is_reserved("", 36_443) && !is_reserved("x-y", 1));
    }

    #[test]
    fn the_kernel_of_this_machine_is_new_enough() {
        assert_eq!(kernel().state, super::super::report::State::Ok);
    }
}
