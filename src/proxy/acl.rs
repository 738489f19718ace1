//! Whether an address is in one of many networks: they are merged and sorted once, then each
//! question is one binary search. Pure.

use std::net::IpAddr;

use crate::config::model::Network;

/// A set of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last of each, disjoint, in order.
type Ranges<T> = Vec<(T, T)>;

impl AddressSet {
    /// The addresses of all `networks`.
    #[must_use]
    pub fn new(networks: &[Network]) -> Self {
        let mut set = Self::default();
        for network in networks {
            match (network.first(), network.last()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    set.v4.push((first.to_bits(), last.to_bits()));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    set.v6.push((first.to_bits(), last.to_bits()));
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
            }
        }
        set.v4 = merged(set.v4);
        set.v6 = merged(set.v6);
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `ip` is in it; an IPv4 address that IPv6 maps is an IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => is_in(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => is_in(&self.v6, ip.to_bits()),
        }
    }
}

/// Networks either lie apart or one in the other, so the wider of two that share a beginning is
/// all there is.
fn merged<T: Ord + Copy>(mut ranges: Ranges<T>) -> Ranges<T> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut out: Ranges<T> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        if out.last().is_none_or(|(_, reached)| *reached < first) {
            out.push((first, last));
        }
    }
    out
}

fn is_in<T: Ord + Copy>(ranges: &[(T, T)], what: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= what);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|(_, last)| what <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> AddressSet {
        let network = |text: &&str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            Network::new(ip.parse().unwrap(), prefix.parse().unwrap()).unwrap()
        };
        AddressSet::new(&texts.iter().map(network).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_in_it_if_one_of_its_networks_has_it() {
        let set = set(&[
            "192.0.2.128/25",
            "10.1.0.0/16",
            "10.0.0.0/8",
            "198.51.100.7/32",
            "2001:db8:1::/48",
            "2001:db8:1:2::/64",
        ]);
        for (ip, inside) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.127", false),
            ("192.0.2.128", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("198.51.100.6", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("::ffff:10.9.9.9", true),
            ("::ffff:11.9.9.9", false),
            ("2001:db8:0:ffff::1", false),
            ("2001:db8:1:2::1", true),
            ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:2::", false),
        ] {
            assert_eq!(set.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        assert_eq!((set.v4.len(), set.v6.len()), (3, 1));
    }

    #[test]
    fn a_family_that_is_not_named_is_not_in_it() {
        let everybody = set(&["0.0.0.0/0"]);
        assert!(everybody.contains("255.255.255.255".parse().unwrap()));
        assert!(!everybody.contains("2001:db8::1".parse().unwrap()));
        assert!(AddressSet::new(&[]).is_empty() && !everybody.is_empty());
    }

    #[test]
    fn it_says_the_same_as_each_network_asked_in_turn() {
        let mut state = 7_u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state
        };
        let networks: Vec<Network> = (0..500)
            .map(|_| {
                let (ip, prefix) = (IpAddr::V4(next().into()), 2 + next() % 31);
                Network::around(ip, u8::try_from(prefix).unwrap()).unwrap()
            })
            .filter(|network| {
                network
                    .to_string()
                    .split('/')
                    .nth(1)
                    .unwrap()
                    .parse::<u8>()
                    .unwrap()
                    > 6
            })
            .collect();
        let set = AddressSet::new(&networks);
        let (mut inside, mut outside) = (0, 0);
        for _ in 0..20_000 {
            let ip = IpAddr::V4(next().into());
            let expected = networks.iter().any(|network| network.contains(ip));
            assert_eq!(set.contains(ip), expected, "{ip}");
            inside += u32::from(expected);
            outside += u32::from(!expected);
        }
        assert!(inside > 1000 && outside > 1000, "{inside} {outside}");
    }
}
