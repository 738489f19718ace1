//! `lbd explain`: what a code of `lbd check`, a termination code of the access log, a key of lb.toml,
//! a metric, a kind of event or an exit code means, and what to do about it.

mod codes;
mod endings;
mod words;

use std::io;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::reach::FAILURE;
use super::{Exit, color, out, talk};
use crate::config;

const EXAMPLES: &str = "\
Examples:
  lbd explain W0208            a code of `lbd check`, with a wrong and a right example
  lbd explain sQ               a termination code of the access log
  lbd explain idle-timeout     a key of lb.toml, by its own or another program's name (maxconn)
  lbd explain lbd_vrrp_state   a metric
  lbd explain conflict         a kind of event
  lbd explain 78               an exit code
  lbd explain                  everything that has a page

Exit codes: 0 explained, 2 nothing of that name.";

/// What to explain.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// A code, a key, a metric, a kind of event
    #[arg(value_name = "WORD", allow_hyphen_values = true)]
    word: Option<String>,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// For people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// For programs; the format is stable
    Json,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Page {
    /// What it is about, as it is written elsewhere.
    pub(super) topic: String,
    /// `check`, `termination`, `key`, `metric`, `event` or `exit`.
    pub(super) kind: &'static str,
    /// One line.
    pub(super) title: String,
    /// What it means, and what to do.
    pub(super) text: String,
    /// An example of the mistake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wrong: Option<String>,
    /// The same, mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) right: Option<String>,
}

/// Explains a word, or lists what can be explained.
pub(super) fn run(args: &ExplainArgs) -> u8 {
    let Some(word) = &args.word else {
        return print(&index(args.output));
    };
    let pages = pages(word.trim());
    if pages.is_empty() {
        talk(&format!("error: {}", unknown(word)));
        return Exit::Usage.code();
    }
    print(&match args.output {
        Output::Json => serde_json::to_string_pretty(&pages).unwrap_or_default() + "\n",
        Output::Text => {
            let bold = color(&io::stdout());
            let shown: Vec<String> = pages.iter().map(|page| render(page, bold)).collect();
            shown.join("\n")
        }
    })
}

fn print(text: &str) -> u8 {
    match out(text) {
        Ok(()) => Exit::Success.code(),
        Err(_closed) => FAILURE,
    }
}

/// Every page of that name: a word may be a key of several tables.
fn pages(word: &str) -> Vec<Page> {
    let mut pages: Vec<Page> = codes::page(word).into_iter().collect();
    pages.extend(endings::page(word));
    pages.extend(words::exit(word));
    pages.extend(words::metric(word));
    pages.extend(words::event(word));
    pages.extend(words::keys(word));
    pages
}

/// The complaint about a word without a page.
fn unknown(word: &str) -> String {
    let codes = codes::all().into_iter().map(|page| page.topic);
    let others = words::metrics().into_iter().chain(words::key_names());
    let names: Vec<String> = codes.chain(others.map(str::to_owned)).collect();
    // Codes are in capitals, and `nearest` compares what is small.
    let small: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    // Underscores are hyphens to it, and metrics have them.
    let kebab: Vec<String> = small.iter().map(|name| name.replace('_', "-")).collect();
    let near = config::nearest(word, kebab.iter().map(String::as_str));
    let at = near.and_then(|near| kebab.iter().position(|name| name == near));
    let word = crate::log::escape(word);
    match at.and_then(|at| names.get(at)) {
        Some(name) => format!("nothing is called `{word}`: did you mean `{name}`?"),
        None => format!("nothing is called `{word}`; `lbd explain` lists what there is"),
    }
}

/// The list of codes, and where other words come from.
fn index(output: Output) -> String {
    let pages = codes::all();
    if output == Output::Json {
        return serde_json::to_string_pretty(&pages).unwrap_or_default() + "\n";
    }
    let mut text = "Codes of `lbd check`:\n".to_owned();
    for page in pages {
        text.push_str(&format!("  {}  {}\n", page.topic, page.title));
    }
    text.push_str(
        "\nAlso: termination codes (sQ), keys of lb.toml (idle-timeout, vip.garp), metrics\n\
         (lbd_vrrp_state), kinds of events (conflict), exit codes (78).\n",
    );
    text
}

/// For people: a title, the text, the examples.
fn render(page: &Page, bold: bool) -> String {
    let (on, off) = if bold {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    let mut text = format!("{on}{}: {}{off}\n\n{}\n", page.topic, page.title, page.text);
    for (name, example) in [("Wrong", &page.wrong), ("Right", &page.right)] {
        if let Some(example) = example {
            text.push_str(&format!("\n{on}{name}:{off}\n"));
            for line in example.lines() {
                let indent = if line.is_empty() { "" } else { "    " };
                text.push_str(&format!("{indent}{line}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(word: &str) -> Page {
        let mut pages = pages(word);
        assert_eq!(pages.len(), 1, "{word}: {pages:?}");
        pages.remove(0)
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        assert_eq!(one("W0208").title, "a weight that can't decide an election");
        assert_eq!(one("w0208"), one("W0208"));
        assert!(pages("W9999").is_empty());
    }

    #[test]
    fn each_kind_of_word_has_pages() {
        assert_eq!(one("sQ").kind, "termination");
        assert_eq!(one("--").kind, "termination");
        assert_eq!(one("78").kind, "exit");
        assert_eq!(one("lbd_vrrp_state").kind, "metric");
        assert_eq!(one("conflict").kind, "event");
        assert_eq!(one("idle-timeout").topic, "[proxy.NAME] idle-timeout");
        assert_eq!(one("timeout_client").topic, "[proxy.NAME] idle-timeout");
        assert_eq!(one("vip.kube.preempt").topic, "[vip.NAME] preempt");
        // Of the process, of a proxy, of a source, of a server, and of all servers.
        assert_eq!(pages("maxconn").len(), 5);
        assert_eq!(one("limits.maxconn").topic, "[limits] max-connections");
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant() {
        assert_eq!(
            unknown("lbd_vrrp_stat"),
            "nothing is called `lbd_vrrp_stat`: did you mean `lbd_vrrp_state`?"
        );
        assert!(unknown("idle-timeuot").contains("did you mean `idle-timeout`?"));
        assert!(unknown("W02088").contains("did you mean `W0208`?"));
        assert!(unknown("\u{1b}[2J").contains("nothing is called `\\"));
    }

    #[test]
    fn examples_stand_indented_under_their_names() {
        let text = render(&one("E0103"), false);
        assert!(
            text.starts_with("E0103: a duration without a unit\n\n"),
            "{text}"
        );
        let wrong = "\nWrong:\n    [proxy.kube]\n    connect-timeout = 5000\n";
        assert!(text.contains(wrong), "{text}");
        assert!(text.ends_with("\nRight:\n    [proxy.kube]\n    connect-timeout = \"5s\"\n"));
        assert!(!text.contains('\u{1b}'));
    }
}
