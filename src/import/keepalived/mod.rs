//! keepalived.conf of every node, as one: `source` reads the lines of each with what definitions and
//! sequences put in, `lex` makes a tree of them, `instance` and `script` read
//! it, `global` has what holds for a file, `merge` makes one `[vip.NAME]` of the instances that are
//! the same virtual router, with `nodes`, `track` and `behaviour` for its parts, `traps` says what would not have worked.

mod behaviour;
mod global;
mod instance;
mod lex;
mod merge;
mod nodes;
mod script;
mod sequence;
mod source;
mod text;
mod track;
mod traps;

use std::net::IpAddr;

use super::ledger::{Fate, Id};
use super::toml::Table;
use super::{Node as Hint, Source, Work, haproxy, words};
use global::Globals;
use instance::Instance;
use script::Script;

/// A value with the line that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said<T> {
    value: T,
    id: Id,
}

impl<T> Said<T> {
    const fn new(value: T, id: Id) -> Self {
        Self { value, id }
    }
}

/// One node's file.
#[derive(Debug)]
struct File {
    /// What people call the node, if that is known.
    node: Option<String>,
    /// Its address, if somebody said so.
    address: Option<IpAddr>,
    globals: Globals,
    scripts: Vec<Script>,
    instances: Vec<Instance>,
    /// `vrrp_track_file`: name, path, weight.
    tracked: Vec<(String, String, Option<i64>, Id)>,
    /// Names of `vrrp_track_process` blocks that watch HAProxy.
    processes: Vec<String>,
    /// `vrrp_sync_group`: name and members.
    groups: Vec<(String, Vec<Said<String>>, Id)>,
}

/// Translates all files; `proxies` are those of haproxy.cfg.
pub(super) fn translate(
    sources: &[Source<'_>],
    labels: &[String],
    hints: &[Hint],
    proxies: &[haproxy::Proxy],
    work: &mut Work,
) -> Vec<Table> {
    let names: Vec<Option<String>> = sources.iter().map(|source| stem(source.name)).collect();
    let mut files = Vec::new();
    for (index, (source, label)) in sources.iter().zip(labels).enumerate() {
        let hint = hints.get(index);
        let own = names.get(index).cloned().flatten();
        let unique = names.iter().filter(|name| **name == own).count() == 1;
        let node = hint
            .and_then(|hint| hint.name.clone())
            .or(own.filter(|_| unique));
        let address = hint.and_then(|hint| hint.address);
        files.push(read(super::plain(source.text), label, node, address, work));
    }
    merge::tables(&files, proxies, work)
}

/// The node's name as its file's name tells: `lb1.conf`, `lb1/keepalived.conf`.
fn stem(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let file = parts.next()?;
    let stem = file.strip_suffix(".conf").unwrap_or(file);
    let stem = stem
        .strip_prefix("keepalived")
        .map_or(stem, |rest| rest.trim_start_matches(['-', '_', '.']));
    let stem = stem
        .strip_suffix("keepalived")
        .map_or(stem, |rest| rest.trim_end_matches(['-', '_', '.']));
    let mut folder = || {
        parts
            .next()
            .filter(|f| !["", ".", "..", "etc", "tmp", "keepalived"].contains(f))
    };
    let name = if stem.is_empty() { folder()? } else { stem };
    crate::config::is_name(name).then(|| name.to_owned())
}

fn read(
    text: &str,
    label: &str,
    node: Option<String>,
    address: Option<IpAddr>,
    work: &mut Work,
) -> File {
    let tree = lex::tree(label, node.as_deref(), text, &mut work.ledger);
    work.placeholders.extend(tree.placeholders);
    if tree.unbalanced {
        work.trap(
            "braces",
            format!("{label}: the braces don't match"),
            &["What stands behind such a place may belong elsewhere.".to_owned()],
        );
    }
    traps::conditions(label, node.as_deref(), &tree.others, &tree.half, work);
    let mut file = File {
        node,
        address,
        globals: Globals::default(),
        scripts: Vec::new(),
        instances: Vec::new(),
        tracked: Vec::new(),
        processes: Vec::new(),
        groups: Vec::new(),
    };
    for node in &tree.nodes {
        top(node, &mut file, work);
    }
    file
}

fn top(node: &lex::Node, file: &mut File, work: &mut Work) {
    match node.word(0) {
        "global_defs" => global::read(node, &mut file.globals, work),
        "vrrp_script" => file.scripts.extend(script::read(node, work)),
        "vrrp_instance" => {
            let default = file
                .globals
                .interface
                .as_ref()
                .map(|said| said.value.as_str());
            file.instances.push(instance::read(node, default, work));
        }
        "vrrp_sync_group" => group(node, file, work),
        "vrrp_track_file" | "track_file" => tracked(node, file, work),
        "vrrp_track_process" | "track_process" => process(node, file, work),
        "include" => lost(node, "it is not read: put its text in its place", work),
        "virtual_server" | "virtual_server_group" | "real_server" => {
            lost(
                node,
                "lbd forwards by itself, not through IPVS: write a [proxy]",
                work,
            );
        }
        _ => lost(node, "lbd knows nothing like it", work),
    }
}

/// Enters a block with all that stands in it as not translated.
fn lost(node: &lex::Node, why: &str, work: &mut Work) {
    work.ledger.mark(node.id, Fate::Lost, why);
    for inner in node.inside() {
        lost(inner, why, work);
    }
}

/// Enters a block with all that stands in it.
fn all(node: &lex::Node, fate: Fate, why: &str, work: &mut Work) {
    work.ledger.mark(node.id, fate, why);
    for inner in node.inside() {
        all(inner, fate, why, work);
    }
}

fn group(node: &lex::Node, file: &mut File, work: &mut Work) {
    if work.alone {
        lost(
            node,
            "its members differ in what decides elections: lbd moves them one by one",
            work,
        );
        return;
    }
    work.ledger.mark(node.id, Fate::Exact, "");
    let mut members = Vec::new();
    for inner in node.inside() {
        match inner.word(0) {
            "group" => {
                work.ledger.mark(inner.id, Fate::Exact, "");
                for member in inner.inside() {
                    work.ledger.mark(member.id, Fate::Exact, "");
                    members.extend(member.words.iter().map(|w| Said::new(w.clone(), member.id)));
                }
            }
            "global_tracking" | "sync_group_tracking_weight" | "track_script" => {
                all(inner, Fate::Changed, "what one member tracks, all do", work);
            }
            "smtp_alert" | "no_email_faults" => work.ledger.mark(inner.id, Fate::Changed, MAIL),
            _ => lost(inner, "write it for a member", work),
        }
    }
    file.groups
        .push((node.word(1).to_owned(), members, node.id));
}

/// What keepalived does by mail.
const MAIL: &str = "lbd sends no mail: alert on its metrics, or use `notify`";

fn tracked(node: &lex::Node, file: &mut File, work: &mut Work) {
    let find = |name: &str| node.inside().iter().find(|n| n.word(0) == name);
    let path = find("file")
        .map(|n| n.word(1))
        .filter(|path| path.starts_with('/'));
    let Some(path) = path else {
        lost(node, "it names no file by an absolute path", work);
        return;
    };
    work.ledger.mark(node.id, Fate::Exact, "");
    let weight = find("weight").and_then(|n| n.word(1).parse::<i64>().ok());
    for inner in node.inside() {
        let fate = if matches!(inner.word(0), "file" | "weight") {
            Fate::Exact
        } else {
            Fate::Lost
        };
        work.ledger.mark(inner.id, fate, "");
        if inner.words.len() > 2 {
            work.ledger
                .mark(inner.id, Fate::Lost, "`reverse` and the like");
        }
    }
    file.tracked
        .push((words::name(node.word(1)), path.to_owned(), weight, node.id));
}

fn process(node: &lex::Node, file: &mut File, work: &mut Work) {
    let haproxy = node
        .inside()
        .iter()
        .any(|n| n.word(0) == "process" && n.words.iter().any(|w| w.ends_with("haproxy")));
    if haproxy {
        all(node, Fate::Changed, "the VIP follows the proxies", work);
        file.processes.push(node.word(1).to_owned());
    } else {
        lost(node, "lbd watches no processes: write a track script", work);
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn a_file_s_name_tells_the_node_s() {
        assert_eq!(stem("/tmp/lb1.conf").as_deref(), Some("lb1"));
        assert_eq!(stem("lb2/keepalived.conf").as_deref(), Some("lb2"));
        assert_eq!(stem("keepalived-lb1.conf").as_deref(), Some("lb1"));
        assert_eq!(stem("/etc/keepalived/keepalived.conf"), None);
    }
}
