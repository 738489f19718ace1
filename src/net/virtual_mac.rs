//! The interface that carries a virtual router's own hardware address (RFC 9568 §7.3): a macvlan
//! device above the real one, up exactly while this node holds the addresses, so that a Backup
//! neither answers for them nor takes a frame that is meant for the Active.
//!
//! Devices are told by their alias: what a killed keeper left is taken over or removed. Only their
//! own settings are changed, never those of the host's interfaces.

use std::fs;
use std::io;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use super::netlink::{Link, Netlink, Prepared};

/// What every such device has as its alias.
const ALIAS: &str = "lbd virtual router";
/// `IFLA_INET_CONF`, and two of the settings in it.
const INET_CONF: u16 = 1;
const RP_FILTER: u16 = 8;
const ARP_IGNORE: u16 = 19;

/// A virtual router's hardware address.
#[must_use]
pub fn mac(vrid: u8, v6: bool) -> [u8; 6] {
    [0, 0, 0x5e, 0, if v6 { 2 } else { 1 }, vrid]
}

/// One such device.
#[derive(Debug)]
pub struct VirtualMac {
    name: String,
    index: u32,
    mac: [u8; 6],
    up: Prepared,
    down: Prepared,
    delete: Prepared,
    is_up: bool,
}

impl VirtualMac {
    /// Makes the device above the interface with index `parent`, or takes a left-over one over.
    ///
    /// # Errors
    /// What the kernel says (EOPNOTSUPP: it has no macvlan).
    pub fn open(netlink: &mut Netlink, parent: u32, vrid: u8, v6: bool) -> io::Result<Self> {
        // The index in the name, because a vrid is one LAN's. Never longer than 15 bytes.
        let family = if v6 { 6 } else { 4 };
        let name = format!("lbd{family}-{vrid}-{parent}");
        let mac = mac(vrid, v6);
        let mut found = find(netlink, &name)?;
        if let Some(link) = &found
            && (link.parent != Some(parent) || link.mac != Some(mac))
        {
            // One of the operator's is not ours to remove, whatever it is called.
            if !is_ours(link) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            delete(netlink, link.index)?;
            found = None;
        }
        let link = match found {
            Some(link) => link,
            None => {
                netlink.request(&mut create(&name, parent, mac))?;
                find(netlink, &name)?.ok_or(io::ErrorKind::NotFound)?
            }
        };
        netlink.request(&mut settings(link.index))?;
        Ok(Self {
            up: set_up(link.index, true),
            down: set_up(link.index, false),
            delete: Prepared::new(RouteNetlinkMessage::DelLink(message(link.index)), 0),
            name,
            index: link.index,
            mac,
            is_up: link.up,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its hardware address.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Somebody else may have changed its state.
    pub fn forget_state(&mut self) {
        self.is_up = false;
    }

    /// Takes part in the LAN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn raise(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        if !self.is_up {
            netlink.request(&mut self.up)?;
            self.is_up = true;
        }
        Ok(())
    }

    /// Is deaf and dumb.
    ///
    /// # Errors
    /// What the kernel says; that the device is gone is no error.
    pub fn lower(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.is_up = false;
        gone_is_well(netlink.request(&mut self.down))
    }

    /// Removes the device.
    ///
    /// # Errors
    /// What the kernel says; that it is gone already is no error.
    pub fn remove(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        gone_is_well(netlink.request(&mut self.delete))
    }
}

/// Removes the devices of earlier keepers that are not `in_use`; says which.
///
/// # Errors
/// What the kernel says.
pub fn remove_others(
    netlink: &mut Netlink,
    in_use: impl Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for link in netlink.links()? {
        if is_ours(&link) && !in_use(&link.name) {
            delete(netlink, link.index)?;
            removed.push(link.name);
        }
    }
    Ok(removed)
}

/// Whether the host's own interface would answer ARP for the address, too, with its own hardware
/// address: Linux does unless `arp_ignore` is at least 1 there or for `all`. To be set by the
/// operator: lbd changes no interface of the host.
#[must_use]
pub fn parent_answers_too(interface: &str) -> bool {
    let ignores = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/arp_ignore");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse::<u8>().is_ok_and(|level| level > 0)
    };
    !ignores("all") && !ignores(interface)
}

fn is_ours(link: &Link) -> bool {
    link.alias.as_deref() == Some(ALIAS)
}

fn find(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    let links = netlink.links()?;
    Ok(links.into_iter().find(|link| link.name == name))
}

fn delete(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let request = RouteNetlinkMessage::DelLink(message(index));
    gone_is_well(netlink.request(&mut Prepared::new(request, 0)))
}

fn gone_is_well(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

fn message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Private: nothing else above the same interface has any business with it.
fn create(name: &str, parent: u32, mac: [u8; 6]) -> Prepared {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Link(parent),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                MacVlanMode::Private,
            )])),
        ]),
    ];
    Prepared::new(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// The alias, which the kernel doesn't take at creation. The device answers for its own addresses alone, gives itself none, and takes frames whose answers leave
/// by the real interface.
fn settings(index: u32) -> Prepared {
    let setting = |kind: u16, value: u32| {
        let header = [8, kind].map(u16::to_ne_bytes).concat();
        [header, value.to_ne_bytes().to_vec()].concat()
    };
    // The greater of `all` and this holds; 2 is the loose form.
    let conf = [setting(RP_FILTER, 2), setting(ARP_IGNORE, 1)].concat();
    let mut message = message(index);
    message.attributes = vec![
        LinkAttribute::IfAlias(ALIAS.to_owned()),
        LinkAttribute::AfSpecUnspec(vec![
            AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(INET_CONF, conf))]),
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
        ]),
    ];
    Prepared::new(RouteNetlinkMessage::SetLink(message), 0)
}

fn set_up(index: u32, up: bool) -> Prepared {
    let mut message = message(index);
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    Prepared::new(RouteNetlinkMessage::SetLink(message), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hardware_address_is_the_rfc_s_for_each_family() {
        assert_eq!(mac(60, false), [0x00, 0x00, 0x5e, 0x00, 0x01, 0x3c]);
        assert_eq!(mac(60, true), [0x00, 0x00, 0x5e, 0x00, 0x02, 0x3c]);
    }
}
