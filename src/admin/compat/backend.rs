//! `haproxy_backend_*`: a proxy's servers as one.

use super::frontend::failed;
use super::{Row, none, rows};
use crate::admin::families::{flag, number, seconds_from_micros, seconds_from_ms};
use crate::admin::status::{ProxyStatus, ServerStatus};
use crate::metrics::{Families, Family, Kind};

rows! { ROWS of ProxyStatus, ["proxy"];
    Gauge "haproxy_backend_current_queue" "Connections that wait for a server." |p| number(p.queue);
    Gauge "haproxy_backend_max_queue" "The most connections that ever waited at once." |p| number(p.measures.queue_most);
    Gauge "haproxy_backend_current_sessions" "Client connections." |p| number(p.connections);
    Gauge "haproxy_backend_max_sessions" "The most client connections at once." |p| number(p.measures.connections_most);
    Gauge "haproxy_backend_limit_sessions" "max-connections; NaN: only the process's limit." |p| super::or_nan(p.max_connections.map(number));
    Counter "haproxy_backend_sessions_total" "Connections accepted." |p| number(p.totals.accepted);
    Counter "haproxy_backend_bytes_in_total" "Bytes from clients." |p| number(p.totals.bytes_in);
    Counter "haproxy_backend_bytes_out_total" "Bytes to clients." |p| number(p.totals.bytes_out);
    Counter "haproxy_backend_connection_errors_total" "Connects that failed." |p| sum(p, |s| s.connect_errors.saturating_add(s.connect_timeouts));
    Counter "haproxy_backend_connection_attempts_total" "Connects begun." |p| sum(p, |s| s.measures.attempts);
    Counter "haproxy_backend_retry_warnings_total" "Failed connects after which the connection tried again." |p| sum(p, |s| s.measures.retries);
    Counter "haproxy_backend_redispatch_warnings_total" "Failed connects after which the connection went elsewhere." |p| sum(p, |s| s.redispatches);
    Counter "haproxy_backend_loadbalanced_total" "Connections that servers accepted." |p| sum(p, |s| s.connected);
    Counter "haproxy_backend_client_aborts_total" "Connections that clients broke off." |p| failed(p, &["client-left", "client-abort"]);
    Counter "haproxy_backend_server_aborts_total" "Connections that servers broke off." |p| failed(p, &["server-abort"]);
    Counter "haproxy_backend_internal_errors_total" "Connections that failed for want of descriptors or memory." |p| failed(p, &["resources"]);
    Gauge "haproxy_backend_weight" "Weights of the servers in use, slowstart applied, added up." |p| weights(p, effective);
    Gauge "haproxy_backend_uweight" "Configured weights of the servers in use, added up." |p| weights(p, |s| s.weight);
    Gauge "haproxy_backend_active_servers" "Usable servers, backups apart." |p| usable(p, false);
    Gauge "haproxy_backend_backup_servers" "Usable backup servers." |p| usable(p, true);
    Counter "haproxy_backend_check_up_down_total" "Times the last usable server was lost." |p| number(p.measures.pace.downs);
    Gauge "haproxy_backend_check_last_change_seconds" "Time since the first usable server came or the last one went." |p| seconds_from_ms(p.measures.pace.turned_ms);
    Counter "haproxy_backend_downtime_seconds_total" "Time without a usable server." |p| seconds_from_ms(p.measures.pace.down_ms);
    Gauge "haproxy_backend_max_session_rate" "The most connections in a second." |p| number(p.measures.pace.rate_max);
    Gauge "haproxy_backend_last_session_seconds" "Time since the last connection; -1: none yet." |p| last(p.measures.pace.last_ms);
    Gauge "haproxy_backend_queue_time_average_seconds" "Average wait for a server, of the last 1024 that waited." |p| seconds_from_micros(p.measures.pace.wait);
    Gauge "haproxy_backend_connect_time_average_seconds" "Average time to connect, of the last 1024 connections." |p| seconds_from_micros(p.measures.pace.connect);
    Gauge "haproxy_backend_response_time_average_seconds" "Average time to the first byte of an answer, of the last 1024." |p| seconds_from_micros(p.measures.pace.answer);
    Gauge "haproxy_backend_total_time_average_seconds" "Average life of a connection, of the last 1024." |p| seconds_from_micros(p.measures.pace.life);
    Counter "haproxy_backend_requests_denied_total" "0: lbd reads no requests." none;
    Counter "haproxy_backend_responses_denied_total" "0: lbd reads no responses." none;
    Counter "haproxy_backend_response_errors_total" "0: lbd reads no responses." none;
    Counter "haproxy_backend_failed_header_rewriting_total" "0: lbd rewrites no headers." none;
    Counter "haproxy_backend_connection_reuses_total" "0: a server's connection serves one client." none;
}

const STATUS: Family = Family {
    name: "haproxy_backend_status",
    kind: Kind::Gauge,
    labels: &["proxy", "state"],
    help: "UP while a server is usable.",
};

pub(super) fn add(out: &mut Families, proxy: &ProxyStatus) {
    let name = proxy.name.as_str();
    Row::add_all(ROWS, out, &[name], proxy);
    out.add(&STATUS, &[name, "DOWN"], flag(proxy.usable == 0));
    out.add(&STATUS, &[name, "UP"], flag(proxy.usable > 0));
}

pub(super) fn families() -> impl Iterator<Item = Family> {
    ROWS.iter().map(|row| row.family).chain([STATUS])
}

/// Seconds since the last connection, as HAProxy says it.
pub(super) fn last(ms: Option<u64>) -> f64 {
    ms.map_or(-1.0, |ms| number(ms / 1_000))
}

/// A server's weight, slowstart applied.
pub(super) fn effective(server: &ServerStatus) -> u64 {
    let share = server.measures.share_percent;
    (server.weight.saturating_mul(share)).div_ceil(100)
}

fn sum(proxy: &ProxyStatus, of: fn(&ServerStatus) -> u64) -> f64 {
    number(proxy.servers.iter().map(of).sum())
}

fn usable(proxy: &ProxyStatus, backup: bool) -> f64 {
    let usable =
        |server: &&ServerStatus| server.measures.usable && server.measures.backup == backup;
    let count = proxy.servers.iter().filter(usable).count();
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Backups count while nobody else is usable.
fn weights(proxy: &ProxyStatus, of: fn(&ServerStatus) -> u64) -> f64 {
    let usable = proxy.servers.iter().filter(|server| server.measures.usable);
    let (backups, others): (Vec<_>, Vec<_>) = usable.partition(|server| server.measures.backup);
    let used = if others.is_empty() { backups } else { others };
    number(used.into_iter().map(of).sum())
}
