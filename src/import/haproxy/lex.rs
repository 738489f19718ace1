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

    /// Whether it says about the same as another line, in whose place it stands then.
    pub(super) fn overrides(&self, other: &Self) -> bool {
        let depth = match self.word(0) {
            "option" | "timeout" | "stats" | "http-check" | "tcp-check" => 2,
            _ => 1,
        };
        (0..depth).all(|index| self.word(index) == other.word(index))
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

    /// The `defaults` that it takes by name.
    pub(super) fn parent(&self) -> Option<&str> {
        let mut words = self.arguments.iter().skip_while(|word| *word != "from");
        words.nth(1).map(String::as_str)
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
    let mut defined: Vec<(String, String)> = Vec::new();
    for (line, text) in lines(text) {
        let text = replaced(text, &defined);
        let (words, plain, _) = split(&text);
        let Some(first) = words.first().cloned() else {
            continue;
        };
        let id = ledger.open(file, line, plain);
        if let Some(placeholder) = words::placeholder(plain).or_else(|| variable(plain)) {
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
        if let ("setenv" | "presetenv", [_, name, value]) = (first.as_str(), words.as_slice()) {
            defined.push((format!("${{{name}}}"), value.clone()));
            ledger.mark(id, Fate::NotNeeded, "put in where it is used");
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

/// The line with what `setenv` says in the places of its names.
fn replaced(mut text: String, defined: &[(String, String)]) -> String {
    for (name, value) in defined.iter().rev() {
        if text.len() < 4_096 && text.contains("${") {
            text = text.replace(name, value);
        }
    }
    text
}

/// A variable without braces, as double quotes may have it.
fn variable(plain: &str) -> Option<&str> {
    let mut quote: Option<char> = None;
    let mut chars = plain.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => drop(chars.next()),
            (Some('"'), '$') => {
                let rest = plain.get(at + 1..).unwrap_or("");
                let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                let len = rest.bytes().take_while(|b| is_name(*b)).count();
                if len > 0 {
                    return plain.get(at..=at + len);
                }
            }
            _ => {}
        }
    }
    None
}

/// Lines with their numbers; one that ends with a backslash goes on in the next.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        let slashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
        // A comment ends with its line, whatever stands last in it.
        if slashes % 2 == 1 && !split(line).2 {
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

/// The words of a line, the line without its comment, and whether it has one.
fn split(line: &str) -> (Vec<String>, &str, bool) {
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
    let plain = line.get(..end).unwrap_or(line).trim();
    (words, plain, end < line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments_are_haproxy_s() {
        let (words, plain, _) = split(r#"  server a\ b "1.2.3.4:80" 'x # y' check # why"#);
        assert_eq!(words, ["server", "a b", "1.2.3.4:80", "x # y", "check"]);
        assert_eq!(plain, r#"server a\ b "1.2.3.4:80" 'x # y' check"#);
    }

    #[test]
    fn a_line_goes_on_behind_a_backslash() {
        let found = lines("bind *:1 \\\n  name x\nmode tcp\\\\\n");
        assert_eq!(found[0], (1, "bind *:1   name x".to_owned()));
        assert_eq!(found[1].0, 3);
        let found = lines("mode tcp # C:\\\nbind *:1\n");
        assert_eq!(found[1], (2, "bind *:1".to_owned()));
    }
}
