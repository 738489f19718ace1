//! Which numbers of a status are counts, by name; and sets of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::status::{ProcessStatus, ProxyStatus, ServerState, ServerStatus, Status};
use crate::ipc::tally::Counted;
use crate::metrics::spans::Spans;

/// What is counted, and a number where several counts have one name.
pub(super) type Name = (String, u8);
/// The same before anybody keeps it.
type Named<'a> = (&'a str, u8);
/// Names of proxy and server; empty: the proxy itself, and the process.
type Place = (String, String);

/// When a server's state last changed, milliseconds since 1970.
const SINCE: &str = "since";
/// Its state then: position among all states.
const STATE: &str = "state";

/// How counts of two processes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each counts what happens to its connections.
    Sum,
    /// Both check the same servers: what counts is what the one that serves finds.
    Health,
    /// The highest.
    Most,
    /// No count: what the latest says.
    Latest,
}

impl Kind {
    pub(super) fn together(self, own: u64, others: u64) -> u64 {
        match self {
            Self::Sum | Self::Health => own.saturating_add(others),
            Self::Most | Self::Latest => own.max(others),
        }
    }
}

/// The kind of a count with this name.
pub(super) fn kind((word, _): Named<'_>) -> Kind {
    match word {
        "checks" | "check-failures" | "check-spans" | "check-micros" | "transitions"
        | "suspicions" | "ejections" | "downs" | "down-ms" | "discovery-failures" => Kind::Health,
        "connections-most" | "queue-most" | "rate-max" => Kind::Most,
        SINCE | STATE => Kind::Latest,
        _sum => Kind::Sum,
    }
}

/// Shows every count of a status: where, its name, and the count itself.
pub(super) fn visit(status: &mut Status, mut each: impl FnMut((&str, &str), Named<'_>, &mut u64)) {
    process(&mut status.process, |name, count| {
        each(("", ""), name, count);
    });
    for of in &mut status.proxies {
        let name = of.name.clone();
        proxy(of, |word, count| each((&name, ""), word, count));
        for source in &mut of.discovery {
            // No server is called like that.
            let which = format!("{} {}", source.kind, source.source);
            let word = ("discovery-failures", 0);
            each((&name, &which), word, &mut source.failures);
        }
        for of in &mut of.servers {
            let server_name = of.name.clone();
            server(of, |word, count| each((&name, &server_name), word, count));
        }
    }
}

fn process(process: &mut ProcessStatus, mut each: impl FnMut(Named<'_>, &mut u64)) {
    for (what, count) in &mut process.shortages {
        each((what, 1), count);
    }
    each(("log-dropped", 0), &mut process.log_dropped);
    each(("access-log-dropped", 0), &mut process.access_log_dropped);
}

fn proxy(proxy: &mut ProxyStatus, mut each: impl FnMut(Named<'_>, &mut u64)) {
    let totals = &mut proxy.totals;
    for (reason, count) in &mut totals.failed {
        each((reason, 1), count);
    }
    let measures = &mut proxy.measures;
    for (name, count) in [
        ("accepted", &mut totals.accepted),
        ("finished", &mut totals.finished),
        ("bytes-in", &mut totals.bytes_in),
        ("bytes-out", &mut totals.bytes_out),
        ("bytes-spliced", &mut totals.bytes_spliced),
        ("queued", &mut totals.queued),
        ("queue-micros", &mut totals.queue_micros),
        ("helped", &mut totals.helped),
        ("limit-reached", &mut totals.limit_reached),
        ("headers", &mut totals.headers),
        ("connections-most", &mut measures.connections_most),
        ("queue-most", &mut measures.queue_most),
        ("rate-max", &mut measures.pace.rate_max),
        ("downs", &mut measures.pace.downs),
        ("down-ms", &mut measures.pace.down_ms),
    ] {
        each((name, 0), count);
    }
    spans(&mut measures.waits, ("wait-spans", "wait-micros"), each);
}

fn server(server: &mut ServerStatus, mut each: impl FnMut(Named<'_>, &mut u64)) {
    let measures = &mut server.measures;
    for (name, count) in [
        ("checks", &mut server.checks),
        ("check-failures", &mut server.check_failures),
        ("transitions", &mut server.transitions),
        ("connected", &mut server.connected),
        ("connect-micros", &mut server.connect_micros),
        ("connect-errors", &mut server.connect_errors),
        ("connect-timeouts", &mut server.connect_timeouts),
        ("redispatches", &mut server.redispatches),
        ("hedges", &mut server.hedges),
        ("hedges-won", &mut server.hedges_won),
        ("rebalanced", &mut server.rebalanced),
        ("bytes-in", &mut server.bytes_in),
        ("bytes-out", &mut server.bytes_out),
        ("aborts", &mut server.aborts),
        ("suspicions", &mut server.standing.suspicions),
        ("ejections", &mut server.standing.ejections),
        ("connections-most", &mut measures.connections_most),
        ("attempts", &mut measures.attempts),
        ("retries", &mut measures.retries),
        ("client-aborts", &mut measures.client_aborts),
        ("ended", &mut measures.ended),
        ("life-micros", &mut measures.life_micros),
        ("asked", &mut measures.asked),
        ("answered", &mut measures.answered),
        ("answer-micros", &mut measures.answer_micros),
        ("unanswered", &mut measures.unanswered),
        ("downs", &mut measures.downs),
        ("down-ms", &mut measures.down_ms),
        ("rate-max", &mut measures.pace.rate_max),
    ] {
        each((name, 0), count);
    }
    let connects = &mut measures.connects;
    spans(
        connects,
        ("connect-spans", "connect-spans-micros"),
        &mut each,
    );
    spans(&mut measures.checks, ("check-spans", "check-micros"), each);
}

fn spans(spans: &mut Spans, (word, sum): (&str, &str), mut each: impl FnMut(Named<'_>, &mut u64)) {
    for (at, count) in (0..).zip(&mut spans.counts) {
        each((word, at), count);
    }
    each((sum, 0), &mut spans.micros);
}

/// Every count of a status, and since when servers are as they are. `wall`: the time since 1970.
pub(super) fn all(status: &Status, wall: Duration) -> Counts {
    let mut counts = Counts::default();
    visit(&mut status.clone(), |place, name, count| {
        counts.put(place, name, *count);
    });
    let wall = millis(wall);
    for proxy in status.proxies.iter().filter(|_| wall > 0) {
        for server in &proxy.servers {
            let place = (proxy.name.as_str(), server.name.as_str());
            counts.put(place, (SINCE, 0), wall.saturating_sub(server.since_ms));
            counts.put(place, (STATE, 0), position(server.state));
        }
    }
    counts
}

/// From 1: what is 0 is not kept.
fn position(state: ServerState) -> u64 {
    let place = ServerState::ALL.iter().position(|one| *one == state);
    place
        .and_then(|place| u64::try_from(place + 1).ok())
        .unwrap_or(0)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Counts by place and name. A place that is there has counts, be they 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counts(BTreeMap<Place, BTreeMap<Name, u64>>);

/// Counts that don't go on.
#[derive(Debug)]
pub(super) struct Frozen(Counts);

impl Frozen {
    /// In place of what the same counts have become since.
    pub(super) fn put_into(&self, counts: &mut Counts) {
        for counts in counts.0.values_mut() {
            counts.retain(|(word, at), _| kind((word, *at)) == Kind::Sum);
        }
        counts.add(&self.0);
    }
}

impl Counts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, (proxy, server): (&str, &str), (word, at): Named<'_>) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let row = self.0.get(&(proxy.to_owned(), server.to_owned()));
        row.and_then(|row| row.get(&(word.to_owned(), at)))
            .copied()
            .unwrap_or(0)
    }

    fn put(&mut self, (proxy, server): (&str, &str), (word, at): Named<'_>, count: u64) {
        let row = self.0.entry((proxy.to_owned(), server.to_owned()));
        let row = row.or_default();
        if count > 0 {
            row.insert((word.to_owned(), at), count);
        }
    }

    /// By place; what is 0 is left out.
    pub(super) fn rows(&self) -> impl Iterator<Item = ((&str, &str), &BTreeMap<Name, u64>)> {
        let rows = self.0.iter();
        rows.map(|((proxy, server), row)| ((proxy.as_str(), server.as_str()), row))
    }

    /// Takes in what a process says of itself: of two words of it the greater one is the later.
    pub(super) fn raise(&mut self, counted: Counted) {
        for row in counted.rows {
            let own = self.0.entry((row.proxy, row.server)).or_default();
            for (name, count) in row.counts {
                let Some(name) = counted.names.get(usize::from(name)) else {
                    continue;
                };
                let own = own.entry(name.clone()).or_default();
                *own = count.max(*own);
            }
        }
    }

    /// Adds those of another process.
    pub(super) fn add(&mut self, other: &Self) {
        for (place, row) in &other.0 {
            let own = self.0.entry(place.clone()).or_default();
            let later = [SINCE, STATE].map(|word| (word.to_owned(), 0));
            let since = |row: &BTreeMap<Name, u64>| row.get(&later[0]).copied().unwrap_or(0);
            let is_later = since(row) >= since(own);
            for (name, count) in row {
                let own = own.entry(name.clone()).or_default();
                *own = match kind((&name.0, name.1)) {
                    Kind::Latest if is_later => *count,
                    Kind::Latest => *own,
                    kind @ (Kind::Sum | Kind::Health | Kind::Most) => kind.together(*own, *count),
                };
            }
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (place, row) in &mut self.0 {
            let Some(other) = other.0.get(place) else {
                continue;
            };
            for (name, count) in row {
                *count = count.saturating_sub(other.get(name).copied().unwrap_or(0));
            }
        }
    }

    /// What checks and their verdicts count.
    pub(super) fn of_health(&self) -> Self {
        let mut counts = self.clone();
        for row in counts.0.values_mut() {
            row.retain(|(word, at), _| kind((word, *at)) == Kind::Health);
        }
        counts
    }

    /// All but what connections count, for good.
    pub(super) fn frozen(&self) -> Frozen {
        let mut counts = self.clone();
        for row in counts.0.values_mut() {
            row.retain(|(word, at), _| kind((word, *at)) != Kind::Sum);
        }
        Frozen(counts)
    }

    /// What there is of places that `present` has: others are gone.
    pub(super) fn only_places_of(&self, present: &Self) -> Self {
        let rows = self
            .0
            .iter()
            .filter(|(place, _)| present.0.contains_key(*place));
        Self(
            rows.map(|(place, row)| (place.clone(), row.clone()))
                .collect(),
        )
    }

    /// Servers that are as the one before left them have been so for longer than this process lives.
    pub(super) fn date_back(&self, status: &mut Status, wall: Duration) {
        let wall = millis(wall);
        for proxy in &mut status.proxies {
            for server in &mut proxy.servers {
                let place = (proxy.name.as_str(), server.name.as_str());
                let same = self.of(place, (STATE, 0)) == position(server.state);
                let since = self.of(place, (SINCE, 0));
                let transitions = self.of(place, ("transitions", 0));
                if same && since > 0 && server.transitions <= transitions {
                    server.since_ms = server.since_ms.max(wall.saturating_sub(since));
                }
            }
        }
    }
}
