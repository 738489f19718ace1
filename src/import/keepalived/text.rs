//! What one line of keepalived.conf is made of: its place, its comment, a definition, the names in it,
//! its braces.

use super::super::words;
use super::lex::{Token, split};

/// A line to be read.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its number in the file.
    pub(super) number: usize,
    /// What stands there, without comment.
    pub(super) source: String,
    /// What keepalived reads.
    pub(super) text: String,
    /// Why it is lost, whatever it says.
    pub(super) lost: Option<String>,
}

/// What is read of a file.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) lines: Vec<Line>,
    /// Names behind `@` that are not this file's node's.
    pub(super) others: Vec<String>,
    /// Whether a line was taken because it holds for this node by name.
    pub(super) named: bool,
    /// Lines with a brace that hold for another node while what follows them doesn't say so.
    pub(super) half: Vec<String>,
}

/// Where a line is from.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) number: usize,
    pub(super) source: String,
}

/// `$NAME=value`.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) place: Place,
    /// Its lines; one, or several.
    pub(super) body: Vec<(Place, String)>,
    /// Whether its value goes over several lines.
    pub(super) long: bool,
    /// Whether a line says so; else it is a number of a sequence, or an item of a list.
    pub(super) said: bool,
    pub(super) used: bool,
    /// Whether it begins with a secret.
    pub(super) secret: bool,
}

/// What keepalived itself defines; `host` is the file's node.
pub(super) fn own(name: &str, host: Option<&str>) -> Result<Option<String>, String> {
    let name = name.split(' ').next().unwrap_or(name);
    Ok(Some(match name {
        "_HASH" => "#".to_owned(),
        "_BANG" => "!".to_owned(),
        "_INSTANCE" => match host {
            Some(host) => host.to_owned(),
            None => return Err(WHO.to_owned()),
        },
        "_PWD" => {
            return Err(
                "`${_PWD}` is the folder of this file on its node: write it out".to_owned(),
            );
        }
        "_RANDOM" => {
            return Err("`${_RANDOM}` is another number at each start: write one".to_owned());
        }
        _ => return Ok(None),
    }))
}

/// What has to be known first.
pub(super) const WHO: &str = "which node is this file's? say so with --nodes NAME=ADDRESS";

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

/// Whether a name may have this byte.
pub(super) fn is_name(b: u8) -> bool {
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

/// What a line is read by.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    Char(char),
    /// Something that a template still has to fill in, whatever stands in it.
    Placeholder(&'a str),
}

/// The pieces of a line.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    rest: &'a str,
    found: words::Placeholders,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Self {
            rest: line,
            found: words::Placeholders::default(),
        }
    }

    /// The next piece, where `plain`, outside of quotes, a placeholder as one.
    pub(super) fn next(&mut self, plain: bool) -> Option<Piece<'a>> {
        let c = self.rest.chars().next()?;
        let whole = plain.then(|| self.found.len(self.rest)).flatten();
        let (piece, rest) = self.rest.split_at_checked(whole.unwrap_or(c.len_utf8()))?;
        self.rest = rest;
        Some(if whole.is_some() {
            Piece::Placeholder(piece)
        } else {
            Piece::Char(c)
        })
    }
}

/// The line up to its comment.
pub(super) fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut pieces = Pieces::of(line);
    while let Some(piece) = pieces.next(quote.is_none()) {
        let Piece::Char(c) = piece else {
            continue;
        };
        match (quote, c) {
            (None, '#' | '!') => {
                let behind = pieces.rest.len() + c.len_utf8();
                return line.get(..line.len() - behind).unwrap_or(line).trim();
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') => drop(pieces.next(false)),
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
