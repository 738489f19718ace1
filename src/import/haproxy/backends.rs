//! The servers of a proxy: `backend-defaults`, `[proxy.NAME.backends]`, and what they say apart.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, key, string};
use super::super::words;
use super::proxy::shared;
use super::put;
use super::server::{Params, Server, Target};

/// What holds for every server that has no table of its own: what `default-server` says; with host
/// names what the first of them says.
pub(super) fn basis(defaults: Params, servers: &[Server], work: &mut Work) -> Params {
    let is_named = |s: &&Server| matches!(s.target, Target::Name(..));
    let Some(first) = servers.iter().find(is_named) else {
        return defaults;
    };
    for other in servers.iter().filter(is_named) {
        for name in ["weight", "maxconn"] {
            if other.params.value(name) != first.params.value(name) {
                let place = work.ledger.place(first.id);
                let note = format!("`{name}` holds for all host names: that of {place}");
                work.ledger.mark(other.id, Fate::Changed, note);
            }
        }
    }
    first.params.clone()
}

/// What `basis` found.
pub(super) fn backend_defaults(
    params: &Params,
    servers: &[Server],
    table: &mut Table,
    work: &mut Work,
) {
    let mut fields = Vec::new();
    let mut ids: Vec<Id> = Vec::new();
    for (param, field, range) in [
        ("maxconn", "max-connections", (0, 10_000_000)),
        ("weight", "weight", (0, 256)),
    ] {
        let zero = param == "maxconn";
        if let Some(count) = params
            .number(param, range, work)
            .filter(|n| !zero || *n > 0)
        {
            fields.push(format!("{field} = {count}"));
            ids.extend(params.id(param));
        }
    }
    if let Some((params, _)) = shared(servers, "maxqueue")
        && let Some(count) = params
            .number("maxqueue", (0, 1_000_000), work)
            .filter(|n| *n > 0)
    {
        fields.push(format!("max-queue = {count}"));
        ids.extend(params.id("maxqueue"));
    }
    if !fields.is_empty() {
        put(
            table,
            "backend-defaults",
            &format!("{{ {} }}", fields.join(", ")),
            &ids,
            work,
        );
    }
}

/// Parameters that hold for the whole proxy in lbd and differ between its servers.
pub(super) fn differing(servers: &[Server], work: &mut Work) {
    let whole = [
        "inter",
        "fastinter",
        "downinter",
        "rise",
        "fall",
        "slowstart",
        "maxqueue",
        "verify",
        "ca-file",
        "check-sni",
        "check-ssl",
        "send-proxy",
        "send-proxy-v2",
        "on-marked-down",
    ];
    for name in whole {
        // Of the others the first that says something counts; a header that a server doesn't
        // expect breaks each of its connections.
        let header = name.starts_with("send-proxy");
        let says = |server: &&Server| header || server.params.has(name);
        let Some(first) = servers.iter().find(says) else {
            continue;
        };
        for other in servers.iter().filter(|other| other.id != first.id) {
            if other.params.value(name) != first.params.value(name) {
                let note = format!(
                    "`{name}` holds for all servers of a proxy: that of {}",
                    work.ledger.place(first.id)
                );
                let fate = if header { Fate::Lost } else { Fate::Changed };
                work.ledger.mark(other.id, fate, note);
            }
        }
    }
}

pub(super) fn unchecked(name: &str, servers: &[Server], work: &mut Work) {
    let unchecked: Vec<&Server> = servers.iter().filter(|s| !s.params.has("check")).collect();
    if unchecked.is_empty() {
        return;
    }
    for server in &unchecked {
        work.ledger
            .mark(server.id, Fate::Changed, "lbd checks every server");
    }
    let names: Vec<&str> = unchecked.iter().map(|s| s.name.as_str()).take(8).collect();
    work.trap(
        "unchecked-server",
        format!("proxy {name}: HAProxy doesn't check every server"),
        &[format!(
            "{} without `check` stay in service whatever happens to them. lbd checks every server.",
            names.join(", ")
        )],
    );
}

/// Says where the servers' limits end all others.
pub(super) fn capacity(name: &str, servers: &[Server], work: &mut Work) {
    let limits: Option<Vec<u64>> = servers
        .iter()
        .map(|s| {
            s.params
                .value("maxconn")
                .and_then(|n| n.parse().ok())
                .filter(|n: &u64| *n > 0)
        })
        .collect();
    let Some(total) = limits.map(|l| l.iter().fold(0_u64, |sum, n| sum.saturating_add(*n))) else {
        return;
    };
    work.trap(
        "capacity",
        format!("proxy {name} serves {total} connections at once, and no more"),
        &[format!("That is the sum of the servers' maxconn; {} servers. The next ones wait in the queue, and are refused after queue-timeout. Watches of nodes and controllers live long: count them.", servers.len())],
    );
}

pub(super) fn backends(
    name: &str,
    servers: &[Server],
    defaults: &Params,
    work: &mut Work,
) -> Vec<Table> {
    let mut table = Table::new(format!("[proxy.{}.backends]", key(name)), String::new());
    let mut taken: Vec<String> = Vec::new();
    let mut targets: Vec<&Target> = Vec::new();
    let mut several_backups = 0_usize;
    for server in servers {
        if targets.contains(&&server.target) {
            work.ledger.mark(
                server.id,
                Fate::Changed,
                "the same address stands above: listed once",
            );
            continue;
        }
        targets.push(&server.target);
        several_backups += usize::from(server.params.has("backup"));
        let own = words::unique(&server.name, &taken);
        taken.push(own.clone());
        if own != server.name {
            work.ledger
                .mark(server.id, Fate::Changed, format!("called {own}"));
        }
        let address = match &server.target {
            Target::Address(address) => string(&address.to_string()),
            Target::Name(host, port) => string(&format!("{host}:{port}")),
        };
        let mut fields = vec![format!("address = {address}")];
        if matches!(server.target, Target::Address(_)) {
            fields.extend(own_fields(server, defaults, work));
        } else if server.params.has("backup") || server.params.has("disabled") {
            work.ledger.mark(
                server.id,
                Fate::Lost,
                "`backup` and `disabled` of a host name",
            );
        }
        let value = match fields.as_slice() {
            [_] => address,
            _ => format!("{{ {} }}", fields.join(", ")),
        };
        put(&mut table, &key(&own), &value, &[server.id], work);
    }
    if several_backups > 1 {
        for server in servers.iter().filter(|s| s.params.has("backup")) {
            work.ledger.mark(
                server.id,
                Fate::Changed,
                "backups are used together, as with `option allbackups`",
            );
        }
    }
    vec![table]
}

/// What a server says beyond `default-server`.
fn own_fields(server: &Server, defaults: &Params, work: &mut Work) -> Vec<String> {
    let params = &server.params;
    let mut fields = Vec::new();
    let differs = |name: &str| params.value(name) != defaults.value(name);
    for (param, field, range) in [
        ("weight", "weight", (0, 256)),
        ("maxconn", "max-connections", (1, 10_000_000)),
    ] {
        let unlimited = param == "maxconn" && params.value(param) == Some("0");
        if differs(param) && !params.has(param) {
            // A `default-server` that comes later counts for all of them in lbd.
            if param == "weight" {
                fields.push("weight = 1".to_owned());
            } else {
                let why = "no `maxconn` of its own: that of `backend-defaults` holds";
                work.ledger.mark(server.id, Fate::Changed, why);
            }
        } else if differs(param)
            && !unlimited
            && let Some(number) = params.number(param, range, work)
        {
            fields.push(format!("{field} = {number}"));
        } else if differs(param) && unlimited && defaults.has(param) {
            work.ledger.mark(
                server.id,
                Fate::Changed,
                "`maxconn 0`: that of default-server holds",
            );
        }
    }
    for flag in ["backup", "disabled"] {
        if params.has(flag) {
            fields.push(format!("{flag} = true"));
        }
    }
    if let Target::Address(address) = server.target
        && (params.has("port") || params.has("addr"))
    {
        let ip = params.value("addr").map_or(Some(address.ip()), words::ip);
        let port = params
            .value("port")
            .map_or(Some(address.port()), words::port);
        match (
            ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()),
            port,
        ) {
            (Some(ip), Some(port)) => {
                fields.push(format!("check-address = {}", words::socket(ip, port)));
            }
            _ => work
                .ledger
                .mark(server.id, Fate::Lost, "the check's address"),
        }
    }
    fields
}
