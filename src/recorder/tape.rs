//! The ring of one machine: text, a line for each step, in parts that are overwritten whole, the
//! oldest first. Each part begins with the machine as it was, so that the oldest one kept is as
//! good a beginning as the first. It lies in memory of this process, or where it outlasts the process
//! (`blackbox`). After it is made it takes no memory from the allocator. Pure.

use std::io::{self, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::blackbox::Seat;
use super::time;

/// Parts of a tape.
pub(super) const PARTS: usize = 8;

/// How much a tape holds: bytes of one of its 8 parts that lines may begin in, and what the last of
/// them may take beyond. The whole machine and one more line must fit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// For lines to begin in.
    pub part: usize,
    /// Beyond that.
    pub slack: usize,
}

impl Size {
    /// 1.5 MiB: a machine that hears several times a second.
    pub const LARGE: Self = Self {
        part: 160 * 1024,
        slack: 32 * 1024,
    };
    /// 256 KiB: one that hears something about once a second.
    pub const MEDIUM: Self = Self {
        part: 24 * 1024,
        slack: 8 * 1024,
    };
    /// 64 KiB: one that hears something every few seconds, and of which there are many.
    pub const SMALL: Self = Self {
        part: 6 * 1024,
        slack: 2 * 1024,
    };
}

/// A machine that can be recorded.
pub trait Recorded: Serialize {
    /// What shows after a step: state, reason, next deadline.
    type Standing: Serialize;

    /// As of now.
    fn standing(&self, now: Instant) -> Self::Standing;
}

/// A line of a tape. One of `machine` and `step` is there.
#[derive(Debug, Serialize)]
struct Line<'a, M, S, O, K> {
    /// When, nanoseconds.
    t: i64,
    /// A line before it was lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'a M>,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    step: Option<&'a S>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    answer: Option<&'a O>,
    #[serde(rename = "is", skip_serializing_if = "Option::is_none")]
    standing: Option<K>,
}

/// A line as a reader finds it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadLine {
    /// When, nanoseconds since the recording's base.
    pub t: i64,
    /// A line before it was too long and is not there: the machine begins anew.
    #[serde(default)]
    pub gap: bool,
    /// The whole machine at that time.
    pub machine: Option<serde_json::Value>,
    /// What it was told.
    #[serde(rename = "in")]
    pub step: Option<serde_json::Value>,
    /// What it answered.
    #[serde(rename = "out")]
    pub answer: Option<serde_json::Value>,
    /// How it stood then.
    #[serde(rename = "is")]
    pub standing: Option<serde_json::Value>,
}

/// What a machine was told, of late.
#[derive(Debug)]
pub struct Tape {
    parts: Parts,
    current: usize,
    size: Size,
    /// Lines that did not fit.
    lost: u64,
}

/// Where the lines lie.
#[derive(Debug)]
enum Parts {
    /// They end with the process.
    Own(Vec<Vec<u8>>),
    /// They don't. A line is put together before it goes there.
    Lasting(Seat, Vec<u8>),
}

/// Writes into what is there of a buffer, so much and never more.
struct Within<'a>(&'a mut Vec<u8>, usize);

impl Write for Within<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.saturating_sub(self.0.len()) < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the line is whole in the buffer, with its end.
fn is_written(line: &impl Serialize, mut room: Within<'_>) -> bool {
    serde_json::to_writer(&mut room, line).is_ok() && room.write_all(b"\n").is_ok()
}

impl Parts {
    fn used(&self, part: usize) -> usize {
        match self {
            Self::Own(parts) => parts.get(part).map_or(0, Vec::len),
            Self::Lasting(seat, _) => seat.used(part),
        }
    }

    /// Nothing is in this one, and it is written from here on.
    fn turn_to(&mut self, part: usize) {
        match self {
            Self::Own(parts) => {
                if let Some(part) = parts.get_mut(part) {
                    part.clear();
                }
            }
            Self::Lasting(seat, _) => {
                seat.clear(part);
                seat.turn_to(part);
            }
        }
    }

    /// Whether there was room for the line.
    fn put(&mut self, part: usize, line: &impl Serialize) -> bool {
        match self {
            Self::Own(parts) => {
                let Some(part) = parts.get_mut(part) else {
                    return false;
                };
                let (before, room) = (part.len(), part.capacity());
                let whole = is_written(line, Within(part, room));
                if !whole {
                    part.truncate(before);
                }
                whole
            }
            Self::Lasting(seat, bytes) => {
                bytes.clear();
                let whole = is_written(line, Within(bytes, seat.room(part)));
                if whole {
                    seat.put(part, bytes);
                }
                whole
            }
        }
    }

    fn copy(&self, part: usize, out: &mut Vec<u8>) {
        match self {
            Self::Own(parts) => {
                out.extend_from_slice(parts.get(part).map_or(&[], Vec::as_slice));
            }
            Self::Lasting(seat, _) => seat.copy(part, out),
        }
    }
}

impl Tape {
    /// An empty one of [`Size::LARGE`].
    #[must_use]
    pub fn new() -> Self {
        Self::of(Size::LARGE)
    }

    /// An empty one with all the memory it will ever use.
    #[must_use]
    pub fn of(size: Size) -> Self {
        let part = || Vec::with_capacity(size.part + size.slack);
        let parts = std::iter::repeat_with(part).take(PARTS);
        Self::on(Parts::Own(parts.collect()), size)
    }

    /// An empty one of [`Size::SMALL`] that outlasts the process.
    #[must_use]
    pub fn lasting(seat: Seat) -> Self {
        let size = Size::SMALL;
        let line = Vec::with_capacity(size.part + size.slack);
        Self::on(Parts::Lasting(seat, line), size)
    }

    fn on(parts: Parts, size: Size) -> Self {
        Self {
            parts,
            current: 0,
            size,
            lost: 0,
        }
    }

    /// The machine as it is, as a beginning. On a tape that was in use: this is another machine than
    /// the one before, and nothing of that one says how it came about.
    pub fn begin<M: Recorded>(&mut self, now: Instant, machine: &M) {
        let used = (0..PARTS).any(|part| self.parts.used(part) > 0);
        self.put_whole(now, machine, used);
    }

    /// Into the present part or, where it doesn't fit there, the next.
    fn put_whole<M: Recorded>(&mut self, now: Instant, machine: &M, gap: bool) {
        if !self.put(&whole(now, machine, gap)) {
            self.turn();
            self.put(&whole(now, machine, gap));
        }
    }

    /// The oldest part makes room.
    fn turn(&mut self) {
        self.current = (self.current + 1) % PARTS;
        self.parts.turn_to(self.current);
    }

    /// The machine was told `step`, answered `answer`, and is now as it is.
    pub fn note<M, S, O>(&mut self, now: Instant, step: &S, answer: &O, machine: &M)
    where
        M: Recorded,
        S: Serialize,
        O: Serialize,
    {
        let fits = self.put(&Line::<M, S, O, M::Standing> {
            t: time::nanos(now),
            gap: false,
            machine: None,
            step: Some(step),
            answer: Some(answer),
            standing: Some(machine.standing(now)),
        });
        if self.parts.used(self.current) >= self.size.part || !fits {
            self.turn();
            self.put(&whole(now, machine, !fits));
        }
    }

    /// Whether it fitted. After a line that is lost a new beginning must follow.
    fn put(&mut self, line: &impl Serialize) -> bool {
        let whole = self.parts.put(self.current, line);
        self.lost += u64::from(!whole);
        whole
    }

    /// Lines that were too long to be kept.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Everything kept, oldest first, and the machine as it is now as its end.
    #[must_use]
    pub fn copy<M: Recorded>(&self, now: Instant, machine: &M) -> Vec<u8> {
        let parts = || (1..=PARTS).map(|behind| (self.current + behind) % PARTS);
        let bytes: usize = parts().map(|part| self.parts.used(part)).sum();
        let mut copy = Vec::with_capacity(bytes + self.size.slack);
        for part in parts() {
            self.parts.copy(part, &mut copy);
        }
        let length = copy.len();
        match serde_json::to_writer(&mut copy, &whole(now, machine, false)) {
            Ok(()) => copy.push(b'\n'),
            Err(_unwritable) => copy.truncate(length),
        }
        copy
    }
}

fn whole<M: Recorded>(now: Instant, machine: &M, gap: bool) -> Line<'_, M, (), (), M::Standing> {
    Line {
        t: time::nanos(now),
        gap,
        machine: Some(machine),
        step: None,
        answer: None,
        standing: None,
    }
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}
