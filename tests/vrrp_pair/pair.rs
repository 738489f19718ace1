//! Two hosts on one wire, what runs on them, and what the tests ask of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use lbd::config::model::Mode;
use lbd::ipc::message::{VipStatus, VrrpCounters, VrrpState};
use lbd::net::clock::now;
use lbd::net::netlink::host_facts;
use lbd::units::Version;
use lbd::vrrp::task::NodeHealth;

use crate::keepalived::SECRET;
use crate::routers::{Ear, HEALTHY, Host, secs, within};

pub const VIP: &str = "10.99.0.100";
/// The EtherType.
pub const ARP: u16 = 0x0806;
pub const UNFIT: NodeHealth = NodeHealth {
    can_serve: false,
    ..HEALTHY
};
/// The nodes: the first is the stronger one.
pub const NODES: [&str; 2] = ["10.99.0.2", "10.99.0.3"];

/// How a node proves that an advert is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    None,
    Password,
    /// These keys: the first signs.
    Keys(&'static [usize]),
}

/// What kind of virtual router.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub version: Version,
    pub ms: u64,
    pub proof: Proof,
    pub mode: Mode,
}

impl Kind {
    pub const fn v3(ms: u64, mode: Mode) -> Self {
        Self {
            version: Version::V3,
            ms,
            proof: Proof::None,
            mode,
        }
    }

    /// The seed's: version 2, an advert each second, a password.
    pub const fn seed() -> Self {
        Self {
            version: Version::V2,
            ms: 1000,
            proof: Proof::Password,
            mode: Mode::Unicast,
        }
    }

    pub const fn signed(self, keys: &'static [usize]) -> Self {
        Self {
            proof: Proof::Keys(keys),
            ..self
        }
    }

    pub fn text(&self) -> String {
        let (version, ms) = (self.version.get(), self.ms);
        let mode = match self.mode {
            Mode::Unicast => "unicast",
            Mode::Multicast => "multicast",
        };
        let secrets = ["", SECRET, "another key, for the next season"];
        let auth = match self.proof {
            Proof::None => String::new(),
            Proof::Password => "auth = { type = \"pass\", key = \"1111\" }".into(),
            Proof::Keys(ids) => {
                let key = |id: &usize| format!("{{ id = {id}, key = \"{}\" }}", secrets[*id]);
                let keys: Vec<String> = ids.iter().map(key).collect();
                format!("auth = {{ type = \"hmac\", keys = [{}] }}", keys.join(", "))
            }
        };
        let [one, other] = NODES;
        format!(
            "[vip.kube]\naddress = \"{VIP}/24\"\nvrid = 60\nversion = {version}\n\
             advert-interval = \"{ms}ms\"\nmode = \"{mode}\"\npreempt = true\n{auth}\n\
             nodes = [\n{{ name = \"lb1\", address = \"{one}\", priority = 200 }},\n\
             {{ name = \"lb2\", address = \"{other}\", priority = 190 }},\n]\n"
        )
    }
}

/// Adverts each 100 ms.
pub const FAST: Kind = Kind::v3(100, Mode::Unicast);
/// Adverts each second.
pub const SLOW: Kind = Kind::v3(1000, Mode::Unicast);

/// Two hosts on one wire.
pub fn pair() -> [Host; 2] {
    let [a, b] = [Host::new(), Host::new()];
    join(&a, &b);
    [a, b]
}

pub fn join(a: &Host, b: &Host) {
    let other = b.with(|_| {
        let task = nix::unistd::gettid();
        format!("/proc/{}/task/{task}/ns/net", std::process::id())
    });
    a.run(&format!(
        "ip link add eth0 type veth peer name eth0 netns {other}"
    ));
    for (host, address) in [a, b].into_iter().zip(NODES) {
        host.run(&format!("ip address add {address}/24 dev eth0"));
        host.run("ip link set eth0 up");
    }
}

/// The pair with a router on both, the first one active.
pub fn elected(kind: Kind) -> [Host; 2] {
    let [a, b] = pair();
    open(&a, kind);
    open(&b, kind);
    let limit = if kind.ms < 1000 { secs(5.0) } else { secs(6.0) };
    one_holder("lb1 active", &a, &b, limit);
    [a, b]
}

/// Opens the host's router, in place of the one it has.
pub fn open(host: &Host, kind: Kind) {
    open_as(host, kind.text());
}

pub fn open_as(host: &Host, text: String) {
    host.with(move |inside| {
        let before = std::mem::take(&mut inside.routers);
        inside.open(&text, false);
        drop(before);
    });
}

/// Has the host's router leave.
pub fn resign(host: &Host) {
    host.with(|inside| inside.routers[0].resign(now()));
}

/// Tells the host's router about its node.
pub fn tell(host: &Host, health: NodeHealth) {
    host.with(move |inside| inside.routers[0].set_health(now(), health));
}

pub fn has_vip(host: &Host) -> bool {
    host.has(&[VIP]) == [true]
}

/// How often it has the address, in whatever shape.
pub fn copies(host: &Host) -> usize {
    host.with(|_| {
        let facts = host_facts().unwrap();
        let all = facts.interfaces.iter().flat_map(|link| &link.addresses);
        all.filter(|address| address.ip.to_string() == VIP).count()
    })
}

/// The hardware addresses that gratuitous ARP told for the address since the last look.
pub fn announcers(ear: &Ear) -> Vec<[u8; 6]> {
    let vip: Ipv4Addr = VIP.parse().unwrap();
    let frames = ear.frames().into_iter();
    let ours = frames.filter(|frame| frame.len() >= 42 && frame[28..32] == vip.octets());
    ours.map(|frame| frame[22..28].try_into().unwrap())
        .collect()
}

pub fn status(host: &Host) -> VipStatus {
    host.status().remove(0)
}

pub fn counters(host: &Host) -> VrrpCounters {
    status(host).counters
}

/// How often a host refused an advert for that reason.
pub fn refused(host: &Host, reason: &str) -> u64 {
    let rejected = counters(host).rejected;
    let found = rejected.iter().find(|(word, _)| word == reason);
    found.map_or(0, |(_, count)| *count)
}

pub fn one_holder(what: &str, good: &Host, other: &Host, limit: Duration) -> Duration {
    within(what, limit, || has_vip(good) && !has_vip(other))
}

pub fn reaches(what: &str, limit: Duration, host: &Host, state: VrrpState) -> Duration {
    within(what, limit, || host.state() == Some(state))
}

pub fn watches(host: &Host) {
    reaches("a Backup", secs(2.0), host, VrrpState::Backup);
}

/// Waits so long, less than five seconds, while a condition must hold.
pub fn stays(what: &str, time: Duration, holds: impl Fn() -> bool) {
    let begin = now();
    within("a while", secs(5.0), || {
        assert!(holds(), "{what}");
        now() - begin > time
    });
}
