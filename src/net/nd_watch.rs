//! Who has an IPv6 address? Neighbor Solicitations (RFC 4861 §7.2.2) through AF_PACKET, and the
//! ears for the answers. They name who asks: one from the unspecified address would be a question
//! of duplicate address detection, and make a host give up an address that it is just taking.

use std::io::{self, Read};
use std::net::Ipv6Addr;

use pnet::packet::ethernet::EtherTypes;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::util::ipv6_checksum;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::arp::{self, ETHERNET_BYTES};

const IPV6_BYTES: usize = 40;
const MESSAGE_BYTES: usize = 32;
/// Where ICMPv6 begins, its target, and its options.
const ICMP: usize = ETHERNET_BYTES + IPV6_BYTES;
const TARGET: usize = ICMP + 8;
const OPTIONS: usize = TARGET + 16;
const FRAME_BYTES: usize = ICMP + MESSAGE_BYTES;
const ADVERTISEMENT: u8 = 136;
const SOLICITATION: u8 = 135;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// Hosts drop what has crossed a router (§7.1).
const HOP_LIMIT: u8 = 255;

/// Room for some dozen frames: what doesn't fit is said again.
const BUFFER_BYTES: usize = 16 * 1024;
/// Every option of interest comes first; a longer frame is cut.
const FRAME_MAX: usize = 256;

type Frame = [u8; FRAME_BYTES];

/// Asks and listens on one link.
#[derive(Debug)]
pub struct NeighborWatcher {
    socket: Socket,
    questions: Vec<Frame>,
    addresses: Vec<Ipv6Addr>,
}

impl NeighborWatcher {
    /// Watches `addresses` on the interface with this index, whose hardware address is `mac`; `me`
    /// is this node's own address there.
    ///
    /// # Errors
    /// What the kernel says (`CAP_NET_RAW` is needed).
    pub fn open(
        index: u32,
        mac: [u8; 6],
        me: Ipv6Addr,
        addresses: Vec<Ipv6Addr>,
    ) -> io::Result<Self> {
        let question =
            |target| solicitation(mac, me, target).ok_or_else(|| io::ErrorKind::InvalidData.into());
        // Protocol 0 until the filter is there: nothing slips in before.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(&filter())?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        socket.bind(&arp::link_address(index, EtherTypes::Ipv6.0)?)?;
        Ok(Self {
            socket,
            questions: addresses
                .iter()
                .map(|target| question(*target))
                .collect::<io::Result<_>>()?,
            addresses,
        })
    }

    /// Asks for every address.
    ///
    /// # Errors
    /// The kernel's refusal of the first frame it refused.
    pub fn ask(&self) -> io::Result<()> {
        let mut all = self.questions.iter();
        all.try_for_each(|frame| self.socket.send(frame).map(|_| ()))
    }

    /// An address and where it is, by what was said; `None` when nothing more was.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> io::Result<Option<(Ipv6Addr, [u8; 6])>> {
        let mut frame = [0; FRAME_MAX];
        loop {
            match (&self.socket).read(&mut frame) {
                Ok(length) => {
                    let said = frame.get(..length).and_then(advertised);
                    let ours = said.filter(|(address, _)| self.addresses.contains(address));
                    if ours.is_some() {
                        return Ok(ours);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A question for `target` from `me` at `mac`, to all who could have it.
fn solicitation(mac: [u8; 6], me: Ipv6Addr, target: Ipv6Addr) -> Option<Frame> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut message = Vec::with_capacity(MESSAGE_BYTES);
    message.extend([SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(target.octets());
    message.extend([SOURCE_LINK, 1]);
    message.extend(mac);
    let sum = ipv6_checksum(&message, 1, &[], &me, &group, IpNextHeaderProtocols::Icmpv6);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());

    let mut all = Vec::with_capacity(FRAME_BYTES);
    all.extend([0x33, 0x33, 0xff, a, b, c]);
    all.extend(mac);
    all.extend([0x86, 0xdd]);
    all.extend([0x60, 0, 0, 0, 0, 32, 58, HOP_LIMIT]);
    all.extend(me.octets());
    all.extend(group.octets());
    all.extend(message);
    all.try_into().ok()
}

/// What an advertisement says. Its sender's hardware address counts where it names none (§4.4).
fn advertised(frame: &[u8]) -> Option<(Ipv6Addr, [u8; 6])> {
    if *frame.get(ICMP)? != ADVERTISEMENT || *frame.get(ETHERNET_BYTES + 7)? != HOP_LIMIT {
        return None;
    }
    let address: [u8; 16] = frame.get(TARGET..OPTIONS)?.try_into().ok()?;
    let mut options = frame.get(OPTIONS..).unwrap_or_default();
    let mut mac = frame.get(6..12)?;
    while let [kind, units, ..] = options {
        // A length of zero makes the packet invalid (§4.6).
        let length = usize::from(*units) * 8;
        if length == 0 {
            return None;
        }
        if let (TARGET_LINK, Some(named)) = (*kind, options.get(2..8)) {
            mac = named;
            break;
        }
        options = options.get(length..).unwrap_or_default();
    }
    Some((Ipv6Addr::from(address), mac.try_into().ok()?))
}

/// Advertisements that somebody else sent, without extension headers: neighbour discovery has none.
fn filter() -> [SockFilter; 8] {
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`.
    const PACKET_TYPE: u32 = 0xffff_f004;
    /// `PACKET_OUTGOING`.
    const OUTGOING: u32 = 4;
    /// Where the next header's number and ICMPv6's type stand in the frame.
    const NEXT_HEADER: u32 = 20;
    const TYPE: u32 = 54;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(IF_EQUAL, 4, 0, OUTGOING),
        SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
        SockFilter::new(IF_EQUAL, 0, 2, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, TYPE),
        SockFilter::new(IF_EQUAL, 1, 0, u32::from(ADVERTISEMENT)),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::nd;
    use super::*;

    const ME: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x16, 0, 0, 0, 0, 0, 2);
    const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x16, 0, 0, 0, 0, 0xab, 0xcdef);

    #[test]
    fn a_question_names_who_asks_and_goes_to_the_group_of_the_address() {
        let frame = solicitation([2, 0, 0, 0, 0, 3], ME, VIP).unwrap();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "3333ffabcdef02000000000386dd6000000000203aff\
             fd000016000000000000000000000002ff0200000000000000000001ffabcdef\
             8700e03600000000fd000016000000000000000000abcdef0101020000000003"
        );
    }

    #[test]
    fn an_advertisement_says_where_an_address_is() {
        let mac = [2, 0, 0, 0, 0, 9];
        let mut frame = nd::frame(mac, VIP, false).unwrap().to_vec();
        assert_eq!(advertised(&frame), Some((VIP, mac)));
        for end in 0..OPTIONS {
            assert_eq!(advertised(&frame[..end]), None, "{end}");
        }
        // Without the option its sender counts.
        assert_eq!(advertised(&frame[..OPTIONS]), Some((VIP, mac)));
        frame[OPTIONS] = 14;
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        assert_eq!(advertised(&frame), Some((VIP, [2, 0, 0, 0, 0, 7])));
        frame[OPTIONS + 1] = 0;
        assert_eq!(advertised(&frame), None);
    }

    #[test]
    fn what_crossed_a_router_and_what_is_no_advertisement_says_nothing() {
        let frame = nd::frame([2, 0, 0, 0, 0, 9], VIP, false).unwrap();
        for (at, value) in [(ETHERNET_BYTES + 7, 254), (ICMP, SOLICITATION)] {
            let mut other = frame.to_vec();
            other[at] = value;
            assert_eq!(advertised(&other), None);
        }
    }
}
