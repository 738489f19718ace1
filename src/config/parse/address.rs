//! Addresses: virtual ones, nodes, servers, and where to listen.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::given::{Given, Sink, Text};
use super::value::quoted;
use crate::config::model::{Listen, VipAddress};
use crate::config::problem::Problem;

/// `IPv4/PREFIX`, a host address without the prefix.
pub(super) fn vip_address(text: &Text<'_>, sink: &mut Sink) -> Option<VipAddress> {
    let (ip, prefix) = match text.text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text.text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        sink.push(
            Problem::error("E0108", format!("`{}` is no address", text.name)).at(
                &text.span,
                "write an IPv4 address and a prefix length: \"172.16.0.10/24\"",
            ),
        );
        return None;
    };
    if !refuse_ipv6(text, ip, sink) {
        return None;
    }
    let number = match prefix {
        None => Some(32),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u8>().ok(),
        Some(_) => None,
    };
    let Some(prefix) = number.filter(|n| (1..=32).contains(n)) else {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` has no such prefix length", text.name),
            )
            .at(&text.span, "it must be 1 to 32"),
        );
        return None;
    };
    let IpAddr::V4(v4) = ip else {
        return None;
    };
    if v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_loopback() {
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
        sink.push(match text.text.split_once('/') {
            Some((ip, _)) if ip.parse::<IpAddr>().is_ok() => problem
                .at(&text.span, "a node's address has no prefix length")
                .fix("leave it out", &text.span, quoted(ip)),
            Some(_) | None => problem.at(
                &text.span,
                "write the IPv4 address of a load-balancer host: \"172.16.0.2\"",
            ),
        });
        return None;
    };
    if !refuse_ipv6(text, ip, sink) {
        return None;
    }
    let usable = match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    if !usable {
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

/// Whether `ip` is IPv4; the other kind is refused.
fn refuse_ipv6(text: &Text<'_>, ip: IpAddr, sink: &mut Sink) -> bool {
    if ip.is_ipv6() {
        sink.push(
            Problem::error(
                "E0107",
                format!("`{}`: IPv6 is not supported here yet", text.name),
            )
            .at(&text.span, "virtual addresses and nodes are IPv4"),
        );
    }
    ip.is_ipv4()
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
    let host = text
        .text
        .rsplit_once(':')
        .map_or(text.text, |(host, _)| host);
    let looks_like_name = host.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(':');
    if looks_like_name {
        return problem
            .at(&text.span, "host names are not supported yet")
            .help("write the IP address: a load balancer that needs DNS to start can't start without it");
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
