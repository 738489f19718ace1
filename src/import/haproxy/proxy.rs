//! A frontend with its backend, or a `listen`, as one `[proxy.NAME]`.

use std::net::IpAddr;

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, key, list, string};
use super::super::words;
use super::backends::{backend_defaults, backends, basis, capacity, differing, unchecked};
use super::server::{Params, Server};
use super::view::View;
use super::{Proxy, bind, check, put, server};

const HOUR: u64 = 3_600_000;
/// Shorter than this, quiet `kubectl exec` and `logs -f` sessions are cut.
const IDLE_MIN: u64 = 300_000;

/// The proxy; nothing when it has no place to listen or no server.
pub(super) fn proxy(
    name: &str,
    front: &View<'_>,
    back: &View<'_>,
    work: &mut Work,
) -> Option<Proxy> {
    let binds = bind::binds(front, work);
    let ports: Vec<(Option<IpAddr>, u16)> = binds
        .listen
        .iter()
        .map(|(_, ip, port)| (*ip, *port))
        .collect();
    let (servers, defaults) = server::servers(back, &ports, work);
    let defaults = basis(defaults, &servers, work);
    if ports.is_empty() || servers.is_empty() {
        let what = if ports.is_empty() {
            "no address to listen on"
        } else {
            "no server"
        };
        work.ledger
            .mark(front.own.id, Fate::Lost, format!("left out: {what}"));
        work.needs
            .push(format!("proxy {name} has {what} that lbd can use"));
        return None;
    }
    let about = work.ledger.origin(front.own.id);
    let mut table = Table::new(format!("[proxy.{}]", key(name)), about);
    let listen: Vec<String> = binds.listen.iter().map(|(text, ..)| text.clone()).collect();
    put(&mut table, "listen", &list(&listen), &binds.ids, work);
    balance(back, &mut table, work);
    times(name, front, back, &mut table, work);
    limits(front, back, &mut table, work);
    headers(&binds, &servers, &mut table, work);
    unresponsive(&servers, &mut table, work);
    inspect(front, &mut table, work);
    if let Some(ms) =
        shared(&servers, "slowstart").and_then(|(p, _)| p.time("slowstart", (0, 24 * HOUR), work))
    {
        let value = if ms == 0 {
            "\"off\"".to_owned()
        } else {
            words::duration(ms)
        };
        put(
            &mut table,
            "slowstart",
            &value,
            &own_id(&servers, "slowstart"),
            work,
        );
    }
    let check = check::check(name, back, &servers, work);
    put(&mut table, "check", &check.value(), &check.ids, work);
    backend_defaults(&defaults, &servers, &mut table, work);
    differing(&servers, work);
    unchecked(name, &servers, work);
    capacity(name, &servers, work);
    let backends = backends(name, &servers, &defaults, work);
    Some(Proxy {
        name: name.to_owned(),
        ports,
        tables: std::iter::once(table).chain(backends).collect(),
    })
}

fn balance(back: &View<'_>, table: &mut Table, work: &mut Work) {
    let Some(directive) = back.last(&["balance"], work) else {
        return;
    };
    let word = match directive.word(1) {
        "roundrobin" | "static-rr" => "round-robin",
        "leastconn" => "least-connections",
        "source" => "source-hash",
        "first" => "first",
        word if word.starts_with("random") => "random",
        _ => {
            work.ledger.mark(
                directive.id,
                Fate::Lost,
                "lbd chooses by connections or by the client's address",
            );
            return;
        }
    };
    work.ledger.mark(directive.id, Fate::Exact, "");
    put(table, "balance", &string(word), &[directive.id], work);
}

fn times(name: &str, front: &View<'_>, back: &View<'_>, table: &mut Table, work: &mut Work) {
    let connect = back.time(&[&["timeout", "connect"], &["contimeout"]], (1, HOUR), work);
    if let Some((ms, id)) = connect {
        work.ledger.mark(id, Fate::Exact, "");
        put(table, "connect-timeout", &words::duration(ms), &[id], work);
    }
    idle(name, front, back, table, work);
    let fins = [
        front.time(&[&["timeout", "client-fin"]], (1_000, 24 * HOUR), work),
        back.time(&[&["timeout", "server-fin"]], (1_000, 24 * HOUR), work),
    ];
    shorter(&fins, "half-close-timeout", table, work);
    match back.time(&[&["timeout", "queue"]], (1, HOUR), work) {
        Some((ms, id)) => {
            work.ledger.mark(id, Fate::Exact, "");
            put(table, "queue-timeout", &words::duration(ms), &[id], work);
        }
        // HAProxy takes the connect timeout then, and lbd 5 s.
        None => {
            if let Some((ms, id)) = connect.filter(|(ms, _)| *ms != 5_000) {
                put(table, "queue-timeout", &words::duration(ms), &[id], work);
            }
        }
    }
}

/// The shorter of a client's and a server's time.
fn shorter(
    times: &[Option<(u64, Id)>],
    key: &str,
    table: &mut Table,
    work: &mut Work,
) -> Option<u64> {
    let given: Vec<(u64, Id)> = times.iter().flatten().copied().collect();
    let (ms, id) = given.iter().min_by_key(|(ms, _)| *ms).copied()?;
    for (other, other_id) in &given {
        if *other == ms {
            work.ledger.mark(*other_id, Fate::Exact, "");
        } else {
            let note = format!(
                "the shorter one counts, {}, as it does in HAProxy for a quiet connection",
                work.ledger.place(id)
            );
            work.ledger.mark(*other_id, Fate::Changed, note);
        }
    }
    let ids: Vec<Id> = given
        .iter()
        .filter(|(other, _)| *other == ms)
        .map(|(_, id)| *id)
        .collect();
    put(table, key, &words::duration(ms), &ids, work);
    Some(ms)
}

/// `timeout tunnel` wins over those of client and server, as in HAProxy.
fn idle(name: &str, front: &View<'_>, back: &View<'_>, table: &mut Table, work: &mut Work) {
    let range = (1_000, 720 * HOUR);
    let client = front.time(&[&["timeout", "client"], &["clitimeout"]], range, work);
    let server = back.time(&[&["timeout", "server"], &["srvtimeout"]], range, work);
    let tunnel = back.time(&[&["timeout", "tunnel"]], range, work);
    let ms = match tunnel {
        Some((ms, id)) => {
            for (_, other) in [client, server].into_iter().flatten() {
                work.ledger.mark(
                    other,
                    Fate::NotNeeded,
                    "`timeout tunnel` counts once both sides talk",
                );
            }
            work.ledger.mark(id, Fate::Exact, "");
            put(table, "idle-timeout", &words::duration(ms), &[id], work);
            Some(ms)
        }
        None => shorter(&[client, server], "idle-timeout", table, work),
    };
    match ms {
        Some(ms) if ms < IDLE_MIN => {
            let shown = words::duration(ms).replace('"', "");
            work.trap(
                "idle-timeout",
                format!("proxy {name}: connections that are quiet for {shown} are cut"),
                &[
                    "`kubectl exec`, `logs -f` and watches are often quiet for longer.".to_owned(),
                    "Better: leave idle-timeout out. lbd waits 1h, and finds dead peers by keepalive and user-timeout.".to_owned(),
                ],
            );
        }
        Some(_) => {}
        None => work.trap(
            "no-timeouts",
            format!("proxy {name} has no timeouts"),
            &["HAProxy then keeps a dead peer's connection for ever; lbd drops a quiet one after 1h, and finds dead peers by keepalive.".to_owned()],
        ),
    }
}

fn limits(front: &View<'_>, back: &View<'_>, table: &mut Table, work: &mut Work) {
    if let Some((count, id)) = front.number("maxconn", (1, 10_000_000), work) {
        work.ledger.mark(id, Fate::Exact, "");
        put(table, "max-connections", &count.to_string(), &[id], work);
    }
    for directive in back
        .own
        .directives
        .iter()
        .filter(|d| d.word(0) == "maxconn")
    {
        work.ledger.otherwise(
            directive.id,
            Fate::NotNeeded,
            "a backend has none in HAProxy either",
        );
    }
    if let Some((count, id)) = back.number("retries", (0, 100), work) {
        work.ledger.mark(id, Fate::Exact, "");
        put(table, "retries", &count.to_string(), &[id], work);
    }
    let Some(directive) = back.last(&["source"], work) else {
        return;
    };
    let address = directive.word(1);
    let ip =
        words::ip(address.strip_suffix(":0").unwrap_or(address)).filter(|ip| !ip.is_unspecified());
    match (
        directive.words.get(2).map(String::as_str),
        directive.word(3),
        ip,
    ) {
        (None, _, Some(ip)) => {
            work.ledger.mark(directive.id, Fate::Exact, "");
            put(
                table,
                "source",
                &string(&ip.to_string()),
                &[directive.id],
                work,
            );
        }
        (Some("usesrc"), "client" | "clientip", None) => {
            work.ledger.mark(directive.id, Fate::Exact, "");
            put(table, "source", "\"client\"", &[directive.id], work);
        }
        _ => work.ledger.mark(
            directive.id,
            Fate::Lost,
            "lbd connects from one address, or from the client's",
        ),
    }
}

/// The PROXY protocol on both sides.
fn headers(binds: &bind::Binds, servers: &[Server], table: &mut Table, work: &mut Work) {
    let mut fields = Vec::new();
    let mut ids: Vec<Id> = Vec::new();
    if let Some(id) = binds.accepts_header {
        fields.push("accept = [\"0.0.0.0/0\", \"::/0\"]".to_owned());
        ids.push(id);
        work.trap(
            "anybody-says-who",
            "anybody may say who the client is",
            &["`accept-proxy` believes every sender, and so does lb.toml now. Better: name the senders in proxy-protocol.accept.".to_owned()],
        );
    }
    for (flag, word) in [("send-proxy-v2", "v2"), ("send-proxy", "v1")] {
        if let Some(params) = servers.first().map(|server| &server.params)
            && params.has(flag)
            && !fields.iter().any(|field| field.starts_with("send"))
        {
            fields.push(format!("send = \"{word}\""));
            ids.extend(params.id(flag));
        }
    }
    if !fields.is_empty() {
        put(
            table,
            "proxy-protocol",
            &format!("{{ {} }}", fields.join(", ")),
            &ids,
            work,
        );
    }
}

fn unresponsive(servers: &[Server], table: &mut Table, work: &mut Work) {
    let Some((params, _)) = shared(servers, "on-marked-down") else {
        return;
    };
    if params.value("on-marked-down") == Some("shutdown-sessions") {
        put(
            table,
            "on-not-ready",
            "\"reset\"",
            &own_id(servers, "on-marked-down"),
            work,
        );
    } else if let Some(id) = params.id("on-marked-down") {
        work.ledger.mark(
            id,
            Fate::Lost,
            "`on-marked-down` other than shutdown-sessions",
        );
    }
}

/// `tcp-request inspect-delay` with a rule that waits for a TLS hello: the client speaks first.
fn inspect(front: &View<'_>, table: &mut Table, work: &mut Work) {
    let own = || front.own.directives.iter();
    let delay = own().find(|d| d.is(&["tcp-request", "inspect-delay"]));
    let hello = own().find(|d| {
        d.is(&["tcp-request", "content", "accept", "if"])
            && d.words
                .iter()
                .any(|w| w == "req_ssl_hello_type" || w == "req.ssl_hello_type")
    });
    let (Some(delay), Some(hello)) = (delay, hello) else {
        return;
    };
    let Some(ms) = words::milliseconds(delay.word(2)) else {
        return;
    };
    work.ledger.mark(
        hello.id,
        Fate::Changed,
        "a client that says nothing is dropped; what it says isn't looked at",
    );
    work.ledger.mark(
        delay.id,
        Fate::Changed,
        "the time to the client's first byte",
    );
    put(table, "client-first", "true", &[hello.id], work);
    let value = words::duration(ms.clamp(100, 24 * HOUR));
    put(table, "first-byte-timeout", &value, &[delay.id], work);
}

/// The first server that has a parameter.
pub(super) fn shared<'a>(servers: &'a [Server], name: &str) -> Option<(&'a Params, &'a Server)> {
    servers
        .iter()
        .find(|s| s.params.has(name))
        .map(|s| (&s.params, s))
}

fn own_id(servers: &[Server], name: &str) -> Vec<Id> {
    shared(servers, name)
        .and_then(|(params, _)| params.id(name))
        .into_iter()
        .collect()
}
