//! Headers of the PROXY protocol, damaged in every way, and plain noise: whatever comes, in
//! whatever pieces, is judged once and the same way. `LBD_FUZZ_STEPS` says how many, and
//! `LBD_FUZZ_SEED` where to begin; a failure names the seed that replays it.
#![cfg(test)]

#[path = "lab/dice.rs"]
mod dice;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dice::Dice;
use lbd::config::model::HeaderVersion;
use lbd::proxy::pp::{self, HEADER_BYTES_MAX, Header};

fn addr(dice: &mut Dice) -> SocketAddr {
    let port = u16::from_be_bytes([dice.byte(), dice.byte()]);
    let ip = if dice.place(2) == 0 {
        let mut octets = [0; 4];
        octets.fill_with(|| dice.byte());
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        let mut octets = [0; 16];
        let zeros = dice.place(17);
        octets[zeros..].fill_with(|| dice.byte());
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    SocketAddr::new(ip, port)
}

/// A header as it should be, perhaps with values behind the addresses.
fn sound(dice: &mut Dice) -> Vec<u8> {
    let version = [HeaderVersion::V1, HeaderVersion::V2][dice.place(2)];
    if dice.place(8) == 0 {
        return pp::own(version).to_vec();
    }
    let (client, local) = (addr(dice), addr(dice));
    let mut bytes = pp::encode(version, client, local).into_vec();
    if version == HeaderVersion::V2 {
        for _ in 0..dice.place(4) {
            let len = dice.place(40);
            let kind = [0x01, 0x02, 0x03, 0x04, 0x20, 0xee][dice.place(6)];
            bytes.extend([kind, 0, u8::try_from(len).unwrap()]);
            bytes.extend(std::iter::repeat_with(|| dice.byte()).take(len));
        }
        let len = u16::try_from(bytes.len() - 16).unwrap().to_be_bytes();
        bytes[14..16].copy_from_slice(&len);
    }
    bytes
}

fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    const PIECES: [&[u8]; 8] = [b"\r\n", b" ", b"0", b":", b".", b"65536", b"UNKNOWN", b"\0"];
    for _ in 0..dice.place(4) {
        let at = dice.place(bytes.len().max(1));
        match dice.place(6) {
            0 => bytes[at] ^= 1 << dice.place(8),
            1 => bytes[at] = dice.byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, PIECES[dice.place(8)].iter().copied())),
            4 => drop(bytes.remove(at)),
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
    let behind = dice.place(20);
    bytes.extend(std::iter::repeat_with(|| dice.byte()).take(behind));
}

/// What must hold, whatever the bytes are.
fn judge(bytes: &[u8]) {
    let whole = pp::decode(bytes);
    for cut in 0..=bytes.len() {
        let part = pp::decode(&bytes[..cut]);
        match (part, whole) {
            // So far it could be one.
            (Ok(None), Ok(Some(decoded))) => assert!(cut < decoded.len),
            (Ok(None), Ok(None) | Err(_)) => assert!(cut < HEADER_BYTES_MAX),
            // Once judged, more bytes change nothing.
            (judged, whole) => assert_eq!(judged, whole, "at {cut}"),
        }
    }
    let Ok(Some(decoded)) = whole else {
        return;
    };
    assert!(decoded.len <= bytes.len().min(HEADER_BYTES_MAX));
    if let Header::Proxied { client, local } = decoded.header {
        for version in [HeaderVersion::V1, HeaderVersion::V2] {
            let again = pp::encode(version, client, local);
            let again = pp::decode(&again).unwrap().unwrap().header;
            assert_eq!(again, decoded.header);
        }
    }
}

#[test]
fn whatever_comes_is_judged_once_and_the_same_way() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let steps = number("LBD_FUZZ_STEPS").unwrap_or(100_000);
    let first = number("LBD_FUZZ_SEED").unwrap_or(1);
    let (mut accepted, mut refused) = (0, 0);
    for seed in first..first + steps {
        let mut dice = Dice(seed);
        let mut bytes = sound(&mut dice);
        damage(&mut dice, &mut bytes);
        let judged = std::panic::catch_unwind(|| judge(&bytes));
        assert!(
            judged.is_ok(),
            "LBD_FUZZ_SEED={seed} LBD_FUZZ_STEPS=1: {bytes:?}"
        );
        match pp::decode(&bytes) {
            Ok(Some(_)) => accepted += 1,
            Ok(None) => {}
            Err(_) => refused += 1,
        }
    }
    // Both doors are used.
    assert!(
        steps < 1000 || (accepted > steps / 10 && refused > steps / 10),
        "{accepted} {refused}"
    );
}
