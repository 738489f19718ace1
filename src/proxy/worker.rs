//! A worker: one thread, one epoll loop, its own connections. Each round waits, takes what the
//! events and the mailbox bring, and lets the timers have their say. A connection's slot is freed
//! only when the round ends, so that no event of this round can reach its next user.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::census::LocalEnds;
use super::closing::Closing;
use super::conn::{Conn, Side, State};
use super::counters::ProxyCount;
use super::dispatch::Notice;
use super::ending::Leave;
use super::engine::{AccessSink, Shared};
use super::farm::Farm;
use super::line::Listener;
use super::mailbox::{Mailbox, Message};
use super::origin::Refused;
use super::queue::Ticket;
use super::relay::Kit;
use super::reshape::Layout;
use super::settings::{Settings, deadline, micros, next_look};
use super::sockets::Sockets;
use super::termination::{Cause, Termination};
use super::timer::{Due, Entry, Wheel};
pub(super) use super::token::Token;
use crate::net::epoll::{Epoll, Event, Events};
use crate::net::{clock, tcp};

/// A worker comes round at least this often, microseconds.
const TICK: u64 = 50_000;
/// Events taken in one wait.
const EVENTS: usize = 256;
/// log2 of a timer tick in microseconds: about 4 ms.
const TIMER_SHIFT: u32 = 12;
/// Who has granted a slot has said so by then.
const LAST_MAIL: Duration = Duration::from_millis(100);

/// One worker's world.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u16,
    pub(super) epoll: Epoll,
    pub(super) proxies: Vec<Settings>,
    pub(super) conns: Slab<Conn>,
    pub(super) socks: Sockets,
    pub(super) listeners: Vec<Listener>,
    /// Where records of ended connections go.
    pub(super) access: Option<AccessSink>,
    /// Slot and serial of each client-first proxy's connections, oldest first; those that have
    /// spoken or ended are dropped when they come to the front.
    pub(super) silent: Vec<VecDeque<(u32, u32)>>,
    pub(super) kit: Kit,
    local_ends: LocalEnds,
    wheel: Wheel,
    due: Vec<Entry>,
    /// Slots to free when the round ends.
    graves: Vec<u32>,
    /// Connections with more to do than their turn allowed.
    pub(super) runnable: Vec<u32>,
    messages: Vec<Message>,
    /// Servers whose connections are being closed.
    pub(super) closings: Vec<Closing>,
    /// Where the search for idle connections goes on.
    pub(super) shed_next: usize,
    next_serial: u32,
    /// Microseconds since the engine's start, read once a round.
    pub(super) now: u64,
    /// Counts the rounds.
    pub(super) round: u64,
    /// This round has more than a few events.
    pub(super) crowded: bool,
    /// Descriptors ran out, and were not seen to be there again.
    pub(super) short: bool,
    next_tick: u64,
    pub(super) stopping: Option<Instant>,
    /// Notices on their way to connections that have left.
    pub(super) stale: u32,
}

impl Worker {
    /// A worker that watches no listener yet and isn't running.
    pub(super) fn new(
        shared: Arc<Shared>,
        number: usize,
        farms: &[Arc<Farm>],
        layout: &Layout,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        if let Some(mailbox) = shared.mailboxes.get(number) {
            epoll.add(mailbox, Token::Bell.pack(), Mailbox::INTEREST)?;
        }
        let settings = |farm: &Arc<Farm>| {
            let counters = farm.counters(number)?;
            Some(Settings::new(farm, counters, shared.started))
        };
        let workers = shared.mailboxes.len().max(1);
        let groups = layout.groups.iter();
        let listeners = groups.flat_map(|group| Listener::all(group, workers, number));
        let descriptors = shared.placement.descriptors;
        Ok(Self {
            number: u16::try_from(number).unwrap_or(u16::MAX),
            epoll,
            proxies: farms.iter().filter_map(settings).collect(),
            conns: Slab::new(),
            socks: Sockets::new(farms.len(), descriptors.connect_below),
            listeners: listeners.collect(),
            access: layout.access.clone(),
            silent: vec![VecDeque::new(); farms.len()],
            kit: Kit::new(shared.mailboxes.len(), descriptors.accept_below),
            local_ends: LocalEnds::default(),
            wheel: Wheel::new(0),
            due: Vec::new(),
            graves: Vec::new(),
            runnable: Vec::new(),
            messages: Vec::new(),
            closings: Vec::new(),
            shed_next: 0,
            next_serial: 0,
            now: 0,
            round: 0,
            crowded: false,
            short: false,
            next_tick: 0,
            stopping: None,
            stale: 0,
            shared,
        })
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        if let Some(tick) = shared.ticks.get(usize::from(self.number)) {
            tick.introduce();
        }
        let mut events = Events::with_capacity(EVENTS);
        while !self.finished() {
            if let Err(error) = self.epoll.wait(&mut events, Some(self.patience())) {
                tracing::error!(%error, "worker can't wait for events");
                std::thread::sleep(Duration::from_millis(10));
            }
            self.look_at_the_clock();
            self.round += 1;
            self.kit.begin_round(self.now);
            self.accept_first(&events);
            let unfinished = std::mem::take(&mut self.runnable);
            for event in events.iter() {
                self.on_event(event);
            }
            self.run_on(unfinished);
            self.read_mail();
            self.on_timers();
            self.serve_paced();
            if self.now >= self.next_tick {
                self.next_tick = self.now + TICK;
                self.on_tick();
            }
            self.bury();
        }
        self.read_last_mail();
    }

    /// Slots that were granted to those who have left are not lost for the other workers: who granted
    /// one may not have posted that yet.
    fn read_last_mail(&mut self) {
        let until = clock::now() + LAST_MAIL;
        self.read_mail();
        while self.stale > 0 && clock::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            self.read_mail();
        }
    }

    fn look_at_the_clock(&mut self) {
        let since = clock::now().saturating_duration_since(self.shared.started);
        self.now = micros(since);
        if let Some(tick) = self.shared.ticks.get(usize::from(self.number)) {
            tick.set(self.now / 1000);
        }
    }

    /// How long to wait for events.
    fn patience(&self) -> Duration {
        if !self.runnable.is_empty() {
            return Duration::ZERO;
        }
        let mut until = self.next_tick;
        if let Some(tick) = self.wheel.next_within((TICK >> TIMER_SHIFT) + 1) {
            until = until.min(tick << TIMER_SHIFT);
        }
        Duration::from_micros(until.min(self.next_paced()).saturating_sub(self.now))
    }

    /// Whether a stop has come to its end.
    fn finished(&mut self) -> bool {
        let Some(deadline) = self.stopping else {
            return false;
        };
        if !self.conns.is_empty() && clock::now() >= deadline {
            let slots: Vec<u32> = self.slots(|_| true);
            for slot in slots {
                self.end_killed(slot);
            }
            self.bury();
        }
        self.conns.is_empty()
    }

    fn on_event(&mut self, event: Event) {
        match Token::unpack(event.token) {
            Some(Token::Client(slot)) => self.on_client(slot, event),
            Some(Token::Server(sock)) => self.on_server(sock, event),
            Some(Token::Listener(_)) if self.crowded => {}
            Some(Token::Listener(index)) => self.accept_from(index),
            Some(Token::Bell) | None => {}
        }
    }

    fn on_client(&mut self, slot: u32, event: Event) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        note(&mut conn.client_side, event);
        match conn.state {
            State::Header => self.read_header(slot),
            State::Queued | State::Connecting => self.check_on_client(slot),
            State::Relaying | State::Flushing if conn.runnable => {}
            State::Relaying => self.relay(slot),
            State::Flushing => self.flush_on(slot),
            State::Parting => self.part_on(slot),
            State::Dead => {}
        }
    }

    /// A client that is served by nobody yet has news: does it leave?
    fn check_on_client(&mut self, slot: u32) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let gone = match &conn.client {
            _ if conn.client_side.has(Side::BROKEN) => true,
            // A client that must speak first and closed without a word wants nothing.
            Some(fd) if conn.client_side.has(Side::READ_CLOSED) && settings.client_first => {
                tcp::ended(fd).unwrap_or(true)
            }
            Some(_) | None => false,
        };
        if gone {
            settings.counters.add(ProxyCount::ClientLeft, 1);
            let phase = conn.phase();
            self.end(slot, Termination::new(Cause::Client, phase), Leave::Reset);
        }
    }

    fn on_server(&mut self, sock: u32, event: Event) {
        let Some(slot) = self.socks.user_of(sock, self.round) else {
            return;
        };
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        match conn.state {
            State::Connecting if conn.sock.value() != Some(sock) => {
                self.on_hedge(slot, sock, event);
            }
            State::Connecting => {
                if event.error() || event.hung_up() {
                    self.connect_failed(slot, Cause::Server);
                } else if event.writable() {
                    note(&mut conn.server_side, event);
                    self.connected(slot);
                }
            }
            State::Relaying | State::Flushing => {
                note(&mut conn.server_side, event);
                if conn.runnable {
                    return;
                }
                if conn.state == State::Relaying {
                    self.relay(slot);
                } else {
                    self.flush_on(slot);
                }
            }
            State::Parting => {
                note(&mut conn.server_side, event);
                self.part_on(slot);
            }
            State::Header | State::Queued | State::Dead => {}
        }
    }

    /// Gives those that had more to do their next turn: one a round, after those who had news.
    fn run_on(&mut self, unfinished: Vec<u32>) {
        for slot in unfinished {
            if let Some(conn) = self.conn_mut(slot)
                && std::mem::take(&mut conn.runnable)
            {
                match conn.state {
                    State::Relaying => self.relay(slot),
                    State::Flushing => self.flush_on(slot),
                    State::Header
                    | State::Queued
                    | State::Connecting
                    | State::Parting
                    | State::Dead => {}
                }
            }
        }
    }

    fn read_mail(&mut self) {
        let mailbox = self.shared.mailboxes.get(usize::from(self.number));
        let Some(mailbox) = mailbox.filter(|mailbox| mailbox.has_some()) else {
            return;
        };
        let mut messages = std::mem::take(&mut self.messages);
        mailbox.take(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Notice { proxy, notice } => self.on_notice(proxy, notice),
                Message::ServerDown { proxy, server } => self.on_server_down(proxy, server),
                Message::CloseServer { proxy, server } => self.close_server(proxy, server),
                Message::Room => self.resume_listeners(),
                Message::ResetLocal(addresses) => self.reset_local(&addresses),
                Message::Census(census) => {
                    self.local_ends.answer(&self.conns, self.now, &census);
                }
                Message::Lookup(lookup, from) => self.look_up(&lookup, from),
                Message::Reshape(shape) => self.reshape(&shape),
                Message::EndProxy(proxy) => self.end_proxy(proxy),
                Message::Stop(deadline) => self.stop(deadline),
            }
        }
        self.messages = messages;
    }

    fn on_notice(&mut self, proxy: usize, notice: Notice) {
        match notice {
            Notice::Granted(ticket, server) => {
                if self.waits(ticket) {
                    self.granted(ticket.slot, server);
                    return;
                }
                if let Some(settings) = self.proxies.get(proxy) {
                    settings.farm.release(server);
                }
            }
            Notice::NoServer(ticket) => {
                if self.waits(ticket) {
                    self.refuse_no_server(ticket.slot);
                }
            }
        }
        self.stale = self.stale.saturating_sub(1);
    }

    fn waits(&self, ticket: Ticket) -> bool {
        self.conn(ticket.slot)
            .is_some_and(|conn| conn.serial == ticket.serial && conn.state == State::Queued)
    }

    fn reset_local(&mut self, addresses: &[IpAddr]) {
        let slots = self.slots(|conn| {
            let local = conn.client.as_ref().map(tcp::local_addr);
            matches!(local, Some(Ok(local)) if addresses.contains(&local.ip().to_canonical()))
        });
        for slot in slots {
            self.end_killed(slot);
        }
        let done = &self.shared.resets_done;
        done.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    fn stop(&mut self, deadline: Instant) {
        self.stopping = Some(deadline);
        self.close_listeners();
    }

    fn on_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now >> TIMER_SHIFT, &mut due);
        for entry in due.drain(..) {
            let Some(conn) = self.conn_mut(entry.key) else {
                continue;
            };
            if entry.is_for(conn.armed) {
                conn.armed = Due::NEVER;
                self.on_deadline(entry.key);
            }
        }
        self.due = due;
    }

    fn on_deadline(&mut self, slot: u32) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let (deadline, count, cause) = deadline(conn, settings);
        if self.now < deadline {
            if conn.state == State::Connecting {
                self.hedge(slot);
            } else if !self.retire(slot) {
                self.look_at(slot);
            }
            return;
        }
        if conn.state == State::Connecting {
            self.connect_failed(slot, Cause::ServerTimeout);
            return;
        }
        if conn.state == State::Header {
            self.refuse_header(slot, &Refused::Timeout);
            return;
        }
        if let Some(count) = count {
            settings.counters.add(count, 1);
        }
        let end = Termination::new(cause, conn.phase());
        let whole = matches!(conn.state, State::Relaying | State::Parting);
        let clean = whole && conn.up.is_empty() && conn.down.is_empty();
        self.end(slot, end, if clean { Leave::Close } else { Leave::Reset });
    }

    /// Sees to it that the connection's timer comes due by its deadline, or its next look.
    pub(super) fn arm(&mut self, slot: u32) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let (deadline, _, _) = deadline(conn, settings);
        let at = deadline.min(next_look(conn, settings, self.now));
        let tick = (at >> TIMER_SHIFT).saturating_add(1);
        if conn.armed.is_after(tick, self.now >> TIMER_SHIFT) {
            let at = self.wheel.arm(slot, tick);
            if let Some(conn) = self.conn_mut(slot) {
                conn.armed = at;
            }
        }
    }

    fn on_tick(&mut self) {
        self.close_on();
        self.shed();
        self.tend_listeners();
        if self.socks.trim(self.now) {
            self.kit.trim();
        }
    }

    /// Frees what ended in this round.
    fn bury(&mut self) {
        for slot in self.graves.drain(..) {
            if let Ok(index) = usize::try_from(slot) {
                self.conns.try_remove(index);
            }
        }
        self.socks.bury();
    }

    /// The slot is freed when the round ends.
    pub(super) fn dig(&mut self, slot: u32) {
        self.graves.push(slot);
    }

    pub(super) fn new_serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    pub(super) fn conn(&self, slot: u32) -> Option<&Conn> {
        self.conns.get(usize::try_from(slot).ok()?)
    }

    pub(super) fn conn_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.conns.get_mut(usize::try_from(slot).ok()?)
    }

    pub(super) fn conn_and_settings(&self, slot: u32) -> Option<(&Conn, &Settings)> {
        let conn = self.conn(slot)?;
        Some((conn, self.proxies.get(usize::from(conn.proxy))?))
    }
}

/// Remembers what an event tells.
pub(super) fn note(side: &mut Side, event: Event) {
    side.add_if(Side::READABLE, event.readable());
    side.add_if(Side::WRITABLE, event.writable());
    side.add_if(Side::READ_CLOSED, event.read_closed());
    side.add_if(Side::URGENT, event.urgent());
    side.add_if(Side::BROKEN, event.error());
}
