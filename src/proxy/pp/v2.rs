//! Version 2: a binary header, addresses, and values (TLVs) that are skipped. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Decoded, HEADER_BYTES_MAX, Header, Pair, Refusal, canonical};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a connection without a client begins with.
pub(super) const LOCAL: [u8; FIXED_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;
const INET_BYTES: usize = 12;
const INET6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;
/// The TLV with a checksum over the whole header, its own value taken as zero.
const TLV_CRC32C: u8 = 0x03;

const CUT: Refusal = Refusal::Malformed("shorter than its addresses");

pub(super) fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Refusal> {
    let Some(&command) = bytes.get(12) else {
        return Ok(None);
    };
    if command >> 4 != 2 {
        return Err(Refusal::Malformed("neither version 1 nor 2"));
    }
    let local = match command & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(Refusal::Malformed("neither PROXY nor LOCAL")),
    };
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    // A LOCAL header's family is to be ignored.
    if !local && (family >> 4 > 3 || family & 0x0f > 2) {
        return Err(Refusal::Malformed("no such address family or protocol"));
    }
    let (Some(&high), Some(&low)) = (bytes.get(14), bytes.get(15)) else {
        return Ok(None);
    };
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > HEADER_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let needed = if local { 0 } else { address_bytes(family) };
    if len < FIXED_BYTES + needed {
        return Err(CUT);
    }
    let Some(whole) = bytes.get(..len) else {
        return Ok(None);
    };
    let header = if local {
        Header::Own
    } else {
        proxied(whole, family)?
    };
    Ok(Some(Decoded { header, len }))
}

/// What the addresses of a family take.
const fn address_bytes(family: u8) -> usize {
    match family >> 4 {
        1 => INET_BYTES,
        2 => INET6_BYTES,
        3 => UNIX_BYTES,
        _ => 0,
    }
}

fn proxied(whole: &[u8], family: u8) -> Result<Header, Refusal> {
    let body = whole.get(FIXED_BYTES..).ok_or(CUT)?;
    let (header, used) = match family {
        0x11 => (inet(body.first_chunk().ok_or(CUT)?), INET_BYTES),
        0x21 => (inet6(body.first_chunk().ok_or(CUT)?), INET6_BYTES),
        // Unspecified, a Unix socket, datagrams: nothing that a TCP client's address could be.
        _ => return Ok(Header::Own),
    };
    check_values(whole, FIXED_BYTES + used)?;
    Ok(header)
}

fn inet(body: &[u8; INET_BYTES]) -> Header {
    let [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        client_high,
        client_low,
        local_high,
        local_low,
    ] = *body;
    let client_port = u16::from_be_bytes([client_high, client_low]);
    let local_port = u16::from_be_bytes([local_high, local_low]);
    Header::Proxied {
        client: (Ipv4Addr::new(a, b, c, d), client_port).into(),
        local: (Ipv4Addr::new(e, f, g, h), local_port).into(),
    }
}

fn inet6(body: &[u8; INET6_BYTES]) -> Header {
    let ip = |at: usize| {
        let octets = body.get(at..).and_then(|rest| rest.first_chunk::<16>());
        Ipv6Addr::from(octets.copied().unwrap_or_default())
    };
    let port = |at: usize| {
        let octets = body.get(at..).and_then(|rest| rest.first_chunk::<2>());
        u16::from_be_bytes(octets.copied().unwrap_or_default())
    };
    Header::Proxied {
        client: canonical((ip(0), port(32)).into()),
        local: canonical((ip(16), port(34)).into()),
    }
}

/// Walks over the values behind the addresses; a checksum among them must be right.
fn check_values(whole: &[u8], begin: usize) -> Result<(), Refusal> {
    let mut at = begin;
    while let Some(rest) = whole.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(&[kind, high, low]) = rest.first_chunk::<3>() else {
            return Err(Refusal::Malformed("a value is cut off"));
        };
        let end = 3 + usize::from(u16::from_be_bytes([high, low]));
        let value = rest
            .get(3..end)
            .ok_or(Refusal::Malformed("a value is cut off"))?;
        if kind == TLV_CRC32C {
            let Ok(sum) = <[u8; 4]>::try_from(value) else {
                return Err(Refusal::Malformed("a checksum of another length"));
            };
            let place = at + 3..at + end;
            if crc32c(whole, &place) != u32::from_be_bytes(sum) {
                return Err(Refusal::Malformed("wrong checksum"));
            }
        }
        at += end;
    }
    Ok(())
}

/// CRC32c (RFC 4960, appendix B), the bytes of `zeroed` taken as zero.
pub(super) fn crc32c(bytes: &[u8], zeroed: &std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (at, &byte) in bytes.iter().enumerate() {
        crc ^= u32::from(if zeroed.contains(&at) { 0 } else { byte });
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

pub(super) fn encode(client: SocketAddr, local: SocketAddr) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + INET6_BYTES);
    bytes.extend_from_slice(SIGNATURE);
    match Pair::new(client, local) {
        Pair::V4(client, local) => {
            bytes.extend_from_slice(&[0x21, 0x11, 0, 12]);
            bytes.extend_from_slice(&client.ip().octets());
            bytes.extend_from_slice(&local.ip().octets());
        }
        Pair::V6(client, local) => {
            bytes.extend_from_slice(&[0x21, 0x21, 0, 36]);
            bytes.extend_from_slice(&client.ip().octets());
            bytes.extend_from_slice(&local.ip().octets());
        }
    }
    bytes.extend_from_slice(&client.port().to_be_bytes());
    bytes.extend_from_slice(&local.port().to_be_bytes());
    bytes.into_boxed_slice()
}
