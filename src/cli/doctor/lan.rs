//! Listens to a LAN for some seconds and asks it by ARP: the driver of `adverts` and `answers`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use super::Facts;
use super::adverts::Ledger;
use super::answers::Answers;
use super::report::Finding;
use crate::config::local::LocalVip;
use crate::net::arp_watch::Watcher;
use crate::net::clock;
use crate::net::vrrp_ear::Ear;
use crate::vrrp::hmac::Clock;

/// How often the sockets are read.
const READ_EVERY: Duration = Duration::from_millis(20);
/// How often addresses are asked for: an answer may get lost.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The longest packet that is looked at: 255 IPv6 addresses and a trailer.
const PACKET_BYTES: usize = 4_608;
/// Packets read at once: a flood must not keep it from ending.
const BURST: usize = 256;

/// One VIP on its interface.
struct Post {
    ledger: Ledger,
    ear: io::Result<Ear>,
    watcher: Option<io::Result<Watcher>>,
    answers: Answers,
}

/// Listens for `time` and says what was heard for each VIP.
pub(super) fn listen(facts: &Facts, time: Duration) -> Vec<Finding> {
    let mut posts: Vec<Post> = facts
        .locals
        .iter()
        .map(|local| post(facts, local))
        .collect();
    if posts.is_empty() {
        return Vec::new();
    }
    let begin = clock::now();
    let mut asked = 0;
    loop {
        let passed = clock::now().saturating_duration_since(begin);
        if passed >= time {
            break;
        }
        if passed >= ASK_EVERY * asked {
            asked += 1;
            posts.iter_mut().for_each(ask);
        }
        posts.iter_mut().for_each(read);
        thread::sleep(READ_EVERY);
    }
    let seconds = time.as_secs();
    posts
        .iter()
        .flat_map(|post| findings(facts, post, seconds))
        .collect()
}

fn post(facts: &Facts, local: &LocalVip) -> Post {
    let link = facts.links.iter().find(|link| link.name == local.interface);
    let index = link.map_or(0, |link| link.index);
    let virtuals: Vec<Ipv4Addr> = local
        .vip
        .addresses
        .iter()
        .filter_map(|a| v4(a.ip))
        .collect();
    let others = local.vip.nodes.iter().enumerate();
    let others = others.filter(|(place, _)| *place != local.me);
    let nodes: Vec<Ipv4Addr> = others.filter_map(|(_, node)| v4(node.address)).collect();
    let watcher = match (link.and_then(|link| link.mac), v4(local.source)) {
        (Some(mac), Some(me)) => Some(Watcher::open(index, mac, me, &virtuals, &nodes)),
        (Some(_) | None, Some(_) | None) => None,
    };
    Post {
        ledger: Ledger::new(local.clone()),
        ear: Ear::open(&local.interface, index, local.source),
        watcher,
        answers: Answers::default(),
    }
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn ask(post: &mut Post) {
    if let Some(Ok(watcher)) = &post.watcher
        && let Err(error) = watcher.probe()
    {
        post.watcher = Some(Err(error));
    }
}

fn read(post: &mut Post) {
    let mut buffer = [0; PACKET_BYTES];
    if let Ok(ear) = &post.ear {
        for _ in 0..BURST {
            let Ok(Some(packet)) = ear.on_wire(&mut buffer) else {
                break;
            };
            let clock = Clock {
                at: clock::now(),
                wall: clock::unix_time(),
            };
            post.ledger.hear(packet, clock);
        }
        for _ in 0..BURST {
            let Ok(Some(sender)) = ear.let_through() else {
                break;
            };
            post.ledger.pass(sender);
        }
    }
    if let Some(Ok(watcher)) = &post.watcher {
        for _ in 0..BURST {
            let Ok(Some(sighting)) = watcher.read() else {
                break;
            };
            post.answers.note(sighting);
        }
    }
}

fn findings(facts: &Facts, post: &Post, seconds: u64) -> Vec<Finding> {
    let local = &post.ledger.local;
    let name = local.vip.name.as_str();
    let mine = facts.vip(name);
    let mut findings = match &post.ear {
        Ok(_) => post.ledger.findings(mine, seconds),
        Err(error) => vec![Finding::not_checked("adverts", name, not_heard(error))],
    };
    match &post.watcher {
        Some(Ok(_)) => {
            let held = |ip| facts.host.interface_with(ip).is_some();
            findings.extend(post.answers.findings(local, &held, mine));
        }
        Some(Err(error)) => findings.push(Finding::not_checked("arp", name, not_heard(error))),
        None => findings.push(Finding::not_checked(
            "arp",
            name,
            "an interface without hardware address, or a VIP of IPv6 alone: nobody is asked",
        )),
    }
    findings
}

fn not_heard(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "listening takes CAP_NET_RAW: run this as root".to_owned()
    } else {
        format!("cannot listen: {error}")
    }
}

/// How long to listen so that an active node can't be missed: its adverts and some more, within reason.
pub(super) fn patience(facts: &Facts) -> Duration {
    let intervals = facts.locals.iter().map(|local| local.vip.advert_interval);
    let longest = intervals.map(|interval| interval.duration() * 3).max();
    let least = Duration::from_millis(1_500);
    longest
        .unwrap_or(least)
        .clamp(least, Duration::from_secs(10))
        + Duration::from_millis(500)
}
