//! Adverts on the wire: VRRPv2 (RFC 3768 §5, RFC 2338 §5.3.6 for the password) and VRRPv3 over
//! IPv4 and IPv6 (RFC 9568 §5), and the IP packet around them. Pure: bytes in, values out; what
//! the configuration says about a value is judged in `validate`, not here.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod checksum;
mod datagram;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use datagram::{Datagram, split_ipv4};

use crate::units::{AdvertInterval, Version, Vrid};

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// The group VRRP routers listen to over IPv4 (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The group they listen to over IPv6 (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Fixed part of every advert, bytes.
pub const HEADER_BYTES: usize = 8;
/// The authentication data that ends every version 2 advert, bytes.
pub const AUTH_BYTES: usize = 8;
/// The longest advert: 255 IPv6 addresses.
pub const ADVERT_BYTES_MAX: usize = HEADER_BYTES + 255 * 16;

const TYPE_ADVERTISEMENT: u8 = 1;
const AUTH_TYPE_NONE: u8 = 0;
const AUTH_TYPE_PASS: u8 = 1;

/// Why a packet is no advert for us. Each has a constant [word](Reject::word) for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.word())]
pub enum Reject {
    /// Shorter than its IPv4 header says, or no IPv4 header at all; over IPv6, of unknown destination
    /// or hop limit.
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
    /// TTL or hop limit below 255, or below the node's `min-ttl`: it crossed a router (RFC 9568
    /// §5.1.1.3, §5.1.2.3).
    Ttl,
    /// Shorter than the fixed part.
    Truncated,
    /// A version that is neither 2 nor 3, or not the configured one; version 2 over IPv6.
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

/// The virtual addresses of an advert, all of one family, as they stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses<'a> {
    /// IPv4.
    V4(&'a [[u8; 4]]),
    /// IPv6.
    V6(&'a [[u8; 16]]),
}

impl<'a> Addresses<'a> {
    /// How many there are.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::V4(list) => list.len(),
            Self::V6(list) => list.len(),
        }
    }

    /// Whether both list the same addresses, in any order.
    #[must_use]
    pub fn same_set(self, other: Self) -> bool {
        fn same<T: PartialEq>(ours: &[T], theirs: &[T]) -> bool {
            ours.len() == theirs.len() && theirs.iter().all(|address| ours.contains(address))
        }
        match (self, other) {
            (Self::V4(ours), Self::V4(theirs)) => same(ours, theirs),
            (Self::V6(ours), Self::V6(theirs)) => same(ours, theirs),
            (Self::V4(_), Self::V6(_)) | (Self::V6(_), Self::V4(_)) => false,
        }
    }

    /// Their bytes, one after the other.
    const fn bytes(self) -> &'a [u8] {
        match self {
            Self::V4(list) => list.as_flattened(),
            Self::V6(list) => list.as_flattened(),
        }
    }
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
    /// The virtual addresses, 1…255 of them; of the family the advert travels over.
    pub addresses: Addresses<'a>,
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
    /// Addresses of one family over the other, or IPv6 in version 2.
    #[error("the addresses' family does not fit")]
    Family,
}

impl<'a> Advertisement<'a> {
    /// Reads an advert that came from `source` to `destination`: exactly these bytes. What may
    /// follow an advert is to be cut off before.
    ///
    /// The version 3 checksum over IPv4 is accepted with the pseudo-header of the real destination
    /// (keepalived, RFC 5798) or over the message alone (RFC 9568 §5.2.8); nothing is learned from
    /// which one it was. The form over 224.0.0.18 for a unicast packet is refused. Over IPv6 the
    /// pseudo-header always counts.
    ///
    /// # Errors
    /// The first [`Reject`] that applies.
    pub fn decode(bytes: &'a [u8], source: IpAddr, destination: IpAddr) -> Result<Self, Reject> {
        Self::decode_before(bytes, &[], source, destination)
    }

    /// The same of an advert that `trailer` follows in its packet: over IPv6 the checksum covers
    /// both, as that of any transport does (draft-cassen-vrrp-auth-hmac); over IPv4 it doesn't.
    ///
    /// # Errors
    /// The first [`Reject`] that applies.
    pub fn decode_before(
        bytes: &'a [u8],
        trailer: &[u8],
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Self, Reject> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Reject::Truncated)?;
        let [version_type, vrid, priority, count, fifth, sixth, ..] = *header;
        // Version 2 is for IPv4 alone.
        let version = match (version_type >> 4, source) {
            (2, IpAddr::V4(_)) => Version::V2,
            (3, IpAddr::V4(_) | IpAddr::V6(_)) => Version::V3,
            (_, IpAddr::V4(_) | IpAddr::V6(_)) => return Err(Reject::Version),
        };
        if version_type & 0x0f != TYPE_ADVERTISEMENT {
            return Err(Reject::Type);
        }
        let vrid = Vrid::try_from(i64::from(vrid)).map_err(|_zero| Reject::Vrid)?;
        let each = if source.is_ipv4() { 4 } else { 16 };
        let (list, auth) = rest
            .split_at_checked(usize::from(count) * each)
            .ok_or(Reject::Length)?;
        let wanted_auth = match version {
            Version::V2 => AUTH_BYTES,
            Version::V3 => 0,
        };
        if auth.len() != wanted_auth {
            return Err(Reject::Length);
        }
        if !checksum::is_right(version, (bytes, trailer), source, destination) {
            return Err(Reject::Checksum);
        }
        let (auth, interval) = match version {
            Version::V2 => (
                decode_auth(fifth, auth)?,
                AdvertInterval::from_wire_v2(sixth),
            ),
            Version::V3 => (
                WireAuth::None,
                // The upper nibble is reserved: ignored on receipt (RFC 9568 §5.2.6).
                AdvertInterval::from_wire_v3(u16::from_be_bytes([fifth & 0x0f, sixth])),
            ),
        };
        let addresses = match source {
            IpAddr::V4(_) => Addresses::V4(list.as_chunks().0),
            IpAddr::V6(_) => Addresses::V6(list.as_chunks().0),
        };
        if addresses.count() == 0 {
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
        source: IpAddr,
        destination: IpAddr,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        match (self.addresses, source, destination, self.version) {
            (Addresses::V4(_), IpAddr::V4(_), IpAddr::V4(_), Version::V2 | Version::V3)
            | (Addresses::V6(_), IpAddr::V6(_), IpAddr::V6(_), Version::V3) => {}
            (Addresses::V4(_) | Addresses::V6(_), _, _, Version::V2 | Version::V3) => {
                return Err(EncodeError::Family);
            }
        }
        let count = u8::try_from(self.addresses.count())
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
        out.extend_from_slice(self.addresses.bytes());
        match (self.version, self.auth) {
            (Version::V2, WireAuth::None) => out.extend_from_slice(&[0; AUTH_BYTES]),
            (Version::V2, WireAuth::Pass(data)) => out.extend_from_slice(&data),
            (Version::V3, WireAuth::None | WireAuth::Pass(_)) => {}
        }
        let sum = checksum::of(self.version, out, source, destination);
        set_checksum(out, sum);
        Ok(())
    }
}

/// Sums an advert anew that a trailer was put behind, where the checksum covers that: over IPv6.
pub fn cover_trailer(packet: &mut [u8], source: IpAddr, destination: IpAddr) {
    if source.is_ipv4() {
        return;
    }
    set_checksum(packet, 0);
    let sum = checksum::of(Version::V3, packet, source, destination);
    set_checksum(packet, sum);
}

fn set_checksum(advert: &mut [u8], sum: u16) {
    if let Some(field) = advert.get_mut(6..8) {
        field.copy_from_slice(&sum.to_be_bytes());
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod v6_tests;
