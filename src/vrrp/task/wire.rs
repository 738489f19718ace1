//! What a virtual router touches: its sockets, its addresses, its interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use super::{OpenError, SharedNetlink};
use crate::config::local::LocalVip;
use crate::config::model::{Auth, Mode, Vip, VipAddress};
use crate::net;
use crate::net::address::{Lease, PROTOCOL};
use crate::net::arp::Announcer;
use crate::net::arp_watch::Watcher;
use crate::net::netlink::Address;
use crate::net::virtual_mac::{self, VirtualMac};
use crate::net::vrrp_socket::{Arrival, ArrivalV6, Filter, Receiver, Sender, Side};
use crate::vrrp::hmac::{Clock, Seal, TRAILER_BYTES};
use crate::vrrp::packet::{
    self, ADVERT_BYTES_MAX, Advertisement, Datagram, Reject, WireAuth, split_ipv4,
};
use crate::vrrp::rejects::{Claim, claim};
use crate::vrrp::validate::{Accepted, Rules};

/// An IPv4 header with options, the longest advert, and room to see that a packet is longer.
const PACKET_BYTES: usize = 60 + ADVERT_BYTES_MAX + TRAILER_BYTES + 36;

#[derive(Debug)]
pub(super) struct Wire {
    sender: Sender,
    receiver: Receiver,
    rejected: Receiver,
    filter: Filter,
    /// `None` on a link without Ethernet addresses.
    announcer: Option<Announcer>,
    /// By IPv4 only.
    watcher: Option<Watcher>,
    netlink: SharedNetlink,
    /// The device of `virtual-mac`.
    vmac: Option<VirtualMac>,
    /// The interface that has the addresses.
    home: u32,
    leases: Vec<Lease>,
    destinations: Vec<IpAddr>,
    interface: String,
    index: u32,
    buffer: Vec<u8>,
    advert: Vec<u8>,
    /// With HMAC only.
    seal: Option<Seal>,
}

/// A packet and what is to be thought of it.
#[derive(Debug)]
pub(super) struct Received {
    /// Where it says it comes from, if it says that much.
    pub(super) source: Option<IpAddr>,
    pub(super) verdict: Result<Accepted, Reject>,
    /// How far our wall clock is ahead of its sender's, ms, where HMAC shows that it is too much
    /// or soon will be.
    pub(super) skew_ms: Option<i64>,
    /// What a refused one claims.
    pub(super) claim: Option<Claim>,
}

impl Wire {
    /// Opens everything; also says whether the link is up.
    pub(super) fn open(
        local: &LocalVip,
        rules: &Rules,
        netlink: SharedNetlink,
    ) -> Result<(Self, bool), OpenError> {
        let failed = |operation| {
            move |source| OpenError::Interface {
                vip: local.vip.name.clone(),
                interface: local.interface.clone(),
                operation,
                source,
            }
        };
        let interface = local.interface.as_str();
        let link = netlink
            .borrow_mut()
            .link(interface)
            .map_err(failed("find addresses"))?;
        let filter = filter(rules);
        let receiver = |side| Receiver::open(interface, link.index, &filter, side);
        let addresses: Vec<IpAddr> = local.vip.addresses.iter().map(|vip| vip.ip).collect();
        let vip = &local.vip;
        let vmac = vmac(vip, link.index, rules.me.is_ipv6(), &netlink);
        let vmac = vmac.transpose().map_err(failed("make a macvlan device"))?;
        if vmac.is_some() && rules.me.is_ipv4() && virtual_mac::parent_answers_too(interface) {
            tracing::warn!(vip = %vip.name, %interface, key = "net.ipv4.conf.INTERFACE.arp_ignore", "the interface itself answers for the address with its own hardware address unless this is 1");
        }
        let home = vmac.as_ref().map_or(link.index, VirtualMac::index);
        let mac = vmac.as_ref().map(VirtualMac::mac).or(link.mac);
        let announcer = match mac {
            Some(mac) => Some(
                Announcer::open(interface, link.index, mac, &addresses)
                    .map_err(failed("open a socket to announce addresses"))?,
            ),
            None => None,
        };
        let watcher = link
            .mac
            .and_then(|mac| watcher(rules, link.index, mac, &addresses));
        let watcher = watcher.transpose().map_err(failed("open an ARP socket"))?;
        let mut wire = Self {
            sender: Sender::open(interface, link.index, rules.me)
                .map_err(failed("open a raw socket"))?,
            receiver: receiver(Side::Matching).map_err(failed("open a raw socket"))?,
            rejected: receiver(Side::Rejected).map_err(failed("open a raw socket"))?,
            filter,
            announcer,
            watcher,
            netlink,
            vmac,
            home,
            leases: leases(vip, home),
            destinations: destinations(rules),
            interface: interface.to_owned(),
            index: link.index,
            buffer: vec![0; PACKET_BYTES],
            advert: Vec::with_capacity(ADVERT_BYTES_MAX + TRAILER_BYTES),
            seal: match &rules.auth {
                Auth::Hmac(hmac) => Some(Seal::new(hmac, rules.interval, rules.peers.len())),
                Auth::None | Auth::Pass(_) => None,
            },
        };
        // An address that a previous process left stays as it is if it is sound.
        let present = wire.netlink.borrow_mut().addresses();
        wire.note(&present.map_err(failed("find addresses"))?);
        Ok((wire, link.up))
    }

    /// The request socket, for the wire that follows this one.
    pub(super) fn netlink(&self) -> SharedNetlink {
        SharedNetlink::clone(&self.netlink)
    }

    /// Whether the interface of our name is another one by now.
    pub(super) fn is_stale(&self) -> bool {
        let Ok(links) = self.netlink.borrow_mut().links() else {
            return false;
        };
        let present = links.iter().find(|link| link.name == self.interface);
        let without_home = || links.iter().all(|link| link.index != self.home);
        present.is_some_and(|link| link.index != self.index || without_home())
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The interface that has the addresses.
    pub(super) fn home(&self) -> u32 {
        self.home
    }

    /// The name of the device of `virtual-mac`.
    pub(super) fn device(&self) -> Option<&str> {
        self.vmac.as_ref().map(VirtualMac::name)
    }

    /// Removes what was made for this wire alone.
    pub(super) fn retire(&mut self) -> io::Result<()> {
        let mut netlink = self.netlink.borrow_mut();
        let vmac = self.vmac.as_mut();
        vmac.map_or(Ok(()), |vmac| vmac.remove(&mut netlink))
    }

    /// Another router of this node sees to the device from here on.
    pub(super) fn leave_device(&mut self) {
        self.vmac = None;
    }

    /// Somebody else changed the device that has the addresses.
    pub(super) fn forget_state(&mut self) {
        if let Some(vmac) = &mut self.vmac {
            vmac.forget_state();
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    pub(super) fn destinations(&self) -> usize {
        self.destinations.len()
    }

    /// One packet on this side of the kernel's filter, judged; `None`: nothing there.
    pub(super) fn read(&mut self, rules: &Rules, side: Side) -> io::Result<Option<Received>> {
        let receiver = match side {
            Side::Matching => &mut self.receiver,
            Side::Rejected => &mut self.rejected,
        };
        let Some(arrival) = receiver.read(&mut self.buffer)? else {
            return Ok(None);
        };
        let seal = &mut self.seal;
        let (source, packet) = match arrival {
            Arrival::V4(packet) => (source(packet), split_ipv4(packet)),
            Arrival::V6(parts) => (parts.source.map(IpAddr::V6), datagram(parts)),
        };
        let advert = packet
            .as_ref()
            .map_or([].as_slice(), |packet| packet.payload);
        let verdict = packet.and_then(|packet| {
            let seal = seal.as_mut().map(|seal| (seal, clock()));
            rules.judge(packet, seal)
        });
        let told = matches!(verdict, Ok(_) | Err(Reject::HmacClock));
        let skewed = seal.as_ref().filter(|seal| told && seal.is_skewed());
        let refused_from = source.filter(|_| verdict.is_err());
        Ok(Some(Received {
            source,
            skew_ms: skewed.map(Seal::skew_ms),
            claim: refused_from.and_then(|source| claim(source, advert)),
            verdict,
        }))
    }

    pub(super) fn watcher(&self) -> Option<&Watcher> {
        self.watcher.as_ref()
    }

    /// Looks away from the adverts of these virtual routers: this node's others on the same LAN.
    pub(super) fn pass_over(&mut self, vrids: &[u8]) -> io::Result<()> {
        self.filter.passed_over = vrids.to_vec();
        self.rejected.set_filter(&self.filter, Side::Rejected)
    }

    pub(super) fn advertise(
        &mut self,
        rules: &Rules,
        priority: u8,
        destination: usize,
    ) -> io::Result<()> {
        let Some(destination) = self.destinations.get(destination).copied() else {
            return Ok(());
        };
        let advert = Advertisement {
            version: rules.version,
            vrid: rules.vrid,
            priority,
            interval: rules.interval,
            addresses: rules.addresses.as_wire(),
            auth: match &rules.auth {
                Auth::None | Auth::Hmac(_) => WireAuth::None,
                Auth::Pass(password) => WireAuth::Pass(password.0),
            },
        };
        advert
            .encode(rules.me, destination, &mut self.advert)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if let Some(seal) = &mut self.seal {
            seal.sign(&mut self.advert, rules.me, clock());
            packet::cover_trailer(&mut self.advert, rules.me, destination);
        }
        self.sender.send(&self.advert, destination)
    }

    /// Adds the addresses or renews their lifetime.
    // TODO-correctness(RFC 9568 §6.1): `Accept_Mode` is always on: the address is there to be
    // connected to.
    pub(super) fn hold(&mut self) -> io::Result<()> {
        let mut netlink = self.netlink.borrow_mut();
        if let Some(vmac) = &mut self.vmac {
            vmac.raise(&mut netlink)?;
        }
        self.leases
            .iter_mut()
            .try_for_each(|lease| lease.hold(&mut netlink))
    }

    /// Removes all addresses that can be removed.
    pub(super) fn release(&mut self) -> io::Result<()> {
        let mut netlink = self.netlink.borrow_mut();
        let released = self
            .leases
            .iter_mut()
            .map(|lease| lease.release(&mut netlink))
            .fold(Ok(()), Result::and);
        let vmac = self.vmac.as_mut();
        let lowered = vmac.map_or(Ok(()), |vmac| vmac.lower(&mut netlink));
        released.and(lowered)
    }

    /// Lets others see to some of the addresses from here on.
    pub(super) fn forgo(&mut self, is_left: impl Fn(IpAddr) -> bool) {
        self.leases.retain(|lease| !is_left(lease.address().ip));
    }

    /// Removes some of the addresses.
    pub(super) fn release_some(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        let mut netlink = self.netlink.borrow_mut();
        self.leases
            .iter_mut()
            .filter(|lease| addresses.contains(&lease.address().ip))
            .map(|lease| lease.release(&mut netlink))
            .fold(Ok(()), Result::and)
    }

    /// Announces at `mac` from here on; says whether that is news.
    pub(super) fn set_mac(&mut self, mac: [u8; 6]) -> io::Result<bool> {
        if let Some(watcher) = &mut self.watcher {
            watcher.set_mac(mac);
        }
        match &mut self.announcer {
            // What is announced is the virtual router's, not the interface's.
            Some(_) if self.vmac.is_some() => Ok(false),
            Some(announcer) => announcer.set_mac(mac),
            None => Ok(false),
        }
    }

    pub(super) fn announce(&self, frames: u8) -> io::Result<u64> {
        self.announcer
            .as_ref()
            .map_or(Ok(0), |announcer| announcer.announce(frames))
    }

    /// Removes what a previous process left in other shapes than ours: one of our addresses with
    /// another prefix length on our interface, or with lbd's tag on another interface. Says whether
    /// one of our addresses as they should be is there.
    pub(super) fn remove_strays(&mut self) -> io::Result<bool> {
        let mut netlink = self.netlink.borrow_mut();
        let mut ours = false;
        for found in netlink.addresses()? {
            if !self.ours().any(|ip| ip == found.address.ip) {
                continue;
            }
            let here = found.index == self.home;
            let as_it_should_be = self
                .leases
                .iter()
                .any(|lease| lease.address() == found.address);
            if here && as_it_should_be {
                ours = true;
            } else if here || found.protocol == PROTOCOL {
                Lease::new(found.address, found.index, None).release(&mut netlink)?;
            }
        }
        if let Some(vmac) = self.vmac.as_mut().filter(|_| !ours) {
            vmac.lower(&mut netlink)?;
        }
        Ok(ours)
    }

    /// What the kernel says at this moment; `source` is the node's own address.
    pub(super) fn present_state(&mut self, source: IpAddr) -> io::Result<Present> {
        let (links, all) = {
            let mut netlink = self.netlink.borrow_mut();
            (netlink.links()?, netlink.addresses()?)
        };
        self.note(&all);
        let link = links.iter().find(|link| link.index == self.index);
        let on = |index: u32, ip: IpAddr| {
            let same = |found: &&Address| found.index == index && found.address.ip == ip;
            all.iter().find(same).is_some_and(|found| found.sound)
        };
        Ok(Present {
            up: link.is_some_and(|link| link.up),
            mac: link.and_then(|link| link.mac),
            source: on(self.index, source),
            complete: self.ours().all(|ip| on(self.home, ip)),
        })
    }

    /// Notes which of our addresses the kernel has.
    fn note(&mut self, all: &[Address]) {
        for lease in &mut self.leases {
            let address = lease.address();
            let same = |found: &Address| found.index == self.home && found.address == address;
            lease.note(all.iter().any(|found| same(found) && found.sound));
        }
    }

    fn ours(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.leases.iter().map(|lease| lease.address().ip)
    }
}

fn leases(vip: &Vip, home: u32) -> Vec<Lease> {
    let lease =
        |address: &VipAddress| Lease::new(placed(*address, vip.virtual_mac), home, vip.lease);
    vip.addresses.iter().map(lease).collect()
}

/// Where adverts go.
fn destinations(rules: &Rules) -> Vec<IpAddr> {
    match rules.mode {
        Mode::Unicast => rules.peers.iter().map(|peer| peer.address).collect(),
        Mode::Multicast => vec![rules.group()],
    }
}

/// What the kernel lets through.
fn filter(rules: &Rules) -> Filter {
    let peers = || rules.peers.iter();
    Filter {
        senders: peers().map(|peer| peer.address).collect(),
        destination: match rules.mode {
            Mode::Unicast => rules.me,
            Mode::Multicast => rules.group(),
        },
        min_ttl: match rules.mode {
            Mode::Unicast => peers().map(|peer| peer.min_ttl).min().unwrap_or(255),
            Mode::Multicast => 255,
        },
        version: rules.version.get(),
        vrid: rules.vrid.get(),
        passed_over: Vec::new(),
    }
}

/// The device of `virtual-mac`, if that is asked for.
fn vmac(
    vip: &Vip,
    parent: u32,
    v6: bool,
    netlink: &SharedNetlink,
) -> Option<io::Result<VirtualMac>> {
    let mut netlink = netlink.borrow_mut();
    let open = || VirtualMac::open(&mut netlink, parent, vip.vrid.get(), v6);
    vip.virtual_mac.then(open)
}

/// On a device of its own an address is a host address: the way to the LAN stays the real
/// interface's.
fn placed(mut address: VipAddress, on_own_device: bool) -> VipAddress {
    if on_own_device {
        address.prefix = if address.ip.is_ipv4() { 32 } else { 128 };
    }
    address
}

/// Who watches the virtual addresses and the nodes by ARP; `None` by IPv6.
fn watcher(
    rules: &Rules,
    index: u32,
    mac: [u8; 6],
    addresses: &[IpAddr],
) -> Option<io::Result<Watcher>> {
    let IpAddr::V4(me) = rules.me else {
        return None;
    };
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    let virtuals: Vec<Ipv4Addr> = addresses.iter().copied().filter_map(v4).collect();
    let nodes = rules.peers.iter().map(|peer| peer.address);
    let nodes: Vec<Ipv4Addr> = nodes.filter_map(v4).collect();
    Some(Watcher::open(index, mac, me, &virtuals, &nodes))
}

/// An interface as the kernel describes it at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) up: bool,
    pub(super) mac: Option<[u8; 6]>,
    /// Whether the node's own address is there.
    pub(super) source: bool,
    /// Whether all virtual addresses are there and can be used.
    pub(super) complete: bool,
}

/// What the trailers of this moment are judged and made by.
fn clock() -> Clock {
    Clock {
        wall: net::clock::unix_time(),
        at: net::clock::now(),
    }
}

/// The source of an IPv4 packet, whatever else is wrong with it.
fn source(packet: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes).into())
}

/// An IPv6 packet for the judgement. Without its destination or its hop limit there is none.
fn datagram(parts: ArrivalV6<'_>) -> Result<Datagram<'_>, Reject> {
    Ok(Datagram {
        source: parts.source.ok_or(Reject::IpHeader)?.into(),
        destination: parts.destination.ok_or(Reject::IpHeader)?.into(),
        ttl: parts.hop_limit.ok_or(Reject::IpHeader)?,
        payload: parts.payload,
    })
}
