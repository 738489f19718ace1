//! The end of a connection: its sockets are left the way it ended, its slot and its places go to
//! whoever waits for them, and a record of it goes to the access log.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::conn::{Conn, State};
use super::counters::{ProxyCount, ServerCount};
use super::queue::Ticket;
use super::settings::Settings;
use super::termination::{AccessRecord, Cause, Counts, Termination};
use super::worker::Worker;
use crate::net::{clock, tcp};

/// A server's socket that has received more than this, bytes, is not used again: its buffer has grown,
/// and its next connection would be held to the window a small one begins with.
const RECYCLE_RECEIVED_MAX: u64 = 32 * 1024;

/// How a connection's sockets are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Both with FIN; the server's socket may serve again.
    InOrder,
    /// Both with RST.
    Reset,
    /// Both with FIN, the server's socket not used again.
    Close,
}

impl Worker {
    pub(super) fn end_for_want(&mut self, slot: u32) {
        self.end_early(slot, Cause::Resource, ProxyCount::Resource);
    }

    pub(super) fn end_killed(&mut self, slot: u32) {
        self.end_early(slot, Cause::Killed, ProxyCount::Killed);
    }

    /// Ends a connection for a reason of our own. One that is flushed has its reason, and was
    /// counted, since a side broke off.
    pub(super) fn end_early(&mut self, slot: u32, cause: Cause, count: ProxyCount) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let cause = if conn.state == State::Flushing {
            conn.broken_cause()
        } else {
            settings.counters.add(count, 1);
            cause
        };
        // One that has ended for us is left to the kernel, which may still deliver the rest.
        let leave = if conn.state == State::Parting {
            Leave::Close
        } else {
            Leave::Reset
        };
        let end = Termination::new(cause, conn.phase());
        self.end(slot, end, leave);
    }

    /// Ends a connection: its sockets, its slot, its places, its record.
    pub(super) fn end(&mut self, slot: u32, end: Termination, leave: Leave) {
        let now = self.now;
        let number = self.number;
        if self
            .conn(slot)
            .is_some_and(|conn| conn.state == State::Connecting)
        {
            self.settle_attempts(slot);
        }
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        if conn.state == State::Dead {
            return;
        }
        let queued = conn.state == State::Queued;
        conn.state = State::Dead;
        let server_stays = !conn.down.ended();
        conn.up.cut(&mut self.kit);
        conn.down.cut(&mut self.kit);
        let (client, sock) = (conn.client.take(), conn.sock.take());
        let received = conn.down.bytes();
        let ticket = Ticket {
            worker: number,
            slot,
            serial: conn.serial,
        };
        if let Some(sock) = sock {
            let sock_leave = match leave {
                Leave::InOrder if received > RECYCLE_RECEIVED_MAX => Leave::Close,
                Leave::InOrder | Leave::Reset | Leave::Close => leave,
            };
            // As with a reset: the server hears of it before its slot is somebody else's.
            if leave == Leave::Close
                && server_stays
                && let Some(Err(error)) = self.socks.fd(sock).map(tcp::finish)
            {
                tracing::debug!(%error, "server gets its end late");
            }
            self.leave_sock(sock, sock_leave, received);
        }
        let local = self.close_client(client, leave);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let server = conn.server.map(usize::from);
        let (mut srv_conn, mut stale) = (0, 0);
        if let Some(server) = server {
            srv_conn = settings.farm.release(server).saturating_add(1);
            count_end(conn, settings, server, now);
        } else if queued {
            stale = u32::from(!settings.farm.leave(ticket));
        }
        if conn.counted {
            leave_source(conn, settings);
        }
        if end == Termination::NORMAL {
            settings.counters.add(ProxyCount::Finished, 1);
        }
        if let (Some(sink), Some(local)) = (&self.access, local) {
            let counts = self.counts(settings, conn, srv_conn);
            sink.offer(record(conn, local, end, now, counts));
        }
        let proxy = conn.proxy;
        self.stale += stale;
        self.leave_gates(proxy);
        self.dig(slot);
    }

    /// Leaves a server's socket behind. After a reset the server knows at once.
    pub(super) fn leave_sock(&mut self, sock: u32, leave: Leave, received: u64) {
        match leave {
            Leave::InOrder => {
                if self.socks.recycle(sock, received) {
                    return;
                }
            }
            // At once, not when the round ends: the slot may go to another connection before that,
            // and the server must not see it come before this one has gone.
            Leave::Reset => {
                if let Some(Err(error)) = self.socks.fd(sock).map(tcp::disconnect) {
                    tracing::debug!(%error, "server gets no reset");
                }
            }
            Leave::Close => {}
        }
        self.socks.close(sock);
    }

    /// Closes the client's socket; answers the address it was reached at, if a record needs it.
    fn close_client(&self, client: Option<OwnedFd>, leave: Leave) -> Option<SocketAddr> {
        let client = client?;
        let local = self
            .access
            .as_ref()
            .and_then(|_| tcp::local_addr(&client).ok());
        if leave == Leave::Reset
            && let Err(error) = tcp::reset_on_close(&client)
        {
            tracing::debug!(%error, "client gets no reset");
        }
        local
    }

    fn counts(&self, settings: &Settings, conn: &Conn, srv_conn: u32) -> Counts {
        let feconn = settings.farm.gate().inside();
        Counts {
            actconn: self.shared.gate.inside(),
            feconn,
            beconn: feconn,
            srv_conn,
            srv_queue: 0,
            backend_queue: conn.rare().queue_number,
        }
    }
}

/// One connection less for its server.
fn count_end(conn: &Conn, settings: &Settings, server: usize, now: u64) {
    let counters = &settings.counters;
    counters.add_server(server, ServerCount::Ended, 1);
    let total = now.saturating_sub(conn.accepted);
    counters.add_server(server, ServerCount::TotalMicros, total);
    if conn.down.bytes() == 0 && !conn.silent() {
        counters.add_server(server, ServerCount::Unanswered, 1);
    }
}

/// One connection less for its source.
fn leave_source(conn: &Conn, settings: &Settings) {
    if let Some(sources) = settings.farm.sources() {
        sources.leave(conn.client_addr().ip());
    }
}

fn record(
    conn: &Conn,
    local: SocketAddr,
    end: Termination,
    now: u64,
    counts: Counts,
) -> AccessRecord {
    let total = Duration::from_micros(now.saturating_sub(conn.accepted));
    let wall = clock::wall();
    AccessRecord {
        accepted_at: wall.checked_sub(total).unwrap_or(wall),
        proxy: usize::from(conn.proxy),
        server: conn.server.map(usize::from),
        client: conn.client_addr(),
        local: conn.told_local().unwrap_or_else(|| canonical(local)),
        queue: conn
            .queue_time
            .value()
            .map(|t| Duration::from_micros(t.into())),
        connect: conn
            .connect_time
            .value()
            .map(|t| Duration::from_micros(t.into())),
        total,
        bytes_in: conn.up.bytes(),
        bytes_out: conn.down.bytes(),
        end,
        retries: conn.rare().retries,
        redispatched: conn.rare().redispatched,
        hedged: conn.rare().hedged,
        counts,
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
