//! The wire of the laboratory: a bridge in a namespace of its own, and a cable to each host.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::rtnl::{Peer, Rtnl};
use super::{Namespace, cannot};

/// What a host's end of a cable looks like.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// The host's name: names the bridge's end (at most 15 bytes).
    pub host: &'a str,
    /// The interface's name on the host.
    pub interface: &'a str,
    /// The host's address.
    pub ip: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
}

/// A switch.
#[derive(Debug)]
pub struct Wire {
    // Holds the bridge; dropped last.
    rtnl: Rtnl,
    bridge: u32,
    ports: BTreeMap<String, u32>,
    namespace: Namespace,
}

impl Wire {
    /// Makes an empty one.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; what rtnetlink says.
    pub fn new() -> io::Result<Self> {
        let namespace = Namespace::new(&[])?;
        let mut rtnl = namespace.rtnl()?;
        let bridge = rtnl
            .add_bridge("wire")
            .map_err(cannot("add a bridge (the kernel's bridge module)"))?;
        rtnl.set_up(bridge, true)?;
        Ok(Self {
            rtnl,
            bridge,
            ports: BTreeMap::new(),
            namespace,
        })
    }

    /// The bridge's namespace, for those who listen in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Joins a host to the wire and gives it its address.
    ///
    /// # Errors
    /// EEXIST when the host is joined already; what rtnetlink says.
    pub fn attach(&mut self, host: &Namespace, plug: &Plug<'_>) -> io::Result<()> {
        let octets = match plug.ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                [a, b, c, d]
            }
        };
        let [a, b, c, d] = octets;
        let peer = Peer {
            name: plug.interface,
            namespace: host.net(),
            mac: [0x02, 0x00, a, b, c, d],
        };
        let port = self
            .rtnl
            .add_veth(plug.host, &peer)
            .map_err(cannot("add a cable (the kernel's veth module)"))?;
        self.rtnl.set_controller(port, self.bridge)?;
        self.rtnl.set_up(port, true)?;
        let mut inside = host.rtnl()?;
        let interface = inside.link_index(plug.interface)?;
        inside.set_up(interface, true)?;
        inside.add_address(interface, plug.ip, plug.prefix)?;
        self.ports.insert(plug.host.to_owned(), port);
        Ok(())
    }

    /// Pulls a host's cable out, or puts it back: its interface loses or finds its carrier.
    ///
    /// # Errors
    /// ENODEV for a host that was never joined.
    pub fn plug(&mut self, host: &str, plugged: bool) -> io::Result<()> {
        let port = self.port(host)?;
        self.rtnl.set_up(port, plugged)
    }

    /// Takes a host off the switch, or puts it back, without its noticing: its interface keeps its
    /// carrier, and no frame passes.
    ///
    /// # Errors
    /// ENODEV for a host that was never joined.
    pub fn bridge(&mut self, host: &str, bridged: bool) -> io::Result<()> {
        let port = self.port(host)?;
        let bridge = if bridged { self.bridge } else { 0 };
        self.rtnl.set_controller(port, bridge)
    }

    fn port(&self, host: &str) -> io::Result<u32> {
        let port = self.ports.get(host).copied();
        port.ok_or_else(|| nix::Error::ENODEV.into())
    }
}
