//! A section with the `defaults` that stand behind it: which of several lines counts.

use super::super::Work;
use super::super::ledger::{Fate, Id};
use super::super::words;
use super::lex::{Directive, Section};

/// A section and its defaults.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) own: &'a Section,
    pub(super) defaults: Option<&'a Section>,
}

impl<'a> View<'a> {
    /// Whether this frontend sends to that backend.
    pub(super) fn uses(&self, back: &View<'_>) -> bool {
        let named = self.all(&["default_backend"]);
        named.last().is_some_and(|d| d.word(1) == back.own.name())
    }

    /// All own lines that begin so, or, if there is none, those of the defaults.
    pub(super) fn all(&self, start: &[&str]) -> Vec<&'a Directive> {
        let of = |section: &'a Section| -> Vec<&'a Directive> {
            section.directives.iter().filter(|d| d.is(start)).collect()
        };
        let own = of(self.own);
        if own.is_empty() {
            self.defaults.map(of).unwrap_or_default()
        } else {
            own
        }
    }

    /// The line that counts: the last own one, else the last of the defaults. The others are
    /// entered as overridden.
    pub(super) fn last(&self, start: &[&str], work: &mut Work) -> Option<&'a Directive> {
        let counts = self.all(start).last().copied();
        if let Some(counts) = counts {
            let note = format!("{} counts", work.ledger.place(counts.id));
            let sections = [Some(self.own), self.defaults];
            let lines = sections.into_iter().flatten().flat_map(|s| &s.directives);
            for other in lines.filter(|d| d.is(start) && d.id != counts.id) {
                work.ledger
                    .otherwise(other.id, Fate::NotNeeded, note.clone());
            }
        }
        counts
    }

    /// Whether an option is on, and the line that says so.
    pub(super) fn option(&self, name: &str, work: &mut Work) -> Option<&'a Directive> {
        self.last(&["option", name], work).filter(|d| !d.negated)
    }

    /// A time in milliseconds within a key's range, with its line; 0, HAProxy's "for ever", is
    /// the longest.
    pub(super) fn time(
        &self,
        names: &[&[&str]],
        (min, max): (u64, u64),
        work: &mut Work,
    ) -> Option<(u64, Id)> {
        let found: Vec<&Directive> = names.iter().filter_map(|n| self.last(n, work)).collect();
        let directive = *found.first()?;
        let at = usize::from(directive.word(0) == "timeout") + 1;
        let Some(ms) = words::milliseconds(directive.word(at)) else {
            work.ledger.mark(directive.id, Fate::Lost, "not a time");
            return None;
        };
        let wanted = if ms == 0 { max } else { ms };
        let fit = wanted.clamp(min, max);
        if fit != ms {
            let note = format!("lbd has {} at most", words::duration(max).replace('"', ""));
            let note = if ms == 0 {
                format!("for ever; {note}")
            } else {
                note
            };
            let note = if fit > ms && ms != 0 {
                "shorter than lbd's shortest".to_owned()
            } else {
                note
            };
            work.ledger.mark(directive.id, Fate::Changed, note);
        }
        Some((fit, directive.id))
    }

    /// A whole number within a key's range, with its line.
    pub(super) fn number(
        &self,
        name: &str,
        (min, max): (u64, u64),
        work: &mut Work,
    ) -> Option<(u64, Id)> {
        let directive = self.last(&[name], work)?;
        let Ok(number) = directive.word(1).parse::<u64>() else {
            work.ledger.mark(directive.id, Fate::Lost, "not a number");
            return None;
        };
        if number < min {
            work.ledger
                .mark(directive.id, Fate::NotNeeded, "no limit is lbd's default");
            return None;
        }
        if number > max {
            work.ledger.mark(
                directive.id,
                Fate::Changed,
                format!("lbd has {max} at most"),
            );
        }
        Some((number.min(max), directive.id))
    }
}
