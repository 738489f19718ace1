//! The socket filters (cBPF) that tell the packets a router may act upon from all others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_X_HEADER_BYTES: u16 = 0xb1;
const LOAD_LENGTH: u16 = 0x80;
const SUBTRACT_X: u16 = 0x1c;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// `SKF_NET_OFF`: offsets from here on count from the network header.
const NETWORK_HEADER: u32 = 0xfff0_0000;
/// Where VRRP is spoken by multicast.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The fixed part of an advert, bytes.
const FIXED_BYTES: u32 = 8;

/// What a packet must look like to be let through. The router judges again, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Sources that may speak, all of the destination's family.
    pub senders: Vec<IpAddr>,
    /// The one destination.
    pub destination: IpAddr,
    /// The lowest TTL or hop limit of any sender.
    pub min_ttl: u8,
    /// 2 or 3.
    pub version: u8,
    /// `VRID`.
    pub vrid: u8,
    /// Other virtual routers that neither side sees: this node's own on the same LAN.
    pub passed_over: Vec<u8>,
}

/// Which side of the filter a socket is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Packets that match.
    Matching,
    /// Packets that don't: for counters.
    Rejected,
}

/// One condition: what is loaded, how it is compared, and whether that must hold.
struct Test {
    load: u16,
    offset: u32,
    compare: u16,
    with: u32,
    must_hold: bool,
}

const fn test(load: u16, offset: u32, compare: u16, with: u32) -> Test {
    Test {
        load,
        offset,
        compare,
        with,
        must_hold: true,
    }
}

impl Filter {
    /// The program for one side.
    ///
    /// # Errors
    /// `InvalidInput` with more senders than a program has room for (some 200 by IPv4, 25 by IPv6),
    /// or with both families.
    pub(super) fn program(&self, side: Side) -> io::Result<Vec<SockFilter>> {
        let (pass, drop) = match side {
            Side::Matching => (u32::MAX, 0),
            Side::Rejected => (0, u32::MAX),
        };
        let (tests, senders) = match self.destination {
            IpAddr::V4(destination) => (self.tests_v4(destination), self.senders_v4()?),
            IpAddr::V6(destination) => (self.tests_v6(destination), self.senders_v6()?),
        };
        let mut program = Vec::new();
        if self.destination.is_ipv4() {
            program.push(SockFilter::new(LOAD_X_HEADER_BYTES, 0, 0, 0));
        }
        if side == Side::Rejected {
            program.extend(self.too_short(drop));
            program.extend(self.unseen());
        }
        let length = program.len() + 2 * tests.len() + senders.len();
        for test in tests {
            program.push(SockFilter::new(test.load, 0, 0, test.offset));
            let out = jump(program.len(), length)?;
            let (yes, no) = if test.must_hold { (0, out) } else { (out, 0) };
            program.push(SockFilter::new(test.compare, yes, no, test.with));
        }
        program.extend(senders);
        program.push(SockFilter::new(RETURN, 0, 0, drop));
        program.push(SockFilter::new(RETURN, 0, 0, pass));
        Ok(program)
    }

    /// A load beyond the packet's end drops it: one without a whole VRID is told from the others first.
    fn too_short(&self, verdict: u32) -> Vec<SockFilter> {
        let mut program = vec![SockFilter::new(LOAD_LENGTH, 0, 0, 0)];
        if self.destination.is_ipv4() {
            program.push(SockFilter::new(SUBTRACT_X, 0, 0, 0));
        }
        program.push(SockFilter::new(IF_AT_LEAST, 1, 0, 2));
        program.push(SockFilter::new(RETURN, 0, 0, verdict));
        program
    }

    /// What is of no interest at all: adverts of `passed_over`, and by unicast other routers' adverts
    /// to the group. (One of our vrid in the group is: another cluster has it, too.)
    fn unseen(&self) -> Vec<SockFilter> {
        let vrid = match self.destination {
            IpAddr::V4(_) => SockFilter::new(LOAD_BYTE_AT_X, 0, 0, 1),
            IpAddr::V6(_) => SockFilter::new(LOAD_BYTE, 0, 0, 1),
        };
        let mut program = vec![vrid];
        for other in &self.passed_over {
            program.push(SockFilter::new(IF_EQUAL, 0, 1, u32::from(*other)));
            program.push(SockFilter::new(RETURN, 0, 0, 0));
        }
        if self.destination.is_ipv4() && !self.destination.is_multicast() {
            program.extend([
                SockFilter::new(IF_EQUAL, 3, 0, u32::from(self.vrid)),
                SockFilter::new(LOAD_WORD, 0, 0, 16),
                SockFilter::new(IF_EQUAL, 0, 1, u32::from(GROUP_V4)),
                SockFilter::new(RETURN, 0, 0, 0),
            ]);
        }
        program
    }

    fn version_type(&self) -> u32 {
        u32::from(self.version << 4 | 1)
    }

    /// Offsets count from the IPv4 header, where raw sockets see packets begin.
    fn tests_v4(&self, destination: Ipv4Addr) -> Vec<Test> {
        let shortest = 20 + FIXED_BYTES + 4;
        let mut no_fragment = test(LOAD_HALF, 6, IF_ANY_BIT, 0x3fff);
        no_fragment.must_hold = false;
        vec![
            test(LOAD_WORD, 16, IF_EQUAL, u32::from(destination)),
            test(LOAD_BYTE, 8, IF_AT_LEAST, u32::from(self.min_ttl)),
            no_fragment,
            test(LOAD_HALF, 2, IF_AT_LEAST, shortest),
            test(LOAD_BYTE_AT_X, 0, IF_EQUAL, self.version_type()),
            test(LOAD_BYTE_AT_X, 1, IF_EQUAL, u32::from(self.vrid)),
        ]
    }

    /// Raw sockets see IPv6 packets begin behind the header, which is found by its own base. No
    /// extension header: adverts never need one.
    fn tests_v6(&self, destination: Ipv6Addr) -> Vec<Test> {
        let shortest = FIXED_BYTES + 16;
        let mut tests = Vec::new();
        for (word, offset) in words(destination).into_iter().zip([24, 28, 32, 36]) {
            tests.push(test(LOAD_WORD, NETWORK_HEADER + offset, IF_EQUAL, word));
        }
        let hop_limit = u32::from(self.min_ttl);
        tests.extend([
            test(LOAD_BYTE, NETWORK_HEADER + 6, IF_EQUAL, 112),
            test(LOAD_BYTE, NETWORK_HEADER + 7, IF_AT_LEAST, hop_limit),
            test(LOAD_HALF, NETWORK_HEADER + 4, IF_AT_LEAST, shortest),
            test(LOAD_BYTE, 0, IF_EQUAL, self.version_type()),
            test(LOAD_BYTE, 1, IF_EQUAL, u32::from(self.vrid)),
        ]);
        tests
    }

    /// Falls through where no sender matches, and skips one instruction more where one does.
    fn senders_v4(&self) -> io::Result<Vec<SockFilter>> {
        let length = 1 + self.senders.len();
        let mut program = vec![SockFilter::new(LOAD_WORD, 0, 0, 12)];
        for sender in &self.senders {
            let IpAddr::V4(sender) = sender else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let found = jump(program.len(), length + 1)?;
            program.push(SockFilter::new(IF_EQUAL, found, 0, u32::from(*sender)));
        }
        Ok(program)
    }

    /// The same for addresses of four words each; the last word, which differs most, comes first.
    fn senders_v6(&self) -> io::Result<Vec<SockFilter>> {
        const EACH: usize = 8;
        let length = EACH * self.senders.len();
        let mut program = Vec::with_capacity(length);
        for (place, sender) in self.senders.iter().enumerate() {
            let IpAddr::V6(sender) = sender else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let next = EACH * (place + 1);
            let mut words = words(*sender).into_iter().zip([8, 12, 16, 20]).rev();
            let first_word = words.next_back();
            for (word, offset) in words {
                program.push(SockFilter::new(LOAD_WORD, 0, 0, NETWORK_HEADER + offset));
                let no = jump(program.len(), next)?;
                program.push(SockFilter::new(IF_EQUAL, 0, no, word));
            }
            if let Some((word, offset)) = first_word {
                program.push(SockFilter::new(LOAD_WORD, 0, 0, NETWORK_HEADER + offset));
                let found = jump(program.len(), length + 1)?;
                program.push(SockFilter::new(IF_EQUAL, found, 0, word));
            }
        }
        Ok(program)
    }
}

/// How far a jump from instruction `from` to instruction `to` goes.
fn jump(from: usize, to: usize) -> io::Result<u8> {
    u8::try_from(to - from - 1).map_err(|_far| io::ErrorKind::InvalidInput.into())
}

/// An address as the four numbers that a filter compares.
fn words(address: Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    [96, 64, 32, 0].map(|shift| u32::try_from((bits >> shift) & 0xffff_ffff).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::net::vrrp_socket::Receiver;

    /// How many of the packets the diagnostic socket sees, over loopback.
    fn seen(to: IpAddr, packets: &[&[u8]]) -> usize {
        let filter = Filter {
            senders: vec![to],
            destination: to,
            min_ttl: 255,
            version: 3,
            vrid: 60,
            passed_over: vec![61],
        };
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let mut receiver = Receiver::open("lo", lo, &filter, Side::Rejected).unwrap();
        let domain = if to.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(112))).unwrap();
        for packet in packets {
            let to = std::net::SocketAddr::new(to, 0);
            sender.send_to(packet, &to.into()).unwrap();
        }
        let mut buffer = [0; 256];
        let mut count = 0;
        while receiver.read(&mut buffer).unwrap().is_some() {
            count += 1;
        }
        count
    }

    #[test]
    fn the_shortest_packet_is_counted_and_one_of_our_other_routers_is_not() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs raw sockets");
            return;
        }
        let junk: [&[u8]; 5] = [&[], &[0x31], &[0x31, 60], &[0x31, 60, 100], &[0xff; 100]];
        for to in ["127.11.60.1", "::1"] {
            let to: IpAddr = to.parse().unwrap();
            for packet in junk {
                // By IPv6 a packet without a payload is not sent at all.
                if packet.is_empty() && to.is_ipv6() {
                    continue;
                }
                assert_eq!(seen(to, &[packet]), 1, "{to} {packet:?}");
            }
            assert_eq!(seen(to, &[&[0x31, 61, 100, 1, 0, 100, 0, 0]]), 0, "{to}");
        }
    }
}
