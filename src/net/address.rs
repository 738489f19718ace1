//! A virtual address through netlink: add with a lifetime, renew, delete. The messages are built
//! once; afterwards only a sequence number changes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, Prepared};
use crate::config::model::VipAddress;

/// `IFA_PROTO` of the addresses lbd adds (kernel 5.18 and later; older ones ignore it), so that a
/// left-over one is recognised. The kernel itself uses 1…3, keepalived 18.
pub const PROTOCOL: u8 = 0x6c;
/// `INFINITY_LIFE_TIME`.
const FOREVER: u32 = u32::MAX;
/// Metrics of the routes lbd adds begin here, far behind those of anybody else.
const METRIC: u32 = 0x6c00_0000;

/// One virtual address on one interface.
///
/// By IPv6 it comes without duplicate detection, never is a source (its preferred lifetime is 0),
/// and without the kernel's route to its prefix: that would be shared with the node's own address
/// and could end with the lease. It brings a route of its own, behind all others.
#[derive(Debug)]
pub struct Lease {
    address: VipAddress,
    add: Prepared,
    add_untagged: Prepared,
    delete: Prepared,
    tagged: bool,
    on_link: Option<OnLink>,
    /// The kernel has it, and can use it. One that failed duplicate detection, in other hands
    /// perhaps, stays unusable until it is deleted.
    sound: bool,
}

/// The route to a virtual address's prefix.
#[derive(Debug)]
struct OnLink {
    add: Prepared,
    delete: Prepared,
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
            on_link: on_link(address, index, seconds),
            sound: false,
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> VipAddress {
        self.address
    }

    /// Notes whether the kernel has the address now, and can use it.
    pub fn note(&mut self, sound: bool) {
        self.sound = sound;
    }

    /// Adds the address, or gives one that is there its full lifetime again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn hold(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        if !self.sound && self.address.ip.is_ipv6() {
            self.remove(netlink)?;
        }
        self.add(netlink)?;
        self.sound = true;
        match &mut self.on_link {
            Some(route) => netlink.request(&mut route.add),
            None => Ok(()),
        }
    }

    fn add(&mut self, netlink: &mut Netlink) -> io::Result<()> {
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
        self.sound = false;
        let removed = self.remove(netlink);
        let Some(route) = &mut self.on_link else {
            return removed;
        };
        match netlink.request(&mut route.delete) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => removed,
            result => removed.and(result),
        }
    }

    fn remove(&mut self, netlink: &mut Netlink) -> io::Result<()> {
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
        life.ifa_preferred = if address.ip.is_ipv4() { seconds } else { 0 };
        message.attributes.push(AddressAttribute::CacheInfo(life));
        if address.ip.is_ipv6() {
            let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
            message.attributes.push(AddressAttribute::Flags(flags));
        }
    }
    if tag {
        let protocol = AddressProtocol::Other(PROTOCOL);
        message
            .attributes
            .push(AddressAttribute::Protocol(protocol));
    }
    message
}

/// The route that an IPv6 address with a subnet needs where no other address is in that subnet;
/// each link has the one of link-local addresses.
fn on_link(address: VipAddress, index: u32, lifetime: u32) -> Option<OnLink> {
    let IpAddr::V6(ip) = address.ip else {
        return None;
    };
    if ip.is_unicast_link_local() || !(1..128).contains(&address.prefix) {
        return None;
    }
    let host_bits = u128::MAX >> address.prefix;
    let low = u32::try_from(ip.to_bits() & 0xff_ffff).unwrap_or(0);
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = address.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6((ip.to_bits() & !host_bits).into())),
        RouteAttribute::Oif(index),
        // One route per address, so that none is another's to remove.
        RouteAttribute::Priority(METRIC | low),
    ];
    let delete = Prepared::new(RouteNetlinkMessage::DelRoute(message.clone()), 0);
    message.attributes.push(RouteAttribute::Expires(lifetime));
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    Some(OnLink {
        add: Prepared::new(RouteNetlinkMessage::NewRoute(message), flags),
        delete,
    })
}
