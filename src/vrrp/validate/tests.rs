//! Every reason a well-formed or malformed packet is refused for, and what is tolerated.
#![expect(clippy::indexing_slicing, reason = "a test may stop where it stands")]

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::config::model::Password;

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
            Auth::None => WireAuth::None,
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
