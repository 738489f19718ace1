//! Golden bytes captured from keepalived 2.4.3, both ways, and every truncation of them.
#![expect(clippy::indexing_slicing, reason = "a test may stop where it stands")]

use super::*;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 2));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 3));
const ALL: IpAddr = IpAddr::V4(GROUP);
const VIP: [[u8; 4]; 1] = [[172, 16, 0, 10]];

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn interval(version: Version, ms: u64) -> AdvertInterval {
    AdvertInterval::new(version, std::time::Duration::from_millis(ms)).unwrap()
}

fn advert(version: Version, priority: u8, ms: u64, auth: WireAuth) -> Advertisement<'static> {
    Advertisement {
        version,
        vrid: Vrid::try_from(60).unwrap(),
        priority,
        interval: interval(version, ms),
        addresses: Addresses::V4(&VIP),
        auth,
    }
}

const PASS: WireAuth = WireAuth::Pass(*b"1111\0\0\0\0");

/// (source address, destination, payload, the advert it is)
fn golden() -> Vec<(IpAddr, &'static str, Advertisement<'static>)> {
    vec![
        (
            A,
            "213c6e01 01016144 ac10000a 3131313100000000",
            advert(Version::V2, 110, 1000, PASS),
        ),
        (
            A,
            "213c0001 0101cf44 ac10000a 3131313100000000",
            advert(Version::V2, 0, 1000, PASS),
        ),
        (
            A,
            "313c6e01 000a5bfb ac10000a",
            advert(Version::V3, 110, 100, WireAuth::None),
        ),
        (
            A,
            "313c0001 000ac9fb ac10000a",
            advert(Version::V3, 0, 100, WireAuth::None),
        ),
        (
            ALL,
            "213c6e01 01016144 ac10000a 3131313100000000",
            advert(Version::V2, 110, 1000, PASS),
        ),
        (
            ALL,
            "213c6e01 0001c4a6 ac10000a 0000000000000000",
            advert(Version::V2, 110, 1000, WireAuth::None),
        ),
        (
            ALL,
            "313c6e01 000a27fb ac10000a",
            advert(Version::V3, 110, 100, WireAuth::None),
        ),
    ]
}

#[test]
fn adverts_of_keepalived_are_read() {
    for (destination, hex, expected) in golden() {
        let packet = bytes(hex);
        let read = Advertisement::decode(&packet, B, destination);
        assert_eq!(read, Ok(expected), "{hex}");
    }
}

#[test]
fn our_adverts_are_byte_for_byte_those_of_keepalived() {
    let mut out = Vec::new();
    for (destination, hex, advert) in golden() {
        advert.encode(B, destination, &mut out).unwrap();
        assert_eq!(out, bytes(hex), "{hex}");
    }
}

#[test]
fn a_version_3_checksum_over_the_message_alone_is_accepted() {
    let packet = bytes("313c6e01 000ab49d ac10000a");
    for destination in [A, ALL] {
        let read = Advertisement::decode(&packet, B, destination);
        assert_eq!(
            read,
            Ok(advert(Version::V3, 110, 100, WireAuth::None)),
            "{destination}"
        );
    }
}

#[test]
fn the_multicast_checksum_form_is_refused_on_a_unicast_packet() {
    let packet = bytes("313c6e01 000a27fb ac10000a");
    assert_eq!(Advertisement::decode(&packet, B, A), Err(Reject::Checksum));
}

#[test]
fn every_truncation_and_every_trailing_byte_is_refused() {
    for (destination, hex, _) in golden() {
        let mut packet = bytes(hex);
        for end in 0..packet.len() {
            assert!(
                Advertisement::decode(&packet[..end], B, destination).is_err(),
                "{hex} cut to {end}"
            );
        }
        for _ in 0..8 {
            packet.push(0);
            assert_eq!(
                Advertisement::decode(&packet, B, destination),
                Err(Reject::Length),
                "{hex}"
            );
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_changes_the_value() {
    for (destination, hex, expected) in golden() {
        let packet = bytes(hex);
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(
                Advertisement::decode(&flipped, B, destination),
                Ok(expected),
                "{hex} bit {bit}"
            );
        }
    }
}

#[test]
fn each_malformed_field_has_its_own_reason() {
    // Sums are over the message alone, worked out by hand for each row.
    for (hex, reason) in [
        ("113c6e01 000ad49d ac10000a", Reject::Version),
        ("413c6e01 000aa49d ac10000a", Reject::Version),
        ("323c6e01 000ab39d ac10000a", Reject::Type),
        ("31006e01 000ab4d9 ac10000a", Reject::Vrid),
        ("313c6e02 000ab49c ac10000a", Reject::Length),
        ("313c6e01 0000b4a7 ac10000a", Reject::Interval),
        ("313c6e01 000a0000 ac10000a", Reject::Checksum),
        ("313c6e00 000a60b9", Reject::NoAddress),
        (
            "213c6e01 0200c2a7 ac10000a 0000000000000000",
            Reject::AuthType,
        ),
    ] {
        assert_eq!(
            Advertisement::decode(&bytes(hex), B, A),
            Err(reason),
            "{hex}"
        );
    }
}

#[test]
fn reserved_bits_of_version_3_are_ignored() {
    let packet = bytes("313c6e01 f00ac49c ac10000a");
    assert_eq!(
        Advertisement::decode(&packet, B, A),
        Ok(advert(Version::V3, 110, 100, WireAuth::None))
    );
}

#[test]
fn an_advert_the_wire_cannot_carry_is_not_written() {
    let mut out = Vec::new();
    let mut none = advert(Version::V3, 1, 100, WireAuth::None);
    none.addresses = Addresses::V4(&[]);
    assert_eq!(none.encode(B, A, &mut out), Err(EncodeError::Addresses));
    let many = [[10, 0, 0, 1]; 256];
    none.addresses = Addresses::V4(&many);
    assert_eq!(none.encode(B, A, &mut out), Err(EncodeError::Addresses));
    let mut odd = advert(Version::V2, 1, 1000, WireAuth::None);
    odd.interval = interval(Version::V3, 1500);
    assert_eq!(odd.encode(B, A, &mut out), Err(EncodeError::Interval));
    odd.version = Version::V3;
    odd.interval = AdvertInterval::from_wire_v2(255).unwrap();
    assert_eq!(odd.encode(B, A, &mut out), Err(EncodeError::Interval));
}

#[test]
fn the_ipv4_header_gives_addresses_ttl_and_exactly_the_payload() {
    let plain = "45c00020 00010000 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a";
    let advert = bytes("313c6e01 000a5bfb ac10000a");
    let expected = Datagram {
        source: B,
        destination: A,
        ttl: 255,
        payload: &advert,
    };
    let packet = bytes(plain);
    assert_eq!(split_ipv4(&packet), Ok(expected));
    let padded = bytes(&format!("{plain} 0000 ffff ffff"));
    assert_eq!(split_ipv4(&padded), Ok(expected));
    let options =
        bytes("46c00024 00010000 ff700000 ac100003 ac100002 01010101 313c6e01 000a5bfb ac10000a");
    assert_eq!(split_ipv4(&options), Ok(expected));
    for end in 0..packet.len() {
        assert_eq!(split_ipv4(&packet[..end]), Err(Reject::IpHeader), "{end}");
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    for (hex, reason) in [
        (
            "65c00020 00010000 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::IpHeader,
        ),
        (
            "44c00020 00010000 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::IpHeader,
        ),
        (
            "45c00013 00010000 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::IpHeader,
        ),
        (
            "45c00020 00012000 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::Fragment,
        ),
        (
            "45c00020 00010001 ff706287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::Fragment,
        ),
        (
            "45c00020 00010000 ff066287 ac100003 ac100002 313c6e01 000a5bfb ac10000a",
            Reject::Protocol,
        ),
    ] {
        assert_eq!(split_ipv4(&bytes(hex)), Err(reason), "{hex}");
    }
}

#[test]
fn every_reason_has_its_place_and_its_own_word() {
    let mut words: Vec<&str> = Reject::ALL.iter().map(|reason| reason.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Reject::ALL.len());
    assert!(
        Reject::ALL
            .iter()
            .enumerate()
            .all(|(place, reason)| *reason as usize == place)
    );
}

#[test]
fn no_advert_is_longer_than_the_longest() {
    let addresses = [[0xfd; 16]; 255];
    let source = Ipv6Addr::LOCALHOST.into();
    let group = GROUP_V6.into();
    let longest = Advertisement {
        version: Version::V3,
        vrid: Vrid::try_from(60).unwrap(),
        priority: 110,
        interval: AdvertInterval::from_wire_v3(1).unwrap(),
        addresses: Addresses::V6(&addresses),
        auth: WireAuth::None,
    };
    let mut bytes = Vec::new();
    longest.encode(source, group, &mut bytes).unwrap();
    assert_eq!(bytes.len(), ADVERT_BYTES_MAX);
    assert_eq!(Advertisement::decode(&bytes, source, group), Ok(longest));
}
