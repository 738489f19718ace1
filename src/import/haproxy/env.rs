//! Variables of haproxy.cfg (its manual, 2.3), and words with quotes, escapes and what variables
//! stand for (2.2). What is in the environment of another host isn't known here.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::super::ledger::Id;

/// Stands in an expression for what nobody here knows.
pub(super) const UNKNOWN: char = '\0';
/// No line is longer once everything is put in, in bytes.
const LINE_MAX: usize = 16_384;
/// No more is put in over all lines of a file, in bytes.
const FILE_MAX: usize = 4 * 1024 * 1024;
/// What a word of its own counts beside its bytes.
const WORD: usize = 32;

const LONG: &str =
    "with what is put in, it is longer than the 16384 bytes that lbd reads of a line";
const FULL: &str = "with all that is put in, the file is too long for lbd";
const QUOTE: &str = "a quote in it isn't closed: HAProxy refuses the file";
const HEX: &str = "a `\\x` in it has no two hexadecimal digits: HAProxy refuses the file";
const CODE: &str = "a `\\x` in it stands for a byte that lbd can't write";

/// What the file says about its environment.
#[derive(Debug, Default)]
pub(super) struct Env {
    /// A value, or nothing for what is not set.
    known: BTreeMap<String, Option<String>>,
    /// After `resetenv`: nothing else is set but these, perhaps.
    kept: Option<Vec<String>>,
    /// Variables of which nobody here can say any more what they are, with the line that decides.
    doubts: BTreeMap<String, Id>,
    /// How much was put in, in bytes.
    put: Cell<usize>,
}

/// What is known about a variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// It has that value.
    Set(&'a str),
    /// It isn't set.
    Unset,
    /// The environment of the service decides.
    Elsewhere,
}

impl Env {
    pub(super) fn get(&self, name: &str) -> Known<'_> {
        match self.known.get(name) {
            Some(Some(value)) => Known::Set(value),
            Some(None) => Known::Unset,
            None => match &self.kept {
                Some(kept) if !kept.iter().any(|other| other == name) => Known::Unset,
                Some(_) | None => Known::Elsewhere,
            },
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.doubts.remove(name);
        self.known.insert(name.to_owned(), Some(value.to_owned()));
    }

    /// The line that decides what a variable is, where the file has one that perhaps counts.
    pub(super) fn doubt(&self, name: &str) -> Option<Id> {
        self.doubts.get(name).copied()
    }

    /// A line with `setenv` or its kin that perhaps counts: `by` decides.
    pub(super) fn perhaps(&mut self, words: &[String], by: Id) {
        let (first, rest) = words
            .split_first()
            .map_or(("", words), |(f, r)| (f.as_str(), r));
        let given = match first {
            "setenv" => rest.get(..1),
            "presetenv" => rest.get(..1).filter(|names| {
                let set = |name: &String| matches!(self.get(name), Known::Set(..));
                !names.iter().all(set)
            }),
            "unsetenv" => Some(rest),
            "resetenv" => None,
            _ => return,
        };
        let mut names = given.unwrap_or_default().to_vec();
        let unsure = names.iter().any(|name| name.contains(UNKNOWN));
        if first == "resetenv" || unsure {
            let others = self
                .known
                .keys()
                .filter(|name| unsure || !rest.contains(name));
            names.extend(others.cloned().collect::<Vec<_>>());
        }
        for name in names {
            self.known.remove(&name);
            if let Some(kept) = &mut self.kept
                && !kept.contains(&name)
            {
                kept.push(name.clone());
            }
            self.doubts.insert(name, by);
        }
    }

    pub(super) fn unset(&mut self, names: &[String]) {
        for name in names {
            self.doubts.remove(name);
            self.known.insert(name.clone(), None);
        }
    }

    /// Keeps these alone.
    pub(super) fn reset(&mut self, names: &[String]) {
        self.known.retain(|name, _| names.contains(name));
        self.doubts.retain(|name, _| names.contains(name));
        let still = |name: &&String| self.kept.as_ref().is_none_or(|kept| kept.contains(name));
        self.kept = Some(names.iter().filter(still).cloned().collect());
    }
}

/// A line as HAProxy reads it.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// The first variable whose value isn't known here, as it is written.
    pub(super) unknown: Option<String>,
    /// Variables whose default was taken, since nothing is known about them.
    pub(super) defaulted: Vec<String>,
    /// The line without what was put in.
    pub(super) bare: String,
    /// Why it can't be read as it stands.
    pub(super) broken: Option<&'static str>,
    /// How much was put in, in bytes.
    put: usize,
}

impl Words {
    fn push(&mut self, word: &mut Option<String>) {
        self.words.extend(word.take());
    }

    /// Whether that much may be put in, too.
    fn fits(&mut self, env: &Env, line: &str, value: &str, list: bool) -> bool {
        let words = if list {
            value.split_ascii_whitespace().count()
        } else {
            1
        };
        let more = value.len() + words * WORD;
        let broken = if line.len() + self.put + value.len() > LINE_MAX {
            LONG
        } else if env.put.get() + more > FILE_MAX {
            FULL
        } else {
            self.put += value.len();
            env.put.set(env.put.get() + more);
            return true;
        };
        self.broken.get_or_insert(broken);
        false
    }
}

/// `$NAME`, `${NAME}`, `${NAME-default}` or `${NAME[*]}`.
struct Variable<'a> {
    name: &'a str,
    default: Option<&'a str>,
    list: bool,
    len: usize,
}

/// The variable at the start of a text, of which the `$` is the first.
fn variable(text: &str) -> Option<Variable<'_>> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let behind = text.strip_prefix('$')?;
    if let Some(braced) = behind.strip_prefix('{') {
        let (inside, _) = braced.split_once('}')?;
        let len = inside.len() + 3;
        let start = usize::from(inside.starts_with('.'));
        let end = inside
            .bytes()
            .skip(start)
            .take_while(|b| is_name(*b))
            .count()
            + start;
        let (name, rest) = inside.split_at(end);
        let default = rest.strip_prefix('-');
        let list = rest == "[*]";
        let fine = !name.is_empty() && (rest.is_empty() || list || default.is_some());
        return fine.then_some(Variable {
            name,
            default,
            list,
            len,
        });
    }
    let end = behind.bytes().take_while(|b| is_name(*b)).count();
    let (name, _) = behind.split_at(end);
    (end > 0).then_some(Variable {
        name,
        default: None,
        list: false,
        len: end + 1,
    })
}

/// Puts in what a variable stands for.
fn put_in(
    variable: &Variable<'_>,
    (line, text): (&str, &str),
    env: &Env,
    found: &mut Words,
    word: &mut Option<String>,
) {
    let value = match env.get(variable.name) {
        Known::Set(value) => value,
        Known::Unset => variable.default.unwrap_or(""),
        Known::Elsewhere => match variable.default {
            Some(default) => {
                found.defaulted.push(variable.name.to_owned());
                default
            }
            None => {
                let shown = text.get(..variable.len).unwrap_or("");
                found.unknown.get_or_insert_with(|| shown.to_owned());
                word.get_or_insert_default().push(UNKNOWN);
                return;
            }
        },
    };
    if !found.fits(env, line, value, variable.list) {
        return;
    }
    if !variable.list {
        word.get_or_insert_default().push_str(value);
        return;
    }
    let mut items = value.split_ascii_whitespace();
    if let Some(first) = items.next() {
        word.get_or_insert_default().push_str(first);
    } else if word.as_deref() == Some("") {
        // An empty list is no word.
        *word = None;
    }
    for item in items {
        found.push(word);
        *word = Some(item.to_owned());
    }
}

/// What a backslash with what stands behind it stands for, and how much of that it takes; before
/// anything else it is one like other characters.
fn escaped(rest: &str, quoted: bool) -> Result<(char, usize), &'static str> {
    Ok(match rest.chars().next() {
        Some('n') => ('\n', 1),
        Some('r') => ('\r', 1),
        Some('t') => ('\t', 1),
        Some('x') => {
            let digits = rest
                .get(1..3)
                .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let code = digits
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                .ok_or(HEX)?;
            let fine = code.is_ascii() && code != 0;
            (fine.then(|| char::from(code)).ok_or(CODE)?, 3)
        }
        Some(plain @ (' ' | '\\' | '#' | '\'' | '"')) => (plain, 1),
        Some('$') if quoted => ('$', 1),
        Some(_) | None => ('\\', 0),
    })
}

/// The words of a line without its comment.
pub(super) fn words(line: &str, env: &Env) -> Words {
    let mut found = Words::default();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line;
    if line.len() > LINE_MAX {
        found.broken = Some(LONG);
        rest = line
            .split_whitespace()
            .next()
            .filter(|first| first.len() < 64)
            .unwrap_or("?");
    }
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or("");
        if quote == Some('"')
            && c == '$'
            && let Some(variable) = variable(rest)
        {
            put_in(&variable, (line, rest), env, &mut found, &mut word);
            rest = rest.get(variable.len..).unwrap_or("");
            continue;
        }
        rest = behind;
        if !(quote != Some('\'') && c == '\\') {
            found.bare.push(c);
        }
        match (quote, c) {
            (None, c) if c.is_whitespace() => found.push(&mut word),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let (c, len) = escaped(behind, quote.is_some()).unwrap_or_else(|why| {
                    found.broken.get_or_insert(why);
                    (c, 0)
                });
                word.get_or_insert_default().push(c);
                rest = behind.get(len..).unwrap_or("");
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    found.push(&mut word);
    if quote.is_some() {
        found.broken.get_or_insert(QUOTE);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::ledger::Ledger;

    fn env() -> Env {
        let mut env = Env::default();
        env.set("PORT", "6443");
        env.set("WORDS", "check  inter 2s");
        env.unset(&["GONE".to_owned()]);
        env
    }

    fn shown(line: &str) -> Vec<String> {
        words(line, &env()).words
    }

    // As HAProxy 2.6 and 3.4 print it with -dC.
    #[test]
    fn quotes_escapes_and_variables_are_haproxy_s() {
        assert_eq!(
            shown(r#"  server a\ b "1.2.3.4:80" 'x # y' check\x41"#),
            ["server", "a b", "1.2.3.4:80", "x # y", "checkA"]
        );
        assert_eq!(
            shown(r#"bind "127.0.0.1:${PORT}""#),
            ["bind", "127.0.0.1:6443"]
        );
        assert_eq!(
            shown(r#"bind :"$PORT"1 "${GONE-7445}""#),
            ["bind", ":64431", "7445"]
        );
        assert_eq!(
            shown(r#"name $PORT "a\$PORT" '$PORT'"#),
            ["name", "$PORT", "a$PORT", "$PORT"]
        );
        assert_eq!(
            shown(r#"s "${WORDS[*]}" w"#),
            ["s", "check", "inter", "2s", "w"]
        );
        assert_eq!(
            shown(r#"s "x${WORDS[*]} w" 3"#),
            ["s", "xcheck", "inter", "2s w", "3"]
        );
        assert_eq!(shown(r#"s "$GONE" "${GONE[*]}" w"#), ["s", "", "w"]);
    }

    #[test]
    fn a_backslash_before_anything_else_is_one() {
        assert_eq!(
            shown(r#"a\.b a\$b "a\$b" 'a\.b' "a\.b" a\#b a\\b"#),
            [r"a\.b", r"a\$b", "a$b", r"a\.b", r"a\.b", "a#b", r"a\b"]
        );
        assert_eq!(shown("a\\\tb"), ["a\\", "b"]);
        for (line, why) in [
            ("inter \"2s", QUOTE),
            ("inter '2s", QUOTE),
            (r"a\xzz", HEX),
            (r"a\x4", HEX),
            (r"a\x+1", HEX),
            (r"a\xe9", CODE),
            (r"a\x00", CODE),
        ] {
            assert_eq!(words(line, &env()).broken, Some(why), "{line}");
        }
    }

    #[test]
    fn what_a_line_that_perhaps_counts_says_is_not_known() {
        let id = Ledger::default().open("h", 1, "setenv");
        let after = |line: &str| {
            let mut env = env();
            env.perhaps(&shown(line), id);
            let is = |name: &str| match env.get(name) {
                Known::Set(..) => "set",
                Known::Unset => "unset",
                Known::Elsewhere => "perhaps",
            };
            ["PORT", "WORDS", "GONE"].map(is)
        };
        assert_eq!(after("setenv PORT 1"), ["perhaps", "set", "unset"]);
        assert_eq!(after("presetenv PORT 1"), ["set", "set", "unset"]);
        assert_eq!(after("presetenv GONE 1"), ["set", "set", "perhaps"]);
        assert_eq!(
            after("unsetenv PORT WORDS"),
            ["perhaps", "perhaps", "unset"]
        );
        assert_eq!(after("resetenv PORT"), ["set", "perhaps", "perhaps"]);
        assert_eq!(after("setenv \"$ELSE\" 1"), ["perhaps"; 3]);
        assert_eq!(after("maxconn 1"), ["set", "set", "unset"]);
        let mut env = env();
        env.reset(&[]);
        env.perhaps(&shown("setenv PORT 1"), id);
        assert_eq!(env.get("PORT"), Known::Elsewhere);
        assert_eq!(env.doubt("PORT"), Some(id));
        env.set("PORT", "2");
        assert_eq!(env.doubt("PORT"), None);
    }

    #[test]
    fn no_more_is_put_in_than_a_line_and_a_file_may_hold() {
        let mut env = env();
        env.set("A", &"x".repeat(10_000));
        let found = words("a \"$A\" \"$A\" \"$A\"", &env);
        assert_eq!(found.broken, Some(LONG));
        assert_eq!(found.words.concat().len(), 10_001);
        let full = (1..1_000).find(|_| words("a \"$A\"", &env).broken == Some(FULL));
        assert_eq!(full, Some(418));
        let long = words(&"x ".repeat(10_000), &env);
        assert_eq!((long.broken, long.words.len()), (Some(LONG), 1));
    }

    #[test]
    fn what_is_not_known_is_said() {
        let found = words(r#"bind "${HOST}:${PORT-1}" "${TLS-no}""#, &env());
        assert_eq!(found.unknown.as_deref(), Some("${HOST}"));
        assert_eq!(found.defaulted, ["TLS"]);
        let mut env = env();
        env.reset(&[]);
        assert_eq!(words(r#"x "$PORT$HOST""#, &env).words, ["x", ""]);
    }
}
