//! Golden bytes both ways, every split, every broken rule.

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied(client: &str, local: &str) -> Header {
    Header::Proxied {
        client: addr(client),
        local: addr(local),
    }
}

/// A version 2 header of this command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &len, body].concat()
}

const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xc3, 0x50, 0x19, 0x2b];

/// Headers with what they say.
fn golden() -> Vec<(Vec<u8>, Header)> {
    let v4 = proxied("192.0.2.7:50000", "198.51.100.1:6443");
    let v6 = proxied("[2001:db8::7]:50000", "[2001:db8::1]:6443");
    let mut inet6 = [0; 36];
    inet6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    inet6[15] = 7;
    inet6[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    inet6[31] = 1;
    inet6[32..].copy_from_slice(&[0xc3, 0x50, 0x19, 0x2b]);
    let values = [
        &INET[..],
        &[0x02, 0, 3],
        b"lb1",
        &[0x04, 0, 0],
        &[0xee, 0, 1, 9],
    ]
    .concat();
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443\r\n"), v4),
        (
            text("PROXY TCP6 2001:db8::7 2001:db8::1 50000 6443\r\n"),
            v6,
        ),
        (
            text("PROXY TCP6 2001:0DB8:0::7 2001:db8::1 50000 6443\r\n"),
            v6,
        ),
        (
            text("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 50000 6443\r\n"),
            v4,
        ),
        (
            text("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"),
            proxied("255.255.255.255:65535", "0.0.0.0:0"),
        ),
        (text("PROXY UNKNOWN\r\n"), Header::Own),
        (text("PROXY UNKNOWN ffff:: what ever  01\r\n"), Header::Own),
        (v2(0x21, 0x11, &INET), v4),
        (v2(0x21, 0x21, &inet6), v6),
        (v2(0x21, 0x11, &values), v4),
        (v2(0x20, 0x00, &[]), Header::Own),
        (v2(0x20, 0x11, &INET), Header::Own),
        (v2(0x20, 0xff, &[1, 2, 3]), Header::Own),
        (v2(0x21, 0x00, &[]), Header::Own),
        (v2(0x21, 0x00, &[0xee, 0, 1, 9]), Header::Own),
        (v2(0x21, 0x31, &[7; 216]), Header::Own),
        (v2(0x21, 0x12, &INET), Header::Own),
    ]
}

#[test]
fn a_header_is_read_at_every_split_and_what_follows_is_left() {
    for (bytes, header) in golden() {
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
        }
        let len = bytes.len();
        for behind in [&b""[..], b"\r\n", b"PROXY ", &[0; 300]] {
            let all = [&bytes, behind].concat();
            assert_eq!(decode(&all), Ok(Some(Decoded { header, len })), "{all:?}");
        }
    }
}

#[test]
fn headers_are_written_as_other_implementations_read_them() {
    let (client, local) = (addr("192.0.2.7:50000"), addr("198.51.100.1:6443"));
    assert_eq!(
        &*encode(HeaderVersion::V1, client, local),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443\r\n"
    );
    assert_eq!(
        &*encode(HeaderVersion::V2, client, local),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc3\x50\x19\x2b"
    );
    let (client, local) = (addr("[2001:db8::7]:50000"), addr("[2001:db8::1]:6443"));
    assert_eq!(
        &*encode(HeaderVersion::V1, client, local),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 6443\r\n"
    );
    let bytes = encode(HeaderVersion::V2, client, local);
    assert_eq!(bytes.len(), 52);
    assert_eq!(
        (&bytes[12..20], &bytes[31..36], &bytes[47..]),
        (
            &b"\x21\x21\0\x24\x20\x01\x0d\xb8"[..],
            &b"\x07\x20\x01\x0d\xb8"[..],
            &b"\x01\xc3\x50\x19\x2b"[..]
        )
    );
    assert_eq!(own(HeaderVersion::V1), b"PROXY UNKNOWN\r\n");
    assert_eq!(own(HeaderVersion::V2), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
}

#[test]
fn a_pair_of_both_families_is_told_in_ipv6() {
    let (client, local) = (addr("192.0.2.7:50000"), addr("[2001:db8::1]:6443"));
    assert_eq!(
        &*encode(HeaderVersion::V1, client, local),
        b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 50000 6443\r\n"
    );
    let mapped = addr("[::ffff:192.0.2.7]:50000");
    assert_eq!(
        &*encode(HeaderVersion::V1, mapped, addr("198.51.100.1:6443")),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443\r\n"
    );
}

#[test]
fn what_is_written_is_read_again() {
    let pairs = [
        ("192.0.2.7:50000", "198.51.100.1:6443"),
        ("[2001:db8::7]:1", "[fe80::1]:65535"),
        ("192.0.2.7:50000", "[2001:db8::1]:6443"),
    ];
    for version in [HeaderVersion::V1, HeaderVersion::V2] {
        for (client, local) in pairs {
            let bytes = encode(version, addr(client), addr(local));
            let decoded = decode(&bytes).unwrap().unwrap();
            assert_eq!(decoded.header, proxied(client, local));
            assert_eq!(decoded.len, bytes.len());
        }
        let decoded = decode(own(version)).unwrap().unwrap();
        assert_eq!(decoded.header, Header::Own);
    }
}

#[test]
fn what_begins_otherwise_is_refused_with_its_first_wrong_byte() {
    assert_eq!(decode(b""), Ok(None));
    assert_eq!(decode(b"PROX"), Ok(None));
    for (bytes, wrong) in [
        (&b"GET / HTTP/1.1\r\n"[..], 0),
        (b"PROX\n", 4),
        (b"PROXY\r\n", 5),
        (b"proxy TCP4", 0),
        (b"\x16\x03\x01", 0),
        (b"\r\n\r\n\0\r\nQUIT\r", 11),
        (b"\r\n\r\nHTTP", 4),
    ] {
        assert_eq!(decode(&bytes[..wrong]), Ok(None), "{bytes:?}");
        for len in wrong + 1..=bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(Refusal::Missing), "{bytes:?}");
        }
    }
}

#[test]
fn a_line_that_breaks_a_rule_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 050 6443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +50 6443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443 \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443 1\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 50000 6443\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 50000 6443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 50000 6443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 50000 6443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 50000 6443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 50000 6443\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::1 50000 6443\r\n",
        "PROXY TCP6 2001::db8::7 2001:db8::1 50000 6443\r\n",
        "PROXY TCP5 192.0.2.7 198.51.100.1 50000 6443\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 50000 6443\r\n",
        "PROXY  TCP4 192.0.2.7 198.51.100.1 50000 6443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 50000 6443\n",
        "PROXY UNKNOWN\rx",
    ] {
        let refused = decode(line.as_bytes());
        assert!(
            matches!(refused, Err(Refusal::Malformed(_))),
            "{line:?}: {refused:?}"
        );
    }
    let refused = decode(b"PROXY TCP4 \xff\xfe 198.51.100.1 50000 6443\r\n");
    assert!(matches!(refused, Err(Refusal::Malformed(_))), "{refused:?}");
}

#[test]
fn a_line_has_at_most_107_bytes() {
    let line = |blanks: usize| format!("PROXY UNKNOWN{}\r\n", " ".repeat(blanks)).into_bytes();
    assert_eq!(decode(&line(92)).unwrap().unwrap().len, 107);
    assert_eq!(decode(&line(93)), Err(Refusal::TooLong));
    let endless = [&b"PROXY UNKNOWN"[..], &[b'x'; 200]].concat();
    assert_eq!(decode(&endless[..106]), Ok(None));
    assert_eq!(decode(&endless[..107]), Err(Refusal::TooLong));
}

#[test]
fn a_binary_header_that_breaks_a_rule_is_refused() {
    for bytes in [
        v2(0x11, 0x11, &INET),
        v2(0x31, 0x11, &INET),
        v2(0x22, 0x11, &INET),
        v2(0x21, 0x41, &INET),
        v2(0x21, 0x13, &INET),
        // Lengths that lie about the addresses.
        v2(0x21, 0x11, &INET[..11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x31, &[0; 215]),
        // Values that run over the end.
        v2(0x21, 0x11, &[&INET[..], &[0x04]].concat()),
        v2(0x21, 0x11, &[&INET[..], &[0x04, 0]].concat()),
        v2(0x21, 0x11, &[&INET[..], &[0x04, 0, 2, 1]].concat()),
        v2(0x21, 0x11, &[&INET[..], &[0x03, 0, 1, 1]].concat()),
    ] {
        let refused = decode(&bytes);
        assert!(
            matches!(refused, Err(Refusal::Malformed(_))),
            "{bytes:?}: {refused:?}"
        );
    }
}

#[test]
fn a_binary_header_has_at_most_4096_bytes() {
    let mut body = INET.to_vec();
    body.extend([0x04, 0x0f, 0xe1]);
    body.resize(4080, 0);
    let bytes = v2(0x21, 0x11, &body);
    assert_eq!(decode(&bytes).unwrap().unwrap().len, 4096);
    assert_eq!(
        decode(&[V2, &[0x21, 0x11, 0x0f, 0xf1]].concat()),
        Err(Refusal::TooLong)
    );
    assert_eq!(
        decode(&[V2, &[0x20, 0x00, 0xff, 0xff]].concat()),
        Err(Refusal::TooLong)
    );
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    // The check value of CRC32c: that of the digits 1 to 9.
    assert_eq!(v2::crc32c(b"123456789", &(0..0)), 0xe306_9283);
    let mut bytes = v2(0x21, 0x11, &[&INET[..], &[0x03, 0, 4, 0, 0, 0, 0]].concat());
    let sum = v2::crc32c(&bytes, &(0..0)).to_be_bytes();
    bytes[31..35].copy_from_slice(&sum);
    let header = proxied("192.0.2.7:50000", "198.51.100.1:6443");
    assert_eq!(decode(&bytes), Ok(Some(Decoded { header, len: 35 })));
    for at in 16..bytes.len() {
        if !(28..31).contains(&at) {
            bytes[at] ^= 1;
            assert_eq!(
                decode(&bytes),
                Err(Refusal::Malformed("wrong checksum")),
                "{at}"
            );
            bytes[at] ^= 1;
        }
    }
}
