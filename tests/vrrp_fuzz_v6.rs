//! Random and mutated IPv6 packets against validation and the election machine: no panic, and a
//! packet is accepted exactly if an independent checker calls it valid. The checker is written from RFC 9568 §5 and §7.1 and lbd's documented choices, with plain arithmetic
//! over the bytes; it shares no code with lbd.
#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

#[path = "lab/dice.rs"]
mod dice;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use dice::Dice;
use lbd::config::model::{Auth, Garp, Mode, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version, Vrid};
use lbd::vrrp::fsm::{Input, Machine, NodeHealth, Settings};
use lbd::vrrp::packet::Datagram;
use lbd::vrrp::validate::{OwnAddresses, Peer, Rules};

const ME: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PEERS: [[u8; 16]; 2] = [
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
];
const GROUP: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12];

/// What the virtual router of this run is.
#[derive(Clone, Copy)]
struct Case {
    multicast: bool,
    min_ttl: u8,
}

const CASES: [Case; 3] = [
    Case {
        multicast: false,
        min_ttl: 255,
    },
    Case {
        multicast: false,
        min_ttl: 64,
    },
    Case {
        multicast: true,
        min_ttl: 64,
    },
];

/// A packet as the kernel tells of it.
#[derive(Debug)]
struct Packet {
    source: [u8; 16],
    destination: [u8; 16],
    hops: u8,
    payload: Vec<u8>,
}

/// One's complement sum of the pseudo-header and the message.
fn total(packet: &Packet) -> u32 {
    let mut all = [packet.source, packet.destination].concat();
    let length = u32::try_from(packet.payload.len()).unwrap();
    all.extend(length.to_be_bytes());
    all.extend([0, 0, 0, 112]);
    all.extend(&packet.payload);
    let mut sum = 0u32;
    let mut place = 0;
    while place < all.len() {
        let high = u32::from(all[place]) * 256;
        sum += high + all.get(place + 1).map_or(0, |low| u32::from(*low));
        if sum >= 0x1_0000 {
            sum -= 0xffff;
        }
        place += 2;
    }
    sum
}

/// The checker: is this an advert we must obey?
fn is_valid(case: Case, packet: &Packet) -> bool {
    let to_us = packet.destination == if case.multicast { GROUP } else { ME };
    let near = packet.hops >= if case.multicast { 255 } else { case.min_ttl };
    let known = PEERS.contains(&packet.source);
    let p = &packet.payload;
    if !to_us || !near || !known || p.len() < 24 {
        return false;
    }
    let length = 8 + 16 * usize::from(p[3]);
    p[0] == 0x31
        && p[1] == 60
        && p[3] > 0
        && p.len() == length
        && (p[4] & 15 != 0 || p[5] != 0)
        && total(packet) == 0xffff
}

/// Sets the checksum right, so that what lies behind it is reached.
fn sum_up(packet: &mut Packet) {
    if packet.payload.len() < 8 {
        return;
    }
    packet.payload[6] = 0;
    packet.payload[7] = 0;
    let sum = u16::try_from(0xffff - total(packet)).unwrap();
    packet.payload[6..8].copy_from_slice(&sum.to_be_bytes());
}

fn good(case: Case, dice: &mut Dice) -> Packet {
    let count = 1 + dice.place(3);
    let priority = match dice.place(4) {
        0 => 0,
        1 => 255,
        _ => dice.byte(),
    };
    let mut payload = vec![
        0x31,
        60,
        priority,
        u8::try_from(count).unwrap(),
        0,
        10,
        0,
        0,
    ];
    if dice.place(3) == 0 {
        payload[4] = dice.byte();
        payload[5] = dice.byte();
    }
    for _ in 0..16 * count {
        payload.push(dice.byte());
    }
    let mut packet = Packet {
        source: PEERS[dice.place(2)],
        destination: if case.multicast { GROUP } else { ME },
        hops: if case.multicast {
            255
        } else {
            case.min_ttl.max(dice.byte())
        },
        payload,
    };
    sum_up(&mut packet);
    packet
}

/// Spoils one thing, and often sets the checksum right again.
fn mutate(packet: &mut Packet, dice: &mut Dice) {
    let end = packet.payload.len();
    match dice.place(7) {
        0 => packet.source[dice.place(16)] ^= 1 << dice.place(8),
        1 => packet.destination[dice.place(16)] ^= 1 << dice.place(8),
        2 => packet.hops = dice.byte(),
        3 => packet.payload.truncate(dice.place(end)),
        4 => packet.payload.push(dice.byte()),
        5 => packet.payload[dice.place(8)] = dice.byte(),
        _ => packet.payload[dice.place(end)] ^= 1 << dice.place(8),
    }
    if dice.place(2) == 0 {
        sum_up(packet);
    }
}

fn random(case: Case, dice: &mut Dice) -> Packet {
    let mut packet = good(case, dice);
    match dice.place(8) {
        0 | 1 => {}
        2 => {
            packet.payload = (0..dice.place(64)).map(|_| dice.byte()).collect();
            sum_up(&mut packet);
        }
        _ => mutate(&mut packet, dice),
    }
    packet
}

fn router(case: Case) -> (Rules, Settings) {
    let interval = AdvertInterval::new(Version::V3, Duration::from_millis(100)).unwrap();
    let me = IpAddr::V6(Ipv6Addr::from(ME));
    let rules = Rules {
        version: Version::V3,
        vrid: Vrid::try_from(60).unwrap(),
        interval,
        auth: Auth::None,
        mode: if case.multicast {
            Mode::Multicast
        } else {
            Mode::Unicast
        },
        me,
        peers: PEERS
            .map(|address| Peer {
                address: Ipv6Addr::from(address).into(),
                min_ttl: case.min_ttl,
            })
            .to_vec(),
        addresses: OwnAddresses::V6(vec![[0xfd; 16]]),
    };
    let settings = Settings {
        version: Version::V3,
        me,
        base: Priority::try_from(150).unwrap(),
        interval,
        spacing: interval.default_spacing(),
        preempt: Preempt::Always,
        lease: Some(Duration::from_secs(2)),
        garp: Garp {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            interval: Duration::ZERO,
        },
        recovery_delay: Duration::from_secs(1),
        alone: false,
    };
    (rules, settings)
}

#[test]
fn a_packet_is_accepted_exactly_if_the_checker_calls_it_valid() {
    let packets: u32 =
        std::env::var("LBD_FUZZ_PACKETS").map_or(300_000, |count| count.parse().unwrap());
    let (mut valid, mut invalid) = (0u32, 0u32);
    let mut visited = [0u32; 4];
    for (seed, case) in (1..).zip(CASES) {
        let mut dice = Dice(seed);
        let (rules, settings) = router(case);
        let mut now = lbd::net::clock::now();
        let mut machine = Machine::new(settings, now);
        machine.handle(now, Input::Up);
        let healthy = NodeHealth {
            can_serve: true,
            known: true,
            weight: 0,
            probe_epoch: NodeHealth::NO_PROBE,
        };
        machine.handle(now, Input::Health(healthy));
        for _ in 0..packets / 3 {
            let packet = random(case, &mut dice);
            let datagram = Datagram {
                source: Ipv6Addr::from(packet.source).into(),
                destination: Ipv6Addr::from(packet.destination).into(),
                ttl: packet.hops,
                payload: &packet.payload,
            };
            let verdict = rules.judge(datagram, None);
            let checked = is_valid(case, &packet);
            assert_eq!(verdict.is_ok(), checked, "{verdict:?} {packet:02x?}");
            match verdict {
                Ok(advert) => {
                    machine.handle(now, Input::Advert(advert));
                    valid += 1;
                }
                Err(_) => invalid += 1,
            }
            visited[match machine.state() {
                VrrpState::Initialize => 0,
                VrrpState::Backup => 1,
                VrrpState::Active => 2,
                VrrpState::Leaving => 3,
            }] += 1;
            if dice.place(16) == 0
                && let Some(deadline) = machine.deadline()
            {
                now = now.max(deadline);
                machine.handle(now, Input::Timer);
            }
        }
    }
    println!("{valid} valid, {invalid} invalid, packets met by state: {visited:?}");
    assert!(valid > packets / 5 && invalid > packets / 3);
    assert!(visited[1..3].iter().all(|count| *count > packets / 1000));
}
