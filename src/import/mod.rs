//! haproxy.cfg and keepalived.conf as lb.toml, with a word about every directive.
//!
//! `haproxy` and `keepalived` read their formats and translate; each directive is entered in the
//! `ledger` as it is read, so that none is lost silently. `toml` writes the file, with the origin of
//! each line; `report` says what became of the directives and which traps the old files held. What
//! comes out is checked as `lbd check --offline` would. Pure: texts in, texts out.

mod haproxy;
mod keepalived;
mod ledger;
mod report;
#[cfg(test)]
mod tests;
mod toml;
mod words;

use std::net::IpAddr;

pub use ledger::{Entry, Fate};
pub use report::{render, render_json};

use crate::config::{Problem, View, examine};
use ledger::Ledger;

/// One input.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its path, for people.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// What somebody says about the node of a keepalived.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its name.
    pub name: Option<String>,
    /// The source of its adverts.
    pub address: Option<IpAddr>,
}

/// All inputs.
#[derive(Debug, Clone, Default)]
pub struct Input<'a> {
    /// haproxy.cfg.
    pub haproxy: Option<Source<'a>>,
    /// keepalived.conf of each node.
    pub keepalived: Vec<Source<'a>>,
    /// What is known about those nodes, in the same order.
    pub nodes: Vec<Node>,
}

/// Something in the old files that doesn't do what it seems to, or that deserves a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// A stable word for it.
    pub kind: &'static str,
    /// One line.
    pub title: String,
    /// Why, with the numbers of the files, and what is better; a line each.
    pub text: Vec<String>,
}

/// What came of the inputs.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// lb.toml.
    pub text: String,
    /// Whether `lbd check --offline` accepts it.
    pub accepted: bool,
    /// What `lbd check --offline` says about it.
    pub problems: Vec<Problem>,
    /// Every directive.
    pub entries: Vec<Entry>,
    /// What deserves a decision.
    pub traps: Vec<Trap>,
    /// What has to be known before there can be a file.
    pub needs: Vec<String>,
    /// What templates still have to fill in, each once.
    pub placeholders: Vec<String>,
}

impl Outcome {
    /// How many directives had that fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.fate == fate)
            .count()
    }
}

/// What the translations share.
#[derive(Debug, Default)]
struct Work {
    ledger: Ledger,
    traps: Vec<Trap>,
    needs: Vec<String>,
    placeholders: Vec<String>,
    /// `ca-base` of haproxy.cfg.
    base: Option<String>,
    /// The port on which haproxy.cfg answers health checks.
    health: Option<u16>,
    /// Whether sync groups are left out, because their members differ too much for lbd.
    alone: bool,
}

impl Work {
    /// Tells of a trap, once.
    fn trap(&mut self, kind: &'static str, title: impl Into<String>, text: &[String]) {
        let trap = Trap {
            kind,
            title: title.into(),
            text: text.to_vec(),
        };
        if !self.traps.contains(&trap) {
            self.traps.push(trap);
        }
    }

    /// A file of haproxy.cfg by its absolute path.
    fn absolute(&self, file: &str) -> Option<String> {
        if file.starts_with('/') {
            return Some(file.to_owned());
        }
        let base = self
            .base
            .as_deref()
            .filter(|base| base.starts_with('/') && !file.starts_with('@'))?;
        Some(format!("{}/{file}", base.trim_end_matches('/')))
    }
}

/// Translates.
#[must_use]
pub fn import(input: &Input<'_>) -> Outcome {
    let outcome = translate(input, false);
    // Members of a sync group that lbd can't move together: better alone than not at all.
    if outcome
        .problems
        .iter()
        .any(|problem| problem.code == "E0230")
    {
        return translate(input, true);
    }
    outcome
}

fn translate(input: &Input<'_>, alone: bool) -> Outcome {
    let mut work = Work {
        alone,
        ..Work::default()
    };
    let labels = labels(input);
    let mut tables = Vec::new();
    let mut made = haproxy::Made::default();
    if let (Some(source), Some(label)) = (input.haproxy, labels.first()) {
        made = haproxy::translate(label, plain(source.text), &mut work);
    }
    let skip = usize::from(input.haproxy.is_some());
    let own = labels.get(skip..).unwrap_or_default();
    let vips = keepalived::translate(
        &input.keepalived,
        own,
        &input.nodes,
        &made.proxies,
        &mut work,
    );
    tables.append(&mut made.general);
    tables.extend(vips);
    tables.extend(made.proxies.into_iter().flat_map(|proxy| proxy.tables));
    let head = [
        "The same file on every node. Written by `lbd import` from".to_owned(),
        format!("{}.", labels.join(", ")),
    ];
    let text = toml::render(&head, &tables);
    let parsed = examine(&text, View::Anywhere);
    work.placeholders.sort();
    work.placeholders.dedup();
    Outcome {
        accepted: parsed.config.is_some(),
        problems: parsed.problems,
        text,
        entries: work.ledger.close(),
        traps: work.traps,
        needs: work.needs,
        placeholders: work.placeholders,
    }
}

/// A text without the mark that some editors put in front of it.
fn plain(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Short names of the inputs, haproxy.cfg first: the file's own name where no other has it.
fn labels(input: &Input<'_>) -> Vec<String> {
    let sources: Vec<&Source<'_>> = input.haproxy.iter().chain(&input.keepalived).collect();
    let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let clean = |text: String| -> String {
        let plain = text.chars().map(|c| if c.is_control() { '?' } else { c });
        plain.take(80).collect()
    };
    let label = |source: &&Source<'_>| {
        let own = short(source.name);
        let twins = sources
            .iter()
            .filter(|other| short(other.name) == own)
            .count();
        clean(if twins > 1 {
            source.name.to_owned()
        } else {
            own
        })
    };
    sources.iter().map(label).collect()
}
