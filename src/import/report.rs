//! The report of an import, for people and for programs.

use serde_json::{Value, json};

use super::ledger::{Entry, Fate};
use super::{Outcome, Trap};

/// The version of the JSON; keys are added, never renamed or removed.
const FORMAT: u32 = 1;

/// For people; `details` has every directive, else only what isn't exact.
#[must_use]
pub fn render(outcome: &Outcome, details: bool) -> String {
    let mut text = String::new();
    let mut section = |title: String, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}\n"));
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
            text.push('\n');
        }
    };
    let quoted = outcome.placeholders.iter().map(|p| format!("`{p}`"));
    section(
        "Still to be filled in, by whatever fills in this template:".to_owned(),
        quoted.collect(),
    );
    section(
        "Needed before there can be a file:".to_owned(),
        outcome.needs.clone(),
    );
    for fate in [Fate::Lost, Fate::Changed] {
        let lines = lines(&outcome.entries, fate);
        let title = match fate {
            Fate::Lost => "Not translated:",
            Fate::Changed | Fate::NotNeeded | Fate::Default | Fate::Exact => "Changed:",
        };
        section(title.to_owned(), lines);
    }
    if details {
        for fate in [Fate::Exact, Fate::Default, Fate::NotNeeded] {
            let word = fate.word();
            let title = format!(
                "{}{}:",
                word.chars().take(1).collect::<String>().to_uppercase(),
                word.get(1..).unwrap_or("")
            );
            section(title, lines(&outcome.entries, fate));
        }
    }
    let numbered = (1..)
        .zip(&outcome.traps)
        .flat_map(|(number, trap): (usize, &Trap)| {
            let first = format!("{number}. {}", trap.title);
            std::iter::once(first).chain(trap.text.iter().flat_map(|line| wrapped(line)))
        });
    let numbered: Vec<String> = numbered.collect();
    section("Traps in these files:".to_owned(), numbered);
    text + &totals(outcome)
}

/// A line of text at 80 columns, indented under its number.
fn wrapped(line: &str) -> Vec<String> {
    const WIDTH: usize = 74;
    let mut rows: Vec<String> = Vec::new();
    let mut row = String::new();
    for word in line.split(' ') {
        if !row.is_empty() && row.chars().count() + 1 + word.chars().count() > WIDTH {
            rows.push(format!("   {row}"));
            row.clear();
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(word);
    }
    rows.push(format!("   {row}"));
    rows
}

fn lines(entries: &[Entry], fate: Fate) -> Vec<String> {
    let chosen = entries.iter().filter(|entry| entry.fate == fate);
    let line = |entry: &Entry| {
        let first = format!("{}:{} {}", entry.file, entry.line, entry.text);
        let notes = entry.notes.iter().flat_map(|note| wrapped(note));
        std::iter::once(first).chain(notes).collect::<Vec<_>>()
    };
    chosen.flat_map(line).collect()
}

/// `41 directives: 20 exact, …`.
fn totals(outcome: &Outcome) -> String {
    let counts: Vec<String> = Fate::ALL
        .iter()
        .map(|fate| format!("{} {}", outcome.count(*fate), fate.word()))
        .collect();
    let traps = match outcome.traps.len() {
        0 => String::new(),
        1 => "; 1 trap".to_owned(),
        n => format!("; {n} traps"),
    };
    let all = match outcome.entries.len() {
        1 => "1 directive".to_owned(),
        n => format!("{n} directives"),
    };
    format!("{all}: {}{traps}\n", counts.join(", "))
}

/// For programs: one document. `toml` is null unless `written` says that there is a file.
#[must_use]
pub fn render_json(outcome: &Outcome, written: bool) -> String {
    let directives: Vec<Value> = outcome
        .entries
        .iter()
        .map(|entry| {
            json!({
                "file": entry.file,
                "line": entry.line,
                "text": entry.text,
                "fate": entry.fate.word(),
                "notes": entry.notes,
            })
        })
        .collect();
    let traps: Vec<Value> = outcome
        .traps
        .iter()
        .map(|trap| json!({ "kind": trap.kind, "title": trap.title, "text": trap.text }))
        .collect();
    let warnings: Vec<Value> = outcome
        .problems
        .iter()
        .map(|problem| json!({ "code": problem.code, "message": problem.message }))
        .collect();
    let counts: serde_json::Map<String, Value> = Fate::ALL
        .iter()
        .map(|fate| (fate.word().replace(' ', "-"), json!(outcome.count(*fate))))
        .collect();
    let document = json!({
        "format": FORMAT,
        "accepted": outcome.accepted,
        "toml": written.then_some(&outcome.text),
        "counts": counts,
        "directives": directives,
        "traps": traps,
        "problems": warnings,
        "needs": outcome.needs,
        "placeholders": outcome.placeholders,
    });
    format!("{document:#}\n")
}
