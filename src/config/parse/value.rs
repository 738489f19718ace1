//! Single values: durations, names, words of a choice. Addresses are in `address`.

use std::time::Duration;

use toml::de::DeValue;

use super::given::{Given, Sink, Text};
use super::unknown::nearest;
use crate::config::problem::Problem;
use crate::config::schema::{Habit, Kind, Support, Word};

/// A kind in words, as the object of "must be".
pub(super) fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::IntegerOr { min, max, word } => {
            format!("a whole number from {min} to {max}, or \"{word}\"")
        }
        Kind::Duration { off: true, .. } => "a duration such as \"5s\", or \"off\"".to_owned(),
        Kind::Duration { off: false, .. } => "a duration such as \"5s\"".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<String> = supported(words).map(|w| format!("\"{w}\"")).collect();
            match words.as_slice() {
                [only] => only.clone(),
                _ => format!("one of {}", words.join(", ")),
            }
        }
        Kind::Form(words) => format!("a string: {words}"),
        Kind::List(words) => format!("a list: {words}"),
        Kind::Table(_) | Kind::Named(_) => "a table".to_owned(),
    }
}

fn supported(words: &'static [Word]) -> impl Iterator<Item = &'static str> {
    words
        .iter()
        .filter(|word| word.support == Support::Supported)
        .map(|word| word.word)
}

/// The word of a choice that `text` is.
pub(super) fn choose(
    text: &Text<'_>,
    words: &'static [Word],
    sink: &mut Sink,
) -> Option<&'static str> {
    if let Some(word) = words.iter().find(|word| word.word == text.text) {
        if word.support == Support::Supported {
            return Some(word.word);
        }
        sink.push(not_yet(text, word.word));
        return None;
    }
    let called = words.iter().find(|word| {
        word.aliases
            .iter()
            .any(|alias| alias.eq_ignore_ascii_case(text.text))
    });
    if let Some(word) = called.filter(|word| word.support == Support::Later) {
        sink.push(not_yet(text, word.word));
        return None;
    }
    let problem = Problem::error(
        "E0106",
        format!("`{}` has no value \"{}\"", text.name, text.text),
    );
    sink.push(if let Some(word) = called {
        problem
            .at(&text.span, format!("called \"{}\" in lb.toml", word.word))
            .fix("replace it", &text.span, quoted(word.word))
    } else if let Some(near) = nearest(text.text, supported(words)) {
        problem
            .at(&text.span, format!("did you mean \"{near}\"?"))
            .fix("replace it", &text.span, quoted(near))
    } else {
        problem.at(
            &text.span,
            format!("it must be {}", wanted(Kind::Choice(words))),
        )
    });
    None
}

fn not_yet(text: &Text<'_>, word: &str) -> Problem {
    Problem::error(
        "E0107",
        format!("`{}` = \"{word}\" is not supported yet", text.name),
    )
    .at(&text.span, "a later release can do this")
}

/// `word` as a TOML string.
pub(super) fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

/// A name that may stand in commands, logs and metric labels.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// `"250ms"` and the like, without any limits.
pub fn plain_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// A duration as lb.toml writes it, in the largest unit that keeps it whole.
pub(in crate::config) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let (size, unit) = match ms {
        0 => (1, "s"),
        _ if ms.is_multiple_of(3_600_000) => (3_600_000, "h"),
        _ if ms.is_multiple_of(60_000) => (60_000, "m"),
        _ if ms.is_multiple_of(1_000) => (1_000, "s"),
        _ => (1, "ms"),
    };
    format!("{}{unit}", ms / size)
}

/// A duration in its key's range; `"off"` is zero where the key has it.
pub(super) fn duration(given: &Given<'_, '_>, sink: &mut Sink) -> Option<Duration> {
    let Kind::Duration {
        min,
        max,
        off,
        habit,
    } = given.key.kind
    else {
        return None;
    };
    let text = match given.value {
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(number) => {
            let digits = number.as_str().parse().ok();
            sink.push(without_unit(given, digits, (min, max), habit));
            return None;
        }
        DeValue::Boolean(false) if off => {
            sink.push(given.wrong_type(&wanted(given.key.kind)).fix(
                "write",
                &given.span,
                "\"off\"",
            ));
            return None;
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            sink.push(given.wrong_type(&wanted(given.key.kind)));
            return None;
        }
    };
    if off && text == "off" {
        return Some(Duration::ZERO);
    }
    let Some(value) = plain_duration(text) else {
        sink.push(match text.parse() {
            Ok(digits) => without_unit(given, Some(digits), (min, max), habit),
            Err(_) => malformed_duration(given),
        });
        return None;
    };
    let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
    if value < min || value > max {
        let range = format!(
            "it must be {} to {}",
            show_duration(min),
            show_duration(max)
        );
        let or_off = if off { ", or \"off\"" } else { "" };
        sink.push(
            Problem::error("E0105", format!("`{}` is out of range", given.name))
                .at(&given.span, format!("{range}{or_off}")),
        );
        return None;
    }
    Some(value)
}

fn malformed_duration(given: &Given<'_, '_>) -> Problem {
    Problem::error("E0108", format!("`{}` is no duration", given.name)).at(
        &given.span,
        "write a whole number and a unit, ms, s, m or h: \"250ms\", \"5s\"",
    )
}

/// The complaint about a bare number, with the unit that its author most likely meant.
fn without_unit(
    given: &Given<'_, '_>,
    number: Option<u64>,
    limits: (u64, u64),
    habit: Habit,
) -> Problem {
    let problem = Problem::error("E0103", format!("`{}` needs a unit", given.name)).at(
        &given.span,
        "HAProxy reads a bare number as milliseconds, keepalived as seconds; lbd does not guess",
    );
    let Some(number) = number else {
        return problem;
    };
    let as_seconds = number.saturating_mul(1_000);
    let likely = match habit {
        Habit::Seconds => [as_seconds, number],
        Habit::Milliseconds if number < 100 => [as_seconds, number],
        Habit::Milliseconds => [number, as_seconds],
    };
    let fits = |ms: &u64| (limits.0..=limits.1).contains(ms);
    match likely.into_iter().find(fits) {
        Some(ms) => {
            let text = quoted(&show_duration(Duration::from_millis(ms)));
            problem.fix("say which", &given.span, text)
        }
        None => problem,
    }
}
