//! The ring of one machine: text, a line for each step, in parts that are overwritten whole, the
//! oldest first. Each part begins with the machine as it was, so that the oldest one kept is as
//! good a beginning as the first. After it is made it takes no memory from the allocator. Pure.

use std::io::{self, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::time;

const PARTS: usize = 8;

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
    parts: Vec<Vec<u8>>,
    current: usize,
    size: Size,
    /// Lines that did not fit.
    lost: u64,
}

/// Writes into what is there of a buffer, never more.
struct Within<'a>(&'a mut Vec<u8>);

impl Write for Within<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        Self {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            current: 0,
            size,
            lost: 0,
        }
    }

    /// The machine as it is, as a beginning. On a tape that was in use: this is another machine than
    /// the one before, and nothing of that one says how it came about.
    pub fn begin<M: Recorded>(&mut self, now: Instant, machine: &M) {
        let used = self.parts.iter().any(|part| !part.is_empty());
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
        if let Some(part) = self.parts.get_mut(self.current) {
            part.clear();
        }
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
        let used = self.parts.get(self.current).map_or(0, Vec::len);
        if used >= self.size.part || !fits {
            self.turn();
            self.put(&whole(now, machine, !fits));
        }
    }

    /// Whether it fitted. After a line that is lost a new beginning must follow.
    fn put(&mut self, line: &impl Serialize) -> bool {
        let Some(part) = self.parts.get_mut(self.current) else {
            return false;
        };
        let before = part.len();
        let mut room = Within(part);
        let written = serde_json::to_writer(&mut room, line).is_ok();
        let whole = written && room.write_all(b"\n").is_ok();
        if !whole {
            part.truncate(before);
            self.lost += 1;
        }
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
        let (newer, older) = self
            .parts
            .split_at_checked(self.current + 1)
            .unwrap_or((&[], &[]));
        let parts = || older.iter().chain(newer);
        let bytes: usize = parts().map(Vec::len).sum();
        let mut copy = Vec::with_capacity(bytes + self.size.slack);
        for part in parts() {
            copy.extend_from_slice(part);
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
