//! Ports for programs that tests start, and ports that refuse. A port that was bound and let go may
//! become another case's, or a connection's own end, before the program asks for it.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "each test program uses it in its own way"
)]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::IntoRawFd;

use socket2::{Domain, Socket, Type};

/// An address of `127.0.0.1` as [`held_at`] gives it.
pub fn held() -> SocketAddr {
    held_at("127.0.0.1")
}

/// An address of `ip`, IPv6 with or without brackets, that refuses connections until somebody
/// listens at just this port, with SO_REUSEADDR
/// as lbd, HAProxy and the standard library do. The kernel gives the port to nobody else for as
/// long as the test program runs.
pub fn held_at(ip: &str) -> SocketAddr {
    let ip = ip.trim_matches(['[', ']']).parse::<IpAddr>().unwrap();
    let any = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    // Stays bound, and never listens.
    let _until_the_end = socket.into_raw_fd();
    addr
}
