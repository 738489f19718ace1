//! What this machine is in the configuration: its node, interface and source address in each
//! virtual router. Pure: the facts come in as values (`net::netlink::host_facts` reads them).

use std::net::IpAddr;

use super::model::{Config, Node, Vip, VipAddress};

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

impl LocalVip {
    /// Whether other nodes take both for one virtual router (RFC 9568 §1.6): the same VRID on the
    /// same LAN, by the same family.
    #[must_use]
    pub fn is_same_router(&self, other: &Self) -> bool {
        self.interface == other.interface
            && self.vip.vrid == other.vip.vrid
            && self.source.is_ipv4() == other.source.is_ipv4()
    }
}

/// Why a configuration can't be used as a given node. The operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// No address of this machine is in `nodes`.
    #[error("this machine is not among the nodes of `vip.{vip}`")]
    NotANode {
        /// The VIP's name.
        vip: String,
    },
    /// Several addresses of this machine are in `nodes`.
    #[error("this machine is several nodes of `vip.{vip}`: {nodes}; say which with --node")]
    SeveralNodes {
        /// The VIP's name.
        vip: String,
        /// Their labels, for people.
        nodes: String,
    },
    /// `--node` names none of `nodes`.
    #[error("`vip.{vip}` has no node `{node}`; it has {nodes}")]
    NoSuchNode {
        /// The VIP's name.
        vip: String,
        /// What was asked for.
        node: String,
        /// Their labels, for people.
        nodes: String,
    },
    /// The configured interface is not here.
    #[error("`vip.{vip}`: no interface `{interface}` on this machine{instead}")]
    NoInterface {
        /// The VIP's name.
        vip: String,
        /// The missing interface.
        interface: String,
        /// Where the node's address is, or nothing.
        instead: String,
    },
    /// No interface is configured, and none has the node's address.
    #[error("`vip.{vip}`: no interface of this machine has the node's address {address}")]
    NoAddress {
        /// The VIP's name.
        vip: String,
        /// The node's address.
        address: IpAddr,
    },
    /// A link-local address says on its own on which link it is; several interfaces have it.
    #[error("`vip.{vip}`: {address} is on {interfaces}; say which with `interface`")]
    SeveralInterfaces {
        /// The VIP's name.
        vip: String,
        /// The node's address.
        address: IpAddr,
        /// Their names, for people.
        interfaces: String,
    },
}

impl LocalError {
    /// Whether it may come right by itself: an address or an interface that isn't there yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotANode { .. } | Self::NoInterface { .. } | Self::NoAddress { .. } => true,
            Self::SeveralNodes { .. }
            | Self::NoSuchNode { .. }
            | Self::SeveralInterfaces { .. } => false,
        }
    }
}

impl HostFacts {
    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&InterfaceFacts> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    /// The interface that has `address`.
    #[must_use]
    pub fn interface_with(&self, address: IpAddr) -> Option<&InterfaceFacts> {
        let has = |i: &&InterfaceFacts| i.addresses.iter().any(|own| own.ip == address);
        self.interfaces.iter().find(has)
    }

    /// Its addresses with their interfaces, for people: `172.16.0.2 on eth0, 10.8.0.2 on eth1`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        for interface in &self.interfaces {
            let addresses = interface.addresses.iter().map(|address| address.ip);
            let worthwhile = addresses.filter(|ip| !ip.is_loopback() && !is_link_local(*ip));
            parts.extend(worthwhile.map(|ip| format!("{ip} on {}", interface.name)));
        }
        if parts.is_empty() {
            return "no address".to_owned();
        }
        parts.join(", ")
    }
}

/// Every VIP of `config` as this machine takes part in it. `as_node`, a node's name or address,
/// says which node this is where the addresses don't.
///
/// # Errors
/// Every reason why it can't take part, one per VIP.
pub fn resolve(
    config: &Config,
    facts: &HostFacts,
    as_node: Option<&str>,
) -> Result<Vec<LocalVip>, Vec<LocalError>> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for vip in &config.vips {
        match one(vip, facts, as_node) {
            Ok(local) => found.push(local),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(found)
    } else {
        Err(errors)
    }
}

/// One VIP as this machine takes part in it.
///
/// # Errors
/// Why it can't.
pub fn one(vip: &Vip, facts: &HostFacts, as_node: Option<&str>) -> Result<LocalVip, LocalError> {
    let me = me(vip, facts, as_node)?;
    let not_a_node = || LocalError::NotANode {
        vip: vip.name.clone(),
    };
    let node = vip.nodes.get(me).ok_or_else(not_a_node)?;
    let holder = holder(vip, node, facts);
    let interface = match node.interface.as_ref().or(vip.interface.as_ref()) {
        Some(name) if facts.interface(name).is_some() => name.clone(),
        Some(name) => {
            return Err(LocalError::NoInterface {
                vip: vip.name.clone(),
                interface: name.clone(),
                instead: holder.map_or_else(String::new, |i| {
                    format!("; {} is on {}", node.address, i.name)
                }),
            });
        }
        None => match holder {
            Some(interface) => {
                one_link(vip, node, facts)?;
                interface.name.clone()
            }
            None => {
                return Err(LocalError::NoAddress {
                    vip: vip.name.clone(),
                    address: node.address,
                });
            }
        },
    };
    Ok(LocalVip {
        vip: vip.clone(),
        me,
        interface,
        source: node.address,
    })
}

/// An IPv6 address that every link may have.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The interface that has the node's address: a link-local one counts on the configured interface
/// alone.
fn holder<'f>(vip: &Vip, node: &Node, facts: &'f HostFacts) -> Option<&'f InterfaceFacts> {
    let configured = node.interface.as_ref().or(vip.interface.as_ref());
    match configured {
        Some(name) if is_link_local(node.address) => facts
            .interface(name)
            .filter(|link| link.addresses.iter().any(|own| own.ip == node.address)),
        Some(_) | None => facts.interface_with(node.address),
    }
}

/// That no second interface has the node's link-local address.
fn one_link(vip: &Vip, node: &Node, facts: &HostFacts) -> Result<(), LocalError> {
    let has = |link: &&InterfaceFacts| link.addresses.iter().any(|own| own.ip == node.address);
    let names: Vec<&str> = facts
        .interfaces
        .iter()
        .filter(has)
        .map(|link| link.name.as_str())
        .collect();
    if names.len() < 2 || !is_link_local(node.address) {
        return Ok(());
    }
    Err(LocalError::SeveralInterfaces {
        vip: vip.name.clone(),
        address: node.address,
        interfaces: names.join(" and "),
    })
}

/// This machine's position in `nodes`.
fn me(vip: &Vip, facts: &HostFacts, as_node: Option<&str>) -> Result<usize, LocalError> {
    let labels = |nodes: &mut dyn Iterator<Item = &Node>| {
        let labels: Vec<String> = nodes.map(Node::label).collect();
        labels.join(", ")
    };
    if let Some(wanted) = as_node {
        return vip.node(wanted).ok_or_else(|| LocalError::NoSuchNode {
            vip: vip.name.clone(),
            node: wanted.to_owned(),
            nodes: labels(&mut vip.nodes.iter()),
        });
    }
    let is_here = |node: &Node| holder(vip, node, facts).is_some();
    let here: Vec<usize> = (0..)
        .zip(&vip.nodes)
        .filter(|(_, n)| is_here(n))
        .map(|(i, _)| i)
        .collect();
    match here.as_slice() {
        [only] => Ok(*only),
        [] => Err(LocalError::NotANode {
            vip: vip.name.clone(),
        }),
        [..] => Err(LocalError::SeveralNodes {
            vip: vip.name.clone(),
            nodes: labels(&mut vip.nodes.iter().filter(|node| is_here(node))),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const PAIR: &str = "[vip.kube]\naddress = \"172.16.0.10/24\"\nnodes = [\"172.16.0.2\", { name = \"lb2\", address = \"172.16.0.3\" }]\n";

    fn facts(interfaces: &[(&str, &str)]) -> HostFacts {
        let interfaces = interfaces
            .iter()
            .zip(1..)
            .map(|((name, ip), index)| InterfaceFacts {
                name: (*name).to_owned(),
                index,
                up: true,
                addresses: vec![VipAddress {
                    ip: ip.parse().unwrap(),
                    prefix: 24,
                }],
            });
        HostFacts {
            interfaces: interfaces.collect(),
        }
    }

    #[test]
    fn a_node_finds_itself_and_its_interface_by_its_address() {
        let config = load(PAIR).unwrap();
        let facts = facts(&[("lo", "127.0.0.1"), ("eth1", "172.16.0.3")]);
        let local = resolve(&config, &facts, None).unwrap();
        assert_eq!(local[0].me, 1);
        assert_eq!(local[0].interface, "eth1");
        assert_eq!(local[0].source, "172.16.0.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_machine_that_is_no_node_is_told_so() {
        let config = load(PAIR).unwrap();
        let errors = resolve(&config, &facts(&[("eth0", "172.16.0.9")]), None).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "this machine is not among the nodes of `vip.kube`"
        );
    }

    #[test]
    fn a_node_can_be_named_or_given_by_address() {
        let config = load(PAIR).unwrap();
        let both = facts(&[("eth0", "172.16.0.2"), ("eth1", "172.16.0.3")]);
        let error = resolve(&config, &both, None).unwrap_err();
        assert_eq!(
            error[0].to_string(),
            "this machine is several nodes of `vip.kube`: 172.16.0.2, lb2; say which with --node"
        );
        assert_eq!(
            resolve(&config, &both, Some("lb2")).unwrap()[0].interface,
            "eth1"
        );
        assert_eq!(
            resolve(&config, &both, Some("172.16.0.2")).unwrap()[0].me,
            0
        );
        assert!(resolve(&config, &both, Some("lb3")).is_err());
    }

    #[test]
    fn each_half_of_a_pair_of_families_finds_its_own_source() {
        let config = load(
            "[vip.kube]\naddress = [\"172.16.0.10/24\", \"fd00:16::10/64\"]\n\
             nodes = [[\"172.16.0.2\", \"fd00:16::2\"], [\"fd00:16::3\", \"172.16.0.3\"]]\n",
        )
        .unwrap();
        let mut facts = facts(&[("eth0", "172.16.0.3"), ("eth1", "172.16.0.9")]);
        let second = VipAddress {
            ip: "fd00:16::3".parse().unwrap(),
            prefix: 64,
        };
        facts.interfaces[0].addresses.push(second);
        for node in [None, Some("172.16.0.3"), Some("fd00:16::3")] {
            let local = resolve(&config, &facts, node).unwrap();
            let sources: Vec<String> = local.iter().map(|half| half.source.to_string()).collect();
            assert_eq!(sources, ["172.16.0.3", "fd00:16::3"]);
            assert!(
                local
                    .iter()
                    .all(|half| half.me == 1 && half.interface == "eth0")
            );
        }
    }

    #[test]
    fn a_link_local_address_counts_on_its_own_interface_alone() {
        let text = "[vip.kube]\naddress = \"fd00:16::10/64\"\nvrid = 60\n\
                    nodes = [\"fe80::2\", \"fe80::3\"]\n";
        let both = facts(&[
            ("eth0", "fe80::2"),
            ("eth1", "fe80::2"),
            ("eth2", "fe80::3"),
        ]);
        let error = resolve(&load(text).unwrap(), &both, Some("fe80::2")).unwrap_err();
        assert_eq!(
            error[0].to_string(),
            "`vip.kube`: fe80::2 is on eth0 and eth1; say which with `interface`"
        );
        let text = format!("{text}interface = \"eth1\"\n");
        let local = resolve(&load(&text).unwrap(), &both, None).unwrap();
        assert_eq!((local[0].me, local[0].interface.as_str()), (0, "eth1"));
    }

    #[test]
    fn a_node_s_own_interface_goes_before_the_vip_s() {
        let text = PAIR
            .replace("nodes", "interface = \"ens3\"\nnodes")
            .replace(
                "address = \"172.16.0.3\"",
                "address = \"172.16.0.3\", interface = \"bond0\"",
            );
        let config = load(&text).unwrap();
        let lb2 = facts(&[("bond0", "172.16.0.3")]);
        assert_eq!(resolve(&config, &lb2, None).unwrap()[0].interface, "bond0");
        let lb1 = facts(&[("eth0", "172.16.0.2")]);
        assert_eq!(
            resolve(&config, &lb1, None).unwrap_err()[0].to_string(),
            "`vip.kube`: no interface `ens3` on this machine; 172.16.0.2 is on eth0"
        );
    }
}
