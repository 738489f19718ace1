//! `lbd status --top`: the busiest sources of each proxy, as text for people. Pure.

use super::status::{SourcesStatus, Status};
use super::table::{push_columns, push_line, row};

/// The whole of it.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    for proxy in &status.proxies {
        match &proxy.sources {
            None => push_line(
                &mut out,
                &format!(
                    "PROXY {}  sources are not counted: set `per-source`, an empty table will do",
                    proxy.name
                ),
            ),
            Some(sources) => {
                push_line(
                    &mut out,
                    &format!("PROXY {}  {}", proxy.name, line(sources)),
                );
                columns(&mut out, sources);
            }
        }
    }
    out
}

/// What a proxy's part of `lbd status` says.
pub(super) fn line(sources: &SourcesStatus) -> String {
    let busiest = sources.top.first().filter(|talker| talker.connections > 0);
    let busiest = busiest.map_or_else(String::new, |talker| {
        format!("; most has {}: {}", talker.source, talker.connections)
    });
    format!(
        "sources {} connected, {} remembered{busiest}",
        sources.connected, sources.known
    )
}

fn columns(out: &mut String, sources: &SourcesStatus) {
    let mut rows = vec![row(&["SOURCE", "CONNECTIONS", "ACCEPTED", "REFUSED"])];
    rows.extend(sources.top.iter().map(|talker| {
        vec![
            talker.source.clone(),
            talker.connections.to_string(),
            talker.accepted.to_string(),
            talker.refused.to_string(),
        ]
    }));
    push_columns(out, &rows);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{ProxyStatus, TalkerStatus};

    #[test]
    fn the_busiest_sources_stand_in_columns_and_a_proxy_without_says_how() {
        let talker = |source: &str, connections, accepted, refused| TalkerStatus {
            source: source.to_owned(),
            connections,
            accepted,
            refused,
        };
        let status = Status {
            proxies: vec![
                ProxyStatus {
                    name: "kube".to_owned(),
                    sources: Some(SourcesStatus {
                        known: 12,
                        connected: 2,
                        top: vec![
                            talker("192.0.2.7", 200, 4_000, 31),
                            talker("2001:db8:0:7::/64", 3, 3, 0),
                        ],
                    }),
                    ..ProxyStatus::default()
                },
                ProxyStatus {
                    name: "web".to_owned(),
                    ..ProxyStatus::default()
                },
            ],
            ..Status::default()
        };
        assert_eq!(
            render(&status),
            "PROXY kube  sources 2 connected, 12 remembered; most has 192.0.2.7: 200\n  \
             SOURCE             CONNECTIONS  ACCEPTED  REFUSED\n  \
             192.0.2.7          200          4000      31\n  \
             2001:db8:0:7::/64  3            3         0\n\
             PROXY web  sources are not counted: set `per-source`, an empty table will do\n"
        );
    }
}
