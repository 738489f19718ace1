//! `server`, `server-template` and `default-server`: addresses and parameters.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::words;
use super::view::View;

/// Parameters without a value.
const FLAGS: &[&str] = &[
    "check",
    "check-ssl",
    "ssl",
    "backup",
    "disabled",
    "send-proxy",
    "send-proxy-v2",
    "check-send-proxy",
];
/// Parameters with a value.
const VALUES: &[&str] = &[
    "weight",
    "maxconn",
    "maxqueue",
    "inter",
    "fastinter",
    "downinter",
    "rise",
    "fall",
    "slowstart",
    "port",
    "addr",
    "verify",
    "ca-file",
    "check-sni",
    "sni",
    "verifyhost",
    "crt",
    "on-marked-down",
];
/// Parameters without a purpose in lbd; the flag says whether a value follows.
const IDLE: &[(&str, bool)] = &[
    ("enabled", false),
    ("non-stick", false),
    ("id", true),
    ("guid", true),
    ("cookie", true),
    ("alpn", true),
    ("check-alpn", true),
    ("proto", true),
    ("check-proto", true),
    ("pool-max-conn", true),
    ("pool-low-conn", true),
    ("pool-purge-delay", true),
    ("max-reuse", true),
    ("ciphers", true),
    ("ciphersuites", true),
    ("ssl-min-ver", true),
    ("ssl-max-ver", true),
    ("init-addr", true),
    ("no-ssl-reuse", false),
    ("no-tls-tickets", false),
];
/// What lbd does otherwise.
const OTHER: &[(&str, bool, &str)] = &[
    (
        "resolvers",
        true,
        "the system's resolvers are asked, or `discovery.dns.resolvers`",
    ),
    ("resolve-prefer", true, "see `discovery.dns.family`"),
    (
        "resolve-opts",
        true,
        "names are asked for again by their TTL",
    ),
    ("tcp-ut", true, "`user-timeout` is 20s for all"),
    ("minconn", true, "max-connections holds at any load"),
    ("observe", true, "lbd watches each server's traffic anyhow"),
    (
        "error-limit",
        true,
        "lbd watches each server's traffic anyhow",
    ),
    ("on-error", true, "lbd watches each server's traffic anyhow"),
    (
        "on-marked-up",
        true,
        "backups keep the connections they have",
    ),
];

/// A server's parameters, each with the line that says it.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(BTreeMap<&'static str, (String, Id)>);

impl Params {
    /// A parameter's value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.as_str())
    }

    /// Whether it is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The line that says it.
    pub(super) fn id(&self, name: &str) -> Option<Id> {
        self.0.get(name).map(|(_, id)| *id)
    }

    /// A number within a range; the line is entered as changed where it isn't.
    pub(super) fn number(
        &self,
        name: &str,
        (min, max): (u64, u64),
        work: &mut Work,
    ) -> Option<u64> {
        let (value, id) = self.0.get(name)?;
        let Ok(number) = value.parse::<u64>() else {
            work.ledger
                .mark(*id, Fate::Lost, format!("`{name}` is no number"));
            return None;
        };
        if number > max || number < min {
            work.ledger.mark(
                *id,
                Fate::Changed,
                format!("lbd's {name} is {min} to {max}"),
            );
        }
        Some(number.clamp(min, max))
    }

    /// A time in milliseconds within a range.
    pub(super) fn time(&self, name: &str, (min, max): (u64, u64), work: &mut Work) -> Option<u64> {
        let (value, id) = self.0.get(name)?;
        let Some(ms) = words::milliseconds(value) else {
            work.ledger
                .mark(*id, Fate::Lost, format!("`{name}` is no time"));
            return None;
        };
        if ms > max || ms < min {
            let range = format!("{} to {}", words::duration(min), words::duration(max));
            work.ledger
                .mark(*id, Fate::Changed, format!("lbd's {name} is {range}"));
        }
        Some(ms.clamp(min, max))
    }

    fn read(&mut self, words: &[String], id: Id, work: &mut Work) {
        let mut rest = words.iter().map(String::as_str);
        while let Some(word) = rest.next() {
            let known =
                |list: &[&'static str], word: &str| list.iter().copied().find(|k| *k == word);
            if let Some(flag) = known(FLAGS, word) {
                self.0.insert(flag, (String::new(), id));
            } else if let Some(name) = known(VALUES, word) {
                let value = rest.next().unwrap_or("");
                self.0.insert(name, (value.to_owned(), id));
            } else if let Some(flag) = word.strip_prefix("no-").and_then(|w| known(FLAGS, w)) {
                self.0.remove(flag);
            } else if let Some((_, valued)) = IDLE.iter().find(|(name, _)| *name == word) {
                if *valued {
                    rest.next();
                }
                work.ledger.otherwise(id, Fate::NotNeeded, "");
            } else if let Some((name, valued, note)) = OTHER.iter().find(|(name, ..)| *name == word)
            {
                if *valued {
                    rest.next();
                }
                work.ledger
                    .mark(id, Fate::Changed, format!("`{name}`: {note}"));
            } else {
                work.ledger
                    .mark(id, Fate::Lost, format!("`{word}`: lbd has nothing like it"));
            }
        }
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// There.
    Address(SocketAddr),
    /// At every address of that name.
    Name(String, u16),
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) id: Id,
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) params: Params,
}

/// The servers of a backend with the parameters that hold for them, and what `default-server` says.
pub(super) fn servers(
    view: &View<'_>,
    ports: &[(Option<IpAddr>, u16)],
    work: &mut Work,
) -> (Vec<Server>, Params) {
    // A server without a port has that at which its client came.
    let port = ports.first().map(|(_, port)| *port);
    let port = port.filter(|port| ports.iter().all(|(_, other)| other == port));
    let mut defaults = Params::default();
    let mut found = Vec::new();
    let inherited = view
        .defaults
        .map(|d| d.directives.as_slice())
        .unwrap_or_default();
    for directive in inherited.iter().chain(&view.own.directives) {
        let rest = |skip: usize| directive.words.get(skip..).unwrap_or_default();
        match directive.word(0) {
            "default-server" => {
                work.ledger.mark(directive.id, Fate::Exact, "");
                defaults.read(rest(1), directive.id, work);
            }
            "server" | "server-template" => {
                let template = directive.word(0) == "server-template";
                let at = if template { 3 } else { 2 };
                let mut params = defaults.clone();
                let target = target(directive.word(at), port);
                let Some(target) = target else {
                    let why = format!(
                        "`{}` is not an address that lbd can reach",
                        directive.word(at)
                    );
                    work.ledger.mark(directive.id, Fate::Lost, why);
                    continue;
                };
                work.ledger.mark(directive.id, Fate::Exact, "");
                params.read(rest(at + 1), directive.id, work);
                if matches!(target, Target::Name(..)) {
                    let why = "every address of the name is a server, asked for again and again";
                    work.ledger.mark(directive.id, Fate::Changed, why);
                }
                found.push(Server {
                    id: directive.id,
                    name: directive.word(1).to_owned(),
                    target,
                    params,
                });
            }
            _ => {}
        }
    }
    (found, defaults)
}

/// `IP:PORT`, `NAME:PORT`, or either without a port, which is that of the listener then.
fn target(text: &str, listener: Option<u16>) -> Option<Target> {
    let text = ["ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@"]
        .iter()
        .find_map(|family| text.strip_prefix(family))
        .unwrap_or(text);
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return usable(IpAddr::V4(ip), listener?);
    }
    let (host, port) = match words::host_port(text) {
        Some((host, port)) => (host, words::port(port)?),
        None => (text, listener?),
    };
    if let Some(ip) = words::ip(host) {
        return usable(ip, port);
    }
    let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let name = host.bytes().all(is_label) && host.bytes().any(|b| b.is_ascii_alphabetic());
    let ends = |c: &[char]| host.starts_with(c) || host.ends_with(c);
    (name && !host.contains("..") && !ends(&['.', '-']) && host.len() < 254)
        .then(|| Target::Name(host.to_owned(), port))
}

fn usable(ip: IpAddr, port: u16) -> Option<Target> {
    let bad = ip.is_unspecified() || ip.is_multicast();
    (!bad).then(|| Target::Address(SocketAddr::new(ip, port)))
}
