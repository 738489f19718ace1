//! Complaints about keys: unknown ones, with what was probably meant, and those of later releases.

use std::ops::Range;

use crate::config::problem::Problem;
use crate::config::schema::{self, Key, Section, Support};

/// "Not supported yet".
pub(super) fn later(name: &str, span: &Range<usize>, doc: &str) -> Problem {
    Problem::error("E0107", format!("`{name}` is not supported yet")).at(span, doc)
}

/// The complaint about an unknown key, and the key that was meant.
pub(super) fn unknown(
    section: &Section,
    name: &str,
    word: &str,
    span: &Range<usize>,
) -> (Problem, Option<&'static Key>) {
    let place = if name.is_empty() {
        "at the top of the file".to_owned()
    } else {
        format!("in `{name}`")
    };
    let problem = Problem::error("E0101", format!("unknown key `{word}` {place}"));
    if let Some(text) = schema::remark(section.path, word) {
        return (problem.at(span, text), None);
    }
    if let Some(key) = section.key_called(word) {
        if key.support == Support::Later {
            return (later(&dotted(name, key.name), span, key.doc), None);
        }
        let label = format!("called `{}` in lb.toml", key.name);
        let problem = problem.at(span, label).fix("replace it", span, key.name);
        return (problem, Some(key));
    }
    let supported = || {
        let keys = section.keys.iter();
        keys.filter(|key| key.support == Support::Supported)
    };
    if let Some(near) = nearest(word, supported().map(|key| key.name)) {
        let label = format!("did you mean `{near}`?");
        let problem = problem.at(span, label).fix("replace it", span, near);
        return (problem, section.key(near));
    }
    if let [other] = schema::sections_with(word).as_slice() {
        let owner = if other.is_empty() {
            "the top of the file".to_owned()
        } else {
            format!("`{other}`")
        };
        return (
            problem.at(span, format!("this key belongs to {owner}")),
            None,
        );
    }
    let known: Vec<String> = supported().map(|key| format!("`{}`", key.name)).collect();
    let help = format!("there are {}", known.join(", "));
    (problem.at(span, "no such key").help(help), None)
}

/// The candidate that is only a slip away from `word`.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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
/// `a.b`, or `b` at the top of the file.
pub(super) fn dotted(name: &str, key: &str) -> String {
    if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    }
}

/// The name of a type with its article.
pub(super) fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// The complaint about a name that could not stand in commands and metrics.
pub(super) fn bad_name(full: &str, span: &Range<usize>) -> Problem {
    Problem::error("E0108", format!("`{full}` has a name that lbd can't use"))
        .at(span, "use 1 to 64 letters, digits, `-`, `_` and `.`")
}
