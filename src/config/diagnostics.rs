//! Problems as text in rustc's style, and as JSON for machines.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde::Serialize;

use super::problem::{Problem, Severity, within};
use super::secret::masked;

/// More than these are counted, not shown: a file that is no lb.toml at all is wrong in each line.
const SHOWN_MAX: usize = 50;

/// Every problem with its place, its hint and its fix; passwords are not shown.
#[must_use]
pub fn render(problems: &[Problem], path: &str, text: &str, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let text = &masked(text);
    let mut out = String::new();
    for problem in problems.iter().take(SHOWN_MAX) {
        out.push_str(&renderer.render(&report(problem, path, text)));
        out.push_str("\n\n");
    }
    if let Some(more @ 1..) = problems.len().checked_sub(SHOWN_MAX) {
        out.push_str(&format!("… and {more} more\n\n"));
    }
    out
}

fn report<'a>(problem: &'a Problem, path: &'a str, text: &'a str) -> Vec<Group<'a>> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(problem.message.as_str())
        .id(problem.code);
    let mut main = Group::with_title(title);
    if !problem.labels.is_empty() {
        let mut snippet = Snippet::source(text).path(path);
        for label in &problem.labels {
            let kind = if label.primary {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            let annotation = kind.span(visible(text, &label.span));
            snippet = snippet.annotation(match label.text.as_str() {
                "" => annotation,
                words => annotation.label(words),
            });
        }
        main = main.element(snippet);
    }
    for help in &problem.help {
        main = main.element(Level::HELP.message(help.as_str()));
    }
    let mut groups = vec![main];
    if let Some(fix) = &problem.fix {
        let patch = Patch::new(within(text, &fix.span), fix.replacement.as_str());
        groups.push(
            Level::HELP
                .secondary_title(fix.message.as_str())
                .element(Snippet::source(text).path(path).patch(patch)),
        );
    }
    groups
}

/// `span` inside the text, cut to its first line: a whole table need not be shown.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let span = within(text, span);
    let line = text
        .get(span.clone())
        .and_then(|marked| marked.split_once('\n'))
        .map(|(first, _)| first.trim_end_matches('\r').len());
    match line {
        Some(length) if length > 0 => span.start..span.start + length,
        Some(_) | None => span,
    }
}

/// The result of a check for machines; `format` counts up when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Document<'a> {
    format: u32,
    file: &'a str,
    accepted: bool,
    errors: usize,
    warnings: usize,
    problems: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    code: &'a str,
    severity: &'a str,
    message: &'a str,
    labels: Vec<Place<'a>>,
    help: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<Change<'a>>,
}

#[derive(Debug, Serialize)]
struct Place<'a> {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    start: usize,
    end: usize,
    primary: bool,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct Change<'a> {
    message: &'a str,
    start: usize,
    end: usize,
    replacement: &'a str,
}

/// Every problem as one JSON object; places are byte offsets, lines and columns count from 1.
#[must_use]
pub fn render_json(problems: &[Problem], path: &str, text: &str) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let lines = Lines::of(text);
    let document = Document {
        format: 1,
        file: path,
        accepted: errors == 0,
        errors,
        warnings: problems.len() - errors,
        problems: problems
            .iter()
            .map(|problem| entry(problem, text, &lines))
            .collect(),
    };
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn entry<'a>(problem: &'a Problem, text: &str, lines: &Lines) -> Entry<'a> {
    let labels = problem.labels.iter().map(|label| {
        let span = within(text, &label.span);
        let (line, column) = lines.place(text, span.start);
        Place {
            line,
            column,
            start: span.start,
            end: span.end,
            primary: label.primary,
            text: &label.text,
        }
    });
    Entry {
        code: problem.code,
        severity: match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        message: &problem.message,
        labels: labels.collect(),
        help: &problem.help,
        fix: problem.fix.as_ref().map(|fix| Change {
            message: &fix.message,
            start: fix.span.start,
            end: fix.span.end,
            replacement: &fix.replacement,
        }),
    }
}

/// Where each line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after).collect())
    }

    /// Line and column of a byte, from 1.
    fn place(&self, text: &str, at: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= at);
        let start = self.0.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = text.get(start..at).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}
