//! The bytes of a connection: received, queued, sent, and the ends of both streams.

use std::io;

use io_uring::{cqueue, opcode, squeue, types};
use lbd::net::tcp;
use lbd::proxy::counters::{ProxyCount, ServerCount};

use super::{Engine, LASTING_WINDOW, Mode, QUEUE_MAX, What, place, token};
use crate::conn::{Client, End, Flow, State};
use crate::ring::{Done, GROUP, NONE, set_option};

impl Engine {
    /// Asks for what one end sends.
    pub(crate) fn receive(&mut self, slot: u32, end: End) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        if conn.state == State::Dead {
            return Ok(());
        }
        if self.mode == Mode::Mixed {
            return self.read(slot, end);
        }
        let flow = conn.flow(end);
        // What waits must go first: a receive that repeats itself knows no back-pressure, and one
        // stream would soon hold every buffer.
        if flow.armed || flow.ended || flow.queued > 0 {
            return Ok(());
        }
        flow.armed = true;
        flow.cancelled = false;
        let Some((fd, flags)) = self.number(slot, end) else {
            return Ok(());
        };
        let request = opcode::RecvMulti::new(fd, GROUP).build();
        // `flags` replaces those that the request has.
        let flags = flags | squeue::Flags::BUFFER_SELECT;
        self.submit(slot, &request.flags(flags), What::Recv(end))
    }

    /// Mixed: reads what is there, as long as there is a buffer and the destination keeps up.
    fn read(&mut self, slot: u32, end: End) -> io::Result<()> {
        loop {
            let Some(conn) = self.conns.get_mut(place(slot)) else {
                return Ok(());
            };
            let sock = conn.sock;
            let relaying = conn.state == State::Relaying;
            let flow = conn.flow(end);
            if !relaying || !flow.readable || flow.ended || flow.queued >= QUEUE_MAX {
                return Ok(());
            }
            let read_closed = flow.read_closed;
            let Some(buffer) = self.ring.take() else {
                self.starved.push((slot, end));
                return Ok(());
            };
            let bytes = self.ring.bytes(buffer);
            let room = bytes.len();
            let outcome = match (end, &conn.client) {
                (End::Client, Client::Plain(fd)) => tcp::recv(fd, bytes),
                (End::Client, Client::Direct(_) | Client::Gone) => return Ok(()),
                (End::Server, _) => match sock.and_then(|s| self.socks.get(place(s))) {
                    Some(sock) => tcp::recv(&sock.fd, bytes),
                    None => return Ok(()),
                },
            };
            match outcome {
                Ok(0) => {
                    self.ring.put(buffer);
                    let flow = conn.flow(end);
                    (flow.ended, flow.readable) = (true, false);
                    return self.pass_on_ends(slot);
                }
                Ok(read) => {
                    conn.flow(end).readable = read == room || read_closed;
                    self.took(slot, end, buffer, read);
                    self.pump(slot, end)?;
                }
                Err(error) => {
                    self.ring.put(buffer);
                    conn.flow(end).readable = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return self.abort(slot);
                    }
                }
            }
        }
    }

    /// Puts a received buffer last in its flow, and counts it.
    fn took(&mut self, slot: u32, end: End, buffer: u16, read: usize) {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return;
        };
        conn.active = self.now;
        let server = conn.server;
        // The second answer: it is no short connection.
        if end == End::Server
            && conn.down.bytes > 0
            && std::mem::take(&mut conn.recycled)
            && let Some(sock) = conn.sock.and_then(|sock| self.socks.get(place(sock)))
            && set_option(&sock.fd, libc::TCP_WINDOW_CLAMP, LASTING_WINDOW).is_err()
        {
            self.counters.add(ProxyCount::Resource, 1);
        }
        let flow = conn.flow(end);
        if let Some(fill) = self.ring.fill.get_mut(usize::from(buffer)) {
            *fill = u32::try_from(read).unwrap_or(0);
        }
        if let Some(next) = self.ring.next.get_mut(usize::from(buffer)) {
            *next = NONE;
        }
        match self.ring.next.get_mut(usize::from(flow.tail)) {
            Some(next) if flow.head != NONE => *next = buffer,
            Some(_) | None => flow.head = buffer,
        }
        flow.tail = buffer;
        flow.queued += 1;
        let read = u64::try_from(read).unwrap_or(0);
        flow.bytes += read;
        let (proxy, to_server) = match end {
            End::Client => (ProxyCount::BytesIn, ServerCount::BytesIn),
            End::Server => (ProxyCount::BytesOut, ServerCount::BytesOut),
        };
        self.counters.add(proxy, read);
        self.counters.add_server(server, to_server, read);
    }

    pub(super) fn on_received(&mut self, slot: u32, end: End, done: Done) -> io::Result<()> {
        let over = !cqueue::more(done.flags);
        let buffer = cqueue::buffer_select(done.flags);
        self.ring.free -= usize::from(buffer.is_some());
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        let state = conn.state;
        let flow = conn.flow(end);
        flow.armed &= !over;
        let got = usize::try_from(done.result).unwrap_or(0);
        if let Some(buffer) = buffer {
            if got > 0 && state != State::Dead {
                self.took(slot, end, buffer, got);
            } else {
                self.ring.give_back(buffer);
            }
        }
        if let Some(conn) = self.conns.get_mut(place(slot)) {
            let flow = conn.flow(end);
            flow.ended |= done.result == 0;
            let full = flow.queued > QUEUE_MAX && flow.armed && !flow.cancelled;
            flow.cancelled |= full;
            if full {
                self.cancel(slot, What::Recv(end))?;
            }
        }
        if over {
            self.less_pending(slot)?;
        }
        match -done.result {
            libc::ENOBUFS => self.starved.push((slot, end)),
            error if error > 0 && error != libc::ECANCELED => return self.abort(slot),
            _ => {}
        }
        self.pump(slot, end)?;
        // A receive that was called off, when everything it brought has been sent meanwhile.
        let rest = self.conns.get_mut(place(slot)).map(|conn| conn.flow(end));
        if over && done.result != -libc::ENOBUFS && rest.is_some_and(|flow| flow.head == NONE) {
            self.receive(slot, end)?;
        }
        self.pass_on_ends(slot)
    }

    pub(super) fn cancel(&mut self, slot: u32, what: What) -> io::Result<()> {
        let request = opcode::AsyncCancel::new(token(what, slot)).build();
        self.ring
            .push(&request.user_data(token(What::Nothing, slot)))
    }

    /// Sends the first buffer of a flow, if none is on its way.
    pub(super) fn pump(&mut self, slot: u32, from: End) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        let relaying = conn.state == State::Relaying;
        let flow: &mut Flow = conn.flow(from);
        if !relaying || flow.sending || flow.head == NONE {
            return Ok(());
        }
        flow.sending = true;
        let head = flow.head;
        let Some((fd, flags)) = self.number(slot, from.other()) else {
            return Ok(());
        };
        let length = self.ring.fill.get(usize::from(head)).copied().unwrap_or(0);
        let request = opcode::Send::new(fd, self.ring.at(head), length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(flags);
        self.submit(slot, &request, What::Send(from))
    }

    pub(super) fn on_sent(&mut self, slot: u32, from: End, result: i32) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        let dead = conn.state == State::Dead;
        let flow = conn.flow(from);
        let head = usize::from(flow.head);
        let length = self.ring.fill.get(head).copied().unwrap_or(0);
        let next = self.ring.next.get(head).copied().unwrap_or(NONE);
        let buffer = flow.head;
        flow.sending = false;
        flow.head = next;
        flow.queued -= 1;
        let again = next == NONE;
        self.release(buffer);
        self.less_pending(slot)?;
        if dead {
            return Ok(());
        }
        if u32::try_from(result) != Ok(length) {
            return self.abort(slot);
        }
        self.pump(slot, from)?;
        if again || self.mixed() {
            self.receive(slot, from)?;
        }
        self.pass_on_ends(slot)
    }

    pub(super) fn release(&mut self, buffer: u16) {
        if self.mixed() {
            self.ring.put(buffer);
        } else {
            self.ring.give_back(buffer);
        }
    }

    pub(super) fn pass_on_ends(&mut self, slot: u32) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        if conn.state != State::Relaying {
            return Ok(());
        }
        let (up, down) = (conn.up.is_done(), conn.down.is_done());
        if up && down {
            self.counters.add(ProxyCount::Finished, 1);
            return self.end(slot);
        }
        let passed_on = (conn.up.finished || !up) && (conn.down.finished || !down);
        if passed_on {
            return Ok(());
        }
        conn.up.finished |= up;
        conn.down.finished |= down;
        let end = if up { End::Server } else { End::Client };
        let Some(conn) = self.conns.get(place(slot)) else {
            return Ok(());
        };
        let outcome = match (end, &conn.client) {
            // Not through the ring, which has a thread of the kernel do it.
            (End::Server, _) => self.server_fd(conn).map_or(Ok(()), tcp::finish),
            (End::Client, Client::Plain(fd)) => tcp::finish(fd),
            (End::Client, Client::Direct(index)) => {
                let request = opcode::Shutdown::new(types::Fixed(*index), libc::SHUT_WR).build();
                self.ring
                    .push(&request.user_data(token(What::Nothing, slot)))
            }
            (End::Client, Client::Gone) => Ok(()),
        };
        match outcome {
            Ok(()) => {
                self.arm(slot);
                Ok(())
            }
            Err(_broken) => self.abort(slot),
        }
    }
}
