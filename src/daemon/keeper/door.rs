//! Where proxy processes connect: keeper.sock, its newcomers, and what happens when it can't accept.

use std::io;
use std::time::{Duration, Instant};

use super::link::Link;
use super::{Keeper, SOCKET};
use crate::log::spacing::is_due;
use crate::net::epoll::Interest;

/// Connections that haven't said `Hello`; when one more comes the oldest is closed.
const STRANGERS_MAX: usize = 8;
/// A listener that can't accept, as a rule for want of descriptors, is left alone for this long,
/// and complained of this often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

impl Keeper {
    /// Takes new connections in.
    pub(super) fn accept(&mut self, now: Instant) {
        for _ in 0..STRANGERS_MAX {
            let connection = match self.socket.accept() {
                Ok(Some(connection)) => connection,
                Ok(None) => return,
                Err(error) => return self.pause_accepting(now, &error),
            };
            let ours = nix::unistd::geteuid().as_raw();
            let peer = connection.peer();
            let trusted = peer.is_ok_and(|peer| peer.uid == ours || peer.uid == 0);
            if !trusted {
                tracing::warn!(
                    reason = "wrong user",
                    "connection to keeper.sock turned away"
                );
                continue;
            }
            if self.proxies.strangers.len() >= STRANGERS_MAX {
                tracing::warn!(reason = "silent", "connection to keeper.sock turned away");
                self.proxies.strangers.remove(0);
            }
            let token = self.token();
            match Link::new(&self.epoll, connection, token) {
                Ok(link) => self.proxies.strangers.push(link),
                Err(error) => tracing::warn!(%error, "connection to keeper.sock turned away"),
            }
        }
    }

    /// Whoever waits, waits: a listener that stays ready would have the loop spin.
    pub(super) fn pause_accepting(&mut self, now: Instant, error: &io::Error) {
        if is_due(&mut self.proxies.complained, COMPLAIN_EVERY, now) {
            tracing::warn!(%error, "keeper.sock does not accept");
        }
        self.proxies.accept_at = Some(now + ACCEPT_PAUSE);
        self.watch_socket(Interest::NONE);
    }

    /// The pause of the listener may be over.
    pub(super) fn tick_accepting(&mut self, now: Instant) {
        if self.proxies.accept_at.is_some_and(|at| now >= at) {
            self.proxies.accept_at = None;
            self.watch_socket(Interest::READ);
        }
    }

    pub(super) fn watch_socket(&self, interest: Interest) {
        if let Err(error) = self.epoll.modify(&self.socket, SOCKET, interest) {
            tracing::error!(%error, "keeper.sock cannot be watched");
        }
    }
}
