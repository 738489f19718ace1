//! haproxy.cfg as sections of directives: words, quotes, escapes, comments, continued lines
//! (HAProxy's configuration manual, 2.2), with what `env` knows of variables and `condition` of `.if`.
//! What a template still has to fill in and what only the host of the file can decide is entered as
//! not translated and left out, with the lines that could belong to one section or to another.

use super::super::ledger::{Fate, Id, Ledger};
use super::super::words;
use super::condition;
use super::env::{self, Env, Known, Words};
use super::lines::{lines, without_comment};

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

/// What becomes of the lines in a branch of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Branch {
    /// They count.
    Read,
    /// They don't.
    Skip,
    /// Only the host of the file can say.
    Open,
}

/// An `.if` that has no `.endif` yet.
#[derive(Debug)]
struct Frame {
    id: Id,
    outer: Branch,
    now: Branch,
    /// Whether one of its branches surely counts.
    decided: bool,
    /// Whether one of its branches perhaps counts.
    doubtful: bool,
    /// Whether a section begins in a branch that perhaps counts.
    sections: bool,
    /// Whether its `.else` is behind.
    last: bool,
}

struct Reader<'a> {
    file: &'a str,
    ledger: &'a mut Ledger,
    env: Env,
    frames: Vec<Frame>,
    /// The condition that decides in which section the lines stand.
    adrift: Option<Id>,
    found: Vec<Section>,
    placeholders: Vec<String>,
}

/// All sections of a file, and the placeholders that were left out.
pub(super) fn sections(file: &str, text: &str, ledger: &mut Ledger) -> (Vec<Section>, Vec<String>) {
    let mut reader = Reader {
        file,
        ledger,
        env: Env::default(),
        frames: Vec::new(),
        adrift: None,
        found: Vec::new(),
        placeholders: Vec::new(),
    };
    for (line, text) in lines(text) {
        reader.line(line, &text);
    }
    for frame in std::mem::take(&mut reader.frames) {
        reader.ledger.mark(
            frame.id,
            Fate::Lost,
            "it has no .endif: HAProxy refuses the file",
        );
    }
    (reader.found, reader.placeholders)
}

impl Reader<'_> {
    fn line(&mut self, line: usize, text: &str) {
        let plain = without_comment(text);
        let read = env::words(plain, &self.env);
        let Some(first) = read.words.first().cloned() else {
            if !plain.is_empty() {
                let id = self.ledger.open(self.file, line, plain);
                self.ledger
                    .mark(id, Fate::NotNeeded, "it stands for nothing");
            }
            return;
        };
        let id = self.ledger.open(self.file, line, plain);
        self.hide(id, &read);
        if let Some(why) = read.broken {
            self.ledger.mark(id, Fate::Lost, why);
        }
        if first.starts_with('.') {
            self.directive(id, &first, &read);
            return;
        }
        let branch = self.frames.last().map_or(Branch::Read, |frame| frame.now);
        match branch {
            Branch::Read => {}
            Branch::Skip => {
                self.ledger
                    .mark(id, Fate::NotNeeded, "its condition doesn't hold");
                return;
            }
            Branch::Open => {
                if KINDS.contains(&first.as_str())
                    && let Some(frame) = self.frames.last_mut()
                {
                    frame.sections = true;
                }
                if let Some(frame) = self.frames.last() {
                    self.env.perhaps(&read.words, frame.id);
                }
                let place = self.frames.last().map(|frame| self.ledger.place(frame.id));
                let why = format!("the condition at {} decides", place.unwrap_or_default());
                self.ledger.mark(id, Fate::Lost, why);
                return;
            }
        }
        // A section begins however broken its line is.
        let section = KINDS.contains(&first.as_str());
        if read.broken.is_some() && !section || self.is_template(id, plain, &read) {
            self.env.perhaps(&read.words, id);
            return;
        }
        self.counts(id, first, read);
    }

    /// A line that counts.
    fn counts(&mut self, id: Id, first: String, read: Words) {
        for name in &read.defaulted {
            let other = match self.env.doubt(name) {
                Some(by) => self.ledger.place(by),
                None => "the service's environment".to_owned(),
            };
            let why = format!("`{name}` has its default here; {other} may say otherwise");
            self.ledger.mark(id, Fate::Changed, why);
        }
        if KINDS.contains(&first.as_str()) {
            self.adrift = None;
            self.found.push(Section {
                id,
                kind: first,
                arguments: read.words.into_iter().skip(1).collect(),
                directives: Vec::new(),
            });
            return;
        }
        if let Some(condition) = self.adrift {
            self.env.perhaps(&read.words, condition);
            let place = self.ledger.place(condition);
            let why = format!("the condition at {place} decides in which section it stands");
            self.ledger.mark(id, Fate::Lost, why);
            return;
        }
        let global = self
            .found
            .last()
            .is_some_and(|section| section.kind == "global");
        if global && self.variable(id, &first, &read.words) {
            return;
        }
        let negated = first == "no" && read.words.len() > 1;
        let words = read.words.into_iter().skip(usize::from(negated)).collect();
        match self.found.last_mut() {
            Some(section) => section.directives.push(Directive { id, words, negated }),
            None => self
                .ledger
                .mark(id, Fate::Lost, "it stands before the first section"),
        }
    }

    /// `setenv` and its kin.
    fn variable(&mut self, id: Id, first: &str, words: &[String]) -> bool {
        let rest = words.get(1..).unwrap_or_default();
        let (fate, why) = match (first, rest) {
            ("setenv" | "presetenv", [_, value]) if value.is_empty() => {
                (Fate::Lost, "HAProxy refuses an empty value")
            }
            ("setenv", [name, value]) => {
                self.env.set(name, value);
                (Fate::NotNeeded, "put in where it is used")
            }
            ("presetenv", [name, value]) => match self.env.get(name) {
                Known::Set(..) => (Fate::NotNeeded, "it is set before"),
                Known::Unset => {
                    self.env.set(name, value);
                    (Fate::NotNeeded, "put in where it is used")
                }
                Known::Elsewhere => {
                    self.env.set(name, value);
                    (
                        Fate::Changed,
                        "put in where it is used, unless the service's environment has another",
                    )
                }
            },
            ("unsetenv", names) => {
                self.env.unset(names);
                (Fate::NotNeeded, "nothing is put in from here on")
            }
            ("resetenv", names) => {
                self.env.reset(names);
                (Fate::NotNeeded, "nothing else is put in from here on")
            }
            _ => return false,
        };
        self.ledger.mark(id, fate, why);
        true
    }

    /// Shows no password, however it is put together, and no value of a variable: it may be one.
    fn hide(&mut self, id: Id, read: &Words) {
        let words: Vec<&str> = read.words.iter().map(String::as_str).collect();
        if let [first @ ("setenv" | "presetenv"), name, ..] = words.as_slice() {
            let name = name.split('=').next().unwrap_or("");
            let text = words::shown(&format!("{first} {name} {}", words::STARS));
            self.ledger.hide(id, text);
        } else if words::is_secret(&words) && words.len() > 1 {
            self.ledger.star(id);
        }
    }

    /// Whether something is still to be filled in, which is entered then.
    fn is_template(&mut self, id: Id, plain: &str, read: &Words) -> bool {
        let bare = words::placeholder(&read.bare).filter(|_| plain.contains(['{', '<']));
        let Some(found) = bare.or(read.unknown.as_deref()) else {
            return false;
        };
        let name = found.trim_matches(['$', '{', '}']);
        let known = matches!(self.env.get(name), Known::Set(..)) && read.unknown.is_none();
        if known {
            let why = format!("HAProxy puts `{found}` in between double quotes alone");
            self.ledger.mark(id, Fate::Lost, why);
            return true;
        }
        let inside = name.split('[').next().unwrap_or(name);
        if let Some(by) = self.env.doubt(inside).filter(|_| read.unknown.is_some()) {
            let place = self.ledger.place(by);
            let why = format!("{place} decides what `{found}` stands for");
            self.ledger.mark(id, Fate::Lost, why);
            return true;
        }
        self.ledger.mark(
            id,
            Fate::Lost,
            format!("`{found}` is still to be filled in"),
        );
        self.placeholders.push(found.to_owned());
        true
    }

    /// `.if` and the like.
    fn directive(&mut self, id: Id, first: &str, read: &Words) {
        let now = self.frames.last().map_or(Branch::Read, |frame| frame.now);
        let text = read.words.get(1..).unwrap_or_default().join(" ");
        // A default isn't sure here: the host's environment may have another value.
        let sure = read.defaulted.is_empty() && read.broken.is_none();
        let holds = condition::holds(&text, &self.env).filter(|_| sure);
        match first {
            ".if" => {
                let (branch, decided) = match (now, holds) {
                    (Branch::Read, Some(true)) => (Branch::Read, true),
                    (Branch::Read, None) => (Branch::Open, false),
                    (Branch::Read, Some(false)) | (Branch::Skip, _) => (Branch::Skip, false),
                    (Branch::Open, _) => (Branch::Open, false),
                };
                self.frames.push(Frame {
                    id,
                    outer: now,
                    now: branch,
                    decided,
                    doubtful: branch == Branch::Open,
                    sections: false,
                    last: false,
                });
                self.said(id, now, branch);
            }
            ".elif" | ".else" => {
                let holds = if first == ".else" { Some(true) } else { holds };
                let Some(frame) = self.frames.last_mut().filter(|frame| !frame.last) else {
                    self.ledger.mark(
                        id,
                        Fate::Lost,
                        "it belongs to no .if: HAProxy refuses the file",
                    );
                    return;
                };
                frame.last = first == ".else";
                let outer = frame.outer;
                if outer == Branch::Read {
                    frame.now = match (frame.decided, holds, frame.doubtful) {
                        (true, ..) | (false, Some(false), _) => Branch::Skip,
                        (false, Some(true), false) => Branch::Read,
                        (false, None, _) | (false, Some(true), true) => Branch::Open,
                    };
                    frame.decided |= holds == Some(true);
                    frame.doubtful |= frame.now == Branch::Open;
                }
                let branch = frame.now;
                self.said(id, outer, branch);
            }
            ".endif" => self.end(id),
            ".notice" | ".warning" | ".diag" | ".alert" => {
                let (fate, why) = match (now, first) {
                    (Branch::Skip, _) => (Fate::NotNeeded, "its condition doesn't hold"),
                    (Branch::Read, ".alert") => (Fate::Lost, "HAProxy refuses the file here"),
                    (Branch::Open, ".alert") => {
                        (Fate::Lost, "where it counts, HAProxy refuses the file")
                    }
                    (Branch::Read | Branch::Open, _) => (Fate::NotNeeded, "a word at the start"),
                };
                self.ledger.mark(id, fate, why);
            }
            _ => self
                .ledger
                .mark(id, Fate::Lost, "lbd knows nothing like it"),
        }
    }

    fn end(&mut self, id: Id) {
        let Some(frame) = self.frames.pop() else {
            self.ledger.mark(
                id,
                Fate::Lost,
                "it belongs to no .if: HAProxy refuses the file",
            );
            return;
        };
        if frame.sections {
            match self.frames.last_mut() {
                Some(outer) if outer.now == Branch::Open => outer.sections = true,
                Some(_) | None => self.adrift = Some(frame.id),
            }
        }
        let branch = if frame.doubtful {
            Branch::Open
        } else {
            Branch::Read
        };
        self.said(id, frame.outer, branch);
    }

    /// Enters a condition whose lines become that.
    fn said(&mut self, id: Id, outer: Branch, branch: Branch) {
        let (fate, why) = match (outer, branch) {
            (Branch::Skip, _) => (Fate::NotNeeded, "the condition around it doesn't hold"),
            (_, Branch::Open) => (
                Fate::Lost,
                "known only where HAProxy runs: ask `haproxy -cc` there, and keep the lines that count",
            ),
            (_, Branch::Read) => (Fate::NotNeeded, "what follows counts"),
            (_, Branch::Skip) => (Fate::NotNeeded, "what follows doesn't count"),
        };
        self.ledger.mark(id, fate, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections with the first words of their lines, and the numbers of what is lost.
    fn shape(text: &str) -> (String, Vec<usize>) {
        let mut ledger = Ledger::default();
        let (found, _) = sections("h", text, &mut ledger);
        let mut shown = String::new();
        for section in &found {
            shown.push_str(&format!("{} {}:", section.kind, section.name()));
            for directive in &section.directives {
                shown.push_str(&directive.words.join(" "));
                shown.push(';');
                ledger.mark(directive.id, Fate::Exact, "");
            }
            ledger.mark(section.id, Fate::Exact, "");
        }
        let lost = ledger.close().into_iter().filter(|e| e.fate == Fate::Lost);
        (shown, lost.map(|entry| entry.line).collect())
    }

    #[test]
    fn a_condition_that_the_file_decides_is_decided() {
        let text = "global\n setenv A 1\n.if defined(A)\n a\n .if 0\n  b\n .elif streq(\"$A\",1)\n  c\n .elif 1\n  d\n .else\n  e\n .endif\n.else\n f\n .alert \"x\"\n.endif\ng\n.notice hello\n";
        assert_eq!(shape(text), ("global :a;c;g;".to_owned(), vec![]));
        // A branch with a section, and the lines behind it.
        let text = ".if 1\nfrontend a\n.else\nfrontend b\n.endif\n x\n";
        assert_eq!(shape(text), ("frontend a:x;".to_owned(), vec![]));
        let text = "global\n setenv A 1\n unsetenv A\n.if defined(A)\n a\n.endif\n.alert no\n";
        assert_eq!(shape(text), ("global :".to_owned(), vec![7]));
    }

    #[test]
    fn lines_never_go_to_a_section_that_a_condition_elsewhere_decides() {
        let text = "frontend a\n x\n.if feature(Q)\n y\n.endif\n z\n";
        assert_eq!(shape(text), ("frontend a:x;z;".to_owned(), vec![3, 4, 5]));
        let text = "frontend a\n x\n.if feature(Q)\nfrontend b\n y\n.endif\n z\nbackend c\n w\n";
        assert_eq!(
            shape(text),
            ("frontend a:x;backend c:w;".to_owned(), vec![3, 4, 5, 6, 7])
        );
        let text = ".if defined(Q)\n.if 1\nfrontend b\n.endif\n.elif 0\n p\n.else\nfrontend c\n.endif\n z\n";
        assert_eq!(shape(text), (String::new(), vec![1, 2, 3, 4, 7, 8, 9, 10]));
        // What is sure behind a doubt is a doubt, too; what is behind something sure is not read.
        let text = "global\n.if feature(Q)\n a\n.elif 1\n b\n.elif 1\n c\n.else\n d\n.endif\n e\n";
        assert_eq!(shape(text).0, "global :e;");
        assert_eq!(shape(text).1, [2, 3, 4, 5, 10]);
        assert_eq!(shape("global\n.else\n a\n.endif\n.if 1\n b\n").1, [2, 4, 5]);
    }
}
