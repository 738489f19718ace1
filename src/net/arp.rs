//! Announcing addresses through AF_PACKET: gratuitous ARP (RFC 5227 §3) in both forms that devices
//! listen to, and for IPv6 the frames of `nd`.
#![expect(
    unsafe_code,
    reason = "no safe wrapper builds a link-layer socket address"
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use libc::{sockaddr_ll, socklen_t};
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::util::MacAddr;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::closing::Apart;
use super::nd::{self, Forwarding};

pub(super) const ETHERNET_BYTES: usize = 14;
const FRAME_BYTES: usize = ETHERNET_BYTES + 28;

/// An Ethernet frame that announces an IPv4 address.
pub type Frame = [u8; FRAME_BYTES];

/// Says on one link who has an address.
#[derive(Debug)]
pub struct Announcer {
    socket: Apart,
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
    frames: Vec<Frames>,
    /// `None` where the kernel has no IPv6.
    forwarding: Option<Forwarding>,
}

/// The frames of one address.
#[derive(Debug)]
enum Frames {
    V4 { request: Frame, reply: Frame },
    V6 { host: nd::Frame, router: nd::Frame },
}

impl Announcer {
    /// Prepares to announce `addresses` at `mac` on `interface`, whose index is `index`.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed).
    pub fn open(
        interface: &str,
        index: u32,
        mac: [u8; 6],
        addresses: &[IpAddr],
    ) -> io::Result<Self> {
        // Protocol 0: this socket receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.bind(&link_address(index, 0)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Apart::new(socket),
            mac,
            addresses: addresses.to_vec(),
            frames: frames(mac, addresses)?,
            forwarding: Forwarding::open(interface).ok(),
        })
    }

    /// Announces at `mac` from here on; says whether that is another one than before.
    ///
    /// # Errors
    /// None in practice: an address that fits no frame.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> io::Result<bool> {
        if mac == self.mac {
            return Ok(false);
        }
        self.frames = frames(mac, &self.addresses)?;
        self.mac = mac;
        Ok(true)
    }

    /// Sends `count` frames for each address, and says how many went out: by IPv4 requests and
    /// replies by turns, by IPv6 advertisements.
    ///
    /// # Errors
    /// The kernel's refusal of the first frame it refused.
    pub fn announce(&self, count: u8) -> io::Result<u64> {
        let mut sent = 0;
        for frames in &self.frames {
            for turn in 0..count {
                let frame: &[u8] = match frames {
                    Frames::V4 { request, .. } if turn % 2 == 0 => request,
                    Frames::V4 { reply, .. } => reply,
                    Frames::V6 { router, .. } if self.forwards() => router,
                    Frames::V6 { host, .. } => host,
                };
                self.socket.get()?.send(frame)?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    fn forwards(&self) -> bool {
        self.forwarding.as_ref().is_some_and(Forwarding::is_on)
    }
}

fn frames(mac: [u8; 6], addresses: &[IpAddr]) -> io::Result<Vec<Frames>> {
    let both = |address: &IpAddr| match *address {
        IpAddr::V4(address) => Some(Frames::V4 {
            request: frame(mac, address, ArpOperations::Request)?,
            reply: frame(mac, address, ArpOperations::Reply)?,
        }),
        IpAddr::V6(address) => Some(Frames::V6 {
            host: nd::frame(mac, address, false)?,
            router: nd::frame(mac, address, true)?,
        }),
    };
    let all = addresses
        .iter()
        .map(|address| both(address).ok_or_else(too_short));
    all.collect()
}

fn too_short() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// One gratuitous ARP frame. Request: sender and target address are ours, the target's hardware
/// address is unknown. Reply: likewise, sent to everyone.
#[must_use]
pub fn frame(mac: [u8; 6], address: Ipv4Addr, operation: ArpOperation) -> Option<Frame> {
    let mut bytes = [0; FRAME_BYTES];
    let mac = MacAddr::from(mac);
    let mut ethernet = MutableEthernetPacket::new(&mut bytes)?;
    ethernet.set_destination(MacAddr::broadcast());
    // TODO-correctness(RFC 9568 §7.3): the interface's own address instead of the virtual router's.
    ethernet.set_source(mac);
    ethernet.set_ethertype(EtherTypes::Arp);
    let (_, payload) = bytes.split_at_mut_checked(ETHERNET_BYTES)?;
    let mut arp = MutableArpPacket::new(payload)?;
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(address);
    arp.set_target_hw_addr(MacAddr::broadcast());
    arp.set_target_proto_addr(address);
    Some(bytes)
}

/// The address of a link: what an AF_PACKET socket is bound to, with the Ethernet protocol that it
/// receives (0: nothing).
pub(super) fn link_address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address of this platform that fits the storage, and every
    // bit pattern, all zero to begin with, is a valid one.
    let link: &mut sockaddr_ll = unsafe { storage.view_as() };
    link.sll_family = u16::try_from(libc::AF_PACKET).map_err(too_large)?;
    link.sll_protocol = protocol.to_be();
    link.sll_ifindex = i32::try_from(index).map_err(too_large)?;
    let length = socklen_t::try_from(size_of::<sockaddr_ll>()).map_err(too_large)?;
    // SAFETY: the storage holds an initialised `sockaddr_ll`, and `length` is its length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(frame: Frame) -> String {
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_request_form_is_byte_for_byte_that_of_keepalived() {
        let mac = [2, 0, 0, 0, 0, 3];
        let vip = Ipv4Addr::new(172, 16, 0, 10);
        assert_eq!(
            hex(frame(mac, vip, ArpOperations::Request).unwrap()),
            "ffffffffffff0200000000030806000108000604\
             0001020000000003ac10000affffffffffffac10000a"
        );
        assert_eq!(
            hex(frame(mac, vip, ArpOperations::Reply).unwrap()),
            "ffffffffffff0200000000030806000108000604\
             0002020000000003ac10000affffffffffffac10000a"
        );
    }
}
