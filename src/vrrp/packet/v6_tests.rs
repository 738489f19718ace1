//! Golden bytes of IPv6 adverts captured from keepalived 2.4.3, both ways, every truncation of them,
//! and what only one family may do.
#![expect(clippy::indexing_slicing, reason = "a test may stop where it stands")]

use std::time::Duration;

use super::tests::bytes;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const VIPS: [[u8; 16]; 2] = [
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
    [0xfd, 0, 0, 0x16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
];
const LIST: &str = "fe800000000000000000000000000010 fd000016000000000000000000000010";

fn advert() -> Advertisement<'static> {
    Advertisement {
        version: Version::V3,
        vrid: Vrid::try_from(60).unwrap(),
        priority: 110,
        interval: AdvertInterval::new(Version::V3, Duration::from_millis(100)).unwrap(),
        addresses: Addresses::V6(&VIPS),
        auth: WireAuth::None,
    }
}

/// (source, destination, payload): by multicast, by unicast.
fn golden() -> [(IpAddr, IpAddr, Vec<u8>); 2] {
    [
        (
            ip("fe80::ff:fe00:3"),
            ip("ff02::12"),
            bytes(&format!("313c6e02 000a67ce {LIST}")),
        ),
        (
            ip("fd00:16::3"),
            ip("fd00:16::2"),
            bytes(&format!("313c6e02 000a6a34 {LIST}")),
        ),
    ]
}

#[test]
fn adverts_of_keepalived_are_read_and_ours_are_byte_for_byte_the_same() {
    let mut out = Vec::new();
    for (source, destination, packet) in golden() {
        let read = Advertisement::decode(&packet, source, destination);
        assert_eq!(read, Ok(advert()), "{destination}");
        advert().encode(source, destination, &mut out).unwrap();
        assert_eq!(out, packet, "{destination}");
    }
}

#[test]
fn every_truncation_and_every_trailing_byte_is_refused() {
    for (source, destination, mut packet) in golden() {
        for end in 0..packet.len() {
            let reason = if end < HEADER_BYTES {
                Reject::Truncated
            } else {
                Reject::Length
            };
            let read = Advertisement::decode(&packet[..end], source, destination);
            assert_eq!(read, Err(reason), "cut to {end}");
        }
        for _ in 0..40 {
            packet.push(0);
            let read = Advertisement::decode(&packet, source, destination);
            assert_eq!(read, Err(Reject::Length));
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_changes_the_value() {
    for (source, destination, packet) in golden() {
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Advertisement::decode(&flipped, source, destination);
            assert_ne!(read, Ok(advert()), "bit {bit}");
        }
    }
}

#[test]
fn the_checksum_is_that_of_this_source_and_this_destination_alone() {
    let [
        (source, destination, packet),
        (other_source, other_destination, _),
    ] = golden();
    for (source, destination) in [
        (other_source, destination),
        (source, other_destination),
        (source, ip("ff02::1")),
    ] {
        let read = Advertisement::decode(&packet, source, destination);
        assert_eq!(read, Err(Reject::Checksum), "{source} {destination}");
    }
    // Over the message alone, which is a right sum by IPv4: 0x67ce and the pseudo-header's words
    // fe80 + 00ff + fe00 + 0003 + ff02 + 0012 + 0070 + 0028.
    let alone = bytes(&format!("313c6e02 000a6501 {LIST}"));
    let read = Advertisement::decode(&alone, source, destination);
    assert_eq!(read, Err(Reject::Checksum));
}

#[test]
fn version_2_knows_no_ipv6() {
    let packet = bytes("213c6e01 0001c4a6 ac10000a 0000000000000000");
    let read = Advertisement::decode(&packet, ip("fd00:16::3"), ip("fd00:16::2"));
    assert_eq!(read, Err(Reject::Version));
    let mut old = advert();
    old.version = Version::V2;
    let mut out = Vec::new();
    let written = old.encode(ip("fd00:16::3"), ip("fd00:16::2"), &mut out);
    assert_eq!(written, Err(EncodeError::Family));
}

#[test]
fn addresses_of_one_family_do_not_travel_over_the_other() {
    let mut out = Vec::new();
    let written = advert().encode(ip("172.16.0.3"), ip("172.16.0.2"), &mut out);
    assert_eq!(written, Err(EncodeError::Family));
    let written = advert().encode(ip("fd00:16::3"), ip("172.16.0.2"), &mut out);
    assert_eq!(written, Err(EncodeError::Family));
    let mut four = advert();
    four.addresses = Addresses::V4(&[[172, 16, 0, 10]]);
    let written = four.encode(ip("fd00:16::3"), ip("fd00:16::2"), &mut out);
    assert_eq!(written, Err(EncodeError::Family));
}

#[test]
fn a_list_of_the_largest_count_fits() {
    let many = [VIPS[0]; 255];
    let mut full = advert();
    full.addresses = Addresses::V6(&many);
    let (source, destination) = (ip("fd00:16::3"), ip("fd00:16::2"));
    let mut out = Vec::new();
    full.encode(source, destination, &mut out).unwrap();
    assert_eq!((out.len(), ADVERT_BYTES_MAX), (4088, 4088));
    let read = Advertisement::decode(&out, source, destination);
    assert_eq!(read, Ok(full));
}

/// From keepalived 2.4.3 with `auth_hmac`, fd00::3 to fd00::2.
#[test]
fn over_ipv6_the_checksum_covers_the_trailer() {
    let packet = bytes(
        "313c6e01 0032bf73 fd000000000000000000000000000010\
         01070000 6b030cdd eb750000 57156c25695fa01779e5defd150d0a61",
    );
    let (from, to) = (ip("fd00::3"), ip("fd00::2"));
    let (message, trailer) = packet.split_at(24);
    let advert = Advertisement::decode_before(message, trailer, from, to).unwrap();
    assert_eq!(advert.priority, 110);
    assert_eq!(
        Advertisement::decode(message, from, to),
        Err(Reject::Checksum)
    );
    let mut ours = Vec::new();
    advert.encode(from, to, &mut ours).unwrap();
    ours.extend_from_slice(trailer);
    assert_ne!(ours, packet);
    cover_trailer(&mut ours, from, to);
    assert_eq!(ours, packet);
}

#[test]
fn over_ipv4_the_checksum_does_not_cover_the_trailer() {
    let packet = bytes(
        "313c6e01 00325bd3 ac10000a\
         01070000 6b030ccf f2e50000 b33b1228443e1b4704b49ee65491a77f",
    );
    let (from, to) = (ip("172.16.0.3"), ip("172.16.0.2"));
    let (message, trailer) = packet.split_at(12);
    assert!(Advertisement::decode_before(message, trailer, from, to).is_ok());
    let mut ours = packet.clone();
    cover_trailer(&mut ours, from, to);
    assert_eq!(ours, packet);
}
