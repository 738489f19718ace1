//! A thin wrapper of epoll(7): descriptors in, readiness out. No policy, no ownership of what is
//! watched: closing a descriptor ends its registration.

use std::io;
use std::ops::BitOr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll as Inner, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What to be told about a descriptor. Errors and hang-ups are always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest(EpollFlags);

impl Interest {
    /// Nothing but errors and hang-ups.
    pub const NONE: Self = Self(EpollFlags::empty());
    /// Data, a pending connection, or the end of the stream.
    pub const READ: Self = Self(EpollFlags::EPOLLIN);
    /// Room to write, or a connect that finished.
    pub const WRITE: Self = Self(EpollFlags::EPOLLOUT);
    /// The peer finished sending.
    pub const READ_CLOSED: Self = Self(EpollFlags::EPOLLRDHUP);
    /// Urgent data.
    pub const URGENT: Self = Self(EpollFlags::EPOLLPRI);
    /// Tell each change once instead of the state at each wait.
    pub const EDGE: Self = Self(EpollFlags::EPOLLET);
    /// Each time that something to read arrives, once.
    pub const READ_EDGE: Self = Self(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET));
    /// Of several instances that watch the descriptor so, the kernel tells the first one that
    /// somebody waits on (Linux 4.5). Only for [`Epoll::add`]: it can't be modified afterwards.
    pub const EXCLUSIVE: Self = Self(EpollFlags::EPOLLEXCLUSIVE);
}

impl BitOr for Interest {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One descriptor's readiness.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The token it was registered with.
    pub token: u64,
    flags: EpollFlags,
}

impl Event {
    /// Something can be read: data, the end of the stream, or an error.
    #[must_use]
    pub fn readable(self) -> bool {
        self.flags.intersects(
            EpollFlags::EPOLLIN
                | EpollFlags::EPOLLRDHUP
                | EpollFlags::EPOLLHUP
                | EpollFlags::EPOLLERR,
        )
    }

    /// A write can make progress, or would fail at once.
    #[must_use]
    pub fn writable(self) -> bool {
        self.flags
            .intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
    }

    /// The peer finished sending.
    #[must_use]
    pub fn read_closed(self) -> bool {
        self.flags
            .intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP)
    }

    /// Both directions are over.
    #[must_use]
    pub fn hung_up(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLHUP)
    }

    /// The descriptor has an error to report.
    #[must_use]
    pub fn error(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLERR)
    }

    /// Urgent data is waiting.
    #[must_use]
    pub fn urgent(self) -> bool {
        self.flags.contains(EpollFlags::EPOLLPRI)
    }
}

/// Room for the events of one wait.
#[derive(Debug)]
pub struct Events {
    raw: Vec<EpollEvent>,
    ready: usize,
}

impl Events {
    /// Room for `capacity` events.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            raw: vec![EpollEvent::empty(); capacity.max(1)],
            ready: 0,
        }
    }

    /// How many the last wait brought.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ready
    }

    /// Whether the last wait brought none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// The event at `index` of the last wait.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<Event> {
        let event = self.raw.get(index).filter(|_| index < self.ready)?;
        Some(Event {
            token: event.data(),
            flags: event.events(),
        })
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        (0..self.ready).filter_map(|index| self.at(index))
    }
}

/// One epoll instance.
#[derive(Debug)]
pub struct Epoll(Inner);

impl Epoll {
    /// A new, empty instance.
    ///
    /// # Errors
    /// The kernel's, from `epoll_create1`.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Inner::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches `fd`, reporting it as `token`.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(interest.0, token))?)
    }

    /// Changes what is watched of `fd`.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(interest.0, token))?)
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// The kernel's, from `epoll_ctl`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits for events, at most `timeout` (rounded up to a millisecond; `None`: for ever). An
    /// interrupted wait brings no events.
    ///
    /// # Errors
    /// The kernel's, from `epoll_wait`.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(limit) => {
                let ms = limit.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX))
                    .unwrap_or(EpollTimeout::MAX)
            }
        };
        events.ready = 0;
        match self.0.wait(&mut events.raw, timeout) {
            Ok(ready) => events.ready = ready,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
