//! What this machine is in the configuration: its node, interface and source address in each
//! virtual router. Pure: the facts come in as values (`net::netlink::host_facts` reads them).

use std::net::IpAddr;

use super::model::{Vip, VipAddress};

/// What the kernel says about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// Every interface of this network namespace.
    pub interfaces: Vec<InterfaceFacts>,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Administratively up and with carrier.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<VipAddress>,
}

/// A virtual router as this node takes part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalVip {
    /// The configuration.
    pub vip: Vip,
    /// This node's position in `vip.nodes`.
    pub me: usize,
    /// The interface that carries it here.
    pub interface: String,
    /// The source of this node's adverts: its address in `nodes`.
    pub source: IpAddr,
}
