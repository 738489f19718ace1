//! `allow`, `deny` and `per-source` of a proxy.

use super::fields::Fields;
use super::given::Sink;
use super::origin::network;
use crate::config::model::{Guard, Network, PerSource, Rate};
use crate::config::problem::Problem;

const NETWORKS_MAX: usize = 1024;

/// What is given of them.
pub(super) fn guard(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Guard {
    let allow = networks(fields, "allow", sink);
    let denied_before = fields.span_of("deny");
    let deny = networks(fields, "deny", sink);
    if let Some(both) = allow.iter().find(|network| deny.contains(network)) {
        sink.push(
            Problem::error(
                "E0204",
                format!("`{}`: {both} is both allowed and denied", fields.name()),
            )
            .at(&denied_before, "`deny` would win"),
        );
    }
    Guard {
        allow,
        deny,
        per_source: per_source(fields, sink),
    }
}

fn networks(fields: &mut Fields<'_, '_>, key: &str, sink: &mut Sink) -> Vec<Network> {
    let Some(given) = fields.take(key, sink) else {
        return Vec::new();
    };
    let items = given.one_or_more(NETWORKS_MAX, sink);
    items
        .iter()
        .filter_map(|item| network(item, sink))
        .collect()
}

fn per_source(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<PerSource> {
    let mut table = fields.table("per-source", sink)?;
    let max_connections = table.count_u32("max-connections", sink);
    let per_second = table.count_u32("connections-per-second", sink);
    let burst_span = table.span_of("burst");
    let burst = table.count_u32("burst", sink);
    let exempt = networks(&mut table, "exempt", sink);
    let name = table.name().to_owned();
    table.finish(sink);
    if burst.is_some() && per_second.is_none() {
        sink.push(
            Problem::error("E0109", format!("`{name}.burst` has no meaning here"))
                .at(
                    &burst_span,
                    "it is how many may come at once where `connections-per-second` limits them",
                )
                .help("`max-connections` limits how many there may be at once"),
        );
    }
    Some(PerSource {
        max_connections,
        connections_per_second: per_second.map(|per_second| Rate {
            per_second,
            burst: burst.unwrap_or(per_second),
        }),
        exempt,
    })
}
