//! Limits that are reached and left again, and lines of logs that were lost: looked for once a
//! second, said once at the beginning and once at the end, however often a client met them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::report::Shared;
use crate::log;
use crate::log::spacing::is_due;
use crate::proxy::counters::ProxyTotals;
use crate::proxy::farm::FarmStats;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A limit that nobody met for so long is left.
const QUIET: Duration = Duration::from_secs(10);
/// Between two words about lines that were lost.
const SAY_LOST_EVERY: Duration = Duration::from_secs(60);

/// What can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    Process,
    Proxy,
    Server,
    Queue,
    QueueTime,
    Source,
}

impl Limit {
    /// The key that sets it.
    const fn key(self) -> &'static str {
        match self {
            Self::Process => "limits.max-connections",
            Self::Proxy | Self::Server => "max-connections",
            Self::Queue => "max-queue",
            Self::QueueTime => "queue-timeout",
            Self::Source => "per-source",
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Process | Self::Proxy => "clients wait in the kernel's backlog",
            Self::Server => "clients wait in the queue for it",
            Self::Queue => "the queue is full, clients are turned away",
            Self::QueueTime => "clients wait too long for a server, and are turned away",
            Self::Source => "clients that want more than one source may are turned away",
        }
    }
}

/// Who has it: names of proxy and server.
type Owner = (Option<String>, Option<String>);

/// What a look has to say.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Reached,
    /// After how long, and how many clients had met it.
    Left(Duration, u64),
}

/// A time in which a limit is met again and again.
#[derive(Debug, Default)]
struct Episode {
    /// When it began, and when the limit was met last.
    span: Option<(Instant, Instant)>,
    count: u64,
}

impl Episode {
    /// It was met so often since the last look; 0: not at all.
    fn look(&mut self, met: u64, now: Instant) -> Option<Word> {
        match (&mut self.span, met) {
            (None, 0) => None,
            (None, _) => {
                self.span = Some((now, now));
                self.count = met;
                Some(Word::Reached)
            }
            (Some((_, last)), 1..) => {
                *last = now;
                self.count = self.count.saturating_add(met);
                None
            }
            (Some((began, last)), 0) => {
                let (began, last) = (*began, *last);
                let quiet = now.saturating_duration_since(last) >= QUIET;
                quiet.then(|| {
                    self.span = None;
                    Word::Left(last.saturating_duration_since(began), self.count)
                })
            }
        }
    }
}

/// What was met of late.
#[derive(Debug, Default)]
pub(super) struct Occasions {
    looked: Option<Instant>,
    episodes: BTreeMap<(Owner, Limit), Episode>,
    totals: BTreeMap<String, ProxyTotals>,
    lost: Lost,
    lost_access: Lost,
}

/// Lines that were lost.
#[derive(Debug, Default)]
struct Lost {
    said: Option<Instant>,
    counted: u64,
}

impl Lost {
    /// How many were lost since that was said last, if it is time to say so.
    fn look(&mut self, lost: u64, now: Instant) -> Option<u64> {
        let more = lost.saturating_sub(self.counted);
        let say = more > 0 && is_due(&mut self.said, SAY_LOST_EVERY, now);
        say.then(|| {
            self.counted = lost;
            more
        })
    }
}

impl Occasions {
    /// Looks, if it is time to.
    pub(super) fn tick(&mut self, shared: &Shared, now: Instant) {
        if !is_due(&mut self.looked, EVERY, now) {
            return;
        }
        if let Some(engine) = shared.engine.get() {
            let full = engine.is_full();
            self.look((None, None), Limit::Process, u64::from(full), now);
        }
        let in_force = shared.in_force();
        for placed in in_force.proxies() {
            self.look_at(&placed.farm.stats(now), now);
        }
        // Of servers and proxies that are gone, too.
        self.episodes.retain(|_, episode| episode.span.is_some());
        if let Some(dropped) = self.lost.look(log::dropped(), now) {
            tracing::warn!(dropped, "log lines dropped");
        }
        if let Some(dropped) = self.lost_access.look(shared.access.dropped(), now) {
            tracing::warn!(dropped, "access log lines dropped");
        }
    }

    fn look_at(&mut self, stats: &FarmStats, now: Instant) {
        let before = self.totals.insert(stats.name.clone(), stats.totals);
        let met = stats.totals.since(&before.unwrap_or_default());
        let owner = || (Some(stats.name.clone()), None);
        let full = |now: u32, limit: Option<u32>| limit.is_some_and(|limit| now >= limit);
        let process = (None, None);
        let process_full = self.episodes.contains_key(&(process, Limit::Process));
        let rested = met.limit_reached > 0 && stats.connections_limit.is_some() && !process_full;
        let at_limit = rested || full(stats.connections, stats.connections_limit);
        self.look(owner(), Limit::Proxy, u64::from(at_limit), now);
        self.look(owner(), Limit::Queue, met.queue_full, now);
        let waited = met.queue_timeouts + met.queue_too_slow;
        self.look(owner(), Limit::QueueTime, waited, now);
        let sources = met.source_connections + met.source_rate;
        self.look(owner(), Limit::Source, sources, now);
        let waiting = stats.queue > 0;
        for server in &stats.servers {
            let at_limit = waiting && full(server.connections, server.connections_limit);
            let owner = (Some(stats.name.clone()), Some(server.name.clone()));
            self.look(owner, Limit::Server, u64::from(at_limit), now);
        }
        self.end_gone(stats, now);
    }

    /// Servers that left at their limit are at none.
    fn end_gone(&mut self, stats: &FarmStats, now: Instant) {
        let is_gone = |owner: &Owner| {
            let of_this = owner.0.as_ref() == Some(&stats.name);
            let mut servers = stats.servers.iter();
            let mut is_here = |name: &String| servers.any(|server| server.name == *name);
            of_this && owner.1.as_ref().is_some_and(|name| !is_here(name))
        };
        let keys = self.episodes.keys();
        let gone: Vec<Owner> = keys
            .filter(|(owner, _)| is_gone(owner))
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in gone {
            self.look(owner, Limit::Server, 0, now);
        }
    }

    fn look(&mut self, owner: Owner, limit: Limit, met: u64, now: Instant) {
        let key = (owner, limit);
        if met == 0 && !self.episodes.contains_key(&key) {
            return;
        }
        let (proxy, server) = key.0.clone();
        let word = self.episodes.entry(key).or_default().look(met, now);
        let (proxy, server) = (proxy.as_deref(), server.as_deref());
        let (key, reason) = (limit.key(), limit.reason());
        match word {
            None => {}
            Some(Word::Reached) => {
                tracing::warn!(proxy, server, key, reason, "limit reached");
            }
            Some(Word::Left(elapsed, times)) => {
                let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(proxy, server, key, times, elapsed_ms, "limit left");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    #[test]
    fn a_limit_is_said_once_when_reached_and_once_when_left() {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut episode = Episode::default();
        assert_eq!(episode.look(0, at(0)), None);
        assert_eq!(episode.look(3, at(1)), Some(Word::Reached));
        assert_eq!(episode.look(2, at(2)), None);
        assert_eq!(episode.look(0, at(11)), None);
        assert_eq!(episode.look(1, at(11)), None);
        assert_eq!(episode.look(0, at(20)), None);
        let left = Word::Left(Duration::from_secs(10), 6);
        assert_eq!(episode.look(0, at(21)), Some(left));
        assert_eq!(episode.look(0, at(22)), None);
        assert_eq!(episode.look(1, at(23)), Some(Word::Reached));
    }

    #[test]
    fn lost_lines_are_said_once_a_minute_with_how_many_there_were() {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lost = Lost::default();
        assert_eq!(lost.look(0, at(0)), None);
        assert_eq!(lost.look(5, at(1)), Some(5));
        assert_eq!(lost.look(9, at(30)), None);
        assert_eq!(lost.look(11, at(61)), Some(6));
        assert_eq!(lost.look(11, at(200)), None);
    }

    fn stats(now: Instant) -> FarmStats {
        let text = "[proxy.api]\nlisten = \"127.0.0.1:6443\"\nmax-connections = 10\n\
                    [proxy.api.backends]\na = { address = \"10.0.0.4:6443\", max-connections = 2 }\n";
        let config = crate::config::load(text).unwrap();
        crate::proxy::farm::Farm::new(&config.proxies[0]).stats(now)
    }

    fn met(occasions: &Occasions) -> Vec<Limit> {
        let at = occasions.episodes.iter();
        let at = at.filter(|(_, episode)| episode.span.is_some());
        at.map(|((_, limit), _)| *limit).collect()
    }

    #[test]
    fn a_proxy_that_rests_because_the_process_is_full_is_not_at_its_own_limit() {
        let now = clock::now();
        let mut rested = stats(now);
        rested.totals.limit_reached = 1;
        let mut alone = Occasions::default();
        alone.look_at(&rested, now);
        assert_eq!(met(&alone), [Limit::Proxy]);
        let mut full = Occasions::default();
        full.look((None, None), Limit::Process, 1, now);
        full.look_at(&rested, now);
        assert_eq!(met(&full), [Limit::Process]);
    }

    #[test]
    fn a_server_is_at_its_limit_while_somebody_waits_and_until_it_is_gone() {
        let start = clock::now();
        let mut occasions = Occasions::default();
        let mut busy = stats(start);
        busy.servers[0].connections = 2;
        occasions.look_at(&busy, start);
        assert_eq!(met(&occasions), []);
        busy.queue = 1;
        occasions.look_at(&busy, start);
        assert_eq!(met(&occasions), [Limit::Server]);
        busy.servers.clear();
        occasions.look_at(&busy, start + QUIET);
        assert_eq!(met(&occasions), []);
    }

    #[test]
    fn clients_turned_away_for_a_slow_queue_are_told_as_those_that_waited_too_long() {
        let now = clock::now();
        let mut occasions = Occasions::default();
        let mut slow = stats(now);
        slow.totals.queue_too_slow = 1;
        occasions.look_at(&slow, now);
        assert_eq!(met(&occasions), [Limit::QueueTime]);
    }
}
