//! How HAProxy checks servers, as `check` of a proxy.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::toml::string;
use super::super::words;
use super::lex::Directive;
use super::server::{Params, Server};
use super::view::View;

/// Options that choose a check; the last one counts.
const CHECKS: &[&str] = &[
    "tcp-check",
    "httpchk",
    "ssl-hello-chk",
    "mysql-check",
    "pgsql-check",
    "redis-check",
    "smtpchk",
    "ldap-check",
    "spop-check",
    "external-check",
];
/// Paths of a Kubernetes API server that say how it is.
const KUBERNETES: &[&str] = &["/readyz", "/healthz", "/livez"];
const MS_MIN: u64 = 50;
const HOUR: u64 = 3_600_000;

/// The value of `check`, and where it comes from.
#[derive(Debug, Default)]
pub(super) struct Check {
    fields: Vec<(&'static str, String)>,
    pub(super) ids: Vec<Id>,
}

impl Check {
    fn put(&mut self, key: &'static str, value: String, id: Option<Id>) {
        self.fields.push((key, value));
        self.ids.extend(id);
    }

    /// As TOML.
    pub(super) fn value(&self) -> String {
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(k, v)| format!("{k} = {v}"))
            .collect();
        format!("{{ {} }}", fields.join(", "))
    }

    /// Its type.
    fn kind(&self) -> &str {
        self.fields.first().map_or("", |(_, kind)| kind.as_str())
    }
}

/// What `http-check` says.
#[derive(Debug, Default)]
struct Http {
    path: Option<String>,
    host: Option<String>,
    tls: bool,
    sni: Option<String>,
    statuses: Vec<u16>,
    ids: Vec<Id>,
}

/// The check of a backend's servers.
pub(super) fn check(name: &str, view: &View<'_>, servers: &[Server], work: &mut Work) -> Check {
    let params = servers
        .first()
        .map(|s| s.params.clone())
        .unwrap_or_default();
    let chosen = chosen(view, work);
    let mut check = Check::default();
    let tls = params.has("check-ssl") || params.has("ssl");
    let tls_id = params.id("check-ssl").or(params.id("ssl"));
    match chosen.map(|d| (d, d.word(1))) {
        Some((directive, "httpchk")) => {
            let mut http = request(directive, work);
            http_rules(view, &mut http, work);
            let https = tls || http.tls;
            check.put(
                "type",
                string(if https { "https" } else { "http" }),
                Some(directive.id),
            );
            check.ids.extend(http.ids.iter().copied());
            if let Some(path) = &http.path {
                check.put("path", string(path), None);
            }
            if let Some(host) = &http.host {
                check.put("host", string(host), None);
            }
            statuses(&http, directive.id, &mut check, work);
            if https {
                transport(&params, http.sni.as_deref(), &mut check, work);
            }
            advise(name, &http, https, directive.id, work);
        }
        Some((directive, "ssl-hello-chk")) => {
            work.ledger.mark(
                directive.id,
                Fate::Changed,
                "a whole TLS handshake instead of half of one",
            );
            check.put("type", string("tls"), Some(directive.id));
            transport(&params, None, &mut check, work);
        }
        Some((directive, "tcp-check")) => {
            work.ledger.mark(directive.id, Fate::Exact, "");
            plain(
                name,
                tls.then_some(tls_id).flatten(),
                Some(directive.id),
                &params,
                &mut check,
                work,
            );
        }
        Some((directive, _)) => {
            work.ledger
                .mark(directive.id, Fate::Lost, "a TCP check stands in its place");
            plain(name, None, None, &params, &mut check, work);
        }
        None => plain(
            name,
            tls.then_some(tls_id).flatten(),
            None,
            &params,
            &mut check,
            work,
        ),
    }
    rules(view, check.kind(), work);
    timing(&params, view, &mut check, work);
    check
}

/// The option that counts; what it replaces is entered so.
fn chosen<'a>(view: &View<'a>, work: &mut Work) -> Option<&'a Directive> {
    let is_check = |d: &&Directive| d.word(0) == "option" && CHECKS.contains(&d.word(1));
    let own = view.own.directives.iter().rfind(|d| is_check(d));
    let inherited = || {
        view.defaults
            .and_then(|s| s.directives.iter().rfind(|d| is_check(d)))
    };
    let counts = own.or_else(inherited)?;
    let sections = [Some(view.own), view.defaults];
    let others = sections.into_iter().flatten().flat_map(|s| &s.directives);
    let others: Vec<&Directive> = others
        .filter(|d| is_check(d) && d.id != counts.id)
        .collect();
    for other in &others {
        let note = format!(
            "replaced by `{}` at {}",
            counts.words.join(" "),
            work.ledger.place(counts.id)
        );
        work.ledger.otherwise(other.id, Fate::NotNeeded, note);
        if other.word(1) == "httpchk" && counts.word(1) != "httpchk" {
            let (loser, winner) = (work.ledger.origin(other.id), work.ledger.origin(counts.id));
            work.trap(
                "overridden-check",
                "the HTTP check is not in effect",
                &[
                    format!("`{winner}` comes later and replaces `{loser}`: HAProxy only greets the servers by TLS, and an API server that isn't ready stays in service."),
                    "lb.toml does the same. Better: check = \"kube-apiserver\", which asks /readyz.".to_owned(),
                ],
            );
        }
    }
    (!counts.negated).then_some(counts)
}

/// A connect, by TLS where `tls` says so.
fn plain(
    name: &str,
    tls: Option<Id>,
    option: Option<Id>,
    params: &Params,
    check: &mut Check,
    work: &mut Work,
) {
    if let Some(id) = tls {
        check.put("type", string("tls"), Some(option.unwrap_or(id)));
        transport(params, None, check, work);
        return;
    }
    check.put("type", string("tcp"), option);
    work.trap(
        "tcp-check",
        format!("proxy {name}: servers are only connected to"),
        &[
            "An API server that is hung or not ready still accepts connections, and stays in service.".to_owned(),
            "Better: check = \"kube-apiserver\", which asks /readyz by TLS.".to_owned(),
        ],
    );
}

/// `option httpchk [METHOD] [URI] [VERSION]`.
fn request(directive: &Directive, work: &mut Work) -> Http {
    let mut http = Http {
        ids: vec![directive.id],
        ..Http::default()
    };
    let words: Vec<&str> = directive.words.iter().skip(2).map(String::as_str).collect();
    let (method, uri) = match words.as_slice() {
        [] => ("OPTIONS", "/"),
        [uri] => ("OPTIONS", *uri),
        [method, uri, ..] => (*method, *uri),
    };
    let version = words.get(2..).unwrap_or_default().join(" ");
    work.ledger.mark(directive.id, Fate::Exact, "");
    if method != "GET" {
        work.ledger.mark(
            directive.id,
            Fate::Changed,
            format!("GET instead of {method}"),
        );
    }
    path(&mut http, uri, directive.id, work);
    if let Some((_, host)) = version.split_once("Host:") {
        http.host = Some(host.trim().to_owned()).filter(|host| is_host(host));
        if http.host.is_none() {
            work.ledger.mark(
                directive.id,
                Fate::Lost,
                "a Host header that lbd can't send",
            );
        }
    } else if version.contains('\n') {
        work.ledger.mark(
            directive.id,
            Fate::Lost,
            "lbd sends no headers of one's own",
        );
    }
    http
}

fn path(http: &mut Http, uri: &str, id: Id, work: &mut Work) {
    let fine = uri.starts_with('/') && uri.len() < 256 && uri.bytes().all(|b| b.is_ascii_graphic());
    if fine {
        http.path = Some(uri.to_owned());
    } else {
        work.ledger
            .mark(id, Fate::Lost, format!("`{uri}` is no path"));
    }
}

fn is_host(host: &str) -> bool {
    let usable = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    !host.is_empty() && host.len() < 254 && host.bytes().all(usable)
}

/// `http-check connect`, `send` and `expect`.
fn http_rules(view: &View<'_>, http: &mut Http, work: &mut Work) {
    for directive in view.all(&["http-check"]) {
        let id = directive.id;
        let mut rest = directive.words.iter().skip(2).map(String::as_str);
        match directive.word(1) {
            "expect" => expect(directive, http, work),
            "connect" => {
                work.ledger.mark(id, Fate::Exact, "");
                http.ids.push(id);
                while let Some(word) = rest.next() {
                    match word {
                        "ssl" => http.tls = true,
                        "sni" => http.sni = rest.next().map(str::to_owned),
                        "default" | "linger" => {}
                        "alpn" => {
                            rest.next();
                        }
                        other => {
                            let why = format!("`{other}` of the check's connect");
                            work.ledger.mark(id, Fate::Lost, why);
                        }
                    }
                }
            }
            "send" => {
                work.ledger.mark(id, Fate::Exact, "");
                http.ids.push(id);
                while let Some(word) = rest.next() {
                    let value = rest.next().unwrap_or("");
                    match word {
                        "meth" | "ver" if word == "ver" || value == "GET" => {}
                        "meth" => {
                            work.ledger
                                .mark(id, Fate::Changed, format!("GET instead of {value}"));
                        }
                        "uri" => path(http, value, id, work),
                        "hdr" if value.eq_ignore_ascii_case("host") => {
                            let host = rest.next().unwrap_or("");
                            http.host = Some(host.to_owned()).filter(|host| is_host(host));
                            if http.host.is_none() {
                                let why = "a Host header that lbd can't send";
                                work.ledger.mark(id, Fate::Lost, why);
                            }
                        }
                        // Values are none of the report's business: they may be secrets.
                        "hdr" => {
                            rest.next();
                            let why = format!("the header `{value}` of the check's request");
                            work.ledger.mark(id, Fate::Lost, why);
                        }
                        _ => {
                            let why = "a word of the check's request that lbd can't send";
                            work.ledger.mark(id, Fate::Lost, why);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// `http-check expect status 200`, or a list with ranges.
fn expect(directive: &Directive, http: &mut Http, work: &mut Work) {
    let negated = directive.words.iter().any(|word| word == "!");
    let list = directive.word(3);
    let mut codes: Vec<u16> = Vec::new();
    let mut fine = directive.word(2) == "status" && !negated && directive.words.len() == 4;
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if (100..=599).contains(&from) && from <= to && to <= 599 => {
                codes.extend(from..=to);
            }
            _ => fine = false,
        }
    }
    if fine && codes.len() <= 64 {
        work.ledger.mark(directive.id, Fate::Exact, "");
        http.ids.push(directive.id);
        http.statuses = codes;
    } else if fine {
        work.ledger.mark(
            directive.id,
            Fate::Changed,
            "the first 64 of these status codes",
        );
        http.statuses = codes.into_iter().take(64).collect();
    } else {
        work.ledger
            .mark(directive.id, Fate::Lost, "lbd judges by status codes alone");
    }
}

fn statuses(http: &Http, id: Id, check: &mut Check, work: &mut Work) {
    match http.statuses.as_slice() {
        [] => work.ledger.mark(
            id,
            Fate::Changed,
            "200 alone means ready, not every 2xx and 3xx",
        ),
        [200] => {}
        [one] => check.put("expect-status", one.to_string(), None),
        several => {
            let codes: Vec<String> = several.iter().map(u16::to_string).collect();
            check.put("expect-status", format!("[{}]", codes.join(", ")), None);
        }
    }
}

/// Who is believed to be a server.
fn transport(params: &Params, sni: Option<&str>, check: &mut Check, work: &mut Work) {
    for flag in ["check-ssl", "verify", "ca-file"] {
        check.ids.extend(params.id(flag));
    }
    let id = params.id("ca-file");
    let file = params.value("ca-file").map(|file| work.absolute(file));
    match (params.value("verify"), file) {
        (Some("none"), _) | (_, None) => {
            check.put("verify", "false".to_owned(), params.id("verify"));
            if params.value("verify") == Some("required")
                && let Some(id) = params.id("verify")
            {
                work.ledger
                    .mark(id, Fate::Changed, "without a ca-file nothing is verified");
            }
            work.trap(
                "unverified-check",
                "the check believes any server",
                &["Certificates are not verified. Better: `ca-file = \"/etc/kubernetes/pki/ca.crt\"` in place of `verify = false`.".to_owned()],
            );
        }
        (_, Some(Some(file))) => check.put("ca-file", string(&file), id),
        (_, Some(None)) => {
            check.put("verify", "false".to_owned(), None);
            if let Some(id) = id {
                work.ledger
                    .mark(id, Fate::Lost, "the path of `ca-file` must be absolute");
            }
        }
    }
    let name = params
        .value("check-sni")
        .or(params.value("verifyhost"))
        .or(sni);
    if let Some(name) = name.filter(|name| is_host(name) && !name.contains(['(', ':', '['])) {
        check.put(
            "server-name",
            string(name),
            params.id("check-sni").or(params.id("verifyhost")),
        );
    }
    if let Some(id) = params.id("crt") {
        work.ledger.mark(
            id,
            Fate::Lost,
            "`crt`: write `client-cert` and `client-key` of the check",
        );
    }
}

/// Says that another path asks more.
fn advise(name: &str, http: &Http, https: bool, id: Id, work: &mut Work) {
    let path = http.path.as_deref().unwrap_or("/");
    let bare = path.split('?').next().unwrap_or(path);
    if !KUBERNETES.contains(&bare) {
        return;
    }
    if !https {
        let origin = work.ledger.origin(id);
        work.trap(
            "plain-http-check",
            format!("proxy {name}: the check speaks HTTP without TLS"),
            &[format!("`{origin}` without `check-ssl`: an API server answers 400 to that. lb.toml asks the same; check = \"kube-apiserver\" asks by TLS.")],
        );
    } else if bare != "/readyz" {
        work.trap(
            "healthz",
            format!("proxy {name}: {path} says that the process lives, not that it is ready"),
            &["While an API server starts or shuts down, /readyz says no and this path still yes. Better: check = \"kube-apiserver\".".to_owned()],
        );
    }
}

/// Rules of a check that is not of their kind, or that lbd doesn't have.
fn rules(view: &View<'_>, kind: &str, work: &mut Work) {
    for directive in view.all(&["http-check"]) {
        if !kind.contains("http") {
            work.ledger.otherwise(
                directive.id,
                Fate::NotNeeded,
                "the HTTP check is not in effect",
            );
        }
    }
    for directive in view.all(&["tcp-check"]) {
        let bare = directive.word(1) == "connect" && directive.words.len() == 2;
        if kind.contains("http") {
            work.ledger.otherwise(
                directive.id,
                Fate::NotNeeded,
                "the TCP check is not in effect",
            );
        } else if bare {
            work.ledger.mark(directive.id, Fate::Exact, "");
        } else if directive.word(1) != "comment" {
            work.ledger.mark(
                directive.id,
                Fate::Lost,
                "lbd sends and expects no bytes of one's own",
            );
        }
    }
}

fn timing(params: &Params, view: &View<'_>, check: &mut Check, work: &mut Work) {
    let times = [
        ("inter", "interval", MS_MIN),
        ("fastinter", "fast-interval", 20),
        ("downinter", "down-interval", MS_MIN),
    ];
    for (param, key, min) in times {
        if let Some(ms) = params.time(param, (min, HOUR), work) {
            check.put(key, words::duration(ms), params.id(param));
        }
    }
    let limit = view.time(&[&["timeout", "check"]], (10, 60_000), work);
    if let Some((ms, id)) = limit {
        check.put("timeout", words::duration(ms), Some(id));
        work.ledger.mark(id, Fate::Exact, "");
    }
    for key in ["rise", "fall"] {
        // HAProxy's `fall` is 3, lbd's is 2.
        let count = params.number(key, (1, 255), work);
        if let Some(count) = count.or((key == "fall").then_some(3)) {
            check.put(key, count.to_string(), params.id(key));
        }
    }
}
