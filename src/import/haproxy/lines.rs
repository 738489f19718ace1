//! The lines of haproxy.cfg, continued ones as one, and what they are without comment.

/// Lines with their numbers; one that ends with a backslash goes on in the next.
pub(super) fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end_matches('\r');
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        let slashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
        // A comment ends with its line, whatever stands last in it.
        if slashes % 2 == 1 && without_comment(line).len() == line.trim().len() {
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

/// The line up to its comment.
pub(super) fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '#') => return line.get(..at).unwrap_or(line).trim(),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => drop(chars.next()),
            _ => {}
        }
    }
    line.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_on_behind_a_backslash() {
        let found = lines("bind *:1 \\\n  name x\nmode tcp\\\\\n");
        assert_eq!(found[0], (1, "bind *:1   name x".to_owned()));
        assert_eq!(found[1].0, 3);
        let found = lines("mode tcp # C:\\\nbind *:1\n");
        assert_eq!(found[1], (2, "bind *:1".to_owned()));
        assert_eq!(
            without_comment(" a\\# \"x # y\" 'z # y' # why"),
            "a\\# \"x # y\" 'z # y'"
        );
    }
}
