//! `haproxy_process_*`.

use super::{Row, none, rows};
use crate::admin::families::{flag, number, seconds_from_ms};
use crate::admin::status::Status;
use crate::metrics::{Families, Family, Kind};

rows! { ROWS of Status, [];
    Gauge "haproxy_process_nbthread" "Worker threads." |s| number(s.process.workers);
    Gauge "haproxy_process_nbproc" "Proxy processes that serve." |s| flag(s.process.serving);
    Gauge "haproxy_process_uptime_seconds" "Time since the proxy process began." |s| seconds_from_ms(s.process.uptime_ms);
    Gauge "haproxy_process_start_time_seconds" "When the proxy process began, seconds since 1970." |s| number(s.process.measures.started);
    Gauge "haproxy_process_max_connections" "The most client connections at once." |s| number(s.process.max_connections);
    Gauge "haproxy_process_hard_max_connections" "The most client connections at once." |s| number(s.process.max_connections);
    Gauge "haproxy_process_current_connections" "Client connections." |s| number(s.process.connections);
    Counter "haproxy_process_connections_total" "Connections accepted." accepted;
    Gauge "haproxy_process_current_connection_rate" "Connections accepted in the last second." rate;
    Gauge "haproxy_process_max_connection_rate" "The most connections accepted in a second by one proxy." rate_max;
    Gauge "haproxy_process_limit_connection_rate" "0: no limit." none;
    Gauge "haproxy_process_current_session_rate" "Connections accepted in the last second." rate;
    Gauge "haproxy_process_max_session_rate" "The most connections accepted in a second by one proxy." rate_max;
    Gauge "haproxy_process_limit_session_rate" "0: no limit." none;
    Gauge "haproxy_process_listeners" "Addresses that proxies listen at." listeners;
    Gauge "haproxy_process_jobs" "Client connections and addresses listened at." jobs;
    Counter "haproxy_process_dropped_logs_total" "Log lines that could not be delivered." |s| number(s.process.log_dropped.saturating_add(s.process.access_log_dropped));
    Counter "haproxy_process_bytes_out_total" "Bytes to clients." bytes_out;
    Gauge "haproxy_process_max_memory_bytes" "0: no limit of lbd's own." none;
    Gauge "haproxy_process_max_ssl_connections" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_current_ssl_connections" "0: lbd ends no TLS." none;
    Counter "haproxy_process_ssl_connections_total" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_limit_ssl_rate" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_max_ssl_rate" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_current_frontend_ssl_key_rate" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_frontend_ssl_reuse" "0: lbd ends no TLS." none;
    Gauge "haproxy_process_current_backend_ssl_key_rate" "0: lbd ends no TLS." none;
    Counter "haproxy_process_ssl_cache_lookups_total" "0: lbd ends no TLS." none;
    Counter "haproxy_process_ssl_cache_misses_total" "0: lbd ends no TLS." none;
    Counter "haproxy_process_failed_resolutions" "Answers of name servers that were no good." failed_resolutions;
    Gauge "haproxy_process_active_peers" "0: lbd has no stick tables to share." none;
    Gauge "haproxy_process_connected_peers" "0: lbd has no stick tables to share." none;
    Counter "haproxy_process_recv_logs_total" "0: lbd receives no logs." none;
}

const BUILD: Family = Family {
    name: "haproxy_process_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "Always 1; lbd's version is a label.",
};

pub(super) fn add(out: &mut Families, status: &Status) {
    Row::add_all(ROWS, out, &[], status);
    out.add(&BUILD, &[&status.process.version], 1.0);
}

pub(super) fn families() -> impl Iterator<Item = Family> {
    ROWS.iter().map(|row| row.family).chain([BUILD])
}

fn accepted(status: &Status) -> f64 {
    number(
        status
            .proxies
            .iter()
            .map(|proxy| proxy.totals.accepted)
            .sum(),
    )
}

fn failed_resolutions(status: &Status) -> f64 {
    let sources = status.proxies.iter().flat_map(|proxy| &proxy.discovery);
    let dns = sources.filter(|source| source.kind == "dns");
    number(dns.map(|source| source.failures).sum())
}

fn bytes_out(status: &Status) -> f64 {
    number(
        status
            .proxies
            .iter()
            .map(|proxy| proxy.totals.bytes_out)
            .sum(),
    )
}

fn rate(status: &Status) -> f64 {
    let rates = status.proxies.iter().map(|proxy| proxy.measures.pace.rate);
    number(rates.sum())
}

fn rate_max(status: &Status) -> f64 {
    let rates = status
        .proxies
        .iter()
        .map(|proxy| proxy.measures.pace.rate_max);
    number(rates.max().unwrap_or(0))
}

fn listeners(status: &Status) -> f64 {
    number(addresses(status))
}

fn jobs(status: &Status) -> f64 {
    number(status.process.connections.saturating_add(addresses(status)))
}

fn addresses(status: &Status) -> u64 {
    let all: usize = status.proxies.iter().map(|proxy| proxy.listen.len()).sum();
    u64::try_from(all).unwrap_or(u64::MAX)
}
