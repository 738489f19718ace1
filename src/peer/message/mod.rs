//! The messages between nodes: bytes in, views out, and back. Pure; nothing here is believed, that
//! is for [`session`](super::session).
//!
//! ```text
//! magic "LBDp"  4 | format 1 | kind 1 | reserved 2 | nonce 16 | counter 8 | echo nonce 16 | echo counter 8
//! body: a report, or a part of the list of client connections
//! HMAC-SHA256  32, over sender address 16 | receiver address 16 | everything before it
//! ```
//!
//! Numbers are big-endian; IPv4 addresses stand as IPv6 maps them. What is signed names both ends:
//! a message that is reflected, or sent on to a third node, has a wrong signature.

use std::net::{IpAddr, Ipv6Addr};

use super::key::{Keys, TAG_BYTES};
use crate::ipc::message::{ClientFlow, VrrpState};

/// The longest message, bytes: one that no link has to fragment.
pub const MESSAGE_BYTES_MAX: usize = 1200;
/// Routers in one report; more stand in further reports.
pub const ROUTERS_MAX: usize = 40;
/// Client connections in one message.
pub const FLOWS_MAX: usize = 30;
/// What is kept of a node's name or version, bytes.
pub const TEXT_BYTES_MAX: usize = 63;

const MAGIC: [u8; 4] = *b"LBDp";
const FORMAT: u8 = 1;
const REPORT: u8 = 1;
const CLIENTS: u8 = 2;
const ROUTER_BYTES: usize = 24;
const FLOW_BYTES: usize = 36;
const ENDS_BYTES: usize = 32;

/// The random name of one run of one node's keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nonce(pub [u8; 16]);

/// Who speaks, and what it has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The sender's run.
    pub nonce: Nonce,
    /// Nanoseconds of the sender's `CLOCK_BOOTTIME`; higher in each message.
    pub counter: u64,
    /// The receiver's run and its newest message, as far as the sender knows; zeros: not at all.
    pub echo: (Nonce, u64),
}

/// Where a message comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The sender's address among the nodes.
    pub from: IpAddr,
    /// The receiver's.
    pub to: IpAddr,
}

/// How a node sees one virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterReport {
    /// `VRID`.
    pub vrid: u8,
    /// The sender's state.
    pub state: VrrpState,
    /// The sender's priority with tracks applied.
    pub priority: u8,
    /// The router's first address: a VRID alone doesn't name it.
    pub address: IpAddr,
    /// For so long the sender has listened and heard no advert of the receiver, milliseconds.
    pub silence_ms: u32,
    /// Whether it has heard one at all.
    pub heard: bool,
}

/// What stands before the routers of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    /// lbd's version.
    pub version: &'a str,
    /// The sender's name, or its address.
    pub name: &'a str,
    /// Whether it can serve clients.
    pub can_serve: bool,
    /// Between two of its messages, milliseconds.
    pub interval_ms: u16,
    /// Parts of its list of client connections.
    pub parts: u16,
}

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// The sender's view.
    Report(Report<'a>, Routers<'a>),
    /// Connections of clients to the sender.
    Clients {
        /// Which part of the list, from 0.
        part: u16,
        /// The connections.
        flows: Flows<'a>,
    },
}

/// Why bytes are no message of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Not of this format.
    Malformed,
    /// Signed by none of the keys, or not for these ends.
    Forged,
}

/// The routers of a report.
#[derive(Debug, Clone, Copy)]
pub struct Routers<'a>(&'a [u8]);

/// The connections of one part.
#[derive(Debug, Clone, Copy)]
pub struct Flows<'a>(&'a [u8]);

impl<'a> Routers<'a> {
    /// Each router; one in a state that this release doesn't know is left out.
    pub fn iter(self) -> impl Iterator<Item = RouterReport> + 'a {
        let all = self.0.chunks_exact(ROUTER_BYTES);
        all.filter_map(|bytes| {
            let mut reader = Reader(bytes);
            let vrid = reader.byte()?;
            let state = state_of(reader.byte()?)?;
            let priority = reader.byte()?;
            let heard = reader.byte()? == 1;
            Some(RouterReport {
                vrid,
                state,
                priority,
                address: reader.address()?,
                silence_ms: u32::from_be_bytes(reader.array()?),
                heard,
            })
        })
    }
}

impl<'a> Flows<'a> {
    /// Each connection.
    pub fn iter(self) -> impl Iterator<Item = ClientFlow> + 'a {
        let all = self.0.chunks_exact(FLOW_BYTES);
        all.filter_map(|bytes| {
            let mut reader = Reader(bytes);
            Some(ClientFlow {
                vip: reader.address()?,
                port: reader.number()?,
                client: reader.address()?,
                client_port: reader.number()?,
            })
        })
    }
}

/// A message being written into a buffer of fixed size.
#[derive(Debug)]
pub struct Writer {
    /// The ends, then the message.
    bytes: [u8; ENDS_BYTES + MESSAGE_BYTES_MAX],
    len: usize,
}

impl Writer {
    /// The beginning of a report.
    #[must_use]
    pub fn report(ends: Ends, header: &Header, report: &Report<'_>) -> Self {
        let mut writer = Self::begin(ends, header, REPORT);
        writer.text(report.version);
        writer.text(report.name);
        writer.push(&[u8::from(report.can_serve)]);
        writer.push(&report.interval_ms.to_be_bytes());
        writer.push(&report.parts.to_be_bytes());
        writer
    }

    /// The beginning of a part of the client list.
    #[must_use]
    pub fn clients(ends: Ends, header: &Header, part: u16) -> Self {
        let mut writer = Self::begin(ends, header, CLIENTS);
        writer.push(&part.to_be_bytes());
        writer
    }

    fn begin(ends: Ends, header: &Header, kind: u8) -> Self {
        let mut writer = Self {
            bytes: [0; ENDS_BYTES + MESSAGE_BYTES_MAX],
            len: 0,
        };
        writer.push(&mapped(ends.from));
        writer.push(&mapped(ends.to));
        writer.push(&MAGIC);
        writer.push(&[FORMAT, kind, 0, 0]);
        writer.push(&header.nonce.0);
        writer.push(&header.counter.to_be_bytes());
        writer.push(&header.echo.0.0);
        writer.push(&header.echo.1.to_be_bytes());
        writer
    }

    /// Adds a router to a report; at most [`ROUTERS_MAX`] fit.
    pub fn router(&mut self, router: &RouterReport) {
        let state = byte_of(router.state);
        let heard = u8::from(router.heard);
        self.push(&[router.vrid, state, router.priority, heard]);
        self.push(&mapped(router.address));
        self.push(&router.silence_ms.to_be_bytes());
    }

    /// Adds a connection to a part; at most [`FLOWS_MAX`] fit.
    pub fn flow(&mut self, flow: &ClientFlow) {
        self.push(&mapped(flow.vip));
        self.push(&flow.port.to_be_bytes());
        self.push(&mapped(flow.client));
        self.push(&flow.client_port.to_be_bytes());
    }

    /// The signed message.
    #[must_use]
    pub fn sign(&mut self, keys: &Keys) -> &[u8] {
        let tag = keys.sign(self.bytes.get(..self.len).unwrap_or_default());
        self.push(&tag);
        self.bytes.get(ENDS_BYTES..self.len).unwrap_or_default()
    }

    /// What doesn't fit is left out; the bounds above see to it that all fits.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        debug_assert!(end <= self.bytes.len(), "a message longer than its buffer");
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    fn text(&mut self, text: &str) {
        let text = short(text);
        // At most 63.
        self.push(&[u8::try_from(text.len()).unwrap_or(0)]);
        self.push(text.as_bytes());
    }
}

/// Reads a message that came from one end to the other.
///
/// # Errors
/// [`Reject`].
pub fn read<'a>(bytes: &'a [u8], ends: Ends, keys: &Keys) -> Result<(Header, Body<'a>), Reject> {
    let signed = bytes.len().checked_sub(TAG_BYTES);
    let (message, tag) = signed
        .filter(|_| bytes.len() <= MESSAGE_BYTES_MAX)
        .and_then(|at| bytes.split_at_checked(at))
        .ok_or(Reject::Malformed)?;
    let (header, kind, body) = header(message).ok_or(Reject::Malformed)?;
    let mut whole = [0; ENDS_BYTES + MESSAGE_BYTES_MAX];
    let mut len = 0;
    for part in [&mapped(ends.from), &mapped(ends.to), message] {
        let end = len + part.len();
        let room = whole.get_mut(len..end).ok_or(Reject::Malformed)?;
        room.copy_from_slice(part);
        len = end;
    }
    if !keys.verify(whole.get(..len).unwrap_or_default(), tag) {
        return Err(Reject::Forged);
    }
    let body = body_of(kind, body).ok_or(Reject::Malformed)?;
    Ok((header, body))
}

fn header(message: &[u8]) -> Option<(Header, u8, &[u8])> {
    let mut reader = Reader(message);
    if reader.array()? != MAGIC || reader.byte()? != FORMAT {
        return None;
    }
    let kind = reader.byte()?;
    reader.array::<2>()?;
    let header = Header {
        nonce: Nonce(reader.array()?),
        counter: u64::from_be_bytes(reader.array()?),
        echo: (Nonce(reader.array()?), u64::from_be_bytes(reader.array()?)),
    };
    Some((header, kind, reader.0))
}

fn body_of(kind: u8, bytes: &[u8]) -> Option<Body<'_>> {
    let mut reader = Reader(bytes);
    match kind {
        REPORT => {
            let report = Report {
                version: reader.text()?,
                name: reader.text()?,
                can_serve: reader.byte()? == 1,
                interval_ms: reader.number()?,
                parts: reader.number()?,
            };
            let whole = reader.0.len().is_multiple_of(ROUTER_BYTES);
            whole.then_some(Body::Report(report, Routers(reader.0)))
        }
        CLIENTS => {
            let part = reader.number()?;
            let flows = Flows(reader.0);
            let whole = reader.0.len().is_multiple_of(FLOW_BYTES);
            whole.then_some(Body::Clients { part, flows })
        }
        _ => None,
    }
}

/// The beginning of a text, as much as is kept of one.
#[must_use]
pub fn short(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn byte_of(state: VrrpState) -> u8 {
    match state {
        VrrpState::Initialize => 0,
        VrrpState::Backup => 1,
        VrrpState::Active => 2,
        VrrpState::Leaving => 3,
    }
}

fn state_of(byte: u8) -> Option<VrrpState> {
    match byte {
        0 => Some(VrrpState::Initialize),
        1 => Some(VrrpState::Backup),
        2 => Some(VrrpState::Active),
        3 => Some(VrrpState::Leaving),
        _ => None,
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(Ipv6Addr::from(self.array::<16>()?).to_canonical())
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let text = std::str::from_utf8(text).ok()?;
        (length <= TEXT_BYTES_MAX).then_some(text)
    }
}

#[cfg(test)]
mod tests;
