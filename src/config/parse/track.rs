//! `[track.script.NAME]`, and the `track` list of a VIP.

use toml::de::DeValue;

use super::ScriptEntry;
use super::fields::Fields;
use super::given::{Sink, Text};
use super::unknown::later;
use crate::config::model::{Script, Track, TrackTarget};
use crate::config::problem::Problem;
use crate::units::TrackWeight;

const ARGUMENTS_MAX: usize = 256;
const TRACKS_MAX: usize = 64;

/// One script and its weight; no script when something in it is wrong.
pub(super) fn script(
    mut fields: Fields<'_, '_>,
    sink: &mut Sink,
) -> (Option<Script>, Option<TrackWeight>) {
    let before = sink.errors();
    let command = command(&mut fields, sink);
    let interval = fields.time("interval", sink);
    let timeout = fields.time_given("timeout", sink).unwrap_or(interval);
    let rise = fields.unit("rise", sink);
    let fall = fields.unit("fall", sink);
    let weight = fields
        .has("weight")
        .then(|| fields.unit("weight", sink))
        .flatten();
    let name = fields.own_name().to_owned();
    fields.finish(sink);
    let (Some(rise), Some(fall), true) = (rise, fall, sink.errors() == before) else {
        return (None, weight);
    };
    let script = Script {
        name,
        command,
        interval,
        timeout,
        rise,
        fall,
    };
    (Some(script), weight)
}

fn command(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Vec<String> {
    let Some(given) = fields.take("command", sink) else {
        return Vec::new();
    };
    if let DeValue::String(line) = given.value {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| format!("{word:?}"))
            .collect();
        let problem = given.wrong_type("a list: the program, then its arguments");
        let plain = line
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" -_./:=,@".contains(&b));
        sink.push(if plain && line.starts_with('/') {
            problem.fix("write", &given.span, format!("[{}]", words.join(", ")))
        } else {
            problem.help("there is no shell unless you ask: [\"/bin/sh\", \"-c\", \"…\"]")
        });
        return Vec::new();
    }
    let DeValue::Array(items) = given.value else {
        sink.push(given.wrong_type("a list: the program, then its arguments"));
        return Vec::new();
    };
    let mut command = Vec::new();
    for (index, item) in given.items(items, ARGUMENTS_MAX, sink).iter().enumerate() {
        let Some(text) = item.text(sink) else {
            continue;
        };
        if text.text.contains('\0') {
            sink.push(
                Problem::error("E0108", format!("`{}` holds a zero byte", text.name))
                    .at(&text.span, "no program can be given that"),
            );
        }
        if index == 0 && !text.text.starts_with('/') {
            sink.push(
                Problem::error("E0108", format!("`{}` must be an absolute path", text.name)).at(
                    &text.span,
                    "lbd looks in no PATH: write e.g. \"/usr/bin/…\"",
                ),
            );
        }
        command.push(text.text.to_owned());
    }
    command
}

/// The `track` list of a VIP; by default every proxy of the file.
pub(super) fn tracks(
    fields: &mut Fields<'_, '_>,
    proxies: &[String],
    scripts: &[ScriptEntry],
    sink: &mut Sink,
) -> Vec<Track> {
    let Some(given) = fields.take("track", sink) else {
        let every = (0..proxies.len()).map(|index| Track {
            target: TrackTarget::Proxy(index),
            weight: None,
        });
        return every.collect();
    };
    let DeValue::Array(items) = given.value else {
        sink.push(given.wrong_type("a list such as [\"proxy:NAME\", \"script:NAME:-30\"]"));
        return Vec::new();
    };
    let mut tracks: Vec<Track> = Vec::new();
    if items.is_empty() {
        return tracks;
    }
    for item in given.items(items, TRACKS_MAX, sink) {
        let Some(text) = item.text(sink) else {
            continue;
        };
        let Some(track) = one(&text, proxies, scripts, sink) else {
            continue;
        };
        if tracks.iter().any(|other| other.target == track.target) {
            sink.push(
                Problem::error(
                    "E0213",
                    format!("`{}` tracks the same thing again", text.name),
                )
                .at(&text.span, "the second time"),
            );
        }
        tracks.push(track);
    }
    tracks
}

fn one(
    text: &Text<'_>,
    proxies: &[String],
    scripts: &[ScriptEntry],
    sink: &mut Sink,
) -> Option<Track> {
    let mut parts = text.text.splitn(3, ':');
    let (kind, name, weight) = (parts.next()?, parts.next(), parts.next());
    if matches!(kind, "interface" | "file") {
        let problem = later(&format!("{} = \"{kind}:…\"", text.name), &text.span, "");
        sink.push(if kind == "interface" {
            problem.help("the own interface is always tracked")
        } else {
            problem
        });
        return None;
    }
    let called = |candidate: &str| Some(candidate) == name;
    let target = match kind {
        "proxy" => proxies
            .iter()
            .position(|own| called(own))
            .map(TrackTarget::Proxy),
        "script" => scripts
            .iter()
            .position(|script| called(&script.name))
            .map(TrackTarget::Script),
        _ => None,
    };
    let Some(target) = target else {
        sink.push(unknown(text, proxies, scripts, sink.recovering));
        return None;
    };
    let own = match target {
        TrackTarget::Proxy(_) => None,
        TrackTarget::Script(index) => scripts.get(index).and_then(|script| script.weight),
    };
    let Some(digits) = weight else {
        return Some(Track {
            target,
            weight: own,
        });
    };
    let weight = match digits.parse::<i64>() {
        Ok(number) => TrackWeight::try_from(number).map_err(|error| error.to_string()),
        Err(_) => Err("a weight is a whole number".to_owned()),
    };
    match weight {
        Ok(weight) => Some(Track {
            target,
            weight: Some(weight),
        }),
        Err(why) => {
            sink.push(
                Problem::error("E0105", format!("`{}` has no such weight", text.name))
                    .at(&text.span, why),
            );
            None
        }
    }
}

fn unknown(
    text: &Text<'_>,
    proxies: &[String],
    scripts: &[ScriptEntry],
    recovering: bool,
) -> Problem {
    let problem = Problem::error(
        "E0213",
        format!("`{}` names nothing in this file", text.name),
    );
    let known: Vec<String> = proxies
        .iter()
        .map(|name| format!("proxy:{name}"))
        .chain(
            scripts
                .iter()
                .map(|script| format!("script:{}", script.name)),
        )
        .collect();
    let problem = if recovering {
        problem.help("the mistakes in the syntax may hide it")
    } else {
        problem
    };
    let near = known
        .iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&shortened(text.text), name),
                name,
            )
        })
        .filter(|(distance, name)| {
            *distance <= 3 || name.split_once(':').is_some_and(|(_, n)| n == text.text)
        })
        .min();
    match near {
        Some((_, near)) => problem
            .at(&text.span, format!("did you mean \"{near}\"?"))
            .fix("replace it", &text.span, format!("\"{near}\"")),
        None if known.is_empty() => {
            problem.at(&text.span, "there is no proxy and no script to track")
        }
        None => problem
            .at(&text.span, "write `proxy:NAME` or `script:NAME`")
            .help(format!("there are {}", known.join(", "))),
    }
}

/// At most 80 characters: a distance is not worth more.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
