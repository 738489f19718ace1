//! What the adverts on a LAN mean for a virtual router: who is active, who is foreign, who is blocked,
//! who is refused and why. Judged by the rules of the daemon itself. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use super::report::Finding;
use crate::config::local::LocalVip;
use crate::config::model::Auth;
use crate::ipc::message::{VipStatus, VrrpState};
use crate::vrrp::hmac::{Clock, Seal};
use crate::vrrp::packet::{Datagram, Reject, split_ipv4};
use crate::vrrp::validate::{Accepted, Rules};

const CHECK: &str = "adverts";
const IPV6_HEADER_BYTES: usize = 40;
/// More senders than these are not told apart.
const SENDERS_MAX: usize = 64;

/// What is heard for one virtual router.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) local: LocalVip,
    rules: Option<Rules>,
    seal: Option<Seal>,
    /// By sender: the last verdict, and how many packets with our vrid came.
    senders: BTreeMap<IpAddr, (Result<Accepted, Reject>, u32)>,
    /// Senders whose packets this host's firewall let through.
    let_through: BTreeSet<IpAddr>,
    /// Other virtual routers: vrid and sender.
    neighbours: BTreeSet<(u8, IpAddr)>,
}

impl Ledger {
    pub(super) fn new(local: LocalVip) -> Self {
        let rules = Rules::new(&local).ok();
        let seal = match (&local.vip.auth, &rules) {
            (Auth::Hmac(hmac), Some(rules)) => {
                Some(Seal::new(hmac, rules.interval, rules.peers.len()))
            }
            (Auth::Hmac(_) | Auth::None | Auth::Pass(_), _) => None,
        };
        Self {
            local,
            rules,
            seal,
            senders: BTreeMap::new(),
            let_through: BTreeSet::new(),
            neighbours: BTreeSet::new(),
        }
    }

    /// One packet as the wire delivered it, from its IP header on.
    pub(super) fn hear(&mut self, packet: &[u8], clock: Clock) {
        let read = match self.local.source {
            IpAddr::V4(_) => split_ipv4(packet).ok(),
            IpAddr::V6(_) => split_ipv6(packet),
        };
        let (Some(datagram), Some(rules)) = (read, &self.rules) else {
            return;
        };
        let Some(vrid) = datagram.payload.get(1).copied() else {
            return;
        };
        if self.senders.len() + self.neighbours.len() >= SENDERS_MAX {
            return;
        }
        if vrid != rules.vrid.get() {
            self.neighbours.insert((vrid, datagram.source));
            return;
        }
        let verdict = rules.judge(datagram, self.seal.as_mut().map(|seal| (seal, clock)));
        let (last, count) = self.senders.entry(datagram.source).or_insert((verdict, 0));
        *last = verdict;
        *count += 1;
    }

    /// The firewall let a packet of this sender through.
    pub(super) fn pass(&mut self, sender: IpAddr) {
        if self.let_through.len() < SENDERS_MAX {
            self.let_through.insert(sender);
        }
    }

    /// What it all means. `mine` is this node's own daemon, if it runs.
    pub(super) fn findings(&self, mine: Option<&VipStatus>, seconds: u64) -> Vec<Finding> {
        let name = self.local.vip.name.as_str();
        if self.rules.is_none() {
            let why = "its addresses are not all of one family";
            return vec![Finding::not_checked(CHECK, name, why)];
        }
        let mut findings: Vec<Finding> = self
            .senders
            .iter()
            .map(|(sender, (verdict, count))| match verdict {
                Ok(accepted) => self.accepted(*sender, accepted, *count, mine),
                Err(reject) => self.rejected(*sender, *reject),
            })
            .collect();
        if !self.senders.values().any(|(verdict, _)| verdict.is_ok()) {
            findings.push(self.silence(mine, seconds));
        }
        findings.extend(self.clocks());
        if !self.neighbours.is_empty() {
            let list: Vec<String> = self
                .neighbours
                .iter()
                .map(|(vrid, sender)| format!("vrid {vrid} from {sender}"))
                .collect();
            let text = format!("other virtual routers on this LAN: {}", list.join(", "));
            findings.push(Finding::ok(CHECK, name, text));
        }
        findings
    }

    /// A node's name, where the file has one.
    fn called(&self, sender: IpAddr) -> String {
        let node = self
            .local
            .vip
            .nodes
            .iter()
            .find(|node| node.address == sender);
        match node.and_then(|node| node.name.as_ref()) {
            Some(name) => format!("{name} ({sender})"),
            None => sender.to_string(),
        }
    }

    fn accepted(
        &self,
        sender: IpAddr,
        accepted: &Accepted,
        count: u32,
        mine: Option<&VipStatus>,
    ) -> Finding {
        let name = self.local.vip.name.as_str();
        let who = self.called(sender);
        if !self.let_through.contains(&sender) {
            return Finding::failed(CHECK, name, format!("adverts of {who} arrive and are dropped"))
                .cause("this host's firewall drops IP protocol 112")
                .remedy("accept it from the nodes: `nft add rule inet filter input ip protocol 112 accept`, or with iptables `-p 112 -j ACCEPT`");
        }
        let active = mine.is_some_and(|mine| mine.state == VrrpState::Active && mine.holds);
        if active && accepted.priority > 0 {
            return Finding::failed(CHECK, name, format!("{who} is active, and so is this node"))
                .cause("adverts get lost in one direction, or one of the two doesn't believe the other's")
                .remedy("run `lbd doctor` there, too; see `lbd events`");
        }
        let text = format!(
            "{who} is active: priority {}, an advert each {} ms as it says, {count} heard",
            accepted.priority,
            accepted.interval.duration().as_millis(),
        );
        if accepted.same_addresses {
            Finding::ok(CHECK, name, text)
        } else {
            Finding::warning(CHECK, name, text + "; it advertises other addresses")
                .cause("the files of the two nodes differ in `address`")
                .remedy("the same file on every node: compare them")
        }
    }

    fn rejected(&self, sender: IpAddr, reject: Reject) -> Finding {
        let vip = &self.local.vip;
        let who = self.called(sender);
        let head = format!("adverts of {who} with vrid {} are refused", vip.vrid.get());
        let finding = Finding::failed(CHECK, &vip.name, format!("{head}: {}", reject.word()));
        let (cause, remedy) = match reject {
            Reject::UnknownSender => (
                "a foreign router uses this vrid: another cluster on this LAN, or a node that `nodes` doesn't list",
                "give this VIP another `vrid`, or the router a place in `nodes` or `allow-from`",
            ),
            Reject::OwnAddress => (
                "another host has this node's address",
                "find it by its hardware address: `ip neigh`, and the switch's tables",
            ),
            Reject::Destination => (
                "one of the two speaks by multicast and the other by unicast",
                "the same `mode` on both; keepalived speaks unicast with `unicast_peer`",
            ),
            Reject::Ttl => (
                "they crossed a router, or come from keepalived by IPv6 unicast (hop limit 64)",
                "nodes belong on one LAN; for such a keepalived write `min-ttl = 64` in its entry of `nodes`",
            ),
            Reject::Version => (
                "the nodes speak different versions of VRRP",
                "the same `version` on both; keepalived's default is 2, lbd's is 3",
            ),
            Reject::Interval => (
                "in version 2 both must have the same interval",
                "the same `advert-interval` (keepalived: `advert_int`) on both",
            ),
            Reject::AuthType | Reject::AuthData | Reject::HmacMissing | Reject::HmacForm => (
                "the nodes' authentication differs",
                "the same `auth` on both; keepalived: `authentication`",
            ),
            Reject::HmacKey | Reject::HmacDigest => {
                ("the nodes' keys differ", "the same `auth.keys` on both")
            }
            Reject::HmacClock | Reject::HmacReplay => (
                "the nodes' clocks are apart, or somebody sends old adverts again",
                "NTP on both nodes; `timedatectl` says whether it works",
            ),
            Reject::IpHeader
            | Reject::Fragment
            | Reject::Protocol
            | Reject::Truncated
            | Reject::Type
            | Reject::Vrid
            | Reject::Length
            | Reject::Checksum
            | Reject::NoAddress => (
                "the packets are malformed",
                "see what sends them: `tcpdump -vvi INTERFACE ip proto 112`",
            ),
        };
        finding.cause(cause).remedy(remedy)
    }

    /// No advert that counts was heard.
    fn silence(&self, mine: Option<&VipStatus>, seconds: u64) -> Finding {
        let name = self.local.vip.name.as_str();
        if self.local.vip.nodes.len() < 2 {
            return Finding::ok(CHECK, name, "there is no other node");
        }
        let Some(mine) = mine else {
            let text = format!(
                "no other node was heard in {seconds} s: none is active yet, or its adverts get lost; \
                 start lbd there and look again"
            );
            return Finding::not_checked(CHECK, name, text);
        };
        match mine.state {
            VrrpState::Active | VrrpState::Leaving => Finding::ok(
                CHECK,
                name,
                "this node is active; the others listen, as they should",
            ),
            VrrpState::Backup | VrrpState::Initialize => Finding::failed(
                CHECK,
                name,
                format!("this node waits, and no other was heard in {seconds} s"),
            )
            .cause("adverts get lost on the way: a firewall on the other node, the switch, a wrong VLAN")
            .remedy("run `lbd doctor` on the node that is active; let IP protocol 112 through"),
        }
    }

    /// How far the clocks of two nodes are apart, where adverts are signed.
    fn clocks(&self) -> Option<Finding> {
        let seal = self.seal.as_ref()?;
        let signed = |(verdict, _): &(Result<Accepted, Reject>, u32)| match verdict {
            Ok(_) => true,
            Err(reject) => matches!(reject, Reject::HmacClock | Reject::HmacReplay),
        };
        if !self.senders.values().any(signed) {
            return None;
        }
        let name = self.local.vip.name.as_str();
        let text = format!(
            "{} ms between this clock and the active node's",
            seal.skew_ms()
        );
        Some(if seal.is_skewed() {
            Finding::failed("skew", name, text)
                .cause("signed adverts are believed only within three intervals, at least 5 s")
                .remedy("NTP on both nodes")
        } else {
            Finding::ok("skew", name, text)
        })
    }
}

/// Reads an IPv6 packet whose payload follows its header at once.
fn split_ipv6(packet: &[u8]) -> Option<Datagram<'_>> {
    let address = |from: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = packet.get(from..from + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    Some(Datagram {
        source: address(8)?,
        destination: address(24)?,
        ttl: *packet.get(7)?,
        payload: packet.get(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES + length)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::tests::vip;
    use crate::cli::doctor::report::State;
    use crate::config::local::{HostFacts, InterfaceFacts, one};
    use crate::config::model::VipAddress;
    use crate::config::parse;

    fn ledger(extra: &str) -> Ledger {
        let text = format!(
            "[vip.kube]\naddress = \"172.16.0.10/24\"\nnodes = [\"172.16.0.2\", {{ name = \"lb2\", \
             address = \"172.16.0.3\" }}]\n{extra}"
        );
        let vip = parse(&text).config.unwrap().vips.remove(0);
        let ip = "172.16.0.2".parse().unwrap();
        let facts = HostFacts {
            interfaces: vec![InterfaceFacts {
                name: "eth0".into(),
                index: 2,
                up: true,
                addresses: vec![VipAddress { ip, prefix: 24 }],
            }],
        };
        Ledger::new(one(&vip, &facts, None).unwrap())
    }

    /// An advert of version 3 in an IPv4 packet, to 172.16.0.2; its checksum covers itself alone.
    fn advert(source: [u8; 4], ttl: u8, vrid: u8, priority: u8) -> Vec<u8> {
        let mut message = vec![0x31, vrid, priority, 1, 0, 100, 0, 0, 172, 16, 0, 10];
        let sum: u32 = message
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0x45, 0xc0, 0, 32, 0, 0, 0, 0, ttl, 112, 0, 0];
        packet.extend(source);
        packet.extend([172, 16, 0, 2]);
        packet.extend(message);
        packet
    }

    fn clock() -> Clock {
        Clock {
            at: crate::net::clock::now(),
            wall: Duration::from_secs(1_800_000_000),
        }
    }

    fn hear(ledger: &mut Ledger, packet: &[u8], through: bool) {
        ledger.hear(packet, clock());
        if through {
            ledger.pass(split_ipv4(packet).unwrap().source);
        }
    }

    const LB2: [u8; 4] = [172, 16, 0, 3];

    #[test]
    fn an_active_node_is_named_with_what_it_says() {
        let mut ledger = ledger("");
        hear(&mut ledger, &advert(LB2, 255, 10, 190), true);
        let findings = ledger.findings(None, 4);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].state, State::Ok);
        assert_eq!(
            findings[0].found,
            "lb2 (172.16.0.3) is active: priority 190, an advert each 1000 ms as it says, 1 heard"
        );
    }

    #[test]
    fn what_the_wire_delivers_and_the_firewall_drops_is_told_apart() {
        let mut ledger = ledger("");
        hear(&mut ledger, &advert(LB2, 255, 10, 190), false);
        let finding = ledger.findings(None, 4).remove(0);
        assert_eq!(finding.state, State::Failed);
        assert!(finding.cause.unwrap().contains("firewall"));
    }

    #[test]
    fn a_foreign_router_with_our_vrid_fails_and_one_with_another_is_listed() {
        let mut ledger = ledger("");
        hear(&mut ledger, &advert([172, 16, 0, 99], 255, 10, 100), true);
        hear(&mut ledger, &advert([172, 16, 0, 98], 255, 51, 100), true);
        let findings = ledger.findings(None, 4);
        assert_eq!(findings[0].state, State::Failed);
        assert!(
            findings[0]
                .found
                .starts_with("adverts of 172.16.0.99 with vrid 10 are refused")
        );
        assert!(
            findings[0]
                .cause
                .as_ref()
                .unwrap()
                .contains("foreign router")
        );
        assert_eq!(findings[1].state, State::NotChecked);
        assert_eq!(
            findings[2].found,
            "other virtual routers on this LAN: vrid 51 from 172.16.0.98"
        );
    }

    #[test]
    fn each_refusal_has_its_cause() {
        let told = |extra: &str, packet: &[u8]| {
            let mut ledger = ledger(extra);
            hear(&mut ledger, packet, true);
            let finding = ledger.findings(None, 4).remove(0);
            assert_eq!(finding.state, State::Failed);
            finding.cause.unwrap()
        };
        let good = advert(LB2, 255, 10, 190);
        assert!(told("", &advert(LB2, 64, 10, 190)).contains("crossed a router"));
        assert!(told("version = 2\n", &good).contains("different versions"));
        assert!(told("mode = \"multicast\"\n", &good).contains("multicast"));
        let mut broken = good.clone();
        broken[22] ^= 1;
        assert!(told("", &broken).contains("malformed"));
        let key = "auth = { type = \"hmac\", keys = [{ id = 1, key = \"0123456789abcdef0123456789abcdef\" }] }\n";
        assert!(told(key, &good).contains("authentication differs"));
    }

    #[test]
    fn two_active_nodes_fail_but_one_that_resigns_or_only_claims_is_none() {
        let told = |priority: u8, holds: bool| {
            let mut ledger = ledger("");
            hear(&mut ledger, &advert(LB2, 255, 10, priority), true);
            let mine = VipStatus {
                holds,
                ..vip(VrrpState::Active)
            };
            ledger.findings(Some(&mine), 4).remove(0).state
        };
        assert_eq!(told(190, true), State::Failed);
        assert_eq!(told(0, true), State::Ok);
        assert_eq!(told(190, false), State::Ok);
    }

    #[test]
    fn a_crowd_of_senders_is_bounded() {
        let mut ledger = ledger("");
        for last in 20..120 {
            let vrid = 10 + last % 2;
            hear(
                &mut ledger,
                &advert([172, 16, 0, last], 255, vrid, 100),
                false,
            );
        }
        assert_eq!(ledger.senders.len() + ledger.neighbours.len(), 64);
    }

    #[test]
    fn any_cut_of_a_packet_is_survived() {
        let mut ledger = ledger("");
        let packet = advert(LB2, 255, 10, 190);
        for end in 0..packet.len() {
            ledger.hear(&packet[..end], clock());
            assert_eq!(split_ipv6(&packet[..end]), None);
        }
        assert!(ledger.senders.is_empty());
    }
}
