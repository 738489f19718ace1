//! One connection of the load: sends what its exchange says, checks what comes back.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;

use super::{Counts, Talk, Work};
use crate::pattern::Pattern;
use crate::protocol::{ENDLESS, HEADER, Header};

/// Reads or writes of one connection before the others get their turn.
const BURST: usize = 8;
/// Bytes after which the others get their turn too: a download must not make the load itself slow
/// for the requests beside it.
const TURN: u64 = 128 * 1024;

pub(super) struct Conn {
    socket: Socket,
    header: Header,
    /// Bytes sent and received of this exchange, header included.
    sent: u64,
    received: u64,
    receipt: [u8; HEADER],
    half_closed: bool,
    pub(super) work: Work,
    pub(super) phase: Phase,
    /// When this exchange began or was due.
    pub(super) begun: Instant,
    /// When those were due that wait for it.
    pub(super) owed: VecDeque<Instant>,
    /// This exchange is not timed.
    pub(super) is_rehearsal: bool,
    /// Bytes it may still read.
    pub(super) allowance: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Talking,
    /// Until the next exchange is due.
    Waiting,
    Held,
    /// Closed in this batch of events; the slot is freed after it.
    Gone,
}

/// What one look at a connection brought.
pub(super) enum Outcome {
    Blocked,
    /// Its burst is used up, there is more to do.
    Unfinished,
    Complete,
    Failed(&'static str),
}

impl Conn {
    pub(super) fn new(socket: Socket, work: Work, number: u64, begun: Instant) -> Self {
        Self {
            socket,
            header: next_header(work.talk, number),
            sent: 0,
            received: 0,
            receipt: [0; HEADER],
            half_closed: false,
            work,
            phase: Phase::Connecting,
            begun,
            owed: VecDeque::new(),
            is_rehearsal: false,
            allowance: u64::MAX,
        }
    }

    /// Another exchange on the same connection, with other bytes.
    pub(super) fn begin_next(&mut self, begun: Instant) {
        self.header = next_header(self.work.talk, self.header.seed + 1_000_003);
        self.begun = begun;
        self.is_rehearsal = false;
        self.phase = Phase::Talking;
        self.sent = 0;
        self.received = 0;
    }

    /// Does what can be done without waiting.
    pub(super) fn advance(
        &mut self,
        pattern: &Pattern,
        buffer: &mut [u8],
        counts: &mut Counts,
        finishing: bool,
    ) -> Outcome {
        match self.phase {
            Phase::Gone => return Outcome::Blocked,
            Phase::Held | Phase::Waiting if finishing => return Outcome::Complete,
            Phase::Held | Phase::Waiting => return self.listen_while_idle(),
            Phase::Connecting | Phase::Talking => {}
        }
        let before = self.sent;
        match self.transmit(pattern, buffer, counts, finishing) {
            Outcome::Complete if self.sent == before => {}
            // Nothing can have come for what was sent this moment; its arrival is a new edge.
            Outcome::Complete | Outcome::Blocked => return Outcome::Blocked,
            stopped @ (Outcome::Unfinished | Outcome::Failed(_)) => return stopped,
        }
        self.receive(pattern, buffer, counts)
    }

    /// Nothing may come now, but an event may: of bytes that were read before it was fetched.
    fn listen_while_idle(&self) -> Outcome {
        match recv(self.socket.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => Outcome::Blocked,
            Ok(0) | Err(_) => Outcome::Failed("closed while idle"),
            Ok(_) => Outcome::Failed("too many bytes"),
        }
    }

    /// Complete when all that is to be sent is sent.
    fn transmit(
        &mut self,
        pattern: &Pattern,
        buffer: &mut [u8],
        counts: &mut Counts,
        finishing: bool,
    ) -> Outcome {
        let mut sent = 0;
        for _ in 0..BURST {
            let endless = self.header.request == ENDLESS;
            if finishing && !self.half_closed && (endless || self.header.answer == ENDLESS) {
                if self.sent < HEADER as u64 {
                    return Outcome::Failed("never connected");
                }
                self.half_closed = true;
                if let Err(error) = self.socket.shutdown(std::net::Shutdown::Write) {
                    return Outcome::Failed(cause(&error));
                }
            }
            let body = self.sent.saturating_sub(HEADER as u64);
            let left = self.header.request - body;
            if self.half_closed || (self.sent >= HEADER as u64 && left == 0) {
                return Outcome::Complete;
            }
            let chunk = match usize::try_from(self.sent) {
                Ok(sent) if sent < HEADER => {
                    let wire = self.header.encode();
                    let head = wire.get(sent..).unwrap_or(&[]);
                    let body = pattern.slice(self.header.seed, 0, left.min(16_384));
                    let length = head.len() + body.len();
                    let (to_head, rest) = buffer.split_at_mut(head.len());
                    to_head.copy_from_slice(head);
                    if let Some(to_body) = rest.get_mut(..body.len()) {
                        to_body.copy_from_slice(body);
                    }
                    buffer.get(..length).unwrap_or(&[])
                }
                Ok(_) | Err(_) => pattern.slice(self.header.seed, body, left),
            };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), chunk, flags) {
                Ok(count) => {
                    self.phase = Phase::Talking;
                    self.sent += count as u64;
                    counts.bytes_out += count as u64;
                    sent += count as u64;
                    if sent >= TURN {
                        break;
                    }
                }
                Err(Errno::EAGAIN) => return Outcome::Blocked,
                Err(error) => return Outcome::Failed(cause(&error.into())),
            }
        }
        Outcome::Unfinished
    }

    fn receive(&mut self, pattern: &Pattern, buffer: &mut [u8], counts: &mut Counts) -> Outcome {
        let mut taken = 0;
        while taken < TURN {
            let may = usize::try_from(self.allowance).unwrap_or(usize::MAX);
            if may == 0 {
                return Outcome::Blocked;
            }
            let length = buffer.len().min(may);
            let room = buffer.get_mut(..length).unwrap_or(&mut []);
            let count = match recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Outcome::Blocked,
                Err(error) => return Outcome::Failed(cause(&error.into())),
            };
            let bytes = room.get(..count).unwrap_or(&[]);
            taken += count as u64;
            if self.allowance != u64::MAX {
                self.allowance -= count as u64;
            }
            if self.header.request == ENDLESS {
                if let Some(outcome) = self.take_receipt(bytes) {
                    return outcome;
                }
                continue;
            }
            if count == 0 {
                return match self.header.answer == ENDLESS && self.half_closed {
                    true => Outcome::Complete,
                    false => Outcome::Failed("closed early"),
                };
            }
            if count as u64 > self.header.answer - self.received {
                return Outcome::Failed("too many bytes");
            }
            if !pattern.matches(self.header.answer_seed(), self.received, bytes) {
                return Outcome::Failed("wrong byte");
            }
            self.received += count as u64;
            counts.bytes_in += count as u64;
            if self.header.answer == ENDLESS {
                counts.bulk_in += count as u64;
            }
            if self.received == self.header.answer {
                return Outcome::Complete;
            }
        }
        Outcome::Unfinished
    }

    /// The receipt of an upload: what arrived must be what was sent.
    fn take_receipt(&mut self, bytes: &[u8]) -> Option<Outcome> {
        let end = bytes.is_empty();
        for byte in bytes {
            let place = usize::try_from(self.received).ok();
            let Some(place) = place.and_then(|at| self.receipt.get_mut(at)) else {
                return Some(Outcome::Failed("too many bytes"));
            };
            *place = *byte;
            self.received += 1;
        }
        if !end {
            return None;
        }
        let expected = self.sent - HEADER as u64;
        let arrived = Header::decode(&self.receipt).map(|receipt| receipt.request);
        Some(match arrived == Some(expected) {
            true => Outcome::Complete,
            false => Outcome::Failed("upload cut short"),
        })
    }
}

fn next_header(talk: Talk, seed: u64) -> Header {
    let (request, answer) = match talk {
        Talk::Exchange { request, answer } => (request, answer),
        Talk::Download => (0, ENDLESS),
        Talk::Upload => (ENDLESS, 0),
    };
    Header {
        seed,
        request,
        answer,
    }
}

pub(super) fn cause(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    let known = [
        (Kind::ConnectionRefused, "refused"),
        (Kind::ConnectionReset, "reset"),
        (Kind::BrokenPipe, "reset"),
        (Kind::TimedOut, "timed out"),
        (Kind::AddrNotAvailable, "out of ports"),
    ];
    let found = known.iter().find(|(kind, _)| *kind == error.kind());
    found.map_or("other error", |(_, name)| name)
}
