//! What the TOML parser says, in lbd's words, and TOML 1.1's novelties, which are refused: many
//! editors and tools read only TOML 1.0.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::given::Sink;
use crate::config::problem::Problem;
use crate::config::problem::within;
use crate::config::secret::masked;

/// A syntax error.
pub(super) fn problem(text: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim().replace('\n', "; ");
    let span = within(text, &error.span().unwrap_or(text.len()..text.len()));
    if let Some(value) = bare_value(text, &span)
        && (message.starts_with("string values must be quoted") || message.starts_with("invalid "))
    {
        let bare = text.get(value.clone()).unwrap_or("");
        let problem = Problem::error("E0001", "a string needs quotes")
            .at(&value, "this is neither a number nor `true` or `false`");
        // A fix is shown, a password is not.
        return match masked(text).get(value.clone()) {
            Some(shown) if shown == bare => problem.fix("quote it", &value, format!("\"{bare}\"")),
            Some(_) | None => problem,
        };
    }
    if message.starts_with("missing comma between array elements")
        && let Some(problem) = unclosed_list(text, span.start)
    {
        return problem;
    }
    let problem = Problem::error("E0001", message);
    if problem.message == "duplicate key" {
        return problem.at(&span, "this name stands further up already");
    }
    let typographic = ["“", "”", "‘", "’"];
    if typographic
        .iter()
        .any(|quote| line(text, span.start).contains(quote))
    {
        return problem
            .at(&span, "here")
            .help("TOML knows straight quotes only: \"…\"");
    }
    problem.at(&span, "here")
}

/// The word around `span` if it stands where a value does and could be a string's content.
fn bare_value(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/+*-".contains(c);
    let before = text.get(..span.start)?;
    let start = before.trim_end_matches(plain).len();
    let from = text.get(start..)?;
    let length = from.find(|c| !plain(c)).unwrap_or(from.len());
    let stands = before.get(..start)?.trim_end_matches([' ', '\t']);
    let ends = from.get(length..)?.trim_start_matches([' ', '\t']);
    let is_value = stands.ends_with(['=', '[', ',']) && !stands.ends_with("[[");
    let is_whole = ends.is_empty() || ends.starts_with(['\n', '\r', '#', ',', ']', '}']);
    (length > 0 && is_value && is_whole && span.end <= start + length)
        .then(|| start..start + length)
}

/// The complaint about a list that runs on into a line that begins a key or a table.
fn unclosed_list(text: &str, at: usize) -> Option<Problem> {
    let last = text.get(..at)?.trim_end();
    let goes_on = text.get(last.len()..at)?.contains('\n');
    let next = line(text, at);
    if !goes_on || !(next.starts_with('[') || next.contains('=')) {
        return None;
    }
    let problem = Problem::error("E0001", UNCLOSED_LIST).at(
        &(at..at + next.trim_end().len()),
        "a new line of settings begins here, inside the list",
    );
    let end = last.len();
    Some(if line(text, end).contains('#') {
        problem.help("close it with `]` in front of this line")
    } else {
        problem.fix("close it", &(end..end), "]")
    })
}

/// The message that makes all that follows in the file unreadable.
const UNCLOSED_LIST: &str = "a list is not closed";

/// The line around a byte.
fn line(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or("");
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = text.get(start..).unwrap_or("");
    rest.lines().next().unwrap_or("")
}

/// The complaint about a text that is written for another program, or in another language.
pub(super) fn another_format(text: &str) -> Option<Problem> {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', '!']))?;
    let word = first.split([' ', '\t', '{']).next().unwrap_or("");
    let follows = first.get(word.len()..).unwrap_or("").trim_start();
    let what = match word {
        _ if follows.starts_with('=') => return None,
        "global" | "defaults" | "frontend" | "backend" | "listen" => "HAProxy's configuration",
        "global_defs" | "vrrp_instance" | "vrrp_script" | "vrrp_sync_group" | "virtual_server" => {
            "keepalived's configuration"
        }
        "" if first.starts_with('{') => "JSON",
        "---" => "YAML",
        _ if word.ends_with(':') && !word.contains('"') => "YAML",
        _ => return None,
    };
    let at = first.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    Some(
        Problem::error("E0001", format!("this is {what}, lb.toml is TOML"))
            .at(&(at..at + first.len()), "no lb.toml begins like this")
            .help(if matches!(what, "YAML" | "JSON") {
                "conf/lb.toml is a whole example"
            } else {
                "conf/kubesphere.toml writes a haproxy.cfg and two keepalived.conf as one lb.toml, line by line"
            }),
    )
}

/// Where the syntax is broken, what follows on the same line is no mistake of its own, and after an
/// unclosed list nothing is. `problems` are in the order of the text.
pub(super) fn keep_causes(text: &str, problems: &mut Vec<Problem>) {
    let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |problem: &Problem| {
        let label = problem.labels.iter().find(|label| label.primary);
        label.map(|label| starts.partition_point(|newline| *newline < label.span.start))
    };
    let broken: Vec<usize> = problems
        .iter()
        .filter(|problem| problem.code == "E0001")
        .filter_map(line_of)
        .collect();
    if let Some(last) = problems.iter().position(|p| p.message == UNCLOSED_LIST) {
        problems.truncate(last + 1);
    }
    let mut said = None;
    problems.retain(|problem| {
        let here = line_of(problem);
        let Some(line) = here.filter(|line| broken.binary_search(line).is_ok()) else {
            return true;
        };
        let first = problem.code == "E0001" && said != Some(line);
        said = if first { Some(line) } else { said };
        first
    });
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
