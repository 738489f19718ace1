//! `haproxy_frontend_*`: what clients see of a proxy.

use super::{Row, none, or_nan, rows};
use crate::admin::families::{flag, number};
use crate::admin::status::ProxyStatus;
use crate::metrics::{Families, Family, Kind};

rows! { ROWS of ProxyStatus, ["proxy"];
    Gauge "haproxy_frontend_current_sessions" "Client connections." |p| number(p.connections);
    Gauge "haproxy_frontend_max_sessions" "The most client connections at once." |p| number(p.measures.connections_most);
    Gauge "haproxy_frontend_limit_sessions" "max-connections; NaN: only the process's limit." |p| or_nan(p.max_connections.map(number));
    Counter "haproxy_frontend_sessions_total" "Connections accepted." |p| number(p.totals.accepted);
    Counter "haproxy_frontend_connections_total" "Connections accepted." |p| number(p.totals.accepted);
    Counter "haproxy_frontend_bytes_in_total" "Bytes from clients." |p| number(p.totals.bytes_in);
    Counter "haproxy_frontend_bytes_out_total" "Bytes to clients." |p| number(p.totals.bytes_out);
    Counter "haproxy_frontend_denied_connections_total" "Connections refused for the client's network." |p| failed(p, &["denied"]);
    Counter "haproxy_frontend_denied_sessions_total" "Connections refused for what the client's source has already." |p| failed(p, &["source-connections", "source-rate"]);
    Counter "haproxy_frontend_internal_errors_total" "Connections that failed for want of descriptors or memory, and failed accepts." |p| failed(p, &["resources", "accept"]);
    Gauge "haproxy_frontend_max_session_rate" "The most connections in a second." |p| number(p.measures.pace.rate_max);
    Gauge "haproxy_frontend_connections_rate_max" "The most connections in a second." |p| number(p.measures.pace.rate_max);
    Gauge "haproxy_frontend_limit_session_rate" "0: no limit." none;
    Counter "haproxy_frontend_requests_denied_total" "0: lbd reads no requests." none;
    Counter "haproxy_frontend_responses_denied_total" "0: lbd reads no responses." none;
    Counter "haproxy_frontend_request_errors_total" "0: lbd reads no requests." none;
    Counter "haproxy_frontend_failed_header_rewriting_total" "0: lbd rewrites no headers." none;
}

const STATUS: Family = Family {
    name: "haproxy_frontend_status",
    kind: Kind::Gauge,
    labels: &["proxy", "state"],
    help: "1 for the state of the proxy, 0 for the other; a proxy listens as long as its process serves.",
};

pub(super) fn add(out: &mut Families, proxy: &ProxyStatus, serving: bool) {
    let name = proxy.name.as_str();
    Row::add_all(ROWS, out, &[name], proxy);
    out.add(&STATUS, &[name, "DOWN"], flag(!serving));
    out.add(&STATUS, &[name, "UP"], flag(serving));
}

pub(super) fn families() -> impl Iterator<Item = Family> {
    ROWS.iter().map(|row| row.family).chain([STATUS])
}

/// Connections that failed for one of these reasons.
pub(super) fn failed(proxy: &ProxyStatus, reasons: &[&str]) -> f64 {
    let all = proxy.totals.failed.iter();
    let these = all.filter(|(reason, _)| reasons.contains(&reason.as_str()));
    number(these.map(|(_, count)| count).sum())
}
