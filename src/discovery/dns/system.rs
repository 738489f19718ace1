//! The host's own files about names: `hosts` and `resolv.conf`. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use resolv_conf::ScopedIp;

/// Names with their addresses, hosts(5).
pub(super) const HOSTS: &str = "hosts";
/// Who is asked, resolv.conf(5).
pub(super) const RESOLV_CONF: &str = "resolv.conf";
/// All that is read.
pub(in crate::discovery) const FILES: [&str; 2] = [HOSTS, RESOLV_CONF];

const PORT: u16 = 53;
/// The C library asks no more.
const RESOLVERS_MAX: usize = 3;

/// The addresses that `hosts` has for a name.
pub(super) fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        let is_it = |word: &str| word.trim_end_matches('.').eq_ignore_ascii_case(host);
        if words.any(is_it) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// The resolvers of a `resolv.conf`; this host where it names none, as resolv.conf(5) has it.
pub(super) fn resolvers(text: &str) -> Vec<SocketAddr> {
    // Line by line, so that one that nobody knows hides no other.
    let lines = text
        .lines()
        .filter(|line| line.trim_start().starts_with("nameserver"));
    let parsed = lines.filter_map(|line| resolv_conf::Config::parse(line).ok());
    let servers = parsed.flat_map(|config| config.nameservers);
    let found: Vec<SocketAddr> = servers
        .filter_map(|ip| address(&ip))
        .take(RESOLVERS_MAX)
        .collect();
    if found.is_empty() {
        return vec![(Ipv4Addr::LOCALHOST, PORT).into()];
    }
    found
}

/// An interface by its name is not looked up: link-local resolvers are left out.
fn address(ip: &ScopedIp) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V4(ip) => Some((*ip, PORT).into()),
        ScopedIp::V6(ip, None) => Some((*ip, PORT).into()),
        ScopedIp::V6(_, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_hosts_has_the_addresses_of_all_its_lines() {
        let text = "127.0.0.1 localhost\n# 10.0.0.9 api.example\n10.0.0.4\tapi.example api # cp 1\n\
                    10.0.0.5 other API.Example.\nfd00::4 api.example\nbad api.example\n10.0.0.4 api.example\n";
        let found: Vec<String> = hosts(text, "api.example")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.4", "10.0.0.5", "fd00::4"]);
        assert!(hosts(text, "example").is_empty());
    }

    #[test]
    fn resolvers_are_the_first_three_that_can_be_reached_by_address() {
        let text = "search example\nnameserver 10.0.0.53\noptions ndots:5 what:ever\nnonsense\n\
                    nameserver fe80::1%eth0\nnameserver fd00::53\nnameserver 10.0.0.54\nnameserver 10.0.0.55\n";
        let found: Vec<String> = resolvers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.53:53", "[fd00::53]:53", "10.0.0.54:53"]);
        assert_eq!(resolvers(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
