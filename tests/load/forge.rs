//! Adverts as a stranger would write them: byte by byte, with one thing wrong. An encoder of its
//! own, so that what it forges doesn't follow what lbd takes for right.

use std::net::{Ipv4Addr, SocketAddrV4};

use lbd::net::netns::Namespace;
use lbd::net::netns::wire::Plug;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::lab::Pair;

pub const LB1: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
pub const LB2: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 3);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 66);
const VIP: [u8; 4] = [172, 16, 0, 10];

/// A packet in the making: what is right, in fields that a forger changes.
#[derive(Debug, Clone)]
pub struct Forged {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub ttl: u8,
    /// Version and type.
    pub first: u8,
    pub vrid: u8,
    pub priority: u8,
    /// Seconds in version 2, hundredths in version 3.
    pub interval: u16,
    /// Version 2.
    pub auth: (u8, [u8; 8]),
    pub addresses: Vec<[u8; 4]>,
    /// Says another number of addresses than there are.
    pub count: Option<u8>,
    /// Added to the right sum.
    pub spoil: u16,
    /// Cut to so many bytes after the IPv4 header.
    pub cut: Option<usize>,
}

impl Forged {
    /// What the other node of `lab::SEED` could have sent to `destination`.
    pub fn v2(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            source,
            destination,
            ttl: 255,
            first: 0x21,
            vrid: 60,
            priority: 250,
            interval: 1,
            auth: (1, *b"1111\0\0\0\0"),
            addresses: vec![VIP],
            count: None,
            spoil: 0,
            cut: None,
        }
    }

    /// The same in version 3.
    pub fn v3(source: Ipv4Addr, destination: Ipv4Addr, centiseconds: u16) -> Self {
        Self {
            first: 0x31,
            interval: centiseconds,
            ..Self::v2(source, destination)
        }
    }

    /// The packet with its IPv4 header.
    pub fn bytes(&self) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).expect("few");
        let mut advert = vec![
            self.first,
            self.vrid,
            self.priority,
            self.count.unwrap_or(count),
        ];
        let v3 = self.first >> 4 == 3;
        let [high, low] = self.interval.to_be_bytes();
        advert.extend(if v3 { [high, low] } else { [self.auth.0, low] });
        advert.extend([0, 0]);
        advert.extend(self.addresses.iter().flatten());
        if !v3 {
            advert.extend(self.auth.1);
        }
        let length = u16::try_from(advert.len()).expect("short");
        let mut summed = advert.clone();
        if v3 {
            summed.extend(self.source.octets());
            summed.extend(self.destination.octets());
            summed.extend([0, 112]);
            summed.extend(length.to_be_bytes());
        }
        let sum = checksum(&summed).wrapping_add(self.spoil).to_be_bytes();
        advert[6..8].copy_from_slice(&sum);
        advert.truncate(self.cut.unwrap_or(usize::MAX));
        let length = u16::try_from(20 + advert.len()).expect("short");
        let mut packet = vec![0x45, 0xc0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, self.ttl, 112, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(advert);
        packet
    }
}

/// RFC 1071; an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// Someone else on the wire, who may write any source address.
pub struct Stranger {
    socket: Socket,
    _host: Namespace,
}

impl Stranger {
    pub fn join(pair: &mut Pair) -> Self {
        let host = Namespace::new(&[]).expect("a namespace");
        let plug = Plug {
            host: "stranger",
            interface: "eth0",
            ip: STRANGER.into(),
            prefix: 24,
        };
        pair.lab.wire.attach(&host, &plug).expect("a cable");
        let socket = host.run(|| {
            let protocol = Some(Protocol::from(112));
            let socket = Socket::new(Domain::IPV4, Type::RAW, protocol)?;
            socket.set_header_included_v4(true)?;
            Ok::<_, std::io::Error>(socket)
        });
        Self {
            socket: socket.and_then(|socket| socket).expect("root may"),
            _host: host,
        }
    }

    /// Sends one packet; false when there was no room for it.
    pub fn send(&self, packet: &[u8], destination: Ipv4Addr) -> bool {
        let to = SockAddr::from(SocketAddrV4::new(destination, 0));
        self.socket.send_to(packet, &to).is_ok()
    }
}
