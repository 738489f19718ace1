//! The lines of keepalived.conf as keepalived reads them: without comments and without what holds
//! for another node (`@node`), with parameters (`$NAME=value`, over several lines, too) put in where
//! they are used, and repeated as `~SEQ` and `~LST` say. Each keeps the line of the file it is from,
//! so that whatever is used, however often, has a verdict there.

use std::collections::BTreeMap;

use super::super::ledger::{Fate, Ledger};
use super::super::words;
use super::sequence::{Repeat, repeat};
use super::text::{
    Definition, Line, Place, Read, WHO, braces, definition, goes_on, head, named, own,
    without_braces, without_comment, without_slash,
};

/// No parameter stands for parameters that stand for parameters for longer.
const NESTED_MAX: usize = 8;
/// No more lines come of definitions and sequences.
const LINES_MAX: usize = 20_000;
/// No line is longer, before and after everything is put in, in bytes.
const LINE_MAX: usize = 4_096;
/// No more is put in and repeated over all lines of a file, in bytes.
const BYTES_MAX: usize = 8 * 1024 * 1024;

struct Reader<'a> {
    file: &'a str,
    host: Option<&'a str>,
    ledger: &'a mut Ledger,
    read: Read,
    /// All definitions; a later one of a name takes its place in `known`.
    all: Vec<Definition>,
    known: BTreeMap<String, usize>,
    /// Braces that stand open in lines that are left out.
    open: usize,
    /// How many lines came of definitions and sequences.
    fed: usize,
    /// How much was put in and repeated, in bytes.
    bytes: usize,
    /// The line of the file that is read, and its text.
    top: (Place, String),
    /// Whether it is said that too much comes of it.
    told: bool,
}

/// The lines of a file; `host` is the node it belongs to.
pub(super) fn read(file: &str, host: Option<&str>, text: &str, ledger: &mut Ledger) -> Read {
    let mut reader = Reader {
        file,
        host,
        ledger,
        read: Read::default(),
        all: Vec::new(),
        known: BTreeMap::new(),
        open: 0,
        fed: 0,
        bytes: 0,
        top: Default::default(),
        told: false,
    };
    let mut lines = (1..).zip(text.lines());
    while let Some((number, raw)) = lines.next() {
        let text = without_comment(raw);
        let place = Place {
            number,
            source: head(text),
        };
        reader.top = (place.clone(), text.to_owned());
        reader.told = false;
        reader.physical(place, text, raw, &mut lines);
    }
    reader.finish();
    reader.read
}

impl Reader<'_> {
    /// A line of the file, with those behind it that belong to its definition.
    fn physical<'t>(
        &mut self,
        place: Place,
        text: &str,
        raw: &str,
        rest: &mut impl Iterator<Item = (usize, &'t str)>,
    ) {
        let (condition, plain) = self.condition(text);
        let defines = definition(plain).map(|(name, value)| (name.to_owned(), value.to_owned()));
        match (condition, defines) {
            (Holds::Yes, Some((name, value))) => {
                let long = goes_on(raw);
                let first = without_slash(&value).to_owned();
                let mut body = Vec::new();
                if self.fits(&place, &first) && (!first.is_empty() || !long) {
                    body.push((place.clone(), first));
                }
                let mut more = long;
                while more && let Some((number, raw)) = rest.next() {
                    let text = without_slash(without_comment(raw)).to_owned();
                    more = goes_on(raw);
                    let source = head(&text);
                    let own = Place { number, source };
                    if !text.is_empty() && self.fits(&own, &text) {
                        body.push((own, text));
                    }
                }
                self.define(place, name, body, long);
            }
            _ if self.fits(&place, text) => self.feed(&place, text, 0),
            _ => {}
        }
    }

    /// Whether a line of the file is one to be read; else it is lost with what it opens and closes.
    fn fits(&mut self, place: &Place, text: &str) -> bool {
        if text.len() <= LINE_MAX {
            return true;
        }
        let shown: String = place.source.chars().take(LINE_MAX / 4).collect();
        self.read.lines.push(Line {
            number: place.number,
            source: without_braces(&shown).to_owned(),
            text: "…".to_owned(),
            lost: Some(TOO_LONG.to_owned()),
        });
        false
    }

    /// Whether too much comes of definitions and sequences, which is said of the line of the file
    /// that is read, once.
    fn overflows(&mut self) -> bool {
        let full = self.fed > LINES_MAX || self.bytes > BYTES_MAX;
        if full && !self.told {
            self.told = true;
            let (place, text) = self.top.clone();
            self.lost(
                &place,
                &text,
                "with all that is put in, the file is too long for lbd",
            );
        }
        full
    }

    fn define(&mut self, place: Place, name: String, body: Vec<(Place, String)>, long: bool) {
        self.all.push(Definition {
            place,
            body,
            long,
            said: true,
            used: false,
            secret: false,
        });
        self.known.insert(name, self.all.len() - 1);
    }

    /// A line, or what came of one by putting something in.
    fn feed(&mut self, place: &Place, text: &str, depth: usize) {
        let text = text.trim();
        if depth > 0 {
            self.fed += 1;
            self.bytes += text.len() + place.source.len();
            if self.overflows() {
                return;
            }
        }
        if text.is_empty() {
            return;
        }
        if depth > NESTED_MAX {
            self.lost(
                place,
                text,
                "its definitions stand for one another without end",
            );
            return;
        }
        if text.starts_with('@') {
            let (holds, rest) = self.condition(text);
            match holds {
                Holds::Yes => self.feed(place, rest, depth + 1),
                Holds::No => self.drop_line(place, text, Fate::NotNeeded, OTHER),
                Holds::Unknown => self.drop_line(place, text, Fate::Lost, WHO),
            }
            return;
        }
        if let Some((name, value)) = definition(text) {
            let (name, value) = (name.to_owned(), without_slash(value).to_owned());
            self.define(place.clone(), name, vec![(place.clone(), value)], false);
            return;
        }
        if text.starts_with("~SEQ") || text.starts_with("~LST") {
            self.repeated(place, text, depth);
            return;
        }
        self.put_in(place, text, depth);
    }

    fn repeated(&mut self, place: &Place, text: &str, depth: usize) {
        let (text, trouble) = if text.starts_with("~SEQ") {
            // Its numbers may be parameters, whatever follows them.
            let end = text.find(')').unwrap_or(text.len());
            let (head, rest) = text.split_at(end);
            match self.replaced(head, true) {
                Ok((head, _)) => (head + rest, None),
                Err(why) => (text.to_owned(), Some(why)),
            }
        } else {
            (text.to_owned(), None)
        };
        let found = match trouble {
            Some(why) => Err(why),
            None => repeat(&text).map_err(|refused| refused.to_string()),
        };
        let Repeat { turns, rest } = match found {
            Ok(found) => found,
            Err(why) => {
                self.lost(place, &text, &why);
                return;
            }
        };
        self.said(place, &format!("read {} times", turns.len()));
        for turn in turns {
            for (name, value) in turn {
                self.bytes += 2 * place.source.len() + value.len();
                let definition = Definition {
                    place: place.clone(),
                    body: vec![(place.clone(), value)],
                    long: false,
                    said: false,
                    used: true,
                    secret: false,
                };
                self.all.push(definition);
                self.known.insert(name, self.all.len() - 1);
            }
            self.feed(place, &rest, depth + 1);
            if self.overflows() {
                break;
            }
        }
    }

    /// Puts in what names stand for, and hands the line on.
    fn put_in(&mut self, place: &Place, text: &str, depth: usize) {
        let (made, tail) = match self.replaced(text, false) {
            Ok(made) => made,
            Err(why) => {
                self.lost(place, text, &why);
                return;
            }
        };
        if let Some(at) = tail {
            // Several lines stand at the end of this one: the first goes on where it ends.
            if let Some(definition) = self.all.get_mut(at) {
                definition.secret |= words::is_secret(&made.split_whitespace().collect::<Vec<_>>());
            }
            if self.overflows() {
                return;
            }
            let body: Vec<(Place, String)> = self
                .all
                .get(at)
                .map(|definition| definition.body.clone())
                .unwrap_or_default();
            let alone = made.trim().is_empty();
            if alone {
                self.said(place, "what it stands for is judged where it is defined");
            }
            for (index, (own, line)) in body.into_iter().enumerate() {
                if index == 0 && !alone {
                    let joined = format!("{} {line}", made.trim_end());
                    self.feed(place, &joined, depth + 1);
                } else {
                    self.feed(&own, &line, depth + 1);
                }
                if self.overflows() {
                    return;
                }
            }
            return;
        }
        if made != text && made.trim_start().starts_with(['@', '~']) {
            self.feed(place, &made, depth + 1);
            return;
        }
        if made != text {
            self.bytes += made.len();
            if self.overflows() {
                return;
            }
        }
        self.push(place, &made);
    }

    /// A line that stands for other lines has its verdict by them.
    fn said(&mut self, place: &Place, note: &str) {
        let id = self
            .ledger
            .open_in(self.file, place.number, &place.source, &place.source);
        self.ledger.mark(id, Fate::NotNeeded, note);
    }

    fn lost(&mut self, place: &Place, text: &str, why: &str) {
        self.read.lines.push(Line {
            number: place.number,
            source: place.source.clone(),
            text: text.to_owned(),
            lost: Some(why.to_owned()),
        });
    }

    /// A line that is not for this node, with the braces that it leaves open.
    fn drop_line(&mut self, place: &Place, text: &str, fate: Fate, why: &str) {
        let id = self
            .ledger
            .open_in(self.file, place.number, &place.source, text);
        self.ledger.mark(id, fate, why);
        self.count(text);
    }

    fn count(&mut self, text: &str) {
        for c in braces(text) {
            match c {
                '{' => self.open += 1,
                _ => self.open = self.open.saturating_sub(1),
            }
        }
    }

    fn push(&mut self, place: &Place, text: &str) {
        if self.open > 0 {
            let head = format!("{}:{}", self.file, place.number);
            self.read.half.push(head);
            self.count(text);
            if !without_braces(&place.source).is_empty() {
                let id = self
                    .ledger
                    .open_in(self.file, place.number, &place.source, text);
                self.ledger.mark(id, Fate::Lost, HALF);
            }
            return;
        }
        let lost = text.ends_with('\\').then(|| {
            "keepalived takes the `\\` for a part of the word: it continues definitions alone"
                .to_owned()
        });
        self.read.lines.push(Line {
            number: place.number,
            source: place.source.clone(),
            text: without_slash(text).to_owned(),
            lost,
        });
    }

    /// Whether what stands behind `@node` holds for this file's node.
    fn condition<'t>(&mut self, text: &'t str) -> (Holds, &'t str) {
        let Some(rest) = text.strip_prefix('@') else {
            return (Holds::Yes, text);
        };
        let (node, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let Some(host) = self.host else {
            return (Holds::Unknown, rest.trim());
        };
        let holds = match node.strip_prefix('^') {
            Some(other) => other != host,
            None => {
                self.read.named |= node == host;
                if node != host && !self.read.others.iter().any(|other| other == node) {
                    self.read.others.push(node.to_owned());
                }
                node == host
            }
        };
        (if holds { Holds::Yes } else { Holds::No }, rest.trim())
    }

    /// The text with each name replaced, from the left, also in what was put in; and the
    /// definition of several lines that stands at its end. `anywhere`: what follows a name need
    /// be no blank.
    fn replaced(&mut self, text: &str, anywhere: bool) -> Result<(String, Option<usize>), String> {
        let mut made = String::new();
        let mut rest = text.to_owned();
        for _ in 0..LINE_MAX {
            let Some((before, after)) = rest.split_once('$') else {
                made.push_str(&rest);
                return Ok((made, None));
            };
            self.bytes += rest.len();
            if self.bytes > BYTES_MAX {
                return Err("with all that is put in, the file is too long for lbd".to_owned());
            }
            made.push_str(before);
            let Some((name, behind)) = named(after, anywhere) else {
                made.push('$');
                rest = after.to_owned();
                continue;
            };
            if made.len() + behind.len() > LINE_MAX {
                return Err(TOO_LONG.to_owned());
            }
            let behind = behind.to_owned();
            if let Some(value) = own(name, self.host)? {
                // What is put in here is no parameter and no comment.
                made.push_str(&value);
                rest = behind;
                continue;
            }
            let Some(at) = self.known.get(name).copied() else {
                let shown = after.len() - behind.len();
                made.push('$');
                made.push_str(after.get(..shown).unwrap_or(""));
                rest = behind;
                continue;
            };
            let Some(definition) = self.all.get_mut(at) else {
                break;
            };
            definition.used = true;
            if definition.long {
                if behind.trim().is_empty() {
                    return Ok((made, Some(at)));
                }
                return Err(format!(
                    "`${name}` has several lines: keepalived puts it in at the end of a line alone"
                ));
            }
            let value = definition.body.first().map_or("", |(_, value)| value);
            rest = format!("{value}{behind}");
        }
        Err("its definitions stand for one another without end".to_owned())
    }

    /// What became of the definitions.
    fn finish(&mut self) {
        let all = std::mem::take(&mut self.all);
        for definition in all.into_iter().filter(|definition| definition.said) {
            let place = &definition.place;
            let id = self
                .ledger
                .open_in(self.file, place.number, &place.source, &place.source);
            let why = if definition.used {
                "put in where it is used"
            } else {
                "nothing uses it"
            };
            self.ledger.mark(id, Fate::NotNeeded, why);
            // What else is said of them, where they are put in, counts more.
            for (index, (own, text)) in definition.body.iter().enumerate() {
                let id = self
                    .ledger
                    .open_in(self.file, own.number, &own.source, text);
                self.ledger.mark(id, Fate::NotNeeded, why);
                if definition.secret && index == 0 && own.number != place.number {
                    self.ledger.hide(id, words::STARS.to_owned());
                }
            }
        }
    }
}

/// Whether a line holds for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Unknown,
}

const TOO_LONG: &str =
    "with what is put in, it is longer than the 4096 bytes that lbd reads of a line";
const OTHER: &str = "it holds for another node";
const HALF: &str =
    "the line that opens its block is for another node: write the same @NAME in front of each line";
