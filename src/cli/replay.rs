//! `lbd replay`: plays a recording back through the state machines of this program, prints what
//! happened, and says whether they decide as they did.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::reach::FAILURE;
use super::status::Output;
use super::{chain, out, talk};
use crate::daemon::played::{Moment, PlayError, Played, moments, play as play_all};
use crate::log::{escape, wall_time};
use crate::net::clock;
use crate::recorder::file::{self, BYTES_MAX, Ended, Header, ReadError};
use crate::recorder::replay::{Step, Timeline};
use crate::recorder::time;

const EXAMPLES: &str = "\
Nothing is opened and nothing is changed: the recorded inputs go through the state machines of this
program, and each answer is compared with the recorded one. So a failover from the field becomes a
test: docs/recorder.md.

Examples:
  lbd replay failover.rec          what changed in the order of time, and because of what
  lbd replay --all failover.rec    every input
  lbd replay -o json failover.rec  the same for programs

Exit codes: 0 everything as recorded, 1 something differs or the file is no recording, 2 usage.";

/// Arguments of `lbd replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    /// A recording
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show every input, not only changes of state
    #[arg(long)]
    all: bool,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Answer {
    recording: Header,
    machines: Vec<Played>,
    /// Changes in the order of time, and what is not as recorded.
    timeline: Vec<Change>,
    #[serde(skip)]
    moments: Vec<Moment>,
    differences: usize,
}

/// One line of the timeline of all machines, for programs.
#[derive(Debug, Serialize)]
struct Change {
    t: i64,
    kind: String,
    name: String,
    /// The process that it was a machine of, if that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_pid: Option<u32>,
    line: usize,
    /// The line of what led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
    #[error("more than 256 MiB: no recording of lbd is that long")]
    TooLong,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Play(#[from] PlayError),
}

/// Plays it. Exit codes: 0 or 1.
pub(super) fn run(args: &ReplayArgs) -> u8 {
    let answer = match play(&args.file) {
        Ok(answer) => answer,
        Err(fault) => {
            let file = args.file.display().to_string();
            let why = chain(&fault);
            talk(&format!("lbd replay: {}: {}", escape(&file), escape(&why)));
            return FAILURE;
        }
    };
    let text = match args.output {
        Output::Table => table(&answer, args.all),
        Output::Json => match serde_json::to_string_pretty(&answer) {
            Ok(text) => text + "\n",
            Err(_unprintable) => return FAILURE,
        },
    };
    if out(&text).is_err() || answer.differences > 0 {
        return FAILURE;
    }
    0
}

fn play(path: &Path) -> Result<Answer, Fault> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Fault::Io)?;
    let most = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    if read.map_err(Fault::Io)? > BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_not_text| ReadError::Foreign)?;
    answer(&text)
}

fn answer(text: &str) -> Result<Answer, Fault> {
    time::count_from(clock::now());
    let recording = file::read(text)?;
    let machines = play_all(&recording)?;
    let differences = machines.iter().map(|one| one.timeline.differences).sum();
    let moments = moments(&machines);
    let step = |moment: &Moment| {
        let played = machines.get(moment.machine)?;
        Some((played, played.timeline.steps.get(moment.step)?))
    };
    let change = |moment: &Moment| {
        let (played, shown) = step(moment)?;
        let because = moment.cause.and_then(|cause| moments.get(cause));
        let news = moment.changed || shown.recorded.is_some();
        news.then(|| Change {
            t: moment.t,
            kind: played.kind.clone(),
            name: played.name.clone(),
            ended_pid: played.ended.as_ref().map(|ended| ended.pid),
            line: shown.line,
            because: because.and_then(step).map(|(_, step)| step.line),
        })
    };
    let timeline = moments.iter().filter_map(change).collect();
    Ok(Answer {
        recording: recording.header,
        machines,
        timeline,
        moments,
        differences,
    })
}

fn table(answer: &Answer, all: bool) -> String {
    let header = &answer.recording;
    let node = header.node.as_deref().unwrap_or("a node");
    let mut text = format!(
        "recording of {} by lbd {}, configuration {}, written {}: {}\n",
        escape(node),
        escape(&header.lbd),
        escape(&header.config),
        wall_time(header.wall_ms),
        escape(&header.why)
    );
    if let Some(lacks) = &header.lacks {
        text += &format!("not complete: {}\n", escape(lacks));
    }
    for played in &answer.machines {
        let Timeline {
            told, differences, ..
        } = &played.timeline;
        let verdict = match differences {
            _ if played.broken.is_some() => {
                let why = played.broken.as_deref().unwrap_or_default();
                format!("its tape cannot be played: {}", escape(why))
            }
            0 => "all as recorded".to_owned(),
            some => format!("{some} NOT AS RECORDED"),
        };
        text += &format!(
            "{} {}: {told} inputs, {verdict}\n",
            escape(&played.kind),
            escape(&called(played))
        );
    }
    text += &ends(answer);
    text.push('\n');
    for moment in &answer.moments {
        let Some((played, step)) = found(answer, moment) else {
            continue;
        };
        // Where each machine's tape begins it says how it stood.
        let begins = moment.step == 0;
        // Where its process ended, too.
        let steps = played.timeline.steps.len();
        let ends = played.ended.is_some() && moment.step + 1 == steps;
        if all || begins || ends || moment.changed || step.recorded.is_some() {
            text += &line(header, played, step);
            text += &because(answer, moment);
        }
    }
    text
}

/// Its name, and whose it was where that process is no more.
fn called(played: &Played) -> String {
    match &played.ended {
        Some(ended) => format!("{} (ended {})", played.name, ended.pid),
        None => played.name.clone(),
    }
}

/// The processes whose tapes outlasted them.
fn ends(answer: &Answer) -> String {
    let mut all: Vec<&Ended> = Vec::new();
    for ended in answer.machines.iter().filter_map(|one| one.ended.as_ref()) {
        if !all.contains(&ended) {
            all.push(ended);
        }
    }
    let line = |ended: &&Ended| {
        let at = wall_time(wall_ms(&answer.recording, ended.t));
        let (pid, how) = (ended.pid, escape(&ended.how));
        format!("(ended {pid}): of proxy process {pid}, which ended {at}: {how}\n")
    };
    all.iter().map(line).collect()
}

/// Milliseconds since 1970 at a time of the recording.
fn wall_ms(header: &Header, t: i64) -> u64 {
    let ago_ms = header.t.saturating_sub(t) / 1_000_000;
    header
        .wall_ms
        .saturating_add_signed(ago_ms.saturating_neg())
}

fn found<'a>(answer: &'a Answer, moment: &Moment) -> Option<(&'a Played, &'a Step)> {
    let played = answer.machines.get(moment.machine)?;
    Some((played, played.timeline.steps.get(moment.step)?))
}

/// What led to it, if that is another machine's change.
fn because(answer: &Answer, moment: &Moment) -> String {
    let cause = moment.cause.and_then(|cause| answer.moments.get(cause));
    let Some((cause, (played, step))) =
        cause.and_then(|cause| Some((cause, found(answer, cause)?)))
    else {
        return String::new();
    };
    let ago_ms = moment.t.saturating_sub(cause.t) / 1_000_000;
    format!(
        "    because {} {} became {} {ago_ms} ms before (line {})\n",
        escape(&played.kind),
        escape(&called(played)),
        escape(&stands(step)),
        step.line
    )
}

/// How a machine stands after a step.
fn stands(step: &Step) -> String {
    let word = |key| match step.standing.get(key) {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Number(number)) if number.as_i64() != Some(0) => format!("{key} {number}"),
        Some(_) | None => String::new(),
    };
    let all = [
        word("state"),
        word("priority"),
        word("weight"),
        word("why"),
        step.words.clone(),
    ];
    let said: Vec<String> = all.into_iter().filter(|word| !word.is_empty()).collect();
    said.join(", ")
}

fn line(header: &Header, played: &Played, step: &Step) -> String {
    let at = wall_ms(header, step.t);
    let told = step
        .told
        .as_ref()
        .map_or_else(|| "as it was".to_owned(), plain);
    let answer = match &step.answer {
        Value::Array(list) if !list.is_empty() => {
            let list: Vec<String> = list.iter().map(plain).collect();
            format!(" → {}", list.join(", "))
        }
        Value::Object(_) => format!(" → {}", plain(&step.answer)),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            String::new()
        }
    };
    let who = format!("{} {}", played.kind, called(played));
    let mut text = format!(
        "{}  {:<16}  {}\n    {}{}\n",
        wall_time(at),
        escape(&who),
        escape(&stands(step)),
        escape(&told),
        escape(&answer)
    );
    if let Some(recorded) = &step.recorded {
        let recorded = recorded.to_string();
        text += &format!(
            "    line {} was recorded as {}\n",
            step.line,
            escape(&recorded)
        );
    }
    text
}

/// A value without its punctuation.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{key} {}", plain(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
    }
}
