//! `[vip.NAME]`.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::Tracked;
use super::fields::Fields;
use super::given::{Given, Sink};
use super::{address, allow, auth, notify, track, value};
use crate::config::model::{Garp, Mode, Node, Preempt, Vip, VipAddress};
use crate::config::problem::Problem;
use crate::units::{AdvertInterval, Priority, Version, Vrid};

const ADDRESSES_MAX: usize = 20;
const NODES_MAX: usize = 16;

/// One virtual router; `None` when something in it is wrong.
pub(super) fn vip(
    mut fields: Fields<'_, '_>,
    proxies: &[String],
    tracked: &mut Tracked,
    sink: &mut Sink,
) -> Option<Vip> {
    let before = sink.errors();
    let addresses = addresses(&mut fields, sink);
    let nodes = nodes(&mut fields, sink);
    let allow_from = allow::allow_from(&mut fields, &addresses, &nodes, sink);
    let interface = interface(&mut fields, sink);
    let vrid = vrid(&mut fields, addresses.first(), sink);
    let version = match fields.integer("version", sink) {
        Some(2) => Version::V2,
        Some(_) | None => Version::V3,
    };
    let advert_interval = advert_interval(&mut fields, version, sink);
    let advert_spacing = advert_spacing(&mut fields, advert_interval, sink);
    let auth = auth::auth(&mut fields, version, sink);
    let mode = match fields.word("mode", sink) {
        "multicast" => Mode::Multicast,
        _ => Mode::Unicast,
    };
    let preempt = preempt(&mut fields, sink);
    let lease = lease(&mut fields, sink);
    let garp = garp(&mut fields, sink);
    let track = track::tracks(&mut fields, proxies, tracked, sink);
    let per_server_weight = fields.byte("per-server-weight", sink);
    let notify = notify::notify(&mut fields, sink);
    let sync_group = sync_group(&mut fields, sink);
    let virtual_mac = fields.flag("virtual-mac", sink);
    let name = fields.own_name().to_owned();
    fields.finish(sink);
    if sink.errors() > before {
        return None;
    }
    Some(Vip {
        name,
        addresses,
        interface,
        vrid: vrid?,
        version,
        advert_interval: advert_interval?,
        advert_spacing,
        auth,
        mode,
        nodes,
        allow_from,
        preempt,
        lease,
        garp,
        track,
        sync_group,
        virtual_mac,
        per_server_weight,
        notify,
    })
}

fn sync_group(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<String> {
    let text = fields.text("sync-group", sink)?;
    if value::is_name(text.text) {
        return Some(text.text.to_owned());
    }
    sink.push(
        Problem::error("E0108", format!("`{}` can't be a group's name", text.name))
            .at(&text.span, "use 1 to 64 letters, digits, `-`, `_` and `.`"),
    );
    None
}

pub(super) fn addresses(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<VipAddress> {
    let Some(given) = fields.take("address", sink) else {
        return Vec::new();
    };
    let mut found: Vec<VipAddress> = Vec::new();
    for item in given.one_or_more(ADDRESSES_MAX, sink) {
        let Some(text) = item.text(sink) else {
            continue;
        };
        let Some(address) = address::vip_address(&text, sink) else {
            continue;
        };
        if found.iter().any(|other| other.ip == address.ip) {
            sink.push(
                Problem::error(
                    "E0212",
                    format!("`{}` names {} twice", text.name, address.ip),
                )
                .at(&text.span, "the second time"),
            );
        } else {
            found.push(address);
        }
    }
    found
}

pub(super) fn interface(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<String> {
    let text = fields.text("interface", sink)?;
    if is_interface_name(text.text) {
        return Some(text.text.to_owned());
    }
    sink.push(
        Problem::error("E0108", format!("`{}` is no interface name", text.name))
            .at(&text.span, "1 to 15 characters without spaces, `/` and `:`"),
    );
    None
}

/// Whether an interface can be called that.
pub(super) fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
        && !matches!(text, "." | "..")
}

fn vrid(fields: &mut Fields<'_, '_>, first: Option<&VipAddress>, sink: &mut Sink) -> Option<Vrid> {
    if fields.has("vrid") {
        return fields.unit("vrid", sink);
    }
    let (vrid, why) = match first?.ip {
        IpAddr::V4(ip) => {
            let [.., last] = ip.octets();
            let vrid = Vrid::try_from(i64::from(last)).ok();
            let why = "its default is the last octet of the address, and this one ends in 0";
            (vrid, why)
        }
        IpAddr::V6(_) => (None, "an IPv6 address gives no default"),
    };
    if vrid.is_none() {
        sink.push(
            Problem::error("E0201", format!("`{}.vrid` is needed", fields.name()))
                .at(&fields.span_of("address"), why)
                .help("add `vrid = N`, 1 to 255, the same on every node and unlike any other on this LAN"),
        );
    }
    vrid
}

fn advert_interval(
    fields: &mut Fields<'_, '_>,
    version: Version,
    sink: &mut Sink,
) -> Option<AdvertInterval> {
    let span = fields.span_of("advert-interval");
    let interval = fields.time("advert-interval", sink);
    match AdvertInterval::new(version, interval) {
        Ok(interval) => Some(interval),
        Err(error) => {
            let name = fields.name();
            let problem = Problem::error(
                "E0209",
                format!(
                    "version {} can't carry `{name}.advert-interval`",
                    version.get()
                ),
            )
            .at(&span, format!("it must be {}", error.range));
            sink.push(match version {
                Version::V2 => problem
                    .context(&fields.span_of("version"), "version 2 counts seconds")
                    .help("`version = 3` goes down to 10ms; every node must speak it"),
                Version::V3 => problem,
            });
            None
        }
    }
}

/// Without a usable interval there is nothing to compare it with, and an error already.
fn advert_spacing(
    fields: &mut Fields<'_, '_>,
    interval: Option<AdvertInterval>,
    sink: &mut Sink,
) -> Duration {
    let span = fields.span_of("advert-spacing");
    let given = fields.time_given("advert-spacing", sink);
    let Some(interval) = interval else {
        return Duration::ZERO;
    };
    let longest = interval.duration();
    match given {
        None => interval.default_spacing(),
        Some(Duration::ZERO) => longest,
        Some(spacing) if spacing <= longest => spacing,
        Some(_) => {
            let name = fields.name();
            sink.push(
                Problem::error(
                    "E0105",
                    format!("`{name}.advert-spacing` is longer than the interval"),
                )
                .at(&span, "the other nodes would take over between two adverts")
                .context(
                    &fields.span_of("advert-interval"),
                    "this is what the adverts promise",
                )
                .help("leave it out: a fifth of the interval is sent by itself"),
            );
            longest
        }
    }
}

fn preempt(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Preempt {
    let default = value::plain_duration(fields.default_text("preempt")).unwrap_or_default();
    let Some(given) = fields.take("preempt", sink) else {
        return Preempt::After(default);
    };
    match given.value {
        DeValue::Boolean(true) => Preempt::Always,
        DeValue::Boolean(false) => Preempt::Never,
        DeValue::String(text) => match value::plain_duration(text) {
            Some(time) if time <= Duration::from_secs(3_600) => Preempt::After(time),
            Some(_) => {
                sink.push(
                    Problem::error("E0105", format!("`{}` is out of range", given.name))
                        .at(&given.span, "at most \"1h\""),
                );
                Preempt::Never
            }
            None => {
                sink.push(given.wrong_type("`true`, `false` or a duration such as \"10s\""));
                Preempt::Never
            }
        },
        DeValue::Integer(number) => {
            let problem = Problem::error("E0103", format!("`{}` needs a unit", given.name))
                .at(&given.span, "keepalived's preempt_delay is in seconds");
            sink.push(match number.as_str().parse::<u64>() {
                Ok(seconds) => problem.fix("say which", &given.span, format!("\"{seconds}s\"")),
                Err(_) => problem,
            });
            Preempt::Never
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            sink.push(given.wrong_type("`true`, `false` or a duration such as \"10s\""));
            Preempt::Never
        }
    }
}

pub(super) fn lease(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<Duration> {
    let span = fields.span_of("lease");
    let lease = fields.time_or_off("lease", sink)?;
    if lease.subsec_nanos() != 0 {
        sink.push(
            Problem::error(
                "E0105",
                format!("`{}.lease` must be whole seconds", fields.name()),
            )
            .at(&span, "the kernel counts an address's lifetime in seconds"),
        );
    }
    Some(lease)
}

fn garp(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Garp {
    let table = fields.table("garp", sink);
    let mut table = table.unwrap_or_else(|| Fields::absent("vip.NAME.garp"));
    let garp = Garp {
        repeat: table.byte("repeat", sink),
        delay: table.time("delay", sink),
        refresh: table.time("refresh", sink),
        interval: table.time("interval", sink),
    };
    table.finish(sink);
    garp
}

fn nodes(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<Node> {
    let Some(given) = fields.take("nodes", sink) else {
        return Vec::new();
    };
    let DeValue::Array(items) = given.value else {
        let problem = given.wrong_type("a list of addresses or tables");
        sink.push(
            problem.help("one file for all nodes: list every load-balancer host, this one too"),
        );
        return Vec::new();
    };
    let items = given.items(items, NODES_MAX, sink);
    let found = items.into_iter().enumerate();
    found
        .filter_map(|(index, item)| node(item, index, sink))
        .collect()
}

fn node(given: Given<'_, '_>, index: usize, sink: &mut Sink) -> Option<Node> {
    let by_position = 200 - 10 * i64::try_from(index).unwrap_or(0).min(NODES_MAX_I64);
    if matches!(given.value, DeValue::String(_) | DeValue::Array(_)) {
        let (address, twin) = node_addresses(given, sink)?;
        return Some(Node {
            name: None,
            address,
            priority: Priority::try_from(by_position).ok()?,
            interface: None,
            min_ttl: 255,
            twin,
        });
    }
    if !matches!(given.value, DeValue::Table(_)) {
        sink.push(given.wrong_type(
            "an address, or a table such as { name = \"lb1\", address = \"172.16.0.2\" }",
        ));
        return None;
    }
    let mut table = given.into_fields("vip.NAME.nodes", String::new(), sink)?;
    let name = table.text("name", sink).map(|text| {
        if !value::is_name(text.text) {
            sink.push(
                Problem::error("E0108", format!("`{}` can't be a node's name", text.name))
                    .at(&text.span, "use 1 to 64 letters, digits, `-`, `_` and `.`"),
            );
        }
        text.text.to_owned()
    });
    let address = table.take("address", sink);
    let address = address.and_then(|given| node_addresses(given, sink));
    let priority = if table.has("priority") {
        table.unit("priority", sink)
    } else {
        Priority::try_from(by_position).ok()
    };
    let interface = interface(&mut table, sink);
    let min_ttl = table.byte("min-ttl", sink);
    table.finish(sink);
    let (address, twin) = address?;
    Some(Node {
        name,
        address,
        priority: priority?,
        interface,
        min_ttl,
        twin,
    })
}

/// One address, or a list with one of each family.
fn node_addresses(given: Given<'_, '_>, sink: &mut Sink) -> Option<(IpAddr, Option<IpAddr>)> {
    let mut found = Vec::new();
    for item in given.one_or_more(2, sink) {
        let text = item.text(sink)?;
        let ip = address::node_address(&text, sink)?;
        if found
            .iter()
            .any(|other: &IpAddr| other.is_ipv4() == ip.is_ipv4())
        {
            sink.push(
                Problem::error(
                    "E0105",
                    format!("`{}` is of the family of the other", text.name),
                )
                .at(&text.span, "a node has one address of each family"),
            );
            return None;
        }
        found.push(ip);
    }
    let mut found = found.into_iter();
    Some((found.next()?, found.next()))
}

const NODES_MAX_I64: i64 = 16;
