//! `vrrp_instance`: one node's half of a virtual router.

use std::net::IpAddr;

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::words;
use super::script::argv;
use super::{MAIL, Said, all, global, lex, lost};

/// A virtual address as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `IP` or `IP/PREFIX`.
    pub(super) text: String,
    pub(super) ip: IpAddr,
}

/// What authenticates adverts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// `auth_type PASS` with `auth_pass`.
    Pass(String),
    /// `auth_hmac` with its keys, the one that signs first.
    Hmac(Vec<(u64, String)>),
}

/// One node's half of a virtual router.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) id: Id,
    pub(super) state: Option<Said<String>>,
    pub(super) interface: Option<Said<String>>,
    pub(super) vrid: Option<Said<u64>>,
    pub(super) priority: Option<Said<u64>>,
    /// Milliseconds.
    pub(super) advert: Option<Said<u64>>,
    pub(super) version: Option<Said<u64>>,
    pub(super) auth: Option<Said<Auth>>,
    pub(super) source: Option<Said<IpAddr>>,
    /// `unicast_peer`; `None`: multicast.
    pub(super) peers: Option<Vec<Said<IpAddr>>>,
    /// `min_ttl` of those peers that have one.
    pub(super) min_ttls: Vec<(IpAddr, u64)>,
    pub(super) ttl: Option<Said<u64>>,
    pub(super) addresses: Vec<Said<Address>>,
    pub(super) nopreempt: Option<Id>,
    pub(super) preempt_delay: Option<Said<u64>>,
    pub(super) garp: Vec<(&'static str, Said<String>)>,
    pub(super) scripts: Vec<Said<(String, Option<i64>)>>,
    pub(super) interfaces: Vec<Said<(String, Option<i64>)>>,
    pub(super) files: Vec<Said<(String, Option<i64>)>>,
    pub(super) processes: Vec<Said<(String, Option<i64>)>>,
    pub(super) notify: Vec<(&'static str, Said<Vec<String>>)>,
    pub(super) vmac: Option<Id>,
}

/// The interface of an instance that names none.
const INTERFACE: &str = "eth0";

/// Reads a block; `default` is the file's `default_interface`.
pub(super) fn read(node: &lex::Node, default: Option<&str>, work: &mut Work) -> Instance {
    let mut found = Instance {
        name: node.word(1).to_owned(),
        id: node.id,
        state: None,
        interface: None,
        vrid: None,
        priority: None,
        advert: None,
        version: None,
        auth: None,
        source: None,
        peers: None,
        min_ttls: Vec::new(),
        ttl: None,
        addresses: Vec::new(),
        nopreempt: None,
        preempt_delay: None,
        garp: Vec::new(),
        scripts: Vec::new(),
        interfaces: Vec::new(),
        files: Vec::new(),
        processes: Vec::new(),
        notify: Vec::new(),
        vmac: None,
    };
    let is_address = |inner: &&lex::Node| inner.word(0) == "virtual_ipaddress";
    for inner in node.inside().iter().filter(|inner| !is_address(inner)) {
        if !number(inner, &mut found, work) && !block(inner, &mut found, work) {
            line(inner, &mut found, work);
        }
    }
    // Behind the interface, wherever that stands.
    let interface = found.interface.as_ref().map(|said| said.value.clone());
    let interface = interface.as_deref().or(default).unwrap_or(INTERFACE);
    for inner in node.inside().iter().filter(is_address) {
        addresses(inner, interface, &mut found, work);
    }
    found
}

/// A directive with one number; `merge` enters it.
fn number(node: &lex::Node, found: &mut Instance, work: &mut Work) -> bool {
    let id = node.id;
    let count = || node.word(1).parse::<u64>().ok().map(|n| Said::new(n, id));
    let time = || words::seconds(node.word(1)).map(|ms| Said::new(ms, id));
    match node.word(0) {
        "virtual_router_id" => found.vrid = count(),
        "priority" => found.priority = count(),
        "version" => found.version = count(),
        "unicast_ttl" => found.ttl = count(),
        "advert_int" => found.advert = time(),
        "preempt_delay" => found.preempt_delay = time(),
        _ => return false,
    }
    if count().is_none() && time().is_none() {
        work.ledger.mark(id, Fate::Lost, "no number");
    }
    behind(node, work);
    true
}

/// Says that words behind a directive's value mean nothing.
pub(super) fn behind(node: &lex::Node, work: &mut Work) {
    if let Some(rest) = node.words.get(2..).filter(|rest| !rest.is_empty()) {
        let why = format!(
            "without `{}`, which keepalived doesn't read",
            rest.join(" ")
        );
        work.ledger.mark(node.id, Fate::Changed, why);
    }
}

fn block(node: &lex::Node, found: &mut Instance, work: &mut Work) -> bool {
    match node.word(0) {
        "authentication" => auth(node, found, work),
        "unicast_peer" => peers(node, found, work),
        "virtual_ipaddress_excluded" => {
            lost(
                node,
                "adverts name every address: write another [vip] in the same sync-group",
                work,
            );
        }
        "track_script" => tracked(node, &mut found.scripts, work),
        "track_interface" => tracked(node, &mut found.interfaces, work),
        "track_file" => tracked(node, &mut found.files, work),
        "track_process" => tracked(node, &mut found.processes, work),
        _ => return false,
    }
    true
}

fn line(node: &lex::Node, found: &mut Instance, work: &mut Work) {
    let id = node.id;
    let text = || Said::new(node.word(1).to_owned(), id);
    match node.word(0) {
        "state" => {
            found.state = Some(text());
            work.ledger
                .mark(id, Fate::NotNeeded, "the priority decides");
        }
        "interface" => found.interface = Some(text()),
        "unicast_src_ip" | "mcast_src_ip" => match words::ip(node.word(1)) {
            Some(ip) => found.source = Some(Said::new(ip, id)),
            None => work.ledger.mark(id, Fate::Lost, "no address"),
        },
        "nopreempt" => found.nopreempt = Some(id),
        "use_vmac" => {
            found.vmac = Some(id);
            let plain = node.words.len() == 1;
            work.ledger.mark(
                id,
                if plain { Fate::Exact } else { Fate::Changed },
                if plain { "" } else { "lbd names the device" },
            );
        }
        "notify_master" | "notify_backup" | "notify_fault" | "notify_stop" | "notify" => {
            notify(node, found, work);
        }
        name => match (global::garp_key(name), known(name)) {
            (Some(key), _) => global::garp(key, node, &mut found.garp, work),
            (None, Some((fate, note))) => all(node, fate, note, work),
            (None, None) => lost(node, "lbd knows nothing like it", work),
        },
    }
}

fn known(name: &str) -> Option<(Fate, &'static str)> {
    Some(match name {
        "preempt"
        | "accept"
        | "check_unicast_src"
        | "skip_check_adv_addr"
        | "unicast_fault_no_peer" => (Fate::Default, ""),
        "debug"
        | "native_ipv6"
        | "promote_secondaries"
        | "linkbeat_use_polling"
        | "strict_mode"
        | "kernel_rx_buf_size"
        | "vmac_xmit_base"
        | "garp_lower_prio_delay"
        | "garp_lower_prio_repeat" => (Fate::NotNeeded, ""),
        "dont_track_primary" => (Fate::Changed, "the own interface is always tracked"),
        "smtp_alert" => (Fate::Changed, MAIL),
        "lvs_sync_daemon_interface" | "lvs_sync_daemon_inteface" => {
            (Fate::Lost, "lbd doesn't use IPVS")
        }
        "virtual_routes" | "virtual_rules" => {
            (Fate::Lost, "lbd sets addresses alone: use `notify`")
        }
        _ => return None,
    })
}

fn auth(node: &lex::Node, found: &mut Instance, work: &mut Work) {
    work.ledger.mark(node.id, Fate::Exact, "");
    let mut keys: Vec<(u64, String)> = Vec::new();
    let mut active = None;
    for inner in node.inside() {
        let id = inner.id;
        match (inner.word(0), inner.word(1)) {
            ("auth_type", "PASS") => work.ledger.mark(id, Fate::Exact, ""),
            ("auth_type", _) => work.ledger.mark(
                id,
                Fate::Lost,
                "lbd has `pass`, and `hmac` as keepalived 2.4.2 and later",
            ),
            ("auth_pass", _) => {
                let word = inner.words.get(1).cloned().unwrap_or_default();
                found.auth = Some(Said::new(Auth::Pass(word), id));
            }
            ("auth_hmac", _) => {
                for line in inner.inside() {
                    match (line.word(0), line.word(1).parse::<u64>()) {
                        ("key", Ok(number)) => keys.push((number, line.word(2).to_owned())),
                        ("active_key", Ok(number)) => active = Some(number),
                        _ => {
                            work.ledger
                                .mark(line.id, Fate::Lost, "lbd knows nothing like it");
                            continue;
                        }
                    }
                    work.ledger.mark(line.id, Fate::Exact, "");
                }
                keys.sort_by_key(|(number, _)| Some(*number) != active);
                found.auth = Some(Said::new(Auth::Hmac(std::mem::take(&mut keys)), id));
            }
            _ => lost(inner, "lbd knows nothing like it", work),
        }
    }
}

fn peers(node: &lex::Node, found: &mut Instance, work: &mut Work) {
    work.ledger.mark(node.id, Fate::Exact, "");
    let list = found.peers.get_or_insert_default();
    let ttls = &mut found.min_ttls;
    for inner in node.inside() {
        match words::ip(inner.word(0)) {
            Some(ip) => {
                work.ledger.mark(inner.id, Fate::Exact, "");
                for pair in inner.words.get(1..).unwrap_or_default().chunks(2) {
                    match pair {
                        [key, ttl] if key == "min_ttl" => {
                            let ttl = ttl.parse().ok().filter(|ttl| (1..=255).contains(ttl));
                            ttls.extend(ttl.map(|ttl| (ip, ttl)));
                            if ttl.is_none() {
                                work.ledger.mark(inner.id, Fate::Lost, "no TTL");
                            }
                        }
                        [key, ttl] if key == "max_ttl" && ttl == "255" => {}
                        _ => work.ledger.mark(inner.id, Fate::Lost, pair.join(" ")),
                    }
                }
                list.push(Said::new(ip, inner.id));
            }
            None => work.ledger.mark(inner.id, Fate::Lost, "no address"),
        }
    }
}

fn addresses(node: &lex::Node, interface: &str, found: &mut Instance, work: &mut Work) {
    work.ledger.mark(node.id, Fate::Exact, "");
    for inner in node.inside() {
        let text = inner.word(0);
        let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
        let ip: Option<IpAddr> = host.parse().ok();
        let longest = if ip.is_some_and(|ip| ip.is_ipv6()) {
            128
        } else {
            32
        };
        let fits = prefix.is_empty()
            || prefix
                .parse::<u8>()
                .is_ok_and(|p| (1..=longest).contains(&p));
        let usable =
            ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback());
        let (Some(ip), true) = (usable, fits) else {
            work.ledger
                .mark(inner.id, Fate::Lost, "no address that lbd can hold");
            continue;
        };
        work.ledger.mark(inner.id, Fate::Exact, "");
        if elsewhere(inner, interface, work) {
            continue;
        }
        found.addresses.push(Said::new(
            Address {
                text: text.to_owned(),
                ip,
            },
            inner.id,
        ));
    }
}

/// Whether an address is for another interface; the other words behind it are entered.
fn elsewhere(node: &lex::Node, interface: &str, work: &mut Work) -> bool {
    let mut rest = node.words.iter().skip(1).map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "dev" => {
                let device = rest.next().unwrap_or("");
                if device != interface {
                    let why = format!("an address on {device}: write a [vip] of its own");
                    work.ledger.mark(node.id, Fate::Lost, why);
                    return true;
                }
            }
            "brd" | "broadcast" | "scope" | "label" => {
                let value = rest.next().unwrap_or("");
                work.ledger
                    .mark(node.id, Fate::Changed, format!("without `{word} {value}`"));
            }
            "no_track" => {}
            other => work.ledger.mark(node.id, Fate::Lost, format!("`{other}`")),
        }
    }
    false
}

fn tracked(node: &lex::Node, found: &mut Vec<Said<(String, Option<i64>)>>, work: &mut Work) {
    work.ledger.mark(node.id, Fate::Exact, "");
    for inner in node.inside() {
        let weight = (inner.word(1) == "weight")
            .then(|| inner.word(2).parse().ok())
            .flatten();
        let plain = inner.words.len() == 1 || (weight.is_some() && inner.words.len() == 3);
        work.ledger
            .mark(inner.id, if plain { Fate::Exact } else { Fate::Lost }, "");
        found.push(Said::new((inner.word(0).to_owned(), weight), inner.id));
    }
}

fn notify(node: &lex::Node, found: &mut Instance, work: &mut Work) {
    let key = match node.word(0) {
        "notify_master" => "active",
        "notify_backup" => "backup",
        "notify_fault" => "fault",
        "notify_stop" => "stop",
        _ => "any",
    };
    if node.words.len() < 2 || node.word(1).is_empty() {
        work.ledger.mark(node.id, Fate::Lost, "it names no program");
        return;
    }
    work.ledger.mark(node.id, Fate::Exact, "");
    if node.words.len() > 2 {
        work.ledger.mark(
            node.id,
            Fate::Changed,
            "it runs as lbd's own user; or write `user`",
        );
    }
    found
        .notify
        .push((key, Said::new(argv(node.word(1)), node.id)));
}
