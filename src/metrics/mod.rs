//! Metric families and their text form, Prometheus' text format 0.0.4. Values are read when somebody
//! asks, so there is no registry to keep up to date; samples are written down at once, so that a page
//! of hundreds of servers holds up nothing else of its thread for long. Pure.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use self::spans::Spans;

pub mod spans;

/// The HTTP content type of [`Families::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// What kind of value a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Spans of time in the buckets of [`spans`].
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A family as documented: the name ends in a unit or `_total`, the labels come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `lbd_<component>_<noun>_<unit|total>`.
    pub name: &'static str,
    /// What kind of value it holds.
    pub kind: Kind,
    /// Label names; values come from the configuration or the code, never from clients.
    pub labels: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

/// Families being filled.
#[derive(Debug, Default)]
pub struct Families {
    /// What is written of each one: its head and its samples.
    texts: Vec<String>,
    /// Where each one stands, by its name.
    places: HashMap<&'static str, usize>,
    /// The labels of the sample at hand; kept for its room.
    labels: String,
}

impl Families {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample; `labels` are the values of `family.labels`, in order.
    pub fn add(&mut self, family: &Family, labels: &[&str], value: f64) {
        self.take_labels(family, labels);
        let (text, labels) = self.text(family);
        match whole(value) {
            Some(value) => line(text, (family.name, ""), (labels, ""), value),
            None => line(text, (family.name, ""), (labels, ""), value),
        }
    }

    /// Adds a histogram to a family of that kind.
    pub fn add_spans(&mut self, family: &Family, labels: &[&str], spans: &Spans) {
        self.take_labels(family, labels);
        let (text, labels) = self.text(family);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, count) in spans::bounds().zip(spans.counts) {
            below += count;
            let le = format!("{comma}le=\"{bound}\"");
            line(text, (family.name, "_bucket"), (labels, &le), below);
        }
        let total = spans.total();
        let le = format!("{comma}le=\"+Inf\"");
        line(text, (family.name, "_bucket"), (labels, &le), total);
        let sum = Duration::from_micros(spans.micros).as_secs_f64();
        line(text, (family.name, "_sum"), (labels, ""), sum);
        line(text, (family.name, "_count"), (labels, ""), total);
    }

    /// Writes the labels down, without their braces.
    fn take_labels(&mut self, family: &Family, labels: &[&str]) {
        let text = &mut self.labels;
        text.clear();
        for (name, value) in family.labels.iter().zip(labels) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
        }
    }

    /// What is written of a family, and the labels at hand.
    fn text(&mut self, family: &Family) -> (&mut String, &str) {
        let place = *self.places.entry(family.name).or_insert(self.texts.len());
        if place == self.texts.len() {
            self.texts.push(described(family));
        }
        (&mut self.texts[place], &self.labels)
    }

    /// The page.
    #[must_use]
    pub fn encode(&self) -> String {
        self.texts.concat()
    }
}

/// The value as the number of things that it nearly always is: those are written faster.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole and within range"
)]
fn whole(value: f64) -> Option<u64> {
    const EXACT: f64 = 9e15;
    ((0.0..EXACT).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

/// Writes one sample.
fn line(
    text: &mut String,
    (name, suffix): (&str, &str),
    (labels, more): (&str, &str),
    value: impl Display,
) {
    text.push_str(name);
    text.push_str(suffix);
    if !(labels.is_empty() && more.is_empty()) {
        for part in ["{", labels, more, "}"] {
            text.push_str(part);
        }
    }
    let written = writeln!(text, " {value}");
    debug_assert!(written.is_ok(), "a string takes everything");
}

fn described(family: &Family) -> String {
    let mut text = format!("# HELP {} ", family.name);
    escape(&mut text, family.help, false);
    for part in ["\n# TYPE ", family.name, " ", family.kind.word(), "\n"] {
        text.push_str(part);
    }
    text
}

/// A backslash and the end of a line mean themselves; within quotes a quote does, too.
fn escape(text: &mut String, value: &str, quoted: bool) {
    let special = |c: char| matches!(c, '\\' | '\n') || quoted && c == '"';
    let plain = |byte: u8| !special(char::from(byte));
    if value.bytes().all(plain) {
        text.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            c => {
                if special(c) {
                    text.push('\\');
                }
                text.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Family = Family {
        name: "lbd_server_up",
        kind: Kind::Gauge,
        labels: &["proxy", "server"],
        help: "Whether it is up.",
    };
    const BYTES: Family = Family {
        name: "lbd_proxy_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Bytes.",
    };

    #[test]
    fn samples_of_one_family_stand_together_and_labels_are_escaped() {
        let mut families = Families::new();
        families.add(&UP, &["a", "s\"1\""], 1.0);
        families.add(&BYTES, &[], 7.0);
        families.add(&UP, &["a", "s2"], 0.0);
        assert_eq!(
            families.encode(),
            "# HELP lbd_server_up Whether it is up.\n# TYPE lbd_server_up gauge\n\
             lbd_server_up{proxy=\"a\",server=\"s\\\"1\\\"\"} 1\n\
             lbd_server_up{proxy=\"a\",server=\"s2\"} 0\n\
             # HELP lbd_proxy_bytes_total Bytes.\n# TYPE lbd_proxy_bytes_total counter\n\
             lbd_proxy_bytes_total 7\n"
        );
    }

    #[test]
    fn a_histogram_has_a_line_for_each_bound_and_adds_up() {
        const TIME: Family = Family {
            name: "lbd_server_connect_seconds",
            kind: Kind::Histogram,
            labels: &["server"],
            help: "Time.",
        };
        let mut spans = Spans::default();
        for micros in [100, 200, 60_000_000] {
            spans.add(Duration::from_micros(micros));
        }
        let mut families = Families::new();
        families.add_spans(&TIME, &["s1"], &spans);
        let text = families.encode();
        for line in [
            "# TYPE lbd_server_connect_seconds histogram",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"0.000128\"} 1",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"0.000256\"} 2",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"16.777216\"} 2",
            "lbd_server_connect_seconds_bucket{server=\"s1\",le=\"+Inf\"} 3",
            "lbd_server_connect_seconds_sum{server=\"s1\"} 60.0003",
            "lbd_server_connect_seconds_count{server=\"s1\"} 3",
        ] {
            assert!(
                text.lines().any(|present| present == line),
                "{line}\n{text}"
            );
        }
        assert_eq!(text.lines().count(), 2 + 19 + 2);
    }

    #[test]
    fn what_would_end_a_line_or_a_label_is_escaped() {
        const ODD: Family = Family {
            name: "lbd_odd",
            kind: Kind::Gauge,
            labels: &["a", "b"],
            help: "A \\ and a \"quote\".\nMore.",
        };
        let mut families = Families::new();
        families.add(&ODD, &["x\\y", "1\n2"], f64::NAN);
        assert_eq!(
            families.encode(),
            "# HELP lbd_odd A \\\\ and a \"quote\".\\nMore.\n# TYPE lbd_odd gauge\n\
             lbd_odd{a=\"x\\\\y\",b=\"1\\n2\"} NaN\n"
        );
    }
}
