//! A million random and mutated packets against validation and the election machine: no panic, and
//! nothing that an independent checker calls invalid changes a state or moves a deadline. The
//! checker below is written from RFC 9568 §5 and §7.1, RFC 3768 §5 and §7.1 and lbd's documented
//! choices, with plain arithmetic over the bytes; it shares no code with lbd.
#![expect(clippy::unwrap_used, reason = "helpers of a test may stop it")]

#[path = "lab/dice.rs"]
mod dice;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dice::Dice;
use lbd::config::model::{Auth, Garp, Hmac, HmacKey, HmacMode, Mode, Password, Preempt, Secret};
use lbd::ipc::message::VrrpState;
use lbd::units::{AdvertInterval, Priority, Version, Vrid};
use lbd::vrrp::fsm::{Input, Machine, NodeHealth, Settings};
use lbd::vrrp::hmac::{Clock, Seal};
use lbd::vrrp::packet::Reject;
use lbd::vrrp::validate::{Accepted, OwnAddresses, Peer, Rules};

const ME: [u8; 4] = [172, 16, 0, 2];
const PEERS: [[u8; 4]; 2] = [[172, 16, 0, 1], [172, 16, 0, 3]];
const GROUP: [u8; 4] = [224, 0, 0, 18];
const PASSWORD: [u8; 8] = *b"1111\0\0\0\0";

/// What the virtual router of this run is.
#[derive(Clone, Copy)]
struct Case {
    version: u8,
    multicast: bool,
    pass: bool,
    /// Adverts carry an HMAC trailer.
    hmac: bool,
    min_ttl: u8,
    /// Our interval in the unit of the wire.
    interval: u16,
}

const CASES: [Case; 6] = [
    Case {
        version: 2,
        multicast: false,
        pass: true,
        hmac: false,
        min_ttl: 255,
        interval: 1,
    },
    Case {
        version: 2,
        multicast: true,
        pass: false,
        hmac: false,
        min_ttl: 255,
        interval: 3,
    },
    Case {
        version: 3,
        multicast: false,
        pass: false,
        hmac: false,
        min_ttl: 64,
        interval: 10,
    },
    Case {
        version: 3,
        multicast: true,
        pass: false,
        hmac: false,
        min_ttl: 64,
        interval: 100,
    },
    Case {
        version: 3,
        multicast: false,
        pass: false,
        hmac: true,
        min_ttl: 255,
        interval: 100,
    },
    Case {
        version: 2,
        multicast: false,
        pass: false,
        hmac: true,
        min_ttl: 255,
        interval: 2,
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

/// The keys of a case with HMAC, in the order of the configuration.
const KEYS: [(u8, &[u8; 32]); 2] = [
    (9, b"the first of the keys, it signs."),
    (200, b"the second, accepted all along.."),
];
const TRAILER: usize = 28;
/// 6 s are three intervals of 2 s; 5 s are more than three of 1 s. In parts of a second.
const WINDOWS: [(u8, i128); 2] = [(3, 5 << 32), (2, 6 << 32)];
const WALL_SECONDS: u64 = 1_800_000_000;

/// What the checker knows of time and of what was accepted before.
struct Past {
    start: Instant,
    now: Instant,
    /// How far our wall clock is off.
    wall_off: i128,
    /// Last accepted time of each peer, and when that was.
    accepted: [Option<(u64, Instant)>; 2],
    /// Last time each peer has signed with.
    signed: [u64; 2],
}

impl Past {
    fn beginning(now: Instant) -> Self {
        Self {
            start: now,
            now,
            wall_off: 0,
            accepted: [None; 2],
            signed: [0; 2],
        }
    }

    /// The true time in 1/2^32 s since 1970.
    fn time(&self) -> i128 {
        let since = i128::try_from((self.now - self.start).as_nanos()).unwrap();
        (i128::from(WALL_SECONDS) << 32) + (since << 32) / 1_000_000_000
    }

    fn wall(&self) -> Duration {
        let nanos = ((self.time() + self.wall_off) * 1_000_000_000) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap())
    }

    /// The checker's second part: is the trailer right, fresh and new? Then it is remembered.
    fn admits(&mut self, case: Case, source: &[u8], m: &[u8], trailer: &[u8]) -> bool {
        if trailer[0] != 1 || trailer[2] != 0 || trailer[3] != 0 {
            return false;
        }
        let Some((_, key)) = KEYS.iter().find(|(id, _)| *id == trailer[1]) else {
            return false;
        };
        if mac(*key, source, m, &trailer[..12]) != trailer[12..] {
            return false;
        }
        let sent = u64::from_be_bytes(trailer[4..12].try_into().unwrap());
        let window = WINDOWS.iter().find(|(v, _)| *v == case.version).unwrap().1;
        // A stamp has no finer fraction of a second than 1/65536.
        let ours = ((self.time() + self.wall_off) >> 16) << 16;
        let peer = PEERS.iter().position(|peer| *peer == source).unwrap();
        let near_ours = (i128::from(sent) - ours).abs() <= window;
        let (near_its_own, is_newer) = match self.accepted[peer] {
            None => (false, true),
            Some((last, at)) => {
                let silent = i128::try_from((self.now - at).as_nanos()).unwrap();
                let silent = (silent << 32) / 1_000_000_000;
                let expected = i128::from(last) + silent;
                let given_up = i128::from(last) - ours > window && silent > window;
                (
                    (i128::from(sent) - expected).abs() <= window,
                    sent > last || given_up,
                )
            }
        };
        let admitted = (near_ours || near_its_own) && is_newer;
        if admitted {
            self.accepted[peer] = Some((sent, self.now));
        }
        admitted
    }
}

fn mac(key: &[u8], source: &[u8], m: &[u8], stamp: &[u8]) -> [u8; 16] {
    let mut all = vec![4, m[0] / 16, m[1], 0];
    all.extend(source);
    all.extend([0; 12]);
    all.extend(&m[..6]);
    all.extend([0, 0]);
    all.extend(&m[8..]);
    all.extend(stamp);
    all.extend([0; 16]);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::sign(&key, &all).as_ref()[..16]
        .try_into()
        .unwrap()
}

/// Signs what stands before the trailer, and makes the trailer if there is none.
fn sign(p: &mut [u8], dice: &mut Dice, past: &mut Past) {
    if p.len() < 20 + 8 + TRAILER {
        return;
    }
    let end = p.len() - TRAILER;
    let peer = PEERS
        .iter()
        .position(|peer| p[12..16] == *peer)
        .unwrap_or(0);
    let last = past.signed[peer];
    let time = u64::try_from(past.time()).unwrap();
    let skew = u64::try_from(dice.place(16)).unwrap() << 32;
    let sent = match dice.place(16) {
        0 => last,
        1 => last.wrapping_sub(1),
        2 => time + skew,
        3 => time - skew,
        4 => dice.roll(),
        _ => time.max(last + 1),
    };
    if sent.abs_diff(time) < 1 << 32 {
        past.signed[peer] = sent;
    }
    let (id, key) = KEYS[dice.place(2)];
    let id = if dice.place(50) == 0 { dice.byte() } else { id };
    p[end..end + 4].copy_from_slice(&[1, id, 0, 0]);
    p[end + 4..end + 12].copy_from_slice(&sent.to_be_bytes());
    let source = p[12..16].to_vec();
    let (m, trailer) = p[20..].split_at_mut(end - 20);
    let digest = mac(key, &source, m, &trailer[..12]);
    trailer[12..].copy_from_slice(&digest);
}

/// The checker: is this, as received by a raw socket, an advert we must obey?
fn is_valid(case: Case, past: &mut Past, p: &[u8]) -> bool {
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
    let hmac_bytes = if case.hmac { TRAILER } else { 0 };
    if total - header < 8 + hmac_bytes {
        return false;
    }
    let (m, hmac) = p[header..total].split_at(total - header - hmac_bytes);
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
        let interval = m[4] & 15 != 0 || m[5] != 0;
        return interval && (!case.hmac || past.admits(case, &p[12..16], m, hmac));
    }
    let tail = &m[m.len() - 8..];
    let auth = if case.pass {
        m[4] == 1 && *tail == PASSWORD
    } else {
        m[4] == 0
    };
    // What is signed rightly is remembered even if its interval is wrong, but 0 is none.
    let signed = !case.hmac || auth && m[5] != 0 && past.admits(case, &p[12..16], m, hmac);
    auth && signed && u16::from(m[5]) == case.interval
}

/// Sets the checksum right, in one of the forms, so that what lies behind it is reached.
fn sum_up(case: Case, p: &mut [u8], with_pseudo: bool) {
    let header = usize::from(p.first().map_or(0, |byte| byte % 16)) * 4;
    let trailer = if case.hmac { TRAILER } else { 0 };
    if header < 20 || p.len() < header + 8 + trailer {
        return;
    }
    let end = p.len() - trailer;
    p[header + 6] = 0;
    p[header + 7] = 0;
    let mut bytes = Vec::new();
    if with_pseudo {
        bytes.extend_from_slice(&p[12..20]);
        let length = u16::try_from(end - header).unwrap().to_be_bytes();
        bytes.extend_from_slice(&[0, 112, length[0], length[1]]);
    }
    bytes.extend_from_slice(&p[header..end]);
    let sum = u16::try_from(0xffff - ones_complement(&bytes)).unwrap();
    p[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
}

fn good_packet(case: Case, dice: &mut Dice, past: &mut Past) -> Vec<u8> {
    let destination = if case.multicast { GROUP } else { ME };
    let addresses = if dice.place(8) == 0 {
        1 + dice.place(4)
    } else {
        1
    };
    let trailer = if case.version == 2 { 8 } else { 0 };
    let signature = if case.hmac { TRAILER } else { 0 };
    let total = 20 + 8 + 4 * addresses + trailer + signature;
    let mut p = vec![0x45, 0xc0, 0, u8::try_from(total).unwrap()];
    p.extend([0, dice.byte(), 0, 0, 255, 112, 0, 0]);
    p.extend(PEERS[dice.place(2)]);
    p.extend(destination);
    let priority = match dice.place(6) {
        0 => 0,
        1 => 1,
        2 => 100,
        3 => 200,
        _ => dice.byte(),
    };
    let count = u8::try_from(addresses).unwrap();
    p.extend([case.version * 16 + 1, 60, priority, count]);
    let interval = if case.version == 3 && dice.place(8) == 0 {
        u16::try_from(1 + dice.place(4095)).unwrap()
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
    p.extend(vec![0; signature]);
    sum_up(case, &mut p, case.version == 3);
    if case.hmac {
        sign(&mut p, dice, past);
    }
    p
}

fn mutate(case: Case, p: &mut Vec<u8>, dice: &mut Dice, past: &mut Past) {
    for _ in 0..=dice.place(3) {
        match dice.place(6) {
            0 => {
                let keep = dice.place(p.len() + 1);
                p.truncate(keep);
            }
            1 => p.extend((0..dice.place(12)).map(|_| 0)),
            2 | 3 if !p.is_empty() => {
                let place = dice.place(p.len());
                p[place] ^= 1 << dice.place(8);
            }
            _ if !p.is_empty() => {
                let place = dice.place(p.len());
                p[place] = dice.byte();
            }
            _ => {}
        }
    }
    match dice.place(4) {
        0 => sum_up(case, p, true),
        1 => sum_up(case, p, false),
        2 if p.len() > 19 => {
            // Let the length field agree, too.
            let total = u16::try_from(p.len()).unwrap().to_be_bytes();
            p[2..4].copy_from_slice(&total);
            sum_up(case, p, dice.place(2) == 0);
        }
        _ => {}
    }
    if case.hmac && dice.place(2) == 0 {
        sign(p, dice, past);
    }
}

fn random_packet(case: Case, dice: &mut Dice, past: &mut Past) -> Vec<u8> {
    match dice.place(20) {
        0 => (0..dice.place(80)).map(|_| dice.byte()).collect(),
        1 => good_packet(case, dice, past),
        _ => {
            let mut p = good_packet(case, dice, past);
            mutate(case, &mut p, dice, past);
            p
        }
    }
}

fn hmac() -> Hmac {
    let key = |(id, key): &(u8, &[u8; 32])| HmacKey {
        id: *id,
        secret: Secret(key.to_vec()),
    };
    Hmac {
        keys: KEYS.iter().map(key).collect(),
        mode: HmacMode::Enforce,
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
        auth: match (case.pass, case.hmac) {
            (true, _) => Auth::Pass(Password(PASSWORD)),
            (false, true) => Auth::Hmac(hmac()),
            (false, false) => Auth::None,
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

fn judge(
    case: Case,
    rules: &Rules,
    seal: &mut Seal,
    past: &Past,
    packet: &[u8],
) -> Result<Accepted, Reject> {
    if !case.hmac {
        return rules.accept(packet);
    }
    let clock = Clock {
        wall: past.wall(),
        at: past.now,
    };
    rules.accept_signed(packet, seal, clock)
}

/// How much later the next packet comes; now and then our wall clock jumps.
fn pass_time(dice: &mut Dice, past: &mut Past) -> Duration {
    if dice.place(300) == 0 {
        let seconds = [0, 0, 3600, -3600, 4][dice.place(5)];
        past.wall_off = seconds << 32;
    }
    Duration::from_millis(u64::try_from(dice.place(400)).unwrap())
}

#[test]
fn no_packet_the_checker_calls_invalid_changes_a_state_or_moves_a_deadline() {
    let packets: u32 =
        std::env::var("LBD_FUZZ_PACKETS").map_or(1_000_000, |count| count.parse().unwrap());
    let mut visited = [0u32; 4];
    let (mut valid, mut invalid) = (0u32, 0u32);
    let mut reasons = std::collections::BTreeMap::new();
    for (seed, case) in (1..).zip(CASES) {
        let mut dice = Dice(seed);
        let (rules, settings) = router(case);
        let mut now = lbd::net::clock::now();
        let mut machine = Machine::new(settings, now);
        let mut seal = Seal::new(&hmac(), rules.interval, rules.peers.len());
        let mut past = Past::beginning(now);
        machine.handle(now, Input::Up);
        machine.handle(now, health(true));
        for _ in 0..packets / 6 {
            past.now = now;
            let packet = random_packet(case, &mut dice, &mut past);
            let verdict = judge(case, &rules, &mut seal, &past, &packet);
            let checked = is_valid(case, &mut past, &packet);
            assert_eq!(verdict.is_ok(), checked, "{verdict:?} {packet:02x?}");
            let before = (machine.deadline(), machine.state(), machine.active());
            if let (true, Err(reason)) = (case.hmac, verdict) {
                *reasons.entry(reason.word()).or_insert(0u32) += 1;
            }
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
            if dice.place(16) == 0
                && let Some(deadline) = machine.deadline()
            {
                now = now.max(deadline);
                machine.handle(now, Input::Timer);
            }
            if case.hmac {
                now += pass_time(&mut dice, &mut past);
            }
            if dice.place(150) == 0 {
                machine.handle(now, health(dice.place(2) == 0));
            }
        }
    }
    println!("{valid} valid, {invalid} invalid, packets met by state: {visited:?}");
    println!("refused where HMAC is demanded: {reasons:?}");
    for reason in ["key", "digest", "clock", "replay", "form"] {
        let count = reasons.get(&*format!("hmac-{reason}"));
        assert!(count > Some(&(packets / 20_000)), "{reason}: {count:?}");
    }
    assert!(valid > packets / 50 && invalid > packets / 2);
    assert!(visited[1..].iter().all(|count| *count > packets / 1000));
}
