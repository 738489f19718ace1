//! Every directive of every input, and what became of it. A directive is entered when it is read,
//! so that none can be lost without a word: what nobody translates is listed as not translated.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use super::words;

/// What became of a directive, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It has no purpose in lbd.
    NotNeeded,
    /// lbd does it by itself.
    Default,
    /// It has a key of the same meaning.
    Exact,
    /// It has a key, or a default, of another meaning.
    Changed,
    /// lbd doesn't do it.
    Lost,
}

impl Fate {
    /// All, in the order of a report.
    pub const ALL: [Self; 5] = [
        Self::Exact,
        Self::Default,
        Self::NotNeeded,
        Self::Changed,
        Self::Lost,
    ];

    /// For people and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotNeeded => "not needed",
            Self::Default => "default",
            Self::Exact => "exact",
            Self::Changed => "changed",
            Self::Lost => "not translated",
        }
    }
}

/// One directive of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The input's short name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// As it stands there, without comment; passwords are stars.
    pub text: String,
    /// What became of it.
    pub fate: Fate,
    /// Why, or how it differs; may be empty.
    pub notes: Vec<String>,
}

/// An entry's place in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(usize);

#[derive(Debug)]
struct Draft {
    file: String,
    line: usize,
    /// The directive as it is read, with what is put in.
    text: String,
    /// The line of the file.
    source: String,
    fate: Option<Fate>,
    notes: Vec<String>,
    /// What holds if nobody says anything else.
    otherwise: Option<(Fate, String)>,
}

/// The ledger while the inputs are translated.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    drafts: Vec<Draft>,
}

impl Ledger {
    /// Enters a directive that stands in its line as it is read.
    pub(super) fn open(&mut self, file: &str, line: usize, text: &str) -> Id {
        self.open_in(file, line, text, text)
    }

    /// Enters a directive of a line that has more, or in which something was put in: `source` is
    /// the line. However often a line is entered, it has one verdict in the end.
    pub(super) fn open_in(&mut self, file: &str, line: usize, source: &str, text: &str) -> Id {
        self.drafts.push(Draft {
            file: file.to_owned(),
            line,
            text: words::shown(text),
            source: words::shown(source),
            fate: None,
            notes: Vec::new(),
            otherwise: None,
        });
        let id = Id(self.drafts.len() - 1);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > 1 && words::is_secret(&words) {
            self.star(id);
        }
        id
    }

    /// Shows no more than the first word of a line that holds a secret, unless it hides that.
    pub(super) fn star(&mut self, id: Id) {
        let draft = self.drafts.get(id.0);
        if let Some(draft) = draft.filter(|draft| !draft.source.contains(words::STARS)) {
            let first = draft.source.split(' ').next().unwrap_or("");
            let text = format!("{first} {}", words::STARS);
            self.hide(id, text);
        }
    }

    /// Shows `text` in place of the line, which holds a secret.
    pub(super) fn hide(&mut self, id: Id, text: String) {
        if let Some(draft) = self.drafts.get_mut(id.0) {
            draft.text.clone_from(&text);
            draft.source = text;
        }
    }

    /// Says what became of it. Of several verdicts the worst counts, and all notes.
    pub(super) fn mark(&mut self, id: Id, fate: Fate, note: impl Into<String>) {
        let Some(draft) = self.drafts.get_mut(id.0) else {
            return;
        };
        draft.fate = draft.fate.max(Some(fate));
        let note = note.into();
        if !note.is_empty() && !draft.notes.contains(&note) {
            draft.notes.push(note);
        }
    }

    /// Says what became of it unless somebody else says something; the first to say so counts.
    pub(super) fn otherwise(&mut self, id: Id, fate: Fate, note: impl Into<String>) {
        if let Some(draft) = self.drafts.get_mut(id.0) {
            draft.otherwise.get_or_insert_with(|| (fate, note.into()));
        }
    }

    /// Whether somebody has said what became of it.
    pub(super) fn is_marked(&self, id: Id) -> bool {
        self.drafts
            .get(id.0)
            .is_some_and(|draft| draft.fate.is_some())
    }

    /// `FILE:LINE`.
    pub(super) fn place(&self, id: Id) -> String {
        let draft = self.drafts.get(id.0);
        draft.map_or_else(String::new, |draft| {
            format!("{}:{}", draft.file, draft.line)
        })
    }

    /// `FILE:LINE TEXT`, the comment of what was made of it.
    pub(super) fn origin(&self, id: Id) -> String {
        let draft = self.drafts.get(id.0);
        draft.map_or_else(String::new, |draft| {
            format!("{}:{} {}", draft.file, draft.line, draft.text)
        })
    }

    /// All lines, in the order of the inputs, each with one verdict.
    pub(super) fn close(self) -> Vec<Entry> {
        let mut files: Vec<String> = Vec::new();
        let mut found: BTreeMap<(usize, usize), Entry> = BTreeMap::new();
        for draft in self.drafts {
            let at = files.iter().position(|file| *file == draft.file);
            let at = at.unwrap_or_else(|| {
                files.push(draft.file.clone());
                files.len() - 1
            });
            match found.entry((at, draft.line)) {
                Slot::Vacant(slot) => drop(slot.insert(draft.closed())),
                Slot::Occupied(mut slot) => slot.get_mut().join(draft.closed()),
            }
        }
        found.into_values().collect()
    }
}

impl Draft {
    fn closed(self) -> Entry {
        let (fate, notes) = match (self.fate, self.otherwise) {
            (Some(fate), _) => (fate, self.notes),
            (None, Some((fate, note))) => (
                fate,
                Some(note)
                    .filter(|note| !note.is_empty())
                    .into_iter()
                    .collect(),
            ),
            (None, None) => (Fate::Lost, vec!["lbd knows nothing like it".to_owned()]),
        };
        Entry {
            file: self.file,
            line: self.line,
            text: self.source,
            fate,
            notes,
        }
    }
}

impl Entry {
    /// Another verdict on the same line: the worse counts, with what was said about those that
    /// are changed or lost.
    fn join(&mut self, other: Self) {
        // What hides a secret hides it, whatever else is entered for the line.
        if other.text.contains(words::STARS) && !self.text.contains(words::STARS) {
            self.text = other.text;
        }
        let tells = |fate: Fate| matches!(fate, Fate::Changed | Fate::Lost);
        if other.fate > self.fate && !tells(self.fate) {
            self.notes.clear();
        }
        if other.fate >= self.fate || tells(other.fate) {
            for note in other.notes {
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
        }
        self.fate = self.fate.max(other.fate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_read_often_has_the_worst_verdict_and_what_explains_it() {
        let mut ledger = Ledger::default();
        for (fate, note) in [
            (Fate::NotNeeded, "elsewhere"),
            (Fate::Exact, ""),
            (Fate::Changed, "shorter"),
            (Fate::Lost, "gone"),
            (Fate::NotNeeded, "elsewhere"),
        ] {
            let id = ledger.open_in("k", 3, "~SEQ(A, 1, 5) x ${A}", "x 1");
            ledger.mark(id, fate, note);
        }
        let first = ledger.open("k", 2, "y");
        ledger.mark(first, Fate::Exact, "");
        let entries = ledger.close();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].text, "y");
        assert_eq!(entries[1].text, "~SEQ(A, 1, 5) x ${A}");
        assert_eq!(entries[1].fate, Fate::Lost);
        assert_eq!(entries[1].notes, ["shorter", "gone"]);
    }
}
