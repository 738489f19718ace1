//! A million random and mutated packets against validation and the election machine: no panic, and
//! nothing that an independent checker calls invalid changes a state or moves a deadline. The
//! checker below is written from RFC 9568 §5 and §7.1, RFC 3768 §5 and §7.1 and lbd's documented
//! choices, with plain arithmetic over the bytes; it shares no code with lbd.
#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

use std::net::Ipv4Addr;
use std::time::Duration;

use lbd::config::model::{Auth, Garp, Mode, Password, Preempt};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version, Vrid};
use lbd::vrrp::fsm::{Input, Machine, NodeHealth, Settings};
use lbd::vrrp::validate::{OwnAddresses, Peer, Rules};

const ME: [u8; 4] = [172, 16, 0, 2];
const PEERS: [[u8; 4]; 2] = [[172, 16, 0, 1], [172, 16, 0, 3]];
const GROUP: [u8; 4] = [224, 0, 0, 18];
const PASSWORD: [u8; 8] = *b"1111\0\0\0\0";

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap() % end
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }
}

/// What the virtual router of this run is.
#[derive(Clone, Copy)]
struct Case {
    version: u8,
    multicast: bool,
    pass: bool,
    min_ttl: u8,
    /// Our interval in the unit of the wire.
    interval: u16,
}

const CASES: [Case; 4] = [
    Case {
        version: 2,
        multicast: false,
        pass: true,
        min_ttl: 255,
        interval: 1,
    },
    Case {
        version: 2,
        multicast: true,
        pass: false,
        min_ttl: 255,
        interval: 3,
    },
    Case {
        version: 3,
        multicast: false,
        pass: false,
        min_ttl: 64,
        interval: 10,
    },
    Case {
        version: 3,
        multicast: true,
        pass: false,
        min_ttl: 64,
        interval: 100,
    },
];

fn ones_complement(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    let mut place = 0;
    while place < bytes.len() {
        let high = u32::from(bytes[place]) * 256;
        let low = bytes.get(place + 1).map_or(0, |low| u32::from(*low));
        sum += high + low;
        if sum >= 0x1_0000 {
            sum -= 0xffff;
        }
        place += 2;
    }
    sum
}

/// The checker: is this, as received by a raw socket, an advert we must obey?
fn is_valid(case: Case, p: &[u8]) -> bool {
    if p.len() < 20 || p[0] / 16 != 4 {
        return false;
    }
    let header = usize::from(p[0] % 16) * 4;
    let total = usize::from(p[2]) * 256 + usize::from(p[3]);
    if header < 20 || total < header + 8 || total > p.len() {
        return false;
    }
    let fragment = p[6] & 0x20 != 0 || p[6] & 0x1f != 0 || p[7] != 0;
    let destination = if case.multicast { GROUP } else { ME };
    let min_ttl = if case.multicast { 255 } else { case.min_ttl };
    if fragment || p[9] != 112 || p[8] < min_ttl || p[16..20] != destination {
        return false;
    }
    if !PEERS.iter().any(|peer| p[12..16] == *peer) {
        return false;
    }
    let m = &p[header..total];
    if m[0] != case.version * 16 + 1 || m[1] != 60 || m[3] == 0 {
        return false;
    }
    let trailer = if case.version == 2 { 8 } else { 0 };
    if m.len() != 8 + 4 * usize::from(m[3]) + trailer {
        return false;
    }
    let plain = ones_complement(m) == 0xffff;
    let mut pseudo = p[12..20].to_vec();
    pseudo.extend([0, 112, p[2], 0]);
    let length = u16::try_from(m.len()).unwrap().to_be_bytes();
    pseudo[10..12].copy_from_slice(&length);
    pseudo.extend(m);
    let with_pseudo = case.version == 3 && ones_complement(&pseudo) == 0xffff;
    if !plain && !with_pseudo {
        return false;
    }
    if case.version == 3 {
        return m[4] & 15 != 0 || m[5] != 0;
    }
    let tail = &m[m.len() - 8..];
    let auth = if case.pass {
        m[4] == 1 && *tail == PASSWORD
    } else {
        m[4] == 0
    };
    auth && u16::from(m[5]) == case.interval
}

/// Sets the checksum right, in one of the forms, so that what lies behind it is reached.
fn sum_up(p: &mut [u8], with_pseudo: bool) {
    let header = usize::from(p.first().map_or(0, |byte| byte % 16)) * 4;
    if header < 20 || p.len() < header + 8 {
        return;
    }
    p[header + 6] = 0;
    p[header + 7] = 0;
    let mut bytes = Vec::new();
    if with_pseudo {
        bytes.extend_from_slice(&p[12..20]);
        let length = u16::try_from(p.len() - header).unwrap().to_be_bytes();
        bytes.extend_from_slice(&[0, 112, length[0], length[1]]);
    }
    bytes.extend_from_slice(&p[header..]);
    let sum = u16::try_from(0xffff - ones_complement(&bytes)).unwrap();
    p[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
}

fn good_packet(case: Case, dice: &mut Dice) -> Vec<u8> {
    let destination = if case.multicast { GROUP } else { ME };
    let addresses = if dice.below(8) == 0 {
        1 + dice.below(4)
    } else {
        1
    };
    let trailer = if case.version == 2 { 8 } else { 0 };
    let total = 20 + 8 + 4 * addresses + trailer;
    let mut p = vec![0x45, 0xc0, 0, u8::try_from(total).unwrap()];
    p.extend([0, dice.byte(), 0, 0, 255, 112, 0, 0]);
    p.extend(PEERS[dice.below(2)]);
    p.extend(destination);
    let priority = match dice.below(6) {
        0 => 0,
        1 => 1,
        2 => 100,
        3 => 200,
        _ => dice.byte(),
    };
    let count = u8::try_from(addresses).unwrap();
    p.extend([case.version * 16 + 1, 60, priority, count]);
    let interval = if case.version == 3 && dice.below(8) == 0 {
        u16::try_from(1 + dice.below(4095)).unwrap()
    } else {
        case.interval
    };
    let [high, low] = interval.to_be_bytes();
    p.extend([
        if case.version == 2 {
            u8::from(case.pass)
        } else {
            high
        },
        low,
        0,
        0,
    ]);
    for _ in 0..addresses {
        p.extend([172, 16, 0, 10]);
    }
    if case.version == 2 {
        p.extend(if case.pass { PASSWORD } else { [0; 8] });
    }
    sum_up(&mut p, case.version == 3);
    p
}

fn mutate(p: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        match dice.below(6) {
            0 => {
                let keep = dice.below(p.len() + 1);
                p.truncate(keep);
            }
            1 => p.extend((0..dice.below(12)).map(|_| 0)),
            2 | 3 if !p.is_empty() => {
                let place = dice.below(p.len());
                p[place] ^= 1 << dice.below(8);
            }
            _ if !p.is_empty() => {
                let place = dice.below(p.len());
                p[place] = dice.byte();
            }
            _ => {}
        }
    }
    match dice.below(4) {
        0 => sum_up(p, true),
        1 => sum_up(p, false),
        2 if p.len() > 19 => {
            // Let the length field agree, too.
            let total = u16::try_from(p.len()).unwrap().to_be_bytes();
            p[2..4].copy_from_slice(&total);
            sum_up(p, dice.below(2) == 0);
        }
        _ => {}
    }
}

fn random_packet(case: Case, dice: &mut Dice) -> Vec<u8> {
    match dice.below(20) {
        0 => (0..dice.below(80)).map(|_| dice.byte()).collect(),
        1 => good_packet(case, dice),
        _ => {
            let mut p = good_packet(case, dice);
            mutate(&mut p, dice);
            p
        }
    }
}

fn router(case: Case) -> (Rules, Settings) {
    let version = if case.version == 2 {
        Version::V2
    } else {
        Version::V3
    };
    let unit = if case.version == 2 { 1000 } else { 10 };
    let span = Duration::from_millis(u64::from(case.interval) * unit);
    let interval = AdvertInterval::new(version, span).unwrap();
    let rules = Rules {
        version,
        vrid: Vrid::try_from(60).unwrap(),
        interval,
        auth: if case.pass {
            Auth::Pass(Password(PASSWORD))
        } else {
            Auth::None
        },
        mode: if case.multicast {
            Mode::Multicast
        } else {
            Mode::Unicast
        },
        me: Ipv4Addr::from(ME).into(),
        peers: PEERS
            .map(|address| Peer {
                address: address.into(),
                min_ttl: case.min_ttl,
            })
            .to_vec(),
        addresses: OwnAddresses::V4(vec![[172, 16, 0, 10]]),
    };
    let settings = Settings {
        version,
        me: Ipv4Addr::from(ME).into(),
        base: Priority::try_from(150).unwrap(),
        interval,
        spacing: interval.duration(),
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

fn health(can_serve: bool) -> Input {
    Input::Health(NodeHealth {
        can_serve,
        known: true,
        weight: 0,
        probe_epoch: NodeHealth::NO_PROBE,
    })
}

#[test]
fn no_packet_the_checker_calls_invalid_changes_a_state_or_moves_a_deadline() {
    let packets: u32 =
        std::env::var("LBD_FUZZ_PACKETS").map_or(1_000_000, |count| count.parse().unwrap());
    let mut visited = [0u32; 4];
    let (mut valid, mut invalid) = (0u32, 0u32);
    for (seed, case) in (1..).zip(CASES) {
        let mut dice = Dice(seed);
        let (rules, settings) = router(case);
        let mut now = lbd::net::clock::now();
        let mut machine = Machine::new(settings, now);
        machine.handle(now, Input::Up);
        machine.handle(now, health(true));
        for _ in 0..packets / 4 {
            let packet = random_packet(case, &mut dice);
            let verdict = rules.accept(&packet);
            let checked = is_valid(case, &packet);
            assert_eq!(verdict.is_ok(), checked, "{verdict:?} {packet:02x?}");
            let before = (machine.deadline(), machine.state(), machine.active());
            if let Ok(advert) = verdict {
                machine.handle(now, Input::Advert(advert));
                valid += 1;
            }
            if !checked {
                let after = (machine.deadline(), machine.state(), machine.active());
                assert_eq!(before, after, "{packet:02x?}");
                invalid += 1;
            }
            visited[match machine.state() {
                VrrpState::Initialize => 0,
                VrrpState::Backup => 1,
                VrrpState::Active => 2,
                VrrpState::Leaving => 3,
            }] += 1;
            // Time and health go on, so that each state meets each packet.
            if dice.below(16) == 0
                && let Some(deadline) = machine.deadline()
            {
                now = now.max(deadline);
                machine.handle(now, Input::Timer);
            }
            if dice.below(500) == 0 {
                machine.handle(now, health(dice.below(2) == 0));
            }
        }
    }
    println!("{valid} valid, {invalid} invalid, packets met by state: {visited:?}");
    assert!(valid > packets / 50 && invalid > packets / 2);
    assert!(visited[1..].iter().all(|count| *count > packets / 1000));
}
