//! One value of the file with its key: its type, its range, its place. Also the sink that problems
//! are collected in.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::fields::Fields;
use super::unknown::article;
use super::value;
use crate::config::problem::Problem;
use crate::config::schema::{Key, Kind};

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
        let (Kind::Integer { min, max } | Kind::IntegerOr { min, max, .. }) = self.key.kind else {
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

    /// Whether it is the word that its key takes in place of a number.
    pub(super) fn is_the_word(&self) -> bool {
        match (self.key.kind, self.value) {
            (Kind::IntegerOr { word, .. }, DeValue::String(text)) => text.as_ref() == word,
            _ => false,
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
            (Kind::Integer { .. } | Kind::IntegerOr { .. }, DeValue::String(text))
                if text.parse::<i64>().is_ok() =>
            {
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
