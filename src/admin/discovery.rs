//! Sources of servers, from what is known of them to what users see. Pure.

use std::time::Instant;

use super::status::{DiscoveryStatus, ProxyStatus, short_time};
use super::table::push_line;
use crate::discovery::known::Source;

/// The sources of one proxy.
#[must_use]
pub fn gather(sources: &[Source], now: Instant) -> Vec<DiscoveryStatus> {
    let age = |since: Instant| {
        let age = now.saturating_duration_since(since).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    };
    let status = |source: &Source| DiscoveryStatus {
        kind: source.kind.word().to_owned(),
        source: source.label.clone(),
        servers: u64::try_from(source.servers.len()).unwrap_or(u64::MAX),
        heard_ms: source.heard.map(age),
        changed_ms: source.changed.map(age),
        error: source.error.clone(),
        failures: source.failures,
    };
    sources.iter().map(status).collect()
}

/// A line for each, under the servers.
pub(super) fn lines(out: &mut String, proxy: &ProxyStatus) {
    for source in &proxy.discovery {
        let plural = if source.servers == 1 { "" } else { "s" };
        let ago = |label: &str, ms: Option<u64>| {
            ms.map(|ms| format!(", {label} {} ago", short_time(ms)))
                .unwrap_or_default()
        };
        let error = source.error.as_ref();
        push_line(
            out,
            &format!(
                "  from {} {}: {} server{plural}{}{}{}",
                source.kind,
                source.source,
                source.servers,
                ago("heard", source.heard_ms),
                ago("changed", source.changed_ms),
                error.map_or_else(String::new, |error| format!(", ERROR {error}")),
            ),
        );
    }
}

/// Sources that fail, a line each.
pub(super) fn problems(proxy: &ProxyStatus) -> impl Iterator<Item = String> + '_ {
    proxy.discovery.iter().filter_map(|source| {
        let error = source.error.as_ref()?;
        let (kind, which) = (&source.kind, &source.source);
        Some(format!("{}: {kind} {which}: {error}", proxy.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_line_with_its_servers_its_age_and_its_error() {
        let source = |servers, heard_ms: Option<u64>, error: Option<&str>| DiscoveryStatus {
            kind: "dns".to_owned(),
            source: "api.example:6443".to_owned(),
            servers,
            heard_ms,
            changed_ms: heard_ms.map(|ms| ms * 2),
            error: error.map(str::to_owned),
            failures: 0,
        };
        let proxy = ProxyStatus {
            name: "kube".to_owned(),
            discovery: vec![
                source(1, Some(2_500), None),
                source(0, None, Some("no such name")),
            ],
            ..ProxyStatus::default()
        };
        let mut out = String::new();
        lines(&mut out, &proxy);
        assert_eq!(
            out,
            "  from dns api.example:6443: 1 server, heard 2.5s ago, changed 5.0s ago\n  \
             from dns api.example:6443: 0 servers, ERROR no such name\n"
        );
        let problems: Vec<String> = problems(&proxy).collect();
        assert_eq!(problems, ["kube: dns api.example:6443: no such name"]);
    }
}
