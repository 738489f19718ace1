//! The form in which tapes are written: text, a JSON object in each line. The first line says what
//! it is and under what it was recorded, then come the machines with their lines, and the last line
//! says how many lines there must be before it. Pure.

use serde::{Deserialize, Serialize};

use super::tape::ReadLine;

/// The version of the form. 2 has machines of several processes, each with the base of its times, 3 those
/// of a process that has ended.
pub const VERSION: u32 = 3;
/// The oldest form that is read. A reader refuses any other.
const OLDEST: u32 = 1;
/// The longest line and the most lines that are read.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
const LINES_MAX: usize = 1_000_000;
/// The longest recording that is read, bytes.
pub const BYTES_MAX: usize = 256 * 1024 * 1024;
/// How a section's line begins, as it is written.
const SECTION_BEGINS: &str = "{\"section\":";
/// The kind of all machines of a proxy process.
pub const OF_PROXY: &str = "health";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`], or an older one that was read.
    #[serde(rename = "lbd-recording")]
    pub version: u32,
    /// Which lbd wrote it.
    pub lbd: String,
    /// Digest of the lb.toml in force, as `lbd status` shows it; its text is not in the recording.
    pub config: String,
    /// The node's name, if it has one.
    pub node: Option<String>,
    /// The kernel's name for the boot.
    pub boot: String,
    /// Why it was written.
    pub why: String,
    /// When it was written, milliseconds since 1970.
    pub wall_ms: u64,
    /// The same moment, in the recording's own time.
    pub t: i64,
    /// What is not in it, and why: servers' probes mostly, where no proxy process told of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

/// Begins the lines of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    section: String,
    name: String,
    /// The recording's time at which the times of this machine's tape begin, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    base: i64,
    /// It was a machine of a process that has ended since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
}

/// The end of a process whose tapes outlasted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Its process id.
    pub pid: u32,
    /// When that was noticed, in the recording's time.
    pub t: i64,
    /// How it ended.
    pub how: String,
}

fn is_zero(base: &i64) -> bool {
    *base == 0
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: usize,
}

/// One machine of a recording.
#[derive(Debug)]
pub struct Machine {
    /// Which kind: `vrrp`, `supervise`, `health` and so on.
    pub kind: String,
    /// Which one of its kind.
    pub name: String,
    /// What to add to the times of its tape, nanoseconds: another process wrote it.
    pub base: i64,
    /// The process that it was a machine of has ended.
    pub ended: Option<Ended>,
    /// Its tape, with the number of each line in the file.
    pub lines: Vec<(usize, ReadLine)>,
}

/// A whole recording.
#[derive(Debug)]
pub struct Recording {
    /// The first line.
    pub header: Header,
    /// In the order of the file.
    pub machines: Vec<Machine>,
}

/// Why a file is no recording that can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Something else.
    #[error("this is no recording of lbd: its first line should begin with {{\"lbd-recording\":1")]
    Foreign,
    /// Of another form.
    #[error(
        "a recording of form {found}; this lbd (forms {OLDEST} to {VERSION}) can't read it, the one that wrote it can: lbd {lbd}"
    )]
    OtherVersion {
        /// What it says of itself.
        found: u32,
        /// Who wrote it.
        lbd: String,
    },
    /// The end is missing.
    #[error("the recording is cut off: line {lines} is not its end")]
    CutOff {
        /// How many there are.
        lines: usize,
    },
    /// Lines are missing, or there are too many.
    #[error("line {line}: {found} lines come before it, {said} were written")]
    Count {
        /// The last line.
        line: usize,
        /// In the file.
        found: usize,
        /// By its own word.
        said: usize,
    },
    /// A line that makes no sense.
    #[error("line {line} is no line of a recording")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line where none of its kind can be.
    #[error("line {line}: {what}")]
    Place {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl Header {
    /// This is not in the recording, either.
    pub fn lack(&mut self, what: &str) {
        let before = self.lacks.take();
        let both = before.map(|before| format!("{before}; {what}"));
        self.lacks = Some(both.unwrap_or_else(|| what.to_owned()));
    }
}

/// What machines may take of a recording that [`read`] is to read.
#[derive(Debug)]
pub(super) struct Room {
    lines: usize,
    bytes: usize,
}

impl Room {
    /// All but the first line and the last one.
    pub(super) const ALL: Self = Self {
        lines: LINES_MAX - 2,
        bytes: BYTES_MAX - 2 * LINE_BYTES_MAX,
    };

    /// Whether there was room for this part; then there is less.
    pub(super) fn take(&mut self, part: &[u8]) -> bool {
        let Some(bytes) = self.bytes.checked_sub(part.len()) else {
            return false;
        };
        let Some(lines) = self.lines.checked_sub(lines_of(part)) else {
            return false;
        };
        *self = Self { lines, bytes };
        true
    }
}

fn lines_of(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Puts a recording together that can be read: the header, each machine's kind, name and tape, then
/// each part that another process wrote (see [`section`]) with what it is, the end. What is too long
/// to be read with all before it is left out, and the header says so.
///
/// # Errors
/// Not with these types; the serializer's.
pub fn write(
    header: &Header,
    tapes: &[(&str, String, Vec<u8>)],
    others: &[(&str, &[u8])],
) -> Result<Vec<u8>, serde_json::Error> {
    let own: usize = tapes.iter().map(|(_, _, tape)| tape.len()).sum();
    let of_others: usize = others.iter().map(|(_, part)| part.len()).sum();
    let mut out = Vec::with_capacity(own + of_others + 4096);
    let (mut header, mut room, mut left_out) = (header.clone(), Room::ALL, 0);
    for (kind, name, tape) in tapes {
        let before = out.len();
        section(&mut out, kind, name, 0)?;
        out.extend_from_slice(tape);
        if !room.take(out.get(before..).unwrap_or_default()) {
            out.truncate(before);
            left_out += 1;
        }
    }
    if left_out > 0 {
        header.lack(&format!("{left_out} machines of the keeper: too long"));
    }
    for (what, part) in others {
        if room.take(part) {
            out.extend_from_slice(part);
        } else {
            header.lack(&format!("{what}: too long"));
        }
    }
    let mut first = serde_json::to_vec(&header)?;
    first.push(b'\n');
    out.splice(0..0, first);
    let end = lines_of(&out);
    serde_json::to_writer(&mut out, &End { end })?;
    out.push(b'\n');
    Ok(out)
}

/// Begins a machine's lines; its tape is to follow. `base` as in [`Machine::base`].
///
/// # Errors
/// Not with these types; the serializer's.
pub fn section(
    out: &mut Vec<u8>,
    kind: &str,
    name: &str,
    base: i64,
) -> Result<(), serde_json::Error> {
    section_of(out, (kind, name), base, None)
}

/// The same for a machine of a proxy process that has ended.
///
/// # Errors
/// Not with these types; the serializer's.
pub fn ended_section(
    out: &mut Vec<u8>,
    name: &str,
    base: i64,
    ended: &Ended,
) -> Result<(), serde_json::Error> {
    section_of(out, (OF_PROXY, name), base, Some(ended.clone()))
}

fn section_of(
    out: &mut Vec<u8>,
    (kind, name): (&str, &str),
    base: i64,
    ended: Option<Ended>,
) -> Result<(), serde_json::Error> {
    let section = Section {
        section: kind.to_owned(),
        name: name.to_owned(),
        base,
        ended,
    };
    serde_json::to_writer(&mut *out, &section)?;
    out.push(b'\n');
    Ok(())
}

/// Whether these are whole sections of the kind that a proxy process has, and nothing else: only then
/// may they go into a recording, which is one that can be read with them in it.
#[must_use]
pub fn are_sections(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let is_line = |line: &str| {
        let is_section = line.starts_with(SECTION_BEGINS);
        line.len() <= LINE_BYTES_MAX
            && match is_section {
                true => parsed(0, line)
                    .is_ok_and(|of: Section| of.section == OF_PROXY && of.ended.is_none()),
                false => line.starts_with("{\"t\":") && parsed::<ReadLine>(0, line).is_ok(),
            }
    };
    let whole = text.is_empty() || text.starts_with(SECTION_BEGINS) && text.ends_with('\n');
    whole && text.lines().nth(LINES_MAX / 2).is_none() && text.lines().all(is_line)
}

/// Takes a recording apart.
///
/// # Errors
/// [`ReadError`].
pub fn read(text: &str) -> Result<Recording, ReadError> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let header = lines
        .next()
        .map_or(Err(ReadError::Foreign), |(_, line)| header(line))?;
    let mut machines: Vec<Machine> = Vec::new();
    let mut last = 1;
    for (line, text) in lines {
        last = line;
        if line > LINES_MAX || text.len() > LINE_BYTES_MAX {
            let what = "longer than any recording of lbd";
            return Err(ReadError::Place { line, what });
        }
        if text.starts_with("{\"end\"") {
            let end: End = parsed(line, text)?;
            return match end.end == line - 1 {
                true => Ok(Recording { header, machines }),
                false => Err(ReadError::Count {
                    line,
                    found: line - 1,
                    said: end.end,
                }),
            };
        }
        if text.starts_with("{\"section\"") {
            let section: Section = parsed(line, text)?;
            machines.push(Machine {
                kind: section.section,
                name: section.name,
                base: section.base,
                ended: section.ended,
                lines: Vec::new(),
            });
            continue;
        }
        let Some(machine) = machines.last_mut() else {
            let what = "a step before the first machine";
            return Err(ReadError::Place { line, what });
        };
        machine.lines.push((line, parsed(line, text)?));
    }
    Err(ReadError::CutOff { lines: last })
}

fn header(line: &str) -> Result<Header, ReadError> {
    if !line.starts_with("{\"lbd-recording\":") || line.len() > LINE_BYTES_MAX {
        return Err(ReadError::Foreign);
    }
    let value: serde_json::Value = parsed(1, line)?;
    let found = value
        .get("lbd-recording")
        .and_then(serde_json::Value::as_u64);
    let found = found.and_then(|found| u32::try_from(found).ok());
    let found = found.ok_or(ReadError::Foreign)?;
    if !(OLDEST..=VERSION).contains(&found) {
        let lbd = value.get("lbd").and_then(serde_json::Value::as_str);
        let lbd = lbd.unwrap_or("unknown").chars().take(64).collect();
        return Err(ReadError::OtherVersion { found, lbd });
    }
    parsed(1, line)
}

fn parsed<'a, T: Deserialize<'a>>(line: usize, text: &'a str) -> Result<T, ReadError> {
    serde_json::from_str(text).map_err(|source| ReadError::Line { line, source })
}
