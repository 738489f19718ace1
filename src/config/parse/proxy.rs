//! `[proxy.NAME]` and its servers.

use std::num::NonZeroU32;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::Fields;
use super::given::{Given, Sink, Text};
use super::unknown::article;
use super::{address, check, discovery, guard, origin, rebalance, value};
use crate::config::model::{
    Balance, HedgeAfter, Listen, MaxQueue, OnNotReady, OnUnresponsive, Proxy, Server, Template,
};
use crate::config::problem::Problem;
use crate::units::Weight;

const LISTEN_MAX: usize = 64;
const SERVERS_MAX: usize = 1024;

/// What `backend-defaults` says.
struct Defaults {
    weight: Weight,
    max_connections: Option<NonZeroU32>,
    connects_per_second: Option<NonZeroU32>,
    max_queue: Option<u32>,
}

impl Defaults {
    const fn template(&self) -> Template {
        Template {
            weight: self.weight,
            max_connections: self.max_connections,
            connects_per_second: self.connects_per_second,
        }
    }
}

/// One proxy; `None` when something in it is wrong.
pub(super) fn proxy(mut fields: Fields<'_, '_>, sink: &mut Sink) -> Option<Proxy> {
    let before = sink.errors();
    let listen = listen(&mut fields, sink);
    let defaults = defaults(&mut fields, sink);
    let mut names = discovery::Names::default();
    let servers = servers(&mut fields, &defaults, &mut names, sink);
    let discovery = discovery::discovery(&mut fields, names, defaults.template(), sink);
    discovery::ask_for_servers(&fields, &servers, &discovery, sink);
    let checked = check::check(&mut fields, sink);
    let balance = match fields.word("balance", sink) {
        "least-connections" => Balance::LeastConnections,
        "random" => Balance::Random,
        "source-hash" => Balance::SourceHash,
        "first" => Balance::First,
        _ => Balance::RoundRobin,
    };
    let client_first = fields
        .boolean("client-first", sink)
        .unwrap_or(checked.client_first);
    let ten_seconds = value::plain_duration("10s").filter(|_| client_first);
    let first_byte_timeout = match fields.time_given("first-byte-timeout", sink) {
        Some(time) if !time.is_zero() && !client_first => {
            sink.push(
                Problem::error(
                    "E0109",
                    format!("`{}.first-byte-timeout` has no meaning here", fields.name()),
                )
                .at(
                    &fields.span_of("first-byte-timeout"),
                    "only a client that speaks first can be late",
                )
                .help("add `client-first = true` if clients speak first, as in TLS and HTTP"),
            );
            None
        }
        Some(time) => Some(time).filter(|time| !time.is_zero()),
        None => ten_seconds,
    };
    let max_queue = max_queue(&mut fields, &defaults, sink);
    let connect_timeout = fields.time("connect-timeout", sink);
    let proxy = Proxy {
        name: fields.own_name().to_owned(),
        listen,
        balance,
        connect_timeout,
        idle_timeout: fields.time("idle-timeout", sink),
        half_close_timeout: fields.time("half-close-timeout", sink),
        queue_timeout: fields.time("queue-timeout", sink),
        max_connections: fields.count_u32("max-connections", sink),
        max_queue,
        client_first,
        first_byte_timeout,
        on_unresponsive: on_unresponsive(&mut fields, sink),
        on_not_ready: on_not_ready(&mut fields, sink),
        max_ejected: fields.byte("max-ejected", sink),
        retries: fields.byte("retries", sink),
        hedge_after: hedge_after(&mut fields, connect_timeout, sink),
        slowstart: fields.time("slowstart", sink),
        keepalive: fields.time_or_off("keepalive", sink),
        user_timeout: fields.time_or_off("user-timeout", sink),
        proxy_protocol: origin::proxy_protocol(&mut fields, sink),
        source: origin::source(&mut fields, sink),
        guard: guard::guard(&mut fields, sink),
        max_age: fields.time_or_off("max-age", sink),
        rebalance: rebalance::rebalance(&mut fields, balance, client_first, sink),
        check: checked.check,
        servers,
        discovery,
    };
    fields.finish(sink);
    (sink.errors() == before).then_some(proxy)
}

fn hedge_after(
    fields: &mut Fields<'_, '_>,
    connect_timeout: Duration,
    sink: &mut Sink,
) -> HedgeAfter {
    let Some(given) = fields.take("hedge-after", sink) else {
        return HedgeAfter::Auto;
    };
    match given.value {
        DeValue::String(word) if word == "auto" => HedgeAfter::Auto,
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => match value::duration(&given, sink) {
            Some(time) if time >= connect_timeout => {
                sink.push(
                    Problem::error(
                        "E0109",
                        format!("`{}.hedge-after` has no meaning here", fields.name()),
                    )
                    .at(&given.span, "the first connect has been given up by then")
                    .help("let it be shorter than `connect-timeout`, or leave it out"),
                );
                HedgeAfter::Never
            }
            Some(time) if !time.is_zero() => HedgeAfter::After(time),
            Some(_) | None => HedgeAfter::Never,
        },
    }
}

fn on_unresponsive(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> OnUnresponsive {
    match fields.word("on-unresponsive", sink) {
        "keep" => OnUnresponsive::Keep,
        _reset => OnUnresponsive::Reset,
    }
}

fn on_not_ready(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> OnNotReady {
    match fields.word("on-not-ready", sink) {
        "reset" => OnNotReady::Reset,
        _drain => OnNotReady::Drain,
    }
}

fn listen(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<Listen> {
    let Some(given) = fields.take("listen", sink) else {
        return Vec::new();
    };
    let items = given.one_or_more(LISTEN_MAX, sink);
    let found = items.iter().filter_map(|item| address::listen(item, sink));
    found.collect()
}

fn defaults(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Defaults {
    let table = fields.table("backend-defaults", sink);
    let mut table = table.unwrap_or_else(|| Fields::absent("proxy.NAME.backend-defaults"));
    let defaults = Defaults {
        weight: table.unit("weight", sink).unwrap_or(Weight::ONE),
        max_connections: table.count_u32("max-connections", sink),
        connects_per_second: table.count_u32("connects-per-second", sink),
        max_queue: queue(&mut table, sink),
    };
    table.finish(sink);
    defaults
}

fn queue(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<u32> {
    let number = fields.integer("max-queue", sink)?;
    u32::try_from(number).ok()
}

fn max_queue(fields: &mut Fields<'_, '_>, defaults: &Defaults, sink: &mut Sink) -> MaxQueue {
    let by_default = fields.default_text("max-queue").parse().unwrap_or(0);
    let span = fields.span_of("max-queue");
    let whole = queue(fields, sink);
    match (whole, defaults.max_queue) {
        (None, Some(each)) => MaxQueue::PerServer(each),
        (None, None) => MaxQueue::Total(by_default),
        (Some(total), None) => MaxQueue::Total(total),
        (Some(total), Some(_)) => {
            sink.push(
                Problem::error(
                    "E0109",
                    format!("`{}.max-queue` is given twice", fields.name()),
                )
                .at(
                    &span,
                    "for the whole proxy here, for each server in `backend-defaults`",
                )
                .help("keep one of them"),
            );
            MaxQueue::Total(total)
        }
    }
}

/// `backends` of a backends file.
pub(super) fn bare_servers(
    fields: &mut Fields<'_, '_>,
    template: Template,
    names: &mut discovery::Names,
    sink: &mut Sink,
) -> Vec<Server> {
    let defaults = Defaults {
        weight: template.weight,
        max_connections: template.max_connections,
        connects_per_second: template.connects_per_second,
        max_queue: None,
    };
    servers(fields, &defaults, names, sink)
}

fn servers(
    fields: &mut Fields<'_, '_>,
    defaults: &Defaults,
    names: &mut discovery::Names,
    sink: &mut Sink,
) -> Vec<Server> {
    let Some(given) = fields.take("backends", sink) else {
        return Vec::new();
    };
    match given.value {
        DeValue::Array(items) => {
            let items = given.items(items, SERVERS_MAX, sink);
            items
                .iter()
                .filter_map(|item| {
                    let named = names.takes_item(item, sink);
                    (!named).then(|| listed(item, defaults, sink)).flatten()
                })
                .collect()
        }
        DeValue::Table(table) => named(&given, table, defaults, names, sink),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {
            sink.push(given.wrong_type("a list of `IP:PORT`, or a table of servers"));
            Vec::new()
        }
    }
}

fn listed(item: &Given<'_, '_>, defaults: &Defaults, sink: &mut Sink) -> Option<Server> {
    if matches!(item.value, DeValue::Table(_)) {
        sink.push(item.wrong_type("`IP:PORT`").help(
            "servers with settings have names: `[proxy.NAME.backends]`, then `NAME = { … }`",
        ));
        return None;
    }
    let text = item.text(sink)?;
    let address = address::server_addr(&text, sink)?;
    Some(plain(address.to_string(), address, defaults))
}

fn plain(name: String, address: std::net::SocketAddr, defaults: &Defaults) -> Server {
    Server {
        name,
        address,
        check_address: address,
        weight: defaults.weight,
        max_connections: defaults.max_connections,
        connects_per_second: defaults.connects_per_second,
        disabled: false,
        backup: false,
    }
}

fn named(
    given: &Given<'_, '_>,
    table: &DeTable<'_>,
    defaults: &Defaults,
    names: &mut discovery::Names,
    sink: &mut Sink,
) -> Vec<Server> {
    if table.is_empty() || table.len() > SERVERS_MAX {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}` must hold 1 to {SERVERS_MAX} servers", given.name),
            )
            .at(&given.span, format!("these are {}", table.len())),
        );
    }
    let mut found = Vec::new();
    for (key, entry) in table {
        let own = key.get_ref().to_string();
        let full = format!("{}.{own}", given.name);
        if !value::is_name(&own) {
            sink.push(
                Problem::error("E0108", format!("`{full}` has a name that lbd can't use"))
                    .at(&key.span(), "use 1 to 64 letters, digits, `-`, `_` and `.`"),
            );
        }
        if names.takes_entry(&full, entry, sink) {
            continue;
        }
        found.extend(one(full, own, key.span(), entry, defaults, sink));
    }
    found
}

fn one(
    full: String,
    own: String,
    span: std::ops::Range<usize>,
    entry: &Spanned<DeValue<'_>>,
    defaults: &Defaults,
    sink: &mut Sink,
) -> Option<Server> {
    match entry.get_ref() {
        DeValue::String(text) => {
            let text = Text {
                name: full,
                span: entry.span(),
                text,
            };
            let address = address::server_addr(&text, sink)?;
            Some(plain(own, address, defaults))
        }
        DeValue::Table(table) => {
            let path = "proxy.NAME.backends.NAME";
            let fields = Fields::open(path, full, own, span, table, sink);
            long_form(fields, defaults, sink)
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            let kind = article(entry.get_ref().type_str());
            sink.push(
                Problem::error("E0102", format!("`{full}` must be `IP:PORT` or a table"))
                    .at(&entry.span(), format!("this is {kind}")),
            );
            None
        }
    }
}

fn long_form(mut fields: Fields<'_, '_>, defaults: &Defaults, sink: &mut Sink) -> Option<Server> {
    let address = fields.text("address", sink);
    let address = address.and_then(|text| address::server_addr(&text, sink));
    let check_address = fields.text("check-address", sink);
    let check_address = check_address.and_then(|text| address::server_addr(&text, sink));
    let weight = if fields.has("weight") {
        fields.unit("weight", sink).unwrap_or(defaults.weight)
    } else {
        defaults.weight
    };
    let max_connections = fields
        .count_u32("max-connections", sink)
        .or(defaults.max_connections);
    let connects_per_second = fields
        .count_u32("connects-per-second", sink)
        .or(defaults.connects_per_second);
    let disabled = fields.flag("disabled", sink);
    let backup = fields.flag("backup", sink);
    let name = fields.own_name().to_owned();
    fields.finish(sink);
    let address = address?;
    Some(Server {
        name,
        address,
        check_address: check_address.unwrap_or(address),
        weight,
        max_connections,
        connects_per_second,
        disabled,
        backup,
    })
}
