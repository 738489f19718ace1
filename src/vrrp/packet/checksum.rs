//! The Internet checksum over an advert, with and without the pseudo-header of its IP packet.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::net::IpAddr;

use super::PROTOCOL;
use crate::units::Version;

/// Whether `advert`, its checksum field included, has one of the sums that are accepted: version 2
/// over the message alone; version 3 over IPv4 with the pseudo-header or without; version 3 over
/// IPv6 with the pseudo-header and the trailer behind the advert.
pub(super) fn is_right(
    version: Version,
    (advert, trailer): (&[u8], &[u8]),
    source: IpAddr,
    destination: IpAddr,
) -> bool {
    let message = add(0, advert);
    let alone = fold(message) == 0xffff;
    let (behind, length) = match source {
        IpAddr::V4(_) => (0, advert.len()),
        IpAddr::V6(_) => (add(0, trailer), advert.len() + trailer.len()),
    };
    let with_header =
        || fold(message + behind + pseudo_header(source, destination, length)) == 0xffff;
    match version {
        Version::V2 => alone,
        Version::V3 => with_header() || (alone && source.is_ipv4()),
    }
}

/// The value of the checksum field of `advert`, in which that field is zero.
pub(super) fn of(version: Version, advert: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let header = match version {
        Version::V2 => 0,
        // TODO-correctness(RFC 9568 §5.2.8): there IPv4 has no pseudo-header.
        Version::V3 => pseudo_header(source, destination, advert.len()),
    };
    !fold(header + add(0, advert))
}

/// Sum of the pseudo-header (RFC 793 §3.1, RFC 8200 §8.1) for a VRRP message of `length` bytes.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u64 {
    let length = u64::try_from(length).unwrap_or(u64::MAX >> 32);
    let address = |start, ip| match ip {
        IpAddr::V4(ip) => add(start, &ip.octets()),
        IpAddr::V6(ip) => add(start, &ip.octets()),
    };
    address(address(0, source), destination) + u64::from(PROTOCOL) + length
}

/// Adds 16-bit big-endian words; an odd last byte counts as the high half of a word.
fn add(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words
        .iter()
        .map(|word| u64::from(u16::from_be_bytes(*word)))
        .sum::<u64>();
    let odd = rest.first().map_or(0, |last| u64::from(*last) << 8);
    start + sum + odd
}

/// One's complement folding to 16 bits (RFC 1071 §4.1).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
