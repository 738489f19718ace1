//! Messages to a worker: a list under a lock, and a bell that ends its wait. The list is bounded
//! by what can be told: one notice for each waiting connection, and the control thread's few
//! commands.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::census::Census;
use super::dispatch::Notice;
use super::lookup::Lookup;
use super::reshape::Shape;
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
    messages: Mutex<Vec<Message>>,
    bell: Bell,
}

impl Mailbox {
    /// An empty mailbox.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor for the bell.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::new(Vec::new()),
            bell: Bell::new()?,
        })
    }

    /// Leaves a message and wakes the worker.
    pub fn post(&self, message: Message) {
        let first = {
            let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.push(message);
            messages.len() == 1
        };
        if first && let Err(error) = self.bell.ring() {
            tracing::error!(%error, "worker can't be woken");
        }
    }

    /// Takes all messages.
    pub fn take(&self, into: &mut Vec<Message>) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.is_empty() {
            return;
        }
        into.append(&mut messages);
        if let Err(error) = self.bell.silence() {
            tracing::error!(%error, "worker's bell can't be silenced");
        }
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
