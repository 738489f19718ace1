//! The PROXY protocol: a header in front of a connection's bytes that says who the client is. Both
//! versions, both ways (HAProxy's proxy-protocol.txt). Pure: bytes in, a value out.
//!
//! A header may arrive in any number of pieces: [`decode`] is given all that came so far, and says
//! what it is, or that more must come. What can no longer become a header is refused at once.

mod v1;
mod v2;

use std::net::SocketAddr;

use crate::config::model::HeaderVersion;

#[cfg(test)]
mod tests;

/// The longest header that is read, bytes: addresses and what senders add to them in practice
/// (names, TLS facts). The protocol allows 65,551.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is the sender's own, such as a health check, or it knows no more than its
    /// socket does: the socket's addresses hold.
    Own,
    /// The connection was made on behalf of somebody. IPv4 addresses are never mapped ones.
    Proxied {
        /// Who connected.
        client: SocketAddr,
        /// Where to.
        local: SocketAddr,
    },
}

/// A header that has arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// What it says.
    pub header: Header,
    /// Its length, bytes; what follows belongs to the connection.
    pub len: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// They begin differently: the sender sends no header.
    #[error("it does not begin with a header")]
    Missing,
    /// They begin like one and break a rule.
    #[error("malformed header: {0}")]
    Malformed(&'static str),
    /// It is longer than [`HEADER_BYTES_MAX`], or its version 1 line than 107 bytes.
    #[error("the header is too long")]
    TooLong,
}

/// The header that `bytes` begin with; `None`: so far it could be one, more must come.
///
/// # Errors
/// [`Refusal`].
pub fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Refusal> {
    if begins(bytes, v2::SIGNATURE) {
        v2::decode(bytes)
    } else if begins(bytes, v1::SIGNATURE) {
        v1::decode(bytes)
    } else {
        Err(Refusal::Missing)
    }
}

/// Whether the bytes begin with the signature, or may yet.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let len = bytes.len().min(signature.len());
    bytes.get(..len) == signature.get(..len)
}

/// A header for a connection from `client` to `local`.
#[must_use]
pub fn encode(version: HeaderVersion, client: SocketAddr, local: SocketAddr) -> Box<[u8]> {
    match version {
        HeaderVersion::V1 => v1::encode(client, local),
        HeaderVersion::V2 => v2::encode(client, local),
    }
}

/// A header for a connection of our own, such as a health check.
#[must_use]
pub const fn own(version: HeaderVersion) -> &'static [u8] {
    match version {
        HeaderVersion::V1 => v1::UNKNOWN,
        HeaderVersion::V2 => &v2::LOCAL,
    }
}

/// Both addresses in one family; an IPv4 one becomes mapped if the other is IPv6.
enum Pair {
    V4(std::net::SocketAddrV4, std::net::SocketAddrV4),
    V6(std::net::SocketAddrV6, std::net::SocketAddrV6),
}

impl Pair {
    fn new(client: SocketAddr, local: SocketAddr) -> Self {
        match (canonical(client), canonical(local)) {
            (SocketAddr::V4(client), SocketAddr::V4(local)) => Self::V4(client, local),
            (client, local) => Self::V6(as_v6(client), as_v6(local)),
        }
    }
}

fn as_v6(addr: SocketAddr) -> std::net::SocketAddrV6 {
    match addr {
        SocketAddr::V4(v4) => {
            std::net::SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)
        }
        SocketAddr::V6(v6) => v6,
    }
}

/// A mapped IPv4 address as what it is.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
