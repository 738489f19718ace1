//! Addresses: virtual ones, nodes, servers, and where to listen.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::given::{Given, Sink, Text};
use super::value::quoted;
use crate::config::model::{Listen, VipAddress};
use crate::config::problem::Problem;

/// `IP/PREFIX`, a host address without the prefix.
pub(super) fn vip_address(text: &Text<'_>, sink: &mut Sink) -> Option<VipAddress> {
    let (ip, prefix) = match text.text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text.text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        let problem = Problem::error("E0108", format!("`{}` is no address", text.name));
        sink.push(match without_zone(text) {
            Some(plain) => zone(problem, text, &plain),
            None => problem.at(
                &text.span,
                "write an address and a prefix length: \"172.16.0.10/24\"",
            ),
        });
        return None;
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let number = match prefix {
        None => Some(longest),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u8>().ok(),
        Some(_) => None,
    };
    let Some(prefix) = number.filter(|n| (1..=longest).contains(n)) else {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` has no such prefix length", text.name),
            )
            .at(&text.span, format!("it must be 1 to {longest}")),
        );
        return None;
    };
    if !is_unicast(ip) || ip.is_loopback() {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` can't be a virtual address", text.name),
            )
            .at(&text.span, "it must be a unicast address of the LAN"),
        );
        return None;
    }
    Some(VipAddress { ip, prefix })
}

/// The address of a load-balancer host.
pub(super) fn node_address(text: &Text<'_>, sink: &mut Sink) -> Option<IpAddr> {
    let Ok(ip) = text.text.parse::<IpAddr>() else {
        let problem = Problem::error("E0108", format!("`{}` is no address", text.name));
        sink.push(match (text.text.split_once('/'), without_zone(text)) {
            (Some((ip, _)), _) if ip.parse::<IpAddr>().is_ok() => problem
                .at(&text.span, "a node's address has no prefix length")
                .fix("leave it out", &text.span, quoted(ip)),
            (_, Some(plain)) => zone(problem, text, &plain),
            (Some(_) | None, None) => problem.at(
                &text.span,
                "write the address of a load-balancer host: \"172.16.0.2\"",
            ),
        });
        return None;
    };
    if !is_unicast(ip) {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` can't be a host's address", text.name),
            )
            .at(&text.span, "it must be a unicast address"),
        );
        return None;
    }
    Some(ip)
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => {
            !ip.is_unspecified() && !ip.is_multicast() && ip.to_ipv4_mapped().is_none()
        }
    }
}

/// An IPv6 address that was written with its interface (`fe80::2%eth0`), without that.
fn without_zone(text: &Text<'_>) -> Option<String> {
    let (ip, rest) = text.text.split_once('%')?;
    ip.parse::<std::net::Ipv6Addr>().ok()?;
    let prefix = rest.split_once('/').map(|(_, prefix)| prefix);
    Some(prefix.map_or_else(|| ip.to_owned(), |prefix| format!("{ip}/{prefix}")))
}

fn zone(problem: Problem, text: &Text<'_>, plain: &str) -> Problem {
    problem
        .at(&text.span, "`interface` says where it is, not the address")
        .fix("leave it out", &text.span, quoted(plain))
}

/// `IP:PORT`.
pub(super) fn socket_addr(text: &Text<'_>, sink: &mut Sink) -> Option<SocketAddr> {
    if let Ok(addr) = text.text.parse::<SocketAddr>() {
        if addr.port() != 0 {
            return Some(addr);
        }
        sink.push(
            Problem::error("E0105", format!("`{}` has port 0", text.name))
                .at(&text.span, "ports are 1 to 65535"),
        );
        return None;
    }
    sink.push(malformed_socket_addr(text));
    None
}

/// The address of a server.
pub(super) fn server_addr(text: &Text<'_>, sink: &mut Sink) -> Option<SocketAddr> {
    let addr = socket_addr(text, sink)?;
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` can't be a server's address", text.name),
            )
            .at(&text.span, "it must be a unicast address"),
        );
        return None;
    }
    Some(addr)
}

/// Whether somebody wrote a host name, with or without a port.
pub(super) fn looks_like_name(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    host.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(':')
}

fn malformed_socket_addr(text: &Text<'_>) -> Problem {
    let problem = Problem::error("E0108", format!("`{}` is no IP:PORT", text.name));
    if let Ok(ip) = text.text.parse::<IpAddr>() {
        return problem.at(
            &text.span,
            match ip {
                IpAddr::V4(_) => format!("the port is missing: \"{ip}:6443\""),
                IpAddr::V6(_) => format!("the port is missing: \"[{ip}]:6443\""),
            },
        );
    }
    if looks_like_name(text.text) {
        return problem
            .at(&text.span, "an IP address is needed here")
            .help("only servers may be host names, in short form: `backends = [\"NAME:PORT\"]`");
    }
    problem.at(
        &text.span,
        "write an IP address and a port: \"172.16.0.4:6443\", \"[fd00::4]:6443\"",
    )
}

/// `IP:PORT` or `:PORT`.
pub(super) fn listen(given: &Given<'_, '_>, sink: &mut Sink) -> Option<Listen> {
    if let DeValue::Integer(number) = given.value {
        let problem = given.wrong_type("a string: `IP:PORT` or `:PORT`");
        sink.push(match number.as_str().parse::<u16>() {
            Ok(port) => problem.fix("write", &given.span, format!("\":{port}\"")),
            Err(_) => problem,
        });
        return None;
    }
    let text = given.text(sink)?;
    if let Some(port) = text.text.strip_prefix(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        if let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0) {
            return Some(Listen::Any(port));
        }
        sink.push(
            Problem::error("E0105", format!("`{}` has no such port", text.name))
                .at(&text.span, "ports are 1 to 65535"),
        );
        return None;
    }
    if let Some(port) = text.text.strip_prefix("*:") {
        sink.push(
            Problem::error("E0108", format!("`{}` is no IP:PORT", text.name))
                .at(&text.span, "every address is written without the `*`")
                .fix("replace it", &text.span, format!("\":{port}\"")),
        );
        return None;
    }
    let addr = socket_addr(&text, sink)?;
    if addr.ip().is_multicast() {
        sink.push(
            Problem::error("E0105", format!("`{}` can't be listened on", text.name))
                .at(&text.span, "it must be a unicast address"),
        );
        return None;
    }
    Some(Listen::Addr(addr))
}
