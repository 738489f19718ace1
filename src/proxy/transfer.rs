//! A connection between both sockets and their ends: bytes are moved, ends are passed on, and one
//! side that breaks off takes the other with it, once that has what was sent before.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::conn::{Side, State};
use super::counters::{ProxyCount, ServerCount};
use super::ending::Leave;
use super::relay::{Path, Turn};
use super::stall::{self, Silence};
use super::termination::{Cause, Termination};
use super::worker::{Token, Worker};
use crate::net::epoll::Interest;
use crate::net::tcp;

impl Worker {
    /// Moves bytes both ways as far as they go.
    pub(super) fn relay(&mut self, slot: u32) {
        let now = self.now;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let (Some(client), Some(server)) = (
            conn.client.as_ref().map(AsFd::as_fd),
            conn.sock.value().and_then(|sock| self.socks.fd(sock)),
        ) else {
            return;
        };
        let (moved_up, up) = Path {
            from: client,
            from_side: &mut conn.client_side,
            to: server,
            to_side: &mut conn.server_side,
            flow: &mut conn.up,
        }
        .turn(&mut self.kit);
        let (moved_down, down) = Path {
            from: server,
            from_side: &mut conn.server_side,
            to: client,
            to_side: &mut conn.client_side,
            flow: &mut conn.down,
        }
        .turn(&mut self.kit);
        let watch_write = !conn.client_side.writable && !conn.watches_write;
        if watch_write {
            conn.watches_write = true;
        }
        if moved_up + moved_down > 0 {
            conn.active = now;
        }
        let client_broken =
            conn.client_side.broken || up == Turn::SourceBroken || down == Turn::DestinationBroken;
        let server_broken =
            conn.server_side.broken || down == Turn::SourceBroken || up == Turn::DestinationBroken;
        let more = (up == Turn::More || down == Turn::More) && !conn.runnable;
        conn.runnable |= more;
        if more {
            self.runnable.push(slot);
        }
        self.count(slot, moved_up, moved_down);
        if watch_write {
            self.watch_client_write(slot);
        }
        if client_broken || server_broken {
            self.broke_off(slot, client_broken, server_broken);
        } else {
            self.pass_on_ends(slot);
        }
    }

    fn count(&mut self, slot: u32, up: usize, down: usize) {
        let spliced = std::mem::take(&mut self.kit.spliced);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let server = conn.server.map_or(usize::MAX, usize::from);
        let counters = &settings.counters;
        if up > 0 {
            let up = u64::try_from(up).unwrap_or(0);
            counters.add(ProxyCount::BytesIn, up);
            counters.add_server(server, ServerCount::BytesIn, up);
        }
        if down > 0 {
            let down = u64::try_from(down).unwrap_or(0);
            counters.add(ProxyCount::BytesOut, down);
            counters.add_server(server, ServerCount::BytesOut, down);
        }
        if spliced > 0 {
            counters.add(ProxyCount::Spliced, spliced);
        }
    }

    /// After its first short write a client is watched for room, too.
    fn watch_client_write(&mut self, slot: u32) {
        let interest = Interest::READ
            | Interest::WRITE
            | Interest::READ_CLOSED
            | Interest::URGENT
            | Interest::EDGE;
        let watched = self
            .conn(slot)
            .and_then(|conn| conn.client.as_ref())
            .map_or(Ok(()), |client| {
                self.epoll
                    .modify(client, Token::Client(slot).pack(), interest)
            });
        if let Err(error) = watched {
            tracing::debug!(%error, "client can't be watched");
            self.end_for_want(slot);
        }
    }

    /// Passes the end of a stream on behind its last byte, and ends what is finished.
    fn pass_on_ends(&mut self, slot: u32) {
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state != State::Relaying {
            return;
        }
        if conn.up.is_done() && conn.down.is_done() {
            // Closing sends the second FIN.
            let in_order = conn.up.finished && !conn.down.finished && !conn.server_side.paced;
            let leave = if in_order {
                Leave::InOrder
            } else {
                Leave::Close
            };
            self.end(slot, Termination::NORMAL, leave);
            return;
        }
        if conn.up.is_done() && !conn.up.finished {
            conn.up.finished = true;
            let fd = conn.sock.value().and_then(|sock| self.socks.fd(sock));
            conn.server_side.broken |= fd.is_some_and(|fd| tcp::finish(fd).is_err());
        }
        if conn.down.is_done() && !conn.down.finished {
            conn.down.finished = true;
            let fd = conn.client.as_ref();
            conn.client_side.broken |= fd.is_some_and(|fd| tcp::finish(fd).is_err());
        }
        let (client, server) = (conn.client_side.broken, conn.server_side.broken);
        if client || server {
            self.broke_off(slot, client, server);
        } else {
            self.arm(slot);
        }
    }

    /// One side is gone. What it sent still goes to the other, and then its RST.
    fn broke_off(&mut self, slot: u32, client: bool, server: bool) {
        let now = self.now;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state != State::Relaying {
            return;
        }
        conn.client_side.broken |= client;
        conn.server_side.broken |= server;
        let phase = conn.phase();
        conn.broke_in = phase;
        if client {
            conn.client_side.readable = true;
            conn.down.cut(&mut self.kit);
        }
        if server {
            conn.server_side.readable = true;
            conn.up.cut(&mut self.kit);
        }
        conn.state = State::Flushing;
        conn.since = now;
        let index = conn.server.map_or(usize::MAX, usize::from);
        if let Some((_, settings)) = self.conn_and_settings(slot) {
            let counters = &settings.counters;
            if client {
                counters.add(ProxyCount::ClientAborts, 1);
                counters.add_server(index, ServerCount::ClientAborts, 1);
            } else {
                counters.add(ProxyCount::ServerAborts, 1);
                counters.add_server(index, ServerCount::ServerAborts, 1);
            }
        }
        let cause = if client { Cause::Client } else { Cause::Server };
        if client && server {
            self.end(slot, Termination::new(cause, phase), Leave::Reset);
        } else {
            self.flush_on(slot);
        }
    }

    /// Goes on with delivering what a side sent before it broke off. Once the other side has
    /// acknowledged all of it, it gets RST.
    pub(super) fn flush_on(&mut self, slot: u32) {
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let (Some(client), Some(server)) = (
            conn.client.as_ref().map(AsFd::as_fd),
            conn.sock.value().and_then(|sock| self.socks.fd(sock)),
        ) else {
            return;
        };
        let client_broken = conn.client_side.broken;
        let (both, target) = (
            client_broken && conn.server_side.broken,
            if client_broken { server } else { client },
        );
        let mut path = if client_broken {
            Path {
                from: client,
                from_side: &mut conn.client_side,
                to: server,
                to_side: &mut conn.server_side,
                flow: &mut conn.up,
            }
        } else {
            Path {
                from: server,
                from_side: &mut conn.server_side,
                to: client,
                to_side: &mut conn.client_side,
                flow: &mut conn.down,
            }
        };
        let (moved, turn) = path.turn(&mut self.kit);
        path.flow.ended |= turn == Turn::SourceBroken;
        let exhausted = path.flow.is_done();
        let lost = both || turn == Turn::DestinationBroken;
        let delivered = exhausted && tcp::unsent(target).map_or(true, |bytes| bytes == 0);
        let phase = conn.phase();
        let more = turn == Turn::More && !conn.runnable;
        conn.runnable |= more;
        let (up, down) = if client_broken {
            (moved, 0)
        } else {
            (0, moved)
        };
        let watch_write = !conn.client_side.writable && !conn.watches_write;
        conn.watches_write |= watch_write;
        self.count(slot, up, down);
        if watch_write {
            self.watch_client_write(slot);
        }
        if lost || delivered {
            let cause = if client_broken {
                Cause::Client
            } else {
                Cause::Server
            };
            self.end(slot, Termination::new(cause, phase), Leave::Reset);
        } else {
            if more {
                self.runnable.push(slot);
            }
            self.arm(slot);
        }
    }

    /// Looks at a connection on which nothing may have happened: is everything flushed that was
    /// to be, and do the peers that have bytes to acknowledge still answer?
    pub(super) fn look_at(&mut self, slot: u32) {
        let now = self.now / 1000;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let settings = self.proxies.get(usize::from(conn.proxy));
        if let Some(timeout) = settings.and_then(|s| s.user_timeout)
            && let Some(client) = conn.client.as_ref().map(AsFd::as_fd)
            && let Some(server) = conn.sock.value().and_then(|sock| self.socks.fd(sock))
        {
            let (up, down) = (&mut conn.up.silence, &mut conn.down.silence);
            let client_gone = is_gone(client, &mut conn.client_side, down, timeout, now);
            let server_gone = is_gone(server, &mut conn.server_side, up, timeout, now);
            conn.client_side.broken |= client_gone;
            conn.server_side.broken |= server_gone;
        }
        let (client, server) = (conn.client_side.broken, conn.server_side.broken);
        match conn.state {
            State::Relaying if client || server => self.broke_off(slot, client, server),
            State::Flushing => self.flush_on(slot),
            State::Relaying | State::Header | State::Queued | State::Connecting | State::Dead => {
                self.arm(slot);
            }
        }
    }
}

/// Whether a peer has bytes to acknowledge, and has long stopped to answer.
fn is_gone(
    fd: BorrowedFd<'_>,
    side: &mut Side,
    silence: &mut Silence,
    timeout: Duration,
    now: u64,
) -> bool {
    if !side.owes {
        return false;
    }
    if tcp::unsent(fd).is_ok_and(|bytes| bytes == 0) {
        side.owes = false;
        silence.broken();
        return false;
    }
    let Ok(answers) = tcp::answers(fd) else {
        return false;
    };
    if answers.shut && !side.paced {
        side.paced = true;
        if let Err(error) = tcp::set_probe_interval(fd, stall::look_every(timeout)) {
            tracing::debug!(%error, "a shut window is probed as seldom as the kernel likes");
        }
    }
    silence.look(answers, timeout, now)
}
