//! The load: one thread, one epoll loop, all connections non-blocking. It checks every byte it
//! receives, and counts what goes wrong by cause.

mod conn;
mod pace;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use self::conn::{Conn, Outcome, Phase, cause};
use self::pace::Pace;
use crate::histogram::Histogram;
use crate::pattern::{Pattern, WINDOW};

/// A cell with more failures than this is hopeless: nothing more is opened.
const MAX_FAILURES: u64 = 1_000;
/// The token of the timer that paces requests.
const TIMER: u64 = u64::MAX;

/// What a connection does with its time.
#[derive(Clone, Copy)]
pub(crate) enum Talk {
    /// So many bytes up, so many down.
    Exchange { request: u64, answer: u64 },
    /// Bytes down until the load is told to finish.
    Download,
    /// Bytes up until the load is told to finish, then a receipt.
    Upload,
}

/// What follows a complete exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Close, and open another connection.
    Reopen,
    /// The next exchange on the same connection.
    Again,
    /// The next exchange when one is due: see [`Load::pace_requests`].
    Wait,
    /// Close.
    Close,
    /// Stay open and silent.
    Hold,
}

/// What a connection is for.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) talk: Talk,
    pub(crate) then: Then,
}

/// Counters since the load began.
#[derive(Default, Clone)]
pub(crate) struct Counts {
    /// Complete exchanges.
    pub(crate) done: u64,
    /// Verified pattern bytes received.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The part of `bytes_in` that downloads received.
    pub(crate) bulk_in: u64,
    /// How many connections failed, by cause.
    pub(crate) failures: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// The running load.
pub(crate) struct Load<'a> {
    /// Used in turn.
    targets: Vec<SocketAddr>,
    pattern: &'a Pattern,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    conns: Slab<Conn>,
    unfinished: VecDeque<usize>,
    gone: Vec<usize>,
    buffer: Vec<u8>,
    counts: Counts,
    /// How long exchanges took, from their begin or from when they were due.
    latency: Histogram,
    pace: Option<Pace>,
    /// What each connection may read at most; none: as much as comes.
    appetite: Option<u64>,
    opened: usize,
    finishing: bool,
}

impl<'a> Load<'a> {
    pub(crate) fn new(targets: Vec<SocketAddr>, pattern: &'a Pattern) -> io::Result<Self> {
        Ok(Self {
            targets,
            pattern,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); 256],
            conns: Slab::new(),
            unfinished: VecDeque::new(),
            gone: Vec::new(),
            buffer: vec![0; WINDOW],
            counts: Counts::default(),
            latency: Histogram::default(),
            pace: None,
            appetite: None,
            opened: 0,
            finishing: false,
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn latency(&mut self) -> &mut Histogram {
        &mut self.latency
    }

    /// Starts `count` connections at once.
    pub(crate) fn open(&mut self, work: Work, count: usize) {
        let now = clock::now();
        for _ in 0..count {
            self.open_or_fail(work, now);
        }
    }

    /// From here on a connection reads only what it is granted.
    pub(crate) fn starve(&mut self) {
        self.appetite = Some(0);
    }

    /// Every connection may read so many bytes more; `None`: whatever comes from here on.
    pub(crate) fn feed(&mut self, bytes: Option<u64>) {
        self.appetite = bytes;
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.allowance = bytes.map_or(u64::MAX, |bytes| conn.allowance + bytes);
            }
            self.advance(key);
        }
        self.free_slots();
    }

    /// Works for `duration`.
    pub(crate) fn run(&mut self, duration: Duration) -> io::Result<()> {
        let end = clock::now() + duration;
        while let Some(left) = left(end) {
            self.step(left)?;
        }
        Ok(())
    }

    /// Works until `count` exchanges are done or failed; false when time ran out first.
    pub(crate) fn run_until_done(&mut self, count: u64, bound: Duration) -> io::Result<bool> {
        let end = clock::now() + bound;
        while self.counts.done + self.counts.failed() < count {
            let Some(left) = left(end) else {
                return Ok(false);
            };
            self.step(left)?;
        }
        Ok(true)
    }

    /// Ends all exchanges in good order and closes everything; what does not end within `bound`
    /// counts as failed.
    pub(crate) fn finish(mut self, bound: Duration) -> io::Result<Counts> {
        self.finishing = true;
        self.stop_pace();
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.advance(key);
        }
        self.free_slots();
        let end = clock::now() + bound;
        while !self.conns.is_empty() {
            let Some(left) = left(end) else {
                let stuck = self.conns.len() as u64;
                self.counts.failures.insert("no end in time", stuck);
                break;
            };
            self.step(left)?;
        }
        Ok(self.counts)
    }

    fn open_or_fail(&mut self, work: Work, begun: Instant) -> Option<usize> {
        match self.open_one(work, begun) {
            Ok(key) => Some(key),
            Err(error) => {
                self.fail(cause(&error));
                None
            }
        }
    }

    fn open_one(&mut self, work: Work, begun: Instant) -> io::Result<usize> {
        let Some(&target) = self.targets.get(self.opened % self.targets.len().max(1)) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
        if matches!(work.then, Then::Again | Then::Wait) {
            socket.set_tcp_nodelay(true)?;
        }
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        self.opened += 1;
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll
            .add(&socket, EpollEvent::new(flags, key as u64))?;
        let mut conn = Conn::new(socket, work, self.opened as u64, begun);
        conn.allowance = self.appetite.unwrap_or(u64::MAX);
        entry.insert(conn);
        Ok(key)
    }

    /// Waits for events, at most `wait`, and handles them.
    fn step(&mut self, wait: Duration) -> io::Result<()> {
        let wait = if self.unfinished.is_empty() {
            u16::try_from(wait.as_millis()).unwrap_or(1_000).min(1_000)
        } else {
            0
        };
        let ready = match self.epoll.wait(&mut self.events, wait) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let waiting = self.unfinished.len();
        for index in 0..ready {
            let token = self.events.get(index).map_or(TIMER, EpollEvent::data);
            if token == TIMER {
                self.begin_what_is_due()?;
            } else if let Ok(key) = usize::try_from(token) {
                self.advance(key);
            }
        }
        for _ in 0..waiting {
            if let Some(key) = self.unfinished.pop_front() {
                self.advance(key);
            }
        }
        self.free_slots();
        Ok(())
    }

    fn free_slots(&mut self) {
        for key in self.gone.drain(..) {
            if !self.unfinished.is_empty() {
                self.unfinished.retain(|other| *other != key);
            }
            self.conns.try_remove(key);
        }
    }

    fn advance(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let outcome = conn.advance(
            self.pattern,
            &mut self.buffer,
            &mut self.counts,
            self.finishing,
        );
        match outcome {
            Outcome::Blocked => {}
            Outcome::Unfinished => {
                if !self.unfinished.contains(&key) {
                    self.unfinished.push_back(key);
                }
            }
            Outcome::Complete => self.complete(key),
            Outcome::Failed(cause) => {
                let work = conn.work;
                self.close(key);
                self.fail(cause);
                self.reopen(work, clock::now());
            }
        }
    }

    fn complete(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let (work, begun) = (conn.work, conn.begun);
        let now = clock::now();
        if matches!(conn.phase, Phase::Connecting | Phase::Talking) {
            self.counts.done += 1;
            if matches!(work.talk, Talk::Exchange { .. }) && !conn.is_rehearsal {
                self.latency.add(now.saturating_duration_since(begun));
            }
        }
        if self.finishing {
            return self.close(key);
        }
        match work.then {
            Then::Reopen => {
                self.close(key);
                self.reopen(work, now);
            }
            Then::Again => {
                conn.begin_next(now);
                // The socket is writable and edge-triggered: no event would come. This only
                // sends: see Conn::advance.
                self.advance(key);
            }
            Then::Wait => match conn.owed.pop_front() {
                Some(due) => {
                    conn.begin_next(due);
                    self.advance(key);
                }
                None => conn.phase = Phase::Waiting,
            },
            Then::Close => self.close(key),
            Then::Hold => conn.phase = Phase::Held,
        }
    }

    fn reopen(&mut self, work: Work, now: Instant) {
        let hopeless = self.counts.failed() > MAX_FAILURES;
        if work.then == Then::Reopen && !self.finishing && !hopeless {
            self.open_or_fail(work, now);
        }
    }

    fn close(&mut self, key: usize) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.phase = Phase::Gone;
            self.gone.push(key);
        }
    }

    fn fail(&mut self, cause: &'static str) {
        *self.counts.failures.entry(cause).or_default() += 1;
    }
}

fn left(end: Instant) -> Option<Duration> {
    let left = end.saturating_duration_since(clock::now());
    (!left.is_zero()).then_some(left)
}
