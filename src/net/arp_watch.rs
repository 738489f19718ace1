//! Who else has an address? ARP probes (RFC 5227 §2.1.1) through AF_PACKET, and the ears for the
//! answers. A socket filter lets only frames through that come from another host and speak for an
//! address of interest, so that reading is rare and bounded.

use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::ops::Range;

use pnet::packet::arp::{ArpOperations, ArpPacket, MutableArpPacket};
use pnet::packet::ethernet::EtherTypes;
use pnet::util::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::arp::{self, ETHERNET_BYTES, Frame};
use super::closing::Apart;

/// Room for some dozen frames: what doesn't fit is said again.
const BUFFER_BYTES: usize = 16 * 1024;
/// Every frame of interest fits; a longer one is cut.
const FRAME_MAX: usize = 64;

/// Where our hardware address stands in a frame: before Ethernet's type, and in ARP itself.
const SOURCE: Range<usize> = 6..12;
const SENDER_MAC: Range<usize> = 22..28;

/// Asks and listens on one link.
#[derive(Debug)]
pub struct Watcher {
    socket: Apart,
    probes: Vec<Frame>,
    greetings: Vec<Frame>,
}

/// Somebody spoke for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The address.
    pub address: Ipv4Addr,
    /// Where it is, by what was said.
    pub mac: [u8; 6],
}

impl Watcher {
    /// Watches `virtuals` and `nodes` on the interface with this index, whose hardware address is
    /// `mac`; `me` is this node's own address.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed).
    pub fn open(
        index: u32,
        mac: [u8; 6],
        me: Ipv4Addr,
        virtuals: &[Ipv4Addr],
        nodes: &[Ipv4Addr],
    ) -> io::Result<Self> {
        let all = || virtuals.iter().chain(nodes);
        // Protocol 0 until the filter is there: nothing slips in before.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(&filter(all())?)?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        socket.bind(&arp::link_address(index, EtherTypes::Arp.0)?)?;
        let request = |sender: Ipv4Addr, target: &Ipv4Addr| {
            request(mac, sender, *target).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let probe = |target| request(Ipv4Addr::UNSPECIFIED, target);
        Ok(Self {
            socket: Apart::new(socket),
            probes: all().map(probe).collect::<io::Result<_>>()?,
            greetings: nodes
                .iter()
                .map(|target| request(me, target))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Asks from another hardware address from here on.
    pub fn set_mac(&mut self, mac: [u8; 6]) {
        for frame in self.probes.iter_mut().chain(&mut self.greetings) {
            for field in [SOURCE, SENDER_MAC] {
                if let Some(field) = frame.get_mut(field) {
                    field.copy_from_slice(&mac);
                }
            }
        }
    }

    /// Asks for every address without saying who asks, so that no neighbour table changes.
    ///
    /// # Errors
    /// The kernel's refusal of the first frame it refused.
    pub fn probe(&self) -> io::Result<()> {
        self.send(&self.probes)
    }

    /// Asks for each node and says who asks: its kernel knows the way back from then on.
    ///
    /// # Errors
    /// As for [`probe`](Self::probe).
    pub fn greet(&self) -> io::Result<()> {
        self.send(&self.greetings)
    }

    fn send(&self, frames: &[Frame]) -> io::Result<()> {
        let mut all = frames.iter();
        let socket = self.socket.get()?;
        all.try_for_each(|frame| socket.send(frame).map(|_| ()))
    }

    /// One sighting; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> io::Result<Option<Sighting>> {
        let mut frame = [0; FRAME_MAX];
        match self.socket.get()?.read(&mut frame) {
            Ok(length) => Ok(frame.get(..length).and_then(sighting)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn sighting(frame: &[u8]) -> Option<Sighting> {
    let arp = ArpPacket::new(frame.get(ETHERNET_BYTES..)?)?;
    Some(Sighting {
        address: arp.get_sender_proto_addr(),
        mac: arp.get_sender_hw_addr().octets(),
    })
}

/// A request for `target`; from 0.0.0.0 it is a probe.
fn request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Option<Frame> {
    let mut frame = arp::frame(mac, sender, ArpOperations::Request)?;
    let mut arp = MutableArpPacket::new(frame.get_mut(ETHERNET_BYTES..)?)?;
    arp.set_target_hw_addr(MacAddr::zero());
    arp.set_target_proto_addr(target);
    Some(frame)
}

/// Frames that somebody else sent for one of `addresses`.
fn filter<'a>(addresses: impl Iterator<Item = &'a Ipv4Addr>) -> io::Result<Vec<SockFilter>> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`.
    const PACKET_TYPE: u32 = 0xffff_f004;
    /// `PACKET_OUTGOING`.
    const OUTGOING: u32 = 4;
    /// Where the sender's protocol address stands in the frame.
    const SENDER: u32 = 28;
    let addresses: Vec<u32> = addresses.map(|ip| u32::from(*ip)).collect();
    // Each comparison jumps over the rest and the last `RETURN 0`; the farthest is 255 away.
    let far = u8::try_from(addresses.len()).map_err(|_many| io::ErrorKind::InvalidInput)?;
    let mut program = vec![
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(IF_EQUAL, 0, 1, OUTGOING),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(LOAD_WORD, 0, 0, SENDER),
    ];
    for (left, address) in (0..far).rev().zip(addresses) {
        program.push(SockFilter::new(IF_EQUAL, left + 1, 0, address));
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_nothing_of_its_sender_but_the_hardware_address() {
        let target = Ipv4Addr::new(172, 16, 0, 10);
        let frame = request([2, 0, 0, 0, 0, 3], Ipv4Addr::UNSPECIFIED, target).unwrap();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "ffffffffffff0200000000030806000108000604\
             000102000000000300000000000000000000ac10000a"
        );
    }

    #[test]
    fn a_reply_says_where_an_address_is() {
        let address = Ipv4Addr::new(172, 16, 0, 10);
        let frame = arp::frame([2, 0, 0, 0, 0, 9], address, ArpOperations::Reply).unwrap();
        let mac = [2, 0, 0, 0, 0, 9];
        assert_eq!(sighting(&frame), Some(Sighting { address, mac }));
        for end in 0..frame.len() {
            assert_eq!(sighting(&frame[..end]), None, "{end}");
        }
    }
}
