//! Conditions of haproxy.cfg's `.if` and `.elif` (its manual, 2.4), as far as the file alone decides
//! them: yes, no, or only where HAProxy runs.

use super::env::{Env, Known, UNKNOWN};

/// No expression is nested deeper.
const DEPTH_MAX: usize = 16;

/// Whether a condition holds; nothing where that depends on the host, or where HAProxy refuses it.
pub(super) fn holds(text: &str, env: &Env) -> Option<bool> {
    let text = text.trim();
    if text.is_empty() {
        return Some(false);
    }
    let (value, rest) = either(text, env, 0)?;
    if rest.trim().is_empty() { value } else { None }
}

type Parsed<'a> = Option<(Option<bool>, &'a str)>;

fn either<'a>(text: &'a str, env: &Env, depth: usize) -> Parsed<'a> {
    let (mut value, mut rest) = both(text, env, depth)?;
    while let Some(behind) = rest.trim_start().strip_prefix("||") {
        let (other, behind) = both(behind, env, depth)?;
        value = match (value, other) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            (None, Some(false) | None) | (Some(false), None) => None,
        };
        rest = behind;
    }
    Some((value, rest))
}

fn both<'a>(text: &'a str, env: &Env, depth: usize) -> Parsed<'a> {
    let (mut value, mut rest) = one(text, env, depth)?;
    while let Some(behind) = rest.trim_start().strip_prefix("&&") {
        let (other, behind) = one(behind, env, depth)?;
        value = match (value, other) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, Some(true) | None) | (Some(true), None) => None,
        };
        rest = behind;
    }
    Some((value, rest))
}

fn one<'a>(text: &'a str, env: &Env, depth: usize) -> Parsed<'a> {
    let text = text.trim_start();
    if depth > DEPTH_MAX {
        return None;
    }
    if let Some(behind) = text.strip_prefix('!') {
        let (value, rest) = one(behind, env, depth + 1)?;
        return Some((value.map(|holds| !holds), rest));
    }
    if let Some(behind) = text.strip_prefix('(') {
        let (value, rest) = either(behind, env, depth + 1)?;
        return Some((value, rest.trim_start().strip_prefix(')')?));
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == UNKNOWN;
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if let Some(inside) = rest.strip_prefix('(') {
        let (arguments, rest) = inside.split_once(')')?;
        return Some((predicate(word, arguments, env), rest));
    }
    if word.contains(UNKNOWN) {
        return Some((None, rest));
    }
    let number: i64 = word.parse().ok()?;
    Some((Some(number != 0), rest))
}

fn predicate(name: &str, arguments: &str, env: &Env) -> Option<bool> {
    let pair = arguments.split_once(',').unwrap_or((arguments, ""));
    if name == "defined" {
        return match env.get(arguments) {
            Known::Set(..) => Some(true),
            Known::Unset => Some(false),
            Known::Elsewhere => None,
        };
    }
    if arguments.contains(UNKNOWN) {
        return None;
    }
    match name {
        "streq" => Some(pair.0 == pair.1),
        "strneq" => Some(pair.0 != pair.1),
        "strstr" => Some(pair.0.contains(pair.1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What `haproxy -cc` of 2.6 says with A=1 B=x y.
    #[test]
    fn conditions_are_haproxy_s_where_the_file_decides_them() {
        let mut env = Env::default();
        env.set("A", "1");
        env.unset(&["GONE".to_owned()]);
        let says = |text: &str| holds(text, &env);
        for yes in [
            "1",
            "-1",
            "!0",
            "defined(A)",
            "!defined(GONE)",
            "streq(x y,x y)",
            "strneq(a, a)",
            "strstr(abc,b)",
            "0 || 1",
            "1 && (0 || !0)",
            "defined(HOST) || 1",
            "0 && 0 || 1",
        ] {
            assert_eq!(says(yes), Some(true), "{yes}");
        }
        for no in [
            "",
            "0",
            "!1",
            "defined(GONE)",
            "streq(1,2)",
            "feature(OPENSSL) && 0",
            "!(1 || 0)",
        ] {
            assert_eq!(says(no), Some(false), "{no}");
        }
        for open in [
            "defined(HOST)",
            "feature(OPENSSL)",
            "version_atleast(2.4)",
            "streq(\0,a)",
            "\0",
            "1 && enabled(POLL)",
            "hello",
            "(1",
            "1 1",
        ] {
            assert_eq!(says(open), None, "{open:?}");
        }
    }
}
