//! Recordings: made by machines under this program, and those of tests/replay, which real pairs
//! made. Each must go through the state machines again and give the same.

#![cfg(test)]

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbd::config::model::{Check, CheckKind, Garp, Preempt};
use lbd::daemon::judge::recorded::RecordedJudge;
use lbd::daemon::judge::{Judge, Look, Seen};
use lbd::daemon::played::{self, Moment, Played};
use lbd::daemon::supervise::recorded::RecordedSupervisor;
use lbd::daemon::supervise::{Input as Watch, Standing};
use lbd::health;
use lbd::health::fsm::Health;
use lbd::health::recorded::{Loan, RecordedMachine as Watched, Tapes};
use lbd::net::clock;
use lbd::net::shm::{self, Words};
use lbd::recorder::blackbox::{BlackBox, WORDS};
use lbd::recorder::file::{self, Ended, Header, ReadError, VERSION};
use lbd::recorder::replay::{Step, Timeline, replay};
use lbd::recorder::time;
use lbd::units::{AdvertInterval, Count, Priority, Version};
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
    let tapes = [("vrrp", "kube".to_owned(), machine.tape(now))];
    written(now, &tapes, &[])
}

fn written(now: Instant, tapes: &[(&str, String, Vec<u8>)], others: &[u8]) -> String {
    let header = Header {
        version: VERSION,
        lbd: "0.0.0".into(),
        config: "00".into(),
        node: Some("lb1".into()),
        boot: String::new(),
        why: "ordered".into(),
        wall_ms: 1_800_000_000_000,
        t: time::nanos(now),
        lacks: None,
    };
    String::from_utf8(file::write(&header, tapes, &[("others", others)]).unwrap()).unwrap()
}

fn replayed(text: &str) -> Vec<(String, Timeline)> {
    let all = played_of(text).into_iter();
    all.map(|played| (played.name, played.timeline)).collect()
}

fn played_of(text: &str) -> Vec<Played> {
    time::count_from(clock::now());
    played::play(&file::read(text).unwrap()).unwrap()
}

/// The states it went through.
fn states(timeline: &Timeline) -> Vec<String> {
    let of = |key: &str, step: &Step| {
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
    let other = text.replacen("\"lbd-recording\":3", "\"lbd-recording\":4", 1);
    assert!(matches!(
        file::read(&other),
        Err(ReadError::OtherVersion { found: 4, .. })
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
        let mut told = 0;
        for (name, timeline) in replayed(&text) {
            assert_eq!(timeline.differences, 0, "{} {name}", path.display());
            told += timeline.told;
        }
        assert!(told > 20, "{}", path.display());
        seen.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    seen.sort();
    let known = [
        "node-killed",
        "server-and-track",
        "partition-lb1",
        "partition-lb2",
        "proxy-killed",
    ];
    for known in known {
        assert!(seen.iter().any(|seen| seen == known), "{known}: {seen:?}");
    }
}

fn check() -> Check {
    Check {
        kind: CheckKind::Tcp,
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_secs(1),
        down_interval: Duration::from_secs(3),
        timeout: Duration::from_secs(1),
        rise: Count::try_from(2).unwrap(),
        fall: Count::try_from(3).unwrap(),
    }
}

/// A server of which so many results were heard.
fn watched(rounds: u64) -> (Watched, Instant) {
    let base = clock::now();
    time::count_from(base);
    let tapes = Tapes::default();
    let machine = health::fsm::Machine::new(&check(), base).staggered(Duration::from_millis(300));
    let machine = Watched::new(machine, tapes.lend("p/a"), base);
    let mut now = base;
    for round in 0..rounds {
        let began = now;
        now += Duration::from_millis(round % 7);
        match round % 31 {
            3 => machine.skip("this process got no processor time", now),
            7..=12 => {
                let (found, because) = (Health::Unresponsive, Some("connection refused"));
                machine.on_result(found, because, began, now);
            }
            20..=22 => {
                machine.on_result(Health::NotReady, Some("HTTP 500"), began, now);
            }
            _ => {
                machine.on_result(Health::Ready, None, began, now);
            }
        }
        now = now.max(machine.deadline());
    }
    (machine, now)
}

#[test]
fn a_server_s_health_replays_as_it_was_however_much_was_overwritten() {
    for (rounds, least) in [(200, 200), (5_000, 250)] {
        let (machine, now) = watched(rounds);
        let tapes = [("health", "p/a".to_owned(), machine.tape(now).unwrap())];
        let text = written(now, &tapes, &[]);
        assert!(text.len() < 66_000, "{} bytes", text.len());
        let all = played_of(&text);
        let Timeline {
            told, differences, ..
        } = all[0].timeline;
        assert_eq!(differences, 0);
        assert!(
            (least..=usize::try_from(rounds).unwrap()).contains(&told),
            "{told}"
        );
        let states = states(&all[0].timeline);
        for state in ["ready", "not-ready", "unresponsive"] {
            assert!(states.iter().any(|seen| seen == state), "{states:?}");
        }
    }
}

#[test]
fn another_verdict_of_a_server_is_found_out() {
    let (machine, now) = watched(200);
    let tapes = [("health", "p/a".to_owned(), machine.tape(now).unwrap())];
    let text = written(now, &tapes, &[]);
    let other = text.replacen(
        "\"to\":{\"known\":\"unresponsive\"}",
        "\"to\":{\"known\":\"ready\"}",
        1,
    );
    assert_ne!(other, text);
    assert_eq!(replayed(&other)[0].1.differences, 1);
    // A result less, or another: what follows differs.
    let other = text.replacen("\"found\":\"unresponsive\"", "\"found\":\"ready\"", 1);
    assert!(replayed(&other)[0].1.differences > 1);
}

#[test]
fn a_check_by_other_rules_goes_on_with_the_same_tape() {
    let (before, now) = watched(50);
    let loan = before.end();
    assert!(loan.is_some() && !before.is_recorded());
    let mut machine = health::fsm::Machine::new(
        &Check {
            fall: Count::TWO,
            ..check()
        },
        now,
    );
    machine.resume(Health::Ready);
    let after = Watched::new(machine, loan, now);
    after.on_result(Health::Unresponsive, Some("connection refused"), now, now);
    after.on_result(Health::Unresponsive, Some("connection refused"), now, now);
    let tapes = [("health", "p/a".to_owned(), after.tape(now).unwrap())];
    let all = replayed(&written(now, &tapes, &[]));
    assert_eq!((all[0].1.differences, all[0].1.told), (0, 52));
}

#[test]
fn tapes_of_servers_are_so_many_and_no_more() {
    let tapes = Tapes::default();
    let mut lent: Vec<_> = (0..256).map(|_| tapes.lend("p/a").unwrap()).collect();
    assert!(tapes.lend("p/a").is_none());
    drop(lent.pop());
    assert!(tapes.lend("p/a").is_some());
}

#[test]
fn the_times_of_another_process_are_put_at_their_places() {
    let (machine, now) = watched(40);
    let (router, _) = lived(40);
    let tape = machine.tape(now).unwrap();
    let mut others = Vec::new();
    file::section(&mut others, "health", "p/a", 5_000_000_000).unwrap();
    others.extend_from_slice(&tape);
    assert!(file::are_sections(&others));
    let tapes = [
        ("health", "p/a".to_owned(), tape),
        ("vrrp", "kube".to_owned(), router.tape(now)),
    ];
    let all = played_of(&written(now, &tapes, &others));
    assert!(all.iter().all(|played| played.timeline.differences == 0));
    let [own, _, other] = &all[..] else { panic!() };
    let shifted = own.timeline.steps.iter().map(|step| step.t + 5_000_000_000);
    assert!(shifted.eq(other.timeline.steps.iter().map(|step| step.t)));
    let moments = played::moments(&all);
    assert!(moments.is_sorted_by_key(|moment| moment.t));
}

#[test]
fn nothing_but_whole_sections_of_another_process_gets_in() {
    let (machine, now) = watched(5);
    let mut good = Vec::new();
    file::section(&mut good, "health", "p/a", 0).unwrap();
    good.extend_from_slice(&machine.tape(now).unwrap());
    assert!(file::are_sections(&good) && file::are_sections(b""));
    let without = |bytes: usize| good.get(..good.len() - bytes).unwrap();
    let with = |more: &[u8]| [good.as_slice(), more].concat();
    let tape = machine.tape(now).unwrap();
    for bad in [
        without(1),
        &tape,
        &with(b"{\"end\":3}\n"),
        &with(b"\n"),
        &with(b"{\"t\":1}"),
        &with(b"{\"t\":garbage\n"),
        &with(b"{\"t\":1,\"what\":2}\n"),
        &with(b"{\"section\":\"health\"}\n"),
        &with(b"{\"section\":\"vrrp\",\"name\":\"kube\"}\n"),
        &with(&[b"{\"t\":1", vec![b' '; 65_536].as_slice(), b"}\n"].concat()),
        &with(b"\xff\n"),
        b"rm -rf\n",
    ] {
        assert!(!file::are_sections(bad), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn a_tape_of_a_proxy_that_makes_no_sense_counts_and_the_others_are_played() {
    let (machine, now) = watched(5);
    let (router, _) = lived(40);
    let ended = Ended {
        pid: 77,
        t: 5,
        how: "killed by signal 9".into(),
    };
    let mut others = Vec::new();
    file::ended_section(&mut others, "p/a", 0, &ended).unwrap();
    others.extend_from_slice(b"{\"t\":1,\"machine\":{\"sense\":0}}\n");
    assert!(!file::are_sections(&others), "no living process says so");
    file::ended_section(&mut others, "p/b", 0, &ended).unwrap();
    others.extend_from_slice(&machine.tape(now).unwrap());
    let tapes = [("vrrp", "kube".to_owned(), router.tape(now))];
    let all = played_of(&written(now, &tapes, &others));
    let [router, broken, whole] = &all[..] else {
        panic!()
    };
    assert_eq!((router.timeline.differences, &router.ended), (0, &None));
    assert_eq!(broken.timeline.differences, 1);
    let why = broken.broken.as_deref().unwrap();
    assert!(why.contains("makes no sense to this machine"), "{why}");
    assert_eq!((whole.timeline.differences, &whole.broken), (0, &None));
    assert_eq!(whole.ended.as_ref(), Some(&ended));
    // Of another machine that is a fault of the file.
    let tapes = [(
        "vrrp",
        "kube".to_owned(),
        b"{\"t\":1,\"machine\":{}}\n".into(),
    )];
    let text = written(now, &tapes, &[]);
    assert!(played::play(&file::read(&text).unwrap()).is_err());
}

/// The keeper's loop looks at the proxy later than its turn began, and goes on with that turn.
#[test]
fn what_is_told_of_a_moment_before_the_last_one_replays_as_it_was() {
    let base = clock::now();
    time::count_from(base);
    let at = |ms| base + Duration::from_millis(ms);
    let mut supervisor = RecordedSupervisor::new(base);
    supervisor.handle(at(100), Watch::Adopted);
    for (ms, age) in [(500, 0), (480, 3), (481, 5), (600, 0)] {
        supervisor.handle(at(ms), Watch::Heartbeat(&[(1, age)]));
        supervisor.handle(at(ms), Watch::Tick);
    }
    let tapes = [("supervise", "proxy".to_owned(), supervisor.tape(at(700)))];
    let all = replayed(&written(at(700), &tapes, &[]));
    assert_eq!((all[0].1.told, all[0].1.differences), (9, 0));
}

#[test]
fn what_a_process_knew_leads_to_nothing_after_its_end() {
    let step = |t, told: Option<serde_json::Value>, state: &str| Step {
        t,
        line: 1,
        told,
        answer: serde_json::Value::Null,
        standing: serde_json::json!({ "state": state }),
        words: String::new(),
        names: Some(vec!["proxy:p".to_owned()]),
        recorded: None,
    };
    let played = |kind: &str, name: &str, steps| Played {
        kind: kind.into(),
        name: name.into(),
        ended: None,
        broken: None,
        timeline: Timeline {
            steps,
            ..Timeline::default()
        },
    };
    let usable = |usable: Option<u16>| {
        Some(serde_json::json!({ "tracks": [{ "proxy": { "usable": usable } }] }))
    };
    let health = vec![step(10, None, "ready"), step(50, None, "unresponsive")];
    let judge = vec![
        step(0, None, ""),
        step(5, usable(Some(1)), ""),
        step(60, usable(Some(0)), ""),
        step(120, usable(None), ""),
    ];
    let mut all = [played("health", "p/a", health), played("judge", "v", judge)];
    let causes = |all: &[Played]| -> Vec<(i64, Option<i64>)> {
        let moments = played::moments(all);
        let of_judge = moments.iter().filter(|moment| moment.machine == 1);
        let cause = |moment: &Moment| (moment.t, moment.cause.map(|at| moments[at].t));
        of_judge.map(cause).collect()
    };
    let before = [(0, None), (5, None), (60, Some(50))];
    assert_eq!(causes(&all), [&before[..], &[(120, Some(50))]].concat());
    all[0].ended = Some(Ended {
        pid: 77,
        t: 100,
        how: String::new(),
    });
    assert_eq!(causes(&all), [&before[..], &[(120, None)]].concat());
}

/// What led to a moment, and to that, by kind and name.
fn causes(machines: &[Played], moments: &[Moment], from: &Moment) -> Vec<String> {
    let mut chain = Vec::new();
    let mut next = from.cause;
    while let Some(cause) = next.and_then(|at| moments.get(at)) {
        let played = &machines[cause.machine];
        let state = played.timeline.steps[cause.step].standing["state"].clone();
        let state = state.as_str().unwrap().to_owned();
        chain.push(format!("{} {} {state}", played.kind, played.name));
        next = cause.cause;
    }
    chain
}

#[test]
fn why_the_vip_moved_and_why_a_server_was_taken_out_are_in_one_recording() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/replay/server-and-track.rec"
    );
    let all = played_of(&fs::read_to_string(path).unwrap());
    let moments = played::moments(&all);
    let of = |moment: &Moment| {
        let played = &all[moment.machine];
        (
            format!("{} {}", played.kind, played.name),
            &played.timeline.steps[moment.step],
        )
    };
    let taken_out = moments.iter().find(|moment| {
        let (who, step) = of(moment);
        who == "health p/b" && moment.changed && step.standing["state"] == "unresponsive"
    });
    let (_, step) = of(taken_out.unwrap());
    let told = &step.told.as_ref().unwrap()["result"];
    assert_eq!(told["because"], "connection refused");
    // The script failed, so the judge took 20 away, so the router was told.
    let chains: Vec<Vec<String>> = moments
        .iter()
        .filter(|moment| of(moment).0 == "vrrp v")
        .map(|moment| causes(&all, &moments, moment))
        .collect();
    let expected = ["judge v can-serve", "script s failed"];
    assert!(chains.iter().any(|chain| chain == &expected), "{chains:?}");
    // The server's end changed how many are usable, and that the judge was told as well.
    let told = moments.iter().filter(|moment| of(moment).0 == "judge v");
    let mut told = told.map(|moment| causes(&all, &moments, moment));
    assert!(told.any(|chain| chain == ["health p/b unresponsive"]));
    let moved = moments.iter().any(|moment| {
        let (who, step) = of(moment);
        who == "vrrp v" && moment.changed && step.standing["state"] == "backup"
    });
    assert!(moved);
}

/// A tape as a proxy process has it.
fn outlasting() -> Option<Loan> {
    let shared = Words::map(shm::create("measured", WORDS).unwrap(), WORDS).unwrap();
    let lasting = BlackBox::begin(Arc::new(shared), 0, 0);
    Tapes::within(lasting).lend("p/a")
}

/// Prints what an input costs with its tape and without: docs/recorder.md has the numbers and the
/// command.
#[test]
#[ignore = "a measurement: for a release build, on a quiet machine"]
fn nanoseconds_for_each_recorded_input() {
    const ROUNDS: u32 = 200_000;
    let base = clock::now();
    time::count_from(base);
    let at = |round: u32| base + Duration::from_millis(u64::from(round));
    let each = |what: &str, mut step: Box<dyn FnMut(u32) + '_>| {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let begin = clock::now();
            (0..ROUNDS).for_each(&mut step);
            best = best.min(clock::now() - begin);
        }
        println!("{what}: {} ns", best.as_nanos() / u128::from(ROUNDS));
    };
    let new = || health::fsm::Machine::new(&check(), base);
    let tapes = Tapes::default();
    for (what, loan) in [
        ("health, with its tape", outlasting()),
        ("health, tape in own memory", tapes.lend("p/a")),
        ("health, without", None),
    ] {
        let machine = Watched::new(new(), loan, base);
        let step = |round| {
            machine.on_result(Health::Ready, None, at(round), at(round));
        };
        each(what, Box::new(step));
    }
    let mut plain = Machine::new(settings(), base);
    let mut recorded = RecordedMachine::new(settings(), base);
    plain.handle(base, Input::Up);
    recorded.handle(base, Input::Up);
    each(
        "vrrp advert, with its tape",
        Box::new(|round| {
            std::hint::black_box(recorded.handle(at(round), advert(250)));
        }),
    );
    each(
        "vrrp advert, without",
        Box::new(|round| {
            std::hint::black_box(plain.handle(at(round), advert(250)));
        }),
    );
    let vip = judged();
    let names = |_| "proxy:p".to_owned();
    let mut judge = RecordedJudge::new(Judge::new(&vip, names, Duration::ZERO), None, base);
    let mut plain = Judge::new(&vip, names, Duration::ZERO);
    let seen = |epoch| {
        [Seen::Proxy {
            usable: Some(3),
            epoch,
        }]
    };
    each(
        "judge at news, with its tape",
        Box::new(|round| {
            judge.look(at(round), &look(&seen(round.into())));
        }),
    );
    each(
        "judge at news, without",
        Box::new(|round| {
            plain.look(at(round), &look(&seen(round.into())));
        }),
    );
    each(
        "judge that looks at the same",
        Box::new(|round| {
            judge.look(at(round), &look(&seen(0)));
        }),
    );
}

fn look(tracks: &[Seen]) -> Look<'_> {
    Look {
        proxy: Standing::Fine,
        holds: true,
        tracks,
    }
}

fn judged() -> lbd::config::model::Vip {
    let text = "[vip.a]\naddress = \"172.16.0.10/24\"\n\
                nodes = [\"172.16.0.2\", \"172.16.0.3\"]\n\
                [proxy.p]\nlisten = \"127.0.0.1:6443\"\nbackends = [\"172.16.0.4:6443\"]\n";
    lbd::config::load(text).unwrap().vips.remove(0)
}
