//! The codec: golden bytes both ways, each truncation, each changed byte, random bytes.

use super::*;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn keys() -> Keys {
    Keys::parse(KEY).unwrap()
}

fn ends() -> Ends {
    Ends {
        from: "172.16.0.2".parse().unwrap(),
        to: "172.16.0.3".parse().unwrap(),
    }
}

fn header() -> Header {
    Header {
        nonce: Nonce([0xa1; 16]),
        counter: 0x0102_0304_0506_0708,
        echo: (Nonce([0xb2; 16]), 9),
    }
}

const REPORT_OF_LB1: Report<'_> = Report {
    version: "0.1.0",
    name: "lb1",
    can_serve: true,
    interval_ms: 100,
    parts: 2,
};

fn router(vrid: u8) -> RouterReport {
    RouterReport {
        vrid,
        state: VrrpState::Active,
        priority: 110,
        address: "172.16.0.10".parse().unwrap(),
        silence_ms: 1_000,
        heard: true,
    }
}

fn report(routers: &[RouterReport]) -> Vec<u8> {
    let mut writer = Writer::report(ends(), &header(), &REPORT_OF_LB1);
    for one in routers {
        writer.router(one);
    }
    writer.sign(&keys()).to_vec()
}

fn flow(client: &str) -> ClientFlow {
    ClientFlow {
        vip: "172.16.0.10".parse().unwrap(),
        port: 6443,
        client: client.parse().unwrap(),
        client_port: 40_000,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_report_looks_like_this_on_the_wire() {
    let bytes = report(&[router(60)]);
    let (signed, tag) = bytes.split_at(bytes.len() - 32);
    let expected = [
        "4c424470",
        "01010000",
        "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        "0102030405060708",
        "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2",
        "0000000000000009",
        "05302e312e30",
        "036c6231",
        "01",
        "0064",
        "0002",
        "3c026e01",
        "00000000000000000000ffffac10000a",
        "000003e8",
    ];
    assert_eq!(hex(signed), expected.concat());
    // openssl dgst -sha256 -hmac KEY over both addresses as IPv6 maps them, and the bytes above.
    assert_eq!(
        hex(tag),
        "a63aea01bf46fdd24566637ea821d6b17b2a5bc500ff31d296ed75ccb97a614b"
    );
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let routers = [router(1), router(2)];
    let bytes = report(&routers);
    let (read_header, body) = read(&bytes, ends(), &keys()).unwrap();
    assert_eq!(read_header, header());
    let Body::Report(described, listed) = body else {
        panic!("{body:?}");
    };
    assert_eq!(described, REPORT_OF_LB1);
    assert_eq!(listed.iter().collect::<Vec<_>>(), routers);
}

#[test]
fn clients_of_both_families_are_read_as_they_were_written() {
    let flows = [flow("172.16.0.100"), flow("fd00::100")];
    let mut writer = Writer::clients(ends(), &header(), 7);
    for one in &flows {
        writer.flow(one);
    }
    let bytes = writer.sign(&keys()).to_vec();
    let (_, body) = read(&bytes, ends(), &keys()).unwrap();
    let Body::Clients {
        part,
        flows: listed,
    } = body
    else {
        panic!("{body:?}");
    };
    assert_eq!(part, 7);
    assert_eq!(listed.iter().collect::<Vec<_>>(), flows);
}

#[test]
fn the_longest_messages_fit_a_packet() {
    let long = "x".repeat(200);
    let most = Report {
        version: &long,
        name: &long,
        ..REPORT_OF_LB1
    };
    let mut writer = Writer::report(ends(), &header(), &most);
    for vrid in 1..=40 {
        writer.router(&router(vrid));
    }
    let bytes = writer.sign(&keys()).to_vec();
    assert_eq!(bytes.len(), 1_181);
    let (_, body) = read(&bytes, ends(), &keys()).unwrap();
    let Body::Report(described, listed) = body else {
        panic!("{body:?}");
    };
    assert_eq!(described.name.len(), 63);
    assert_eq!(listed.iter().count(), 40);
    let mut writer = Writer::clients(ends(), &header(), 0);
    for _ in 0..FLOWS_MAX {
        writer.flow(&flow("172.16.0.100"));
    }
    let bytes = writer.sign(&keys()).to_vec();
    assert_eq!(bytes.len(), 1_170);
    assert!(read(&bytes, ends(), &keys()).is_ok());
}

#[test]
fn a_reflected_message_and_one_for_another_node_are_forged() {
    let bytes = report(&[]);
    let Ends { from, to } = ends();
    let back = Ends { from: to, to: from };
    assert_eq!(read(&bytes, back, &keys()).unwrap_err(), Reject::Forged);
    let elsewhere = Ends {
        from,
        to: "172.16.0.4".parse().unwrap(),
    };
    assert_eq!(
        read(&bytes, elsewhere, &keys()).unwrap_err(),
        Reject::Forged
    );
    let other = Keys::parse(b"fedcba9876543210fedcba9876543210").unwrap();
    assert_eq!(read(&bytes, ends(), &other).unwrap_err(), Reject::Forged);
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused() {
    let bytes = report(&[router(60)]);
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end], ends(), &keys()).is_err(), "{end}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(read(&changed, ends(), &keys()).is_err(), "{at}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(read(&longer, ends(), &keys()).is_err());
}

/// What a node with the key, but without sense, may send: read or refused, never a panic.
#[test]
fn signed_nonsense_is_read_or_refused() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut understood = 0;
    for round in 0..20_000 {
        let mut writer = Writer::begin(ends(), &header(), u8::try_from(round % 4).unwrap());
        for _ in 0..next() % 1_112 {
            let byte = u8::try_from(next() % 256).unwrap();
            writer.push(&[if next() % 2 == 0 { 0 } else { byte }]);
        }
        let bytes = writer.sign(&keys()).to_vec();
        if let Ok((_, body)) = read(&bytes, ends(), &keys()) {
            understood += 1;
            match body {
                Body::Report(report, routers) => {
                    assert!(report.name.len() <= 63 && report.version.len() <= 63);
                    assert!(routers.iter().count() <= 48);
                }
                Body::Clients { flows, .. } => assert!(flows.iter().count() <= 31),
            }
        }
        let raw: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x55).collect();
        assert!(read(&raw, ends(), &keys()).is_err());
    }
    assert!(understood > 100, "{understood}");
}

#[test]
fn a_state_of_a_later_release_is_left_out() {
    let mut writer = Writer::report(ends(), &header(), &REPORT_OF_LB1);
    writer.router(&router(1));
    writer.push(&[2, 9, 100, 0]);
    writer.push(&[0; 20]);
    let bytes = writer.sign(&keys()).to_vec();
    let (_, body) = read(&bytes, ends(), &keys()).unwrap();
    let Body::Report(_, listed) = body else {
        panic!("{body:?}");
    };
    assert_eq!(listed.iter().collect::<Vec<_>>(), [router(1)]);
}

#[test]
fn a_text_is_cut_between_characters() {
    let text = "é".repeat(40);
    assert_eq!(short(&text).len(), 62);
    assert_eq!(short("lb1"), "lb1");
}
