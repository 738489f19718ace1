//! Where a connection comes from: what its sender may say about that, and what servers get to see.
//! No parsing here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::model::Config;

/// `proxy-protocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `accept`: connections from these networks begin with a header; empty: none do.
    pub accept: Vec<Network>,
    /// `timeout` for that header, default 3s.
    pub timeout: Duration,
    /// `send`: connections and checks to servers begin with such a header.
    pub send: Option<HeaderVersion>,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderVersion {
    /// `v1`: a line of text.
    V1,
    /// `v2`: binary.
    V2,
}

/// `source`: the address that servers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Whatever the kernel's routes say.
    Any,
    /// These addresses, each for servers of its family.
    Fixed {
        /// For IPv4 servers.
        v4: Option<Ipv4Addr>,
        /// For IPv6 servers.
        v6: Option<Ipv6Addr>,
    },
    /// `"client"`: the client's own address.
    Client,
}

impl Config {
    /// Whether some proxy connects from its clients' addresses, which takes a right.
    #[must_use]
    pub fn has_client_source(&self) -> bool {
        let mut proxies = self.proxies.iter();
        proxies.any(|proxy| proxy.source == Source::Client)
    }
}

impl Source {
    /// The fixed address for servers of `server`'s family.
    #[must_use]
    pub fn fixed_for(self, server: IpAddr) -> Option<IpAddr> {
        match self {
            Self::Any | Self::Client => None,
            Self::Fixed { v4, v6 } => match server {
                IpAddr::V4(_) => v4.map(IpAddr::V4),
                IpAddr::V6(_) => v6.map(IpAddr::V6),
            },
        }
    }
}

/// A network: addresses that share a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `ip` with this prefix; `None`: no such prefix, or bits set behind it.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Self> {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let network = Self { ip, prefix };
        (prefix <= longest && network.first() == ip).then_some(network)
    }

    /// The same with the bits behind the prefix cleared.
    #[must_use]
    pub fn around(ip: IpAddr, prefix: u8) -> Option<Self> {
        let first = Self { ip, prefix }.first();
        Self::new(first, prefix)
    }

    /// Whether it has `ip`, which is not a mapped address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let other = Self {
            ip,
            prefix: self.prefix,
        };
        self.ip.is_ipv4() == ip.is_ipv4() && other.first() == self.ip
    }

    /// Whether it has every address of its family.
    #[must_use]
    pub const fn is_everybody(&self) -> bool {
        self.prefix == 0
    }

    /// Its lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                let behind = 32_u32.saturating_sub(self.prefix.into());
                let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
            }
            IpAddr::V6(ip) => {
                let behind = 128_u32.saturating_sub(self.prefix.into());
                let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
            }
        }
    }
}

impl Network {
    /// Its highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                let behind = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | behind))
            }
            IpAddr::V6(ip) => {
                let behind = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() | behind))
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Option<Network> {
        let (ip, prefix) = text.split_once('/').unwrap();
        Network::new(ip.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix_and_no_others() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.127"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::/0", "ffff::1", "0.0.0.0"),
            ("fd00::1/128", "fd00::1", "fd00::2"),
        ] {
            let network = network(text).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
            assert_eq!(network.to_string(), text);
        }
    }

    #[test]
    fn bits_behind_the_prefix_and_too_long_prefixes_are_no_network() {
        assert_eq!(network("10.0.0.1/8"), None);
        assert_eq!(network("10.0.0.0/33"), None);
        assert_eq!(network("fd00::1/64"), None);
        let around = Network::around("10.1.2.3".parse().unwrap(), 8).unwrap();
        assert_eq!(around.to_string(), "10.0.0.0/8");
    }
}
