//! A route that makes this host receive for an address it doesn't have: what is sent to it is
//! delivered, and connections to it go on, while no routing daemon sees an address any more.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Netlink, Prepared};

/// Who made the route, `rtm_protocol`: as with addresses, so that people see it.
const PROTOCOL: u8 = super::address::PROTOCOL;
/// Behind the route that belongs to the address itself, while there is one.
const METRIC: u32 = 0x6c;

/// The local route to one address.
#[derive(Debug)]
pub struct LocalRoute {
    add: Prepared,
    delete: Prepared,
}

impl LocalRoute {
    /// Prepares it; `loopback` is the index of `lo`.
    #[must_use]
    pub fn new(address: IpAddr, loopback: u32) -> Self {
        let message = message(address, loopback);
        let add = RouteNetlinkMessage::NewRoute(message.clone());
        Self {
            add: Prepared::new(add, NLM_F_CREATE | NLM_F_REPLACE),
            delete: Prepared::new(RouteNetlinkMessage::DelRoute(message), 0),
        }
    }

    /// Adds it; that it is there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        netlink.request(&mut self.add)
    }

    /// Removes it; whether it was there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&mut self, netlink: &mut Netlink) -> io::Result<bool> {
        match netlink.request(&mut self.delete) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(address: IpAddr, loopback: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, length, destination) = match address {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.table = libc::RT_TABLE_LOCAL;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes = vec![
        RouteAttribute::Destination(destination),
        RouteAttribute::Oif(loopback),
        RouteAttribute::Priority(METRIC),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::VipAddress;
    use crate::net::address::Lease;
    use crate::net::netns::Namespace;
    use std::net::{TcpListener, TcpStream};

    /// 1 is the index of `lo` in every namespace.
    const LO: u32 = 1;

    #[test]
    fn what_was_an_address_still_receives_and_is_gone_afterwards() {
        let Ok(host) = Namespace::new(&[]) else {
            eprintln!("skipped: no namespaces here");
            return;
        };
        for ip in ["10.1.1.10", "fd00:1::10"] {
            let ip: IpAddr = ip.parse().unwrap();
            host.run(|| serves_on(ip)).unwrap();
        }
    }

    fn serves_on(ip: IpAddr) {
        let mut netlink = Netlink::open().unwrap();
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let mut lease = Lease::new(VipAddress { ip, prefix }, LO, None);
        let mut route = LocalRoute::new(ip, LO);
        lease.hold(&mut netlink).unwrap();
        let listener = (0..100)
            // IPv6 addresses are tentative for a moment.
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                TcpListener::bind((ip, 6443)).ok()
            })
            .unwrap();
        let before = TcpStream::connect((ip, 6443)).unwrap();

        route.add(&mut netlink).unwrap();
        route.add(&mut netlink).unwrap();
        lease.release(&mut netlink).unwrap();
        let there = netlink.addresses().unwrap();
        assert!(there.iter().all(|found| found.address.ip != ip));
        // A connection from before goes on, and a new one is made.
        let (mut accepted, _) = listener.accept().unwrap();
        talk(&before, &mut accepted);
        let after = TcpStream::connect((ip, 6443)).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        talk(&after, &mut accepted);

        assert!(route.remove(&mut netlink).unwrap());
        assert!(!route.remove(&mut netlink).unwrap());
        assert!(TcpStream::connect((ip, 6443)).is_err());
    }

    fn talk(mut client: &TcpStream, server: &mut TcpStream) {
        use std::io::{Read, Write};
        client.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).unwrap();
        server.write_all(&heard).unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
}
