//! One log message as a value, and the visitor that takes it out of a tracing event. Pure.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// A message with its fields, free of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Message {
    pub(crate) fn of(event: &Event<'_>) -> Self {
        let mut message = Self {
            level: *event.metadata().level(),
            text: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut message);
        message
    }

    fn put(&mut self, field: &Field, value: &str) {
        let value = escape(value);
        if field.name() == "message" {
            self.text = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// Writes control characters as `\n`, `\u{1b}` and so on: what peers and servers send must not
/// start a line of its own or move the cursor of a terminal.
#[must_use]
pub fn escape(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Appends ` key=value`, the value quoted where it would not read as one word.
pub(crate) fn push_pair(line: &mut String, key: &str, value: &str) {
    line.push(' ');
    line.push_str(key);
    line.push('=');
    let one_word = !value.is_empty() && !value.contains([' ', '"', '=']);
    if one_word {
        line.push_str(value);
    } else {
        line.push('"');
        line.push_str(&value.replace('"', "\\\""));
        line.push('"');
    }
}
