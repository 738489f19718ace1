//! Recordings: made by machines under this program, and those of tests/replay, which real pairs
//! made. Each must go through the state machines again and give the same.

#![cfg(test)]

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lbd::config::model::{Garp, Preempt};
use lbd::daemon::supervise::Supervisor;
use lbd::net::clock;
use lbd::recorder::file::{self, Header, ReadError, VERSION};
use lbd::recorder::replay::{Timeline, replay};
use lbd::recorder::time;
use lbd::units::{AdvertInterval, Priority, Version};
use lbd::vrrp::fsm::{Input, Machine, NodeHealth, Settings};
use lbd::vrrp::recorded::RecordedMachine;
use lbd::vrrp::validate::Accepted;

fn settings() -> Settings {
    Settings {
        version: Version::V3,
        me: IpAddr::from([10, 9, 0, 1]),
        base: Priority::from_wire(200).unwrap(),
        interval: AdvertInterval::from_wire_v3(10).unwrap(),
        spacing: Duration::from_millis(100),
        preempt: Preempt::After(Duration::from_secs(3)),
        lease: Some(Duration::from_secs(3)),
        garp: Garp {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::from_secs(30),
            interval: Duration::ZERO,
        },
        recovery_delay: Duration::from_secs(2),
        alone: false,
    }
}

fn advert(priority: u8) -> Input {
    Input::Advert(Accepted {
        sender: IpAddr::from([10, 9, 0, 2]),
        peer: 0,
        priority,
        interval: AdvertInterval::from_wire_v3(10).unwrap(),
        interval_as_sent: true,
        same_addresses: true,
    })
}

/// A life with everything in it, of so many rounds.
fn lived(rounds: u64) -> (RecordedMachine, Instant) {
    let base = clock::now();
    time::count_from(base);
    let mut machine = RecordedMachine::new(settings(), base);
    machine.set_recovery_delay(Duration::from_millis(700));
    machine.handle(base, Input::Up);
    let mut now = base;
    for round in 0..rounds {
        now += Duration::from_millis(37 + round % 71);
        let health = NodeHealth {
            can_serve: round % 97 < 80,
            known: true,
            weight: i32::try_from(round % 5).unwrap() - 2,
            probe_epoch: round,
        };
        let input = match round % 211 {
            5 => Input::Failover {
                hold: Some(Duration::from_secs(2)),
            },
            90 => Input::Mute(true),
            95 => Input::Mute(false),
            120 => Input::AddressLost,
            130 => Input::AddressFailed,
            150 => Input::Unheard(true),
            170 => Input::Unheard(false),
            200 => Input::Down,
            203 => Input::Up,
            step if step % 7 == 0 => Input::Health(health),
            step if step % 3 == 0 && step < 110 => advert(u8::try_from(round % 251).unwrap()),
            _ => Input::Timer,
        };
        machine.handle(now, input);
        if round % 1_000 == 400 {
            machine.set_cut_off("the link is down");
            machine.adjust(Settings {
                preempt: Preempt::Never,
                ..settings()
            });
        }
    }
    (machine, now)
}

fn recording(rounds: u64) -> String {
    let (machine, now) = lived(rounds);
    let header = Header {
        version: VERSION,
        lbd: "0.0.0".into(),
        config: "00".into(),
        node: Some("lb1".into()),
        boot: String::new(),
        why: "ordered".into(),
        wall_ms: 1_800_000_000_000,
        t: time::nanos(now),
    };
    let tapes = [("vrrp", "kube".to_owned(), machine.tape(now))];
    String::from_utf8(file::write(&header, &tapes).unwrap()).unwrap()
}

fn replayed(text: &str) -> Vec<(String, Timeline)> {
    time::count_from(clock::now());
    let recording = file::read(text).unwrap();
    let all = recording.machines.iter().map(|machine| {
        let timeline = match machine.kind.as_str() {
            "vrrp" => replay::<Machine>(machine).unwrap(),
            "supervise" => replay::<Supervisor>(machine).unwrap(),
            other => panic!("unknown kind {other}"),
        };
        (machine.name.clone(), timeline)
    });
    all.collect()
}

/// The states it went through.
fn states(timeline: &Timeline) -> Vec<String> {
    let of = |key: &str, step: &lbd::recorder::replay::Step| {
        step.standing
            .get(key)
            .and_then(|word| word.as_str())
            .unwrap_or("")
            .to_owned()
    };
    let mut all: Vec<String> = timeline
        .steps
        .iter()
        .map(|step| of("state", step))
        .collect();
    all.dedup();
    all
}

#[test]
fn a_machine_replays_as_it_lived() {
    let all = replayed(&recording(1_500));
    let (name, timeline) = &all[0];
    assert_eq!((name.as_str(), timeline.differences), ("kube", 0));
    assert_eq!(timeline.told, 1_500 + 2 + 4);
    let states = states(timeline);
    for state in ["initialize", "backup", "active", "leaving"] {
        assert!(
            states.iter().any(|seen| seen == state),
            "{state}: {states:?}"
        );
    }
}

#[test]
fn what_was_overwritten_is_not_missed() {
    let text = recording(40_000);
    assert!(text.len() < 1_800_000, "{} bytes", text.len());
    let all = replayed(&text);
    assert_eq!(all[0].1.differences, 0);
    assert!(
        (3_000..40_000).contains(&all[0].1.told),
        "{}",
        all[0].1.told
    );
}

#[test]
fn another_input_is_found_out() {
    let text = recording(400);
    let line = text.lines().position(|line| line.contains("\"Advert\""));
    let line = line.unwrap();
    let changed: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(at, text)| match at == line {
            true => text.replace("\"priority\":", "\"priority\":25"),
            false => text.to_owned(),
        })
        .collect();
    let changed = changed
        .join("\n")
        .replace("\"out\":[\"Claim\"", "\"out\":[\"Restore\"");
    let found = file::read(&changed).map(|recording| replay::<Machine>(&recording.machines[0]));
    // One that is refused is fine, too.
    if let Ok(Ok(timeline)) = found {
        assert!(timeline.differences > 0);
    }
    let answer = text.replacen("\"out\":[\"Claim\"", "\"out\":[\"Restore\"", 1);
    assert_ne!(answer, text);
    assert_eq!(replayed(&answer)[0].1.differences, 1);
}

#[test]
fn a_file_that_is_cut_off_foreign_or_of_another_form_says_so() {
    let text = recording(60);
    for end in (0..text.len() - 1).step_by(7) {
        assert!(file::read(text.get(..end).unwrap()).is_err(), "{end}");
    }
    let lines = text.lines().count();
    let short: Vec<&str> = text.lines().take(lines - 1).collect();
    assert!(matches!(
        file::read(&short.join("\n")),
        Err(ReadError::CutOff { .. })
    ));
    let missing: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != 5)
        .map(|(_, line)| line)
        .collect();
    assert!(matches!(
        file::read(&missing.join("\n")),
        Err(ReadError::Count { .. })
    ));
    assert!(matches!(
        file::read("[log]\nlevel = 1\n"),
        Err(ReadError::Foreign)
    ));
    assert!(matches!(file::read(""), Err(ReadError::Foreign)));
    let other = text.replacen("\"lbd-recording\":1", "\"lbd-recording\":2", 1);
    assert!(matches!(
        file::read(&other),
        Err(ReadError::OtherVersion { found: 2, .. })
    ));
}

#[test]
fn no_bytes_stop_the_reader() {
    let text = recording(80).into_bytes();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |most: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(most).unwrap()).unwrap()
    };
    let odd = b"\"{}[],:0198-eE\\\n\0\xffatn";
    let mut read = 0;
    for _ in 0..1_500 {
        let mut bytes = text.clone();
        for _ in 0..=random(3) {
            let (at, with) = (random(bytes.len()), random(odd.len()));
            bytes[at] = odd[with];
        }
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let Ok(recording) = file::read(&text) else {
            continue;
        };
        for machine in &recording.machines {
            read += usize::from(replay::<Machine>(machine).is_ok());
        }
    }
    assert!(read > 5, "{read}");
}

#[test]
fn recordings_of_real_pairs_replay_as_they_were() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replay");
    let mut seen = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "rec") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (name, timeline) in replayed(&text) {
            assert_eq!(timeline.differences, 0, "{} {name}", path.display());
            assert!(timeline.told > 10, "{} {name}", path.display());
        }
        seen.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    seen.sort();
    let known = [
        "node-killed",
        "partition-lb1",
        "partition-lb2",
        "proxy-killed",
    ];
    for known in known {
        assert!(seen.iter().any(|seen| seen == known), "{known}: {seen:?}");
    }
}
