//! Raw sockets for IP protocol 112: one that sends, one that receives what a router may act upon,
//! one that sees only what it may not. The kernel's socket filter (cBPF) tells the two apart, so
//! that a flood of junk never reaches the first.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};

const PROTOCOL: i32 = 112;
/// Internet control (RFC 9568 leaves it open; keepalived's TOS).
const TOS: u32 = 0xc0;
/// Receive buffer of the diagnostic socket: some dozen packets.
const DIAGNOSTIC_BYTES: usize = 16 * 1024;
/// The longest program of a filter is 255 jumps away from its end.
const SENDERS_MAX: usize = 200;

/// What a packet must look like to be let through. The router judges again, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Sources that may speak.
    pub senders: Vec<Ipv4Addr>,
    /// The one destination.
    pub destination: Ipv4Addr,
    /// The lowest TTL of any sender.
    pub min_ttl: u8,
    /// 2 or 3.
    pub version: u8,
    /// `VRID`.
    pub vrid: u8,
}

/// Which side of the filter a socket is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Packets that match.
    Matching,
    /// Packets that don't: for counters.
    Rejected,
}

impl Filter {
    /// The program. Offsets count from the IPv4 header, where raw sockets see packets begin.
    fn program(&self, side: Side) -> io::Result<Vec<SockFilter>> {
        const LOAD_WORD: u16 = 0x20;
        const LOAD_HALF: u16 = 0x28;
        const LOAD_BYTE: u16 = 0x30;
        const LOAD_BYTE_AT_X: u16 = 0x50;
        const LOAD_X_HEADER_BYTES: u16 = 0xb1;
        const IF_EQUAL: u16 = 0x15;
        const IF_AT_LEAST: u16 = 0x35;
        const IF_ANY_BIT: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const SHORTEST: u32 = 20 + 8 + 4;
        if self.senders.len() > SENDERS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (pass, drop) = match side {
            Side::Matching => (u32::MAX, 0),
            Side::Rejected => (0, u32::MAX),
        };
        let version_type = u32::from(self.version << 4 | 1);
        // (load, test, constant, whether the test must hold)
        let tests = [
            (LOAD_WORD, 16, IF_EQUAL, u32::from(self.destination), true),
            (LOAD_BYTE, 8, IF_AT_LEAST, u32::from(self.min_ttl), true),
            (LOAD_HALF, 6, IF_ANY_BIT, 0x3fff, false),
            (LOAD_HALF, 2, IF_AT_LEAST, SHORTEST, true),
            (LOAD_BYTE_AT_X, 0, IF_EQUAL, version_type, true),
            (LOAD_BYTE_AT_X, 1, IF_EQUAL, u32::from(self.vrid), true),
        ];
        let length = 1 + 2 * tests.len() + 1 + self.senders.len();
        let jump = |from: usize, to: usize| {
            u8::try_from(to - from - 1).map_err(|_far| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let mut program = vec![SockFilter::new(LOAD_X_HEADER_BYTES, 0, 0, 0)];
        for (load, offset, test, constant, must_hold) in tests {
            program.push(SockFilter::new(load, 0, 0, offset));
            let out = jump(program.len(), length)?;
            let (jt, jf) = if must_hold { (0, out) } else { (out, 0) };
            program.push(SockFilter::new(test, jt, jf, constant));
        }
        program.push(SockFilter::new(LOAD_WORD, 0, 0, 12));
        for sender in &self.senders {
            let found = jump(program.len(), length + 1)?;
            program.push(SockFilter::new(IF_EQUAL, found, 0, u32::from(*sender)));
        }
        program.push(SockFilter::new(RETURN, 0, 0, drop));
        program.push(SockFilter::new(RETURN, 0, 0, pass));
        Ok(program)
    }
}

/// Sends adverts.
#[derive(Debug)]
pub struct Sender(Socket);

impl Sender {
    /// A socket that sends from `source` through `interface` with TTL 255 and receives nothing.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed, `source` must be an address of this host).
    pub fn open(interface: &str, source: Ipv4Addr) -> io::Result<Self> {
        let socket = raw()?;
        socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&address(source))?;
        socket.set_ttl_v4(255)?;
        socket.set_tos_v4(TOS)?;
        socket.set_multicast_ttl_v4(255)?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_multicast_if_v4(&source)?;
        Ok(Self(socket))
    }

    /// Sends one advert.
    ///
    /// # Errors
    /// What the kernel says; a full send buffer is an error too.
    pub fn send(&self, advert: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        self.0.send_to(advert, &address(destination)).map(|_| ())
    }
}

/// Receives adverts, IPv4 header first.
#[derive(Debug)]
pub struct Receiver(Socket);

impl Receiver {
    /// A socket on `interface` that sees one side of `filter`; it joins the destination if that is
    /// a group.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(interface: &str, index: u32, filter: &Filter, side: Side) -> io::Result<Self> {
        let socket = raw()?;
        // First the filter, then the device: nothing slips in between.
        socket.attach_filter(&filter.program(side)?)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        if side == Side::Rejected {
            socket.set_recv_buffer_size(DIAGNOSTIC_BYTES)?;
        }
        if filter.destination.is_multicast() {
            let link = InterfaceIndexOrAddress::Index(index);
            socket.join_multicast_v4_n(&filter.destination, &link)?;
        }
        Ok(Self(socket))
    }

    /// Reads one packet into `buffer`; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.0).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn raw() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(PROTOCOL)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn address(ip: Ipv4Addr) -> SockAddr {
    SockAddr::from(SocketAddr::V4(SocketAddrV4::new(ip, 0)))
}
