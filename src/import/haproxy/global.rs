//! `global`, and what frontends say about the process as a whole: messages, the access log, the
//! listener for health and statistics, limits.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::{Table, string};
use super::lex::{Directive, Section};
use super::view::View;
use super::{Made, bind, put};

const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "ftp",
    "ntp", "audit", "alert", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// What frontends ask of the process.
#[derive(Debug, Default)]
pub(super) struct General {
    /// The listener for health, with the line that names it.
    listen: Option<(String, Id)>,
    /// Its port.
    port: Option<u16>,
    /// `option tcplog`.
    access: Option<Id>,
    /// `option dontlognull`.
    skip_empty: Option<Id>,
    /// Whether any connection is logged.
    logged: bool,
}

impl General {
    /// What a TCP frontend says about lines per connection.
    pub(super) fn hears(&mut self, view: &View<'_>, work: &mut Work) {
        let logs = view
            .own
            .directives
            .iter()
            .chain(view.defaults.iter().flat_map(|d| &d.directives));
        self.logged |= logs.clone().any(|d| d.word(0) == "log" && !d.negated);
        for name in ["tcplog", "httplog"] {
            if let Some(directive) = view.option(name, work) {
                if name == "tcplog" {
                    work.ledger.mark(directive.id, Fate::Exact, "");
                }
                self.access = self.access.or(Some(directive.id));
            }
        }
        if let Some(directive) = view.last(&["log-format"], work) {
            work.ledger.mark(
                directive.id,
                Fate::Changed,
                "the fields of `option tcplog`; or format = \"json\"",
            );
            self.access = self.access.or(Some(directive.id));
        }
        if let Some(directive) = view.option("dontlognull", work) {
            work.ledger.mark(directive.id, Fate::Exact, "");
            self.skip_empty = self.skip_empty.or(Some(directive.id));
        }
        for directive in view.all(&["log"]) {
            if directive.word(1) == "global" {
                work.ledger.mark(directive.id, Fate::Exact, "");
            }
        }
    }

    /// A frontend that only answers health checks.
    pub(super) fn health(&mut self, view: &View<'_>, work: &mut Work) {
        self.listener(view, work);
        work.ledger.mark(
            view.own.id,
            Fate::Changed,
            "the metrics listener answers; /metrics is there, too",
        );
        for directive in &view.own.directives {
            if directive.word(0) == "monitor-uri" {
                match directive.word(1) {
                    "/healthz" | "/readyz" => work.ledger.mark(directive.id, Fate::Exact, ""),
                    _ => work.ledger.mark(
                        directive.id,
                        Fate::Changed,
                        "ask /healthz or /readyz: 200 while this node could serve",
                    ),
                }
            }
        }
        own_mode(view, work);
    }

    /// A listener that only shows statistics.
    pub(super) fn statistics(&mut self, view: &View<'_>, work: &mut Work) {
        let taken = (self.listen.clone(), self.port);
        self.listener(view, work);
        let loopback = self
            .listen
            .as_ref()
            .is_some_and(|(listen, _)| listen.contains("127.0.0.1") || listen.contains("::1"));
        if let (Some(listen), port) = taken {
            (self.listen, self.port) = (Some(listen), port);
        }
        work.ledger.mark(
            view.own.id,
            Fate::Changed,
            "the metrics listener shows /metrics and /status.json",
        );
        for directive in view.own.directives.iter().filter(|d| d.word(0) == "stats") {
            let (fate, note) = match directive.word(1) {
                "enable" => (Fate::Changed, "the metrics listener shows them"),
                "uri" => (Fate::Changed, "/metrics and /status.json"),
                "auth" if loopback => (
                    Fate::Changed,
                    "no password: it listens on loopback; or ask the admin socket",
                ),
                "auth" => (
                    Fate::Lost,
                    "no password: bind `metrics.listen` to loopback, or ask the admin socket",
                ),
                "admin" => (
                    Fate::Changed,
                    "`lbd drain`, `lbd ready`, `lbd maint` through the admin socket",
                ),
                _ => (Fate::NotNeeded, ""),
            };
            work.ledger.mark(directive.id, fate, note);
        }
        own_mode(view, work);
    }

    fn listener(&mut self, view: &View<'_>, work: &mut Work) {
        let binds = bind::binds(view, work);
        let open = binds
            .listen
            .iter()
            .any(|(_, ip, _)| !ip.is_some_and(|ip| ip.is_loopback()));
        for directive in view
            .own
            .directives
            .iter()
            .filter(|d| d.word(0) == "http-request")
        {
            match directive.word(1) {
                "use-service" => work.ledger.mark(
                    directive.id,
                    Fate::Changed,
                    "/metrics of the metrics listener, with HAProxy's names, too",
                ),
                "deny" | "auth" | "reject" | "tarpit" | "silent-drop" if open => work.ledger.mark(
                    directive.id,
                    Fate::Lost,
                    "who reaches the listener may read it: bind `metrics.listen` to loopback",
                ),
                _ => {}
            }
        }
        for (index, (listen, ip, port)) in binds.listen.iter().enumerate() {
            let id = binds.ids.first().copied().unwrap_or(view.own.id);
            if index > 0 || self.listen.is_some() {
                work.ledger.mark(
                    id,
                    Fate::Changed,
                    "lbd has one listener for health and metrics",
                );
                continue;
            }
            // The key takes an address, not `:PORT`.
            let listen = match ip {
                None if listen.starts_with("\":") => format!("\"[::]:{port}\""),
                _ => listen.clone(),
            };
            self.listen = Some((listen, id));
            self.port = Some(*port);
        }
    }
}

fn own_mode(view: &View<'_>, work: &mut Work) {
    for directive in view.own.directives.iter().filter(|d| d.word(0) == "mode") {
        work.ledger.mark(directive.id, Fate::Exact, "");
    }
    for name in ["dontlognull", "httplog"] {
        for directive in view
            .own
            .directives
            .iter()
            .filter(|d| d.is(&["option", name]))
        {
            work.ledger.otherwise(
                directive.id,
                Fate::NotNeeded,
                "requests for health are not logged",
            );
        }
    }
}

/// `ca-base`.
pub(super) fn certificate_base(sections: &[Section]) -> Option<String> {
    let of = |s: &Section| {
        s.directives
            .iter()
            .rfind(|d| d.word(0) == "ca-base")
            .map(|d| d.word(1).to_owned())
    };
    sections
        .iter()
        .filter(|s| s.kind == "global")
        .rev()
        .find_map(of)
}

/// The tables about the process.
pub(super) fn translate(
    sections: &[Section],
    general: &mut General,
    made: &mut Made,
    work: &mut Work,
) {
    let lines = |kind: &str| -> Vec<&Directive> {
        sections
            .iter()
            .filter(|s| s.kind == kind)
            .flat_map(|s| &s.directives)
            .collect()
    };
    let global = lines("global");
    made.general.push(log(sections, work));
    made.general.extend(access(general, work));
    let mut limits = Table::new("[limits]".to_owned(), String::new());
    for directive in global {
        match (directive.word(0), directive.word(1)) {
            ("maxconn", count) => limit(
                &mut limits,
                "max-connections",
                count,
                10_000_000,
                directive.id,
                work,
            ),
            ("nbthread", count) => limit(&mut limits, "workers", count, 256, directive.id, work),
            ("stats", "socket") => {
                let path = directive.word(2);
                if path.starts_with('/') || path.starts_with("unix@") {
                    work.ledger.mark(directive.id, Fate::Changed, "lbd's own socket, /run/lbd/admin.sock, for `lbd status`, `lbd drain` and the like");
                } else {
                    work.ledger.mark(
                        directive.id,
                        Fate::Lost,
                        "lbd's admin socket is a file, /run/lbd/admin.sock",
                    );
                }
            }
            _ => {}
        }
    }
    work.health = general.port;
    if let Some((listen, id)) = &general.listen {
        let mut table = Table::new("[metrics]".to_owned(), String::new());
        put(&mut table, "listen", listen, &[*id], work);
        made.general.push(table);
    }
    if !limits.is_empty() {
        made.general.push(limits);
    }
}

fn limit(table: &mut Table, key: &str, count: &str, max: u64, id: Id, work: &mut Work) {
    match count.parse::<u64>() {
        Ok(0) => work.ledger.mark(id, Fate::NotNeeded, "lbd's default"),
        Ok(count) => {
            work.ledger.mark(
                id,
                if count > max {
                    Fate::Changed
                } else {
                    Fate::Exact
                },
                "",
            );
            put(table, key, &count.min(max).to_string(), &[id], work);
        }
        Err(_) => work.ledger.mark(id, Fate::Lost, "not a number"),
    }
}

fn access(general: &General, work: &mut Work) -> Option<Table> {
    let id = general.access?;
    if !general.logged {
        work.ledger.mark(
            id,
            Fate::Changed,
            "HAProxy has no `log` line and writes nothing; lbd does",
        );
    }
    let mut table = Table::new("[access-log]".to_owned(), String::new());
    put(&mut table, "format", "\"tcplog\"", &[id], work);
    if let Some(id) = general.skip_empty {
        put(&mut table, "skip-empty", "true", &[id], work);
    }
    Some(table)
}

/// `log ADDRESS [len N] [format F] [sample S] FACILITY [LEVEL [MINLEVEL]]`, of which the first counts.
fn log(sections: &[Section], work: &mut Work) -> Table {
    let mut table = Table::new("[log]".to_owned(), String::new());
    let all = sections
        .iter()
        .filter(|s| s.kind != "ring" && s.kind != "log-forward");
    let lines = all
        .flat_map(|s| &s.directives)
        .filter(|d| d.word(0) == "log" && d.word(1) != "global");
    let mut first: Option<Id> = None;
    for directive in lines {
        let id = directive.id;
        if directive.negated {
            work.ledger
                .mark(id, Fate::Changed, "lbd has one log for all proxies");
            continue;
        }
        if let Some(first) = first {
            let note = format!("lbd logs once, as {} says", work.ledger.place(first));
            work.ledger.mark(id, Fate::Changed, note);
            continue;
        }
        first = Some(id);
        target(directive, &mut table, work);
    }
    if table.is_empty() {
        Table::default()
    } else {
        table
    }
}

fn target(directive: &Directive, table: &mut Table, work: &mut Work) {
    let id = directive.id;
    work.ledger.mark(id, Fate::Exact, "");
    let address = directive.word(1);
    let local = address.starts_with("127.")
        || address.starts_with("localhost")
        || address.starts_with("[::1]");
    let (target, note) = match address {
        "/dev/log" => ("syslog", ""),
        "stdout" | "stderr" | "fd@1" | "fd@2" => ("stderr", ""),
        _ if local || address.starts_with('/') => ("syslog", "to /dev/log"),
        _ => (
            "syslog",
            "to /dev/log: lbd sends nothing over the network, the system's syslog can",
        ),
    };
    if !note.is_empty() {
        work.ledger.mark(id, Fate::Changed, note);
    }
    put(table, "target", &string(target), &[id], work);
    let mut rest: Vec<&str> = directive.words.iter().skip(2).map(String::as_str).collect();
    while let Some(option) = rest
        .first()
        .copied()
        .filter(|w| ["len", "format", "sample", "profile"].contains(w))
    {
        rest.drain(..rest.len().min(2));
        work.ledger
            .mark(id, Fate::Changed, format!("`{option}` has no meaning here"));
    }
    if let Some(facility) = rest.first()
        && FACILITIES.contains(facility)
        && target == "syslog"
    {
        put(table, "facility", &string(facility), &[id], work);
    }
    let level = match rest.get(1).copied() {
        Some("emerg" | "alert" | "crit" | "err") => Some("error"),
        Some("warning") => Some("warning"),
        Some("debug") => Some("debug"),
        Some(_) | None => None,
    };
    if let Some(level) = level {
        put(table, "level", &string(level), &[id], work);
        if matches!(level, "error" | "warning") {
            work.ledger.mark(id, Fate::Changed, "HAProxy's level hides its lines per connection, too; lbd's doesn't: without [access-log] there are none");
        }
    }
}
