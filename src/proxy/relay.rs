//! Moving bytes from one side of a connection to the other.
//!
//! Nothing is read before the other side can take it, so an idle connection holds no buffer. What
//! was read and not taken after all is held until it is; then less is read at once. After two full
//! reads in a row a direction switches to splice(2), until it goes quiet. The end of a stream is
//! passed on only behind its last byte.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use super::conn::Side;
use super::rebalance::records::Track;
use crate::net::splice::{PIPE_BYTES, Pipe};
use crate::net::tcp;

/// Size of a worker's read buffer, bytes.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes one direction may move in a round before others get their turn: about 0.2 ms.
const BUDGET: usize = 1024 * 1024;
/// The same while others move little at a time: about 10 µs, for they are waited for.
const BUDGET_BESIDE_REQUESTS: usize = 64 * 1024;
/// For how long somebody who moved little counts, microseconds.
const REQUESTS_FOR: u64 = 5_000;
/// A direction that moves less in a turn is quiet. A few such turns in a row are no stream, and go
/// back to the buffer; one alone is what a stream looks like whose source was late.
const QUIET_BYTES: usize = 16 * 1024;
/// Bytes that a direction reads at once after a larger read, or after its destination was slow: it
/// may have to hold them for long, and a stream is to be spliced.
const CAREFUL_BYTES: usize = 16 * 1024;
/// Empty pipes a worker keeps for the next stream.
const SPARE_PIPES: usize = 4;
/// Pipes that all workers together may have in use; further streams go through the buffer.
const PIPES: usize = 48;

/// Bytes that were read and wait for the other side.
#[derive(Debug)]
enum Held {
    Bytes { data: Box<[u8]>, at: u32 },
    Pipe(Pipe, u32),
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Boxed, for hardly any connection holds something.
    held: Option<Box<Held>>,
    /// The lowest byte is flags, the rest counts the bytes read from the source: enough for two
    /// months at 100 Gbit/s.
    word: u64,
}

impl Flow {
    /// The source has come to its end.
    const ENDED: u64 = 1;
    /// The destination has been told so.
    const FINISHED: u64 = 1 << 1;
    const SPLICING: u64 = 1 << 2;
    /// The last read filled the buffer.
    const FULL_READ: u64 = 1 << 3;
    /// Its last turn ended because its budget was spent.
    const SPENT: u64 = 1 << 4;
    /// It has read more than [`CAREFUL_BYTES`] at once, or its destination took less than was read.
    const CAREFUL: u64 = 1 << 5;
    /// The quiet turns in a row of one that splices: 0 to 3.
    const QUIET_TURN: u64 = 1 << 6;
    const QUIET_TURNS: u64 = 3 << 6;
    const FLAGS: u32 = 8;

    const fn has(&self, flag: u64) -> bool {
        self.word & flag != 0
    }

    /// Bytes read from the source.
    pub(super) const fn bytes(&self) -> u64 {
        self.word >> Self::FLAGS
    }

    /// Whether the source has come to its end.
    pub(super) const fn ended(&self) -> bool {
        self.has(Self::ENDED)
    }

    pub(super) const fn end(&mut self) {
        self.word |= Self::ENDED;
    }

    /// Whether the destination has been told so.
    pub(super) const fn finished(&self) -> bool {
        self.has(Self::FINISHED)
    }

    pub(super) const fn finish(&mut self) {
        self.word |= Self::FINISHED;
    }

    /// Whether nothing waits for the destination.
    pub(super) const fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// These bytes go to the destination before any of the source's.
    pub(super) fn begin_with(&mut self, bytes: Box<[u8]>) {
        self.held = Some(Box::new(Held::Bytes { data: bytes, at: 0 }));
    }

    /// Whether the destination has not taken a byte.
    pub(super) fn is_untaken(&self) -> bool {
        match self.held.as_deref() {
            None => self.bytes() == 0,
            Some(Held::Bytes { data, at }) => {
                *at == 0 && u64::try_from(data.len()).is_ok_and(|held| held == self.bytes())
            }
            Some(Held::Pipe(..)) => false,
        }
    }

    /// Whether every byte up to the source's end has been passed on.
    pub(super) const fn is_done(&self) -> bool {
        self.ended() && self.is_empty()
    }

    /// Nobody is left to take its bytes.
    pub(super) fn cut(&mut self, kit: &mut Kit) {
        self.end();
        self.finish();
        if let Some(Held::Pipe(..)) = self.held.take().as_deref() {
            kit.pipes_out = kit.pipes_out.saturating_sub(1);
        }
    }

    /// After a read that filled the buffer: two in a row make a stream.
    const fn full(&mut self) {
        self.word |= if self.has(Self::FULL_READ) {
            Self::SPLICING
        } else {
            Self::FULL_READ
        };
    }

    /// It is no stream (any more).
    const fn quiet(&mut self) {
        self.word &= !(Self::SPLICING | Self::FULL_READ | Self::QUIET_TURNS);
    }

    /// After a turn in which a splicing direction moved this much and found its source empty.
    const fn rested(&mut self, moved: usize) {
        // What a stream had just before its budget was spent counts, too.
        if moved >= QUIET_BYTES || self.has(Self::SPENT) {
            self.word &= !(Self::QUIET_TURNS | Self::SPENT);
        } else if self.word & Self::QUIET_TURNS == Self::QUIET_TURNS {
            self.quiet();
        } else {
            self.word += Self::QUIET_TURN;
        }
    }
}

/// What a worker's connections share to move bytes.
#[derive(Debug)]
pub(super) struct Kit {
    buffer: Box<[u8]>,
    pipes: Vec<Pipe>,
    /// Pipes that hold a connection's bytes.
    pipes_out: usize,
    /// How many may.
    pipes_max: usize,
    /// No pipe has a descriptor from here.
    below: RawFd,
    /// No new pipe is asked of the kernel until trimmed: it has refused one.
    refused: bool,
    /// Bytes spliced since last asked.
    pub(super) spliced: u64,
    /// What a direction may move in this round.
    budget: usize,
    /// Somebody has moved little in this round.
    requests: bool,
    /// Until when that counts.
    requests_until: u64,
}

impl Kit {
    /// For one of `workers` workers.
    pub(super) fn new(workers: usize, below: RawFd) -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            pipes: Vec::new(),
            pipes_out: 0,
            pipes_max: (PIPES / workers.max(1)).max(2),
            below,
            refused: false,
            spliced: 0,
            budget: BUDGET,
            requests: false,
            requests_until: 0,
        }
    }

    /// A round begins at `now`, microseconds.
    pub(super) fn begin_round(&mut self, now: u64) {
        if std::mem::take(&mut self.requests) {
            self.requests_until = now + REQUESTS_FOR;
        }
        self.budget = if now < self.requests_until {
            BUDGET_BESIDE_REQUESTS
        } else {
            BUDGET
        };
    }

    /// Room to read into; what is in it is nobody's.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn pipe(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.pipes.pop() {
            return Some(pipe);
        }
        if self.refused || self.pipes_out >= self.pipes_max {
            return None;
        }
        match Pipe::new() {
            Ok(pipe) if pipe.is_below(self.below) => Some(pipe),
            Ok(_too_dear) => {
                self.refused = true;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "no pipe to splice with");
                self.refused = true;
                None
            }
        }
    }

    /// Keeps an empty pipe for later.
    fn put_back(&mut self, pipe: Pipe) {
        if self.pipes.len() < SPARE_PIPES {
            self.pipes.push(pipe);
        }
    }

    /// Once in a while: closes a spare pipe, and asks the kernel again.
    pub(super) fn trim(&mut self) {
        self.pipes.pop();
        self.refused = false;
    }
}

/// How a turn of one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing more to do until an event says so.
    Blocked,
    /// There is more to do, but it is somebody else's turn.
    More,
    /// The source is gone; everything it sent has been read.
    SourceBroken,
    /// The destination is gone.
    DestinationBroken,
}

/// One direction with its sockets.
#[derive(Debug)]
pub(super) struct Path<'a> {
    pub(super) from: BorrowedFd<'a>,
    pub(super) from_side: &'a mut Side,
    pub(super) to: BorrowedFd<'a>,
    pub(super) to_side: &'a mut Side,
    pub(super) flow: &'a mut Flow,
    /// Who wants to know where records of TLS end.
    pub(super) track: Option<&'a mut Track>,
}

/// Whether a step of a turn leaves it to go on.
enum Step {
    Again,
    Stop(Turn),
}

impl Path<'_> {
    /// Moves what can be moved, within a budget; answers the bytes read.
    pub(super) fn turn(&mut self, kit: &mut Kit) -> (usize, Turn) {
        let (moved, turn) = self.move_on(kit);
        kit.requests |= moved > 0 && moved < QUIET_BYTES && !self.flow.has(Flow::SPLICING);
        (moved, turn)
    }

    fn move_on(&mut self, kit: &mut Kit) -> (usize, Turn) {
        let mut moved = 0;
        loop {
            if !self.flow.is_empty() {
                match self.flush(kit) {
                    Step::Again => {}
                    Step::Stop(turn) => return (moved, turn),
                }
            }
            if self.flow.ended()
                || !self.from_side.has(Side::READABLE)
                || !self.to_side.has(Side::WRITABLE)
            {
                return (moved, Turn::Blocked);
            }
            if moved >= kit.budget {
                self.flow.word |= Flow::SPENT;
                return (moved, Turn::More);
            }
            // splice(2) does not get past an urgent mark, and calls it the end before a FIN.
            let step = if self.flow.has(Flow::SPLICING) && !self.from_side.has(Side::URGENT) {
                self.splice(kit, &mut moved)
            } else {
                self.copy(kit, &mut moved)
            };
            if let Step::Stop(turn) = step {
                return (moved, turn);
            }
        }
    }

    fn copy(&mut self, kit: &mut Kit, moved: &mut usize) -> Step {
        let room = if self.flow.has(Flow::CAREFUL) {
            CAREFUL_BYTES
        } else {
            kit.buffer.len()
        };
        let buffer = kit.buffer.get_mut(..room).unwrap_or_default();
        let read = match tcp::recv(self.from, buffer) {
            Ok(0) => return self.end(),
            Ok(read) => read,
            Err(error) => return self.source_failed(&error),
        };
        *moved += read;
        self.count(read);
        if read > CAREFUL_BYTES {
            self.flow.word |= Flow::CAREFUL;
        }
        if read < room {
            self.flow.quiet();
            // A short read has emptied the socket, unless a FIN or an urgent mark stopped it.
            if !self.from_side.has(Side::READ_CLOSED)
                && !self.from_side.has(Side::URGENT)
                && !self.from_side.has(Side::BROKEN)
            {
                self.from_side.remove(Side::READABLE);
            }
        } else {
            self.flow.full();
        }
        let data = kit.buffer.get(..read).unwrap_or_default();
        if let Some(track) = &mut self.track {
            track.feed(data);
        }
        match tcp::send(self.to, data) {
            Ok(sent) if sent == read => {
                self.to_side.add(Side::OWES);
                Step::Again
            }
            Ok(sent) => self.hold(data.get(sent..).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.hold(data),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.hold(data);
                self.to_side.add(Side::WRITABLE);
                Step::Again
            }
            Err(_broken) => {
                // It took none of it: another one may get it.
                self.hold(data);
                Step::Stop(Turn::DestinationBroken)
            }
        }
    }

    fn hold(&mut self, rest: &[u8]) -> Step {
        self.to_side.remove(Side::WRITABLE);
        self.to_side.add(Side::OWES);
        self.flow.word |= Flow::CAREFUL;
        self.flow.begin_with(rest.into());
        Step::Stop(Turn::Blocked)
    }

    fn splice(&mut self, kit: &mut Kit, moved: &mut usize) -> Step {
        let Some(pipe) = kit.pipe() else {
            self.back_to_buffer();
            return Step::Again;
        };
        let read = match pipe.fill(self.from, PIPE_BYTES.min(kit.budget.saturating_sub(*moved))) {
            Ok(0) => {
                kit.put_back(pipe);
                // The end, or an urgent mark before it: a read can tell.
                self.back_to_buffer();
                return Step::Again;
            }
            Ok(read) => read,
            Err(error) => {
                kit.put_back(pipe);
                if error.kind() == io::ErrorKind::InvalidInput {
                    self.back_to_buffer();
                    return Step::Again;
                }
                self.flow.rested(*moved);
                return self.source_failed(&error);
            }
        };
        if let Some(track) = &mut self.track {
            track.lose();
        }
        *moved += read;
        kit.spliced += u64::try_from(read).unwrap_or(0);
        kit.pipes_out += 1;
        self.count(read);
        let left = u32::try_from(read).unwrap_or(u32::MAX);
        self.flow.held = Some(Box::new(Held::Pipe(pipe, left)));
        self.flush(kit)
    }

    fn back_to_buffer(&mut self) {
        self.flow.quiet();
    }

    fn count(&mut self, read: usize) {
        self.flow.word += u64::try_from(read).unwrap_or(0) << Flow::FLAGS;
    }

    /// The source's stream came to its end; for one that was reset that is no end in order.
    fn end(&mut self) -> Step {
        self.from_side.remove(Side::READABLE);
        if self.from_side.has(Side::BROKEN) {
            return Step::Stop(Turn::SourceBroken);
        }
        self.flow.end();
        Step::Stop(Turn::Blocked)
    }

    fn source_failed(&mut self, error: &io::Error) -> Step {
        if error.kind() == io::ErrorKind::Interrupted {
            return Step::Again;
        }
        self.from_side.remove(Side::READABLE);
        // From one that is given up, nothing more will come.
        if error.kind() == io::ErrorKind::WouldBlock && !self.from_side.has(Side::BROKEN) {
            Step::Stop(Turn::Blocked)
        } else {
            Step::Stop(Turn::SourceBroken)
        }
    }

    /// Passes on what is held.
    fn flush(&mut self, kit: &mut Kit) -> Step {
        while self.to_side.has(Side::WRITABLE) {
            let sent = match self.flow.held.as_deref() {
                None => return Step::Again,
                Some(Held::Bytes { data, at }) => {
                    let at = usize::try_from(*at).unwrap_or(usize::MAX);
                    tcp::send(self.to, data.get(at..).unwrap_or_default())
                }
                Some(Held::Pipe(pipe, left)) => {
                    pipe.drain(self.to, usize::try_from(*left).unwrap_or(usize::MAX))
                }
            };
            match sent {
                Ok(sent) => self.took(u32::try_from(sent).unwrap_or(u32::MAX), kit),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to_side.remove(Side::WRITABLE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_broken) => return Step::Stop(Turn::DestinationBroken),
            }
        }
        if self.flow.is_empty() {
            Step::Again
        } else {
            Step::Stop(Turn::Blocked)
        }
    }

    /// The destination took `sent` of what is held.
    fn took(&mut self, sent: u32, kit: &mut Kit) {
        self.to_side.add(Side::OWES);
        let Some(mut held) = self.flow.held.take() else {
            return;
        };
        let rest = match &mut *held {
            Held::Bytes { data, at } => {
                *at = at.saturating_add(sent);
                usize::try_from(*at).is_ok_and(|at| at < data.len())
            }
            Held::Pipe(_, left) => {
                *left = left.saturating_sub(sent);
                *left > 0
            }
        };
        if rest {
            self.flow.held = Some(held);
        } else if let Held::Pipe(pipe, _) = *held {
            kit.pipes_out = kit.pipes_out.saturating_sub(1);
            kit.put_back(pipe);
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
