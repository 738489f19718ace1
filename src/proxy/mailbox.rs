//! Messages to a worker: a list under a lock, and a bell that ends its wait. The list is bounded
//! by what can be told: one notice for each waiting connection, and the control thread's few
//! commands.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::census::Census;
use super::dispatch::Notice;
use super::lookup::Lookup;
use super::reshape::Shape;
use crate::net::epoll::Interest;
use crate::net::eventfd::Bell;

/// What a worker can be told.
#[derive(Debug, Clone)]
pub enum Message {
    /// News for one of its waiting connections.
    Notice {
        /// Position of the proxy.
        proxy: usize,
        /// The news.
        notice: Notice,
    },
    /// A server went down: connects in flight to it go elsewhere.
    ServerDown {
        /// Position of the proxy.
        proxy: usize,
        /// Position of the server.
        server: usize,
    },
    /// A server's established connections are to be closed, little by little, for as long as
    /// [`super::farm::Farm::closes`] says so.
    CloseServer {
        /// Position of the proxy.
        proxy: usize,
        /// Position of the server.
        server: usize,
    },
    /// Places came free: listeners that rest may go on.
    Room,
    /// Reset every client connection to one of these local addresses.
    ResetLocal(Arc<[IpAddr]>),
    /// Say which clients are connected to certain addresses.
    Census(Arc<Census>),
    /// Say which connections have a certain address, from this slot on.
    Lookup(Arc<Lookup>, usize),
    /// Serve other proxies, or with other settings, from here on.
    Reshape(Arc<Shape>),
    /// Reset every client connection of a proxy.
    EndProxy(usize),
    /// Stop accepting; reset what is left at this instant.
    Stop(Instant),
}

/// One worker's mailbox; on cache lines of its own, for it is looked into in each round.
#[derive(Debug)]
#[repr(align(128))]
pub struct Mailbox {
    /// Whether there are messages, written under their lock: a glance at it spares each round that.
    waiting: AtomicBool,
    messages: Mutex<Vec<Message>>,
    bell: Bell,
}

impl Mailbox {
    /// How its worker watches it. Each ring of the bell ends one wait: one that comes after its
    /// message was taken ends one more, and not every wait until the next message.
    pub const INTEREST: Interest = Interest::READ_EDGE;

    /// An empty mailbox.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor for the bell.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: AtomicBool::new(false),
            messages: Mutex::new(Vec::new()),
            bell: Bell::new()?,
        })
    }

    /// Leaves a message and wakes the worker.
    pub fn post(&self, message: Message) {
        let first = {
            let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.push(message);
            self.waiting.store(true, Ordering::Release);
            messages.len() == 1
        };
        if first && let Err(error) = self.bell.ring() {
            tracing::error!(%error, "worker can't be woken");
        }
    }

    /// Whether there is something to take. Whoever looks too early for a message is woken by its
    /// bell.
    #[must_use]
    pub fn has_some(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes all messages.
    pub fn take(&self, into: &mut Vec<Message>) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::Relaxed);
        into.append(&mut messages);
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::epoll::{Epoll, Events};

    fn rings(epoll: &Epoll) -> usize {
        let mut events = Events::with_capacity(4);
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        events.len()
    }

    fn watched() -> (Mailbox, Epoll) {
        let (mailbox, epoll) = (Mailbox::new().unwrap(), Epoll::new().unwrap());
        epoll.add(&mailbox, 0, Mailbox::INTEREST).unwrap();
        (mailbox, epoll)
    }

    #[test]
    fn messages_are_told_of_once_and_taken_in_their_order() {
        let (mailbox, epoll) = watched();
        assert!(!mailbox.has_some());
        assert_eq!(rings(&epoll), 0);
        mailbox.post(Message::EndProxy(1));
        mailbox.post(Message::EndProxy(2));
        assert!(mailbox.has_some());
        assert_eq!(rings(&epoll), 1);
        let mut taken = Vec::new();
        mailbox.take(&mut taken);
        assert!(matches!(
            taken[..],
            [Message::EndProxy(1), Message::EndProxy(2)]
        ));
        assert!(!mailbox.has_some());
        mailbox.post(Message::Room);
        assert!(mailbox.has_some());
        assert_eq!(rings(&epoll), 1);
    }

    #[test]
    fn a_bell_that_rings_after_its_message_was_taken_ends_one_wait_alone() {
        let (mailbox, epoll) = watched();
        mailbox.post(Message::Room);
        assert_eq!(rings(&epoll), 1);
        mailbox.take(&mut Vec::new());
        mailbox.bell.ring().unwrap();
        assert_eq!((rings(&epoll), rings(&epoll)), (1, 0));
    }
}
