//! Every directive of every input, and what became of it. A directive is entered when it is read,
//! so that none can be lost without a word: what nobody translates is listed as not translated.

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
    text: String,
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
    /// Enters a directive.
    pub(super) fn open(&mut self, file: &str, line: usize, text: &str) -> Id {
        self.drafts.push(Draft {
            file: file.to_owned(),
            line,
            text: words::shown(text),
            fate: None,
            notes: Vec::new(),
            otherwise: None,
        });
        Id(self.drafts.len() - 1)
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

    /// All entries, in the order of the inputs.
    pub(super) fn close(self) -> Vec<Entry> {
        let entries = self.drafts.into_iter().map(|draft| {
            let (fate, notes) = match (draft.fate, draft.otherwise) {
                (Some(fate), _) => (fate, draft.notes),
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
                file: draft.file,
                line: draft.line,
                text: draft.text,
                fate,
                notes,
            }
        });
        entries.collect()
    }
}
