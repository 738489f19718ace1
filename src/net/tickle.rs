//! Bare TCP ACK packets from a virtual address, through raw sockets: no socket of this host need
//! know of the connection. The client's kernel answers one that doesn't fit with an ACK of its own
//! (RFC 9293 §3.10.7.4), which finds no connection here and is answered with RST.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const TCP: u8 = 6;
const TCP_BYTES: usize = 20;
const TTL: u8 = 64;
/// Raw sockets of this protocol are given the IP header by us, and receive nothing.
const IPPROTO_RAW: i32 = 255;

/// Wakes clients.
#[derive(Debug)]
pub struct Tickler {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Tickler {
    /// Opens what this host has.
    ///
    /// # Errors
    /// When neither family can be had: `CAP_NET_RAW` is needed.
    pub fn open() -> io::Result<Self> {
        let raw = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let v4 = raw(Domain::IPV4);
        let v6 = raw(Domain::IPV6).ok();
        match (v4, v6) {
            (Err(error), None) => Err(error),
            (v4, v6) => Ok(Self { v4: v4.ok(), v6 }),
        }
    }

    /// Sends the client a packet that its connection doesn't expect.
    ///
    /// # Errors
    /// What the kernel says; a full send buffer is an error too.
    pub fn wake(&self, vip: SocketAddr, client: SocketAddr) -> io::Result<()> {
        let to = SockAddr::from(SocketAddr::new(client.ip(), 0));
        let sent = match (vip.ip(), client.ip()) {
            (IpAddr::V4(from), IpAddr::V4(towards)) => {
                let socket = self.v4.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                let packet = packet_v4(from, vip.port(), towards, client.port());
                socket.send_to(&packet, &to)
            }
            (IpAddr::V6(from), IpAddr::V6(towards)) => {
                let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                let packet = packet_v6(from, vip.port(), towards, client.port());
                socket.send_to(&packet, &to)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        };
        sent.map(|_| ())
    }
}

/// The kernel fills in identification and header checksum.
fn packet_v4(vip: Ipv4Addr, port: u16, client: Ipv4Addr, client_port: u16) -> [u8; 40] {
    let mut packet = [0; 40];
    let (header, tcp) = packet.split_at_mut(20);
    put(header, 0, &[0x45, 0, 0, 40, 0, 0, 0x40, 0, TTL, TCP]);
    put(header, 12, &vip.octets());
    put(header, 16, &client.octets());
    let pseudo = sum(&vip.octets()) + sum(&client.octets());
    put(tcp, 0, &segment(port, client_port, pseudo));
    packet
}

fn packet_v6(vip: Ipv6Addr, port: u16, client: Ipv6Addr, client_port: u16) -> [u8; 60] {
    let mut packet = [0; 60];
    let (header, tcp) = packet.split_at_mut(40);
    put(header, 0, &[0x60, 0, 0, 0, 0, 20, TCP, TTL]);
    put(header, 8, &vip.octets());
    put(header, 24, &client.octets());
    let pseudo = sum(&vip.octets()) + sum(&client.octets());
    put(tcp, 0, &segment(port, client_port, pseudo));
    packet
}

/// An ACK with numbers that no connection expects but by chance; in that case, too, it is only an
/// acknowledgement of something old.
fn segment(port: u16, client_port: u16, pseudo: u32) -> [u8; TCP_BYTES] {
    let mut segment = [0; TCP_BYTES];
    put(&mut segment, 0, &port.to_be_bytes());
    put(&mut segment, 2, &client_port.to_be_bytes());
    put(&mut segment, 12, &[5 << 4, 0x10]);
    let length = 20;
    let mut total = pseudo + u32::from(TCP) + length + sum(&segment);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let checksum = !u16::try_from(total).unwrap_or(u16::MAX);
    put(&mut segment, 16, &checksum.to_be_bytes());
    segment
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in into.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// The sum of 16-bit words; all lengths here are even.
fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_a_bare_ack_with_the_right_sums() {
        let v4 = packet_v4(
            Ipv4Addr::new(172, 16, 0, 10),
            6443,
            Ipv4Addr::new(172, 16, 0, 100),
            40_000,
        );
        let hex: String = v4.iter().map(|byte| format!("{byte:02x}")).collect();
        // The TCP checksum worked out by hand: ac10+000a+ac10+0064+0006+0014+192b+9c40+5010.
        let expected = "450000280000400040060000ac10000aac100064\
                        192b9c40000000000000000050100000a1da0000";
        assert_eq!(hex, expected);
        let v6 = packet_v6(
            "fd00::10".parse().unwrap(),
            6443,
            "fd00::100".parse().unwrap(),
            40_000,
        );
        let hex: String = v6.iter().map(|byte| format!("{byte:02x}")).collect();
        // fd00+0010+fd00+0100+0006+0014+192b+9c40+5010.
        let expected = "6000000000140640fd000000000000000000000000000010\
                        fd000000000000000000000000000100\
                        192b9c40000000000000000050100000ff570000";
        assert_eq!(hex, expected);
    }
}
