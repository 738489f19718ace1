//! Listens to a LAN for some seconds and asks it by ARP and neighbour discovery: the driver of `adverts` and `answers`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use super::Facts;
use super::adverts::Ledger;
use super::answers::{Answers, check};
use super::report::Finding;
use crate::config::local::LocalVip;
use crate::net::arp_watch::Watcher;
use crate::net::clock;
use crate::net::nd_watch::NeighborWatcher;
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
    watcher: Option<io::Result<Watch>>,
    answers: Answers,
}

/// Asks in the family of this node's own address.
enum Watch {
    V4(Watcher),
    V6(NeighborWatcher),
}

impl Watch {
    fn open(facts: &Facts, local: &LocalVip) -> Option<io::Result<Self>> {
        let link = facts
            .links
            .iter()
            .find(|link| link.name == local.interface)?;
        let mac = link.mac?;
        let virtuals = local.vip.addresses.iter().map(|address| address.ip);
        let others = local.vip.nodes.iter().enumerate();
        let others = others.filter(|(place, _)| *place != local.me);
        let nodes = others.map(|(_, node)| node.address);
        Some(match local.source {
            IpAddr::V4(me) => {
                let virtuals: Vec<Ipv4Addr> = virtuals.filter_map(v4).collect();
                let nodes: Vec<Ipv4Addr> = nodes.filter_map(v4).collect();
                Watcher::open(link.index, mac, me, &virtuals, &nodes).map(Self::V4)
            }
            IpAddr::V6(me) => {
                let all: Vec<Ipv6Addr> = virtuals.chain(nodes).filter_map(v6).collect();
                NeighborWatcher::open(link.index, mac, me, all).map(Self::V6)
            }
        })
    }

    fn ask(&self) -> io::Result<()> {
        match self {
            Self::V4(watcher) => watcher.probe(),
            Self::V6(watcher) => watcher.ask(),
        }
    }

    fn read(&self) -> io::Result<Option<(IpAddr, [u8; 6])>> {
        Ok(match self {
            Self::V4(watcher) => watcher
                .read()?
                .map(|sighting| (IpAddr::V4(sighting.address), sighting.mac)),
            Self::V6(watcher) => watcher.read()?.map(|(ip, mac)| (IpAddr::V6(ip), mac)),
        })
    }
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
    Post {
        ledger: Ledger::new(local.clone()),
        ear: Ear::open(&local.interface, index, local.source),
        watcher: Watch::open(facts, local),
        answers: Answers::default(),
    }
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

fn ask(post: &mut Post) {
    if let Some(Ok(watcher)) = &post.watcher
        && let Err(error) = watcher.ask()
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
            let Ok(Some((address, mac))) = watcher.read() else {
                break;
            };
            post.answers.note(address, mac);
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
    let asked_by = check(local.source);
    match &post.watcher {
        Some(Ok(_)) => {
            let asked = |ip: IpAddr| ip.is_ipv4() == local.source.is_ipv4();
            let held = |ip| facts.host.interface_with(ip).is_some();
            findings.extend(post.answers.findings(local, &asked, &held, mine));
        }
        Some(Err(error)) => findings.push(Finding::not_checked(asked_by, name, not_heard(error))),
        None => findings.push(Finding::not_checked(
            asked_by,
            name,
            "an interface without hardware address: nobody is asked",
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
