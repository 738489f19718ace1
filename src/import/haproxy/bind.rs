//! `bind`: where a proxy listens.

use std::net::{IpAddr, Ipv4Addr};

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::words;
use super::lex::Directive;
use super::view::View;

/// lbd's limit of addresses in one proxy.
const LISTEN_MAX: usize = 64;

/// Where a proxy listens.
#[derive(Debug, Default)]
pub(super) struct Binds {
    /// As TOML strings, with the address (nothing: all) and port.
    pub(super) listen: Vec<(String, Option<IpAddr>, u16)>,
    pub(super) ids: Vec<Id>,
    /// The line that expects PROXY headers.
    pub(super) accepts_header: Option<Id>,
}

/// All `bind` lines of a section.
pub(super) fn binds(view: &View<'_>, work: &mut Work) -> Binds {
    let mut binds = Binds::default();
    for directive in view.own.directives.iter().filter(|d| d.word(0) == "bind") {
        bind(directive, &mut binds, work);
    }
    // `:PORT` hears IPv4, too.
    let both: Vec<u16> = binds
        .listen
        .iter()
        .filter(|(text, ..)| text.starts_with("\":"))
        .map(|(.., port)| *port)
        .collect();
    let is_part = |(text, ip, port): &(String, Option<IpAddr>, u16)| {
        ip.is_none() && !text.starts_with("\":") && both.contains(port)
    };
    binds.listen.retain(|entry| !is_part(entry));
    binds
}

fn bind(directive: &Directive, binds: &mut Binds, work: &mut Work) {
    let id = directive.id;
    let parameters: Vec<&str> = directive.words.iter().skip(2).map(String::as_str).collect();
    if parameters.contains(&"ssl") {
        work.ledger
            .mark(id, Fate::Lost, "lbd doesn't end TLS: it forwards it");
        return;
    }
    let both = parameters.contains(&"v4v6");
    for address in directive.word(1).split(',') {
        let found = addresses(address, both);
        if found.is_empty() || binds.listen.len() + found.len() > LISTEN_MAX {
            work.ledger.mark(
                id,
                Fate::Lost,
                format!("`{address}` is no address that lbd can listen on"),
            );
            continue;
        }
        work.ledger.mark(id, Fate::Exact, "");
        binds.ids.push(id);
        for entry in found {
            if !binds.listen.contains(&entry) {
                binds.listen.push(entry);
            }
        }
    }
    extras(&parameters, id, binds, work);
}

fn extras(parameters: &[&str], id: Id, binds: &mut Binds, work: &mut Work) {
    let mut rest = parameters.iter().copied();
    while let Some(word) = rest.next() {
        match word {
            "v6only" => {
                work.ledger
                    .mark(id, Fate::Changed, "`v6only`: lbd's `:PORT` hears IPv4, too");
            }
            "v4v6" | "defer-accept" | "transparent" => {}
            "name" | "id" | "process" | "thread" | "nbconn" | "shards" | "guid" => {
                rest.next();
            }
            "backlog" => {
                rest.next();
                work.ledger.mark(
                    id,
                    Fate::Changed,
                    "`backlog`: the kernel's net.core.somaxconn counts",
                );
            }
            "accept-proxy" => binds.accepts_header = Some(id),
            other => work.ledger.mark(
                id,
                Fate::Lost,
                format!("`{other}`: lbd has nothing like it"),
            ),
        }
    }
}

/// The addresses of one item; several where it has a range of ports.
fn addresses(text: &str, both: bool) -> Vec<(String, Option<IpAddr>, u16)> {
    let text = ["ipv4@", "ipv6@"]
        .iter()
        .find_map(|family| text.strip_prefix(family))
        .unwrap_or(text);
    let Some((host, ports)) = words::host_port(text) else {
        return Vec::new();
    };
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let (Some(from), Some(to)) = (words::port(from), words::port(to)) else {
        return Vec::new();
    };
    let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = match host {
        "" | "*" => Some(any_v4),
        // By default the kernel lets an IPv6 listener hear IPv4, too.
        "::" => None,
        _ => match words::ip(host) {
            Some(ip) if !ip.is_multicast() => Some(ip),
            Some(_) | None => return Vec::new(),
        },
    };
    let ip = if both && ip.is_some_and(|ip| ip.is_unspecified()) {
        None
    } else {
        ip
    };
    (from..=to)
        .take(LISTEN_MAX + 1)
        .map(|port| match ip {
            Some(ip) => (
                words::socket(ip, port),
                Some(ip).filter(|ip| !ip.is_unspecified()),
                port,
            ),
            None => (format!("\":{port}\""), None, port),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, both: bool) -> Vec<String> {
        addresses(text, both)
            .into_iter()
            .map(|(shown, ..)| shown)
            .collect()
    }

    #[test]
    fn addresses_are_split_as_haproxy_does() {
        assert_eq!(shown("*:6443", false), ["\"0.0.0.0:6443\""]);
        assert_eq!(shown(":6443", false), ["\"0.0.0.0:6443\""]);
        assert_eq!(shown(":::9445", true), ["\":9445\""]);
        assert_eq!(shown("[::1]:80", false), ["\"[::1]:80\""]);
        assert_eq!(shown("::1:80", false), ["\"[::1]:80\""]);
        assert_eq!(shown("localhost:80-82", false).len(), 3);
        assert_eq!(shown("unix@/run/x", false), [""; 0]);
        assert_eq!(shown("10.0.0.1:0", false), [""; 0]);
        assert_eq!(shown("224.0.0.18:80", false), [""; 0]);
    }
}
