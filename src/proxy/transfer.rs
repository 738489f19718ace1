//! A connection between both sockets and their ends: bytes are moved, ends are passed on, and one
//! side that breaks off takes the other with it, once that has what was sent before.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::conn::{Conn, Rare, Side, State};
use super::counters::{ProxyCount, ServerCount};
use super::ending::Leave;
use super::rebalance::records::Records;
use super::relay::{Path, Turn};
use super::settings::ack_is_due;
use super::stall;
use super::termination::{Cause, Termination};
use super::worker::{Token, Worker};
use crate::net::epoll::Interest;
use crate::net::tcp::{self, Answers};

/// The receive window of a recycled socket whose connection lasts, bytes, until it needs more. Left
/// alone, a recycled socket offers as much as the kernel has room for, where a new one keeps a
/// little back; while bytes wait to be read, the kernel then has no room to announce, and puts every
/// acknowledgement off until the read, which has to send it: measured as 40 % more CPU per request.
/// Set before the connect it would do away with window scaling for the connection's whole life.
const LASTING_WINDOW: u16 = 65_535;
/// After so long without a byte, the next one may be the first of a TLS record, microseconds.
const REST: u64 = 200_000;

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
        let mut records = tracked(&mut conn.rare, now.saturating_sub(conn.active));
        let (moved_up, up) = Path {
            from: client,
            from_side: &mut conn.client_side,
            to: server,
            to_side: &mut conn.server_side,
            flow: &mut conn.up,
            track: records.as_mut().map(|records| &mut records.up),
        }
        .turn(&mut self.kit);
        let (moved_down, down) = Path {
            from: server,
            from_side: &mut conn.server_side,
            to: client,
            to_side: &mut conn.client_side,
            flow: &mut conn.down,
            track: records.as_mut().map(|records| &mut records.down),
        }
        .turn(&mut self.kit);
        if let Some(records) = records {
            records.moved(moved_up, moved_down);
        }
        if conn.server_side.has(Side::RECYCLED) && moved_up + moved_down > 0 {
            let first = conn.down.bytes() == 0 && conn.up.bytes() == moved(moved_up);
            let segments = conn.sock.value().map(|s| self.socks.expects_segments(s));
            if first && segments == Some(true) {
                acknowledge_soon(server);
            } else if conn.down.bytes() > moved(moved_down) {
                settle_window(server, &mut conn.server_side);
            }
        }
        let watch_write = !conn.client_side.has(Side::WRITABLE) && !conn.watches_write;
        conn.watches_write |= watch_write;
        let quiet_for = now.saturating_sub(conn.active);
        if moved_up + moved_down > 0 {
            conn.active = now;
        }
        let client_broken = conn.client_side.has(Side::BROKEN)
            || up == Turn::SourceBroken
            || down == Turn::DestinationBroken;
        let server_broken = conn.server_side.has(Side::BROKEN)
            || down == Turn::SourceBroken
            || up == Turn::DestinationBroken;
        let more = (up == Turn::More || down == Turn::More) && !conn.runnable;
        conn.runnable |= more;
        if more {
            self.runnable.push(slot);
        }
        self.count(slot, moved_up, moved_down, quiet_for);
        if watch_write {
            self.watch_client_write(slot);
        }
        if client_broken || server_broken {
            self.broke_off(slot, client_broken, server_broken);
        } else {
            self.pass_on_ends(slot);
        }
    }

    /// Counts bytes that were moved; `quiet_for`: since bytes were moved before, microseconds.
    fn count(&mut self, slot: u32, up: usize, down: usize, quiet_for: u64) {
        let spliced = std::mem::take(&mut self.kit.spliced);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let server = conn.server.map_or(usize::MAX, usize::from);
        let counters = &settings.counters;
        if up > 0 {
            let up = u64::try_from(up).unwrap_or(0);
            if conn.up.bytes() == up {
                counters.add_server(server, ServerCount::Asked, 1);
            }
            counters.add(ProxyCount::BytesIn, up);
            counters.add_server(server, ServerCount::BytesIn, up);
        }
        if down > 0 {
            let down = u64::try_from(down).unwrap_or(0);
            if conn.down.bytes() == down {
                counters.add_server(server, ServerCount::AnswerMicros, quiet_for);
                counters.add_server(server, ServerCount::Answered, 1);
            }
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
        if self.conn(slot).is_some_and(Conn::was_turned_away) && self.leave_after_end(slot) {
            return;
        }
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
            let server_rested = conn.server_side.has(Side::PACED);
            let rested = server_rested || conn.client_side.has(Side::PACED);
            // Closing sends the second FIN.
            let in_order = conn.up.finished() && !conn.down.finished() && !server_rested;
            let leave = if in_order {
                Leave::InOrder
            } else {
                Leave::Close
            };
            if rested && self.part(slot) {
                return;
            }
            self.end(slot, Termination::NORMAL, leave);
            return;
        }
        if conn.up.is_done() && !conn.up.finished() {
            conn.up.finish();
            let fd = conn.sock.value().and_then(|sock| self.socks.fd(sock));
            conn.server_side
                .add_if(Side::BROKEN, fd.is_some_and(|fd| tcp::finish(fd).is_err()));
        }
        if conn.down.is_done() && !conn.down.finished() {
            conn.down.finish();
            let fd = conn.client.as_ref();
            conn.client_side
                .add_if(Side::BROKEN, fd.is_some_and(|fd| tcp::finish(fd).is_err()));
        }
        let (client, server) = (
            conn.client_side.has(Side::BROKEN),
            conn.server_side.has(Side::BROKEN),
        );
        if client || server {
            self.broke_off(slot, client, server);
        } else {
            self.arm(slot);
        }
    }

    /// One side is gone. What it sent still goes to the other, and then its RST.
    fn broke_off(&mut self, slot: u32, client: bool, server: bool) {
        let now = self.now;
        let relaying = |conn: &Conn| conn.state == State::Relaying;
        if !self.conn(slot).is_some_and(relaying)
            || (server && !client && self.leave_after_break(slot))
        {
            return;
        }
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        conn.client_side.add_if(Side::BROKEN, client);
        conn.server_side.add_if(Side::BROKEN, server);
        let phase = conn.phase();
        conn.broke_in = phase;
        if client {
            conn.client_side.add(Side::READABLE);
            conn.down.cut(&mut self.kit);
        }
        if server {
            conn.server_side.add(Side::READABLE);
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
        let client_broken = conn.client_side.has(Side::BROKEN);
        let (both, target) = (
            client_broken && conn.server_side.has(Side::BROKEN),
            if client_broken { server } else { client },
        );
        let mut path = if client_broken {
            Path {
                from: client,
                from_side: &mut conn.client_side,
                to: server,
                to_side: &mut conn.server_side,
                flow: &mut conn.up,
                track: None,
            }
        } else {
            Path {
                from: server,
                from_side: &mut conn.server_side,
                to: client,
                to_side: &mut conn.client_side,
                flow: &mut conn.down,
                track: None,
            }
        };
        let (moved, turn) = path.turn(&mut self.kit);
        if turn == Turn::SourceBroken {
            path.flow.end();
        }
        let exhausted = path.flow.is_done();
        let lost = both || turn == Turn::DestinationBroken;
        let delivered = exhausted && tcp::unsent(target).map_or(true, |bytes| bytes == 0);
        let (cause, phase) = (conn.broken_cause(), conn.phase());
        let quiet_for = self.now.saturating_sub(conn.active);
        let more = turn == Turn::More && !conn.runnable;
        conn.runnable |= more;
        let (up, down) = if client_broken {
            (moved, 0)
        } else {
            (0, moved)
        };
        let watch_write = !conn.client_side.has(Side::WRITABLE) && !conn.watches_write;
        conn.watches_write |= watch_write;
        self.count(slot, up, down, quiet_for);
        if watch_write {
            self.watch_client_write(slot);
        }
        if lost || delivered {
            self.end(slot, Termination::new(cause, phase), Leave::Reset);
        } else {
            if more {
                self.runnable.push(slot);
            }
            self.arm(slot);
        }
    }

    /// Looks at a connection on which nothing may have happened: is everything flushed that was
    /// to be, do the peers that have bytes to acknowledge still answer, and does a server still
    /// wait for the end of its handshake?
    pub(super) fn look_at(&mut self, slot: u32) {
        let now = self.now / 1000;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let settings = self.proxies.get(usize::from(conn.proxy));
        if let (Some(idle), Some(sock)) = (settings.and_then(|s| s.keepalive), conn.sock.value())
            && let Err(error) = self.socks.keep_alive(sock, idle)
        {
            tracing::debug!(%error, "a dead server will go unnoticed for long");
        }
        if settings.is_some_and(|settings| ack_is_due(conn, settings, self.now))
            && let Some(server) = conn.sock.value().and_then(|sock| self.socks.fd(sock))
            && let Err(error) = tcp::set_quickack(server, true)
        {
            tracing::debug!(%error, "a handshake ends as late as the kernel likes");
        }
        if let Some(timeout) = settings.and_then(|s| s.user_timeout)
            && let Some(client) = conn.client.as_ref().map(AsFd::as_fd)
            && let Some(server) = conn.sock.value().and_then(|sock| self.socks.fd(sock))
        {
            let silent = answers_missing(client, &mut conn.client_side, timeout);
            let client_gone = conn.is_gone(|rare| &mut rare.client_silence, silent, timeout, now);
            let silent = answers_missing(server, &mut conn.server_side, timeout);
            let server_gone = conn.is_gone(|rare| &mut rare.server_silence, silent, timeout, now);
            conn.client_side.add_if(Side::BROKEN, client_gone);
            conn.server_side.add_if(Side::BROKEN, server_gone);
        }
        let (client, server) = (
            conn.client_side.has(Side::BROKEN),
            conn.server_side.has(Side::BROKEN),
        );
        match conn.state {
            State::Relaying if client || server => self.broke_off(slot, client, server),
            State::Flushing => self.flush_on(slot),
            State::Parting => self.part_on(slot),
            State::Relaying | State::Header | State::Queued | State::Connecting | State::Dead => {
                self.arm(slot);
            }
        }
    }
}

/// The records of a connection's bytes, if somebody wants to know them, before it moves again after
/// so many microseconds.
fn tracked(rare: &mut Option<Box<Rare>>, rest: u64) -> Option<&mut Records> {
    let Some(rare) = rare else { return None };
    let records = rare.records.as_mut()?;
    if rest >= REST {
        records.rest();
    }
    Some(records)
}

/// Has the answer to the first request over a recycled socket acknowledged where it arrives, not
/// where it is read.
fn acknowledge_soon(server: BorrowedFd<'_>) {
    if let Err(error) = tcp::set_quickack(server, true) {
        tracing::debug!(%error, "the first answer is acknowledged late");
    }
}

/// The second answer from a recycled socket: it is no short connection.
fn settle_window(server: BorrowedFd<'_>, side: &mut Side) {
    side.remove(Side::RECYCLED);
    if let Err(error) = tcp::set_window(server, LASTING_WINDOW) {
        tracing::debug!(%error, "acknowledgements to the server are put off");
    }
}

fn moved(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How a peer that has bytes to acknowledge answers; `None`: it has none, or the kernel can't tell.
fn answers_missing(fd: BorrowedFd<'_>, side: &mut Side, timeout: Duration) -> Option<Answers> {
    if !side.has(Side::OWES) {
        return None;
    }
    if tcp::unsent(fd).is_ok_and(|bytes| bytes == 0) {
        side.remove(Side::OWES);
        return None;
    }
    let answers = tcp::answers(fd).ok()?;
    if answers.shut && !side.has(Side::PACED) {
        side.add(Side::PACED);
        if let Err(error) = tcp::set_probe_interval(fd, stall::look_every(timeout)) {
            tracing::debug!(%error, "a shut window is probed as seldom as the kernel likes");
        }
    }
    Some(answers)
}
