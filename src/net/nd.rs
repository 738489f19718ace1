//! Unsolicited Neighbor Advertisements (RFC 4861 §7.2.6, RFC 9568 §6.4.1): the frames that tell a
//! LAN where an IPv6 address is now, and whether this host forwards. `arp` sends them.

use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::fs::FileExt;

use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::util::ipv6_checksum;

const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const ADVERTISEMENT_BYTES: usize = 32;
const FRAME_BYTES: usize = ETHERNET_BYTES + IPV6_BYTES + ADVERTISEMENT_BYTES;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// An Ethernet frame that announces an IPv6 address.
pub type Frame = [u8; FRAME_BYTES];

/// One advertisement of `address` at `mac`, unasked for, to all nodes of the link. `router` says
/// that its sender forwards packets: hosts drop a default router that stops to say so.
#[must_use]
pub fn frame(mac: [u8; 6], address: Ipv6Addr, router: bool) -> Option<Frame> {
    let flags = OVERRIDE | if router { ROUTER } else { 0 };
    let mut message = Vec::with_capacity(ADVERTISEMENT_BYTES);
    message.extend([136, 0, 0, 0, flags, 0, 0, 0]);
    message.extend(address.octets());
    // Target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac);
    let sum = ipv6_checksum(
        &message,
        1,
        &[],
        &address,
        &ALL_NODES,
        IpNextHeaderProtocols::Icmpv6,
    );
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());

    let mut all = Vec::with_capacity(FRAME_BYTES);
    // From the interface's own address, as in `arp`.
    all.extend(ALL_NODES_MAC.iter().chain(&mac));
    all.extend([0x86, 0xdd]);
    all.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    all.extend(address.octets());
    all.extend(ALL_NODES.octets());
    all.extend(message);
    all.try_into().ok()
}

/// Whether an interface forwards IPv6 packets, as the kernel says at each moment.
#[derive(Debug)]
pub struct Forwarding(File);

impl Forwarding {
    /// Opens the switch of `interface` in this thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says: `NotFound` without IPv6.
    pub fn open(interface: &str) -> io::Result<Self> {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/forwarding");
        File::open(path).map(Self)
    }

    /// Its position now. One that can't be read is off.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let mut digit = [0];
        // An interface that was made anew leaves a switch that says nothing.
        matches!(self.0.read_at(&mut digit, 0), Ok(1)) && digit != *b"0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(frame: Frame) -> String {
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_advertisement_is_byte_for_byte_that_of_keepalived() {
        let mac = [2, 0, 0, 0, 0, 3];
        let vip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
        assert_eq!(
            hex(frame(mac, vip, false).unwrap()),
            "33330000000102000000000386dd6000000000203aff\
             fe800000000000000000000000000010ff020000000000000000000000000001\
             8800577b20000000fe8000000000000000000000000000100201020000000003"
        );
    }

    #[test]
    fn a_router_says_so() {
        let vip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
        let frame = frame([2, 0, 0, 0, 0, 3], vip, true).unwrap();
        // 0x577b less the router flag of 0x8000, in one's complement.
        assert_eq!(frame[56..62], [0xd7, 0x7a, 0xa0, 0, 0, 0]);
    }

    #[test]
    fn the_loopback_s_switch_can_be_read() {
        if let Ok(switch) = Forwarding::open("lo") {
            let text = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/forwarding").unwrap();
            assert_eq!(switch.is_on(), text.trim() != "0");
        }
        assert!(Forwarding::open("no-such-link").is_err());
    }
}
