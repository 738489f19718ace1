//! One table of the file against one section of the schema: unknown keys are refused at the door,
//! typed getters check type and range, and `finish` refuses whatever nobody has read, so that no
//! key can be accepted and ignored.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::value;
use crate::config::problem::Problem;
use crate::config::schema::{self, Fallback, Key, Kind, Section, Support};
use crate::units::OutOfRange;

/// Where problems go.
#[derive(Default)]
pub(in crate::config) struct Sink {
    pub(super) problems: Vec<Problem>,
    /// The text has syntax errors, so what seems to be missing may only be unreadable.
    pub(super) recovering: bool,
    errors: usize,
}

impl Sink {
    pub(super) fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.is_error());
        self.problems.push(problem);
    }

    /// How many errors there are so far.
    pub(super) const fn errors(&self) -> usize {
        self.errors
    }
}

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

/// A value of the file with its key.
pub(super) struct Given<'t, 'i> {
    pub(super) key: &'static Key,
    /// As users read it: `vip.kube.vrid`.
    pub(super) name: String,
    pub(super) key_span: Range<usize>,
    pub(super) span: Range<usize>,
    pub(super) value: &'t DeValue<'i>,
}

/// A string of the file.
pub(super) struct Text<'t> {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) text: &'t str,
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
                None => sink.push(unknown(section, &name, word, &key.span())),
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
    pub(super) fn table(&mut self, name: &str, sink: &mut Sink) -> Option<Fields<'t, 'i>> {
        let given = self.take(name, sink)?;
        let Kind::Table(path) = given.key.kind else {
            return None;
        };
        given.into_fields(path, String::new(), sink)
    }

    /// The tables below a key whose names the user chooses.
    pub(super) fn named(&mut self, name: &str, sink: &mut Sink) -> Vec<Fields<'t, 'i>> {
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
            match value.get_ref() {
                DeValue::Table(fields) => {
                    found.push(Fields::open(path, full, own, key.span(), fields, sink));
                }
                other => sink.push(
                    Problem::error("E0102", format!("`{full}` must be a table"))
                        .at(
                            &value.span(),
                            format!("this is {}", article(other.type_str())),
                        )
                        .help(format!(
                            "`{}` holds one table per name: `[{full}]`",
                            given.name
                        )),
                ),
            }
        }
        found
    }

    /// A whole number in the range of the table.
    pub(super) fn integer(&mut self, name: &str, sink: &mut Sink) -> Option<i64> {
        let given = self.take(name, sink)?;
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

impl<'t, 'i> Given<'t, 'i> {
    /// This value as the table of a section.
    pub(super) fn into_fields(
        self,
        path: &str,
        own_name: String,
        sink: &mut Sink,
    ) -> Option<Fields<'t, 'i>> {
        let DeValue::Table(table) = self.value else {
            sink.push(self.wrong_type("a table"));
            return None;
        };
        let span = if self.span.is_empty() {
            self.key_span
        } else {
            self.span
        };
        Some(Fields::open(path, self.name, own_name, span, table, sink))
    }

    /// This value as an item of a list, for the functions that report on values.
    pub(super) fn item(&self, index: usize, item: &'t Spanned<DeValue<'i>>) -> Self {
        Given {
            key: self.key,
            name: format!("{}[{index}]", self.name),
            key_span: self.key_span.clone(),
            span: item.span(),
            value: item.get_ref(),
        }
    }

    /// One value or a list of them, at least one, at most `max`.
    pub(super) fn one_or_more(self, max: usize, sink: &mut Sink) -> Vec<Self> {
        match self.value {
            DeValue::Array(items) => self.items(items, max, sink),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![self],
        }
    }

    /// The items of a list, at least one, at most `max`.
    pub(super) fn items(&self, items: &'t DeArray<'i>, max: usize, sink: &mut Sink) -> Vec<Self> {
        if items.is_empty() {
            sink.push(
                Problem::error("E0105", format!("`{}` is empty", self.name))
                    .at(&self.span, "at least one is needed"),
            );
        }
        if items.len() > max {
            sink.push(
                Problem::error("E0105", format!("`{}` is too long", self.name)).at(
                    &self.span,
                    format!("at most {max} entries, these are {}", items.len()),
                ),
            );
        }
        let listed = items.iter().take(max).enumerate();
        listed.map(|(index, item)| self.item(index, item)).collect()
    }

    /// This value as a string.
    pub(super) fn text(&self, sink: &mut Sink) -> Option<Text<'t>> {
        let DeValue::String(text) = self.value else {
            sink.push(self.wrong_type(&value::wanted(self.key.kind)));
            return None;
        };
        Some(Text {
            name: self.name.clone(),
            span: self.span.clone(),
            text,
        })
    }

    /// This value as a whole number in its key's range.
    pub(super) fn integer(&self, sink: &mut Sink) -> Option<i64> {
        let Kind::Integer { min, max } = self.key.kind else {
            return None;
        };
        let DeValue::Integer(digits) = self.value else {
            sink.push(self.wrong_type(&value::wanted(self.key.kind)));
            return None;
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.filter(|n| (min..=max).contains(n)) {
            Some(number) => Some(number),
            None => {
                sink.push(
                    Problem::error("E0105", format!("`{}` is out of range", self.name))
                        .at(&self.span, format!("it must be {min} to {max}")),
                );
                None
            }
        }
    }

    /// This value as one of its key's words.
    pub(super) fn word(&self, sink: &mut Sink) -> Option<&'static str> {
        let Kind::Choice(words) = self.key.kind else {
            return None;
        };
        let text = self.text(sink)?;
        value::choose(&text, words, sink)
    }

    /// The complaint that this value has another type.
    pub(super) fn wrong_type(&self, wanted: &str) -> Problem {
        let problem = Problem::error("E0102", format!("`{}` must be {wanted}", self.name)).at(
            &self.span,
            format!("this is {}", article(self.value.type_str())),
        );
        match (self.key.kind, self.value) {
            (Kind::Integer { .. }, DeValue::String(text)) if text.parse::<i64>().is_ok() => {
                problem.fix("write it without quotes", &self.span, text.to_string())
            }
            (Kind::Bool, DeValue::String(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => problem.fix("write", &self.span, "true"),
                "false" | "no" | "off" => problem.fix("write", &self.span, "false"),
                _ => problem,
            },
            _ => problem,
        }
    }
}

/// `a.b`, or `b` at the top of the file.
fn dotted(name: &str, key: &str) -> String {
    if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn bad_name(full: &str, span: &Range<usize>) -> Problem {
    Problem::error("E0108", format!("`{full}` has a name that lbd can't use"))
        .at(span, "use 1 to 64 letters, digits, `-`, `_` and `.`")
}

/// "Not supported yet".
pub(super) fn later(name: &str, span: &Range<usize>, doc: &str) -> Problem {
    Problem::error("E0107", format!("`{name}` is not supported yet")).at(span, doc)
}

fn unknown(section: &Section, name: &str, word: &str, span: &Range<usize>) -> Problem {
    let place = if name.is_empty() {
        "at the top of the file".to_owned()
    } else {
        format!("in `{name}`")
    };
    let problem = Problem::error("E0101", format!("unknown key `{word}` {place}"));
    if let Some(text) = schema::remark(section.path, word) {
        return problem.at(span, text);
    }
    if let Some(key) = section.key_called(word) {
        if key.support == Support::Later {
            return later(&dotted(name, key.name), span, key.doc);
        }
        return problem
            .at(span, format!("called `{}` in lb.toml", key.name))
            .fix("replace it", span, key.name);
    }
    if let Some(near) = nearest(word, section.keys.iter().map(|key| key.name)) {
        return problem
            .at(span, format!("did you mean `{near}`?"))
            .fix("replace it", span, near);
    }
    let others = schema::sections_with(word);
    if let Some(other) = others.first().filter(|_| others.len() == 1) {
        let owner = if other.is_empty() {
            "the top of the file".to_owned()
        } else {
            format!("`{other}`")
        };
        return problem.at(span, format!("this key belongs to {owner}"));
    }
    let known: Vec<String> = section
        .keys
        .iter()
        .filter(|key| key.support == Support::Supported)
        .map(|key| format!("`{}`", key.name))
        .collect();
    problem
        .at(span, "no such key")
        .help(format!("there are {}", known.join(", ")))
}

/// The candidate that is only a slip away from `word`.
pub(super) fn nearest(
    word: &str,
    candidates: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase().replace('_', "-");
    let allowed = (lower.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
