//! The status as text for people: a headline that says what is wrong, then the details. Pure.

use crate::ipc::command::LogState;
use crate::ipc::message::{RouteStatus, TrackStatus, VipStatus, VrrpState};
use crate::log::escape;

use super::channel;
use super::discovery;
use super::judge::peer_label;
use super::sandbox;
use super::status::{
    ProcessStatus, ProxyStatus, ServerState, ServerStatus, Status, short_bytes, short_time,
};
use super::talkers;

/// The whole of `lbd status`.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    push_line(&mut out, &status.headline);
    push_line(&mut out, "");
    process(&mut out, &status.process, status);
    for vip in status.vrrp.iter().flat_map(|vrrp| &vrrp.vips) {
        push_line(&mut out, "");
        if !status.keeper_speaks() {
            push_line(&mut out, "LAST KNOWN, the keeper is silent:");
        }
        virtual_router(&mut out, vip);
    }
    for route in status.vrrp.iter().flat_map(|vrrp| &vrrp.routes) {
        push_line(&mut out, "");
        if !status.keeper_speaks() {
            push_line(&mut out, "LAST KNOWN, the keeper is silent:");
        }
        route_line(&mut out, route);
    }
    if let Some(status) = status.vrrp.as_ref().and_then(|vrrp| vrrp.channel.as_ref()) {
        push_line(&mut out, "");
        channel::channel(&mut out, status);
    }
    for one in &status.proxies {
        push_line(&mut out, "");
        proxy(&mut out, one);
    }
    out
}

fn process(out: &mut String, process: &ProcessStatus, status: &Status) {
    let keeper = match (&status.vrrp, process.keeper_heard_ms) {
        (_, None) => "keeper not connected".to_owned(),
        (None, Some(_)) => "keeper connected".to_owned(),
        (Some(vrrp), Some(heard)) => format!(
            "keeper pid {}{} heard {} ago",
            vrrp.keeper_pid,
            if vrrp.realtime { " (real-time)" } else { "" },
            short_time(heard)
        ),
    };
    push_line(
        out,
        &format!(
            "lbd {}  {}  up {}  pid {} (start {})  {keeper}",
            process.version,
            process.config_path,
            short_time(process.uptime_ms),
            process.pid,
            process.generation,
        ),
    );
    push_line(
        out,
        &format!(
            "connections {} of {}  workers {}{}  log lines lost {}",
            process.connections,
            process.max_connections,
            process.workers,
            pinned(&process.worker_cpus),
            process.log_dropped + process.access_log_dropped,
        ),
    );
    shortages(out, &process.shortages);
    for line in sandbox::lines(&status.sandbox) {
        push_line(out, &line);
    }
    if let Some(log) = status.vrrp.as_ref().and_then(|vrrp| vrrp.log.as_ref()) {
        push_line(out, &log_words(log));
    }
}

/// What is logged, in words.
#[must_use]
pub fn log_words(state: &LogState) -> String {
    let mut text = format!("log level {}", state.level.word());
    if let Some(component) = &state.component {
        text.push_str(&format!(" for {component}"));
    }
    if let Some(left) = state.left_ms {
        text.push_str(&format!(", {} left", short_time(left)));
    }
    if state.level == state.configured && state.component.is_none() {
        text.push_str(", as configured");
    } else {
        text.push_str(&format!(" (configured: {})", state.configured.word()));
    }
    text
}

/// What status says of pinned workers.
fn pinned(cpus: &[u64]) -> String {
    if cpus.is_empty() {
        return String::new();
    }
    let cpus: Vec<String> = cpus.iter().map(u64::to_string).collect();
    format!(" (on CPU {})", cpus.join(", "))
}

/// What status says of things that ran out; nothing is said of the rest.
fn shortages(out: &mut String, shortages: &[(String, u64)]) {
    let met = shortages.iter().filter(|(_, count)| *count > 0);
    let met: Vec<String> = met
        .map(|(what, count)| format!("{what} {count} times"))
        .collect();
    if !met.is_empty() {
        push_line(out, &format!("ran out of: {}", met.join(", ")));
    }
}

fn virtual_router(out: &mut String, vip: &VipStatus) {
    let state = match vip.state {
        VrrpState::Initialize => "initialize (not taking part)",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active (MASTER)",
        VrrpState::Leaving => "leaving (waits for the successor)",
    };
    push_line(
        out,
        &format!(
            "VIP {}  {} on {}  vrid {}  version {}  advert every {}",
            vip.name,
            vip.addresses.join(", "),
            vip.interface,
            vip.vrid,
            vip.version,
            interval(vip.advert_interval_ms),
        ),
    );
    push_line(
        out,
        &format!("  {state} for {}: {}", short_time(vip.since_ms), vip.reason),
    );
    let holder = match (vip.holds, vip.active) {
        (true, _) => "this node".to_owned(),
        (false, Some(active)) => peer_label(vip, active),
        // It may well hear somebody, and doesn't listen.
        (false, None) if vip.state == VrrpState::Initialize => "unknown".to_owned(),
        (false, None) => "nobody this node hears".to_owned(),
    };
    push_line(
        out,
        &format!(
            "  held by {holder}  priority {} (configured {})  moves {}",
            vip.effective_priority,
            vip.base_priority,
            vip.counters.became_active + vip.counters.left_active,
        ),
    );
    if let Some(held) = vip.held_back {
        let left = held
            .left_ms
            .map_or_else(String::new, |ms| format!("{} left, or ", short_time(ms)));
        push_line(
            out,
            &format!("  held back after a failover: {left}until `lbd failover --cancel`"),
        );
    }
    if let Some(group) = &vip.sync_group {
        let silent = if vip.silent {
            "; its active node is NOT HEARD HERE, only on another wire"
        } else {
            ""
        };
        push_line(out, &format!("  moves with the group {group}{silent}"));
    }
    peers(out, vip);
    tracks(out, &vip.tracks);
    rejected(out, vip);
}

fn route_line(out: &mut String, route: &RouteStatus) {
    push_line(
        out,
        &format!(
            "VIP {}  {} on {}  announced as a route",
            route.name,
            route.addresses.join(", "),
            route.interface,
        ),
    );
    push_line(
        out,
        &format!(
            "  {} for {}: {}  changes {}",
            route.word(),
            short_time(route.since_ms),
            route.reason,
            route.counters.announced + route.counters.withdrawn,
        ),
    );
    tracks(out, &route.tracks);
}

fn tracks(out: &mut String, tracks: &[TrackStatus]) {
    let mut rows = vec![row(&["TRACK", "STATE", "WEIGHT"])];
    rows.extend(tracks.iter().map(|track| {
        let word = match track.ok {
            Some(true) => "ok",
            Some(false) => "FAILS",
            None => "no result yet",
        };
        vec![track.name.clone(), word.to_owned(), dash(track.weight)]
    }));
    push_columns(out, &rows);
}

fn peers(out: &mut String, vip: &VipStatus) {
    let mut rows = vec![row(&[
        "PEER",
        "PRIORITY",
        "LAST ADVERT",
        "ADVERTS",
        "JITTER P50",
        "P99",
        "REJECTED",
    ])];
    rows.extend(vip.peers.iter().map(|peer| {
        let age = peer.last_advert_age_ms;
        vec![
            peer_label(vip, peer.address),
            dash(peer.priority),
            age.map_or_else(
                || "never".to_owned(),
                |age| format!("{} ago", short_time(age)),
            ),
            peer.adverts.to_string(),
            dash(peer.jitter_p50_us.map(deviation)),
            dash(peer.jitter_p99_us.map(deviation)),
            if peer.rejected.is_empty() {
                "0".to_owned()
            } else {
                reasons(&peer.rejected).join(", ")
            },
        ]
    }));
    push_columns(out, &rows);
}

fn deviation(micros: u64) -> String {
    format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
}

pub(super) fn reasons(counts: &[(String, u64)]) -> Vec<String> {
    let happened = counts.iter().filter(|(_, count)| *count > 0);
    happened
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect()
}

fn rejected(out: &mut String, vip: &VipStatus) {
    let reasons = reasons(&vip.counters.rejected);
    if !reasons.is_empty() {
        push_line(out, &format!("  rejected packets: {}", reasons.join(", ")));
    }
}

fn proxy(out: &mut String, proxy: &ProxyStatus) {
    let limit = proxy
        .max_connections
        .map_or_else(String::new, |max| format!(" of {max}"));
    let totals = &proxy.totals;
    push_line(
        out,
        &format!(
            "PROXY {}  {}  connections {}{limit}  queue {} of {}",
            proxy.name,
            proxy.listen.join(", "),
            proxy.connections,
            proxy.queue,
            proxy.max_queue,
        ),
    );
    push_line(
        out,
        &format!(
            "  accepted {}  queued {}  in {}  out {}",
            totals.accepted,
            totals.queued,
            short_bytes(totals.bytes_in),
            short_bytes(totals.bytes_out),
        ),
    );
    let failed: Vec<String> = totals
        .failed
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !failed.is_empty() {
        push_line(out, &format!("  failed: {}", failed.join(", ")));
    }
    if let Some(sources) = &proxy.sources {
        push_line(out, &format!("  {}", talkers::line(sources)));
    }
    let header = [
        "SERVER", "ADDRESS", "STATE", "FOR", "CHECK", "WEIGHT", "CONNS", "TOTAL", "IN", "OUT",
        "ERRORS",
    ];
    let mut rows = vec![row(&header)];
    rows.extend(proxy.servers.iter().map(server));
    push_columns(out, &rows);
    discovery::lines(out, proxy);
    run_time(out, proxy);
}

/// What differs from the file.
fn run_time(out: &mut String, proxy: &ProxyStatus) {
    let added = proxy.servers.iter().filter(|s| s.origin == "operator");
    let added: Vec<String> = added.map(|server| server.name.clone()).collect();
    let leaving = proxy.leaving.iter();
    let leaving = leaving.map(|gone| format!("{} ({} connections)", gone.name, gone.connections));
    let lists = [
        ("added at run time", added),
        ("removed at run time", proxy.removed.clone()),
        ("leaving", leaving.collect()),
    ];
    for (what, names) in lists {
        if !names.is_empty() {
            push_line(out, &format!("  {what}: {}", names.join(", ")));
        }
    }
}

fn server(server: &ServerStatus) -> Vec<String> {
    let state = match (server.state, server.ramp_ms) {
        (ServerState::Up, ramp) => match (server.standing.held_back(), ramp) {
            (Some(why), _) => format!("up ({why})"),
            (None, Some(ramp)) => format!("up (slowstart {})", short_time(ramp)),
            (None, None) => "up".to_owned(),
        },
        (ServerState::Down, _) if server.standing.closing && server.connections > 0 => {
            "DOWN (closing)".to_owned()
        }
        (ServerState::Down, _) => "DOWN".to_owned(),
        (ServerState::Unknown | ServerState::Drain | ServerState::Maint, _) => {
            server.state.word().to_owned()
        }
    };
    let check = match (&server.reason, server.check_micros) {
        (Some(reason), _) => reason.clone(),
        (None, Some(micros)) => format!("ok in {}.{}ms", micros / 1_000, micros % 1_000 / 100),
        (None, None) => "–".to_owned(),
    };
    let limit = server
        .max_connections
        .map_or_else(String::new, |max| format!("/{max}"));
    vec![
        server.name.clone(),
        server.address.clone(),
        state,
        short_time(server.since_ms),
        check,
        match server.own_weight {
            Some(own) => format!("{} (not {own})", server.weight),
            None => server.weight.to_string(),
        },
        format!("{}{limit}", server.connections),
        server.connected.to_string(),
        short_bytes(server.bytes_in),
        short_bytes(server.bytes_out),
        (server.connect_errors + server.connect_timeouts + server.aborts).to_string(),
    ]
}

fn interval(ms: u32) -> String {
    if ms.is_multiple_of(1_000) {
        format!("{}s", ms / 1_000)
    } else {
        format!("{ms}ms")
    }
}

fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

pub(super) fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Lines of the table; what servers and peers said cannot move the cursor.
pub(super) fn push_line(out: &mut String, line: &str) {
    out.push_str(&escape(line));
    out.push('\n');
}

/// Left-aligned columns under the first row; nothing when there is only that.
pub(super) fn push_columns(out: &mut String, rows: &[Vec<String>]) {
    if rows.len() < 2 {
        return;
    }
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(present) => *present = width.max(*present),
                None => widths.push(width),
            }
        }
    }
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:width$} "));
        }
        push_line(out, line.trim_end());
    }
}
