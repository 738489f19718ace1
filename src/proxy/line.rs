//! Who watches which listener. Each socket of a group has an owner, and workers that stand in line
//! behind it: the kernel wakes the first of the line that waits for events. So a worker takes its
//! own connections as long as it has time for them, and those of a busy or stuck one are taken by
//! an idle one at once. What is taken, and when there is no room, is `accept`'s business.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::accept::FULL_REST;
use super::counters::ProxyCount;
use super::engine::Shared;
use super::worker::{Token, Worker};
use crate::net::epoll::Interest;

/// Workers in a listener's line, its owner included. Each connection of a busy owner asks along
/// the line, so it is not everybody's.
const LINE: usize = 8;
/// After a rest helpers step back into the line so much later than the owner, microseconds.
const HELPERS_LATER: u64 = 100_000;
/// So often helpers go to the end of the line, microseconds: a rest may have put the owner behind
/// them, who then would get nothing while they are idle.
const LINE_UP_EVERY: u64 = 5_000_000;

/// How a worker hears of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is its own.
    Owner,
    /// It is told while all before it in the line are busy; its place there, from 1.
    Helper(usize),
    /// It looks on its ticks alone.
    Distant,
}

/// One listening socket as a worker sees it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) proxy: u16,
    listen: usize,
    socket: usize,
    /// The worker that is told of its connections.
    pub(super) owner: usize,
    role: Role,
    /// Several workers stand in its line, and one of them is told.
    exclusive: bool,
    /// When this worker last stepped into the line.
    lined_up: u64,
    /// Connections to take this time.
    pub(super) batch: u32,
    /// The last round in which it used up its batch.
    pub(super) eager: u64,
    /// It is not watched until this time.
    pub(super) rests_until: Option<u64>,
    /// Somebody else's, and it had a connection waiting at the last tick.
    pub(super) aged: bool,
}

impl Listener {
    /// Every listener there is, from the point of view of worker `number`.
    pub(super) fn all(shared: &Shared, number: usize) -> Vec<Self> {
        let workers = shared.mailboxes.len().max(1);
        let mut all = Vec::new();
        for (proxy, groups) in shared.listeners.iter().enumerate() {
            for (listen, group) in groups.iter().enumerate() {
                for socket in 0..group.len() {
                    let owner = socket % workers;
                    let role = role(group.len(), workers, socket, number);
                    all.push(Self {
                        proxy: u16::try_from(proxy).unwrap_or(u16::MAX),
                        listen,
                        socket,
                        owner,
                        role,
                        exclusive: workers > 1 && group.len() >= workers,
                        lined_up: 0,
                        batch: 1,
                        eager: 0,
                        rests_until: None,
                        aged: false,
                    });
                }
            }
        }
        all
    }

    /// Its place in the line; `None`: it doesn't stand there.
    const fn place_in_line(&self) -> Option<usize> {
        match self.role {
            Role::Owner => Some(0),
            Role::Helper(place) => Some(place),
            Role::Distant => None,
        }
    }

    fn interest(&self) -> Interest {
        if self.exclusive {
            Interest::READ | Interest::EXCLUSIVE
        } else {
            Interest::READ
        }
    }

    pub(super) const fn is_owned(&self) -> bool {
        matches!(self.role, Role::Owner)
    }

    pub(super) fn fd<'a>(&self, shared: &'a Shared) -> Option<BorrowedFd<'a>> {
        let groups = shared.listeners.get(usize::from(self.proxy))?;
        Some(groups.get(self.listen)?.get(self.socket)?.as_fd())
    }
}

/// What `socket`, one of `sockets`, is to worker `number`.
fn role(sockets: usize, workers: usize, socket: usize, number: usize) -> Role {
    if sockets < workers {
        // Several workers watch the same one.
        return if number % sockets == socket {
            Role::Owner
        } else {
            Role::Distant
        };
    }
    match (number + workers - socket % workers) % workers {
        0 => Role::Owner,
        place if place < LINE => Role::Helper(place),
        _ => Role::Distant,
    }
}

impl Worker {
    /// Begins to watch the listeners in whose line this worker has that place. Owners must have
    /// stepped in before the first helper does.
    pub(super) fn open_listeners(&mut self, place_in_line: usize) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            if listener.place_in_line() != Some(place_in_line) {
                continue;
            }
            if let Some(fd) = listener.fd(&self.shared) {
                let token = Token::Listener(u32::try_from(index).unwrap_or(u32::MAX));
                self.epoll.add(fd, token.pack(), listener.interest())?;
            }
        }
        Ok(())
    }

    /// Stops watching for good.
    pub(super) fn close_listeners(&mut self) {
        for listener in self.listeners.drain(..) {
            let rests = listener.exclusive && listener.rests_until.is_some();
            let watched = listener.place_in_line().is_some() && !rests;
            if let Some(fd) = listener.fd(&self.shared).filter(|_| watched)
                && let Err(error) = self.epoll.remove(fd)
            {
                tracing::debug!(%error, "listener was not watched");
            }
        }
    }

    pub(super) fn rest(&mut self, place: usize, how_long: u64) {
        let Some(listener) = self.listeners.get_mut(place) else {
            return;
        };
        if how_long == FULL_REST
            && let Some(settings) = self.proxies.get(usize::from(listener.proxy))
        {
            settings.counters.add(ProxyCount::LimitReached, 1);
        }
        let later = match listener.role {
            Role::Owner => 0,
            Role::Helper(_) => HELPERS_LATER,
            Role::Distant => return,
        };
        if listener.rests_until.is_none() {
            listener.rests_until = Some(self.now + how_long + later);
            self.unwatch(place);
        }
    }

    /// Steps into the line, at its end.
    fn watch(&mut self, place: usize) {
        let now = self.now;
        let Some(listener) = self.listeners.get_mut(place) else {
            return;
        };
        listener.lined_up = now;
        let listener = &*listener;
        let token = Token::Listener(u32::try_from(place).unwrap_or(u32::MAX)).pack();
        let Some(fd) = listener.fd(&self.shared) else {
            return;
        };
        let watched = if listener.exclusive {
            self.epoll.add(fd, token, listener.interest())
        } else {
            self.epoll.modify(fd, token, listener.interest())
        };
        if let Err(error) = watched {
            tracing::error!(%error, "listener can't be watched");
        }
    }

    /// Steps out of the line.
    fn unwatch(&self, place: usize) {
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        let token = Token::Listener(u32::try_from(place).unwrap_or(u32::MAX)).pack();
        let Some(fd) = listener.fd(&self.shared) else {
            return;
        };
        let outcome = if listener.exclusive {
            self.epoll.remove(fd)
        } else {
            self.epoll.modify(fd, token, Interest::NONE)
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "listener can't rest");
        }
    }

    /// Places came free: resting listeners are watched again. Helpers step out of the line and back
    /// a little later, also those that did not rest: owners that did come back behind them.
    pub(super) fn resume_listeners(&mut self) {
        let soon = self.now + HELPERS_LATER;
        for place in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get_mut(place) else {
                break;
            };
            match (listener.role, &mut listener.rests_until) {
                (Role::Owner, Some(until)) => *until = 0,
                (Role::Helper(_), Some(until)) => *until = soon.min(*until),
                (Role::Helper(_), rests @ None) => {
                    *rests = Some(soon);
                    self.unwatch(place);
                }
                (Role::Owner, None) | (Role::Distant, _) => {}
            }
        }
        self.end_rests();
    }

    pub(super) fn end_rests(&mut self) {
        for place in 0..self.listeners.len() {
            let now = self.now;
            if let Some(listener) = self.listeners.get_mut(place)
                && listener.rests_until.is_some_and(|until| until <= now)
            {
                listener.rests_until = None;
                self.watch(place);
            }
        }
    }

    /// Lets those stand before this worker who own the listeners.
    pub(super) fn line_up(&mut self) {
        for place in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get(place) else {
                return;
            };
            let helps = matches!(listener.role, Role::Helper(_)) && listener.rests_until.is_none();
            if helps && self.now - listener.lined_up >= LINE_UP_EVERY {
                self.unwatch(place);
                self.watch(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_one_owner_and_the_next_workers_help() {
        let of = |socket| [0, 1, 2].map(|number| role(3, 3, socket, number));
        assert_eq!(of(0), [Role::Owner, Role::Helper(1), Role::Helper(2)]);
        assert_eq!(of(2), [Role::Helper(1), Role::Helper(2), Role::Owner]);
        // More sockets than workers: an earlier process had more.
        assert_eq!(role(5, 2, 4, 0), Role::Owner);
        assert_eq!(role(5, 2, 4, 1), Role::Helper(1));
        // Fewer: each is watched by some.
        assert_eq!(role(1, 2, 0, 1), Role::Owner);
        assert_eq!(role(2, 3, 1, 0), Role::Distant);
        // A long line is nobody's.
        assert_eq!(role(32, 32, 0, 7), Role::Helper(7));
        assert_eq!(role(32, 32, 0, 8), Role::Distant);
    }
}
