//! What a worker knows of one connection. No system calls here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::hedge::Hedge;
use super::origin::Told;
use super::queue::Tried;
use super::rebalance::records::Records;
use super::relay::Flow;
use super::stall::Silence;
use super::termination::{Cause, Phase};
use super::timer::Due;
use crate::net::tcp::Answers;

/// A number that may be missing; the highest one can't be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maybe(u32);

impl Maybe {
    pub(super) const NONE: Self = Self(u32::MAX);

    pub(super) const fn some(value: u32) -> Self {
        Self(value)
    }

    /// Microseconds, up to 71 minutes.
    pub(super) fn span(micros: u64) -> Self {
        Self(u32::try_from(micros).map_or(u32::MAX - 1, |span| span.min(u32::MAX - 1)))
    }

    pub(super) const fn value(self) -> Option<u32> {
        if self.0 == u32::MAX {
            None
        } else {
            Some(self.0)
        }
    }

    pub(super) const fn take(&mut self) -> Option<u32> {
        let value = self.value();
        *self = Self::NONE;
        value
    }
}

/// A client's address, in half the space; an IPv4 one as what IPv6 maps it to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl Peer {
    fn new(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self {
            ip: ip.octets(),
            port: addr.port(),
        }
    }

    pub(super) fn addr(self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for the PROXY header, before anything else.
    Header,
    /// Waits for a slot on a server.
    Queued,
    /// A connect to its server is under way.
    Connecting,
    /// Both sides are there.
    Relaying,
    /// One side broke off; the other gets what was received, then RST.
    Flushing,
    /// Both sides have ended, and one that rests has not acknowledged everything.
    Parting,
    /// Over; the slot is freed when the round ends.
    Dead,
}

/// What is known of one side's socket: its readiness, as far as events told, and what it owes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Side(u8);

impl Side {
    /// A read may bring something.
    pub(super) const READABLE: Self = Self(1);
    /// A write may be taken.
    pub(super) const WRITABLE: Self = Self(1 << 1);
    /// The peer's FIN has arrived, perhaps behind data.
    pub(super) const READ_CLOSED: Self = Self(1 << 2);
    /// Urgent data came: reads stop at its mark, so a short read is no sign of an empty socket.
    pub(super) const URGENT: Self = Self(1 << 3);
    /// The peer is gone: RST, or it does not answer any more.
    pub(super) const BROKEN: Self = Self(1 << 4);
    /// Something was written to it since it was last known to have acknowledged everything.
    pub(super) const OWES: Self = Self(1 << 5);
    /// The socket's probes are paced: it is not like a new one.
    pub(super) const PACED: Self = Self(1 << 6);
    /// The socket served another connection before, and its window is as the kernel chose it.
    pub(super) const RECYCLED: Self = Self(1 << 7);

    pub(super) const fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    pub(super) const fn add(&mut self, what: Self) {
        self.0 |= what.0;
    }

    pub(super) const fn add_if(&mut self, what: Self, condition: bool) {
        if condition {
            self.add(what);
        }
    }

    pub(super) const fn remove(&mut self, what: Self) {
        self.0 &= !what.0;
    }
}

/// What only few connections have to remember: those that met a queue, a server that failed them,
/// or a peer that does not answer.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Servers that failed it.
    pub(super) tried: Tried,
    /// Its number in the queue when it joined it, from 1; 0: it never did.
    pub(super) queue_number: u32,
    /// Connects that failed.
    pub(super) retries: u8,
    /// Whether it went to another server than the first.
    pub(super) redispatched: bool,
    /// A second connect under way, beside the first.
    pub(super) hedge: Option<Hedge>,
    /// Whether there ever was one.
    pub(super) hedged: bool,
    /// The connect under way is the trial of a server in doubt.
    pub(super) on_trial: bool,
    /// Since when the client answers nothing.
    pub(super) client_silence: Silence,
    /// Since when the server answers nothing.
    pub(super) server_silence: Silence,
    /// Where the records of TLS begin and end, if somebody wants to know.
    pub(super) records: Option<Records>,
}

impl Rare {
    /// What a connection remembers for which nothing happened.
    const NONE: Self = Self {
        tried: Tried::NONE,
        queue_number: 0,
        retries: 0,
        redispatched: false,
        hedge: None,
        hedged: false,
        on_trial: false,
        client_silence: Silence::NONE,
        server_silence: Silence::NONE,
        records: None,
    };
}

/// One connection. Times are microseconds since the engine's start.
#[derive(Debug)]
pub(super) struct Conn {
    /// The client's socket, until the connection is dead.
    pub(super) client: Option<OwnedFd>,
    /// The server's socket, by its place in the worker's table.
    pub(super) sock: Maybe,
    /// Who connected: the client, or a sender that tells who that is.
    pub(super) peer: Peer,
    /// What its PROXY header said, if it had one.
    pub(super) told: Option<Box<Told>>,
    /// Tells this user of the slot from earlier ones.
    pub(super) serial: u32,
    /// Position of the proxy.
    pub(super) proxy: u16,
    /// Position of the server on which it holds a slot.
    pub(super) server: Option<u16>,
    pub(super) state: State,
    pub(super) client_side: Side,
    pub(super) server_side: Side,
    /// From client to server.
    pub(super) up: Flow,
    /// From server to client.
    pub(super) down: Flow,
    pub(super) accepted: u64,
    /// When the present state or connect attempt began.
    pub(super) since: u64,
    /// When a byte last moved.
    pub(super) active: u64,
    /// Time in the queue, microseconds; missing: never had a slot.
    pub(super) queue_time: Maybe,
    /// Time of the connect that succeeded, microseconds.
    pub(super) connect_time: Maybe,
    /// The earliest tick at which its timer comes due.
    pub(super) armed: Due,
    /// Missing for most.
    pub(super) rare: Option<Box<Rare>>,
    /// Where it stood when one side broke off.
    pub(super) broke_in: Phase,
    /// Readiness to write is watched on the client's socket too.
    pub(super) watches_write: bool,
    /// It is in the list of those that have more to do.
    pub(super) runnable: bool,
    /// It counts among those of its source.
    pub(super) counted: bool,
}

impl Conn {
    pub(super) fn new(
        client: OwnedFd,
        peer: SocketAddr,
        proxy: u16,
        serial: u32,
        now: u64,
    ) -> Self {
        Self {
            client: Some(client),
            sock: Maybe::NONE,
            peer: Peer::new(peer),
            told: None,
            serial,
            proxy,
            server: None,
            state: State::Queued,
            client_side: Side::WRITABLE,
            server_side: Side::default(),
            up: Flow::default(),
            down: Flow::default(),
            accepted: now,
            since: now,
            active: now,
            queue_time: Maybe::NONE,
            connect_time: Maybe::NONE,
            armed: Due::NEVER,
            rare: None,
            broke_in: Phase::Data,
            watches_write: false,
            runnable: false,
            counted: false,
        }
    }

    /// What only few connections have to remember.
    pub(super) fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&Rare::NONE)
    }

    /// The same, to change it.
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The same, if there is something.
    pub(super) fn rare_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Position of the server on which a second connect is under way.
    pub(super) fn hedge_on(&self) -> Option<usize> {
        Some(usize::from(self.rare().hedge.as_ref()?.server))
    }

    /// Whether a peer has long stopped to answer; `answers` is `None` when it has nothing to.
    pub(super) fn is_gone(
        &mut self,
        whose: impl Fn(&mut Rare) -> &mut Silence,
        answers: Option<Answers>,
        user_timeout: Duration,
        now: u64,
    ) -> bool {
        let Some(answers) = answers else {
            if let Some(rare) = self.rare.as_deref_mut() {
                whose(rare).broken();
            }
            return false;
        };
        if answers.missing == 0 && self.rare.is_none() {
            return false;
        }
        whose(self.rare_mut()).look(answers, user_timeout, now)
    }

    /// The client: who its header says it is, else who connected.
    pub(super) fn client_addr(&self) -> SocketAddr {
        let told = self.told.as_ref().and_then(|told| told.addrs);
        told.map_or_else(|| self.peer.addr(), |(client, _)| client)
    }

    /// Where its header says that the client connected to.
    pub(super) fn told_local(&self) -> Option<SocketAddr> {
        let (_, local) = self.told.as_ref()?.addrs?;
        Some(local)
    }

    /// When the client's own bytes could begin: behind the header, if there was one.
    pub(super) fn begun(&self) -> u64 {
        self.told.as_ref().map_or(self.accepted, |told| told.at)
    }

    /// Whether the client has not sent a byte.
    pub(super) const fn silent(&self) -> bool {
        self.up.bytes() == 0
    }

    /// Whether the server has just come to its end without a byte, and the client goes on.
    pub(super) const fn was_turned_away(&self) -> bool {
        self.down.ended() && self.down.bytes() == 0 && !self.down.finished() && !self.up.ended()
    }

    /// Whether the server is there and the client has not spoken.
    pub(super) fn awaits_first_byte(&self) -> bool {
        self.state == State::Relaying && self.silent()
    }

    /// Whether exactly one direction has come to its end.
    pub(super) const fn half_closed(&self) -> bool {
        self.up.ended() != self.down.ended()
    }

    /// Who broke off, once somebody has: the client if both did.
    pub(super) const fn broken_cause(&self) -> Cause {
        if self.client_side.has(Side::BROKEN) {
            Cause::Client
        } else {
            Cause::Server
        }
    }

    /// Where it stands, for its termination code.
    pub(super) const fn phase(&self) -> Phase {
        match self.state {
            State::Header => Phase::Header,
            State::Queued => Phase::Queue,
            State::Connecting => Phase::Connect,
            State::Relaying if self.down.ended() => Phase::Last,
            State::Relaying | State::Dead => Phase::Data,
            State::Flushing => self.broke_in,
            State::Parting => Phase::Last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_little_more_than_its_facts() {
        assert!(size_of::<Conn>() <= 128, "{}", size_of::<Conn>());
    }
}
