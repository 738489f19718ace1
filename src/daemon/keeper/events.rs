//! The record of what happened: kept here, where it survives the proxy, and told to each proxy
//! process, which answers for it.

use std::net::IpAddr;
use std::time::{Instant, UNIX_EPOCH};

use super::{Keeper, cause};
use crate::config::model::Vip;
use crate::ipc::event::{Event, EventKind, Happening, Ring};
use crate::ipc::message::{RouteStatus, ToProxy, VipStatus, VrrpState};
use crate::net::clock;
use crate::net::link::Mac;

/// Events kept.
const EVENTS_MAX: usize = 512;
/// Events in one message, one message in a turn of the loop.
const BATCH_MAX: usize = 32;
/// Characters kept of a text that comes from outside.
const TEXT_MAX: usize = 200;
/// The same of a cause, which is put together of several.
const CAUSE_MAX: usize = 500;

/// The record, and how far the present proxy knows it.
#[derive(Debug)]
pub(super) struct Record {
    ring: Ring,
    next: u64,
    /// The proxy that was told last, and the place of the first event it doesn't know.
    proxy: Option<i32>,
    untold: u64,
    /// Which routes were announced when that was noted last.
    announced: Vec<bool>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            ring: Ring::new(EVENTS_MAX),
            next: wall_ms(),
            proxy: None,
            untold: 0,
            announced: Vec::new(),
        }
    }

    /// All that is kept, and the next number.
    pub(super) fn all(&self) -> (Vec<Event>, u64) {
        let kept = self.ring.from(0).map(|(_, event)| event.clone());
        (kept.collect(), self.next)
    }

    /// Goes on where an earlier program of this process was.
    pub(super) fn restore(&mut self, events: &[Event], next: u64) {
        for event in events {
            self.ring.push(event.clone());
        }
        self.next = self.next.max(next);
    }

    /// The routes have other positions: what was noted of them.
    pub(super) fn carry_routes(&mut self, announced: Vec<bool>) {
        self.announced = announced;
    }

    /// What a proxy doesn't know yet, in portions.
    fn portion(&mut self, proxy: Option<i32>) -> Vec<Event> {
        if self.proxy != proxy {
            self.proxy = proxy;
            self.untold = 0;
        }
        let mut portion = Vec::new();
        for (place, event) in self.ring.from(self.untold).take(BATCH_MAX) {
            portion.push(event.clone());
            self.untold = place + 1;
        }
        if portion.is_empty() {
            self.untold = self.ring.end();
        }
        portion
    }
}

fn wall_ms() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Keeper {
    /// Writes an event down: about which virtual router and what else, from where to where, why.
    /// Its number.
    pub(super) fn record(
        &mut self,
        kind: EventKind,
        about: (Option<&str>, Option<&str>),
        change: Option<(&str, &str)>,
        reason: &str,
    ) -> u64 {
        self.record_caused(kind, about, change, (reason, None))
    }

    /// The same, with what led to it.
    pub(super) fn record_caused(
        &mut self,
        kind: EventKind,
        (vip, subject): (Option<&str>, Option<&str>),
        change: Option<(&str, &str)>,
        (reason, cause): (&str, Option<String>),
    ) -> u64 {
        let bounded = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
        let seq = self.record.next;
        self.record.next += 1;
        self.record.ring.push(Event {
            seq,
            at_ms: wall_ms(),
            kind,
            vip: vip.map(str::to_owned),
            subject: subject.map(bounded),
            from: change.map(|(from, _)| bounded(from)),
            to: change.map(|(_, to)| bounded(to)),
            reason: bounded(reason),
            cause: cause.map(|cause| cause.chars().take(CAUSE_MAX).collect()),
        });
        seq
    }

    /// What led to a move of the router of this name.
    pub(super) fn cause_of_move(
        &self,
        vip: &str,
        reason: &str,
        status: Option<&VipStatus>,
    ) -> Option<String> {
        cause::of_move(&self.record.ring, wall_ms(), vip, (reason, status))
    }

    /// What led to the verdict of a track.
    pub(super) fn cause_of_track(&self, track: &str) -> Option<String> {
        cause::of_track(&self.record.ring, wall_ms(), track)
    }

    /// Another host answers for an address of a router.
    pub(super) fn note_conflict(&mut self, router: usize, address: IpAddr, mac: [u8; 6]) {
        let owner = |vip: &&Vip| vip.addresses.iter().any(|own| own.ip == address);
        let members = self.routers.members(router).iter();
        let mut vips = members.filter_map(|vip| self.args.config.vips.get(*vip));
        let vip = vips.find(owner).map(|vip| vip.name.clone());
        let reason = format!("{address} is answered for by {} too", Mac(mac));
        self.record(EventKind::Conflict, (vip.as_deref(), None), None, &reason);
    }

    /// What a failover by command came to.
    pub(super) fn note_failover(&mut self, router: usize, taken: bool) {
        let reason = if taken {
            "another node has taken over"
        } else {
            "no other node took over"
        };
        for vip in self.routers.members(router).to_vec() {
            let vip = self.args.config.vips.get(vip).map(|vip| vip.name.clone());
            self.record(EventKind::Failover, (vip.as_deref(), None), None, reason);
        }
    }

    /// Something happened in the proxy process, as it tells.
    pub(super) fn note_happening(&mut self, event: &Happening) {
        let about = (None, event.subject.as_deref());
        let change = event.from.as_deref().zip(event.to.as_deref());
        self.record(event.kind, about, change, &event.reason);
    }

    /// Makes events of the routes that were announced or withdrawn.
    pub(super) fn note_routes(&mut self, routes: &[RouteStatus]) {
        self.record.announced.resize(routes.len(), false);
        for (index, route) in routes.iter().enumerate() {
            let Some(noted) = self.record.announced.get_mut(index) else {
                return;
            };
            if std::mem::replace(noted, route.announced) == route.announced {
                continue;
            }
            let change = if route.announced {
                ("withdrawn", "announced")
            } else {
                ("announced", "withdrawn")
            };
            let about = (Some(route.name.as_str()), None);
            self.record(EventKind::State, about, Some(change), &route.reason);
        }
    }

    /// Tells the proxy what it doesn't know yet, if it reads; the rest another time.
    pub(super) fn tell_events(&mut self, now: Instant) {
        if !self.proxy_reads() || self.record.is_told(self.proxies.pid()) {
            return;
        }
        let portion = self.record.portion(self.proxies.pid());
        if !portion.is_empty() {
            self.tell_proxy(now, &ToProxy::Events(portion));
        }
    }
}

/// A state in one plain word.
pub(super) const fn plain(state: VrrpState) -> &'static str {
    match state {
        VrrpState::Initialize => "initialize",
        VrrpState::Backup => "backup",
        VrrpState::Active => "active",
        VrrpState::Leaving => "leaving",
    }
}

impl Record {
    fn is_told(&self, proxy: Option<i32>) -> bool {
        self.proxy == proxy && self.untold >= self.ring.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(events: u64) -> Record {
        let mut record = Record::new();
        record.next = 1_000;
        for seq in 1_000..1_000 + events {
            record.ring.push(Event {
                seq,
                at_ms: 0,
                kind: EventKind::Keeper,
                vip: None,
                subject: None,
                from: None,
                to: None,
                reason: String::new(),
                cause: None,
            });
            record.next = seq + 1;
        }
        record
    }

    fn told(record: &mut Record, proxy: i32) -> Vec<u64> {
        let mut told = Vec::new();
        while !record.is_told(Some(proxy)) {
            let portion = record.portion(Some(proxy));
            assert!((1..=32).contains(&portion.len()));
            told.extend(portion.iter().map(|event| event.seq));
        }
        told
    }

    #[test]
    fn every_proxy_is_told_everything_that_is_kept_in_order_and_once() {
        let mut record = record(100);
        assert_eq!(told(&mut record, 7), (1_000..1_100).collect::<Vec<_>>());
        assert_eq!(told(&mut record, 7), [0; 0]);
        assert_eq!(told(&mut record, 8), (1_000..1_100).collect::<Vec<_>>());
    }

    #[test]
    fn the_oldest_go_first() {
        let mut record = record(600);
        let told = told(&mut record, 7);
        assert_eq!((told.len(), told[0], told[511]), (512, 1_088, 1_599));
    }
}
