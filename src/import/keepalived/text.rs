//! What one line of keepalived.conf is made of: its comment, a definition, the names in it, its braces.

use super::super::words;
use super::lex::{Token, split};

/// Whether a definition goes on behind this line, whatever comment it has.
pub(super) fn goes_on(raw: &str) -> bool {
    raw.trim_end().ends_with('\\') || without_comment(raw).ends_with('\\')
}

/// A line as it is shown: without the brace that opens its block, and without the value of a
/// definition, which may be a secret.
pub(super) fn head(text: &str) -> String {
    let head = text.trim_end_matches(['{', ' ', '\t', '\\']);
    let head = if head.is_empty() { text } else { head };
    let defines = |(at, _): (usize, &str)| {
        let (before, behind) = head.split_at_checked(at)?;
        let behind = behind.strip_prefix('$')?;
        let name = behind.bytes().take_while(|b| is_name(*b)).count();
        let value = behind.get(name..)?.strip_prefix('=')?;
        let starts = before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || c == ')');
        (starts && name > 0 && !value.trim().is_empty()).then(|| head.len() - value.len())
    };
    match head.match_indices('$').find_map(defines) {
        Some(end) => format!("{}{}", head.get(..end).unwrap_or(""), words::STARS),
        None => head.to_owned(),
    }
}

pub(super) fn without_slash(text: &str) -> &str {
    text.strip_suffix('\\').unwrap_or(text).trim()
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// `$NAME=value`.
pub(super) fn definition(plain: &str) -> Option<(&str, &str)> {
    let (name, value) = plain.strip_prefix('$')?.split_once('=')?;
    let fine = name.bytes().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit());
    (!name.is_empty() && fine).then_some((name, value.trim()))
}

/// The name behind a `$`, and what stands behind it.
pub(super) fn named(after: &str, anywhere: bool) -> Option<(&str, &str)> {
    if let Some(braced) = after.strip_prefix('{') {
        let (name, behind) = braced.split_once('}')?;
        let (plain, _) = name.split_once(' ').unwrap_or((name, ""));
        return (!plain.is_empty() && plain.bytes().all(is_name)).then_some((name, behind));
    }
    let len = after.bytes().take_while(|b| is_name(*b)).count();
    let (name, behind) = after.split_at(len);
    let ends = behind.is_empty() || behind.starts_with(char::is_whitespace);
    (!name.is_empty() && (ends || anywhere)).then_some((name, behind))
}

/// The line up to its comment.
pub(super) fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        let rest = line.get(at..).unwrap_or("");
        if quote.is_none()
            && let Some(len) = words::placeholder_len(rest)
        {
            chars = line.char_indices();
            chars
                .by_ref()
                .take_while(|(other, c)| other + c.len_utf8() < at + len)
                .for_each(drop);
            continue;
        }
        match (quote, c) {
            (None, '#' | '!') => return line.get(..at).unwrap_or(line).trim(),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => drop(chars.next()),
            _ => {}
        }
    }
    line.trim()
}

/// The braces of a line that open and close blocks.
pub(super) fn braces(text: &str) -> Vec<char> {
    split(text)
        .iter()
        .filter_map(|token| match token {
            Token::Open => Some('{'),
            Token::Close => Some('}'),
            Token::Word(_) => None,
        })
        .collect()
}

pub(super) fn without_braces(text: &str) -> &str {
    text.trim_matches(['{', '}', ' ', '\t'])
}
