//! The bytes of a connection: received, queued, sent, and the ends of both streams.

use std::io;

use io_uring::{cqueue, opcode};
use lbd::net::tcp;
use lbd::proxy::counters::{ProxyCount, ServerCount};

use super::{Engine, LASTING_WINDOW, QUEUE_MAX, What, place, token};
use crate::conn::{End, State};
use crate::ring::{Done, GROUP, NONE};

impl Engine {
    /// Asks for what one end sends.
    pub(crate) fn receive(&mut self, slot: u32, end: End) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(place(slot)) else {
            return Ok(());
        };
        if conn.state == State::Dead {
            return Ok(());
        }
        let flow = conn.flow(end);
        // What waits must go first: a receive that repeats itself knows no back-pressure, and one
        // stream would soon hold every buffer.
        if flow.armed || flow.ended || flow.queued > 0 {
            return Ok(());
        }
        flow.armed = true;
        flow.cancelled = false;
        let request = opcode::RecvMulti::new(conn.fd(end), GROUP).build();
        self.submit(slot, &request, What::Recv(end))
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
            && tcp::set_window(&conn.sock, LASTING_WINDOW).is_err()
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
        let flow = conn.flow(from);
        if !relaying || flow.sending || flow.head == NONE {
            return Ok(());
        }
        flow.sending = true;
        let head = flow.head;
        let length = self.ring.fill.get(usize::from(head)).copied().unwrap_or(0);
        let request = opcode::Send::new(conn.fd(from.other()), self.ring.at(head), length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
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
        self.ring.give_back(buffer);
        self.less_pending(slot)?;
        if dead {
            return Ok(());
        }
        if u32::try_from(result) != Ok(length) {
            return self.abort(slot);
        }
        self.pump(slot, from)?;
        if again {
            self.receive(slot, from)?;
        }
        self.pass_on_ends(slot)
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
        // Not through the ring, which has a thread of the kernel do it.
        let outcome = match up {
            true => tcp::finish(&conn.sock),
            false => tcp::finish(&conn.client),
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
