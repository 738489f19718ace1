//! Listening sockets: groups of them on one port, and whether a port is taken.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model::Listen;

/// Connections the kernel holds for one listening socket before anybody accepts them.
const BACKLOG: i32 = 4096;

/// A listening socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket, of this or another process, holds the port.
    #[error("{listen} is held by another process")]
    InUse {
        /// Where.
        listen: Listen,
    },
    /// Anything else the kernel said.
    #[error("cannot listen on {listen}")]
    Kernel {
        /// Where.
        listen: Listen,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// `count` listening sockets of one SO_REUSEPORT group, non-blocking. The first is bound without
/// the option, so that a port held by another process (or by another lbd) is refused rather than
/// shared.
///
/// # Errors
/// [`ListenError`].
pub fn listener_group(listen: Listen, count: usize) -> Result<Vec<OwnedFd>, ListenError> {
    group(listen, count, false)
}

/// The same beside sockets of this user on the same port at other addresses, of such a group, too.
///
/// # Errors
/// [`ListenError`].
pub fn listener_group_beside(listen: Listen, count: usize) -> Result<Vec<OwnedFd>, ListenError> {
    group(listen, count, true)
}

fn group(listen: Listen, count: usize, beside: bool) -> Result<Vec<OwnedFd>, ListenError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::InUse { listen }
        } else {
            ListenError::Kernel { listen, source }
        }
    };
    let (addr, first) = match listen {
        Listen::Addr(addr) => (addr, bound(addr, beside).map_err(failed)?),
        Listen::Any(port) => any(port, beside).map_err(failed)?,
    };
    let mut group = Vec::with_capacity(count.max(1));
    // Before listen(): the kernel forms the group there.
    first.set_reuse_port(true).map_err(failed)?;
    first.listen(BACKLOG).map_err(failed)?;
    let addr = match first.local_addr().map_err(failed)?.as_socket() {
        Some(local) => local,
        None => addr,
    };
    group.push(OwnedFd::from(first));
    while group.len() < count {
        let next = bound(addr, true).map_err(failed)?;
        next.listen(BACKLOG).map_err(failed)?;
        group.push(OwnedFd::from(next));
    }
    Ok(group)
}

/// Whether a socket holds the port there, so that [`listener_group`] would be refused it. Nothing
/// listens in the meantime.
#[must_use]
pub fn is_held(listen: Listen) -> bool {
    let tried = match listen {
        Listen::Addr(addr) => bound(addr, false).map(drop),
        Listen::Any(port) => any(port, false).map(drop),
    };
    tried.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// One dual-stack socket, or IPv4 alone where the kernel has no IPv6.
fn any(port: u16, beside: bool) -> io::Result<(SocketAddr, Socket)> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match bound(v6, beside) {
        Ok(socket) => Ok((v6, socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => Ok((v4, bound(v4, beside)?)),
    }
}

fn bound(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    // Connections of an earlier process in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    match addr {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(v6) => {
            socket.set_only_v6(!v6.ip().is_unspecified())?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
