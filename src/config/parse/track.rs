//! `[track.script.NAME]`, `[track.file.NAME]`, and the `track` list of a VIP.

use toml::de::DeValue;

use super::fields::Fields;
use super::given::{Sink, Text};
use super::notify::{command, run_as};
use super::{TrackEntry, Tracked, vip};
use crate::config::model::{Script, Track, TrackFile, TrackTarget};
use crate::config::problem::Problem;
use crate::units::TrackWeight;

const TRACKS_MAX: usize = 64;

/// One script and its weight; no script when something in it is wrong.
pub(super) fn script(
    mut fields: Fields<'_, '_>,
    sink: &mut Sink,
) -> (Option<Script>, Option<TrackWeight>) {
    let before = sink.errors();
    let command = command(&mut fields, "command", sink);
    let interval = fields.time("interval", sink);
    let timeout = fields.time_given("timeout", sink).unwrap_or(interval);
    let rise = fields.unit("rise", sink);
    let fall = fields.unit("fall", sink);
    let weight = weight(&mut fields, sink);
    let user = run_as(&mut fields, sink);
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
        user,
    };
    (Some(script), weight)
}

/// One file and its weight; no file when something in it is wrong.
pub(super) fn file(
    mut fields: Fields<'_, '_>,
    sink: &mut Sink,
) -> (Option<TrackFile>, Option<TrackWeight>) {
    let before = sink.errors();
    let path = fields.absolute_path("path", sink);
    let weight = weight(&mut fields, sink);
    let name = fields.own_name().to_owned();
    fields.finish(sink);
    let sound = sink.errors() == before;
    let path = path.filter(|_| sound);
    (path.map(|path| TrackFile { name, path }), weight)
}

fn weight(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<TrackWeight> {
    fields
        .has("weight")
        .then(|| fields.unit("weight", sink))
        .flatten()
}

/// The `track` list of a VIP; by default every proxy of the file.
pub(super) fn tracks(
    fields: &mut Fields<'_, '_>,
    proxies: &[String],
    tracked: &mut Tracked,
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
        let Some(track) = one(&text, proxies, tracked, sink) else {
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
    tracked: &mut Tracked,
    sink: &mut Sink,
) -> Option<Track> {
    let mut parts = text.text.splitn(3, ':');
    let (kind, name, weight) = (parts.next()?, parts.next(), parts.next());
    let called = |candidate: &str| Some(candidate) == name;
    let entry = |entries: &[TrackEntry]| entries.iter().position(|entry| called(&entry.name));
    let target = match kind {
        "proxy" => proxies
            .iter()
            .position(|own| called(own))
            .map(TrackTarget::Proxy),
        "script" => entry(&tracked.scripts).map(TrackTarget::Script),
        "file" => entry(&tracked.files).map(TrackTarget::File),
        "interface" => match name {
            Some(name) if vip::is_interface_name(name) => {
                Some(TrackTarget::Interface(position(tracked, name)))
            }
            Some(_) | None => None,
        },
        _ => None,
    };
    let Some(target) = target else {
        sink.push(unknown(text, proxies, tracked, sink.recovering));
        return None;
    };
    let own = match target {
        TrackTarget::Proxy(_) | TrackTarget::Interface(_) => None,
        TrackTarget::Script(index) => tracked.scripts.get(index).and_then(|entry| entry.weight),
        TrackTarget::File(index) => tracked.files.get(index).and_then(|entry| entry.weight),
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

/// Where an interface stands in the list of all that are tracked.
fn position(tracked: &mut Tracked, name: &str) -> usize {
    let interfaces = &mut tracked.interfaces;
    if let Some(known) = interfaces.iter().position(|known| known == name) {
        return known;
    }
    interfaces.push(name.to_owned());
    interfaces.len() - 1
}

fn unknown(text: &Text<'_>, proxies: &[String], tracked: &Tracked, recovering: bool) -> Problem {
    let problem = Problem::error(
        "E0213",
        format!("`{}` names nothing in this file", text.name),
    );
    let entries = |kind: &'static str, entries: &'_ [TrackEntry]| {
        let named = entries
            .iter()
            .map(move |entry| format!("{kind}:{}", entry.name));
        named.collect::<Vec<String>>()
    };
    let mut known: Vec<String> = proxies.iter().map(|name| format!("proxy:{name}")).collect();
    known.extend(entries("script", &tracked.scripts));
    known.extend(entries("file", &tracked.files));
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
        None if known.is_empty() => problem.at(
            &text.span,
            "there is no proxy, no script and no file to track",
        ),
        None => problem
            .at(
                &text.span,
                "write `proxy:NAME`, `script:NAME`, `file:NAME` or `interface:NAME`",
            )
            .help(format!("there are {}", known.join(", "))),
    }
}

/// At most 80 characters: a distance is not worth more.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
