//! One IP packet of protocol 112, reduced to what matters, and the IPv4 header it is read from.
//! IPv6 raw sockets hand over no header: there its parts come from the kernel's side information.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr};

use super::{PROTOCOL, Reject};

/// A received packet of protocol 112.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Time to live, or hop limit, as received.
    pub ttl: u8,
    /// What the IP header is followed by: an advert, if it is one, and nothing of the link's padding.
    pub payload: &'a [u8],
}

/// Reads an IPv4 packet and exactly the payload its total length announces; bytes after that are
/// Ethernet padding and dropped.
///
/// # Errors
/// [`Reject::IpHeader`], [`Reject::Fragment`] or [`Reject::Protocol`].
pub fn split_ipv4(packet: &[u8]) -> Result<Datagram<'_>, Reject> {
    let fixed: &[u8; 20] = packet.first_chunk().ok_or(Reject::IpHeader)?;
    let [
        version_ihl,
        _tos,
        len_hi,
        len_lo,
        _id_hi,
        _id_lo,
        frag_hi,
        frag_lo,
        ttl,
        protocol,
        _sum_hi,
        _sum_lo,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = *fixed;
    let header_bytes = usize::from(version_ihl & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([len_hi, len_lo]));
    if version_ihl >> 4 != 4 || header_bytes < fixed.len() {
        return Err(Reject::IpHeader);
    }
    let payload = packet.get(header_bytes..total).ok_or(Reject::IpHeader)?;
    if u16::from_be_bytes([frag_hi, frag_lo]) & 0x3fff != 0 {
        return Err(Reject::Fragment);
    }
    if protocol != PROTOCOL {
        return Err(Reject::Protocol);
    }
    Ok(Datagram {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        ttl,
        payload,
    })
}
