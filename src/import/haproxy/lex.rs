//! haproxy.cfg as sections of directives: words, quotes, escapes, comments, continued lines
//! (HAProxy's configuration manual, 2.2). What a template still has to fill in and what stands
//! between `.if` and `.endif` is entered as not translated and left out.

use super::super::ledger::{Fate, Id, Ledger};
use super::super::words;

/// A line of a section.
#[derive(Debug, Clone)]
pub(super) struct Directive {
    pub(super) id: Id,
    /// At least one; without the leading `no`.
    pub(super) words: Vec<String>,
    /// Whether it began with `no`.
    pub(super) negated: bool,
}

impl Directive {
    /// The word at `index`, or nothing at all.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// Whether it begins with these words.
    pub(super) fn is(&self, start: &[&str]) -> bool {
        let same = |(index, wanted): (usize, &&str)| self.word(index) == *wanted;
        start.iter().enumerate().all(same)
    }
}

/// `global`, `defaults`, `frontend NAME` and the like, with what follows.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) id: Id,
    pub(super) kind: String,
    /// What follows the kind.
    pub(super) arguments: Vec<String>,
    pub(super) directives: Vec<Directive>,
}

impl Section {
    /// The first argument.
    pub(super) fn name(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }
}

/// Words that begin a section.
const KINDS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "userlist",
    "peers",
    "resolvers",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
];

/// All sections of a file, and the placeholders that were left out.
pub(super) fn sections(file: &str, text: &str, ledger: &mut Ledger) -> (Vec<Section>, Vec<String>) {
    let mut found: Vec<Section> = Vec::new();
    let mut placeholders = Vec::new();
    let mut conditions = 0_usize;
    for (line, text) in lines(text) {
        let (words, plain) = split(&text);
        let Some(first) = words.first().cloned() else {
            continue;
        };
        let id = ledger.open(file, line, plain);
        if let Some(placeholder) = words::placeholder(plain) {
            ledger.mark(
                id,
                Fate::Lost,
                format!("`{placeholder}` is still to be filled in"),
            );
            placeholders.push(placeholder.to_owned());
            continue;
        }
        if first.starts_with('.') {
            match first.as_str() {
                ".if" => conditions += 1,
                ".endif" => conditions = conditions.saturating_sub(1),
                _ => {}
            }
            ledger.mark(
                id,
                Fate::Lost,
                "conditions of the file itself are not evaluated",
            );
            continue;
        }
        if conditions > 0 {
            ledger.mark(
                id,
                Fate::Lost,
                "it stands in a condition that is not evaluated",
            );
            continue;
        }
        if KINDS.contains(&first.as_str()) {
            found.push(Section {
                id,
                kind: first,
                arguments: words.into_iter().skip(1).collect(),
                directives: Vec::new(),
            });
            continue;
        }
        let negated = first == "no" && words.len() > 1;
        let words = words.into_iter().skip(usize::from(negated)).collect();
        match found.last_mut() {
            Some(section) => section.directives.push(Directive { id, words, negated }),
            None => ledger.mark(id, Fate::Lost, "it stands before the first section"),
        }
    }
    (found, placeholders)
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        let slashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
        if slashes % 2 == 1 {
            whole.push_str(line.get(..line.len() - 1).unwrap_or(""));
            open = Some((start, whole));
        } else {
            whole.push_str(line);
            found.push((start, whole));
        }
    }
    found.extend(open);
    found
}

/// The words of a line, and the line without its comment.
fn split(line: &str) -> (Vec<String>, &str) {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    let mut end = line.len();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '#') => {
                end = at;
                break;
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let escaped = chars.next().map_or('\\', |(_, c)| c);
                word.get_or_insert_default().push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (words, line.get(..end).unwrap_or(line).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments_are_haproxy_s() {
        let (words, plain) = split(r#"  server a\ b "1.2.3.4:80" 'x # y' check # why"#);
        assert_eq!(words, ["server", "a b", "1.2.3.4:80", "x # y", "check"]);
        assert_eq!(plain, r#"server a\ b "1.2.3.4:80" 'x # y' check"#);
    }

    #[test]
    fn a_line_goes_on_behind_a_backslash() {
        let found = lines("bind *:1 \\\n  name x\nmode tcp\\\\\n");
        assert_eq!(found[0], (1, "bind *:1   name x".to_owned()));
        assert_eq!(found[1].0, 3);
    }
}
