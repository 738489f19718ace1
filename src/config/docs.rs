//! The reference of lb.toml as Markdown, from the table of keys: `docs/config.md`.

use std::fmt::Write;

use super::parse::show_duration;
use super::problem::CODES;
use super::schema::{Fallback, Key, Kind, SECTIONS, Section, Support, Word};

const PREFACE: &str = "\
# lb.toml

This file is generated from the table of keys in `src/config/schema`; a test compares the two.
`conf/lb.full.toml` shows every key with its default, `conf/lb.toml` a whole working pair.

The same file serves on every node. It is TOML 1.0 with kebab-case keys. Durations are strings with
a unit: `\"250ms\"`, `\"5s\"`, `\"10m\"`, `\"1h\"`. `NAME` stands for a name of your choice: letters,
digits, `-`, `_` and `.`. An unknown key refuses the file; so does one that is not supported yet.

## `lbd check`

`lbd check [FILE] [--as NODE] [--offline] [--strict] [-o text|json]` says every mistake of a
file at once (default: /etc/lbd/lb.toml), on stdout. It looks at this machine's addresses,
interfaces and files too, unless told to check for another node (`--as`, by name or address) or for
none (`--offline`). It exits 0 when the file is accepted, with or without warnings, and 78 when it is
refused; `--strict` refuses warnings too. `lbd -t` and `lbd -c -f FILE` mean the same. A file has
at most 1 MiB, and is UTF-8. Passwords are shown as stars.

JSON is one object: `format` (1), `file`, `accepted` (by the daemon: `--strict` only changes the exit
code), `errors`, `warnings` and `problems`, each with
`code`, `severity`, `message`, `labels` (`line` and `column` from 1, byte offsets `start` and `end`,
`primary`, `text`), `help` and, where there is one, `fix` (`message`, `start`, `end`, `replacement`).
";

/// The whole document.
#[must_use]
pub fn markdown() -> String {
    let mut out = PREFACE.to_owned();
    for section in SECTIONS {
        append(&mut out, section);
    }
    out.push_str("\n## Codes\n\n`E…` refuses the file, `W…` is a warning. A note, N0271, goes to stderr alone: a pair without `[peer]`.\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in CODES {
        line(&mut out, &[code, meaning]);
    }
    out
}

fn append(out: &mut String, section: &Section) {
    let title = match section.path {
        "" => "The top of the file".to_owned(),
        path => format!("`[{path}]`"),
    };
    out.push_str(&format!("\n## {title}\n\n{}\n\n", section.doc));
    out.push_str(
        "| key | values | default | meaning | known elsewhere as |\n|---|---|---|---|---|\n",
    );
    for key in supported(section.keys) {
        let name = format!("`{}`", key.name);
        line(
            out,
            &[
                &name,
                &values(key.kind),
                &default(key),
                key.doc,
                &aliases(key),
            ],
        );
    }
    let later: Vec<String> = section
        .keys
        .iter()
        .filter(|key| key.support == Support::Later)
        .map(|key| format!("`{}`", key.name))
        .collect();
    if !later.is_empty() {
        out.push_str(&format!("\nNot supported yet: {}.\n", later.join(", ")));
    }
}

fn supported(keys: &'static [Key]) -> impl Iterator<Item = &'static Key> {
    keys.iter().filter(|key| key.support == Support::Supported)
}

fn line(out: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    // Writing to a String cannot fail.
    if writeln!(out, "| {} |", cells.join(" | ")).is_err() {
        out.push('\n');
    }
}

/// The values of a kind, in Markdown.
pub(crate) fn values(kind: Kind) -> String {
    match kind {
        Kind::Bool => "`true`, `false`".to_owned(),
        Kind::Integer { min, max } => format!("integer {min} to {max}"),
        Kind::IntegerOr { min, max, word } => format!("integer {min} to {max}, or `\"{word}\"`"),
        Kind::Duration { min, max, off, .. } => {
            let show = |ms| show_duration(std::time::Duration::from_millis(ms));
            let range = format!("duration {} to {}", show(min), show(max));
            range + if off { ", or `\"off\"`" } else { "" }
        }
        Kind::Choice(words) => choice(words),
        Kind::Form(words) => words.to_owned(),
        Kind::List(words) => format!("list: {words}"),
        Kind::Table(path) => format!("table, see `[{path}]`"),
        Kind::Named(path) => format!("tables, see `[{path}]`"),
    }
}

fn choice(words: &[Word]) -> String {
    let list = |support: Support| {
        let fits = words.iter().filter(|word| word.support == support);
        let shown: Vec<String> = fits.map(|word| format!("`\"{}\"`", word.word)).collect();
        shown.join(", ")
    };
    match list(Support::Later).as_str() {
        "" => list(Support::Supported),
        later => format!("{}; not yet {later}", list(Support::Supported)),
    }
}

/// What holds when a key is left out, in Markdown.
pub(crate) fn default(key: &Key) -> String {
    match key.default {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(text) => format!("`{text}`"),
        Fallback::Words(words) => words.to_owned(),
    }
}

fn aliases(key: &Key) -> String {
    let shown: Vec<String> = key
        .aliases
        .iter()
        .map(|alias| format!("`{alias}`"))
        .collect();
    shown.join(", ")
}
