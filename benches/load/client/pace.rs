//! Work at a fixed rate whatever the answers do (an open loop): each piece is due at a moment of
//! its own, and what waits for a slow answer before it is charged for the wait.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Load, MAX_FAILURES, Phase, TIMER, Talk, Then, Work};

/// What is due when.
pub(super) struct Pace {
    timer: TimerFd,
    begin: Instant,
    interval: Duration,
    /// Pieces begun or owed so far.
    issued: u32,
    what: What,
}

enum What {
    /// The next exchange of each of these connections in turn.
    Requests(Vec<usize>),
    /// A connection.
    Connections(Work),
}

impl Load<'_> {
    /// Opens `connections`, with one exchange each that is not timed, for [`Self::pace_requests`].
    pub(crate) fn open_waiting(&mut self, talk: Talk, connections: usize) {
        let then = Then::Wait;
        self.open(Work { talk, then }, connections);
        for (_, conn) in &mut self.conns {
            conn.is_rehearsal = true;
        }
    }

    /// `rate` exchanges per second, in turn over the connections of [`Self::open_waiting`].
    pub(crate) fn pace_requests(&mut self, rate: u32) -> io::Result<()> {
        let keys = self.conns.iter().map(|(key, _)| key).collect();
        self.pace(rate, What::Requests(keys))
    }

    /// `rate` new connections per second, each with one exchange.
    pub(crate) fn pace_connections(&mut self, talk: Talk, rate: u32) -> io::Result<()> {
        let then = Then::Close;
        self.pace(rate, What::Connections(Work { talk, then }))
    }

    fn pace(&mut self, rate: u32, what: What) -> io::Result<()> {
        let interval = Duration::from_secs(1) / rate.max(1);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll
            .add(timer.as_fd(), EpollEvent::new(flags, TIMER))?;
        let begin = clock::now();
        timer.set(
            Expiration::Interval(TimeSpec::from_duration(interval)),
            TimerSetTimeFlags::empty(),
        )?;
        self.pace = Some(Pace {
            timer,
            begin,
            interval,
            issued: 0,
            what,
        });
        Ok(())
    }

    pub(super) fn stop_pace(&mut self) {
        // Closing the timer takes it out of the epoll set.
        self.pace = None;
    }

    /// The timer has struck.
    pub(super) fn begin_what_is_due(&mut self) -> io::Result<()> {
        let Some(mut pace) = self.pace.take() else {
            return Ok(());
        };
        match pace.timer.wait() {
            Ok(()) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let now = clock::now();
        loop {
            let due = pace.begin + pace.interval * (pace.issued + 1);
            if due > now {
                break;
            }
            let turn = usize::try_from(pace.issued).unwrap_or(0);
            pace.issued += 1;
            match &pace.what {
                What::Requests(keys) => {
                    if let Some(&key) = keys.get(turn % keys.len().max(1)) {
                        self.begin_or_owe(key, due);
                    }
                }
                What::Connections(work) => {
                    if self.counts.failed() < MAX_FAILURES {
                        self.open_or_fail(*work, due);
                    }
                }
            }
        }
        self.pace = Some(pace);
        Ok(())
    }

    fn begin_or_owe(&mut self, key: usize, due: Instant) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match conn.phase {
            Phase::Waiting => {
                conn.begin_next(due);
                self.advance(key);
            }
            Phase::Connecting | Phase::Talking => conn.owed.push_back(due),
            Phase::Held | Phase::Gone => {}
        }
    }
}
