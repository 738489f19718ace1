//! `rebalance` of a proxy.

use std::num::NonZeroU32;

use super::fields::Fields;
use super::given::Sink;
use crate::config::model::{Balance, Rebalance};
use crate::config::problem::Problem;

/// What is given of it, where it can mean something.
pub(super) fn rebalance(
    fields: &mut Fields<'_, '_>,
    balance: Balance,
    client_first: bool,
    sink: &mut Sink,
) -> Option<Rebalance> {
    let span = fields.span_of("rebalance");
    let name = fields.name().to_owned();
    let mut table = fields.table("rebalance", sink)?;
    let rate = table.count_u32("connections-per-second", sink);
    let rebalance = Rebalance {
        above: percent(&mut table, sink),
        rate: rate
            .or_else(|| by_default(&table))
            .unwrap_or(NonZeroU32::MIN),
        quiet: table.time("quiet", sink),
    };
    table.finish(sink);
    let (why, help) = match balance {
        Balance::SourceHash => (
            "with `balance = \"source-hash\"` a client that is closed comes back to the same server",
            "`max-age` bounds how long connections last",
        ),
        Balance::First => (
            "`balance = \"first\"` fills servers one after the other",
            "leave out one of them",
        ),
        Balance::RoundRobin | Balance::LeastConnections | Balance::Random if !client_first => (
            "only TLS connections are moved, and their clients speak first",
            "add `client-first = true` if these are TLS connections",
        ),
        Balance::RoundRobin | Balance::LeastConnections | Balance::Random => {
            return Some(rebalance);
        }
    };
    sink.push(
        Problem::error("E0109", format!("`{name}.rebalance` has no meaning here"))
            .at(&span, why)
            .help(help),
    );
    None
}

fn percent(table: &mut Fields<'_, '_>, sink: &mut Sink) -> u16 {
    let by_default = table.default_text("above").parse().unwrap_or(u16::MAX);
    let given = table.integer("above", sink);
    given
        .and_then(|percent| u16::try_from(percent).ok())
        .unwrap_or(by_default)
}

fn by_default(table: &Fields<'_, '_>) -> Option<NonZeroU32> {
    table.default_text("connections-per-second").parse().ok()
}
