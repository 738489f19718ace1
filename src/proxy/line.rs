//! Who watches which listener. Each socket of a group has an owner, and workers that stand in line
//! behind it: the kernel wakes the first of the line that waits for events. So a worker takes its
//! own connections as long as it has time for them, and those of a busy or stuck one are taken by
//! an idle one at once. What is taken, and when there is no room, is `accept`'s business.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::accept::FULL_REST;
use super::counters::ProxyCount;
use super::reshape::Group;
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
    /// The group it is in.
    pub(super) group: u64,
    /// `None`: it was given up, and its place is free.
    socket: Option<Arc<OwnedFd>>,
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
    /// The listeners of a group, from the point of view of worker `number` of `workers`.
    pub(super) fn all(group: &Group, workers: usize, number: usize) -> impl Iterator<Item = Self> {
        let count = group.sockets.len();
        let sockets = group.sockets.iter().enumerate();
        sockets.map(move |(at, socket)| Self {
            proxy: u16::try_from(group.proxy).unwrap_or(u16::MAX),
            group: group.id,
            socket: Some(Arc::clone(socket)),
            owner: at % workers,
            role: role(count, workers, at, number),
            exclusive: workers > 1 && count >= workers,
            lined_up: 0,
            batch: 1,
            eager: 0,
            rests_until: None,
            aged: false,
        })
    }

    /// Whether its place is free.
    pub(super) const fn is_gone(&self) -> bool {
        self.socket.is_none()
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

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_ref()?.as_fd())
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
            if let Some(fd) = listener.fd() {
                let token = Token::Listener(u32::try_from(index).unwrap_or(u32::MAX));
                self.epoll.add(fd, token.pack(), listener.interest())?;
            }
        }
        Ok(())
    }

    /// Stops watching for good.
    pub(super) fn close_listeners(&mut self) {
        for listener in std::mem::take(&mut self.listeners) {
            self.forget_listener(&listener);
        }
    }

    fn forget_listener(&self, listener: &Listener) {
        let rests = listener.exclusive && listener.rests_until.is_some();
        let watched = listener.place_in_line().is_some() && !rests;
        if let Some(fd) = listener.fd().filter(|_| watched)
            && let Err(error) = self.epoll.remove(fd)
        {
            tracing::debug!(%error, "listener was not watched");
        }
    }

    /// Gives one listener up, and frees its place.
    pub(super) fn close_listener(&mut self, place: usize) {
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        self.forget_listener(listener);
        if let Some(listener) = self.listeners.get_mut(place) {
            listener.socket = None;
            listener.role = Role::Distant;
            listener.rests_until = None;
        }
    }

    /// Begins to watch a further listener. Helpers step into the line a little later: the owner is
    /// before them then.
    pub(super) fn open_listener(&mut self, listener: Listener) {
        let free = self.listeners.iter().position(Listener::is_gone);
        let place = free.unwrap_or(self.listeners.len());
        let role = listener.role;
        match self.listeners.get_mut(place) {
            Some(gone) => *gone = listener,
            None => self.listeners.push(listener),
        }
        match role {
            Role::Owner => self.watch(place),
            Role::Helper(_) => {
                let later = self.now + HELPERS_LATER;
                if let Some(listener) = self.listeners.get_mut(place) {
                    listener.rests_until = Some(later);
                }
            }
            Role::Distant => {}
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
        let Some(fd) = listener.fd() else {
            return;
        };
        let watched = if listener.exclusive {
            self.epoll.add(fd, token, listener.interest())
        } else {
            match self.epoll.modify(fd, token, listener.interest()) {
                // It never was: this is its first time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.epoll.add(fd, token, listener.interest())
                }
                outcome => outcome,
            }
        };
        if let Err(error) = watched {
            tracing::error!(%error, "listener can't be watched, will try again");
            if let Some(listener) = self.listeners.get_mut(place) {
                listener.rests_until = Some(now + FULL_REST);
            }
        }
    }

    /// Steps out of the line.
    fn unwatch(&self, place: usize) {
        let Some(listener) = self.listeners.get(place) else {
            return;
        };
        let token = Token::Listener(u32::try_from(place).unwrap_or(u32::MAX)).pack();
        let Some(fd) = listener.fd() else {
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
