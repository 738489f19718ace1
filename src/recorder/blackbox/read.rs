//! The reader's end. The process that wrote there talked with clients, and may have been made to write
//! anything: every length is checked, what is kept is bounded, and of a tape only whole lines that a
//! recording can have come out. Pure.

use std::io;

use super::{
    CURRENT, HEAD_WORDS, HEADS, LENGTHS, MAGIC, NAME, NAME_BYTES_MAX, NAME_LENGTH, PART_BYTES,
    PARTS, SEATS, TIME, WORD, data,
};
use crate::recorder::file::LINE_BYTES_MAX;
use crate::recorder::tape::ReadLine;
use crate::recorder::time;

/// The most lines of all tapes.
const LINES_MAX: usize = 250_000;
/// A process that writes still may turn to the next part while its tape is read: then once more.
const TRIES: usize = 3;
const HEAD_BYTES: usize = HEAD_WORDS * WORD;

/// Reads at a place, as from a file.
pub trait Source {
    /// Fills all of `into` with what lies `offset` bytes from the beginning.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The writer's time on tapes when it began.
    pub t: i64,
    /// The same moment by `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// Names and tapes.
    pub tapes: Vec<(String, Vec<u8>)>,
    /// Tapes that make no sense.
    pub broken: usize,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableBox {
    /// The kernel's.
    #[error("its memory cannot be read")]
    Io(#[from] io::Error),
    /// It ended before that, or is of another version.
    #[error("it had not begun to write them where they outlast it")]
    NotBegun,
}

/// Reads all tapes.
///
/// # Errors
/// [`UnreadableBox`].
pub fn read(source: &impl Source) -> Result<Found, UnreadableBox> {
    let mut beginning = [0; HEADS * WORD];
    source.read_at(0, &mut beginning)?;
    let (t, boottime_ns) = (word(&beginning, TIME), word(&beginning, super::BOOTTIME));
    if word(&beginning, 0) != MAGIC || !time::is_possible(t.cast_signed()) {
        return Err(UnreadableBox::NotBegun);
    }
    let mut found = Found {
        t: t.cast_signed(),
        boottime_ns,
        tapes: Vec::new(),
        broken: 0,
    };
    let mut lines = 0;
    for seat in 0..SEATS {
        let Some((name, tape)) = seated(source, seat)? else {
            continue;
        };
        match name.map(|name| (name, sound(&tape, LINES_MAX - lines))) {
            Some((name, (bytes, count))) if count > 0 => {
                lines += count;
                let kept = tape.get(..bytes).unwrap_or_default();
                found.tapes.push((name, kept.to_vec()));
            }
            Some(_) | None => found.broken += 1,
        }
    }
    Ok(found)
}

/// What lies at one seat: its name, if it is one, and its tape; `None`: nobody sits there.
#[expect(clippy::type_complexity, reason = "for its one caller")]
fn seated(
    source: &impl Source,
    seat: usize,
) -> Result<Option<(Option<String>, Vec<u8>)>, UnreadableBox> {
    let mut tape = Vec::new();
    let mut head = head(source, seat)?;
    for _ in 0..TRIES {
        if word(&head, NAME_LENGTH) == 0 {
            return Ok(None);
        }
        tape.clear();
        for part in order(&head) {
            let used = length(&head, part);
            let begin = tape.len();
            tape.resize(begin + used, 0);
            if let Some(room) = tape.get_mut(begin..) {
                source.read_at(offset(data(seat, part)), room)?;
            }
        }
        let again = self::head(source, seat)?;
        let same = is_same(&head, &again);
        head = again;
        if same {
            return Ok(Some((name(&head), tape)));
        }
    }
    Ok(Some((None, Vec::new())))
}

fn head(source: &impl Source, seat: usize) -> Result<[u8; HEAD_BYTES], UnreadableBox> {
    let mut head = [0; HEAD_BYTES];
    source.read_at(offset(HEADS + seat * HEAD_WORDS), &mut head)?;
    Ok(head)
}

/// Whether what was read under the first head is what the second one describes: that lines were added
/// meanwhile does no harm.
fn is_same(head: &[u8], again: &[u8]) -> bool {
    let added = |part| length(head, part) <= length(again, part);
    let same = |field| word(head, field) == word(again, field);
    same(NAME_LENGTH) && same(CURRENT) && name(head) == name(again) && (0..PARTS).all(added)
}

/// The parts, the oldest first.
fn order(head: &[u8]) -> impl Iterator<Item = usize> {
    let current = usize::try_from(word(head, CURRENT) % PARTS as u64).unwrap_or(0);
    (1..=PARTS).map(move |behind| (current + behind) % PARTS)
}

fn length(head: &[u8], part: usize) -> usize {
    let length = usize::try_from(word(head, LENGTHS + part)).unwrap_or(usize::MAX);
    length.min(PART_BYTES)
}

fn name(head: &[u8]) -> Option<String> {
    let length = usize::try_from(word(head, NAME_LENGTH)).ok()?;
    let bytes = head.get(NAME * WORD..)?.get(..length)?;
    let name = std::str::from_utf8(bytes).ok()?;
    let plain = length <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    plain.then(|| name.to_owned())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let raw = bytes.get(at * WORD..).and_then(<[u8]>::first_chunk);
    raw.map_or(0, |raw| u64::from_ne_bytes(*raw))
}

fn offset(words: usize) -> u64 {
    u64::try_from(words * WORD).unwrap_or(u64::MAX)
}

/// How many bytes from the beginning are whole lines as a machine's tape has them, and how many lines
/// they are; at most so many.
fn sound(tape: &[u8], most: usize) -> (usize, usize) {
    let (mut bytes, mut lines, mut last) = (0, 0, i64::MIN);
    for line in tape.split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        let Some(read) = (lines < most).then(|| parsed(text)).flatten() else {
            break;
        };
        let begins = read.machine.is_some();
        if read.t < last || begins == read.step.is_some() || lines == 0 && !begins {
            break;
        }
        last = read.t;
        bytes += line.len();
        lines += 1;
    }
    (bytes, lines)
}

fn parsed(line: &[u8]) -> Option<ReadLine> {
    let fits = line.len() <= LINE_BYTES_MAX && line.starts_with(b"{\"t\":");
    let read: ReadLine = serde_json::from_slice(line).ok().filter(|_| fits)?;
    time::is_possible(read.t).then_some(read)
}
