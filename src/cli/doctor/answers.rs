//! What answers by ARP and by neighbour discovery mean: who has the virtual address, whether several have it, which node is
//! silent. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::report::Finding;
use crate::config::local::LocalVip;
use crate::ipc::message::{VipStatus, VrrpState};
use crate::net::link::Mac;

/// By which an address of this family is asked for.
pub(super) const fn check(of: IpAddr) -> &'static str {
    if of.is_ipv4() { "arp" } else { "nd" }
}

/// More answers than these are not told apart.
const ANSWERS_MAX: usize = 64;

/// Who answered for what.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<IpAddr, BTreeSet<[u8; 6]>>);

impl Answers {
    /// Somebody spoke for an address.
    pub(super) fn note(&mut self, address: IpAddr, mac: [u8; 6]) {
        let macs = self.0.entry(address).or_default();
        if macs.len() < ANSWERS_MAX {
            macs.insert(mac);
        }
    }

    fn of(&self, address: IpAddr) -> Vec<[u8; 6]> {
        let macs = self.0.get(&address);
        macs.into_iter().flatten().copied().collect()
    }

    /// What it means for each address of a VIP and each of its nodes. `held` says whether an address
    /// is on this host, `mine` is this node's own daemon, if it runs; `asked` are the addresses.
    pub(super) fn findings(
        &self,
        local: &LocalVip,
        asked: &dyn Fn(IpAddr) -> bool,
        held: &dyn Fn(IpAddr) -> bool,
        mine: Option<&VipStatus>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for address in local
            .vip
            .addresses
            .iter()
            .filter(|address| asked(address.ip))
        {
            findings.push(self.address(local, address.ip, held(address.ip), mine));
        }
        for (place, node) in local.vip.nodes.iter().enumerate() {
            if place == local.me || !asked(node.address) {
                continue;
            }
            let (who, check) = (node.label(), check(node.address));
            findings.push(match self.of(node.address).as_slice() {
                [] => Finding::warning(
                    check,
                    &local.vip.name,
                    format!("{who} doesn't answer on {}", local.interface),
                )
                .cause("it is down, or on another LAN or VLAN")
                .remedy(
                    "the nodes of a VIP belong on one LAN: is its link up, is its address right?",
                ),
                [mac] => Finding::ok(
                    check,
                    &local.vip.name,
                    format!("{who} answers from {}", Mac(*mac)),
                ),
                [_, _, ..] => Finding::failed(
                    check,
                    &local.vip.name,
                    format!("several hosts answer for {who}"),
                )
                .cause("two hosts have one address")
                .remedy("find them by their hardware addresses"),
            });
        }
        findings
    }

    fn address(
        &self,
        local: &LocalVip,
        address: IpAddr,
        held: bool,
        mine: Option<&VipStatus>,
    ) -> Finding {
        let (name, check) = (local.vip.name.as_str(), check(address));
        let macs = self.of(address);
        let list: Vec<String> = macs.iter().map(|mac| self.owner(local, *mac)).collect();
        let list = list.join(" and ");
        match (held, macs.as_slice(), mine) {
            (true, [], Some(_)) => {
                Finding::ok(check, name, format!("{address} is on this node alone"))
            }
            (true, [], None) => Finding::warning(check, name, format!("{address} is on this node, and no lbd answers here"))
                .cause("keepalived holds it, or it was added by hand, or lbd has just ended")
                .remedy("stop keepalived before lbd starts, or `ip address del` what nobody manages"),
            (true, [_, ..], _) => Finding::failed(check, name, format!("{address} is on this node, and {list} answers for it too"))
                .cause("two nodes are active because they don't hear each other, or a host has the address by hand")
                .remedy("see the findings about adverts, here and there"),
            (false, [], Some(mine)) if mine.active.is_some() && mine.state == VrrpState::Backup => {
                Finding::failed(check, name, format!("nobody answers for {address} on {}, though another node is active", local.interface))
                    .cause(if address.is_ipv4() {
                        "the active node's address is gone, or `arp_ignore` keeps it silent"
                    } else {
                        "the active node's address is gone, or its firewall drops ICMPv6's neighbour discovery"
                    })
                    .remedy("run `lbd doctor` on the active node")
            }
            (false, [], _) => Finding::ok(check, name, format!("nobody has {address} yet")),
            (false, [mac], _) if self.is_node(local, *mac) => {
                Finding::ok(check, name, format!("{address} answers from {list}"))
            }
            (false, [_], _) => Finding::failed(check, name, format!("{address} answers from {list}, which is none of the nodes"))
                .cause("a host has the address by hand, another cluster uses it, or a router answers for others (proxy ARP, NDP proxy)")
                .remedy("take the address from that host, or choose another one"),
            (false, [_, _, ..], _) => Finding::failed(check, name, format!("{address} answers from {list}"))
                .cause("two nodes are active because they don't hear each other, or a host has the address by hand")
                .remedy("see the findings about adverts on both nodes"),
        }
    }

    /// Whether that hardware address is a node's, or the virtual router's own.
    fn is_node(&self, local: &LocalVip, mac: [u8; 6]) -> bool {
        // RFC 9568 §7.3.
        let is_v4 = local.source.is_ipv4();
        let virtual_mac = [
            0,
            0,
            0x5e,
            0,
            if is_v4 { 1 } else { 2 },
            local.vip.vrid.get(),
        ];
        let mut nodes = local.vip.nodes.iter();
        mac == virtual_mac || nodes.any(|node| self.of(node.address).contains(&mac))
    }

    fn owner(&self, local: &LocalVip, mac: [u8; 6]) -> String {
        let mut nodes = local.vip.nodes.iter();
        match nodes.find(|node| self.of(node.address).contains(&mac)) {
            Some(node) => format!("{} ({})", node.label(), Mac(mac)),
            None => Mac(mac).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tests::vip;
    use crate::cli::doctor::report::State;
    use crate::config::parse;

    fn local() -> LocalVip {
        let text =
            "[vip.kube]\naddress = \"172.16.0.10/24\"\nnodes = [\"172.16.0.2\", \"172.16.0.3\"]\n";
        LocalVip {
            vip: parse(text).config.unwrap().vips.remove(0),
            me: 0,
            interface: "eth0".into(),
            source: "172.16.0.2".parse().unwrap(),
        }
    }

    fn told(sightings: &[(&str, u8)], held: bool) -> Vec<(State, String)> {
        let mut answers = Answers::default();
        for (address, last) in sightings {
            answers.note(address.parse().unwrap(), [2, 0, 0, 0, 0, *last]);
        }
        let findings = answers.findings(&local(), &|_| true, &|_| held, None);
        findings
            .into_iter()
            .map(|finding| (finding.state, finding.found))
            .collect()
    }

    #[test]
    fn an_address_may_answer_from_one_node() {
        let found = told(&[("172.16.0.3", 3), ("172.16.0.10", 3)], false);
        assert_eq!(
            found,
            [
                (
                    State::Ok,
                    "172.16.0.10 answers from 172.16.0.3 (02:00:00:00:00:03)".to_owned()
                ),
                (
                    State::Ok,
                    "172.16.0.3 answers from 02:00:00:00:00:03".to_owned()
                ),
            ]
        );
        assert_eq!(told(&[], false)[0].1, "nobody has 172.16.0.10 yet");
    }

    #[test]
    fn a_strangers_answer_and_a_second_one_fail() {
        let stranger = told(&[("172.16.0.3", 3), ("172.16.0.10", 9)], false);
        assert_eq!(stranger[0].0, State::Failed);
        assert!(
            stranger[0].1.ends_with("which is none of the nodes"),
            "{}",
            stranger[0].1
        );
        let two = told(
            &[("172.16.0.3", 3), ("172.16.0.10", 3), ("172.16.0.10", 9)],
            false,
        );
        assert_eq!(two[0].0, State::Failed);
        let also_here = told(&[("172.16.0.3", 3), ("172.16.0.10", 3)], true);
        assert_eq!(also_here[0].0, State::Failed);
    }

    #[test]
    fn an_address_without_a_daemon_and_a_silent_node_deserve_a_look() {
        let found = told(&[], true);
        assert_eq!(found[0].0, State::Warning);
        assert_eq!(
            found[1],
            (
                State::Warning,
                "172.16.0.3 doesn't answer on eth0".to_owned()
            )
        );
    }

    #[test]
    fn nobody_answers_is_a_fault_only_where_another_node_is_active() {
        let told = |active| {
            let mine = VipStatus {
                active,
                ..vip(VrrpState::Backup)
            };
            let findings =
                Answers::default().findings(&local(), &|_| true, &|_| false, Some(&mine));
            findings[0].state
        };
        assert_eq!(told(Some("172.16.0.3".parse().unwrap())), State::Failed);
        assert_eq!(told(None), State::Ok);
    }

    #[test]
    fn a_virtual_hardware_address_is_a_node_s() {
        let told = |last| {
            let mut answers = Answers::default();
            let address = "172.16.0.10".parse().unwrap();
            answers.note(address, [0, 0, 0x5e, 0, 1, last]);
            answers.findings(&local(), &|_| true, &|_| false, None)[0].state
        };
        let vrid = local().vip.vrid.get();
        assert_eq!(told(vrid), State::Ok);
        assert_eq!(told(vrid + 1), State::Failed);
    }
}
