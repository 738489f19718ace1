//! Passwords in the text of lb.toml, so that no report of a mistake carries one into a terminal, a
//! ticket or the journal. Words, not syntax: it also holds for a text that is no TOML.

use std::borrow::Cow;

use super::secret_tables;

/// What a password is called here and in keepalived.conf.
const WORDS: [&str; 8] = [
    "key",
    "keys",
    "auth",
    "auth_pass",
    "auth-pass",
    "password",
    "passwd",
    "pass",
];

/// The text with each password as stars, byte for byte, so that every place stays where it is.
pub(super) fn masked(text: &str) -> Cow<'_, str> {
    let mut bytes = text.as_bytes().to_vec();
    let mut found = false;
    for word in WORDS {
        for (at, _) in text.match_indices(word) {
            let before = text.get(..at).and_then(|t| t.chars().next_back());
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
                continue;
            }
            let Some((start, end)) = value_after(
                text,
                at + word.len(),
                word.starts_with("auth_") || word.starts_with("auth-"),
            ) else {
                continue;
            };
            if text
                .get(start..end)
                .is_some_and(|value| value.starts_with('['))
            {
                found |= mask_strings(bytes.get_mut(start..end).unwrap_or_default());
                continue;
            }
            let secret = bytes.get_mut(start..end).unwrap_or_default();
            for byte in secret.iter_mut().filter(|b| !matches!(b, b'\n' | b'\r')) {
                *byte = b'*';
                found = true;
            }
        }
    }
    for value in secret_tables::values(text) {
        let secret = bytes.get_mut(value).unwrap_or_default();
        for byte in secret.iter_mut().filter(|b| !matches!(b, b'\n' | b'\r')) {
            *byte = b'*';
            found = true;
        }
    }
    match String::from_utf8(bytes) {
        Ok(masked) if found => Cow::Owned(masked),
        Ok(_) | Err(_) => Cow::Borrowed(text),
    }
}

/// Where the value of a key that ends at `at` stands, without its quotes; `bare` if no `=` is
/// needed, as in keepalived.conf.
fn value_after(text: &str, at: usize, bare: bool) -> Option<(usize, usize)> {
    let rest = text.get(at..)?;
    let gap = |t: &str| t.len() - t.trim_start_matches([' ', '\t']).len();
    let unquoted = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let mut start = at + (rest.len() - unquoted.len()) + gap(unquoted);
    let after = text.get(start..)?;
    match after.strip_prefix(['=', ':']) {
        Some(value) => start += 1 + gap(value),
        None if bare && gap(unquoted) > 0 => {}
        None => return None,
    }
    let value = text.get(start..)?;
    for (quote, is_last) in [
        ("\"\"\"", None),
        ("'''", None),
        ("\"", Some('\n')),
        ("'", Some('\n')),
    ] {
        if let Some(inside) = value.strip_prefix(quote) {
            let start = start + quote.len();
            let inside = match is_last {
                Some(newline) => inside.split(newline).next().unwrap_or(inside),
                None => inside,
            };
            return Some((start, start + closing(inside, quote)));
        }
    }
    if value.starts_with('[') {
        return value.find(']').map(|length| (start, start + length));
    }
    if value.starts_with('{') {
        return None;
    }
    let length = value.find(|c: char| c.is_whitespace() || ",}#".contains(c));
    Some((start, start + length.unwrap_or(value.len())))
}

/// Whatever stands in quotes in a list, as stars.
fn mask_strings(list: &mut [u8]) -> bool {
    let (mut open, mut found) = (None, false);
    for byte in list {
        match open {
            None if matches!(*byte, b'"' | b'\'') => open = Some(*byte),
            Some(quote) if *byte == quote => open = None,
            Some(_) if !matches!(*byte, b'\n' | b'\r') => {
                *byte = b'*';
                found = true;
            }
            None | Some(_) => {}
        }
    }
    found
}

/// The bytes before the closing quote, or all.
pub(super) fn closing(inside: &str, quote: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if !escaped && inside.get(at..).is_some_and(|t| t.starts_with(quote)) {
            return at;
        }
        escaped = c == '\\' && !escaped && quote.starts_with('"');
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_become_stars_of_the_same_length() {
        for (text, expected) in [
            ("key = \"1111\" # n", "key = \"****\" # n"),
            (
                "{ type = \"pass\", key = 'a\\' }",
                "{ type = \"pass\", key = '**' }",
            ),
            ("key=hunter2}", "key=*******}"),
            ("\"key\" = \"\"\"a\nb\"\"\"", "\"key\" = \"\"\"*\n*\"\"\""),
            ("key = \"a\\\"b\", x", "key = \"****\", x"),
            ("key = \"open\nnext = 1", "key = \"****\nnext = 1"),
            ("  auth_pass 1111", "  auth_pass ****"),
            ("auth_pass = \"é\"", "auth_pass = \"**\""),
            ("password = ", "password = "),
            ("auth = \"1111\"", "auth = \"****\""),
            ("keys = \"1111\"", "keys = \"****\""),
            (
                "keys = [\"11\",\n '22']\nx = \"y\"",
                "keys = [\"**\",\n '**']\nx = \"y\"",
            ),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn what_is_no_password_stays() {
        for text in [
            "client-key = \"/etc/x\"",
            "monkey = 1",
            "# a key of the file",
            "auth = { type = \"pass\" }",
            "key = [1]",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
