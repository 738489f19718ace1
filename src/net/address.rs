//! A virtual address through netlink: add with a lifetime, renew, delete. The messages are built
//! once; afterwards only a sequence number changes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, Prepared};
use crate::config::model::VipAddress;

/// `IFA_PROTO` of the addresses lbd adds (kernel 5.18 and later; older ones ignore it), so that a
/// left-over one is recognised. The kernel itself uses 1…3, keepalived 18.
pub const PROTOCOL: u8 = 0x6c;
/// `INFINITY_LIFE_TIME`.
const FOREVER: u32 = u32::MAX;

/// One virtual address on one interface.
#[derive(Debug)]
pub struct Lease {
    address: VipAddress,
    add: Prepared,
    add_untagged: Prepared,
    delete: Prepared,
    tagged: bool,
}

impl Lease {
    /// Prepares `address` on the interface with this index. `lifetime` is the kernel's
    /// `valid_lft`, in whole seconds (rounded up); `None`: for ever.
    #[must_use]
    pub fn new(address: VipAddress, index: u32, lifetime: Option<Duration>) -> Self {
        let seconds = lifetime.map_or(FOREVER, |span| {
            let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
            u32::try_from(whole.max(1)).unwrap_or(FOREVER)
        });
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let message = |tag| {
            let message = address_message(address, index, Some(seconds), tag);
            Prepared::new(RouteNetlinkMessage::NewAddress(message), flags)
        };
        let delete = address_message(address, index, None, false);
        Self {
            address,
            add: message(true),
            add_untagged: message(false),
            delete: Prepared::new(RouteNetlinkMessage::DelAddress(delete), 0),
            tagged: true,
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> VipAddress {
        self.address
    }

    /// Adds the address, or gives one that is there its full lifetime again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hold(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        if self.tagged {
            match netlink.request(&mut self.add) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.tagged = false,
                result => return result,
            }
        }
        netlink.request(&mut self.add_untagged)
    }

    /// Deletes the address; that it is gone already is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        match netlink.request(&mut self.delete) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            result => result,
        }
    }
}

/// Removes the addresses with lbd's tag whose IP address isn't `wanted`, on any interface; says
/// which.
///
/// # Errors
/// What the kernel says.
pub fn remove_tagged(
    netlink: &mut Netlink,
    wanted: impl Fn(IpAddr) -> bool,
) -> io::Result<Vec<VipAddress>> {
    let mut removed = Vec::new();
    for found in netlink.addresses()? {
        if found.protocol == PROTOCOL && !wanted(found.address.ip) {
            Lease::new(found.address, found.index, None).release(netlink)?;
            removed.push(found.address);
        }
    }
    Ok(removed)
}

fn address_message(
    address: VipAddress,
    index: u32,
    lifetime: Option<u32>,
    tag: bool,
) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = address.prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.ip));
    message
        .attributes
        .push(AddressAttribute::Address(address.ip));
    if let Some(seconds) = lifetime {
        let mut life = CacheInfo::default();
        life.ifa_valid = seconds;
        life.ifa_preferred = seconds;
        message.attributes.push(AddressAttribute::CacheInfo(life));
    }
    if tag {
        let protocol = AddressProtocol::Other(PROTOCOL);
        message
            .attributes
            .push(AddressAttribute::Protocol(protocol));
    }
    message
}
