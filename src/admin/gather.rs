//! From what proxy and health know to what users see. Pure.

use std::time::{Duration, Instant};

use super::measures::{ProxyMeasures, ServerMeasures};
use super::pace::{Pace, Paces};
use super::status::{
    LeavingStatus, ProxyStatus, ProxyTotals, ServerStanding, ServerState, ServerStatus,
    SourcesStatus, TalkerStatus,
};
use crate::config::model::{Node, Proxy, Vip};
use crate::health::board::Health;
use crate::health::probe::Verdict;
use crate::ipc::message::VrrpStatus;
use crate::metrics::spans::Spans;
use crate::proxy::counters::ProxyTotals as Counters;
use crate::proxy::farm::{FarmStats, LeavingStats, ServerStats, Standing};
use crate::proxy::server::{AdminState, Operational};
use crate::proxy::sources::Overview;

/// One proxy: its configuration, its numbers, and what the checks of its servers say.
#[must_use]
pub fn proxy_status(
    config: &Proxy,
    stats: &FarmStats,
    health: &[Option<Health>],
    probed: bool,
    paces: &Paces,
    now: Instant,
) -> ProxyStatus {
    let servers = stats.servers.iter();
    let servers = servers.filter_map(|stats| Some((stats, health.get(stats.place)?.as_ref()?)));
    ProxyStatus {
        name: config.name.clone(),
        listen: config.listen.iter().map(ToString::to_string).collect(),
        probed,
        usable: wide(stats.usable),
        panic: stats.panic,
        connections: stats.connections.into(),
        max_connections: stats.connections_limit.map(Into::into),
        queue: wide(stats.queue),
        max_queue: wide(stats.queue_limit),
        sources: stats.sources.as_ref().map(sources),
        totals: totals(&stats.totals),
        servers: servers
            .map(|(server, health)| ServerStatus {
                measures: ServerMeasures {
                    pace: paces.of_server(&stats.name, server.place, &server.name, now),
                    ..measures(server, health)
                },
                ..server_status(server, health, now)
            })
            .collect(),
        discovery: Vec::new(),
        leaving: stats.leaving.iter().map(leaving).collect(),
        removed: Vec::new(),
        measures: ProxyMeasures {
            able: wide(stats.able),
            connections_most: stats.connections_max.into(),
            queue_most: wide(stats.queue_max),
            waits: Spans::of(&stats.waits, stats.totals.queue_micros),
            pace: paces.of_proxy(&stats.name, now),
        },
    }
}

/// What lb.toml calls this node: it is the one that no virtual router has for a peer.
#[must_use]
pub fn own_name(vips: &[Vip], vrrp: Option<&VrrpStatus>) -> Option<String> {
    let routers = vrrp?.vips.iter();
    let known = routers.filter_map(|router| {
        let vip = vips.iter().find(|vip| vip.name == router.name)?;
        let is_peer = |node: &&Node| {
            let mut peers = router.peers.iter();
            peers.any(|peer| peer.address == node.address || Some(peer.address) == node.twin)
        };
        let mut own = vip.nodes.iter().filter(|node| !is_peer(node));
        match (own.next(), own.next()) {
            (Some(node), None) => node.name.clone(),
            (Some(_) | None, _) => None,
        }
    });
    known.into_iter().next()
}

fn leaving(stats: &LeavingStats) -> LeavingStatus {
    LeavingStatus {
        name: stats.name.clone(),
        address: stats.address.to_string(),
        connections: stats.connections.into(),
    }
}

fn sources(overview: &Overview) -> SourcesStatus {
    let talkers = overview.top.iter();
    SourcesStatus {
        known: wide(overview.known),
        connected: wide(overview.connected),
        top: talkers
            .map(|talker| TalkerStatus {
                source: talker.source.to_string(),
                connections: talker.connections.into(),
                accepted: talker.accepted,
                refused: talker.refused,
            })
            .collect(),
    }
}

fn totals(counters: &Counters) -> ProxyTotals {
    let failed = [
        ("client-left", counters.clients_left),
        ("no-server", counters.no_server),
        ("unreachable", counters.unreachable),
        ("queue-full", counters.queue_full),
        ("queue-too-slow", counters.queue_too_slow),
        ("queue-timeout", counters.queue_timeouts),
        ("client-abort", counters.client_aborts),
        ("server-abort", counters.server_aborts),
        ("idle-timeout", counters.idle_timeouts),
        ("first-byte-timeout", counters.first_byte_timeouts),
        ("header-missing", counters.header_missing),
        ("header-malformed", counters.header_malformed),
        ("header-too-long", counters.header_too_long),
        ("header-closed", counters.header_closed),
        ("header-timeout", counters.header_timeouts),
        ("denied", counters.denied),
        ("source-connections", counters.source_connections),
        ("source-rate", counters.source_rate),
        ("half-close-timeout", counters.half_close_timeouts),
        ("gave-way", counters.gave_way),
        ("server-down", counters.server_down),
        ("max-age", counters.max_age),
        ("rebalanced", counters.rebalanced),
        ("killed", counters.killed),
        ("resources", counters.resource_errors),
        ("accept", counters.accept_errors),
    ];
    ProxyTotals {
        accepted: counters.accepted,
        finished: counters.finished,
        bytes_in: counters.bytes_in,
        bytes_out: counters.bytes_out,
        bytes_spliced: counters.bytes_spliced,
        queued: counters.queued,
        queue_micros: counters.queue_micros,
        failed: failed
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect(),
        helped: counters.helped,
        limit_reached: counters.limit_reached,
        headers: counters.headers,
    }
}

fn server_status(stats: &ServerStats, health: &Health, now: Instant) -> ServerStatus {
    let age = |since: Instant| millis(now.saturating_duration_since(since));
    let verdict = health.last.as_ref().map(|verdict| match verdict {
        Verdict::Ready => "ready",
        Verdict::NotReady(_) => "not-ready",
        Verdict::Unresponsive(_) => "unresponsive",
    });
    let reason = health.last.as_ref().and_then(Verdict::reason);
    ServerStatus {
        name: stats.name.clone(),
        address: stats.address.to_string(),
        state: state(stats),
        since_ms: age(health.since),
        verdict: verdict.map(str::to_owned),
        reason: reason.map(str::to_owned),
        counter: health.counter,
        checked_ms: health.checked.map(age),
        check_micros: health.took.map(micros),
        checks: health.checks,
        check_failures: health.failures,
        transitions: health.transitions,
        origin: stats.origin.word().to_owned(),
        admin: admin(stats.admin).to_owned(),
        weight: stats.weight.into(),
        own_weight: stats.own_weight.map(Into::into),
        ramp_ms: stats.ramp_ms,
        connections: stats.connections.into(),
        max_connections: stats.connections_limit.map(Into::into),
        connected: stats.totals.connected,
        connect_micros: stats.totals.connect_micros,
        connect_errors: stats.totals.connect_errors,
        connect_timeouts: stats.totals.connect_timeouts,
        redispatches: stats.totals.redispatches,
        hedges: stats.totals.hedges,
        hedges_won: stats.totals.hedges_won,
        rebalanced: stats.totals.rebalanced,
        bytes_in: stats.totals.bytes_in,
        bytes_out: stats.totals.bytes_out,
        aborts: stats.totals.server_aborts,
        standing: standing(&stats.standing),
        measures: ServerMeasures::default(),
    }
}

fn measures(stats: &ServerStats, health: &Health) -> ServerMeasures {
    let totals = &stats.totals;
    ServerMeasures {
        backup: stats.backup,
        usable: stats.usable,
        share_percent: stats.share_percent.into(),
        connections_most: stats.connections_max.into(),
        connects_per_second: stats.connects_per_second.map(Into::into),
        attempts: totals.attempts,
        retries: totals.retries,
        client_aborts: totals.client_aborts,
        ended: totals.ended,
        life_micros: totals.total_micros,
        asked: totals.asked,
        answered: totals.answered,
        answer_micros: totals.answer_micros,
        unanswered: totals.unanswered,
        downs: stats.downs,
        down_ms: stats.down_ms,
        connects: Spans::of(&stats.connects, totals.connect_micros),
        checks: health.spans.clone(),
        pace: Pace::default(),
    }
}

fn standing(standing: &Standing) -> ServerStanding {
    ServerStanding {
        verdict: standing.verdict.map(str::to_owned),
        ejected_ms: standing.ejected_ms,
        ejected_for: standing.ejected_for.map(str::to_owned),
        missing: standing.missing.into(),
        closing: standing.closing,
        suspicions: standing.suspicions,
        ejections: standing.ejections,
    }
}

const fn admin(state: AdminState) -> &'static str {
    match state {
        AdminState::Ready => "ready",
        AdminState::Drain => "drain",
        AdminState::Maint => "maint",
    }
}

fn state(stats: &ServerStats) -> ServerState {
    match (stats.admin, stats.operational) {
        (AdminState::Maint, _) => ServerState::Maint,
        (AdminState::Drain, _) => ServerState::Drain,
        (AdminState::Ready, Operational::Unprobed) => ServerState::Unknown,
        (AdminState::Ready, Operational::Up) => ServerState::Up,
        (AdminState::Ready, Operational::Down) => ServerState::Down,
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
