//! Tapes in memory that outlives the process that writes them: words that another process has, too,
//! and reads once the writer has ended. Each tape has a seat: a head with its name and the lengths of
//! its parts, and room for the parts. A line counts from the moment its part's length says so, so one
//! that was half written when the process ended is not there. Pure.

mod read;

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use read::{Found, Source, UnreadableBox, read};

use super::tape::{PARTS, Size};

/// Tapes that there is room for.
pub const SEATS: usize = 256;
/// All of it, in words of 8 bytes. What is never written takes no memory.
pub const WORDS: usize = HEADS + SEATS * HEAD_WORDS + SEATS * PARTS * PART_WORDS;

/// The first word once a process writes here: what it is, and the version of this layout.
const MAGIC: u64 = 0x6c62_645f_7461_7001;
/// Behind it: the writer's time on tapes, and the same moment by `CLOCK_BOOTTIME`.
const TIME: usize = 1;
const BOOTTIME: usize = 2;
/// Where the heads of seats begin, and how long one is.
const HEADS: usize = 8;
const HEAD_WORDS: usize = 64;
/// In a head: the length of the name in bytes (0: nobody sits there), the part that is written, the
/// lengths of the parts in bytes, the name.
const NAME_LENGTH: usize = 0;
const CURRENT: usize = 1;
const LENGTHS: usize = 2;
const NAME: usize = LENGTHS + PARTS;
const NAME_BYTES_MAX: usize = (HEAD_WORDS - NAME) * WORD;
/// A part of a tape, as long as one of [`Size::SMALL`].
const PART_BYTES: usize = Size::SMALL.part + Size::SMALL.slack;
const PART_WORDS: usize = PART_BYTES / WORD;
const WORD: usize = size_of::<u64>();

/// Words that another process has, too.
pub trait Memory: Deref<Target = [AtomicU64]> + Debug + Send + Sync {}

impl<T: Deref<Target = [AtomicU64]> + Debug + Send + Sync> Memory for T {}

/// The writer's end.
#[derive(Debug, Clone)]
pub struct BlackBox {
    memory: Arc<dyn Memory>,
    /// Who sits where.
    taken: Arc<Mutex<Vec<bool>>>,
    /// [`Life`] is over.
    stays: Arc<AtomicBool>,
}

/// While the writer lives. Once this is dropped, as also a panic does, the tapes stay as they are: what
/// drops their seats from then on is the end of the process.
#[derive(Debug)]
pub struct Life(Arc<AtomicBool>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Where one tape lies. It is free again when this is dropped, and stays as it is when the process
/// ends: see [`Life`].
#[derive(Debug)]
pub struct Seat {
    of: BlackBox,
    at: usize,
}

impl BlackBox {
    /// The writer begins; `t`: its time on tapes, `boottime_ns`: the same moment by `CLOCK_BOOTTIME`.
    /// `None`: the memory is shorter than [`WORDS`].
    #[must_use]
    pub fn begin(memory: Arc<dyn Memory>, t: i64, boottime_ns: u64) -> Option<Self> {
        let words: &[AtomicU64] = &memory;
        if words.len() < WORDS {
            return None;
        }
        words.get(TIME)?.store(t.cast_unsigned(), Ordering::Relaxed);
        words.get(BOOTTIME)?.store(boottime_ns, Ordering::Relaxed);
        words.first()?.store(MAGIC, Ordering::Release);
        Some(Self {
            memory,
            taken: Arc::new(Mutex::new(vec![false; SEATS])),
            stays: Arc::default(),
        })
    }

    /// To be dropped before the machines are, when the process ends.
    #[must_use]
    pub fn life(&self) -> Life {
        Life(Arc::clone(&self.stays))
    }

    /// A free one with an empty tape; `None`: there is none, or the name is too long for it.
    #[must_use]
    pub fn seat(&self, name: &str) -> Option<Seat> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let at = {
            let mut taken = self.taken();
            let at = taken.iter().position(|taken| !taken)?;
            *taken.get_mut(at)? = true;
            at
        };
        let seat = Seat {
            of: self.clone(),
            at,
        };
        (0..PARTS).for_each(|part| seat.clear(part));
        seat.turn_to(0);
        store(self.words(), seat.head() + NAME, 0, name.as_bytes());
        seat.set(NAME_LENGTH, name.len());
        Some(seat)
    }

    fn taken(&self) -> MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn words(&self) -> &[AtomicU64] {
        &self.memory
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.of.stays.load(Ordering::Acquire) {
            return;
        }
        self.set(NAME_LENGTH, 0);
        if let Some(taken) = self.of.taken().get_mut(self.at) {
            *taken = false;
        }
    }
}

impl Seat {
    fn head(&self) -> usize {
        HEADS + self.at * HEAD_WORDS
    }

    /// After all that was written before it.
    fn set(&self, field: usize, value: usize) {
        if let Some(word) = self.of.words().get(self.head() + field) {
            word.store(u64::try_from(value).unwrap_or(0), Ordering::Release);
        }
    }

    /// Bytes in a part.
    pub(super) fn used(&self, part: usize) -> usize {
        let word = self.of.words().get(self.head() + LENGTHS + part);
        let used = word.map_or(0, |word| word.load(Ordering::Relaxed));
        usize::try_from(used).unwrap_or(0).min(PART_BYTES)
    }

    /// Bytes that a part has room for.
    pub(super) fn room(&self, part: usize) -> usize {
        PART_BYTES - self.used(part)
    }

    /// Nothing is in this part.
    pub(super) fn clear(&self, part: usize) {
        self.set(LENGTHS + part, 0);
    }

    /// This part is written from here on; the one behind it is the oldest.
    pub(super) fn turn_to(&self, part: usize) {
        self.set(CURRENT, part);
        // Whoever sees what is written there next sees this.
        fence(Ordering::Release);
    }

    /// Adds a line that there is room for.
    pub(super) fn put(&self, part: usize, line: &[u8]) {
        let used = self.used(part);
        if part < PARTS && line.len() <= PART_BYTES - used {
            store(self.of.words(), data(self.at, part), used, line);
            self.set(LENGTHS + part, used + line.len());
        }
    }

    /// What is in a part goes to the end of `out`.
    pub(super) fn copy(&self, part: usize, out: &mut Vec<u8>) {
        let words = self.of.words().get(data(self.at, part)..);
        let words = words.unwrap_or_default().iter().take(PART_WORDS);
        let end = out.len() + self.used(part);
        out.extend(words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()));
        out.truncate(end);
    }
}

/// Where a part's bytes begin.
const fn data(seat: usize, part: usize) -> usize {
    HEADS + SEATS * HEAD_WORDS + (seat * PARTS + part) * PART_WORDS
}

/// Writes bytes that begin so many behind word `from`. Nobody else writes there.
fn store(words: &[AtomicU64], from: usize, behind: usize, bytes: &[u8]) {
    let words = words.get(from + behind / WORD..).unwrap_or_default();
    let mut within = behind % WORD;
    let mut rest = bytes;
    for word in words {
        let (now, later) = rest.split_at(rest.len().min(WORD - within));
        let mut raw = match now.len() {
            WORD => [0; WORD],
            _ => word.load(Ordering::Relaxed).to_ne_bytes(),
        };
        if let Some(room) = raw.get_mut(within..within + now.len()) {
            room.copy_from_slice(now);
        }
        word.store(u64::from_ne_bytes(raw), Ordering::Relaxed);
        rest = later;
        within = 0;
        if rest.is_empty() {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
