//! Who the client is. A sender that is trusted says so in a header before its first byte: it is
//! read here, without taking a byte behind it. Servers are told in a header, or see the client's
//! address as that of the connection. The headers themselves are [`pp`]'s business.
//!
//! While a header is awaited nothing of it is kept: what has come stays in the socket's buffer
//! until it is whole.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::conn::{Conn, Side, State};
use super::counters::ProxyCount;
use super::dispatch::Turn as Place;
use super::ending::Leave;
use super::pp::{self, HEADER_BYTES_MAX, Header, Refusal};
use super::settings::micros;
use super::termination::{Cause, Termination};
use super::worker::Worker;
use crate::config::model::{self, HeaderVersion, Network, Source};
use crate::log::spacing;
use crate::net::{source, tcp};

/// At most one line about refused headers in this time, for each worker and proxy.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a connection's header said.
#[derive(Debug)]
pub(super) struct Told {
    /// The client, and where it connected to; `None`: what the socket says holds.
    pub(super) addrs: Option<(SocketAddr, SocketAddr)>,
    /// When the header had come, microseconds since the engine's start.
    pub(super) at: u64,
}

/// A proxy's side of all this.
#[derive(Debug)]
pub(super) struct Origin {
    accept: Vec<Network>,
    send: Option<HeaderVersion>,
    source: Source,
    /// For a header to come, microseconds.
    pub(super) timeout: u64,
    /// When a refused header was last logged.
    said: Option<Instant>,
}

/// Why a connection was ended while its header was awaited.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Bytes(#[from] Refusal),
    #[error("closed before the header was whole")]
    Closed,
    #[error("no header in time")]
    Timeout,
}

impl Refused {
    const fn count(&self) -> ProxyCount {
        match self {
            Self::Bytes(Refusal::Missing) => ProxyCount::HeaderMissing,
            Self::Bytes(Refusal::Malformed(_)) => ProxyCount::HeaderMalformed,
            Self::Bytes(Refusal::TooLong) => ProxyCount::HeaderTooLong,
            Self::Closed => ProxyCount::HeaderClosed,
            Self::Timeout => ProxyCount::HeaderTimeout,
        }
    }

    const fn cause(&self) -> Cause {
        match self {
            Self::Bytes(_) => Cause::Proxy,
            Self::Closed => Cause::Client,
            Self::Timeout => Cause::ClientTimeout,
        }
    }

    /// Whether somebody has to look into it. Senders' plain checks connect and close for ever: a
    /// line about them would be noise, and take the place of one about a sender without headers.
    const fn is_a_fault(&self) -> bool {
        match self {
            Self::Bytes(_) | Self::Timeout => true,
            Self::Closed => false,
        }
    }
}

/// What a socket towards a server is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Anywhere,
    Local(IpAddr),
    Foreign(IpAddr),
}

impl From {
    /// Says it without the kernel's number if the address is not on this machine: by that number, a
    /// connect says that ports are used up.
    pub(super) fn bind(self, fd: impl AsFd) -> io::Result<()> {
        let bound = match self {
            Self::Anywhere => Ok(()),
            Self::Local(ip) => source::bind(fd, ip),
            Self::Foreign(ip) => source::bind_foreign(fd, ip),
        };
        bound.map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => error.kind().into(),
            Some(_) | None => error,
        })
    }
}

impl Origin {
    pub(super) fn new(config: &model::Proxy) -> Self {
        let pp = config.proxy_protocol.as_ref();
        Self {
            accept: pp.map(|pp| pp.accept.clone()).unwrap_or_default(),
            send: pp.and_then(|pp| pp.send),
            source: config.source,
            timeout: pp.map_or(0, |pp| micros(pp.timeout)),
            said: None,
        }
    }

    /// Takes the place of `before`. Whoever waits for a header still has its time.
    pub(super) const fn follow(&mut self, before: &Self) {
        self.said = before.said;
        if self.timeout == 0 {
            self.timeout = before.timeout;
        }
    }

    fn trusts(&self, sender: IpAddr) -> bool {
        self.accept.iter().any(|network| network.contains(sender))
    }

    /// From where the connection's server is reached. A client of the other family can't be the
    /// source.
    pub(super) fn source_of(&self, conn: &Conn, server: SocketAddr) -> From {
        match self.source {
            Source::Any => From::Anywhere,
            Source::Fixed { .. } => {
                let fixed = self.source.fixed_for(server.ip());
                fixed.map_or(From::Anywhere, From::Local)
            }
            Source::Client => {
                let client = conn.client_addr().ip();
                if client.is_ipv4() == server.is_ipv4() {
                    From::Foreign(client)
                } else {
                    From::Anywhere
                }
            }
        }
    }

    /// Whether servers are told who the client is before anything else.
    pub(super) const fn sends_header(&self) -> bool {
        self.send.is_some()
    }

    /// Whether sockets of one client may serve another: not if they are bound to its address.
    pub(super) fn recyclable(&self) -> bool {
        self.source != Source::Client
    }
}

impl Worker {
    /// Whether a connection that was just accepted has to begin with a header; it waits for it
    /// then.
    pub(super) fn expects_header(&mut self, slot: u32) -> bool {
        let expected = self
            .conn_and_settings(slot)
            .is_some_and(|(conn, settings)| {
                let origin = &settings.origin;
                !origin.accept.is_empty() && origin.trusts(conn.peer.addr().ip())
            });
        if expected {
            if let Some(conn) = self.conn_mut(slot) {
                conn.state = State::Header;
            }
            self.arm(slot);
        }
        expected
    }

    /// Something came for a connection whose header is awaited.
    pub(super) fn read_header(&mut self, slot: u32) {
        let Some(conn) = usize::try_from(slot)
            .ok()
            .and_then(|i| self.conns.get_mut(i))
        else {
            return;
        };
        let Some(client) = conn.client.as_ref() else {
            return;
        };
        let room = self.kit.buffer();
        let room = room.get_mut(..HEADER_BYTES_MAX).unwrap_or_default();
        let came = match tcp::peek(client, room) {
            Ok(came) => came,
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && !conn.client_side.has(Side::BROKEN) =>
            {
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(_broken) => {
                self.refuse_header(slot, &Refused::Closed);
                return;
            }
        };
        let decoded = match pp::decode(room.get(..came).unwrap_or_default()) {
            Ok(Some(decoded)) => decoded,
            // Its end comes behind every byte: there are no more.
            Ok(None)
                if came == 0
                    || conn.client_side.has(Side::READ_CLOSED)
                    || conn.client_side.has(Side::BROKEN) =>
            {
                self.refuse_header(slot, &Refused::Closed);
                return;
            }
            Ok(None) => return,
            Err(refusal) => {
                self.refuse_header(slot, &refusal.into());
                return;
            }
        };
        let taken = tcp::recv(client, room.get_mut(..decoded.len).unwrap_or_default());
        if !taken.is_ok_and(|taken| taken == decoded.len) {
            self.refuse_header(slot, &Refused::Closed);
            return;
        }
        let side = &mut conn.client_side;
        // Whatever comes from here on brings an event.
        let more = came > decoded.len
            || side.has(Side::READ_CLOSED)
            || side.has(Side::URGENT)
            || side.has(Side::BROKEN);
        side.remove(Side::READABLE);
        side.add_if(Side::READABLE, more);
        self.go_on(slot, decoded.header);
    }

    /// The header is there: the connection is like any other.
    fn go_on(&mut self, slot: u32, header: Header) {
        let now = self.now;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let addrs = match header {
            Header::Own => None,
            Header::Proxied { client, local } => Some((client, local)),
        };
        conn.told = Some(Box::new(Told { addrs, at: now }));
        conn.state = State::Queued;
        conn.since = now;
        conn.active = now;
        if let Some((_, settings)) = self.conn_and_settings(slot) {
            settings.counters.add(ProxyCount::Headers, 1);
        }
        if self.lets_in(slot) {
            self.seek(slot, Place::First);
        }
    }

    /// Ends a connection that brought no header.
    pub(super) fn refuse_header(&mut self, slot: u32, why: &Refused) {
        let now = self.shared.started + Duration::from_micros(self.now);
        let Some(conn) = self.conn(slot) else {
            return;
        };
        let (sender, proxy, phase) = (conn.peer.addr(), usize::from(conn.proxy), conn.phase());
        if let Some(settings) = self.proxies.get_mut(proxy) {
            settings.counters.add(why.count(), 1);
            let name = settings.farm.name();
            if why.is_a_fault() && spacing::is_due(&mut settings.origin.said, SAY_EVERY, now) {
                tracing::warn!(proxy = name, client = %sender, reason = %why, "proxy header refused");
            } else {
                tracing::debug!(proxy = name, client = %sender, reason = %why, "proxy header refused");
            }
        }
        self.end(slot, Termination::new(why.cause(), phase), Leave::Reset);
    }

    /// The server that the connection ended up at is told who the client is, before anything else.
    pub(super) fn send_header(&mut self, slot: u32) {
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return;
        };
        let Some(version) = settings.origin.send else {
            return;
        };
        let reached = || tcp::local_addr(conn.client.as_ref()?).ok();
        let header = match conn.told_local().or_else(reached) {
            Some(local) => pp::encode(version, conn.client_addr(), local),
            None => pp::own(version).into(),
        };
        if let Some(conn) = self.conn_mut(slot) {
            conn.up.begin_with(header);
        }
    }
}
