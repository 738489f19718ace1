//! A proxy's configuration as the data path wants it, and how long it has patience with a
//! connection. No system calls here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::conn::{Conn, State};
use super::counters::{ProxyCount, WorkerCounters};
use super::farm::Farm;
use super::termination::Cause;
use crate::net::tcp;

/// A proxy's configuration as the data path wants it. Durations are microseconds.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) farm: Arc<Farm>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) options: tcp::Options,
    pub(super) client_first: bool,
    pub(super) retries: u8,
    pub(super) connect_timeout: u64,
    pub(super) idle_timeout: u64,
    pub(super) half_close_timeout: u64,
    pub(super) queue_timeout: u64,
    pub(super) first_byte_timeout: Option<u64>,
}

impl Settings {
    pub(super) fn new(farm: &Arc<Farm>, counters: Arc<WorkerCounters>) -> Self {
        let config = farm.config();
        Self {
            farm: Arc::clone(farm),
            counters,
            addresses: config.servers.iter().map(|s| s.address).collect(),
            options: tcp::Options {
                keepalive: config.keepalive,
                user_timeout: config.user_timeout,
            },
            client_first: config.client_first,
            retries: config.retries,
            connect_timeout: micros(config.connect_timeout),
            idle_timeout: micros(config.idle_timeout),
            half_close_timeout: micros(config.half_close_timeout),
            queue_timeout: micros(config.queue_timeout),
            first_byte_timeout: config
                .first_byte_timeout
                .filter(|_| config.client_first)
                .map(micros),
        }
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// When the connection's patience ends, what that counts as, and whom it waited for.
pub(super) fn deadline(conn: &Conn, settings: &Settings) -> (u64, Option<ProxyCount>, Cause) {
    match conn.state {
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
            if conn.client_side.broken {
                Cause::Client
            } else {
                Cause::Server
            },
        ),
        State::Relaying => relaying(conn, settings),
        State::Dead => (u64::MAX, None, Cause::Normal),
    }
}

fn relaying(conn: &Conn, settings: &Settings) -> (u64, Option<ProxyCount>, Cause) {
    let idle = (
        conn.active.saturating_add(settings.idle_timeout),
        Some(ProxyCount::IdleTimeout),
        Cause::ClientTimeout,
    );
    let first_byte = settings
        .first_byte_timeout
        .filter(|_| conn.silent())
        .map(|limit| {
            (
                conn.accepted.saturating_add(limit),
                Some(ProxyCount::FirstByteTimeout),
                Cause::ClientTimeout,
            )
        });
    let half_close = conn.half_closed().then(|| {
        (
            conn.active.saturating_add(settings.half_close_timeout),
            Some(ProxyCount::HalfCloseTimeout),
            if conn.up.ended {
                Cause::ServerTimeout
            } else {
                Cause::ClientTimeout
            },
        )
    });
    [first_byte, half_close]
        .into_iter()
        .flatten()
        .fold(
            idle,
            |first, other| if other.0 < first.0 { other } else { first },
        )
}
