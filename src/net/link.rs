//! Link and address events from netlink, and hardware addresses in words.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr};

use super::netlink::{AddressChange, Link, address_change, messages, raw_messages};

const ROUTE: isize = 0;
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const BUFFER_BYTES: usize = 64 * 1024;

/// What happened to interfaces and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface changed, or merely said something.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Administratively up and with carrier.
        up: bool,
        /// Its Ethernet address, if it has one.
        mac: Option<[u8; 6]>,
    },
    /// An interface is gone.
    Removed {
        /// Its index.
        index: u32,
    },
    /// An address was added or renewed, by whomever.
    AddressThere {
        /// The interface's index.
        index: u32,
        /// The address.
        address: IpAddr,
    },
    /// An address was deleted, by whomever, or can't be used: IPv6's duplicate detection runs or
    /// has failed.
    AddressGone {
        /// The interface's index.
        index: u32,
        /// The address.
        address: IpAddr,
    },
    /// Events were lost because too many came at once: read the present state anew.
    Lost,
}

/// A hardware address as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}

/// A socket that hears them.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl LinkEvents {
    /// Opens it in this thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(RTNLGRP_LINK)?;
        socket.add_membership(RTNLGRP_IPV4_IFADDR)?;
        socket.add_membership(RTNLGRP_IPV6_IFADDR)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Reads one datagram and hands its events to `take`. False when there was none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&mut self, mut take: impl FnMut(LinkEvent)) -> io::Result<bool> {
        let mut room = self.buffer.as_mut_slice();
        let length = match self.socket.recv(&mut room, 0) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                take(LinkEvent::Lost);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        for message in raw_messages(self.buffer.get(..length).unwrap_or_default()) {
            if let Some(event) = address_event(message).or_else(|| link_event(message)) {
                take(event);
            }
        }
        Ok(true)
    }
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address_event(message: &[u8]) -> Option<LinkEvent> {
    let AddressChange {
        is_there,
        index,
        address,
    } = address_change(message)?;
    Some(if is_there {
        LinkEvent::AddressThere { index, address }
    } else {
        LinkEvent::AddressGone { index, address }
    })
}

fn link_event(message: &[u8]) -> Option<LinkEvent> {
    let message = messages(message).next()?;
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    event(&inner)
}

fn event(message: &RouteNetlinkMessage) -> Option<LinkEvent> {
    if let RouteNetlinkMessage::NewLink(link) = message {
        if is_of_bridge(link) {
            return None;
        }
        let Link {
            index,
            name,
            up,
            mac,
            ..
        } = Link::of(link);
        return Some(LinkEvent::Link {
            index,
            name,
            up,
            mac,
        });
    }
    if let RouteNetlinkMessage::DelLink(link) = message {
        if is_of_bridge(link) {
            return None;
        }
        let index = link.header.index;
        return Some(LinkEvent::Removed { index });
    }
    None
}

/// A bridge speaks of its ports in the words for interfaces: one that leaves it is deleted.
fn is_of_bridge(link: &LinkMessage) -> bool {
    link.header.interface_family == AddressFamily::Bridge
}
