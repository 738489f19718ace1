//! What differs between two texts of lb.toml, in the operator's own words: which values are added,
//! changed and removed, and what of it needs more than this node's reload. Both texts are accepted
//! ones; what they mean is `parse`'s. Passwords are not shown. Pure.

#[cfg(test)]
mod tests;

use toml::{Table, Value};

use super::model::Config;
use super::parse::plain_duration;
use super::schema::{Fallback, SECTIONS};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What becomes of it.
    pub kind: ChangeKind,
    /// What it is, as a path of lb.toml.
    pub what: String,
    /// Before; `None` for what is added.
    pub from: Option<String>,
    /// After; `None` for what is removed.
    pub to: Option<String>,
    /// What an operator should know of it.
    pub note: Option<&'static str>,
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It has another value.
    Changed,
    /// It goes.
    Removed,
}

/// Longer values are cut, characters.
const VALUE_MAX: usize = 120;
/// In place of a secret.
const HIDDEN: &str = "(hidden)";
/// Tables under names of the user's choice: added and removed as a whole, described by the first of
/// these keys that is there.
const SUMMARIES: [&str; 4] = ["address", "listen", "command", "path"];

const AGREE: &str = "the nodes must agree on this: reload the others right after";
const DRAINS: &str = "no new connections; those it has go on to their end";
const CLOSES: &str = "its listeners close; its connections go on to their end";
const LEAVES: &str = "handed over first where another node has it, then given up here";
const RENAMED: &str = "the same virtual router: it goes on as it is";
const LOG: &str = "the keeper's lines at once, the proxy's by a new process";
const PROCESS: &str = "takes a new proxy process beside the old one";

/// Every difference, in the order of the new text; what is gone stands at the end of its table.
#[must_use]
pub fn diff(old: &str, new: &str) -> Vec<Change> {
    let table = |text: &str| text.parse::<Table>().unwrap_or_default();
    let mut changes = Vec::new();
    let (mut old, new) = (table(old), table(new));
    rename_vips(&mut old, &new, &mut changes);
    tables(&mut Vec::new(), &old, &new, &mut changes);
    changes
}

/// A virtual router that only has another name is told of as such, and beyond that as if it had had
/// its new name before.
fn rename_vips(old: &mut Table, new: &Table, out: &mut Vec<Change>) {
    let Some(new) = new.get("vip").and_then(Value::as_table) else {
        return;
    };
    let Some(old) = old.get_mut("vip").and_then(Value::as_table_mut) else {
        return;
    };
    let same = |one: &Value, other: &Value| {
        let keys = ["announce", "interface", "vrid", "address"];
        keys.iter().all(|key| one.get(key) == other.get(key))
    };
    let routed = |vip: &Value| vip.get("announce").and_then(Value::as_str) == Some("route");
    for (name, vip) in new.iter().filter(|(_, vip)| !routed(vip)) {
        if old.contains_key(name) {
            continue;
        }
        let gone = |(known, before): &(&String, &Value)| {
            !new.contains_key(known.as_str()) && same(before, vip)
        };
        let Some(former) = old.iter().find(gone).map(|(former, _)| former.clone()) else {
            continue;
        };
        if let Some(before) = old.remove(&former) {
            old.insert(name.clone(), before);
        }
        out.push(Change {
            kind: ChangeKind::Changed,
            what: format!("vip.{name}"),
            from: Some(former),
            to: Some(name.clone()),
            note: Some(RENAMED),
        });
    }
}

fn tables(path: &mut Vec<String>, old: &Table, new: &Table, out: &mut Vec<Change>) {
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let gone = gone.map(|(key, value)| (key, Some(value), None));
    let there = new
        .iter()
        .map(|(key, value)| (key, old.get(key), Some(value)));
    for (key, old, new) in there.chain(gone) {
        path.push(key.clone());
        values(path, old, new, out);
        path.pop();
    }
}

fn values(path: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<Change>) {
    let old_table = old.and_then(|value| as_table(path, value));
    let new_table = new.and_then(|value| as_table(path, value));
    match (old_table, new_table) {
        (Some(old), Some(new)) => tables(path, &old, &new, out),
        (Some(old), None) if new.is_none() && is_group(path) => {
            tables(path, &old, &Table::new(), out);
        }
        (None, Some(new)) if old.is_none() && is_group(path) => {
            tables(path, &Table::new(), &new, out);
        }
        (old_table, new_table) => {
            let shown = |value: Option<&Value>, table: Option<&Table>| {
                value.map(|value| shown(path, value, table))
            };
            let from = shown(old, old_table.as_ref());
            let to = shown(new, new_table.as_ref());
            if !is_same(old, new) {
                out.push(change(path, from, to));
            }
        }
    }
}

/// A table, or a list whose members have names: servers and nodes.
fn as_table(path: &[String], value: &Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table.clone()),
        Value::Array(members) if is_list_of_named(path) => {
            members.iter().map(named).collect::<Option<Table>>()
        }
        Value::String(address) if path.len() == 4 && is_list_of_named(path.get(..3)?) => {
            Some(of_address(address))
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => None,
    }
}

fn is_list_of_named(path: &[String]) -> bool {
    match path {
        [kind, _, key] => {
            (kind == "proxy" && key == "backends") || (kind == "vip" && key == "nodes")
        }
        [..] => false,
    }
}

fn named(member: &Value) -> Option<(String, Value)> {
    if let Some(address) = member.as_str() {
        return Some((address.to_owned(), Value::Table(of_address(address))));
    }
    let table = member.as_table()?;
    let name = table
        .get("name")
        .or_else(|| table.get("address"))?
        .as_str()?;
    Some((name.to_owned(), member.clone()))
}

fn of_address(address: &str) -> Table {
    let value = Value::String(address.to_owned());
    std::iter::once(("address".to_owned(), value)).collect()
}

/// A table whose members are told of one by one, also when all of it comes or goes: `proxy` itself,
/// but not `proxy.NAME`.
fn is_group(path: &[String]) -> bool {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["vip" | "proxy" | "track"]
            | ["track", "script" | "file"]
            | ["proxy", _, "backends"]
            | ["vip", _, "nodes"]
    )
}

fn is_same(old: Option<&Value>, new: Option<&Value>) -> bool {
    let duration = |value: Option<&Value>| plain_duration(value?.as_str()?);
    old == new || duration(old).is_some_and(|old| duration(new) == Some(old))
}

/// A value as it is shown; a table by what is most telling of it.
fn shown(path: &[String], value: &Value, table: Option<&Table>) -> String {
    if is_secret(path) || (table.is_none() && path.last().is_some_and(|key| key == "auth")) {
        return HIDDEN.to_owned();
    }
    let telling = table.and_then(|table| SUMMARIES.iter().find_map(|key| table.get(*key)));
    let text = match (telling, table) {
        (Some(value), _) => value.to_string(),
        (None, Some(table)) => {
            let keys: Vec<&str> = table.keys().map(String::as_str).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        (None, None) => match value {
            Value::String(text) => text.clone(),
            other @ (Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_)) => other.to_string(),
        },
    };
    let text = text.trim_matches('"');
    let mut cut: String = text.chars().take(VALUE_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Passwords and keys, wherever they stand.
fn is_secret(path: &[String]) -> bool {
    let secret = |word: &String| matches!(word.as_str(), "key" | "keys" | "password");
    path.first().is_some_and(|first| first == "vip") && path.iter().skip(2).any(secret)
}

fn change(path: &[String], from: Option<String>, to: Option<String>) -> Change {
    let whole = is_whole(path);
    let kind = match (&from, &to, whole) {
        (None, _, true) => ChangeKind::Added,
        (_, None, true) => ChangeKind::Removed,
        (..) => ChangeKind::Changed,
    };
    let (from, to) = match kind {
        ChangeKind::Added | ChangeKind::Removed => (from, to),
        ChangeKind::Changed => (
            from.or_else(|| Some(fallback(path))),
            to.or_else(|| Some(fallback(path))),
        ),
    };
    Change {
        note: note(path, kind),
        kind,
        what: path.join("."),
        from,
        to,
    }
}

/// Whether the path is a thing of its own, not a value of one.
fn is_whole(path: &[String]) -> bool {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["vip" | "proxy", _]
            | ["track", _, _]
            | ["proxy", _, "backends", _]
            | ["vip", _, "nodes", _]
            | ["peer" | "access-log"]
    )
}

/// What holds where the key is left out.
fn fallback(path: &[String]) -> String {
    let Some((key, section)) = path.split_last() else {
        return String::new();
    };
    let fits = |pattern: &str| {
        let mut parts = pattern.split('.').filter(|part| !part.is_empty());
        let fits = section.iter().all(|word| {
            let part = parts.next();
            part == Some(word) || part == Some("NAME")
        });
        fits && parts.next().is_none()
    };
    let section = SECTIONS.iter().find(|section| fits(section.path));
    match section
        .and_then(|section| section.key(key))
        .map(|key| key.default)
    {
        Some(Fallback::Value(text)) => format!("{} (default)", text.trim_matches('"')),
        Some(Fallback::Required | Fallback::Words(_)) | None => "(default)".to_owned(),
    }
}

fn note(path: &[String], kind: ChangeKind) -> Option<&'static str> {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    match (words.as_slice(), kind) {
        (["proxy", _, "backends", _], ChangeKind::Removed) => Some(DRAINS),
        (["proxy", _], ChangeKind::Removed) => Some(CLOSES),
        (["vip", _], ChangeKind::Removed) => Some(LEAVES),
        (
            [
                "vip",
                _,
                "vrid" | "version" | "auth" | "mode" | "advert-interval" | "address",
                ..,
            ]
            | ["vip", _, "nodes", _, "address"]
            | ["peer", ..],
            _,
        ) => Some(AGREE),
        (["vip", _, "nodes", _], _) => Some(AGREE),
        (
            ["admin", "socket"] | ["state-dir"] | ["user"] | ["limits", "workers" | "pin-workers"],
            _,
        ) => Some(PROCESS),
        (["log", "target" | "format" | "facility"], _) => Some(LOG),
        (_, ChangeKind::Added | ChangeKind::Changed | ChangeKind::Removed) => None,
    }
}

/// The rights that a keeper began with; what it doesn't need then it gives up for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// To hold addresses.
    pub addresses: bool,
    /// To connect from clients' addresses.
    pub client_source: bool,
}

impl Rights {
    /// What `config` needs.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            addresses: !config.vips.is_empty() || !config.routes.is_empty(),
            client_source: config.has_client_source(),
        }
    }
}

/// What stands between a running keeper and the new configuration, a line each. A restart takes it.
#[must_use]
pub fn obstacles(rights: Rights, new: &Config) -> Vec<String> {
    let needed = Rights::of(new);
    let mut found = Vec::new();
    if needed.addresses && !rights.addresses {
        found.push(
            "the first [vip] of a node takes rights that lbd has given up: `systemctl restart lbd`, \
             which refuses nobody"
                .to_owned(),
        );
    }
    if needed.client_source && !rights.client_source {
        found.push(
            "the first `source = \"client\"` takes a right that lbd has given up: restart lbd"
                .to_owned(),
        );
    }
    found
}
