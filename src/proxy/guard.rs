//! Whether a client may connect, judged by its address once that is known: after the PROXY header
//! where one is expected. Who may not gets RST. A proxy without such rules has no guard, and its
//! connections pay one look at that.

use std::time::{Duration, Instant};

use super::acl::AddressSet;
use super::counters::ProxyCount;
use super::ending::Leave;
use super::sources::Excess;
use super::termination::{Cause, Phase, Termination};
use super::worker::Worker;
use crate::config::model;
use crate::log::spacing;

/// At most one line about refused clients in this time, for each worker and proxy.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The rules of a proxy.
#[derive(Debug)]
pub(super) struct Guard {
    /// `None`: anybody.
    allow: Option<AddressSet>,
    deny: AddressSet,
    /// Whether sources are counted.
    per_source: bool,
    /// When a refused client was last logged.
    said: Option<Instant>,
}

/// Why a client may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("its network is denied")]
    Denied,
    #[error("its network is not allowed")]
    NotAllowed,
    #[error("its source has as many connections as it may")]
    Connections,
    #[error("its source's connections come too fast")]
    Rate,
}

impl Refused {
    const fn count(self) -> ProxyCount {
        match self {
            Self::Denied | Self::NotAllowed => ProxyCount::Denied,
            Self::Connections => ProxyCount::SourceConnections,
            Self::Rate => ProxyCount::SourceRate,
        }
    }
}

impl Guard {
    /// `None`: the file has no rules.
    pub(super) fn new(config: &model::Guard) -> Option<Box<Self>> {
        if *config == model::Guard::default() {
            return None;
        }
        Some(Box::new(Self {
            allow: (!config.allow.is_empty()).then(|| AddressSet::new(&config.allow)),
            deny: AddressSet::new(&config.deny),
            per_source: config.per_source.is_some(),
            said: None,
        }))
    }

    /// Takes the place of `before`.
    pub(super) const fn follow(&mut self, before: &Self) {
        self.said = before.said;
    }
}

impl Worker {
    /// Whether the connection's client may go on to a server; if not, the connection has ended.
    pub(super) fn lets_in(&mut self, slot: u32) -> bool {
        let Some((_, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        settings.guard.is_none() || self.judge(slot)
    }

    fn judge(&mut self, slot: u32) -> bool {
        let now = self.shared.started + Duration::from_micros(self.now);
        let Some((conn, settings)) = self.conn_and_settings(slot) else {
            return false;
        };
        let Some(guard) = settings.guard.as_ref() else {
            return true;
        };
        let client = conn.client_addr();
        let ip = client.ip();
        let proxy = usize::from(conn.proxy);
        let refused = if guard.deny.contains(ip) {
            Some(Refused::Denied)
        } else if guard
            .allow
            .as_ref()
            .is_some_and(|allow| !allow.contains(ip))
        {
            Some(Refused::NotAllowed)
        } else if let Some(sources) = settings.farm.sources().filter(|_| guard.per_source) {
            match sources.enter(ip, now) {
                Ok(()) => {
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.counted = true;
                    }
                    None
                }
                Err(Excess::Connections) => Some(Refused::Connections),
                Err(Excess::Rate) => Some(Refused::Rate),
            }
        } else {
            None
        };
        let Some(why) = refused else {
            return true;
        };
        if let Some(settings) = self.proxies.get_mut(proxy) {
            settings.counters.add(why.count(), 1);
            let name = settings.farm.name();
            let mut guard = settings.guard.as_mut();
            if guard
                .as_mut()
                .is_some_and(|guard| spacing::is_due(&mut guard.said, SAY_EVERY, now))
            {
                tracing::warn!(proxy = name, %client, reason = %why, "client refused");
            } else {
                tracing::debug!(proxy = name, %client, reason = %why, "client refused");
            }
        }
        let end = Termination::new(Cause::Proxy, Phase::Header);
        self.end(slot, end, Leave::Reset);
        false
    }
}
