//! Refused packets by their senders: which of them deserve a line in the log, and what a line says
//! about the likely cause. Pure.
//!
//! Configured nodes have places of their own. Strangers share a small table and an allowance of
//! lines, so that thousands of them cost as little as one and push no node out.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::packet::Reject;
use crate::log::spacing::is_due;
use crate::units::Vrid;

/// At most one line in this time for each node and reason, and for each stranger.
const SPACING: Duration = Duration::from_secs(60);
/// Strangers that are told apart.
const STRANGERS_MAX: usize = 16;
/// Lines for all strangers together in the time of one.
const LINES_MAX: u32 = 8;

/// The packets of one node that were refused.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    counts: [u64; Reject::ALL.len()],
    said: [Option<Instant>; Reject::ALL.len()],
}

impl Refused {
    /// Counts one; says whether it deserves a line.
    pub fn note(&mut self, reason: Reject, now: Instant) -> bool {
        let place = reason as usize;
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.said
            .get_mut(place)
            .is_some_and(|said| is_due(said, SPACING, now))
    }

    /// By reason; reasons that never happened are left out.
    pub fn counts(&self) -> impl Iterator<Item = (Reject, u64)> + '_ {
        let all = Reject::ALL.into_iter().zip(self.counts);
        all.filter(|(_, count)| *count > 0)
    }
}

#[derive(Debug, Clone, Copy)]
struct Stranger {
    source: Option<IpAddr>,
    said: Option<Instant>,
}

/// Senders that are no configured nodes.
#[derive(Debug, Default)]
pub struct Strangers {
    known: [Option<Stranger>; STRANGERS_MAX],
    since: Option<Instant>,
    lines: u32,
}

impl Strangers {
    /// Whether a refused packet from `source` deserves a line.
    pub fn note(&mut self, source: Option<IpAddr>, now: Instant) -> bool {
        let young = |since: Instant| now.saturating_duration_since(since) < SPACING;
        if !self.since.is_some_and(young) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES_MAX {
            return false;
        }
        let is = |entry: &&mut Option<Stranger>| entry.is_some_and(|known| known.source == source);
        let mut said = match self.known.iter_mut().find(is) {
            Some(Some(known)) => {
                let due = is_due(&mut known.said, SPACING, now);
                self.lines += u32::from(due);
                return due;
            }
            Some(None) | None => None,
        };
        let due = is_due(&mut said, SPACING, now);
        // The one that was named longest ago makes room.
        let oldest = |entry: &&mut Option<Stranger>| entry.and_then(|known| known.said);
        if let Some(place) = self.known.iter_mut().min_by_key(oldest) {
            *place = Some(Stranger { source, said });
        }
        self.lines += u32::from(due);
        due
    }
}

/// What a packet claims, whatever is wrong with it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its `VRID`.
    pub vrid: u8,
    /// Its first virtual address.
    pub address: Option<IpAddr>,
}

/// Reads a claim out of an advert; `source` says of which family its addresses are.
#[must_use]
pub fn claim(source: IpAddr, advert: &[u8]) -> Option<Claim> {
    let vrid = *advert.get(1)?;
    let list = advert.get(8..)?;
    let address = match source {
        IpAddr::V4(_) => list.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        IpAddr::V6(_) => list.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
    };
    Some(Claim { vrid, address })
}

/// The likely cause, and the key of `[vip.NAME]` to look at.
#[must_use]
pub fn cause(
    reason: Reject,
    claim: Option<Claim>,
    vrid: Vrid,
) -> (&'static str, Option<&'static str>) {
    match reason {
        Reject::UnknownSender if claim.is_some_and(|claim| claim.vrid == vrid.get()) => (
            "another virtual router of this LAN has our vrid, or a node is missing from nodes",
            Some("vrid"),
        ),
        Reject::UnknownSender => ("its sender is not among the nodes", Some("nodes")),
        Reject::OwnAddress => (
            "our own advert came back, or another host has this node's address",
            None,
        ),
        Reject::Destination => (
            "one node sends by unicast, the other by multicast",
            Some("mode"),
        ),
        Reject::Ttl => (
            "it crossed a router, or its sender uses another TTL (keepalived: 64 by IPv6 unicast)",
            Some("nodes.min-ttl"),
        ),
        Reject::Version => ("the nodes speak different versions", Some("version")),
        Reject::Vrid => ("the nodes have different vrids", Some("vrid")),
        Reject::AuthType => ("one node authenticates, the other does not", Some("auth")),
        Reject::AuthData => ("the nodes have different passwords", Some("auth")),
        Reject::HmacMissing => ("its sender does not sign", Some("auth")),
        Reject::HmacForm => ("its sender signs in another way", Some("auth")),
        Reject::HmacKey => ("signed with a key that this node lacks", Some("auth.keys")),
        Reject::HmacDigest => (
            "the nodes have different keys, or forged",
            Some("auth.keys"),
        ),
        Reject::HmacClock => (
            "the nodes' clocks are apart, or an old advert came again",
            None,
        ),
        Reject::HmacReplay => ("an advert that was accepted before came again", None),
        Reject::Interval => (
            "the nodes have different intervals, which version 2 forbids",
            Some("advert-interval"),
        ),
        Reject::Checksum => ("damaged on its way, or forged", None),
        Reject::IpHeader
        | Reject::Fragment
        | Reject::Protocol
        | Reject::Truncated
        | Reject::Type
        | Reject::Length
        | Reject::NoAddress => ("no well-formed advert", None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn stranger(number: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from(0x0a00_0000 + number).into())
    }

    #[test]
    fn a_node_is_named_once_a_minute_for_each_reason() {
        let start = crate::net::clock::now();
        let mut refused = Refused::default();
        assert!(refused.note(Reject::Ttl, start));
        assert!(!refused.note(Reject::Ttl, start + Duration::from_secs(59)));
        assert!(refused.note(Reject::Checksum, start));
        assert!(refused.note(Reject::Ttl, start + Duration::from_secs(60)));
        let counts: Vec<_> = refused.counts().collect();
        assert_eq!(counts, [(Reject::Ttl, 3), (Reject::Checksum, 1)]);
    }

    #[test]
    fn thousands_of_strangers_get_eight_lines_a_minute() {
        let start = crate::net::clock::now();
        let mut strangers = Strangers::default();
        let lines = |strangers: &mut Strangers, now| {
            let all = (0..5_000).filter(|number| strangers.note(stranger(*number), now));
            all.count()
        };
        assert_eq!(lines(&mut strangers, start), 8);
        assert_eq!(lines(&mut strangers, start + Duration::from_secs(59)), 0);
        assert_eq!(lines(&mut strangers, start + Duration::from_secs(60)), 8);
    }

    #[test]
    fn one_stranger_is_named_once_a_minute_and_so_is_one_without_an_address() {
        let start = crate::net::clock::now();
        let mut strangers = Strangers::default();
        for source in [stranger(1), stranger(2), None] {
            assert!(strangers.note(source, start));
            assert!(!strangers.note(source, start + Duration::from_secs(59)));
        }
        assert!(strangers.note(stranger(1), start + Duration::from_secs(60)));
    }

    #[test]
    fn a_foreign_router_with_our_vrid_is_told_from_any_other_stranger() {
        // Version 3, priority 100, one address: 172.16.0.99; vrid 60.
        let advert = [0x31, 60, 100, 1, 0, 100, 0, 0, 172, 16, 0, 99];
        let source = IpAddr::from([10, 9, 0, 77]);
        let found = claim(source, &advert);
        let expected = Claim {
            vrid: 60,
            address: Some(IpAddr::from([172, 16, 0, 99])),
        };
        assert_eq!(found, Some(expected));
        let key = |vrid: i64| {
            let vrid = Vrid::try_from(vrid).unwrap();
            cause(Reject::UnknownSender, found, vrid).1
        };
        assert_eq!((key(60), key(61)), (Some("vrid"), Some("nodes")));
        for end in 0..8 {
            assert_eq!(claim(source, &advert[..end]), None, "{end}");
        }
        assert_eq!(claim(source, &advert[..10]).unwrap().address, None);
    }
}
