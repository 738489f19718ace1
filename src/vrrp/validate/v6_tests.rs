//! Every reason an IPv6 packet is refused for, and what is tolerated.
#![expect(clippy::indexing_slicing, reason = "a test may stop where it stands")]

use std::time::Duration;

use super::*;
use crate::config::load;
use crate::config::local::{HostFacts, InterfaceFacts, resolve};

const VIP: [u8; 16] = [0xfd, 0, 0, 0x16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules() -> Rules {
    Rules {
        version: Version::V3,
        vrid: Vrid::try_from(60).unwrap(),
        interval: AdvertInterval::new(Version::V3, Duration::from_millis(100)).unwrap(),
        auth: Auth::None,
        mode: Mode::Unicast,
        me: ip("fd00:16::2"),
        peers: vec![Peer {
            address: ip("fd00:16::3"),
            min_ttl: 255,
        }],
        addresses: OwnAddresses::V6(vec![VIP]),
    }
}

fn advert(rules: &Rules) -> Advertisement<'_> {
    Advertisement {
        version: Version::V3,
        vrid: rules.vrid,
        priority: 110,
        interval: rules.interval,
        addresses: rules.addresses.as_wire(),
        auth: WireAuth::None,
    }
}

/// The verdict on an advert from there to there, whose checksum is right.
fn judge(
    rules: &Rules,
    advert: &Advertisement<'_>,
    [source, destination]: [&str; 2],
    ttl: u8,
) -> Result<Accepted, Reject> {
    let (source, destination) = (ip(source), ip(destination));
    let mut payload = Vec::new();
    advert.encode(source, destination, &mut payload).unwrap();
    let datagram = Datagram {
        source,
        destination,
        ttl,
        payload: &payload,
    };
    rules.judge(datagram, None)
}

const USUAL: [&str; 2] = ["fd00:16::3", "fd00:16::2"];

#[test]
fn an_advert_of_a_peer_is_accepted() {
    let rules = rules();
    assert_eq!(
        judge(&rules, &advert(&rules), USUAL, 255),
        Ok(Accepted {
            sender: ip("fd00:16::3"),
            peer: 0,
            priority: 110,
            interval: rules.interval,
            interval_as_sent: true,
            same_addresses: true,
        })
    );
}

#[test]
fn who_sends_where_and_from_how_far_is_checked_first() {
    let rules = rules();
    for (ends, ttl, reason) in [
        (["fd00:16::99", "fd00:16::2"], 255, Reject::UnknownSender),
        (["fe80::3", "fd00:16::2"], 255, Reject::UnknownSender),
        (["fd00:16::2", "fd00:16::2"], 255, Reject::OwnAddress),
        (["fd00:16::3", "ff02::12"], 255, Reject::Destination),
        (["fd00:16::3", "fe80::2"], 255, Reject::Destination),
        (USUAL, 254, Reject::Ttl),
        (USUAL, 64, Reject::Ttl),
        (USUAL, 0, Reject::Ttl),
    ] {
        let verdict = judge(&rules, &advert(&rules), ends, ttl);
        assert_eq!(verdict, Err(reason), "{ends:?} {ttl}");
    }
}

#[test]
fn min_ttl_is_per_node_and_for_unicast_only() {
    let mut rules = rules();
    rules.peers[0].min_ttl = 64;
    let plain = rules.clone();
    let sent = advert(&plain);
    assert!(judge(&rules, &sent, USUAL, 64).is_ok());
    assert_eq!(judge(&rules, &sent, USUAL, 63), Err(Reject::Ttl));
    rules.mode = Mode::Multicast;
    rules.me = ip("fe80::2");
    rules.peers[0].address = ip("fe80::3");
    let group = ["fe80::3", "ff02::12"];
    assert_eq!(judge(&rules, &sent, group, 254), Err(Reject::Ttl));
    assert!(judge(&rules, &sent, group, 255).is_ok());
    let direct = ["fe80::3", "fe80::2"];
    assert_eq!(judge(&rules, &sent, direct, 255), Err(Reject::Destination));
}

#[test]
fn each_malformed_field_has_its_own_reason() {
    let rules = rules();
    let (source, destination) = (ip(USUAL[0]), ip(USUAL[1]));
    let mut good = Vec::new();
    advert(&rules)
        .encode(source, destination, &mut good)
        .unwrap();
    let with = |place: usize, value: u8| {
        let mut bad = good.clone();
        // The sum stays right: what one byte gains its neighbour's place in the checksum loses.
        let by = i32::from(value) - i32::from(bad[place]);
        bad[place] = value;
        let shift = if place.is_multiple_of(2) { 256 } else { 1 };
        let sum = i32::from(u16::from_be_bytes([bad[6], bad[7]])) - by * shift;
        let sum = u16::try_from(sum.rem_euclid(0xffff)).unwrap();
        bad[6..8].copy_from_slice(&sum.to_be_bytes());
        bad
    };
    let longer = [good.as_slice(), &[0]].concat();
    let mut spoiled = good.clone();
    spoiled[6] ^= 1;
    for (payload, reason) in [
        (Vec::new(), Reject::Truncated),
        (good[..7].to_vec(), Reject::Truncated),
        (good[..23].to_vec(), Reject::Length),
        (longer, Reject::Length),
        (with(0, 0x21), Reject::Version),
        (with(0, 0x41), Reject::Version),
        (with(0, 0x32), Reject::Type),
        (with(1, 0), Reject::Vrid),
        (with(1, 61), Reject::Vrid),
        (with(3, 2), Reject::Length),
        (with(3, 0), Reject::Length),
        (with(5, 0), Reject::Interval),
        (spoiled, Reject::Checksum),
    ] {
        let datagram = Datagram {
            source,
            destination,
            ttl: 255,
            payload: &payload,
        };
        assert_eq!(rules.judge(datagram, None), Err(reason), "{payload:02x?}");
    }
}

#[test]
fn an_advert_without_addresses_is_refused() {
    // Pseudo-header fd00+16+3 + fd00+16+2 + 70 + 8, message 313c+6e00+000a.
    let payload = [0x31, 0x3c, 0x6e, 0, 0, 0x0a, 0x66, 0x0e];
    let datagram = Datagram {
        source: ip(USUAL[0]),
        destination: ip(USUAL[1]),
        ttl: 255,
        payload: &payload,
    };
    assert_eq!(rules().judge(datagram, None), Err(Reject::NoAddress));
}

#[test]
fn another_list_of_addresses_is_told_and_accepted() {
    let mut rules = rules();
    let other = [0xfe; 16];
    rules.addresses = OwnAddresses::V6(vec![VIP, other]);
    let lists: [&[[u8; 16]]; 3] = [&[VIP], &[VIP, [1; 16]], &[other, VIP]];
    let verdicts = lists.map(|list| {
        let mut sent = advert(&rules);
        sent.addresses = Addresses::V6(list);
        judge(&rules, &sent, USUAL, 255).unwrap().same_addresses
    });
    assert_eq!(verdicts, [false, false, true]);
}

#[test]
fn rules_are_of_one_family() {
    let text = "[vip.v]\naddress = \"fd00:16::10/64\"\nvrid = 60\nnodes = [\"fd00:16::2\", \"fd00:16::3\"]\n";
    let config = load(text).unwrap();
    let facts = HostFacts {
        interfaces: vec![InterfaceFacts {
            name: "eth0".into(),
            index: 2,
            up: true,
            addresses: vec![VipAddress {
                ip: ip("fd00:16::2"),
                prefix: 64,
            }],
        }],
    };
    let local = resolve(&config, &facts, None).unwrap().remove(0);
    let made = Rules::new(&local).unwrap();
    assert_eq!(made.addresses, OwnAddresses::V6(vec![VIP]));
    assert_eq!(made.group(), ip("ff02::12"));
    let mut mixed = local.clone();
    mixed.vip.addresses[0].ip = ip("172.16.0.10");
    assert_eq!(Rules::new(&mixed), Err(MixedFamilies));
    mixed = local;
    mixed.vip.nodes[1].address = ip("172.16.0.3");
    assert_eq!(Rules::new(&mixed), Err(MixedFamilies));
}
