//! Every reason a well-formed or malformed packet is refused for, and what is tolerated.
#![expect(clippy::indexing_slicing, reason = "a test may stop where it stands")]

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::config::model::{Hmac, HmacKey, HmacMode, Password, Secret};

const ME: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 3);

fn rules(version: Version, auth: Auth) -> Rules {
    Rules {
        version,
        vrid: Vrid::try_from(60).unwrap(),
        interval: AdvertInterval::new(version, Duration::from_secs(1)).unwrap(),
        auth,
        mode: Mode::Unicast,
        me: ME.into(),
        peers: vec![Peer {
            address: PEER.into(),
            min_ttl: 255,
        }],
        addresses: OwnAddresses::V4(vec![[172, 16, 0, 10]]),
    }
}

fn advert(rules: &Rules) -> Advertisement<'_> {
    Advertisement {
        version: rules.version,
        vrid: rules.vrid,
        priority: 110,
        interval: rules.interval,
        addresses: rules.addresses.as_wire(),
        auth: match &rules.auth {
            Auth::None | Auth::Hmac(_) => WireAuth::None,
            Auth::Pass(password) => WireAuth::Pass(password.0),
        },
    }
}

fn packet(advert: &Advertisement<'_>, source: Ipv4Addr, destination: Ipv4Addr, ttl: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    advert
        .encode(source.into(), destination.into(), &mut payload)
        .unwrap();
    let total = u8::try_from(20 + payload.len()).unwrap();
    let mut all = vec![0x45, 0xc0, 0, total, 0, 1, 0, 0, ttl, 112, 0, 0];
    all.extend(source.octets());
    all.extend(destination.octets());
    all.extend(payload);
    all
}

fn seed() -> Rules {
    rules(Version::V2, Auth::Pass(Password(*b"1111\0\0\0\0")))
}

#[test]
fn an_advert_of_a_peer_is_accepted() {
    for rules in [
        seed(),
        rules(Version::V2, Auth::None),
        rules(Version::V3, Auth::None),
    ] {
        let good = packet(&advert(&rules), PEER, ME, 255);
        assert_eq!(
            rules.accept(&good),
            Ok(Accepted {
                sender: IpAddr::V4(PEER),
                peer: 0,
                priority: 110,
                interval: rules.interval,
                interval_as_sent: true,
                same_addresses: true,
            })
        );
    }
}

#[test]
fn ethernet_padding_after_the_ip_packet_is_tolerated() {
    let rules = rules(Version::V3, Auth::None);
    let mut padded = packet(&advert(&rules), PEER, ME, 255);
    padded.resize(46, 0xff);
    assert!(rules.accept(&padded).is_ok());
}

#[test]
fn who_sends_where_and_from_how_far_is_checked_first() {
    let rules = seed();
    let advert = advert(&rules);
    let stranger = Ipv4Addr::new(172, 16, 0, 99);
    for (source, destination, ttl, reason) in [
        (stranger, ME, 255, Reject::UnknownSender),
        (ME, ME, 255, Reject::OwnAddress),
        (PEER, GROUP, 255, Reject::Destination),
        (PEER, stranger, 255, Reject::Destination),
        (PEER, ME, 254, Reject::Ttl),
        (PEER, ME, 0, Reject::Ttl),
    ] {
        assert_eq!(
            rules.accept(&packet(&advert, source, destination, ttl)),
            Err(reason)
        );
    }
}

#[test]
fn min_ttl_is_per_node_and_for_unicast_only() {
    let mut rules = seed();
    rules.peers[0].min_ttl = 64;
    let at = |ttl, destination| packet(&advert(&seed()), PEER, destination, ttl);
    assert!(rules.accept(&at(64, ME)).is_ok());
    assert_eq!(rules.accept(&at(63, ME)), Err(Reject::Ttl));
    rules.mode = Mode::Multicast;
    assert_eq!(rules.accept(&at(254, GROUP)), Err(Reject::Ttl));
    assert!(rules.accept(&at(255, GROUP)).is_ok());
    assert_eq!(rules.accept(&at(255, ME)), Err(Reject::Destination));
}

#[test]
fn version_vrid_and_authentication_must_be_ours() {
    let ours = seed();
    let mut other = advert(&ours);
    other.vrid = Vrid::try_from(61).unwrap();
    assert_eq!(
        ours.accept(&packet(&other, PEER, ME, 255)),
        Err(Reject::Vrid)
    );
    other = advert(&ours);
    other.version = Version::V3;
    assert_eq!(
        ours.accept(&packet(&other, PEER, ME, 255)),
        Err(Reject::Version)
    );
    other = advert(&ours);
    other.auth = WireAuth::None;
    assert_eq!(
        ours.accept(&packet(&other, PEER, ME, 255)),
        Err(Reject::AuthType)
    );
    for wrong in [*b"1112\0\0\0\0", *b"1111\0\0\0\x01", *b"\0\0\0\0\0\0\0\0"] {
        other.auth = WireAuth::Pass(wrong);
        assert_eq!(
            ours.accept(&packet(&other, PEER, ME, 255)),
            Err(Reject::AuthData)
        );
    }
    let open = rules(Version::V2, Auth::None);
    assert_eq!(
        open.accept(&packet(&advert(&ours), PEER, ME, 255)),
        Err(Reject::AuthType)
    );
}

#[test]
fn version_2_demands_the_same_interval() {
    let rules = seed();
    let mut other = advert(&rules);
    other.interval = AdvertInterval::from_wire_v2(2).unwrap();
    assert_eq!(
        rules.accept(&packet(&other, PEER, ME, 255)),
        Err(Reject::Interval)
    );
}

#[test]
fn version_3_learns_an_interval_within_bounds() {
    let rules = rules(Version::V3, Auth::None);
    let mut other = advert(&rules);
    for (sent, learned) in [(1, 1), (100, 100), (400, 400), (401, 400), (4095, 400)] {
        other.interval = AdvertInterval::from_wire_v3(sent).unwrap();
        let accepted = rules.accept(&packet(&other, PEER, ME, 255)).unwrap();
        assert_eq!(accepted.interval.centiseconds(), learned);
        assert_eq!(accepted.interval_as_sent, sent == learned);
    }
}

#[test]
fn another_list_of_addresses_is_told_and_accepted() {
    let mut rules = seed();
    rules.addresses = OwnAddresses::V4(vec![[172, 16, 0, 10], [172, 16, 0, 11]]);
    let lists: [&[[u8; 4]]; 3] = [
        &[[172, 16, 0, 10]],
        &[[172, 16, 0, 10], [172, 16, 0, 12]],
        &[[172, 16, 0, 11], [172, 16, 0, 10]],
    ];
    let verdicts = lists.map(|list| {
        let mut other = advert(&rules);
        other.addresses = Addresses::V4(list);
        let bytes = packet(&other, PEER, ME, 255);
        rules.accept(&bytes).unwrap().same_addresses
    });
    assert_eq!(verdicts, [false, false, true]);
}

fn signing() -> (Rules, Seal, Clock) {
    let config = Hmac {
        keys: vec![HmacKey {
            id: 1,
            secret: Secret(b"0123456789abcdef0123456789abcdef".to_vec()),
        }],
        mode: HmacMode::Enforce,
    };
    let rules = rules(Version::V3, Auth::Hmac(config.clone()));
    let seal = Seal::new(&config, rules.interval, rules.peers.len());
    let clock = Clock {
        wall: Duration::from_secs(1_800_000_000),
        at: crate::net::clock::now(),
    };
    (rules, seal, clock)
}

/// The packet with a trailer behind it, the IPv4 length following.
fn sign(seal: &mut Seal, clock: Clock, packet: &[u8]) -> Vec<u8> {
    let mut payload = packet[20..].to_vec();
    seal.sign(&mut payload, IpAddr::V4(PEER), clock);
    let mut signed = packet[..20].to_vec();
    signed[3] = u8::try_from(20 + payload.len()).unwrap();
    signed.extend(payload);
    signed
}

#[test]
fn a_signed_advert_is_accepted_once() {
    for version in [Version::V2, Version::V3] {
        let (mut ours, mut seal, clock) = signing();
        ours.version = version;
        ours.interval = AdvertInterval::new(version, Duration::from_secs(1)).unwrap();
        let plain = packet(&advert(&ours), PEER, ME, 255);
        let signed = sign(&mut seal, clock, &plain);
        assert_eq!(signed.len(), plain.len() + 28);
        let verdict = ours.accept_signed(&signed, &mut seal, clock);
        assert_eq!(verdict.map(|advert| advert.priority), Ok(110));
        let again = ours.accept_signed(&signed, &mut seal, clock);
        assert_eq!(again, Err(Reject::HmacReplay));
        let unsigned = ours.accept_signed(&plain, &mut seal, clock);
        assert_eq!(unsigned, Err(Reject::HmacMissing));
    }
}

#[test]
fn no_bit_of_a_signed_advert_can_be_changed_unnoticed() {
    let (ours, mut seal, clock) = signing();
    let signed = sign(&mut seal, clock, &packet(&advert(&ours), PEER, ME, 255));
    for bit in 20 * 8..signed.len() * 8 {
        let mut changed = signed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let verdict = ours.accept_signed(&changed, &mut seal, clock);
        assert!(verdict.is_err(), "bit {bit}");
    }
    assert!(ours.accept_signed(&signed, &mut seal, clock).is_ok());
}

#[test]
fn an_advert_of_another_router_moves_no_mark() {
    let (ours, mut seal, clock) = signing();
    let later = Clock {
        wall: clock.wall + Duration::from_secs(1),
        at: clock.at + Duration::from_secs(1),
    };
    let first = sign(&mut seal, clock, &packet(&advert(&ours), PEER, ME, 255));
    let mut other = advert(&ours);
    other.vrid = Vrid::try_from(61).unwrap();
    let of_another = sign(&mut seal, later, &packet(&other, PEER, ME, 255));
    let verdict = ours.accept_signed(&of_another, &mut seal, later);
    assert_eq!(verdict, Err(Reject::Vrid));
    assert!(ours.accept_signed(&first, &mut seal, later).is_ok());
}

#[test]
fn a_trailer_and_a_router_without_hmac_do_not_go_together() {
    let (signing, mut seal, clock) = signing();
    let plain = packet(&advert(&signing), PEER, ME, 255);
    let signed = sign(&mut seal, clock, &plain);
    let open = rules(Version::V3, Auth::None);
    assert_eq!(open.accept(&signed), Err(Reject::AuthType));
    assert!(open.accept(&plain).is_ok());
    // Asked without a seal, rules that demand one refuse everything.
    assert_eq!(signing.accept(&signed), Err(Reject::HmacMissing));
    assert_eq!(signing.accept(&plain), Err(Reject::HmacMissing));
    // A password beside a trailer is another authentication.
    let (mut ours, mut seal, clock) = (signing, seal, clock);
    ours.version = Version::V2;
    let mut other = advert(&ours);
    other.auth = WireAuth::Pass(*b"1111\0\0\0\0");
    let both = sign(&mut seal, clock, &packet(&other, PEER, ME, 255));
    let verdict = ours.accept_signed(&both, &mut seal, clock);
    assert_eq!(verdict, Err(Reject::AuthType));
}

/// Captured from keepalived 2.4.3, `auth_hmac` with key 7, as a raw socket delivers it.
#[test]
fn a_signed_packet_of_keepalived_is_accepted_whole() {
    let packet = [
        0x45, 0xc0, 0x00, 0x3c, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0x62, 0x6b, 172, 16, 0, 3, 172,
        16, 0, 2, 0x31, 0x3c, 0x6e, 0x01, 0x00, 0x32, 0x5b, 0xd3, 172, 16, 0, 10, 0x01, 0x07, 0, 0,
        0x6b, 0x03, 0x0c, 0xcf, 0xf2, 0xe5, 0, 0, 0xb3, 0x3b, 0x12, 0x28, 0x44, 0x3e, 0x1b, 0x47,
        0x04, 0xb4, 0x9e, 0xe6, 0x54, 0x91, 0xa7, 0x7f,
    ];
    let (mut ours, _, clock) = signing();
    let Auth::Hmac(config) = &mut ours.auth else {
        panic!("another authentication");
    };
    config.keys[0].id = 7;
    let config = config.clone();
    let mut seal = Seal::new(&config, ours.interval, 1);
    let then = Clock {
        wall: Duration::from_secs(0x6b03_0cd0),
        ..clock
    };
    let accepted = ours.accept_signed(&packet, &mut seal, then).unwrap();
    assert_eq!((accepted.priority, accepted.same_addresses), (110, true));
    assert_eq!(accepted.interval.centiseconds(), 50);
    let late = Clock {
        wall: then.wall + Duration::from_secs(60),
        ..clock
    };
    let mut seal = Seal::new(&config, ours.interval, 1);
    let verdict = ours.accept_signed(&packet, &mut seal, late);
    assert_eq!(verdict, Err(Reject::HmacClock));
    assert!((59_000..61_000).contains(&seal.skew_ms()));
}

#[test]
fn a_router_beyond_the_nodes_is_heard_by_the_same_rules_and_a_stranger_is_not() {
    let text = "[vip.a]\naddress = [\"172.16.0.10/24\", \"fd00::10/64\"]\nvrid = 60\n\
                nodes = [{ address = [\"172.16.0.2\", \"fd00::2\"] }, \
                { address = [\"172.16.0.3\", \"fd00::3\"], min-ttl = 64 }]\n\
                allow-from = [\"172.16.0.7\", \"fd00::7\"]\n";
    let vip = crate::config::load(text).unwrap().vips.remove(0);
    let local = LocalVip {
        vip,
        me: 0,
        interface: "eth0".into(),
        source: ME.into(),
    };
    let rules = Rules::new(&local).unwrap();
    let known: Vec<(IpAddr, u8)> = rules.peers.iter().map(|p| (p.address, p.min_ttl)).collect();
    let allowed = Ipv4Addr::new(172, 16, 0, 7);
    assert_eq!(known, [(PEER.into(), 64), (allowed.into(), 255)]);
    let accept = |source, ttl| rules.accept(&packet(&advert(&rules), source, ME, ttl));
    let accepted = accept(allowed, 255).unwrap();
    assert_eq!((accepted.sender, accepted.peer), (allowed.into(), 1));
    assert_eq!(accept(allowed, 254), Err(Reject::Ttl));
    let stranger = Ipv4Addr::new(172, 16, 0, 8);
    assert_eq!(accept(stranger, 255), Err(Reject::UnknownSender));
}
