//! Proxy processes on their way out: told so, and watched until they are gone.

use std::time::Instant;

use super::Keeper;
use super::adoption::Phase;
use super::link::{Link, Turn};
use super::proxies::{Proxies, decode, send};
use crate::ipc::message::{ToKeeper, ToProxy};
use crate::net::epoll::Event;

/// Proxies on their way out that are watched; when one more comes the oldest is let go.
const LEAVING_MAX: usize = 16;
/// What connections of a surplus proxy get.
const SURPLUS_GRACE_MS: u32 = 10_000;

impl Keeper {
    pub(super) fn dismiss(&mut self, link: Link) {
        let stop = ToProxy::Stop {
            grace_ms: SURPLUS_GRACE_MS,
        };
        self.tell_leaving(link, &stop);
    }

    /// Gives a process its last order, and watches it until it is gone.
    pub(super) fn tell_leaving(&mut self, mut link: Link, order: &ToProxy) {
        match send(&self.epoll, &mut link, order, &[]) {
            Ok(()) => self.let_leave(link),
            Err(error) => tracing::debug!(%error, "a leaving proxy was not reached"),
        }
    }

    pub(super) fn let_leave(&mut self, link: Link) {
        let leaving = &mut self.proxies.leaving;
        if leaving.len() >= LEAVING_MAX {
            let oldest = leaving.remove(0);
            self.peers.forget_clients(oldest.token);
        }
        self.proxies.leaving.push(link);
    }

    /// Sends to the present proxy and to those that still have connections.
    pub(super) fn tell_proxies(&mut self, now: Instant, message: &ToProxy) {
        self.tell_proxy(now, message);
        let Proxies {
            leaving, replaced, ..
        } = &mut self.proxies;
        let replaced = replaced.as_mut().map(|(link, _)| link);
        for link in leaving.iter_mut().chain(replaced) {
            if let Err(error) = send(&self.epoll, link, message, &[]) {
                tracing::debug!(%error, "a leaving proxy was not reached");
            }
        }
    }

    /// Tells every proxy that is connected to stop, whatever its part.
    pub(super) fn stop_proxies(&mut self, now: Instant, grace_ms: u32) {
        let stop = ToProxy::Stop { grace_ms };
        self.tell_proxy(now, &stop);
        let proxies = &mut self.proxies;
        let inheriting = match &mut proxies.phase {
            Phase::Inheriting { link, .. } => Some(link),
            Phase::Expecting { .. } | Phase::Settled(_) => None,
        };
        let replaced = proxies.replaced.as_mut().map(|(link, _)| link);
        let others = proxies.leaving.iter_mut().chain(replaced).chain(inheriting);
        for link in others {
            if let Err(error) = send(&self.epoll, link, &stop, &[]) {
                tracing::debug!(%error, "a leaving proxy was not reached");
            }
        }
    }

    /// Of what a proxy on its way out says, its counts and its clients are of interest, and that it goes.
    pub(super) fn read_leaving(&mut self, now: Instant, token: u64, event: Event) {
        let mut said = Vec::new();
        let mut gone = None;
        let Self {
            proxies,
            epoll,
            buffer,
            ..
        } = self;
        proxies.leaving.retain_mut(|link| {
            if link.token != token {
                return true;
            }
            let flushed = !event.writable() || link.flush(epoll).is_ok();
            let stays = flushed && read_last(link, buffer, &mut said).is_ok();
            if !stays {
                gone = link.connection().peer().ok();
            }
            stays
        });
        if let Some((link, since)) = proxies.replaced.take() {
            if link.token != token || link.receive(buffer).is_ok() {
                proxies.replaced = Some((link, since));
            } else {
                gone = link.connection().peer().ok();
            }
        }
        for message in said {
            match message {
                ToKeeper::Tally(page) => self.pass_on(now, page),
                ToKeeper::Clients { first, last, flows } => {
                    self.peers.set_clients(token, (first, last), &flows);
                }
                // Left out before.
                ToKeeper::Hello(_)
                | ToKeeper::Listeners(_)
                | ToKeeper::ListenersDone
                | ToKeeper::Heartbeat(_)
                | ToKeeper::Serving(_)
                | ToKeeper::Snapshot(_)
                | ToKeeper::Notes(_)
                | ToKeeper::Note(_)
                | ToKeeper::Command { .. }
                | ToKeeper::Prepared { .. }
                | ToKeeper::Committed { .. }
                | ToKeeper::Tapes(_)
                | ToKeeper::Shares => {}
            }
        }
        if let Some(peer) = gone {
            tracing::info!(pid = peer.pid, "a proxy that was succeeded has ended");
            self.peers.forget_clients(token);
            self.free_column(now, peer.pid);
        }
    }
}

/// What is there, in a portion; an error: the other end has closed.
fn read_last(link: &Link, buffer: &mut [u8], said: &mut Vec<ToKeeper>) -> std::io::Result<()> {
    let mut turn = Turn::default();
    while turn.goes_on() {
        let Some(received) = link.receive(buffer)? else {
            break;
        };
        turn.took(&received);
        if let Some(message @ (ToKeeper::Tally(_) | ToKeeper::Clients { .. })) =
            decode(buffer, &received)
        {
            said.push(message);
        }
    }
    Ok(())
}
