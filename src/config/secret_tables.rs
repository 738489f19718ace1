//! Tables of lb.toml that hold secrets: where their values stand, whatever their keys are called. A
//! mistyped key has its secret behind it, too. Words, not syntax: it also holds for broken TOML.

use std::ops::Range;

/// What such a table is called here and elsewhere.
const TABLES: [&str; 2] = ["auth", "authentication"];
/// Keys of such a table whose values are words that everybody may see.
const OPEN: [&str; 5] = ["type", "id", "mode", "auth_type", "auth-type"];

/// The values, without their quotes.
pub(super) fn values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut in_table = false;
    let mut at = 0;
    while let Some(line) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = line.find('\n').map_or(line.len(), |end| end + 1);
        let line = line.get(..length).unwrap_or(line);
        let mut end = at + length;
        if let Some(path) = header(line) {
            in_table = is_secret(path);
        } else if in_table {
            end = end.max(inside(text, at, &mut found));
        } else if let Some(start) = own_key(line) {
            end = end.max(inside(text, at + start, &mut found));
        }
        at = end;
    }
    found
}

/// The dotted path of a table's header.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim_start().strip_prefix('[')?;
    let inner = inner.strip_prefix('[').unwrap_or(inner);
    let (path, after) = inner.split_once(']')?;
    let after = after.strip_prefix(']').unwrap_or(after).trim_start();
    // A list's items may stand on lines of their own.
    let is_header = after.is_empty() || after.starts_with('#');
    (is_header && !path.contains(['"', '\'', ',', '=', '{']) || is_secret(path)).then_some(path)
}

fn is_secret(path: &str) -> bool {
    let mut words = path
        .split('.')
        .map(|word| word.trim().trim_matches(['"', '\'']));
    words.any(|word| TABLES.contains(&word))
}

/// Where the content of such a table begins in a line with a key: behind its name.
fn own_key(line: &str) -> Option<usize> {
    TABLES.iter().find_map(|word| {
        line.match_indices(word).find_map(|(at, _)| {
            let before = line.get(..at)?.chars().next_back();
            if before.is_some_and(|c| c.is_ascii_alphanumeric() || "_-#".contains(c)) {
                return None;
            }
            let end = at + word.len();
            let rest = line.get(end..)?;
            let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start();
            // `auth = {`, `auth.key = `; what else `auth` may be has rules of its own.
            let value = rest.strip_prefix('=').map(str::trim_start);
            let is_table = value.is_some_and(|value| value.starts_with(['{', '[']));
            (is_table || rest.starts_with('.')).then_some(end)
        })
    })
}

/// Adds the values from `start` to the end of the line, or of the last of them that begins there;
/// says where that is.
fn inside(text: &str, start: usize, found: &mut Vec<Range<usize>>) -> usize {
    let (mut at, mut key, mut is_value) = (start, "", false);
    while let Some(next) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or("");
        match next {
            '\n' | '#' => break,
            '"' | '\'' => {
                let (inner, end) = quoted(rest);
                let inner = at + inner.start..at + inner.end;
                at += end;
                let after = text.get(at..).unwrap_or("").trim_start_matches([' ', '\t']);
                if !is_value && after.starts_with(['=', '.']) {
                    key = text.get(inner).unwrap_or("");
                } else if !OPEN.contains(&key) {
                    found.push(inner);
                }
                continue;
            }
            '=' => is_value = true,
            ',' => is_value = false,
            '{' => (is_value, key) = (false, ""),
            '[' | ']' | '}' | '.' | ' ' | '\t' | '\r' => {}
            _ => {
                let length = rest.find(|c: char| c.is_whitespace() || ",=#]}".contains(c));
                // A name may be dotted; a bare value goes on to the next space.
                let name = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
                let length = if is_value { length } else { name };
                let end = at + length.unwrap_or(rest.len()).max(next.len_utf8());
                if !is_value {
                    key = text.get(at..end).unwrap_or("");
                } else if !OPEN.contains(&key) {
                    found.push(at..end);
                }
                at = end;
                continue;
            }
        }
        at += next.len_utf8();
    }
    at
}

/// What stands between the quotes that `text` begins with, and where it ends with them. A string
/// without an end ends with its line, if it may have but one.
fn quoted(text: &str) -> (Range<usize>, usize) {
    for (quote, lines) in [("\"\"\"", true), ("'''", true), ("\"", false), ("'", false)] {
        let Some(inner) = text.strip_prefix(quote) else {
            continue;
        };
        let inner = if lines {
            inner
        } else {
            inner.split('\n').next().unwrap_or(inner)
        };
        let start = quote.len();
        let end = start + super::secret::closing(inner, quote);
        return (start..end, (end + quote.len()).min(start + inner.len()));
    }
    (0..0, 1)
}

#[cfg(test)]
mod tests {
    use super::super::secret::masked;

    #[test]
    fn a_mistyped_key_of_a_table_with_secrets_hides_its_value_too() {
        for (text, expected) in [
            (
                "auth = { type = \"pass\", kez = \"1111\" } # n",
                "auth = { type = \"pass\", kez = \"****\" } # n",
            ),
            ("auth.kez = \"1111\"", "auth.kez = \"****\""),
            ("authentication.x = 'a' # b", "authentication.x = '*' # b"),
            (
                "[vip.a.auth]\ntype = \"hmac\"\nkex = \"s1\"\n[vip.b]\nvrid = \"x\"",
                "[vip.a.auth]\ntype = \"hmac\"\nkex = \"**\"\n[vip.b]\nvrid = \"x\"",
            ),
            (
                "[[vip.\"a b\".\"auth\".keys]]\nid = 1\n\"kye\" = hunter2! # n",
                "[[vip.\"a b\".\"auth\".keys]]\nid = 1\n\"kye\" = ******** # n",
            ),
            (
                "auth = { type = \"hmac\", kys = [{ id = 1, kay = \"s1\" }, \"s2\"] }",
                "auth = { type = \"hmac\", kys = [{ id = 1, kay = \"**\" }, \"**\"] }",
            ),
            ("# auth = { x = \"s1\" }", "# auth = { x = \"**\" }"),
            // No TOML, but what somebody may have written.
            ("auth = { kez \"1111\" }", "auth = { kez \"****\" }"),
            ("auth = { kez = 'é'", "auth = { kez = '**'"),
            ("[vip.a.auth]\nkez: \"1\n", "[vip.a.auth]\nkez: \"*\n"),
            (
                "[vip.a.auth]\nx = \"\"\"a\nb\"\"\"\nmode = \"enforce\"",
                "[vip.a.auth]\nx = \"\"\"*\n*\"\"\"\nmode = \"enforce\"",
            ),
            (
                "[vip.a.auth]\nkys = [\n  \"s1\",\n  [\"s2\"]\n]",
                "[vip.a.auth]\nkys = [\n  \"**\",\n  [\"**\"]\n]",
            ),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn tables_without_secrets_are_shown() {
        for text in [
            "author = { x = \"y\" }",
            "[proxy.a]\nlisten = \"1.2.3.4:5\"",
            "[vip.a.auth]\n[vip.b]\naddress = \"10.0.0.1/24\"",
            "notify = [\"/usr/bin/auth\", \"x\"]",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
