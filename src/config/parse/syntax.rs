//! What the TOML parser says, in lbd's words, and TOML 1.1's novelties, which are refused: many
//! editors and tools read only TOML 1.0.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::given::Sink;
use crate::config::problem::Problem;

/// A syntax error.
pub(super) fn problem(text: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim().replace('\n', "; ");
    let span = error.span().unwrap_or(text.len()..text.len());
    Problem::error("E0001", message).at(&within(text, &span), "here")
}

/// `span`, inside the text and on character boundaries.
fn within(text: &str, span: &Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// Refuses what TOML 1.1 added: line breaks and a trailing comma in `{ … }`, `\e` and `\x`.
pub(super) fn refuse_toml_1_1(text: &str, table: &DeTable<'_>, sink: &mut Sink) {
    for (key, value) in table {
        escapes(text, &key.span(), sink);
        inside(text, value, sink);
    }
}

fn inside(text: &str, value: &Spanned<DeValue<'_>>, sink: &mut Sink) {
    match value.get_ref() {
        DeValue::Table(table) => {
            if text.get(value.span()).is_some_and(|t| t.starts_with('{')) {
                inline_table(text, &value.span(), table, sink);
            }
            refuse_toml_1_1(text, table, sink);
        }
        DeValue::Array(items) => {
            for item in items.iter() {
                inside(text, item, sink);
            }
        }
        DeValue::String(_) => escapes(text, &value.span(), sink),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn inline_table(text: &str, span: &Range<usize>, table: &DeTable<'_>, sink: &mut Sink) {
    let mut leaves = Vec::new();
    values(text, table, &mut leaves);
    leaves.sort_by_key(|leaf| leaf.start);
    let inner_end = span.end.saturating_sub(1);
    let mut at = span.start + 1;
    let mut last_gap = "";
    for leaf in leaves.iter().chain([&(inner_end..inner_end)]) {
        let gap = text.get(at..leaf.start).unwrap_or("");
        if gap.contains('\n') {
            sink.push(
                Problem::error("E0002", "a table in braces must stay on one line")
                    .at(&(span.start..span.start + 1), "it goes on in the next line")
                    .help("TOML 1.0; write it as a table of its own: `[…]`"),
            );
            return;
        }
        at = leaf.end;
        last_gap = gap;
    }
    if !leaves.is_empty() && last_gap.trim_start().starts_with(',') {
        sink.push(
            Problem::error("E0002", "a table in braces can't end with a comma")
                .at(&(inner_end..span.end), "leave out the comma before this"),
        );
    }
}

/// The places of the values in a table in braces; those under dotted keys count by themselves.
fn values(text: &str, table: &DeTable<'_>, found: &mut Vec<Range<usize>>) {
    for (_, value) in table {
        match value.get_ref() {
            DeValue::Table(inner)
                if !text.get(value.span()).is_some_and(|t| t.starts_with('{')) =>
            {
                values(text, inner, found);
            }
            DeValue::Table(_)
            | DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => found.push(value.span()),
        }
    }
}

fn escapes(text: &str, span: &Range<usize>, sink: &mut Sink) {
    let Some(raw) = text.get(span.clone()).filter(|raw| raw.starts_with('"')) else {
        return;
    };
    let mut chars = raw.char_indices();
    while let Some((at, c)) = chars.next() {
        if c != '\\' {
            continue;
        }
        if let Some((_, next @ ('e' | 'x'))) = chars.next() {
            let start = span.start + at;
            sink.push(
                Problem::error("E0002", format!("TOML 1.0 has no escape `\\{next}`"))
                    .at(&(start..start + 2), "write `\\u00XX`"),
            );
        }
    }
}
