//! What led to an event: the nodes, tracks and servers behind the move of an address, put together
//! from what this node noted shortly before. Pure.

use crate::ipc::event::{Event, EventKind, Ring};
use crate::ipc::message::{PeerStatus, VipStatus};

/// What happened longer before a move did not bring it about, milliseconds.
const RECENT_MS: u64 = 60_000;
/// Servers named.
const SERVERS_MAX: usize = 4;

/// Where the cause of a move is to be looked for, by the reason that the state machine gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// In this node's tracks.
    Tracks,
    /// In what was heard of the other nodes.
    Nodes,
    /// In both.
    Both,
    /// Nowhere: the reason says it all.
    Itself,
}

fn behind(reason: &str) -> Behind {
    match reason {
        "cannot serve: handing off"
        | "cannot serve, but no other node took over"
        | "handed off"
        | "able to serve again" => Behind::Tracks,
        "the active node fell silent"
        | "the active node resigned or cannot serve"
        | "no active node was heard"
        | "stronger than the node that was active"
        | "no other node took over"
        | "not heard by the other active node"
        | "no advert can be sent: another node is active" => Behind::Nodes,
        "a stronger node is active" | "no node that can serve took over" => Behind::Both,
        // Words of the state machine, not an enum of ours.
        _ => Behind::Itself,
    }
}

/// What led to a move of a virtual router, for the reason `reason`; `status` is how it is now.
pub(super) fn of_move(
    ring: &Ring,
    at_ms: u64,
    vip: &str,
    (reason, status): (&str, Option<&VipStatus>),
) -> Option<String> {
    let tracks = || of_tracks(ring, at_ms, vip);
    let nodes = || status.and_then(of_nodes);
    let parts = match behind(reason) {
        Behind::Tracks => [tracks(), None],
        Behind::Nodes => [nodes(), None],
        Behind::Both => [nodes(), tracks()],
        Behind::Itself => [None, None],
    };
    joined(&parts.into_iter().flatten().collect::<Vec<_>>())
}

/// What led to the verdict of a track: of `proxy:NAME` the servers of late.
pub(super) fn of_track(ring: &Ring, at_ms: u64, track: &str) -> Option<String> {
    let proxy = track.strip_prefix("proxy:")?;
    let mut named: Vec<&str> = Vec::new();
    let mut parts = Vec::new();
    for event in recent(ring, at_ms) {
        let about_servers = matches!(
            event.kind,
            EventKind::Health | EventKind::Ejection | EventKind::Server
        );
        let Some(subject) = event.subject.as_deref() else {
            continue;
        };
        let server = subject.strip_prefix(proxy);
        let of_proxy = server.is_some_and(|server| server.starts_with('/'));
        let of_process = event.kind == EventKind::Proxy;
        if (about_servers && of_proxy || of_process) && !named.contains(&subject) {
            named.push(subject);
            parts.push(words(event));
        }
        if parts.len() >= SERVERS_MAX {
            break;
        }
    }
    parts.reverse();
    joined(&parts)
}

/// The last track of the router that changed, and what led to that.
fn of_tracks(ring: &Ring, at_ms: u64, vip: &str) -> Option<String> {
    let is_own =
        |event: &&Event| event.kind == EventKind::Track && event.vip.as_deref() == Some(vip);
    let track = recent(ring, at_ms).find(is_own)?;
    let mut parts = vec![words(track)];
    parts.extend(track.cause.clone());
    joined(&parts)
}

/// The other node that was heard last, and how strong both are.
fn of_nodes(status: &VipStatus) -> Option<String> {
    let heard = status.peers.iter();
    let heard = heard.filter_map(|peer| peer.last_advert_age_ms.map(|age| (age, peer)));
    let Some((age, peer)) = heard.min_by_key(|(age, _)| *age) else {
        return Some("no other node was ever heard".to_owned());
    };
    let priority = peer
        .priority
        .map_or_else(String::new, |priority| format!(" with priority {priority}"));
    Some(format!(
        "{} last heard {}.{:03} s ago{priority}, this node has priority {}",
        node(peer),
        age / 1_000,
        age % 1_000,
        status.effective_priority
    ))
}

fn node(peer: &PeerStatus) -> String {
    match &peer.name {
        Some(name) => format!("{name} ({})", peer.address),
        None => peer.address.to_string(),
    }
}

/// The newest first.
fn recent(ring: &Ring, at_ms: u64) -> impl Iterator<Item = &Event> {
    let since = at_ms.saturating_sub(RECENT_MS);
    let all = ring.from(0).rev().map(|(_, event)| event);
    all.take_while(move |event| event.at_ms >= since)
}

/// `kube/a up → down (connection refused)`.
fn words(event: &Event) -> String {
    let mut text = event.subject.clone().unwrap_or_default();
    match (&event.from, &event.to) {
        (Some(from), Some(to)) => {
            text.push_str(&format!(" {from} → {to}"));
            if !event.reason.is_empty() {
                text.push_str(&format!(" ({})", event.reason));
            }
        }
        (_, _) => text.push_str(&format!(" {}", event.reason)),
    }
    text
}

fn joined(parts: &[String]) -> Option<String> {
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::VrrpState;

    fn event(at_ms: u64, kind: EventKind, about: (Option<&str>, &str), to: &str) -> Event {
        Event {
            seq: at_ms,
            at_ms,
            kind,
            vip: about.0.map(str::to_owned),
            subject: Some(about.1.to_owned()),
            from: Some("up".into()),
            to: Some(to.into()),
            reason: "refused".into(),
            cause: None,
        }
    }

    fn ring(events: Vec<Event>) -> Ring {
        let mut ring = Ring::new(64);
        events.into_iter().for_each(|event| ring.push(event));
        ring
    }

    #[test]
    fn a_hand_off_is_traced_back_to_the_servers() {
        let mut ring = ring(vec![
            event(1_000, EventKind::Health, (None, "kube/old"), "down"),
            event(99_000, EventKind::Health, (None, "kube/a"), "up"),
            event(99_500, EventKind::Health, (None, "kubernetes/x"), "down"),
            event(99_600, EventKind::Health, (None, "kube/a"), "down"),
            event(99_700, EventKind::Ejection, (None, "kube/b"), "ejected"),
        ]);
        let cause = of_track(&ring, 100_000, "proxy:kube");
        let expected = "kube/a up → down (refused); kube/b up → ejected (refused)";
        assert_eq!(cause.as_deref(), Some(expected));
        ring.push(Event {
            cause,
            ..event(
                100_000,
                EventKind::Track,
                (Some("v"), "proxy:kube"),
                "failed",
            )
        });
        let of = |vip| of_move(&ring, 100_001, vip, ("cannot serve: handing off", None));
        assert_eq!(
            of("v").unwrap(),
            format!("proxy:kube up → failed (refused); {expected}")
        );
        assert_eq!(of("other"), None);
        let late = of_move(&ring, 161_000, "v", ("cannot serve: handing off", None));
        assert_eq!(late, None);
    }

    #[test]
    fn a_takeover_names_the_node_that_was_heard_last() {
        let ring = ring(Vec::new());
        let peer = |name: &str, age| PeerStatus {
            name: Some(name.into()),
            address: "172.16.0.2".parse().unwrap(),
            last_advert_age_ms: age,
            priority: Some(110),
            adverts: 1,
            jitter_p50_us: None,
            jitter_p99_us: None,
            deviations: crate::ipc::message::SpanCounts::default(),
            alive_unheard: false,
            rejected: Vec::new(),
        };
        let status = |peers| VipStatus {
            name: "v".into(),
            sync_group: None,
            vrid: 10,
            version: 3,
            interface: "eth0".into(),
            addresses: Vec::new(),
            state: VrrpState::Active,
            reason: String::new(),
            since_ms: 0,
            holds: true,
            base_priority: 100,
            effective_priority: 100,
            advert_interval_ms: 1_000,
            active: None,
            held_back: None,
            silent: false,
            conflict: None,
            peers,
            tracks: Vec::new(),
            counters: crate::ipc::message::VrrpCounters::default(),
        };
        let silent = "the active node fell silent";
        let known = status(vec![peer("lb3", None), peer("lb1", Some(3_609))]);
        let cause = of_move(&ring, 5_000, "v", (silent, Some(&known)));
        let expected = "lb1 (172.16.0.2) last heard 3.609 s ago with priority 110, \
                        this node has priority 100";
        assert_eq!(cause.as_deref(), Some(expected));
        let none = status(vec![peer("lb1", None)]);
        let cause = of_move(&ring, 5_000, "v", (silent, Some(&none)));
        assert_eq!(cause.as_deref(), Some("no other node was ever heard"));
        let started = of_move(
            &ring,
            5_000,
            "v",
            ("listening for an active node", Some(&known)),
        );
        assert_eq!(started, None);
    }

    #[test]
    fn reasons_are_the_state_machines() {
        let machine = [
            include_str!("../../vrrp/fsm/mod.rs"),
            include_str!("../../vrrp/fsm/active.rs"),
            include_str!("../../vrrp/fsm/backup.rs"),
            include_str!("../../vrrp/fsm/leaving.rs"),
        ]
        .concat();
        let own = include_str!("cause.rs");
        let table = own.split("match reason {").nth(1).unwrap();
        let table = table.split("// Words of").next().unwrap();
        let reasons: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
        assert_eq!(reasons.len(), 13);
        for reason in reasons {
            assert!(machine.contains(&format!("\"{reason}\"")), "{reason}");
            assert_ne!(behind(reason), Behind::Itself, "{reason}");
        }
    }
}
