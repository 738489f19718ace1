//! Raw sockets for IP protocol 112, over IPv4 and IPv6: one that sends, one that receives what a
//! router may act upon, one that sees only what it may not. The kernel's socket filter tells the
//! two apart, so that a flood of junk never reaches the first.

use std::io::{self, IoSliceMut, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt::Ipv6RecvPacketInfo,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};

use super::vrrp_filter::GROUP_V4;
pub use super::vrrp_filter::{Filter, Side};

const PROTOCOL: i32 = 112;
/// Internet control (RFC 9568 leaves it open; keepalived's TOS and traffic class).
const TOS: u32 = 0xc0;
/// Receive buffer of the diagnostic socket: some dozen packets.
const DIAGNOSTIC_BYTES: usize = 16 * 1024;

/// Sends adverts.
#[derive(Debug)]
pub struct Sender {
    socket: Socket,
    index: u32,
}

impl Sender {
    /// A socket that sends from `source` through `interface`, whose index is `index`, with TTL or
    /// hop limit 255, and receives nothing.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed, `source` must be an address of this host, and
    /// by IPv6 one whose duplicate detection is over).
    pub fn open(interface: &str, index: u32, source: IpAddr) -> io::Result<Self> {
        let socket = raw(source)?;
        socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&address(source, index))?;
        match source {
            IpAddr::V4(source) => {
                socket.set_ttl_v4(255)?;
                socket.set_tos_v4(TOS)?;
                socket.set_multicast_ttl_v4(255)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_if_v4(&source)?;
            }
            IpAddr::V6(_) => {
                socket.set_unicast_hops_v6(255)?;
                socket.set_tclass_v6(TOS)?;
                socket.set_multicast_hops_v6(255)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_if_v6(index)?;
            }
        }
        Ok(Self { socket, index })
    }

    /// Sends one advert.
    ///
    /// # Errors
    /// What the kernel says; a full send buffer is an error too.
    pub fn send(&self, advert: &[u8], destination: IpAddr) -> io::Result<()> {
        let destination = address(destination, self.index);
        self.socket.send_to(advert, &destination).map(|_| ())
    }
}

/// A packet as a raw socket delivers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// An IPv4 packet, header first.
    V4(&'a [u8]),
    /// What came behind an IPv6 header.
    V6(ArrivalV6<'a>),
}

/// The parts of an IPv6 packet: the kernel strips the header and tells of it beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrivalV6<'a> {
    /// Source address.
    pub source: Option<Ipv6Addr>,
    /// Destination address.
    pub destination: Option<Ipv6Addr>,
    /// Hop limit as received.
    pub hop_limit: Option<u8>,
    /// All that followed.
    pub payload: &'a [u8],
}

/// Receives adverts.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    /// Where the kernel puts what it tells beside an IPv6 packet; empty by IPv4.
    beside: Vec<u8>,
}

impl Receiver {
    /// A socket on `interface` that sees one side of `filter`; it joins the destination if that is
    /// a group.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(interface: &str, index: u32, filter: &Filter, side: Side) -> io::Result<Self> {
        let socket = raw(filter.destination)?;
        // First the filter, then the device: nothing slips in between.
        socket.attach_filter(&filter.program(side)?)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        if side == Side::Rejected {
            socket.set_recv_buffer_size(DIAGNOSTIC_BYTES)?;
        }
        let mut beside = Vec::new();
        match filter.destination {
            IpAddr::V4(group) if group.is_multicast() => {
                let link = InterfaceIndexOrAddress::Index(index);
                socket.join_multicast_v4_n(&group, &link)?;
            }
            // Another cluster that has our vrid says so to the group.
            IpAddr::V4(_) if side == Side::Rejected => {
                let link = InterfaceIndexOrAddress::Index(index);
                socket.join_multicast_v4_n(&GROUP_V4, &link)?;
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(destination) => {
                socket.set_recv_hoplimit_v6(true)?;
                setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
                beside = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
                if destination.is_multicast() {
                    socket.join_multicast_v6(&destination, index)?;
                }
            }
        }
        Ok(Self { socket, beside })
    }

    /// Puts another filter in the place of the first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_filter(&self, filter: &Filter, side: Side) -> io::Result<()> {
        self.socket.attach_filter(&filter.program(side)?)
    }

    /// Reads one packet into `buffer`; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<Arrival<'a>>> {
        let read = if self.beside.is_empty() {
            read_v4(&self.socket, buffer)
        } else {
            read_v6(&self.socket, &mut self.beside, buffer)
        };
        match read {
            Ok(arrival) => Ok(Some(arrival)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_v4<'a>(mut socket: &Socket, buffer: &'a mut [u8]) -> io::Result<Arrival<'a>> {
    let length = socket.read(buffer)?;
    Ok(Arrival::V4(buffer.get(..length).unwrap_or_default()))
}

fn read_v6<'a>(
    socket: &Socket,
    beside: &mut [u8],
    buffer: &'a mut [u8],
) -> io::Result<Arrival<'a>> {
    let (mut destination, mut hop_limit) = (None, None);
    let (length, source) = {
        let mut room = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrIn6>(
            socket.as_raw_fd(),
            &mut room,
            Some(beside),
            MsgFlags::empty(),
        )?;
        // Side information that was cut off is as good as none.
        for item in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = item {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            } else if let ControlMessageOwned::Ipv6HopLimit(limit) = item {
                hop_limit = u8::try_from(limit).ok();
            }
        }
        (message.bytes, message.address.map(|from| from.ip()))
    };
    Ok(Arrival::V6(ArrivalV6 {
        source,
        destination,
        hop_limit,
        payload: buffer.get(..length).unwrap_or_default(),
    }))
}

fn raw(like: IpAddr) -> io::Result<Socket> {
    let domain = match like {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(PROTOCOL)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket address without a port; a link-local one is of the interface with this index.
fn address(ip: IpAddr, index: u32) -> SockAddr {
    SockAddr::from(match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, 0),
        IpAddr::V6(ip) => {
            let local = ip.is_unicast_link_local() || ip.is_multicast();
            let scope = if local { index } else { 0 };
            SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, scope))
        }
    })
}
