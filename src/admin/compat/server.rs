//! `haproxy_server_*`.

use super::backend::{effective, last};
use super::{Row, none, or_nan, rows};
use crate::admin::families::{flag, number, seconds_from_micros, seconds_from_ms};
use crate::admin::status::{ProxyStatus, ServerState, ServerStatus};
use crate::metrics::{Families, Family, Kind};

rows! { ROWS of ServerStatus, ["proxy", "server"];
    Gauge "haproxy_server_current_sessions" "Connections to the server." |s| number(s.connections);
    Gauge "haproxy_server_max_sessions" "The most connections at once." |s| number(s.measures.connections_most);
    Gauge "haproxy_server_limit_sessions" "max-connections, slowstart applied; NaN: unlimited." |s| or_nan(s.max_connections.map(number));
    Gauge "haproxy_server_used_connections_current" "Connections to the server." |s| number(s.connections);
    Counter "haproxy_server_sessions_total" "Connections the server has accepted." |s| number(s.connected);
    Counter "haproxy_server_loadbalanced_total" "Connections the server has accepted." |s| number(s.connected);
    Counter "haproxy_server_bytes_in_total" "Bytes to the server." |s| number(s.bytes_in);
    Counter "haproxy_server_bytes_out_total" "Bytes from the server." |s| number(s.bytes_out);
    Counter "haproxy_server_connection_attempts_total" "Connects begun." |s| number(s.measures.attempts);
    Counter "haproxy_server_connection_errors_total" "Connects that failed." |s| number(s.connect_errors.saturating_add(s.connect_timeouts));
    Counter "haproxy_server_retry_warnings_total" "Failed connects after which the connection tried again." |s| number(s.measures.retries);
    Counter "haproxy_server_redispatch_warnings_total" "Failed connects after which the connection went elsewhere." |s| number(s.redispatches);
    Counter "haproxy_server_client_aborts_total" "Connections that clients broke off." |s| number(s.measures.client_aborts);
    Counter "haproxy_server_server_aborts_total" "Connections that the server broke off." |s| number(s.aborts);
    Gauge "haproxy_server_weight" "Weight, slowstart applied." |s| number(effective(s));
    Gauge "haproxy_server_uweight" "Configured weight." |s| number(s.weight);
    Gauge "haproxy_server_active" "1 unless it is a backup." |s| flag(!s.measures.backup);
    Gauge "haproxy_server_backup" "1 if it is a backup." |s| flag(s.measures.backup);
    Counter "haproxy_server_check_failures_total" "Checks that were no success." |s| number(s.check_failures);
    Counter "haproxy_server_check_up_down_total" "Times the server went down." |s| number(s.measures.downs);
    Gauge "haproxy_server_check_last_change_seconds" "Time since checks last changed their verdict." |s| number(s.since_ms / 1_000);
    Gauge "haproxy_server_check_duration_seconds" "How long the last check took; NaN: none yet." |s| or_nan(s.check_micros.map(seconds_from_micros));
    Counter "haproxy_server_downtime_seconds_total" "How long the server was down." |s| seconds_from_ms(s.measures.down_ms);
    Gauge "haproxy_server_current_throttle" "Part of its weight that a server in slowstart has, percent; NaN: it is not in slowstart." |s| or_nan(s.ramp_ms.map(|_| number(s.measures.share_percent)));
    Gauge "haproxy_server_max_session_rate" "The most connections in a second." |s| number(s.measures.pace.rate_max);
    Gauge "haproxy_server_last_session_seconds" "Time since the last connection; -1: none yet." |s| last(s.measures.pace.last_ms);
    Gauge "haproxy_server_connect_time_average_seconds" "Average time to connect, of the last 1024 connections." |s| seconds_from_micros(s.measures.pace.connect);
    Gauge "haproxy_server_response_time_average_seconds" "Average time to the first byte of an answer, of the last 1024." |s| seconds_from_micros(s.measures.pace.answer);
    Gauge "haproxy_server_total_time_average_seconds" "Average life of a connection, of the last 1024." |s| seconds_from_micros(s.measures.pace.life);
    Gauge "haproxy_server_current_queue" "0: connections wait for any server, not for this one." none;
    Counter "haproxy_server_responses_denied_total" "0: lbd reads no responses." none;
    Counter "haproxy_server_response_errors_total" "0: lbd reads no responses." none;
    Counter "haproxy_server_failed_header_rewriting_total" "0: lbd rewrites no headers." none;
    Counter "haproxy_server_connection_reuses_total" "0: a server's connection serves one client." none;
    Gauge "haproxy_server_idle_connections_current" "0: lbd keeps no idle connections." none;
    Gauge "haproxy_server_unsafe_idle_connections_current" "0: lbd keeps no idle connections." none;
    Gauge "haproxy_server_safe_idle_connections_current" "0: lbd keeps no idle connections." none;
    Gauge "haproxy_server_need_connections_current" "0: lbd keeps no idle connections." none;
}

const STATUS: Family = Family {
    name: "haproxy_server_status",
    kind: Kind::Gauge,
    labels: &["proxy", "server", "state"],
    help: "1 for the state of the server, 0 for the others; without a verdict it is DOWN, held back for what traffic told NOLB.",
};

const STATES: [&str; 5] = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];

pub(super) fn add(out: &mut Families, proxy: &ProxyStatus, server: &ServerStatus) {
    let labels = [proxy.name.as_str(), server.name.as_str()];
    Row::add_all(ROWS, out, &labels, server);
    let [proxy, name] = labels;
    let present = state(server);
    for state in STATES {
        out.add(&STATUS, &[proxy, name, state], flag(state == present));
    }
}

pub(super) fn families() -> impl Iterator<Item = Family> {
    ROWS.iter().map(|row| row.family).chain([STATUS])
}

fn state(server: &ServerStatus) -> &'static str {
    match server.state {
        ServerState::Unknown | ServerState::Down => "DOWN",
        ServerState::Drain => "DRAIN",
        ServerState::Maint => "MAINT",
        ServerState::Up if server.standing.held_back().is_some() => "NOLB",
        ServerState::Up => "UP",
    }
}
