//! Both sides have ended, and one that was seen to rest has not acknowledged everything yet. Its
//! socket is kept until it has: the kernel gives one that is closed up as soon as its probes are as
//! far apart as they may be, which after a long rest they are, and what it holds is lost with it.

use std::os::fd::{AsFd, BorrowedFd};

use super::conn::{Conn, Side, State};
use super::counters::{ProxyCount, ServerCount};
use super::ending::Leave;
use super::sockets::Sockets;
use super::termination::{Cause, Phase, Termination};
use super::worker::Worker;
use crate::net::tcp;

impl Worker {
    /// Keeps a connection whose sides have both ended until they have everything; both are told of
    /// the end at once. `false`: nothing is left to be acknowledged.
    pub(super) fn part(&mut self, slot: u32) -> bool {
        let now = self.now;
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return false;
        };
        let (client_waits, server_waits) = (client_waits(conn), server_waits(conn, &self.socks));
        if !client_waits && !server_waits {
            return false;
        }
        let server = conn.sock.value().and_then(|sock| self.socks.fd(sock));
        let client = conn.client.as_ref().map(AsFd::as_fd);
        for (flow, fd, side, waits) in [
            (&mut conn.up, server, &mut conn.server_side, server_waits),
            (&mut conn.down, client, &mut conn.client_side, client_waits),
        ] {
            if !flow.finished() {
                flow.finish();
                side.add_if(Side::BROKEN, fd.is_none_or(|fd| tcp::finish(fd).is_err()));
            }
            // The end alone, too, is something to acknowledge.
            side.add_if(Side::OWES, waits);
        }
        conn.state = State::Parting;
        conn.since = now;
        self.part_on(slot);
        true
    }

    /// One of the two has news, or is looked at.
    pub(super) fn part_on(&mut self, slot: u32) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let (client, server) = (client_waits(conn), server_waits(conn, &self.socks));
        let client_gone = client && conn.client_side.has(Side::BROKEN);
        let server_gone = server && conn.server_side.has(Side::BROKEN);
        let index = conn.server.map_or(usize::MAX, usize::from);
        let counters = &settings.counters;
        if client_gone {
            counters.add(ProxyCount::ClientAborts, 1);
            counters.add_server(index, ServerCount::ClientAborts, 1);
            let end = Termination::new(Cause::Client, Phase::Last);
            self.end(slot, end, Leave::Close);
        } else if server_gone {
            counters.add(ProxyCount::ServerAborts, 1);
            counters.add_server(index, ServerCount::ServerAborts, 1);
            let end = Termination::new(Cause::Server, Phase::Last);
            self.end(slot, end, Leave::Close);
        } else if client || server {
            self.arm(slot);
        } else {
            self.end(slot, Termination::NORMAL, Leave::Close);
        }
    }
}

fn client_waits(conn: &Conn) -> bool {
    waits(conn.client_side, conn.client.as_ref().map(AsFd::as_fd))
}

fn server_waits(conn: &Conn, socks: &Sockets) -> bool {
    let fd = conn.sock.value().and_then(|sock| socks.fd(sock));
    waits(conn.server_side, fd)
}

/// Whether a side that was seen to rest has something to acknowledge; its end counts, too.
fn waits(side: Side, fd: Option<BorrowedFd<'_>>) -> bool {
    side.has(Side::PACED) && fd.is_some_and(|fd| tcp::unsent(fd).is_ok_and(|bytes| bytes > 0))
}
