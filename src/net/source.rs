//! The address a socket connects from: a local one, or any at all where the process may. Which one
//! is right is decided elsewhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{IpBindAddressNoPort, IpTransparent};
use socket2::SockRef;

use super::tcp;

/// Binds a socket that is to connect to this local address. The port is chosen at connect, so that
/// one serves for connections to several destinations (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2).
///
/// # Errors
/// The kernel's; "address not available" when it is not on this machine.
pub fn bind(fd: impl AsFd, ip: IpAddr) -> io::Result<()> {
    setsockopt(&fd, IpBindAddressNoPort, &true)?;
    SockRef::from(&fd).bind(&SocketAddr::new(ip, 0).into())
}

/// The same with an address of any machine; the answers have to be routed here.
///
/// # Errors
/// The kernel's; "operation not permitted" without CAP_NET_RAW.
pub fn bind_foreign(fd: impl AsFd, ip: IpAddr) -> io::Result<()> {
    // An IPv6 socket takes it too: the kernel keeps one flag for both families.
    setsockopt(&fd, IpTransparent, &true)?;
    bind(fd, ip)
}

/// Tries [`bind_foreign`] without an effect.
///
/// # Errors
/// As there.
pub fn try_foreign() -> io::Result<()> {
    let fd = tcp::stream_socket((Ipv4Addr::UNSPECIFIED, 0).into())?;
    Ok(setsockopt(&fd, IpTransparent, &true)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_bound_socket_connects_from_its_address_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let fd = tcp::stream_socket(server).unwrap();
        bind(&fd, "127.0.0.77".parse().unwrap()).unwrap();
        let mut ports = Vec::new();
        for _ in 0..3 {
            tcp::connect(&fd, server).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.77");
            ports.push(peer.port());
            drop(accepted);
            tcp::disconnect(&fd).unwrap();
        }
        assert!(!ports.contains(&0), "{ports:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let fd = tcp::stream_socket("192.0.2.1:1".parse().unwrap()).unwrap();
        let error = bind(&fd, "192.0.2.77".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
