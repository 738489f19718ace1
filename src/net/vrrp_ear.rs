//! Hears every VRRP packet of a link, twice: as the wire delivers it, and as this host's firewall lets
//! it through. For a diagnosis alone: nothing acts upon what is heard here, and nothing is sent.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::IpAddr;

use pnet::packet::ethernet::EtherTypes;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use super::arp;
use super::vrrp_filter::GROUP_V4;

const PROTOCOL: u8 = 112;
/// Where an IPv4 header has its protocol, and an IPv6 header its next header.
const PROTOCOL_AT_V4: u32 = 9;
const NEXT_HEADER_AT_V6: u32 = 6;
/// `ff02::12`, where VRRP is spoken by multicast.
const GROUP_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Both ears.
#[derive(Debug)]
pub struct Ear {
    wire: Socket,
    host: Socket,
}

impl Ear {
    /// Listens on `interface`, whose index is `index`, to the family of `like`. The group of VRRP is
    /// joined for as long as it lives, or the adapter would not deliver what goes there.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed).
    pub fn open(interface: &str, index: u32, like: IpAddr) -> io::Result<Self> {
        let (domain, ethertype, at) = match like {
            IpAddr::V4(_) => (Domain::IPV4, EtherTypes::Ipv4, PROTOCOL_AT_V4),
            IpAddr::V6(_) => (Domain::IPV6, EtherTypes::Ipv6, NEXT_HEADER_AT_V6),
        };
        // Protocol 0 until the filter is there: nothing slips in before.
        let wire = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        wire.attach_filter(&only_vrrp(at))?;
        wire.set_nonblocking(true)?;
        wire.bind(&arp::link_address(index, ethertype.0)?)?;
        let host = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
        host.set_nonblocking(true)?;
        host.bind_device(Some(interface.as_bytes()))?;
        match like {
            IpAddr::V4(_) => {
                host.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
            }
            IpAddr::V6(_) => host.join_multicast_v6(&GROUP_V6, index)?,
        }
        Ok(Self { wire, host })
    }

    /// One packet as the wire delivered it, from its IP header on; `None`: there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn on_wire<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.wire).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who sent one packet that the firewall let through; `None`: there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn let_through(&self) -> io::Result<Option<IpAddr>> {
        let mut start = [MaybeUninit::uninit(); 64];
        match self.host.recv_from(&mut start) {
            Ok((_, from)) => Ok(from.as_socket().map(|from| from.ip())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Packets whose byte at `at` is VRRP's number.
fn only_vrrp(at: u32) -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, at),
        SockFilter::new(IF_EQUAL, 0, 1, u32::from(PROTOCOL)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
