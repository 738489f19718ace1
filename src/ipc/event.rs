//! What happened on this node, as users read it: the keeper's record, kept for a while, handed to
//! each proxy process and from there to whoever asks. Pure.
//!
//! Events travel as postcard: new kinds are added at the end.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One entry of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event, also from one keeper to the next as long as the wall clock does.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    /// What kind of thing happened.
    pub kind: EventKind,
    /// The virtual router it happened to.
    pub vip: Option<String>,
    /// What else it is about: a track, a process, a server as `PROXY/SERVER`.
    pub subject: Option<String>,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
    /// Why, in a few words.
    pub reason: String,
    /// What led to it, as far as this node knows: the nodes, tracks and servers behind a move.
    pub cause: Option<String>,
}

/// An event that the proxy process tells the keeper of, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// What kind of thing happened.
    pub kind: EventKind,
    /// What it is about: a proxy, or `PROXY/SERVER`.
    pub subject: Option<String>,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
    /// Why, in a few words.
    pub reason: String,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The keeper began or is about to end.
    Keeper,
    /// A virtual router changed its state; a hand-off is one to `leaving`.
    State,
    /// Another host answers for an address that this node holds.
    Conflict,
    /// A failover by command has ended.
    Failover,
    /// Another node says that it doesn't hear this one's adverts, or hears them again.
    Peer,
    /// A track of a virtual router changed its verdict.
    Track,
    /// A proxy process started, hung, recovered or ended.
    Proxy,
    /// An operator changed a server.
    Server,
    /// The process that runs programs ended.
    Runner,
    /// A notify program failed.
    Notify,
    /// Another configuration took effect, or was refused.
    Reload,
    /// A server's check changed its verdict.
    Health,
    /// A server was held back, or used again, for what clients met on it.
    Ejection,
    /// A limit or a resource of the machine was reached, or left again.
    Limit,
    /// Servers were discovered, or no longer.
    Discovery,
    /// The log level was changed at run time, or lines of a log were lost.
    Log,
}

impl EventKind {
    /// All of them, in the order of the declaration.
    pub const ALL: [Self; 16] = [
        Self::Keeper,
        Self::State,
        Self::Conflict,
        Self::Failover,
        Self::Peer,
        Self::Track,
        Self::Proxy,
        Self::Server,
        Self::Runner,
        Self::Notify,
        Self::Reload,
        Self::Health,
        Self::Ejection,
        Self::Limit,
        Self::Discovery,
        Self::Log,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::State => "state",
            Self::Conflict => "conflict",
            Self::Failover => "failover",
            Self::Peer => "peer",
            Self::Track => "track",
            Self::Proxy => "proxy",
            Self::Server => "server",
            Self::Runner => "runner",
            Self::Notify => "notify",
            Self::Health => "health",
            Self::Ejection => "ejection",
            Self::Limit => "limit",
            Self::Discovery => "discovery",
            Self::Reload => "reload",
            Self::Log => "log",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which events somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Not before this, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Of these kinds; none: of all.
    pub kinds: Vec<EventKind>,
}

impl Wanted {
    /// Whether an event is asked for.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.since_ms.is_none_or(|since| event.at_ms >= since)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

/// The last events, bounded and fair: when it is full, the oldest event of the kind that has the
/// most gives way. So servers that flap push out news of servers, never the moves of an address.
#[derive(Debug)]
pub struct Ring {
    kept: VecDeque<(u64, Event)>,
    of_kind: [usize; EventKind::ALL.len()],
    most: usize,
    next: u64,
}

impl Ring {
    /// An empty one for so many events.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            kept: VecDeque::with_capacity(most),
            of_kind: [0; EventKind::ALL.len()],
            most: most.max(1),
            next: 0,
        }
    }

    /// Adds an event; its place is one more than that of the last.
    pub fn push(&mut self, event: Event) {
        if self.kept.len() >= self.most {
            self.make_room();
        }
        if let Some(count) = self.of_kind.get_mut(event.kind as usize) {
            *count += 1;
        }
        self.kept.push_back((self.next, event));
        self.next += 1;
    }

    fn make_room(&mut self) {
        let most = self.of_kind.iter().max().copied();
        let is_of_most = |event: &Event| self.of_kind.get(event.kind as usize).copied() == most;
        let victim = self.kept.iter().position(|(_, event)| is_of_most(event));
        if let Some((_, gone)) = victim.and_then(|at| self.kept.remove(at))
            && let Some(count) = self.of_kind.get_mut(gone.kind as usize)
        {
            *count -= 1;
        }
    }

    /// The place of the next event.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.next
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The events from a place on, each with its place, oldest first.
    pub fn from(&self, place: u64) -> impl DoubleEndedIterator<Item = (u64, &Event)> {
        let skipped = self.kept.partition_point(|(at, _)| *at < place);
        let kept = self.kept.range(skipped..);
        kept.map(|(at, event)| (*at, event))
    }

    /// The last `count` of the events that are asked for, oldest first.
    #[must_use]
    pub fn last(&self, count: usize, wanted: &Wanted) -> Vec<Event> {
        let all = self.kept.iter().rev().map(|(_, event)| event);
        let found = all.filter(|event| wanted.matches(event)).take(count);
        let mut found: Vec<Event> = found.cloned().collect();
        found.reverse();
        found
    }

    /// Whether this very event is kept.
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        self.kept.iter().rev().any(|(_, kept)| kept == event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        Event {
            seq,
            at_ms: seq * 1_000,
            kind,
            vip: None,
            subject: None,
            from: None,
            to: None,
            reason: String::new(),
            cause: None,
        }
    }

    fn numbers(ring: &Ring, kind: EventKind) -> Vec<u64> {
        let of_kind = ring.from(0).filter(|(_, event)| event.kind == kind);
        of_kind.map(|(_, event)| event.seq).collect()
    }

    #[test]
    fn a_flapping_server_pushes_out_no_move_of_an_address() {
        let mut ring = Ring::new(16);
        for seq in 0..4 {
            ring.push(event(seq, EventKind::State));
        }
        for seq in 4..1_000 {
            ring.push(event(seq, EventKind::Health));
        }
        assert_eq!(ring.len(), 16);
        assert_eq!(numbers(&ring, EventKind::State), [0, 1, 2, 3]);
        assert_eq!(
            numbers(&ring, EventKind::Health),
            (988..1_000).collect::<Vec<_>>()
        );
    }

    #[test]
    fn of_the_kind_that_has_the_most_the_oldest_gives_way() {
        let mut ring = Ring::new(4);
        ring.push(event(0, EventKind::Health));
        ring.push(event(1, EventKind::State));
        ring.push(event(2, EventKind::State));
        ring.push(event(3, EventKind::State));
        ring.push(event(4, EventKind::Health));
        let left: Vec<u64> = ring.from(0).map(|(_, event)| event.seq).collect();
        assert_eq!(left, [0, 2, 3, 4]);
    }

    #[test]
    fn places_go_on_when_events_give_way() {
        let mut ring = Ring::new(2);
        for seq in 10..15 {
            ring.push(event(seq, EventKind::Track));
        }
        assert_eq!(ring.end(), 5);
        let places: Vec<(u64, u64)> = ring.from(0).map(|(at, e)| (at, e.seq)).collect();
        assert_eq!(places, [(3, 13), (4, 14)]);
        assert_eq!(ring.from(4).count(), 1);
        assert_eq!(ring.from(5).count(), 0);
    }

    #[test]
    fn what_is_asked_for_is_counted_not_what_lies_between() {
        let mut ring = Ring::new(100);
        for seq in 0..20 {
            let kind = if seq % 5 == 0 {
                EventKind::State
            } else {
                EventKind::Health
            };
            ring.push(event(seq, kind));
        }
        let wanted = |since_ms, kinds: &[EventKind]| Wanted {
            since_ms,
            kinds: kinds.to_vec(),
        };
        let numbers = |count, wanted: &Wanted| -> Vec<u64> {
            let found = ring.last(count, wanted);
            found.iter().map(|event| event.seq).collect()
        };
        assert_eq!(numbers(2, &wanted(None, &[EventKind::State])), [10, 15]);
        assert_eq!(
            numbers(9, &wanted(Some(10_000), &[EventKind::State])),
            [10, 15]
        );
        assert_eq!(numbers(3, &wanted(None, &[])), [17, 18, 19]);
        assert_eq!(numbers(9, &wanted(Some(18_000), &[])), [18, 19]);
    }

    #[test]
    fn every_kind_is_found_by_its_name_and_at_its_place() {
        for (at, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert_eq!(EventKind::named(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::named("weather"), None);
    }
}
