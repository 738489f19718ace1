//! The little of rtnetlink that a laboratory needs: links, bridges, veth pairs, addresses.
//! Blocking, one request at a time. The daemon's own netlink is `net::netlink`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages: what was not asked for is passed over"
)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An rtnetlink socket; it speaks to the network namespace it was opened in, from wherever.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

/// One end of a veth pair that is to be born in another namespace.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its name there.
    pub name: &'a str,
    /// The namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its hardware address.
    pub mac: [u8; 6],
}

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) or bind(2) says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The index of the link with this name.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn link_index(&mut self, name: &str) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let replies = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
        replies
            .into_iter()
            .find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })
            .ok_or_else(|| io::Error::other(format!("the kernel did not describe link {name}")))
    }

    /// Adds a bridge that floods multicast, and returns its index.
    ///
    /// # Errors
    /// EEXIST, EPERM, EOPNOTSUPP (no bridge module) and the like.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))?;
        self.link_index(name)
    }

    /// Adds a veth pair: `name` here, the peer there; returns the index of `name`.
    ///
    /// # Errors
    /// EEXIST, EPERM, EOPNOTSUPP (no veth module) and the like.
    pub fn add_veth(&mut self, name: &str, peer: &Peer<'_>) -> io::Result<u32> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.name.to_owned()),
            LinkAttribute::NetNsFd(peer.namespace.as_raw_fd()),
            LinkAttribute::Address(peer.mac.to_vec()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(message))?;
        self.link_index(name)
    }

    /// Makes a link a port of a bridge, or (0) of none.
    ///
    /// # Errors
    /// ENODEV, EPERM.
    pub fn set_controller(&mut self, link: u32, bridge: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// ENODEV, EPERM.
    pub fn set_up(&mut self, link: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// Adds an address, IPv6 ones without duplicate detection.
    ///
    /// # Errors
    /// EEXIST, ENODEV, EPERM.
    pub fn add_address(&mut self, link: u32, ip: IpAddr, prefix: u8) -> io::Result<()> {
        self.create(RouteNetlinkMessage::NewAddress(address(link, ip, prefix)))
    }

    /// Deletes an address.
    ///
    /// # Errors
    /// EADDRNOTAVAIL, ENODEV, EPERM.
    pub fn delete_address(&mut self, link: u32, ip: IpAddr, prefix: u8) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address(link, ip, prefix));
        self.request(message, NLM_F_ACK).map(drop)
    }

    /// Every address of the namespace.
    ///
    /// # Errors
    /// What recv(2) says.
    pub fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let dump = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = Vec::new();
        for reply in self.request(dump, NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewAddress(message) = reply else {
                continue;
            };
            let mut found = None;
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(ip) => found = Some(ip),
                    AddressAttribute::Address(ip) if found.is_none() => found = Some(ip),
                    _ => {}
                }
            }
            addresses.extend(found);
        }
        Ok(addresses)
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut replies = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.read_replies(&datagram, &mut replies)? {
                return Ok(replies);
            }
        }
    }

    /// Collects the replies in one datagram; true after the last one.
    fn read_replies(
        &self,
        mut rest: &[u8],
        replies: &mut Vec<RouteNetlinkMessage>,
    ) -> io::Result<bool> {
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(reply) => replies.push(reply),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn address(link: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = prefix;
    message.header.family = match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    if ip.is_ipv6() {
        message.header.flags = netlink_packet_route::address::AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}
