//! Adverts that no router may obey, sent from a host of `routers.rs`.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a part of test programs"
)]

use std::net::{IpAddr, SocketAddr};

use lbd::units::{AdvertInterval, Version, Vrid};
use lbd::vrrp::packet::{Addresses, Advertisement, WireAuth};
use socket2::{Domain, Protocol, Socket, Type};

/// Who is to believe them, and from whom: the other node, and a host that is none. Both senders'
/// addresses are this host's.
pub struct Forged {
    pub target: &'static str,
    pub peer: &'static str,
    pub stranger: &'static str,
    pub vip: &'static str,
}

impl Forged {
    /// Adverts of priority 255 and 0, so many of each kind: wrong TTL (64), router, sum, sender.
    pub fn send(&self, count: usize) {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (target, vip) = (ip(self.target), ip(self.vip));
        let kinds = [
            (self.peer, 64, 60, false),
            (self.peer, 255, 61, false),
            (self.peer, 255, 60, true),
            (self.stranger, 255, 60, false),
        ]
        .map(|(source, hops, vrid, spoil)| {
            let source = ip(source);
            (socket(source, hops), source, vrid, spoil)
        });
        let to = SocketAddr::new(target, 0).into();
        let (v4, v6) = match vip {
            IpAddr::V4(vip) => ([vip.octets()], [[0; 16]]),
            IpAddr::V6(vip) => ([[0; 4]], [vip.octets()]),
        };
        let mut bytes = Vec::new();
        for round in 0..count {
            for (socket, source, vrid, spoil) in &kinds {
                let advert = Advertisement {
                    version: Version::V3,
                    vrid: Vrid::try_from(*vrid).unwrap(),
                    priority: if round % 2 == 0 { 255 } else { 0 },
                    interval: AdvertInterval::from_wire_v3(4095).unwrap(),
                    addresses: if vip.is_ipv4() {
                        Addresses::V4(&v4)
                    } else {
                        Addresses::V6(&v6)
                    },
                    auth: WireAuth::None,
                };
                advert.encode(*source, target, &mut bytes).unwrap();
                if *spoil {
                    bytes[7] ^= 1;
                }
                socket.send_to(&bytes, &to).unwrap();
            }
        }
    }
}

/// What sends adverts from an address with that TTL or hop limit.
fn socket(source: IpAddr, hops: u32) -> Socket {
    let domain = if source.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(112))).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    if source.is_ipv4() {
        socket.set_ttl_v4(hops).unwrap();
    } else {
        socket.set_unicast_hops_v6(hops).unwrap();
    }
    socket
}
