//! `lbd status -w`: the same question again and again. On a terminal each answer is drawn over the
//! one before; elsewhere they follow each other.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::reach::{FAILURE, complain};
use super::status::{StatusArgs, text};
use super::{chain, out, talk};
use crate::admin::protocol::{AskError, ask_status};
use crate::net::clock;

/// What is shown of a daemon that stopped answering goes on at this pace.
const REST: Duration = Duration::from_secs(1);
/// To the upper left corner, and the same to the lines and to what is below the last one.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const BELOW: &str = "\x1b[J";

/// Asks and prints until interrupted. A daemon that never answered is an error at once; one that
/// stops answering is waited for.
pub(super) fn run(path: &Path, every: Duration, args: &StatusArgs) -> u8 {
    let draws = io::stdout().is_terminal() && !args.is_json();
    let mut began = false;
    let mut silent = None;
    loop {
        let shown = match ask_status(path) {
            Ok(status) => {
                if silent.take().is_some() && !draws {
                    talk("lbd status: it answers again");
                }
                text(&status, args)
            }
            Err(error @ (AskError::Unreachable { .. } | AskError::Broken { .. })) if began => {
                let now = clock::now();
                let first = silent.is_none();
                let since = *silent.get_or_insert(now);
                let seconds = now.saturating_duration_since(since).as_secs();
                let said = format!("NO ANSWER for {seconds}s: {}\n", chain(&error));
                if !draws && first {
                    talk(&format!("lbd status: {}; waiting", chain(&error)));
                }
                thread::sleep(REST.saturating_sub(every));
                draws.then_some(said)
            }
            Err(error) => return complain("lbd status", &error),
        };
        if let Some(shown) = shown {
            let written = if draws {
                out(&drawn(&shown, size(), !began))
            } else if args.is_json() || !began {
                out(&shown)
            } else {
                out(&format!("\n{shown}"))
            };
            if written.is_err() {
                return FAILURE;
            }
            began = true;
        } else if !began {
            return FAILURE;
        }
        thread::sleep(every);
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let size = terminal_size::terminal_size();
    size.map_or((80, 24), |(columns, lines)| {
        (usize::from(columns.0), usize::from(lines.0))
    })
}

/// As much of `text` as there is room for, over what stands there. Long lines are cut: one that
/// wraps would push the first ones out.
fn drawn(text: &str, (columns, lines): (usize, usize), first: bool) -> String {
    let mut out = String::from(if first { "\x1b[2J" } else { "" });
    out.push_str(HOME);
    let all = text.lines().count();
    let room = lines.saturating_sub(1).max(1);
    let fits = all <= room;
    let shown = if fits { all } else { room.saturating_sub(1) };
    for line in text.lines().take(shown) {
        out.extend(line.chars().take(columns));
        out.push_str(END_OF_LINE);
    }
    if !fits {
        let more = format!("… {} more lines: lbd status, or lbd top", all - shown);
        out.extend(more.chars().take(columns));
        out.push_str(END_OF_LINE);
    }
    out.push_str(BELOW);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_drawn_over_the_one_before_and_never_scrolls() {
        assert_eq!(
            drawn("one\ntwo\n", (80, 24), true),
            "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J"
        );
        assert_eq!(
            drawn("wide line\n", (4, 24), false),
            "\x1b[Hwide\x1b[K\n\x1b[J"
        );
        assert_eq!(
            drawn("1\n2\n3\n4\n5\n", (80, 4), false),
            "\x1b[H1\x1b[K\n2\x1b[K\n… 3 more lines: lbd status, or lbd top\x1b[K\n\x1b[J"
        );
        assert_eq!(
            drawn("1\n2\n3\n", (80, 4), false),
            "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n\x1b[J"
        );
    }
}
