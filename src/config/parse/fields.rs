//! One table of the file against one section of the schema: unknown keys are refused at the door,
//! typed getters check type and range, and `finish` refuses whatever nobody has read, so that no
//! key can be accepted and ignored.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::given::{Given, Sink, Text};
use super::unknown::{article, bad_name, dotted, later, unknown};
use super::value;
use crate::config::problem::Problem;
use crate::config::schema::{self, Fallback, Key, Kind, Section, Support};
use crate::units::OutOfRange;

/// A table of the file.
pub(super) struct Fields<'t, 'i> {
    section: &'static Section,
    /// As users read it: `vip.kube`.
    name: String,
    own_name: String,
    span: Range<usize>,
    entries: Vec<Entry<'t, 'i>>,
}

struct Entry<'t, 'i> {
    key: &'static Key,
    key_span: Range<usize>,
    value: &'t Spanned<DeValue<'i>>,
    read: bool,
}

impl<'t, 'i> Fields<'t, 'i> {
    /// The top of the file.
    pub(super) fn root(tree: &'t Spanned<DeTable<'i>>, sink: &mut Sink) -> Self {
        Self::open("", String::new(), String::new(), 0..0, tree.get_ref(), sink)
    }

    /// A section that the file leaves out: all defaults.
    pub(super) fn absent(path: &str) -> Self {
        Self {
            section: schema::section(path),
            name: path.to_owned(),
            own_name: String::new(),
            span: 0..0,
            entries: Vec::new(),
        }
    }

    /// `table` against the section at `path`; unknown keys and those of later releases are refused.
    pub(super) fn open(
        path: &str,
        name: String,
        own_name: String,
        span: Range<usize>,
        table: &'t DeTable<'i>,
        sink: &mut Sink,
    ) -> Self {
        let section = schema::section(path);
        let mut entries = Vec::new();
        for (key, value) in table {
            let word = key.get_ref();
            match section.key(word) {
                Some(known) if known.support == Support::Later => {
                    sink.push(later(&dotted(&name, word), &key.span(), known.doc));
                }
                Some(known) => entries.push(Entry {
                    key: known,
                    key_span: key.span(),
                    value,
                    read: false,
                }),
                None => {
                    let (problem, meant) = unknown(section, &name, word, &key.span());
                    sink.push(problem);
                    // Read it as what was meant, so that one slip is one complaint.
                    let taken = |meant: &Key| {
                        let mut read = entries.iter().map(|entry: &Entry<'_, '_>| entry.key.name);
                        table.contains_key(meant.name) || read.any(|name| name == meant.name)
                    };
                    let meant = meant.filter(|meant| !taken(meant));
                    entries.extend(meant.map(|meant| Entry {
                        key: meant,
                        key_span: key.span(),
                        value,
                        read: false,
                    }));
                }
            }
        }
        Self {
            section,
            name,
            own_name,
            span,
            entries,
        }
    }

    /// The name the user gave to this table.
    pub(super) fn own_name(&self) -> &str {
        &self.own_name
    }

    /// As users read it: `vip.kube`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The default of a key as plain text.
    pub(super) fn default_text(&self, name: &str) -> &'static str {
        self.section.key(name).map_or("", Key::default_text)
    }

    /// The value of a key, whatever its type. A required key that is missing is refused.
    pub(super) fn take(&mut self, name: &str, sink: &mut Sink) -> Option<Given<'t, 'i>> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key.name == name) else {
            let required = self
                .section
                .key(name)
                .is_some_and(|key| key.default == Fallback::Required);
            if required && !sink.recovering {
                sink.push(
                    Problem::error(
                        "E0104",
                        format!("`{}` is missing", dotted(&self.name, name)),
                    )
                    .at(&self.span, format!("`{}` needs `{name}`", self.name)),
                );
            }
            return None;
        };
        entry.read = true;
        Some(Given {
            key: entry.key,
            name: dotted(&self.name, name),
            key_span: entry.key_span.clone(),
            span: entry.value.span(),
            value: entry.value.get_ref(),
        })
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key.name == name)
    }

    /// The place of a key's value, or of the table.
    pub(super) fn span_of(&self, name: &str) -> Range<usize> {
        self.entries
            .iter()
            .find(|entry| entry.key.name == name)
            .map_or_else(|| self.span.clone(), |entry| entry.value.span())
    }

    /// Refuses what nobody has read.
    pub(super) fn finish(self, sink: &mut Sink) {
        for entry in self.entries {
            if !entry.read {
                let name = dotted(&self.name, entry.key.name);
                sink.push(later(&name, &entry.key_span, entry.key.doc));
            }
        }
    }

    /// Whether `type` holds one of its words.
    pub(super) fn has_known_type(&self) -> bool {
        let Some(entry) = self.entries.iter().find(|entry| entry.key.name == "type") else {
            return true;
        };
        match (entry.key.kind, entry.value.get_ref()) {
            (Kind::Choice(words), DeValue::String(text)) => words.iter().any(|w| w.word == text),
            _ => false,
        }
    }

    /// Refuses what nobody has read, because it has no meaning in `place`.
    pub(super) fn refuse_unread(self, place: &str, sink: &mut Sink) {
        for entry in self.entries.iter().filter(|entry| !entry.read) {
            let name = dotted(&self.name, entry.key.name);
            sink.push(
                Problem::error("E0109", format!("`{name}` has no meaning here"))
                    .at(&entry.key_span, format!("{place} doesn't use it")),
            );
        }
    }

    /// A table below this one.
    pub(super) fn table(&mut self, name: &str, sink: &mut Sink) -> Option<Self> {
        let given = self.take(name, sink)?;
        let Kind::Table(path) = given.key.kind else {
            return None;
        };
        given.into_fields(path, String::new(), sink)
    }

    /// The tables below a key whose names the user chooses.
    pub(super) fn named(&mut self, name: &str, sink: &mut Sink) -> Vec<Self> {
        let Some(given) = self.take(name, sink) else {
            return Vec::new();
        };
        let (DeValue::Table(table), Kind::Named(path)) = (given.value, given.key.kind) else {
            let wanted = format!("tables such as `[{}.NAME]`", given.name);
            sink.push(given.wrong_type(&wanted));
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in table {
            let own = key.get_ref().to_string();
            let full = dotted(&given.name, &own);
            if !value::is_name(&own) {
                sink.push(bad_name(&full, &key.span()));
            }
            if let DeValue::Table(fields) = value.get_ref() {
                found.push(Self::open(path, full, own, key.span(), fields, sink));
                continue;
            }
            let kind = article(value.get_ref().type_str());
            sink.push(
                Problem::error("E0102", format!("`{full}` must be a table"))
                    .at(&value.span(), format!("this is {kind}"))
                    .help(format!(
                        "`{}` holds one table per name: `[{full}]`",
                        given.name
                    )),
            );
        }
        found
    }

    /// A whole number in the range of the table.
    pub(super) fn integer(&mut self, name: &str, sink: &mut Sink) -> Option<i64> {
        let given = self.take(name, sink)?;
        given.integer(sink)
    }

    /// A whole number in the range of the table; `None` for its key's word, too.
    pub(super) fn integer_or_word(&mut self, name: &str, sink: &mut Sink) -> Option<i64> {
        let given = self.take(name, sink)?;
        if given.is_the_word() {
            return None;
        }
        given.integer(sink)
    }

    /// The same as a type of [`crate::units`].
    pub(super) fn unit<T: TryFrom<i64, Error = OutOfRange>>(
        &mut self,
        name: &str,
        sink: &mut Sink,
    ) -> Option<T> {
        let span = self.span_of(name);
        let number = match self.integer(name, sink) {
            Some(number) => number,
            None => self.default_text(name).parse().ok()?,
        };
        match T::try_from(number) {
            Ok(value) => Some(value),
            Err(error) => {
                let name = dotted(&self.name, name);
                sink.push(
                    Problem::error("E0105", format!("`{name}` is out of range"))
                        .at(&span, error.to_string()),
                );
                None
            }
        }
    }

    /// A whole number from 1.
    pub(super) fn count_u32(&mut self, name: &str, sink: &mut Sink) -> Option<NonZeroU32> {
        let number = self.integer(name, sink)?;
        u32::try_from(number).ok().and_then(NonZeroU32::new)
    }

    /// A whole number that fits a byte, or its default.
    pub(super) fn byte(&mut self, name: &str, sink: &mut Sink) -> u8 {
        let number = self
            .integer(name, sink)
            .or_else(|| self.default_text(name).parse().ok());
        number.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
    }

    /// `true` or `false`, if given.
    pub(super) fn boolean(&mut self, name: &str, sink: &mut Sink) -> Option<bool> {
        let given = self.take(name, sink)?;
        match given.value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                sink.push(given.wrong_type("`true` or `false`"));
                None
            }
        }
    }

    /// `true` or `false`, or its default.
    pub(super) fn flag(&mut self, name: &str, sink: &mut Sink) -> bool {
        let default = self.default_text(name) == "true";
        self.boolean(name, sink).unwrap_or(default)
    }

    /// A string, if given.
    pub(super) fn text(&mut self, name: &str, sink: &mut Sink) -> Option<Text<'t>> {
        let given = self.take(name, sink)?;
        given.text(sink)
    }

    /// One of the words of a choice, or its default.
    pub(super) fn word(&mut self, name: &str, sink: &mut Sink) -> &'static str {
        let default = self.default_text(name);
        let Some(given) = self.take(name, sink) else {
            return default;
        };
        given.word(sink).unwrap_or(default)
    }

    /// A duration, if given; `"off"` is zero.
    pub(super) fn time_given(&mut self, name: &str, sink: &mut Sink) -> Option<Duration> {
        let given = self.take(name, sink)?;
        value::duration(&given, sink)
    }

    /// A duration, or its default; `"off"` is zero.
    pub(super) fn time(&mut self, name: &str, sink: &mut Sink) -> Duration {
        let default = value::plain_duration(self.default_text(name)).unwrap_or_default();
        self.time_given(name, sink).unwrap_or(default)
    }

    /// The same, `None` for `"off"`.
    pub(super) fn time_or_off(&mut self, name: &str, sink: &mut Sink) -> Option<Duration> {
        Some(self.time(name, sink)).filter(|time| !time.is_zero())
    }

    /// An absolute path, if given.
    pub(super) fn absolute_path(&mut self, name: &str, sink: &mut Sink) -> Option<PathBuf> {
        let text = self.text(name, sink)?;
        if text.text.starts_with('/') && !text.text.contains('\0') {
            return Some(PathBuf::from(text.text));
        }
        sink.push(
            Problem::error("E0108", format!("`{}` must be an absolute path", text.name))
                .at(&text.span, "it must begin with `/`"),
        );
        None
    }
}
