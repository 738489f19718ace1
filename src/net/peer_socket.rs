//! UDP sockets of the channel between nodes.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Internet control, as adverts have it.
const TOS: u32 = 0xc0;
/// Receive buffer: what a node with many clients tells in one go, twice.
const RECEIVE_BYTES: usize = 128 * 1024;

/// A socket on one of this node's own addresses.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UdpSocket,
    port: u16,
    scope: u32,
}

impl PeerSocket {
    /// Binds to `own` at `port`. `interface` is where link-local addresses are.
    ///
    /// # Errors
    /// What the kernel says: the port is taken, or the address not here.
    pub fn open(own: IpAddr, interface: &str, port: u16) -> io::Result<Self> {
        let scope = match own {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                nix::net::if_::if_nametoindex(interface)?
            }
            IpAddr::V4(_) | IpAddr::V6(_) => 0,
        };
        let domain = if own.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if own.is_ipv4() {
            socket.set_tos_v4(TOS)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(TOS)?;
        }
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        socket.set_nonblocking(true)?;
        socket.bind(&scoped(own, port, scope).into())?;
        Ok(Self {
            socket: socket.into(),
            port,
            scope,
        })
    }

    /// Sends one message to another node.
    ///
    /// # Errors
    /// What the kernel says; a full send buffer is an error too.
    pub fn send(&self, message: &[u8], to: IpAddr) -> io::Result<()> {
        let to = scoped(to, self.port, self.scope);
        self.socket.send_to(message, to).map(|_| ())
    }

    /// Reads one message; what is longer than `buffer` is cut off. `None`: nothing is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, IpAddr)>> {
        match self.socket.recv_from(buffer) {
            Ok((length, from)) => Ok(Some((length, from.ip().to_canonical()))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn scoped(address: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, scope).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
    }
}

impl AsFd for PeerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_sender() {
        for (one, other) in [("127.0.0.1", "127.0.0.2"), ("::1", "::1")] {
            let one: IpAddr = one.parse().unwrap();
            let other: IpAddr = other.parse().unwrap();
            let a = PeerSocket::open(one, "lo", 0).unwrap();
            let port = a.socket.local_addr().unwrap().port();
            let mut buffer = [0; 8];
            assert!(a.receive(&mut buffer).unwrap().is_none());
            if one == other {
                a.send(b"hello", one).unwrap_err();
                let b = UdpSocket::bind((other, 0)).unwrap();
                b.send_to(b"hello", (one, port)).unwrap();
            } else {
                let b = PeerSocket::open(other, "lo", port).unwrap();
                b.send(b"hello", one).unwrap();
            }
            let got = a.receive(&mut buffer).unwrap();
            assert_eq!(got, Some((5, other)));
            assert_eq!(buffer[..5], *b"hello");
        }
    }
}
