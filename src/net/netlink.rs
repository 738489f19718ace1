//! The routing netlink socket: prepared requests with acknowledgement, dumps, and the facts about
//! this machine that the configuration is resolved against.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::{Socket, SocketAddr};

use crate::config::local::{HostFacts, InterfaceFacts};
use crate::config::model::VipAddress;

const ROUTE: isize = 0;
/// Longer than any acknowledgement and any part of a dump the kernel sends.
const BUFFER_BYTES: usize = 64 * 1024;
/// Answers read for one request before it is given up; a dump has far fewer parts.
const PARTS_MAX: usize = 4096;
const HEADER_BYTES: usize = 16;
/// What happened to an address.
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
/// Where the sequence number stands in a netlink header.
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// A request that was serialized once and is sent many times.
#[derive(Debug, Clone)]
pub struct Prepared {
    bytes: Vec<u8>,
}

impl Prepared {
    /// Serializes `message` with `flags` beside request and acknowledgement.
    #[must_use]
    pub fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Self { bytes }
    }
}

/// A request socket. Not shared between threads.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket in this thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers within the request; an answer that is not there never comes.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends a prepared request and reads its acknowledgement, without allocating.
    ///
    /// # Errors
    /// The kernel's refusal, or that of the socket.
    pub fn request(&mut self, prepared: &mut Prepared) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        if let Some(field) = prepared.bytes.get_mut(SEQUENCE) {
            field.copy_from_slice(&self.sequence.to_ne_bytes());
        }
        self.send(&prepared.bytes)?;
        for _ in 0..PARTS_MAX {
            let mut room = self.buffer.as_mut_slice();
            let length = self.socket.recv(&mut room, 0)?;
            let part = self.buffer.get(..length).unwrap_or_default();
            match acknowledgement(part, self.sequence) {
                None => {}
                Some(0) => return Ok(()),
                Some(code) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks for a whole table.
    ///
    /// # Errors
    /// The kernel's refusal, or that of the socket.
    pub fn dump(&mut self, ask: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(ask));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)?;
        let mut table = Vec::new();
        self.answers(|entry| table.push(entry))?;
        Ok(table)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Reads until the acknowledgement or the end of the dump.
    fn answers(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        for _ in 0..PARTS_MAX {
            let mut room = self.buffer.as_mut_slice();
            let length = self.socket.recv(&mut room, 0)?;
            let part = self.buffer.get(..length).unwrap_or_default();
            for message in messages(part) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(entry) => take(entry),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }
}

/// Whether a request failed for want of something that comes back by itself: memory, room in a
/// queue.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN, libc::EINTR]
        .into_iter()
        .any(|passing| code == Some(passing))
}

/// The error code in the acknowledgement of request `sequence` (`struct nlmsgerr` after the
/// header); 0 is success, `None` another message.
fn acknowledgement(part: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(part.get(4..6)?.try_into().ok()?);
    let answers = u32::from_ne_bytes(part.get(SEQUENCE)?.try_into().ok()?);
    let code = i32::from_ne_bytes(part.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR && answers == sequence).then_some(code)
}

/// The messages of one datagram. One that makes no sense (a newer kernel's, say) is passed over; at
/// a length that can't be it ends.
pub(super) fn messages(
    bytes: &[u8],
) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + '_ {
    raw_messages(bytes).filter_map(|message| NetlinkMessage::deserialize(message).ok())
}

/// The same, not looked into.
pub(super) fn raw_messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> + '_ {
    let next = move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?);
        let length = usize::try_from(length).ok()?;
        let message = bytes.get(..length).filter(|_| length >= HEADER_BYTES)?;
        let aligned = length.checked_next_multiple_of(4)?;
        bytes = bytes.get(aligned..).unwrap_or_default();
        Some(message)
    };
    std::iter::from_fn(next)
}

/// An address that was added or removed, as the kernel's message says it. One that IPv6's duplicate
/// detection holds back, or refused, is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressChange {
    /// It is, and can be used.
    pub(super) is_there: bool,
    pub(super) index: u32,
    pub(super) address: IpAddr,
}

/// Reads such a message without taking memory: each renewal of a lease comes as one.
pub(super) fn address_change(message: &[u8]) -> Option<AddressChange> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const FLAGS: u16 = 8;
    const FIXED_BYTES: usize = 8;
    let is_added = match u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?) {
        RTM_NEWADDR => true,
        RTM_DELADDR => false,
        _ => return None,
    };
    let fixed: &[u8; FIXED_BYTES] = message.get(HEADER_BYTES..)?.first_chunk()?;
    let [_, _, _, _, index @ ..] = *fixed;
    let of_bytes = |bytes| AddressFlags::from_bits_retain(u32::from_ne_bytes(bytes));
    let mut rest = message.get(HEADER_BYTES + FIXED_BYTES..)?;
    let (mut address, mut local) = (None, None);
    let mut flags = AddressFlags::empty();
    while let Some((&[a, b, c, d], _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = rest.get(4..length) else {
            break;
        };
        match u16::from_ne_bytes([c, d]) {
            ADDRESS => address = ip(value),
            LOCAL => local = ip(value),
            FLAGS => flags = value.try_into().map_or(flags, of_bytes),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(AddressChange {
        is_there: is_added && is_sound(flags),
        index: u32::from_ne_bytes(index),
        // On point-to-point links `ADDRESS` is the other end.
        address: local.or(address)?,
    })
}

/// Not while IPv6's duplicate detection runs, nor after that failed.
fn is_sound(flags: AddressFlags) -> bool {
    let doubtful =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    !doubtful && !flags.contains(AddressFlags::Dadfailed)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6)
}

/// One interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// The index of the interface below it.
    pub parent: Option<u32>,
    /// What somebody calls it beside its name.
    pub alias: Option<String>,
}

impl Link {
    /// Reads a link message.
    pub(super) fn of(message: &LinkMessage) -> Self {
        let mut name = String::new();
        let mut mac = None;
        let mut parent = None;
        let mut alias = None;
        for attribute in &message.attributes {
            if let LinkAttribute::IfName(text) = attribute {
                name.clone_from(text);
            } else if let LinkAttribute::Address(bytes) = attribute {
                mac = bytes.as_slice().try_into().ok();
            } else if let LinkAttribute::Link(index) = attribute {
                parent = Some(*index);
            } else if let LinkAttribute::IfAlias(text) = attribute {
                alias = Some(text.clone());
            }
        }
        let wanted = LinkFlags::Up | LinkFlags::Running;
        Self {
            index: message.header.index,
            name,
            up: message.header.flags.contains(wanted),
            mac,
            parent,
            alias,
        }
    }
}

/// One address as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address itself.
    pub address: VipAddress,
    /// `IFA_PROTO`: who added it; 0 when unknown.
    pub protocol: u8,
    /// Whether it can be used: not while IPv6's duplicate detection runs, nor after that failed.
    pub sound: bool,
}

impl Address {
    /// Reads an address message; `None` without an address in it.
    pub(super) fn of(message: &AddressMessage) -> Option<Self> {
        let mut address: Option<IpAddr> = None;
        let mut local = None;
        let mut protocol = 0;
        let mut flags = AddressFlags::empty();
        for attribute in &message.attributes {
            if let AddressAttribute::Address(ip) = attribute {
                address = Some(*ip);
            } else if let AddressAttribute::Local(ip) = attribute {
                local = Some(*ip);
            } else if let AddressAttribute::Protocol(tag) = attribute {
                protocol = u8::from(*tag);
            } else if let AddressAttribute::Flags(all) = attribute {
                flags = *all;
            }
        }
        // On point-to-point links `Address` is the other end.
        let ip = local.or(address)?;
        Some(Self {
            index: message.header.index,
            address: VipAddress {
                ip,
                prefix: message.header.prefix_len,
            },
            protocol,
            sound: is_sound(flags),
        })
    }
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = Vec::new();
        for entry in self.dump(ask)? {
            if let RouteNetlinkMessage::NewLink(link) = entry {
                links.push(Link::of(&link));
            }
        }
        Ok(links)
    }

    /// All addresses.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = Vec::new();
        for entry in self.dump(ask)? {
            if let RouteNetlinkMessage::NewAddress(address) = entry {
                addresses.extend(Address::of(&address));
            }
        }
        Ok(addresses)
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// `NotFound`, or what the kernel says.
    pub fn link(&mut self, name: &str) -> io::Result<Link> {
        self.links()?
            .into_iter()
            .find(|link| link.name == name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Interfaces and usable addresses of this network namespace.
///
/// # Errors
/// What the kernel says.
pub fn host_facts() -> io::Result<HostFacts> {
    let mut netlink = Netlink::open()?;
    let mut interfaces: BTreeMap<u32, InterfaceFacts> = netlink
        .links()?
        .into_iter()
        .map(|link| {
            let facts = InterfaceFacts {
                name: link.name,
                index: link.index,
                up: link.up,
                addresses: Vec::new(),
            };
            (link.index, facts)
        })
        .collect();
    for address in netlink.addresses()? {
        if let Some(facts) = interfaces.get_mut(&address.index)
            && address.sound
        {
            facts.addresses.push(address.address);
        }
    }
    Ok(HostFacts {
        interfaces: interfaces.into_values().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_among_the_facts() {
        let facts = host_facts().unwrap();
        let loopback = facts.interfaces.iter().find(|link| link.name == "lo");
        assert!(loopback.is_some_and(|link| link.index > 0));
    }

    #[test]
    fn want_of_memory_passes_and_want_of_rights_does_not() {
        let of = |code| is_passing(&io::Error::from_raw_os_error(code));
        assert!(of(libc::ENOBUFS) && of(libc::ENOMEM));
        assert!(!of(libc::EPERM) && !of(libc::ENODEV) && !of(libc::EADDRNOTAVAIL));
    }

    #[test]
    fn an_unknown_interface_is_not_found() {
        let missing = Netlink::open().unwrap().link("no-such-link");
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_message_that_makes_no_sense_hides_none_behind_it() {
        // RTM_NEWADDR with an address of three bytes, then the end of a dump.
        let mut bytes = Vec::new();
        bytes.extend(31_u32.to_ne_bytes());
        bytes.extend([20_u16, 2].map(u16::to_ne_bytes).concat());
        bytes.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
        bytes.extend([2, 24, 0, 0, 1, 0, 0, 0]);
        bytes.extend([7_u16, 2].map(u16::to_ne_bytes).concat());
        bytes.extend([10, 0, 0, 0]);
        bytes.extend(20_u32.to_ne_bytes());
        bytes.extend([3_u16, 2].map(u16::to_ne_bytes).concat());
        bytes.extend([7_u32, 0].map(u32::to_ne_bytes).concat());
        bytes.extend([0; 4]);
        let seen: Vec<_> = messages(&bytes).collect();
        assert_eq!(seen.len(), 1);
        assert!(matches!(seen[0].payload, NetlinkPayload::Done(_)));
    }

    #[test]
    fn a_renewed_address_is_read_as_the_kernel_s_own_words_for_it() {
        // RTM_NEWADDR of 10.1.0.100/24 on interface 7, with IFA_ADDRESS, IFA_LOCAL and a label.
        let mut bytes = Vec::new();
        bytes.extend(48_u32.to_ne_bytes());
        bytes.extend([20_u16, 0].map(u16::to_ne_bytes).concat());
        bytes.extend([0_u32, 0].map(u32::to_ne_bytes).concat());
        bytes.extend([2, 24, 0, 0, 7, 0, 0, 0]);
        for (kind, value) in [(1_u16, [10, 1, 0, 1]), (2, [10, 1, 0, 100]), (3, *b"eth\0")] {
            bytes.extend([8, kind].map(u16::to_ne_bytes).concat());
            bytes.extend(value);
        }
        let change = AddressChange {
            is_there: true,
            index: u32::from_ne_bytes([7, 0, 0, 0]),
            address: IpAddr::from([10, 1, 0, 100]),
        };
        assert_eq!(address_change(&bytes), Some(change));
        for end in 0..40 {
            assert_ne!(address_change(&bytes[..end]), Some(change), "{end}");
        }
        // Tentative, tentative and optimistic, failed, permanent without detection.
        for (flags, is_there) in [(0x40, false), (0x44, true), (0x48, false), (0x82, true)] {
            bytes[18] = flags;
            let change = address_change(&bytes).map(|change| change.is_there);
            assert_eq!(change, Some(is_there), "{flags:02x}");
        }
        bytes[4] = 21;
        assert!(address_change(&bytes).is_some_and(|change| !change.is_there));
        bytes[4] = 16;
        assert_eq!(address_change(&bytes), None);
    }

    #[test]
    fn garbage_holds_no_messages() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[]).count(), 0);
    }
}
