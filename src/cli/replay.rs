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
use crate::daemon::supervise::Supervisor;
use crate::log::{escape, wall_time};
use crate::net::clock;
use crate::recorder::file::{self, Header, Machine, ReadError};
use crate::recorder::replay::{ReplayError, Step, Timeline, replay};
use crate::recorder::time;
use crate::vrrp::fsm;

/// The longest file that is read.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

const EXAMPLES: &str = "\
Nothing is opened and nothing is changed: the recorded inputs go through the state machines of this
program, and each answer is compared with the recorded one. So a failover from the field becomes a
test: docs/recorder.md.

Examples:
  lbd replay failover.rec          when each machine changed its state, and why
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

/// One machine's timeline.
#[derive(Debug, Serialize)]
struct Played {
    kind: String,
    name: String,
    #[serde(flatten)]
    timeline: Timeline,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Answer {
    recording: Header,
    machines: Vec<Played>,
    differences: usize,
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
    Replay(#[from] ReplayError),
    #[error("it has a machine of the kind `{0}`, which this lbd does not know")]
    Kind(String),
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
    let read = file.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    if u64::try_from(read.map_err(Fault::Io)?).unwrap_or(u64::MAX) > BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_not_text| ReadError::Foreign)?;
    answer(&text)
}

fn answer(text: &str) -> Result<Answer, Fault> {
    time::count_from(clock::now());
    let recording = file::read(text)?;
    let played = recording.machines.iter().map(|machine| {
        Ok(Played {
            kind: machine.kind.clone(),
            name: machine.name.clone(),
            timeline: timeline(machine)?,
        })
    });
    let machines = played.collect::<Result<Vec<_>, Fault>>()?;
    let differences = machines.iter().map(|one| one.timeline.differences).sum();
    Ok(Answer {
        recording: recording.header,
        machines,
        differences,
    })
}

fn timeline(machine: &Machine) -> Result<Timeline, Fault> {
    match machine.kind.as_str() {
        "vrrp" => Ok(replay::<fsm::Machine>(machine)?),
        "supervise" => Ok(replay::<Supervisor>(machine)?),
        other => Err(Fault::Kind(other.chars().take(40).collect())),
    }
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
    for played in &answer.machines {
        let Timeline {
            steps,
            told,
            differences,
        } = &played.timeline;
        let verdict = match differences {
            0 => "all as recorded".to_owned(),
            some => format!("{some} NOT AS RECORDED"),
        };
        text += &format!(
            "\n{} {}: {told} inputs, {verdict}\n",
            escape(&played.kind),
            escape(&played.name)
        );
        let mut before = None;
        for step in steps {
            let shown = (step.standing.get("state"), step.standing.get("why"));
            let changed = before.replace(shown) != Some(shown);
            if all || changed || step.recorded.is_some() {
                text += &line(header, step);
            }
        }
    }
    text
}

fn line(header: &Header, step: &Step) -> String {
    let ago_ms = header.t.saturating_sub(step.t) / 1_000_000;
    let at = header
        .wall_ms
        .saturating_add_signed(ago_ms.saturating_neg());
    let word = |key| match step.standing.get(key) {
        Some(Value::String(word)) => word.clone(),
        Some(_) | None => String::new(),
    };
    let told = step
        .told
        .as_ref()
        .map_or_else(|| "as it was".to_owned(), plain);
    let answer = match &step.answer {
        Value::Array(list) if !list.is_empty() => {
            let list: Vec<String> = list.iter().map(plain).collect();
            format!(" → {}", list.join(", "))
        }
        Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_) => String::new(),
    };
    let mut text = format!(
        "{}  {:<10}  {}\n    {}{}\n",
        wall_time(at),
        escape(&word("state")),
        escape(&word("why")),
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
