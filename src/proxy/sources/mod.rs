//! What each source has of a proxy: connections now, and how fast they come. One table for all
//! workers, in parts that each have a lock of their own. Times come in as arguments.
//!
//! The table is bounded: a source is remembered while it has a connection, and of those without
//! one only so many, the longest unseen being forgotten first. A source is an IPv4 address, or the
//! 64 bits of an IPv6 address that one customer has all the rest of.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Serialize, Serializer};

use super::acl::AddressSet;
use super::shares::Column;
use crate::config::model::{PerSource, Rate};

/// Parts of the table.
const PARTS: usize = 16;
/// Sources without a connection that each part remembers: 65,536 in all.
const IDLE_MAX: usize = 4096;
/// Sources that were seen again since they were listed get another round; so many at a time.
const CHANCES: u32 = 4;

/// One source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An IPv4 address.
    V4(u32),
    /// The upper half of an IPv6 address.
    V6(u64),
}

impl Source {
    /// The source that `ip` belongs to.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bits) => Ipv4Addr::from_bits(*bits).fmt(f),
            Self::V6(bits) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
        }
    }
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The source has as many connections as it may.
    Connections,
    /// The source's connections come too fast.
    Rate,
}

/// What is known of a source.
#[derive(Debug, Clone, Default)]
struct Entry {
    connections: u32,
    /// It is in the list of those without a connection, or was when it had none.
    listed: bool,
    /// It came again since it was listed.
    fresh: bool,
    accepted: u64,
    refused: u64,
    /// When the connections it had would have been due at its rate, had they come evenly.
    due: Option<Instant>,
}

/// A part of the table.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part {
    entries: HashMap<Source, Entry>,
    /// Those without a connection, longest unseen first; each at most once.
    idle: VecDeque<Source>,
    /// Counted together with another process, while there is one.
    shared: Option<Arc<Common>>,
}

/// Where connections of a source are counted together with those that other processes have of it.
#[derive(Debug)]
struct Common {
    of: Column,
    proxy: u64,
}

impl Common {
    /// The same in every process.
    fn key(&self, source: Source) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.proxy, source).hash(&mut hasher);
        hasher.finish()
    }
}

/// The sources of one proxy.
#[derive(Debug)]
pub struct Sources {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    rules: ArcSwap<Rules>,
}

/// What one source may take.
#[derive(Debug)]
struct Rules {
    max_connections: u32,
    rate: Option<Rate>,
    exempt: AddressSet,
}

impl Rules {
    fn new(config: &PerSource) -> Self {
        Self {
            max_connections: config.max_connections.map_or(u32::MAX, NonZeroU32::get),
            rate: config.connections_per_second,
            exempt: AddressSet::new(&config.exempt),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A source that stands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Talker {
    /// Who.
    pub source: Source,
    /// Connections now.
    pub connections: u32,
    /// Connections that were let in since it is remembered.
    pub accepted: u64,
    /// Connections that were refused since.
    pub refused: u64,
}

/// The table at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Overview {
    /// Sources that are remembered.
    pub known: usize,
    /// Sources that have a connection.
    pub connected: usize,
    /// Those with most connections and those that came most often, the former first.
    pub top: Vec<Talker>,
}

impl Sources {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(config: &PerSource) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            rules: ArcSwap::from_pointee(Rules::new(config)),
        }
    }

    /// Other rules from here on; what each source has counts on.
    pub fn set_rules(&self, config: &PerSource) {
        self.rules.store(Arc::new(Rules::new(config)));
    }

    /// A connection of `client` begins.
    ///
    /// # Errors
    /// [`Excess`]; it then has cost the source nothing, and is not to be given back.
    pub fn enter(&self, client: IpAddr, now: Instant) -> Result<(), Excess> {
        let source = Source::of(client);
        let rules = self.rules.load();
        let exempt = !rules.exempt.is_empty() && rules.exempt.contains(client);
        let Some(mut part) = self.part(source) else {
            return Ok(());
        };
        let Part {
            entries, shared, ..
        } = &mut *part;
        let entry = entries.entry(source).or_default();
        entry.fresh = entry.listed;
        let most = if exempt {
            u32::MAX
        } else {
            rules.max_connections
        };
        let rate = rules.rate.filter(|_| !exempt);
        let before = entry.due;
        let admitted = if entry.connections >= most {
            Err(Excess::Connections)
        } else {
            let turn = rate.map_or(Ok(()), |rate| entry.take_turn(rate, now));
            turn.and_then(|()| match shared {
                Some(common) if !common.of.enter_source(common.key(source), most) => {
                    entry.due = before;
                    Err(Excess::Connections)
                }
                Some(_) | None => Ok(()),
            })
        };
        match admitted {
            Ok(()) => {
                entry.connections = entry.connections.saturating_add(1);
                entry.accepted += 1;
            }
            Err(_) => entry.refused += 1,
        }
        admitted
    }

    /// A connection of `client` that was let in has ended.
    pub fn leave(&self, client: IpAddr) {
        let source = Source::of(client);
        if let Some(mut part) = self.part(source) {
            part.leave(source);
        }
    }

    /// Another process serves this proxy, too, from here on: what each source has counts in both.
    pub(super) fn share(&self, of: &Column, proxy: &str) {
        let mut hasher = DefaultHasher::new();
        proxy.hash(&mut hasher);
        let common = Arc::new(Common {
            of: of.clone(),
            proxy: hasher.finish(),
        });
        for part in &self.parts {
            let mut part = lock(part);
            if part.shared.is_some() {
                continue;
            }
            for (source, entry) in &part.entries {
                if entry.connections > 0 {
                    of.declare_source(common.key(*source), entry.connections);
                }
            }
            part.shared = Some(Arc::clone(&common));
        }
    }

    /// This process is alone.
    pub(super) fn end_sharing(&self) {
        for part in &self.parts {
            lock(part).shared = None;
        }
    }

    /// The table at a glance, with at most twice `most` talkers.
    #[must_use]
    pub fn overview(&self, most: usize) -> Overview {
        let mut overview = Overview::default();
        let (mut by_connections, mut by_attempts) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let part = lock(part);
            overview.known += part.entries.len();
            for (source, entry) in &part.entries {
                overview.connected += usize::from(entry.connections > 0);
                let talker = || entry.talker(*source);
                keep_top(
                    &mut by_connections,
                    most,
                    (u64::from(entry.connections), talker),
                );
                let attempts = entry.accepted.saturating_add(entry.refused);
                keep_top(&mut by_attempts, most, (attempts, talker));
            }
        }
        for (_, talker) in by_connections.into_iter().chain(by_attempts) {
            if !overview.top.contains(&talker) {
                overview.top.push(talker);
            }
        }
        overview
    }

    fn part(&self, source: Source) -> Option<MutexGuard<'_, Part>> {
        let parts = u64::try_from(self.parts.len()).ok()?;
        let at = self.hasher.hash_one(source).checked_rem(parts)?;
        self.parts.get(usize::try_from(at).ok()?).map(lock)
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the `most` highest, highest first.
fn keep_top(
    top: &mut Vec<(u64, Talker)>,
    most: usize,
    (score, talker): (u64, impl FnOnce() -> Talker),
) {
    if score == 0 || (top.len() >= most && top.last().is_none_or(|(least, _)| *least >= score)) {
        return;
    }
    let at = top.partition_point(|(other, _)| *other >= score);
    top.insert(at, (score, talker()));
    top.truncate(most);
}

impl Entry {
    /// Takes a connection's turn, if the rate has one.
    fn take_turn(&mut self, rate: Rate, now: Instant) -> Result<(), Excess> {
        let gap = Duration::from_secs(1) / rate.per_second.get();
        let ahead = gap * (rate.burst.get() - 1);
        let due = self.due.map_or(now, |due| due.max(now));
        if due.saturating_duration_since(now) > ahead {
            return Err(Excess::Rate);
        }
        self.due = due.checked_add(gap);
        Ok(())
    }

    const fn talker(&self, source: Source) -> Talker {
        Talker {
            source,
            connections: self.connections,
            accepted: self.accepted,
            refused: self.refused,
        }
    }
}

impl Part {
    fn leave(&mut self, source: Source) {
        let Some(entry) = self.entries.get_mut(&source) else {
            return;
        };
        if let Some(common) = self.shared.as_ref().filter(|_| entry.connections > 0) {
            common.of.leave_source(common.key(source));
        }
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections == 0 && !entry.listed {
            entry.listed = true;
            entry.fresh = false;
            self.idle.push_back(source);
            self.forget_some();
        }
    }

    /// Forgets the longest unseen of those without a connection, as far as there are too many.
    fn forget_some(&mut self) {
        let mut chances = CHANCES;
        while self.idle.len() > IDLE_MAX
            && let Some(source) = self.idle.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&source) else {
                continue;
            };
            if entry.connections > 0 {
                entry.listed = false;
            } else if entry.fresh && chances > 0 {
                chances -= 1;
                entry.fresh = false;
                self.idle.push_back(source);
            } else {
                self.entries.remove(&source);
            }
        }
        // What many connections at once took is given back when they have gone.
        let needed = 2 * self.entries.len() + IDLE_MAX;
        if self.entries.capacity() > 4 * needed {
            self.entries.shrink_to(needed);
        }
    }
}

#[cfg(test)]
mod tests;
