//! Version 1: one line of text. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Decoded, Header, Pair, Refusal, canonical};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// What a connection without a client begins with.
pub(super) const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
/// The longest line there can be, its end included.
const LINE_BYTES_MAX: usize = 107;

pub(super) fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Refusal> {
    let window = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if window.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(Refusal::TooLong)
        };
    };
    match (window.get(end), window.get(end + 1)) {
        (Some(b'\r'), Some(b'\n')) => {}
        (Some(b'\r'), None) if window.len() < LINE_BYTES_MAX => return Ok(None),
        (Some(b'\r'), None) => return Err(Refusal::TooLong),
        _ => return Err(Refusal::Malformed("the line does not end with CR LF")),
    }
    let line = window
        .get(SIGNATURE.len()..end)
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(Refusal::Malformed("the line is no text"))?;
    let header = header(line)?;
    Ok(Some(Decoded {
        header,
        len: end + 2,
    }))
}

/// The line without its signature and end.
fn header(line: &str) -> Result<Header, Refusal> {
    let (family, rest) = line.split_once(' ').unwrap_or((line, ""));
    let ipv4 = match family {
        // Whatever follows up to the end of the line is to be ignored.
        "UNKNOWN" => return Ok(Header::Own),
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err(Refusal::Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    let mut fields = rest.split(' ');
    let mut next = || fields.next().unwrap_or("");
    let (client, local) = (ip(next(), ipv4)?, ip(next(), ipv4)?);
    let (client_port, local_port) = (port(next())?, port(next())?);
    if fields.next().is_some() {
        return Err(Refusal::Malformed("more than two addresses and two ports"));
    }
    Ok(Header::Proxied {
        client: canonical(SocketAddr::new(client, client_port)),
        local: canonical(SocketAddr::new(local, local_port)),
    })
}

/// The library's parsers refuse what the protocol does: leading zeros in IPv4, zones in IPv6.
fn ip(text: &str, ipv4: bool) -> Result<IpAddr, Refusal> {
    let ip = if ipv4 {
        text.parse::<Ipv4Addr>().map(IpAddr::V4)
    } else {
        text.parse::<Ipv6Addr>().map(IpAddr::V6)
    };
    ip.map_err(|_no_address| Refusal::Malformed("no address of its family"))
}

fn port(text: &str) -> Result<u16, Refusal> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    let port = plain.then(|| text.parse().ok()).flatten();
    port.ok_or(Refusal::Malformed("no port"))
}

pub(super) fn encode(client: SocketAddr, local: SocketAddr) -> Box<[u8]> {
    let line = match Pair::new(client, local) {
        Pair::V4(client, local) => {
            let (from, to) = (client.port(), local.port());
            format!("PROXY TCP4 {} {} {from} {to}\r\n", client.ip(), local.ip())
        }
        Pair::V6(client, local) => {
            let (from, to) = (client.port(), local.port());
            format!("PROXY TCP6 {} {} {from} {to}\r\n", client.ip(), local.ip())
        }
    };
    line.into_bytes().into_boxed_slice()
}
