//! Adverts on the wire: VRRPv2 (RFC 3768 §5, RFC 2338 §5.3.6 for the password) and VRRPv3 over
//! IPv4 (RFC 9568 §5), and the IPv4 header before them. Pure: bytes in, values out; what the
//! configuration says about a value is judged in `validate`, not here.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

use crate::units::{AdvertInterval, Version, Vrid};

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// The group VRRP routers listen to (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Fixed part of every advert, bytes.
pub const HEADER_BYTES: usize = 8;
/// The authentication data that ends every version 2 advert, bytes.
pub const AUTH_BYTES: usize = 8;
/// The longest advert: 255 addresses and authentication data.
pub const ADVERT_BYTES_MAX: usize = HEADER_BYTES + 255 * 4 + AUTH_BYTES;

const TYPE_ADVERTISEMENT: u8 = 1;
const AUTH_TYPE_NONE: u8 = 0;
const AUTH_TYPE_PASS: u8 = 1;

/// Why a packet is no advert for us. Each has a constant [word](Reject::word) for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.word())]
pub enum Reject {
    /// Shorter than its IPv4 header says, or no IPv4 header at all.
    IpHeader,
    /// A fragment: adverts never need one.
    Fragment,
    /// Another IP protocol.
    Protocol,
    /// From an address that is not among `nodes`.
    UnknownSender,
    /// From our own address: a loop, or a node with our address.
    OwnAddress,
    /// To a group where unicast is configured, or the other way round.
    Destination,
    /// TTL below 255, or below the node's `min-ttl`: it crossed a router (RFC 9568 §5.1.1.3).
    Ttl,
    /// Shorter than the fixed part.
    Truncated,
    /// A version that is neither 2 nor 3, or not the configured one.
    Version,
    /// A type other than ADVERTISEMENT.
    Type,
    /// Another virtual router's, or 0.
    Vrid,
    /// Not exactly as long as its address count says.
    Length,
    /// Wrong checksum.
    Checksum,
    /// Another authentication than configured; also an HMAC trailer where none is.
    AuthType,
    /// Wrong password.
    AuthData,
    /// An interval of 0, or in version 2 one that differs from ours.
    Interval,
    /// No address in it.
    NoAddress,
    /// No HMAC trailer where one is demanded.
    HmacMissing,
    /// An HMAC trailer of another type, or with something in its reserved bytes.
    HmacForm,
    /// Signed with a key whose id is not configured.
    HmacKey,
    /// A wrong HMAC: another key under the same id, or a forgery.
    HmacDigest,
    /// A right HMAC whose time is too far from ours: clocks apart, or an old advert sent again.
    HmacClock,
    /// A right HMAC, no newer than one that was already accepted.
    HmacReplay,
}

impl Reject {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 23] = [
        Self::IpHeader,
        Self::Fragment,
        Self::Protocol,
        Self::UnknownSender,
        Self::OwnAddress,
        Self::Destination,
        Self::Ttl,
        Self::Truncated,
        Self::Version,
        Self::Type,
        Self::Vrid,
        Self::Length,
        Self::Checksum,
        Self::AuthType,
        Self::AuthData,
        Self::Interval,
        Self::NoAddress,
        Self::HmacMissing,
        Self::HmacForm,
        Self::HmacKey,
        Self::HmacDigest,
        Self::HmacClock,
        Self::HmacReplay,
    ];

    /// The reason as a counter label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::IpHeader => "ip-header",
            Self::Fragment => "fragment",
            Self::Protocol => "protocol",
            Self::UnknownSender => "unknown-sender",
            Self::OwnAddress => "own-address",
            Self::Destination => "destination",
            Self::Ttl => "ttl",
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::Type => "type",
            Self::Vrid => "vrid",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::AuthType => "auth-type",
            Self::AuthData => "auth-data",
            Self::Interval => "interval",
            Self::NoAddress => "no-address",
            Self::HmacMissing => "hmac-missing",
            Self::HmacForm => "hmac-form",
            Self::HmacKey => "hmac-key",
            Self::HmacDigest => "hmac-digest",
            Self::HmacClock => "hmac-clock",
            Self::HmacReplay => "hmac-replay",
        }
    }
}

/// What a version 2 advert carries as authentication; version 3 has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireAuth {
    /// Type 0; its data is zero when sent and ignored when received (RFC 3768 §5.3.10).
    None,
    /// Type 1: the password in clear, padded with zeros.
    Pass([u8; AUTH_BYTES]),
}

/// One advert, borrowed from its bytes when received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement<'a> {
    /// 2 or 3.
    pub version: Version,
    /// `Virtual Rtr ID`.
    pub vrid: Vrid,
    /// 0 resigns, 255 is the address owner.
    pub priority: u8,
    /// `Max Advertise Interval`; whole seconds in version 2.
    pub interval: AdvertInterval,
    /// The virtual addresses, 1…255 of them.
    pub addresses: &'a [[u8; 4]],
    /// [`WireAuth::None`] in version 3.
    pub auth: WireAuth,
}

/// An advert that the wire cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// No address, or more than 255.
    #[error("an advert carries 1 to 255 addresses")]
    Addresses,
    /// An interval the version has no field for.
    #[error("the interval does not fit the version")]
    Interval,
}

/// The parts of an IPv4 header that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Time to live as received.
    pub ttl: u8,
}

/// Splits an IPv4 packet into its header and exactly the payload its total length announces;
/// bytes after that are Ethernet padding and dropped.
///
/// # Errors
/// [`Reject::IpHeader`], [`Reject::Fragment`] or [`Reject::Protocol`].
pub fn split_ipv4(packet: &[u8]) -> Result<(Ipv4Header, &[u8]), Reject> {
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
    let header = Ipv4Header {
        source: Ipv4Addr::new(s0, s1, s2, s3),
        destination: Ipv4Addr::new(d0, d1, d2, d3),
        ttl,
    };
    Ok((header, payload))
}

impl<'a> Advertisement<'a> {
    /// Reads an advert that came from `source` to `destination`.
    ///
    /// The version 3 checksum is accepted with the pseudo-header of the real destination
    /// (keepalived, RFC 5798) or over the message alone (RFC 9568 §5.2.8); nothing is learned from
    /// which one it was. The form over 224.0.0.18 for a unicast packet is refused.
    ///
    /// # Errors
    /// The first [`Reject`] that applies.
    pub fn decode(
        bytes: &'a [u8],
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Result<Self, Reject> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Reject::Truncated)?;
        let [version_type, vrid, priority, count, fifth, sixth, ..] = *header;
        let version = match version_type >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            _ => return Err(Reject::Version),
        };
        if version_type & 0x0f != TYPE_ADVERTISEMENT {
            return Err(Reject::Type);
        }
        let vrid = Vrid::try_from(i64::from(vrid)).map_err(|_zero| Reject::Vrid)?;
        let (list, trailer) = rest
            .split_at_checked(usize::from(count) * 4)
            .ok_or(Reject::Length)?;
        let wanted_trailer = match version {
            Version::V2 => AUTH_BYTES,
            Version::V3 => 0,
        };
        if trailer.len() != wanted_trailer {
            return Err(Reject::Length);
        }
        if !checksum_is_right(version, bytes, source, destination) {
            return Err(Reject::Checksum);
        }
        let (auth, interval) = match version {
            Version::V2 => (
                decode_auth(fifth, trailer)?,
                AdvertInterval::from_wire_v2(sixth),
            ),
            Version::V3 => (
                WireAuth::None,
                // The upper nibble is reserved: ignored on receipt (RFC 9568 §5.2.6).
                AdvertInterval::from_wire_v3(u16::from_be_bytes([fifth & 0x0f, sixth])),
            ),
        };
        let (addresses, _none) = list.as_chunks::<4>();
        if addresses.is_empty() {
            return Err(Reject::NoAddress);
        }
        Ok(Self {
            version,
            vrid,
            priority,
            interval: interval.ok_or(Reject::Interval)?,
            addresses,
            auth,
        })
    }

    /// Writes the advert for `destination` into `out`, replacing what is there. Version 3 is summed
    /// with the pseudo-header of the real destination, as keepalived demands.
    ///
    /// # Errors
    /// [`EncodeError`] when no such packet exists.
    pub fn encode(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let count = u8::try_from(self.addresses.len())
            .ok()
            .filter(|count| *count > 0)
            .ok_or(EncodeError::Addresses)?;
        let centiseconds = self.interval.centiseconds();
        let (fifth, sixth) = match (self.version, self.auth) {
            (Version::V2, auth) => {
                let seconds = u8::try_from(centiseconds / 100)
                    .ok()
                    .filter(|_| centiseconds.is_multiple_of(100))
                    .ok_or(EncodeError::Interval)?;
                let kind = match auth {
                    WireAuth::None => AUTH_TYPE_NONE,
                    WireAuth::Pass(_) => AUTH_TYPE_PASS,
                };
                (kind, seconds)
            }
            (Version::V3, _) if centiseconds > 0x0fff => return Err(EncodeError::Interval),
            (Version::V3, _) => {
                let [hi, lo] = centiseconds.to_be_bytes();
                (hi, lo)
            }
        };
        out.clear();
        out.extend_from_slice(&[
            (self.version.get() << 4) | TYPE_ADVERTISEMENT,
            self.vrid.get(),
            self.priority,
            count,
            fifth,
            sixth,
            0,
            0,
        ]);
        out.extend_from_slice(self.addresses.as_flattened());
        match (self.version, self.auth) {
            (Version::V2, WireAuth::None) => out.extend_from_slice(&[0; AUTH_BYTES]),
            (Version::V2, WireAuth::Pass(data)) => out.extend_from_slice(&data),
            (Version::V3, WireAuth::None | WireAuth::Pass(_)) => {}
        }
        let sum = match self.version {
            Version::V2 => add(0, out),
            // TODO-correctness(RFC 9568 §5.2.8): there IPv4 has no pseudo-header.
            Version::V3 => pseudo_header(source, destination, out.len()) + add(0, out),
        };
        if let Some(field) = out.get_mut(6..8) {
            field.copy_from_slice(&(!fold(sum)).to_be_bytes());
        }
        Ok(())
    }
}

fn decode_auth(kind: u8, data: &[u8]) -> Result<WireAuth, Reject> {
    match kind {
        AUTH_TYPE_NONE => Ok(WireAuth::None),
        AUTH_TYPE_PASS => data
            .first_chunk()
            .map(|data| WireAuth::Pass(*data))
            .ok_or(Reject::Length),
        _ => Err(Reject::AuthType),
    }
}

fn checksum_is_right(
    version: Version,
    bytes: &[u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> bool {
    let message = add(0, bytes);
    match version {
        Version::V2 => fold(message) == 0xffff,
        Version::V3 => {
            fold(message) == 0xffff
                || fold(message + pseudo_header(source, destination, bytes.len())) == 0xffff
        }
    }
}

/// Sum of the IPv4 pseudo-header (RFC 793 §3.1) for a VRRP message of `length` bytes.
fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> u64 {
    let length = u64::try_from(length).unwrap_or(u64::MAX >> 32);
    add(add(0, &source.octets()), &destination.octets()) + u64::from(PROTOCOL) + length
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

#[cfg(test)]
mod tests;
