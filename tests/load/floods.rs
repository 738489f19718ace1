//! Junk at an active node, and forged adverts.

use std::cell::Cell;
use std::time::Duration;

use lbd::net::clock;

use super::forge::{Forged, LB1 as LB1_IP, LB2 as LB2_IP, STRANGER, Stranger};
use super::lab::cases::Case;
use super::lab::scenario::{Setup, Stack, V2_1S, V3_100MS, pair};
use super::lab::{LB1, LB2, Pair, Role};
use super::tap::Tap;
use super::{pass, seconds, work_for};

pub const CASES: &[Case] = &[
    (
        "twenty_thousand_junk_packets_a_second_delay_no_advert_at_100_ms",
        &[],
        || {
            flood(&V3_100MS, &junk_v3(), Duration::from_millis(100));
        },
    ),
    (
        "twenty_thousand_junk_packets_a_second_delay_no_advert_in_version_2",
        &[],
        || {
            flood(&V2_1S, &junk_v2(), Duration::from_secs(1));
        },
    ),
    (
        "one_forged_advert_of_any_kind_from_a_stranger_has_no_effect",
        &[],
        forged,
    ),
];

/// Packets a second.
const RATE: u128 = 20_000;
/// The most that the flood may cost the keeper, percent of one processor; debug builds included.
const CPU_MAX: u64 = 80;

/// One wrong thing each, as the reason under which it is counted; in the peer's name, so that it
/// gets past the socket filter where that can be.
fn junk(right: &Forged) -> Vec<(&'static str, Forged)> {
    let with = |change: &dyn Fn(&mut Forged)| {
        let mut forged = right.clone();
        change(&mut forged);
        forged
    };
    vec![
        ("unknown-sender", with(&|forged| forged.source = STRANGER)),
        ("ttl", with(&|forged| forged.ttl = 64)),
        ("truncated", with(&|forged| forged.cut = Some(6))),
        ("type", with(&|forged| forged.first += 1)),
        ("vrid", with(&|forged| forged.vrid = 61)),
        ("length", with(&|forged| forged.count = Some(3))),
        ("checksum", with(&|forged| forged.spoil = 1)),
        ("interval", with(&|forged| forged.interval = 0)),
    ]
}

fn junk_v2() -> Vec<(&'static str, Forged)> {
    let right = Forged::v2(LB1_IP, LB2_IP);
    let mut all = junk(&right);
    let version = Forged::v3(LB1_IP, LB2_IP, 100);
    let auth_type = Forged {
        auth: (0, [0; 8]),
        ..right.clone()
    };
    let auth_data = Forged {
        auth: (1, *b"2222\0\0\0\0"),
        ..right.clone()
    };
    all.push(("version", version));
    all.push(("auth-type", auth_type));
    all.push(("auth-data", auth_data));
    all.push((
        "interval",
        Forged {
            interval: 2,
            ..right
        },
    ));
    all
}

fn junk_v3() -> Vec<(&'static str, Forged)> {
    let right = Forged::v3(LB1_IP, LB2_IP, 10);
    let mut all = junk(&right);
    all.push(("version", Forged::v2(LB1_IP, LB2_IP)));
    let nothing = Forged {
        addresses: Vec::new(),
        ..right
    };
    all.push(("no-address", nothing));
    all
}

fn flood(setup: &Setup, junk: &[(&'static str, Forged)], interval: Duration) {
    let mut pair = pair(Stack::Lbd, setup);
    let stranger = Stranger::join(&mut pair);
    let tap = Tap::start(&pair);
    let before = transitions(&pair);
    let calm = cpu_over(&pair, Duration::from_secs(1));
    let packets: Vec<Vec<u8>> = junk.iter().map(|(_, forged)| forged.bytes()).collect();
    let time = seconds(6, 60);
    let (begin, cpu) = (clock::now(), keeper_ns(&pair));
    let sent = pour(&stranger, &packets, time);
    let took = clock::now() - begin;
    let used = (keeper_ns(&pair) - cpu) * 100 / u64::try_from(took.as_nanos()).expect("short");
    let rate = u128::from(sent) * 1_000 / took.as_millis();
    let spacing = tap.spacing(LB2_IP);
    println!(
        "    {rate} packets/s for {} s; {}",
        took.as_secs(),
        spacing.describe()
    );
    println!("    keeper: {used} % of a processor (calm: {calm} %)");
    for (reason, _) in junk {
        let sample = format!("reason=\"{reason}\"");
        let page = pair.metrics(LB2).expect("lbd answers");
        let line = page.lines().find(|line| line.contains(&sample));
        let count = line.and_then(|line| line.rsplit(' ').next());
        println!("    rejected, {reason}: {}", count.unwrap_or("0"));
        assert!(line.is_some(), "{reason} was not counted\n{page}");
    }
    // A starved machine sends fewer; with a tenth it would be no flood any more.
    assert!(rate >= RATE / 10, "only {rate} packets/s");
    assert_eq!(transitions(&pair), before, "{}", pair.report());
    assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
    // A tenth late, and what a busy machine adds.
    let bound = interval + interval / 10 + Duration::from_millis(30);
    let p99 = spacing.permille(990);
    assert!(p99 <= bound, "p99 {p99:?}, more than {bound:?}");
    assert!(used <= CPU_MAX, "{used} %");
}

/// Sends the packets in turn at `RATE`; how many were sent.
fn pour(stranger: &Stranger, packets: &[Vec<u8>], time: Duration) -> u32 {
    let begin = clock::now();
    let (tried, sent) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut next = packets.iter().cycle();
    let catch_up = || {
        let due = (clock::now() - begin).as_micros() * RATE / 1_000_000;
        // A machine that can't keep up is not to be held up either.
        let behind = due.saturating_sub(u128::from(tried.get()));
        for _ in 0..behind.min(2_000) {
            let packet = next.next().expect("it never ends");
            sent.update(|count| count + u32::from(stranger.send(packet, LB2_IP)));
            tried.update(|count| count + 1);
        }
    };
    work_for(time, catch_up, || format!("{} packets", tried.get()));
    sent.get()
}

fn forged() {
    for (setup, right) in [
        (&V2_1S, Forged::v2(STRANGER, LB2_IP)),
        (&V3_100MS, Forged::v3(STRANGER, LB2_IP, 10)),
    ] {
        let mut pair = pair(Stack::Lbd, setup);
        let stranger = Stranger::join(&mut pair);
        let before = transitions(&pair);
        let at = clock::now();
        let kinds = kinds(&right);
        for kind in &kinds {
            for destination in [LB2_IP, LB1_IP] {
                // In its own name, and with a peer's where a TTL of 64 gives it away.
                let kind = Forged {
                    destination,
                    ..kind.clone()
                };
                let posing = Forged {
                    source: if destination == LB2_IP {
                        LB1_IP
                    } else {
                        LB2_IP
                    },
                    ttl: 64,
                    ..kind.clone()
                };
                assert!(stranger.send(&kind.bytes(), destination));
                assert!(stranger.send(&posing.bytes(), destination));
            }
        }
        // Longer than a take-over, and than a learned interval would show.
        let longer = setup.interval * 4 + Duration::from_secs(1);
        pass(longer, String::new);
        assert_eq!(transitions(&pair), before, "{}", pair.report());
        assert_eq!(pair.only_holder(), Some(LB2), "{}", pair.report());
        let counts = pair.client().tally(|tally| tally.counts(at, clock::now()));
        assert_eq!(counts.failed(), 0, "{counts:?}");
        for node in [LB1, LB2] {
            let rejected = pair.metric(node, "lbd_vrrp_packets_rejected_total{");
            // 8 kinds, in two names; the kernel itself drops none of them.
            assert_eq!(rejected, Some(16), "node {node}");
        }
    }
}

/// What a stranger may say, each harmful if it were believed.
fn kinds(right: &Forged) -> [Forged; 8] {
    [
        Forged {
            priority: 0,
            ..right.clone()
        },
        Forged {
            priority: 1,
            ..right.clone()
        },
        Forged {
            priority: 254,
            ..right.clone()
        },
        Forged {
            priority: 255,
            ..right.clone()
        },
        Forged {
            interval: 4095,
            ..right.clone()
        },
        Forged {
            interval: 0,
            ..right.clone()
        },
        Forged {
            ttl: 64,
            ..right.clone()
        },
        Forged {
            addresses: vec![[172, 16, 0, 99]],
            ..right.clone()
        },
    ]
}

/// Changes of state on both nodes since they began.
pub fn transitions(pair: &Pair) -> [u64; 2] {
    [LB1, LB2].map(|node| {
        let of = |name| pair.metric(node, name).expect("lbd answers");
        of("lbd_vrrp_became_active_total{") + of("lbd_vrrp_left_active_total{")
    })
}

/// Nanoseconds on a processor of lb2's keeper.
pub fn keeper_ns(pair: &Pair) -> u64 {
    let keepers = pair.processes(LB2, Role::Keeper);
    let pid = keepers.first().expect("a keeper");
    let schedstat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    let first = schedstat.split(' ').next().expect("three numbers");
    first.parse().expect("a number")
}

/// Percent of a processor that the keeper uses while nothing happens.
fn cpu_over(pair: &Pair, time: Duration) -> u64 {
    let before = keeper_ns(pair);
    pass(time, String::new);
    (keeper_ns(pair) - before) * 100 / u64::try_from(time.as_nanos()).expect("short")
}
