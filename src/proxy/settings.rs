//! A proxy's configuration as the data path wants it, and how long it has patience with a
//! connection. No system calls here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Key;
use super::conn::{Conn, State};
use super::counters::{ProxyCount, WorkerCounters};
use super::farm::Farm;
use super::guard::Guard;
use super::hedge::Hedging;
use super::origin::Origin;
use super::retire::Aging;
use super::stall;
use super::termination::Cause;
use crate::config::model::Balance;

/// A proxy's configuration as the data path wants it. Durations are microseconds.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) farm: Arc<Farm>,
    pub(super) counters: Arc<WorkerCounters>,
    /// Silence after which the kernel probes a peer.
    pub(super) keepalive: Option<Duration>,
    pub(super) client_first: bool,
    /// Whether the client's address decides on the server.
    pub(super) by_source: bool,
    pub(super) retries: u8,
    /// When a connect without an answer gets a second one.
    pub(super) hedging: Hedging,
    pub(super) connect_timeout: u64,
    pub(super) idle_timeout: u64,
    pub(super) half_close_timeout: u64,
    pub(super) queue_timeout: u64,
    pub(super) first_byte_timeout: Option<u64>,
    pub(super) user_timeout: Option<Duration>,
    /// Who the client is, for us and for servers.
    pub(super) origin: Origin,
    /// Which clients may connect; `None`: all.
    pub(super) guard: Option<Box<Guard>>,
    /// How often a connection is looked at, whether or not something happens on it. At the first look
    /// its server's socket gets keepalive.
    pub(super) look_every: u64,
    /// How old a connection may be.
    pub(super) aging: Option<Aging>,
    /// Whether the records of TLS are told apart.
    pub(super) tracks: bool,
}

/// A connection is looked at at least this often. It also bounds how long the timers of those that
/// have ended stay in the wheel.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often a connection that is being flushed before its RST is looked at, microseconds.
const FLUSH_POLL: u64 = 5_000;
/// Looks that fall within a time of this mask (65 ms) are one, microseconds.
const LOOK_TOGETHER: u64 = 0xffff;

/// How long the last acknowledgement of a server's handshake may wait for the first bytes of a
/// client that should speak first, to ride on them; a server that speaks first after all waits as
/// long. Microseconds.
const ACK_WAITS: u64 = 20_000;

impl Settings {
    /// `started`: what the worker's clock counts from.
    pub(super) fn new(farm: &Arc<Farm>, counters: Arc<WorkerCounters>, started: Instant) -> Self {
        let config = farm.config();
        let config = &*config;
        Self {
            farm: Arc::clone(farm),
            counters,
            keepalive: config.keepalive,
            client_first: config.client_first,
            by_source: config.balance == Balance::SourceHash,
            retries: config.retries,
            hedging: Hedging::new(config, farm.doubts().time(started)),
            connect_timeout: micros(config.connect_timeout),
            idle_timeout: micros(config.idle_timeout),
            half_close_timeout: micros(config.half_close_timeout),
            queue_timeout: micros(config.queue_timeout),
            first_byte_timeout: config
                .first_byte_timeout
                .filter(|_| config.client_first)
                .map(micros),
            user_timeout: config.user_timeout,
            origin: Origin::new(config),
            guard: Guard::new(&config.guard),
            aging: config.max_age.map(Aging::new),
            tracks: config.client_first && (config.max_age.is_some() || config.rebalance.is_some()),
            look_every: micros(
                [config.user_timeout.map(stall::look_every), config.keepalive]
                    .into_iter()
                    .flatten()
                    .fold(LOOK_EVERY, Duration::min),
            ),
        }
    }

    /// The same in place of `before`: what was learned so far stays.
    pub(super) fn after(mut self, before: &Self) -> Self {
        self.hedging.learn_from(&before.hedging);
        self.origin.follow(&before.origin);
        if let (Some(guard), Some(before)) = (&mut self.guard, &before.guard) {
            guard.follow(before);
        }
        self
    }
}

/// Who the client is to the strategy, where that matters to it.
pub(super) fn key(conn: &Conn, settings: &Settings) -> Key {
    if settings.by_source {
        Key::of(conn.client_addr().ip())
    } else {
        Key::NONE
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    // `as_micros` counts in 128 bits, and each round asks.
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(duration.subsec_micros().into())
}

/// When the connection's patience ends, what that counts as, and whom it waited for.
pub(super) fn deadline(conn: &Conn, settings: &Settings) -> (u64, Option<ProxyCount>, Cause) {
    match conn.state {
        // Counted by its reason where it is refused.
        State::Header => (
            conn.since + settings.origin.timeout,
            None,
            Cause::ClientTimeout,
        ),
        State::Queued => (
            conn.since + settings.queue_timeout,
            Some(ProxyCount::QueueTimeout),
            Cause::ServerTimeout,
        ),
        State::Connecting => (
            conn.since + settings.connect_timeout,
            None,
            Cause::ServerTimeout,
        ),
        State::Flushing => (
            conn.since + settings.half_close_timeout,
            None,
            conn.broken_cause(),
        ),
        State::Relaying => relaying(conn, settings),
        State::Parting => idle(conn, settings),
        State::Dead => (u64::MAX, None, Cause::Normal),
    }
}

/// When a connection is looked at next, whether or not something happens on it.
pub(super) fn next_look(conn: &Conn, settings: &Settings, now: u64) -> u64 {
    if conn.state == State::Flushing {
        // No event tells that the last byte was acknowledged. The longer it takes, the less the
        // peer is in a hurry.
        let passed = now.saturating_sub(conn.since);
        return now + FLUSH_POLL.max(passed / 8);
    }
    if conn.state == State::Connecting {
        return settings.hedging.next_look(conn, now);
    }
    let acks = conn.since.saturating_add(ACK_WAITS);
    if settings.client_first && conn.awaits_first_byte() && now < acks {
        return acks;
    }
    // Rounded up, so that one wake-up looks at many.
    let look = (now + settings.look_every) | LOOK_TOGETHER;
    match settings.aging {
        Some(aging) if conn.state == State::Relaying => look.min(aging.next_look(conn, now)),
        Some(_) | None => look,
    }
}

/// Whether a client that should speak first had its time to do so.
pub(super) fn ack_is_due(conn: &Conn, settings: &Settings, now: u64) -> bool {
    settings.client_first && conn.awaits_first_byte() && now >= conn.since.saturating_add(ACK_WAITS)
}

fn idle(conn: &Conn, settings: &Settings) -> (u64, Option<ProxyCount>, Cause) {
    (
        conn.active.saturating_add(settings.idle_timeout),
        Some(ProxyCount::IdleTimeout),
        Cause::ClientTimeout,
    )
}

fn relaying(conn: &Conn, settings: &Settings) -> (u64, Option<ProxyCount>, Cause) {
    let mut first = idle(conn, settings);
    if let Some(limit) = settings.first_byte_timeout
        && conn.silent()
    {
        let by = conn.begun().saturating_add(limit);
        if by < first.0 {
            first = (by, Some(ProxyCount::FirstByteTimeout), Cause::ClientTimeout);
        }
    }
    if conn.half_closed() {
        let by = conn.active.saturating_add(settings.half_close_timeout);
        if by < first.0 {
            let cause = if conn.up.ended() {
                Cause::ServerTimeout
            } else {
                Cause::ClientTimeout
            };
            first = (by, Some(ProxyCount::HalfCloseTimeout), cause);
        }
    }
    first
}
