//! haproxy.cfg: `lex` makes sections of it, with `env` and `condition`, `view` says which line counts, `global` and `proxy`
//! translate, with `server`, `backends`, `check` and `bind` for their parts; `known` lists what needs no key.

mod backends;
mod bind;
mod check;
mod condition;
mod env;
mod global;
mod known;
mod lex;
mod lines;
mod proxy;
mod server;
mod view;

use std::net::IpAddr;

use super::Work;
use super::ledger::{Fate, Id};
use super::toml::{Table, comment};
use super::words;
use lex::Section;
use view::View;

/// What came of haproxy.cfg.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// `[log]`, `[access-log]`, `[metrics]`, `[limits]`.
    pub(super) general: Vec<Table>,
    /// `[proxy.NAME]` and their backends.
    pub(super) proxies: Vec<Proxy>,
}

/// A proxy as it will stand in the file.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: String,
    /// Where it listens; nothing: every address.
    pub(super) ports: Vec<(Option<IpAddr>, u16)>,
    pub(super) tables: Vec<Table>,
}

/// What a section that works on HTTP is for.
enum Http {
    /// `monitor-uri`.
    Health,
    /// `stats`.
    Statistics,
    /// A real one.
    Proxy,
}

/// Translates a file.
pub(super) fn translate(file: &str, text: &str, work: &mut Work) -> Made {
    let (mut sections, placeholders) = lex::sections(file, text, &mut work.ledger);
    inherit(&mut sections);
    work.placeholders.extend(placeholders);
    work.base = global::certificate_base(&sections);
    usual(&sections, work);
    let mut made = Made::default();
    let views = views(&sections);
    let mut general = global::General::default();
    for view in &views {
        if is_disabled(view) {
            disabled(view, work);
            continue;
        }
        match view.own.kind.as_str() {
            "frontend" | "listen" => front(view, &views, &mut general, &mut made, work),
            _ => {}
        }
    }
    global::translate(&sections, &mut general, &mut made, work);
    unused(&sections, &views, work);
    made
}

/// Enters what needs no key.
fn usual(sections: &[Section], work: &mut Work) {
    for section in sections {
        let known = match section.kind.as_str() {
            "global" => known::global,
            "defaults" | "frontend" | "backend" | "listen" => known::proxy,
            other => {
                let why = format!("lbd has nothing like `{other}`");
                work.ledger.mark(section.id, Fate::Lost, why.clone());
                for directive in &section.directives {
                    work.ledger.mark(directive.id, Fate::Lost, why.clone());
                }
                continue;
            }
        };
        if matches!(section.kind.as_str(), "global" | "defaults") {
            work.ledger.mark(section.id, Fate::Exact, "");
        }
        for directive in &section.directives {
            if let Some((fate, note)) = known(directive) {
                work.ledger.otherwise(directive.id, fate, note);
            }
        }
    }
}

/// Whether a proxy is switched off.
fn is_disabled(view: &View<'_>) -> bool {
    let says = |word: &str| !view.all(&[word]).is_empty();
    let own = |word: &str| view.own.directives.iter().any(|d| d.word(0) == word);
    says("disabled") && (own("disabled") || !own("enabled"))
}

/// Leaves out what HAProxy doesn't start either.
fn disabled(view: &View<'_>, work: &mut Work) {
    let why = "it is `disabled`: left out";
    work.ledger.mark(view.own.id, Fate::Changed, why);
    for directive in view
        .all(&["disabled"])
        .into_iter()
        .chain(&view.own.directives)
    {
        work.ledger.mark(directive.id, Fate::NotNeeded, why);
    }
}

/// Gives `defaults NAME from OTHER` what the other one says.
fn inherit(sections: &mut [Section]) {
    for index in 0..sections.len() {
        let (before, rest) = sections.split_at_mut(index);
        let Some(own) = rest.first_mut().filter(|s| s.kind == "defaults") else {
            continue;
        };
        let Some(from) = own.parent() else { continue };
        let is_named = |s: &&Section| s.kind == "defaults" && s.name() == from;
        if let Some(parent) = before.iter().rfind(is_named) {
            let said = |d: &lex::Directive| own.directives.iter().any(|o| o.overrides(d));
            let mut taken = parent.directives.clone();
            taken.retain(|d| !said(d));
            taken.append(&mut own.directives);
            own.directives = taken;
        }
    }
}

/// Each proxy section with its defaults: those it names, else the last ones before it.
fn views(sections: &[Section]) -> Vec<View<'_>> {
    let mut found = Vec::new();
    let mut latest = None;
    for own in sections {
        match own.kind.as_str() {
            "defaults" => latest = Some(own),
            "frontend" | "backend" | "listen" => {
                let by_name = |name: &str| {
                    sections
                        .iter()
                        .find(|s| s.kind == "defaults" && s.name() == name)
                };
                found.push(View {
                    own,
                    defaults: own.parent().and_then(by_name).or(latest),
                });
            }
            _ => {}
        }
    }
    found
}

fn mode(view: &View<'_>, work: &mut Work) -> String {
    let directive = view.last(&["mode"], work);
    directive.map_or("tcp", |d| d.word(1)).to_owned()
}

/// Whether a section has servers of its own.
fn serves(view: &View<'_>) -> bool {
    let is_server = |word: &str| matches!(word, "server" | "server-template");
    view.own.directives.iter().any(|d| is_server(d.word(0)))
}

/// Translates what clients connect to.
fn front(
    view: &View<'_>,
    views: &[View<'_>],
    general: &mut global::General,
    made: &mut Made,
    work: &mut Work,
) {
    let own = view.own;
    if mode(view, work) == "http" {
        let has = |start: &[&str]| own.directives.iter().any(|d| d.is(start));
        let serving = has(&["default_backend"]) || has(&["use_backend"]) || serves(view);
        let exporter = own
            .directives
            .iter()
            .any(|d| d.is(&["http-request", "use-service", "prometheus-exporter"]));
        let kind = match (serving, has(&["monitor-uri"]), has(&["stats"]) || exporter) {
            (false, true, _) => Http::Health,
            (false, false, true) => Http::Statistics,
            (true, ..) | (false, false, false) => Http::Proxy,
        };
        match kind {
            Http::Health => general.health(view, work),
            Http::Statistics => general.statistics(view, work),
            Http::Proxy => lost(view, work),
        }
        return;
    }
    for directive in view.all(&["mode"]) {
        work.ledger.mark(directive.id, Fate::Exact, "");
    }
    general.hears(view, work);
    let back = if own.kind == "listen" && serves(view) {
        Some(*view)
    } else {
        backend(view, views, work)
    };
    let Some(back) = back else {
        work.ledger
            .mark(own.id, Fate::Lost, "no backend to send its connections to");
        for directive in &own.directives {
            let why = "its section sends to no backend";
            work.ledger.otherwise(directive.id, Fate::Lost, why);
        }
        return;
    };
    if back.own.id != own.id {
        for directive in back.own.directives.iter().filter(|d| d.word(0) == "mode") {
            let fate = if directive.word(1) == "tcp" {
                Fate::Exact
            } else {
                Fate::Lost
            };
            work.ledger.mark(directive.id, fate, "");
        }
        same_name(view, &back, work);
    }
    let name = name_of(own, made, work);
    work.ledger.mark(
        back.own.id,
        Fate::Exact,
        format!("a part of `proxy.{name}`"),
    );
    let twins = views
        .iter()
        .filter(|other| other.own.kind != "backend" && other.uses(&back));
    if back.own.id != own.id && twins.count() > 1 {
        let why =
            "several frontends use it: each [proxy] checks and counts for itself, `maxconn` too";
        work.ledger.mark(back.own.id, Fate::Changed, why);
    }
    made.proxies.extend(proxy::proxy(&name, view, &back, work));
}

/// What a proxy is called, which no other is.
fn name_of(own: &Section, made: &Made, work: &mut Work) -> String {
    let taken: Vec<String> = made.proxies.iter().map(|p| p.name.clone()).collect();
    let name = words::unique(own.name(), &taken);
    if name == own.name() {
        work.ledger.mark(own.id, Fate::Exact, "");
    } else {
        let note = format!("called {name}");
        work.ledger.mark(own.id, Fate::Changed, note);
    }
    name
}

/// The backend of a frontend.
fn backend<'a>(view: &View<'_>, views: &[View<'a>], work: &mut Work) -> Option<View<'a>> {
    for directive in view
        .own
        .directives
        .iter()
        .filter(|d| d.word(0) == "use_backend")
    {
        work.ledger.mark(
            directive.id,
            Fate::Lost,
            "lbd sends all of a listener's connections to one set of servers",
        );
    }
    let directive = view.last(&["default_backend"], work)?;
    let named = |other: &&View<'a>| {
        matches!(other.own.kind.as_str(), "backend" | "listen")
            && other.own.name() == directive.word(1)
    };
    let found = views.iter().find(named).copied();
    let fate = if found.is_some() {
        Fate::Exact
    } else {
        Fate::Lost
    };
    work.ledger.mark(
        directive.id,
        fate,
        if found.is_some() {
            ""
        } else {
            "there is no such backend"
        },
    );
    found
}

fn same_name(front: &View<'_>, back: &View<'_>, work: &mut Work) {
    if front.own.name() != back.own.name() {
        return;
    }
    let places = format!(
        "{} and {}",
        work.ledger.place(front.own.id),
        work.ledger.place(back.own.id)
    );
    work.trap(
        "same-name",
        format!("frontend and backend are both called {}", front.own.name()),
        &[format!(
            "HAProxy 3.3 and later refuse that ({places}). In lb.toml both are one [proxy]."
        )],
    );
}

/// A section that lbd can't serve.
fn lost(view: &View<'_>, work: &mut Work) {
    let why = "it works on HTTP; lbd forwards TCP";
    work.ledger.mark(view.own.id, Fate::Lost, why);
    for directive in &view.own.directives {
        work.ledger.mark(directive.id, Fate::Lost, why);
    }
}

/// Sections that nobody uses, and lines of defaults that hold for nothing.
fn unused(sections: &[Section], views: &[View<'_>], work: &mut Work) {
    for section in sections.iter().filter(|s| s.kind == "defaults") {
        let used = |view: &View<'_>| view.defaults.is_some_and(|d| d.id == section.id);
        let heir = |s: &Section| s.kind == "defaults" && s.parent() == Some(section.name());
        let idle = !views.iter().any(used) && !sections.iter().any(heir);
        for directive in &section.directives {
            // What frontends or backends alone have, and none of them took.
            let of_some = ["timeout", "retries", "balance", "maxconn", "source"];
            if idle || of_some.contains(&directive.word(0)) {
                let why = "no proxy that lbd serves takes it from here";
                work.ledger.otherwise(directive.id, Fate::NotNeeded, why);
            }
        }
    }
    for view in views {
        if view.own.kind == "backend" && !work.ledger.is_marked(view.own.id) {
            let why = "no frontend that lbd serves uses this backend";
            work.ledger.otherwise(view.own.id, Fate::Lost, why);
            for directive in &view.own.directives {
                work.ledger.otherwise(directive.id, Fate::Lost, why);
            }
        }
        let inherited = view
            .defaults
            .map(|d| d.directives.as_slice())
            .unwrap_or_default();
        for directive in inherited.iter().filter(|d| d.word(0) == "mode") {
            work.ledger
                .otherwise(directive.id, Fate::NotNeeded, "every proxy says its own");
        }
    }
}

/// `key = value` with where it comes from.
fn put(table: &mut Table, key: &str, value: &str, ids: &[Id], work: &Work) {
    table.put(key, value, comment(&work.ledger, ids));
}
