//! What is wrong with this node, if anything, and who holds the address: the judgement over a
//! status. Pure.

use std::net::IpAddr;

use super::discovery;
use super::status::{
    FORMAT_VERSION, KEEPER_SILENT_MS, ProxyStatus, ServerState, ServerStatus, Status, short_time,
};
use crate::ipc::message::{ChannelStatus, RouteStatus, TrackStatus, VipStatus, VrrpState};

/// So many ill servers of a proxy stand in the headline by name; all stand in the table.
const NAMED_MAX: usize = 8;

impl Status {
    /// Fills in the version, the problems and the headline.
    #[must_use]
    pub fn judged(mut self) -> Self {
        self.v = FORMAT_VERSION;
        self.problems = self.find_problems();
        self.headline = self.find_headline();
        self
    }

    /// Why this node could not serve clients; `None`: it could. The meaning of `/readyz`.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        if !self.process.serving {
            return Some("not accepting connections yet".to_owned());
        }
        self.proxies.iter().find_map(|proxy| {
            if !proxy.probed {
                Some(format!("{}: servers are not all probed yet", proxy.name))
            } else if proxy.usable == 0 {
                Some(format!("{}: no usable server", proxy.name))
            } else {
                None
            }
        })
    }

    /// Whether what is known of virtual routers is of now.
    #[must_use]
    pub fn keeper_speaks(&self) -> bool {
        let heard = self.process.keeper_heard_ms;
        heard.is_some_and(|ms| ms < KEEPER_SILENT_MS)
    }

    fn find_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match self.process.keeper_heard_ms {
            None => problems
                .push("keeper not connected: this node takes no part in the election".to_owned()),
            Some(ms) if ms >= KEEPER_SILENT_MS => {
                problems.push(format!("keeper silent for {}", short_time(ms)));
            }
            Some(_) => {}
        }
        if !self.process.serving {
            problems.push("not accepting connections yet".to_owned());
        }
        for vip in self.vips() {
            problems.extend(vip_problems(vip));
        }
        for route in self.routes() {
            problems.extend(route_problems(route));
        }
        let channel = self.vrrp.as_ref().and_then(|vrrp| vrrp.channel.as_ref());
        problems.extend(channel.map(channel_problems).unwrap_or_default());
        for proxy in &self.proxies {
            problems.extend(proxy_problems(proxy));
        }
        if self.process.connections >= self.process.max_connections.max(1) {
            problems.push(format!(
                "connection limit of {} reached",
                self.process.max_connections
            ));
        }
        problems
    }

    fn find_headline(&self) -> String {
        let mut parts: Vec<String> = self.vips().iter().map(holder).collect();
        let announced = self.routes().iter().filter(|route| route.announced);
        parts.extend(announced.map(|route| {
            let addresses = bare(&route.addresses);
            format!("route to {addresses} announced: {}", route.reason)
        }));
        if self.problems.is_empty() {
            parts.extend(self.proxies.iter().map(servers_up));
        } else if self.keeper_speaks() {
            parts.extend(self.problems.iter().cloned());
        } else {
            // What the keeper said last may be long past: the trouble comes first.
            let old = parts.iter().map(|part| format!("last known: {part}"));
            parts = self.problems.iter().cloned().chain(old).collect();
        }
        if parts.is_empty() {
            parts.push("nothing to do".to_owned());
        }
        parts.join("; ")
    }

    fn vips(&self) -> &[VipStatus] {
        self.vrrp.as_ref().map_or(&[], |vrrp| &vrrp.vips)
    }

    fn routes(&self) -> &[RouteStatus] {
        self.vrrp.as_ref().map_or(&[], |vrrp| &vrrp.routes)
    }
}

/// A node that never spoke may have no lbd, or no key: that is the operator's affair.
fn channel_problems(channel: &ChannelStatus) -> Vec<String> {
    let fault = channel.fault.iter();
    let mut problems: Vec<String> = fault
        .map(|fault| format!("peer channel out of order: {fault}"))
        .collect();
    for node in &channel.nodes {
        if let (false, Some(ms)) = (node.reachable, node.heard_ms) {
            let span = short_time(ms);
            problems.push(format!(
                "{} silent on the peer channel for {span}",
                node.name
            ));
        }
        let lost = node.routers.iter().filter(|view| view.unheard);
        problems.extend(lost.map(|view| {
            format!(
                "adverts of VIP {} to {} are lost: one-way",
                view.vip, node.name
            )
        }));
    }
    problems
}

/// `VIP 172.16.0.10 held by lb2 (172.16.0.3) because its priority 110 beats ours 100`
fn holder(vip: &VipStatus) -> String {
    let addresses = bare_addresses(vip);
    match (vip.state, vip.active) {
        (VrrpState::Active, _) => format!("VIP {addresses} held by this node: {}", vip.reason),
        (VrrpState::Leaving, _) => {
            format!("VIP {addresses} is leaving this node: {}", vip.reason)
        }
        (VrrpState::Backup, Some(active)) => {
            let peer = peer_label(vip, active);
            format!("VIP {addresses} held by {peer} {}", why_it(vip, active))
        }
        (VrrpState::Backup, None) => {
            format!(
                "VIP {addresses} held by nobody this node hears: {}",
                vip.reason
            )
        }
        (VrrpState::Initialize, _) => {
            format!("VIP {addresses} not taken part in: {}", vip.reason)
        }
    }
}

/// Why the other node holds the address: the priorities say it, if they do.
fn why_it(vip: &VipStatus, active: IpAddr) -> String {
    let ours = vip.effective_priority;
    let peer = vip.peers.iter().find(|peer| peer.address == active);
    match peer.and_then(|peer| peer.priority) {
        Some(theirs) if theirs > ours => {
            format!("because its priority {theirs} beats ours {ours}")
        }
        Some(theirs) => format!("with priority {theirs} against ours {ours}: {}", vip.reason),
        None => format!("of unknown priority, ours is {ours}: {}", vip.reason),
    }
}

fn bare_addresses(vip: &VipStatus) -> String {
    bare(&vip.addresses)
}

fn bare(addresses: &[String]) -> String {
    let bare: Vec<&str> = addresses
        .iter()
        .map(|address| address.split('/').next().unwrap_or(address))
        .collect();
    bare.join(", ")
}

/// `lb2 (172.16.0.3)`, or the bare address of a node without a name.
pub(super) fn peer_label(vip: &VipStatus, address: IpAddr) -> String {
    vip.peers
        .iter()
        .find(|peer| peer.address == address)
        .and_then(|peer| peer.name.as_ref())
        .map_or_else(|| address.to_string(), |name| format!("{name} ({address})"))
}

fn vip_problems(vip: &VipStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if vip.state == VrrpState::Active && !vip.holds {
        problems.push(format!(
            "VIP {} is not on {}",
            bare_addresses(vip),
            vip.interface
        ));
    }
    problems.extend(failing(&vip.name, &vip.tracks));
    if let Some(conflict) = &vip.conflict {
        problems.push(format!("conflict on VIP {}: {conflict}", vip.name));
    }
    for peer in vip.peers.iter().filter(|peer| peer.alive_unheard) {
        problems.push(format!(
            "{} answers by ARP but its adverts do not arrive: VRRP ended there, or protocol 112 is blocked",
            peer_label(vip, peer.address)
        ));
    }
    if vip.silent {
        problems.push(format!(
            "the active node of VIP {} is not heard on {}, only on another wire of its group",
            vip.name, vip.interface
        ));
    }
    let silent_after = u64::from(vip.advert_interval_ms) * 4;
    let silent = |age: Option<u64>| age.is_some_and(|age| age > silent_after);
    // One that has only just taken over has not said so on every wire yet.
    if vip.state == VrrpState::Backup && vip.since_ms > silent_after {
        let holder = vip
            .peers
            .iter()
            .find(|peer| Some(peer.address) == vip.active);
        if let Some(peer) = holder.filter(|peer| silent(peer.last_advert_age_ms)) {
            problems.push(format!(
                "no advert from {} in time",
                peer_label(vip, peer.address)
            ));
        }
    }
    problems
}

fn failing<'a>(vip: &'a str, tracks: &'a [TrackStatus]) -> impl Iterator<Item = String> + 'a {
    let failing = tracks.iter().filter(|track| track.ok == Some(false));
    failing.map(move |track| format!("track {} of VIP {vip} fails", track.name))
}

fn route_problems(route: &RouteStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if !route.announced {
        let addresses = bare(&route.addresses);
        problems.push(format!("route to {addresses} withdrawn: {}", route.reason));
    }
    problems.extend(failing(&route.name, &route.tracks));
    problems
}

fn proxy_problems(proxy: &ProxyStatus) -> Vec<String> {
    let mut problems = Vec::new();
    let expected = proxy
        .servers
        .iter()
        .filter(|s| s.state != ServerState::Maint)
        .count();
    let is_ill =
        |server: &&ServerStatus| matches!(server.state, ServerState::Down | ServerState::Unknown);
    let all = proxy.servers.iter().filter(is_ill).count();
    let ill = proxy.servers.iter().filter(is_ill).take(NAMED_MAX);
    let mut ill: Vec<String> = ill.map(server_line).collect();
    if all > ill.len() {
        ill.push(format!("and {} more", all - ill.len()));
    }
    if !ill.is_empty() {
        problems.push(format!("{}: {}", servers_up(proxy), ill.join(", ")));
    } else if expected == 0 || proxy.usable == 0 {
        problems.push(format!("{}: no usable server", proxy.name));
    }
    let held = proxy.servers.iter().filter_map(held_back);
    problems.extend(held.map(|what| format!("{}: {what}", proxy.name)));
    if proxy.panic {
        problems.push(format!(
            "{}: servers that are held back are used, for want of others",
            proxy.name
        ));
    }
    if proxy.queue > 0 {
        problems.push(format!(
            "{}: {} connections wait for a server",
            proxy.name, proxy.queue
        ));
    }
    problems.extend(discovery::problems(proxy));
    problems
}

/// `kube-apiserver-3 ejected 0.4s: connects failed one after the other`
fn held_back(server: &ServerStatus) -> Option<String> {
    let what = server.standing.held_back()?;
    let why = server.standing.ejected_for.as_ref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    Some(format!("{} {what}{why}", server.name))
}

/// `kube-apiserver 2 of 3 servers up`
fn servers_up(proxy: &ProxyStatus) -> String {
    let up = proxy
        .servers
        .iter()
        .filter(|s| s.state == ServerState::Up)
        .count();
    format!("{} {up} of {} servers up", proxy.name, proxy.servers.len())
}

/// `kube-apiserver-3 down 12s: connection refused`
fn server_line(server: &ServerStatus) -> String {
    let word = match server.state {
        ServerState::Unknown => return format!("{} not probed yet", server.name),
        ServerState::Up | ServerState::Down | ServerState::Drain | ServerState::Maint => {
            server.state.word()
        }
    };
    let reason = server
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    // A server that is down says why; how it is down matters to those who are connected to it.
    let kind = match server.standing.verdict.as_deref() {
        Some("not-ready") if server.state == ServerState::Down => " (alive)",
        Some(_) | None => "",
    };
    format!(
        "{} {word}{kind} {}{reason}",
        server.name,
        short_time(server.since_ms)
    )
}
