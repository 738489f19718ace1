//! `proxy-protocol` and `source` of a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fields::Fields;
use super::given::{Given, Sink, Text};
use super::unknown::nearest;
use super::value::quoted;
use crate::config::model::{HeaderVersion, Network, ProxyProtocol, Source};
use crate::config::problem::Problem;

const NETWORKS_MAX: usize = 64;

/// `proxy-protocol`, if given.
pub(super) fn proxy_protocol(
    fields: &mut Fields<'_, '_>,
    sink: &mut Sink,
) -> Option<ProxyProtocol> {
    let span = fields.span_of("proxy-protocol");
    let mut table = fields.table("proxy-protocol", sink)?;
    let (accepts, sends) = (table.has("accept"), table.has("send"));
    let has_timeout = table.has("timeout");
    let timeout_span = table.span_of("timeout");
    let given = table.take("accept", sink);
    let items = given.map(|given| given.one_or_more(NETWORKS_MAX, sink));
    let accept = items
        .unwrap_or_default()
        .iter()
        .filter_map(|item| network(item, sink))
        .collect();
    let send = match table.word("send", sink) {
        "v1" => Some(HeaderVersion::V1),
        "v2" => Some(HeaderVersion::V2),
        _absent => None,
    };
    let timeout = table.time("timeout", sink);
    let name = table.name().to_owned();
    table.finish(sink);
    if !accepts && !sends {
        sink.push(
            Problem::error("E0104", format!("`{name}` says neither `accept` nor `send`"))
                .at(&span, "one of them is needed")
                .help("`send = \"v2\"` tells servers who the client is, `accept = [\"10.0.0.0/8\"]` believes what these senders say"),
        );
    } else if has_timeout && !accepts {
        sink.push(
            Problem::error("E0109", format!("`{name}.timeout` has no meaning here")).at(
                &timeout_span,
                "it is the wait for a header, and without `accept` none is waited for",
            ),
        );
    }
    Some(ProxyProtocol {
        accept,
        timeout,
        send,
    })
}

/// A network, or one address.
pub(super) fn network(item: &Given<'_, '_>, sink: &mut Sink) -> Option<Network> {
    let text = item.text(sink)?;
    let (ip, prefix) = match text.text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text.text, None),
    };
    let Some(ip) = ip.parse::<IpAddr>().ok().filter(|ip| !is_mapped(*ip)) else {
        sink.push(
            Problem::error("E0108", format!("`{}` is no network", text.name)).at(
                &text.span,
                "write an address and a prefix length: \"10.0.0.0/8\", \"fd00::/64\"",
            ),
        );
        return None;
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let number = match prefix {
        None => Some(longest),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
    };
    let Some(prefix) = number.filter(|prefix| *prefix <= longest) else {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` has no such prefix length", text.name),
            )
            .at(&text.span, format!("it must be 0 to {longest}")),
        );
        return None;
    };
    if let Some(network) = Network::new(ip, prefix) {
        return Some(network);
    }
    let problem = Problem::error("E0108", format!("`{}` is no network", text.name))
        .at(&text.span, "bits are set behind the prefix");
    sink.push(match Network::around(ip, prefix) {
        Some(meant) => problem.fix("clear them", &text.span, quoted(&meant.to_string())),
        None => problem,
    });
    None
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

/// `source`, default: what the kernel chooses.
pub(super) fn source(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Source {
    let Some(given) = fields.take("source", sink) else {
        return Source::Any;
    };
    let items = given.one_or_more(2, sink);
    let mut texts: Vec<Text<'_>> = Vec::new();
    for item in &items {
        texts.extend(item.text(sink));
    }
    if let [only] = texts.as_slice()
        && only.text == "client"
    {
        return Source::Client;
    }
    let (mut v4, mut v6) = (None, None);
    for text in &texts {
        let twice = match address(text, sink) {
            Some(IpAddr::V4(ip)) => v4.replace(ip).is_some(),
            Some(IpAddr::V6(ip)) => v6.replace(ip).is_some(),
            None => false,
        };
        if twice {
            sink.push(
                Problem::error("E0105", "`source` has two addresses of one family")
                    .at(&text.span, "one for IPv4 servers, one for IPv6 servers"),
            );
        }
    }
    Source::Fixed { v4, v6 }
}

fn address(text: &Text<'_>, sink: &mut Sink) -> Option<IpAddr> {
    let Ok(ip) = text.text.parse::<IpAddr>() else {
        let problem = Problem::error("E0108", format!("`{}` is no address", text.name));
        let words = ["client", "clientip", "transparent", "usesrc"];
        let near = nearest(text.text, words.into_iter()).is_some();
        sink.push(match text.text.rsplit_once(':') {
            _ if near => problem.at(&text.span, "no address").fix(
                "for the client's own address write",
                &text.span,
                quoted("client"),
            ),
            Some((ip, _)) if ip.parse::<Ipv4Addr>().is_ok() => problem
                .at(&text.span, "ports are the kernel's choice")
                .fix("leave it out", &text.span, quoted(ip)),
            Some(_) | None => problem.at(
                &text.span,
                "write an address of this machine: \"192.0.2.7\", or \"client\"",
            ),
        });
        return None;
    };
    if unusable(ip) {
        sink.push(
            Problem::error("E0105", format!("`{}` can't be a source", text.name))
                .at(&text.span, "it must be a unicast address"),
        );
        return None;
    }
    Some(ip)
}

fn unusable(ip: IpAddr) -> bool {
    let link_local = |ip: Ipv6Addr| ip.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80);
    match ip {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => {
            ip.is_unspecified() || ip.is_multicast() || is_mapped(ip.into()) || link_local(ip)
        }
    }
}
