//! A whole recording, played: every machine of every kind, what happened in the order of time, and
//! what led to what. Pure.

use serde::Serialize;
use serde_json::Value;

use super::judge::Judge;
use super::supervise::Supervisor;
use crate::health;
use crate::peer::oneway::OneWay;
use crate::recorder::file::{Ended, Machine, OF_PROXY, Recording};
use crate::recorder::replay::{ReplayError, Step, Timeline, replay};
use crate::track::fsm::Script;
use crate::track::interfaces::Interfaces;
use crate::track::recorded::File;
use crate::vrrp::fsm;

/// One machine's timeline.
#[derive(Debug, Serialize)]
pub struct Played {
    /// `vrrp`, `health` and so on.
    pub kind: String,
    /// Which one of its kind.
    pub name: String,
    /// It was a machine of a process that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Why its tape cannot be played; then nothing of it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// What it was told, and whether it answers as it did.
    #[serde(flatten)]
    pub timeline: Timeline,
}

/// One step on the timeline of all machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When, nanoseconds in the recording's time.
    pub t: i64,
    /// Which machine, by position.
    pub machine: usize,
    /// Which of its steps, by position.
    pub step: usize,
    /// Whether it stands otherwise after it than before.
    pub changed: bool,
    /// The moment that led to it, by position.
    pub cause: Option<usize>,
}

/// Why a recording can't be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A machine's tape.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Of a newer lbd.
    #[error("it has a machine of the kind `{0}`, which this lbd does not know")]
    Kind(String),
}

/// Plays all machines, each for itself. What a proxy process wrote is its own word: a tape of it that
/// makes no sense counts as a difference, and the others are played.
///
/// # Errors
/// [`PlayError`].
pub fn play(recording: &Recording) -> Result<Vec<Played>, PlayError> {
    let all = recording.machines.iter().map(|machine| {
        let (timeline, broken) = match timeline(machine) {
            Err(PlayError::Replay(error)) if machine.kind == OF_PROXY => {
                let none = Timeline {
                    differences: 1,
                    ..Timeline::default()
                };
                (none, Some(error.to_string()))
            }
            timeline => (timeline?, None),
        };
        Ok(Played {
            kind: machine.kind.clone(),
            name: machine.name.clone(),
            ended: machine.ended.clone(),
            broken,
            timeline,
        })
    });
    all.collect()
}

fn timeline(machine: &Machine) -> Result<Timeline, PlayError> {
    Ok(match machine.kind.as_str() {
        "vrrp" => replay::<fsm::Machine>(machine)?,
        "judge" => replay::<Judge>(machine)?,
        "health" => replay::<health::fsm::Machine>(machine)?,
        "script" => replay::<Script>(machine)?,
        "file" => replay::<File>(machine)?,
        "interfaces" => replay::<Interfaces>(machine)?,
        "peer" => replay::<OneWay>(machine)?,
        "supervise" => replay::<Supervisor>(machine)?,
        other => return Err(PlayError::Kind(other.chars().take(40).collect())),
    })
}

/// All steps in the order of time, with what led to them. A step's cause is the last change, no later
/// than it, of the machine that its input comes from.
#[must_use]
pub fn moments(machines: &[Played]) -> Vec<Moment> {
    let mut all = Vec::new();
    for (machine, played) in machines.iter().enumerate() {
        let mut before = None;
        for (at, step) in played.timeline.steps.iter().enumerate() {
            let shown = shown(step);
            // How it stood at the beginning is no change.
            let changed = before.is_some_and(|before| before != shown);
            before = Some(shown);
            all.push(Moment {
                t: step.t,
                machine,
                step: at,
                changed,
                cause: None,
            });
        }
    }
    // Of one time: what others follow from comes first.
    let order = |moment: &Moment| (moment.t, machines.get(moment.machine).map(rank));
    all.sort_by_key(order);
    let mut last: Vec<Option<usize>> = vec![None; machines.len()];
    for at in 0..all.len() {
        let Some(moment) = all.get(at).copied() else {
            continue;
        };
        let cause = cause(machines, &moment, &last);
        if let Some(moment) = all.get_mut(at) {
            moment.cause = cause;
        }
        if moment.changed
            && let Some(last) = last.get_mut(moment.machine)
        {
            *last = Some(at);
        }
    }
    all
}

fn rank(played: &Played) -> u8 {
    match played.kind.as_str() {
        "vrrp" => 2,
        "judge" => 1,
        _ => 0,
    }
}

/// What of a step is news when it differs.
fn shown(step: &Step) -> ([Option<&Value>; 4], &str) {
    let of = |key| step.standing.get(key);
    let shown = ["state", "why", "weight", "priority"].map(of);
    (shown, step.words.as_str())
}

/// The last change of a machine that can have led to this.
fn cause(machines: &[Played], moment: &Moment, last: &[Option<usize>]) -> Option<usize> {
    let played = machines.get(moment.machine)?;
    let steps = &played.timeline.steps;
    let told = steps.get(moment.step)?.told.as_ref()?;
    let sources: Vec<(&str, String)> = match played.kind.as_str() {
        "vrrp" => vrrp_sources(told, &played.name),
        "judge" => {
            let earlier = steps.get(..moment.step)?.iter().rev();
            let before = earlier.filter_map(|step| step.told.as_ref()).next();
            judge_sources(told, before, &names(steps))
        }
        _ => return None,
    };
    let is_source = |played: &Played| {
        // It led to nothing any more.
        let ended = played.ended.as_ref();
        if ended.is_some_and(|ended| moment.t >= ended.t) {
            return false;
        }
        sources.iter().any(|(kind, name)| {
            let exact = *kind == played.kind && *name == played.name;
            // Each server of a proxy.
            let of_proxy = *kind == "health" && played.kind == "health";
            let server = played.name.strip_prefix(name.as_str());
            exact || of_proxy && server.is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let all = machines.iter().zip(last);
    let all = all.filter(|(played, _)| is_source(played));
    all.filter_map(|(_, last)| *last).max()
}

fn vrrp_sources(told: &Value, name: &str) -> Vec<(&'static str, String)> {
    let input = told.get("input");
    let is = |key| input.is_some_and(|input| input.get(key).is_some());
    if is("Health") {
        vec![("judge", name.to_owned())]
    } else if is("Unheard") {
        vec![("peer", name.to_owned())]
    } else {
        Vec::new()
    }
}

/// The machines whose word is another than at the judge's last look.
fn judge_sources(
    told: &Value,
    before: Option<&Value>,
    names: &[&str],
) -> Vec<(&'static str, String)> {
    let mut sources = Vec::new();
    let process = |told: &Value| told.get("proxy").cloned();
    if before.is_some_and(|before| process(before) != process(told)) {
        sources.push(("supervise", "proxy".to_owned()));
    }
    let tracks = |told: &Value| match told.get("tracks") {
        Some(Value::Array(tracks)) => tracks.clone(),
        Some(_) | None => Vec::new(),
    };
    let (now, before) = (tracks(told), before.map(tracks).unwrap_or_default());
    for (at, name) in names.iter().enumerate() {
        // That one more probe has succeeded is no change.
        let news = |tracks: &[Value]| tracks.get(at).map(without_epoch);
        if news(&now) == news(&before) {
            continue;
        }
        match name.split_once(':') {
            Some(("proxy", name)) => sources.push(("health", name.to_owned())),
            Some(("script", name)) => sources.push(("script", name.to_owned())),
            Some(("file", name)) => sources.push(("file", name.to_owned())),
            Some(("interface", _)) => sources.push(("interfaces", "tracked".to_owned())),
            Some(_) | None => {}
        }
    }
    sources
}

fn without_epoch(seen: &Value) -> Value {
    let usable = seen.get("proxy").and_then(|proxy| proxy.get("usable"));
    usable.unwrap_or(seen).clone()
}

/// What a judge's tracks are called: its states say.
fn names(steps: &[Step]) -> Vec<&str> {
    let named = steps.iter().find_map(|step| step.names.as_ref());
    named.map_or_else(Vec::new, |names| names.iter().map(String::as_str).collect())
}
