//! lb.toml as text: tables of lines, each with the comment that says where it comes from.

use super::ledger::{Id, Ledger};

/// Comments begin here at the latest, unless the line itself is longer.
const COLUMN_MAX: usize = 60;

/// A table with its lines.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// `[proxy.web]`; empty at the top of the file.
    pub(super) header: String,
    /// Its comment.
    pub(super) about: String,
    rows: Vec<(String, String)>,
}

impl Table {
    /// An empty one.
    pub(super) fn new(header: String, about: String) -> Self {
        Self {
            header,
            about,
            rows: Vec::new(),
        }
    }

    /// `key = value`; `value` is TOML.
    pub(super) fn put(&mut self, key: &str, value: &str, comment: String) {
        self.rows.push((format!("{key} = {value}"), comment));
    }

    /// A line as it is.
    pub(super) fn row(&mut self, code: String, comment: String) {
        self.rows.push((code, comment));
    }

    /// Whether it has no line.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn render(&self, text: &mut String) {
        let longest = self.rows.iter().map(|(code, _)| code.chars().count());
        let column = longest.filter(|len| *len <= COLUMN_MAX).max().unwrap_or(0);
        line(text, &self.header, 0, &self.about);
        for (code, comment) in &self.rows {
            line(text, code, column, comment);
        }
    }
}

fn line(text: &mut String, code: &str, column: usize, comment: &str) {
    text.push_str(code);
    if !comment.is_empty() {
        let pad = column.saturating_sub(code.chars().count());
        text.push_str(&" ".repeat(pad + 2));
        text.push_str("# ");
        text.push_str(comment);
    }
    text.push('\n');
}

/// All tables, one after the other.
pub(super) fn render(head: &[String], tables: &[Table]) -> String {
    let mut text = String::new();
    for comment in head {
        text.push_str("# ");
        text.push_str(comment);
        text.push('\n');
    }
    for table in tables.iter().filter(|table| !table.header.is_empty()) {
        text.push('\n');
        table.render(&mut text);
    }
    text
}

/// The origins of a line, in one comment.
pub(super) fn comment(ledger: &Ledger, ids: &[Id]) -> String {
    let mut seen: Vec<Id> = Vec::new();
    for id in ids {
        if !seen.contains(id) {
            seen.push(*id);
        }
    }
    let shown: Vec<String> = seen.iter().take(3).map(|id| ledger.origin(*id)).collect();
    let more = seen.len().saturating_sub(3);
    let tail = if more > 0 {
        format!("; {more} more")
    } else {
        String::new()
    };
    shown.join("; ") + &tail
}

/// A basic string.
pub(super) fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// One as it is, several as a list.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [only] => only.clone(),
        _ => format!("[{}]", items.join(", ")),
    }
}

/// A name as part of a key or header: bare where TOML allows it.
pub(super) fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        string(name)
    }
}
