//! A machine that only adds, on a tape and off it.

#![expect(
    clippy::disallowed_methods,
    reason = "any instant does to count from, and `net` is out of reach here"
)]

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::file::{BYTES_MAX, Header, Machine, ReadError, Room, VERSION, read, write};
use super::replay::{ReplayError, Replayed, Timeline, replay};
use super::tape::{ReadLine, Recorded, Tape};
use super::{time, words};

/// Answers with the tens of its sum, and stands for whether it is even.
#[derive(Debug, Serialize, Deserialize)]
struct Adder {
    sum: u64,
}

impl Recorded for Adder {
    type Standing = bool;

    fn standing(&self, _now: Instant) -> bool {
        self.sum.is_multiple_of(2)
    }
}

impl Replayed for Adder {
    type Step = u64;
    type Answer = u64;

    fn play(&mut self, _now: Instant, step: u64) -> u64 {
        self.sum += step;
        self.sum / 10
    }
}

fn header() -> Header {
    Header {
        version: VERSION,
        lbd: "0.1.0".into(),
        config: "1".into(),
        node: None,
        boot: "b".into(),
        why: "test".into(),
        wall_ms: 0,
        t: 0,
        lacks: None,
    }
}

fn replayed(lines: &[&str]) -> Result<Timeline, ReplayError> {
    time::count_from(Instant::now());
    let parsed = lines
        .iter()
        .map(|line| serde_json::from_str::<ReadLine>(line).unwrap());
    replay::<Adder>(&Machine {
        kind: "adder".into(),
        name: "one".into(),
        base: 0,
        ended: None,
        lines: (3..).zip(parsed).collect(),
    })
}

const BEGIN: &str = r#"{"t":0,"machine":{"sum":0}}"#;

#[test]
fn an_answer_and_what_the_machine_stands_for_are_compared_each_by_itself() {
    let differences = |line: &str| replayed(&[BEGIN, line]).unwrap().differences;
    assert_eq!(differences(r#"{"t":1,"in":12,"out":1,"is":true}"#), 0);
    assert_eq!(differences(r#"{"t":1,"in":12,"out":2,"is":true}"#), 1);
    assert_eq!(differences(r#"{"t":1,"in":12,"out":1,"is":false}"#), 1);
}

#[test]
fn another_state_than_the_recorded_one_counts_unless_steps_between_are_missing() {
    let step = r#"{"t":1,"in":12,"out":1,"is":true}"#;
    let same = r#"{"t":2,"machine":{"sum":12}}"#;
    let other = r#"{"t":2,"machine":{"sum":14}}"#;
    let after_a_gap = r#"{"t":2,"gap":true,"machine":{"sum":14}}"#;
    let differences = |last: &str| replayed(&[BEGIN, step, last]).unwrap().differences;
    assert_eq!(
        (
            differences(same),
            differences(other),
            differences(after_a_gap)
        ),
        (0, 1, 0)
    );
}

#[test]
fn time_does_not_go_back() {
    let error = replayed(&[BEGIN, r#"{"t":-1,"in":1,"out":0,"is":false}"#]).unwrap_err();
    assert_eq!(error.to_string(), "line 4: earlier than the line before it");
}

#[test]
fn a_line_longer_than_any_of_lbd_is_refused() {
    let header = header();
    let tape = |blanks: usize| format!("{{\"t\":0,{}\"machine\":1}}\n", " ".repeat(blanks));
    let text = |blanks| {
        let tapes = [("adder", "one".to_owned(), tape(blanks).into_bytes())];
        String::from_utf8(write(&header, &tapes, &[]).unwrap()).unwrap()
    };
    assert_eq!(read(&text(60_000)).unwrap().machines.len(), 1);
    let error = read(&text(70_000)).unwrap_err();
    assert!(matches!(error, ReadError::Place { line: 3, .. }), "{error}");
    assert!(words::constant(&"x".repeat(200)).is_some());
    assert_eq!(words::constant(&"x".repeat(201)), None);
}

/// The own machines come first, then each part that fits beside what is there already.
#[test]
fn what_is_written_can_be_read_however_long_its_parts_are() {
    let line = "{\"t\":0,\"machine\":1}\n";
    let section = "{\"section\":\"health\",\"name\":\"p/a\"}\n";
    let part = |lines: usize| format!("{section}{}", line.repeat(lines - 1)).into_bytes();
    let own = |lines: usize| ("vrrp", "v".to_owned(), line.repeat(lines - 1).into_bytes());
    let wrote = |tapes: &[_], living: usize, dead: usize| {
        let parts = [("the living", &*part(living)), ("the dead", &*part(dead))];
        String::from_utf8(write(&header(), tapes, &parts).unwrap()).unwrap()
    };
    // Of the most lines that are read, 1,000,000, the last one says how many come before it.
    let all = wrote(&[own(9)], 499_989, 500_000);
    assert!(all.ends_with("\n{\"end\":999999}\n"));
    assert!(!all.contains("lacks"));
    let living = wrote(&[own(9)], 499_990, 500_000);
    assert!(living.ends_with("\n{\"end\":500000}\n"));
    assert!(living.contains("\"lacks\":\"the dead: too long\""));
    let dead = wrote(&[own(999_000)], 1_000, 998);
    assert!(dead.ends_with("\n{\"end\":999999}\n"));
    assert!(dead.contains("\"lacks\":\"the living: too long\""));
    let few = read(&wrote(&[own(999_999), own(9)], 9, 999_999)).unwrap();
    let lacks = "1 machines of the keeper: too long; the dead: too long";
    assert_eq!(few.header.lacks.as_deref(), Some(lacks));
    let names: Vec<_> = few.machines.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["v", "p/a"]);
}

#[test]
fn a_recording_has_room_for_no_more_bytes_than_are_read() {
    let mut room = Room::ALL;
    let rest = BYTES_MAX - 128 * 1024;
    assert!(!room.take(&vec![0; rest + 1]));
    assert!(room.take(&[0; 10]));
    assert!(!room.take(&vec![0; rest - 9]));
    assert!(room.take(b"a line\n"));
}

#[test]
fn an_input_too_long_for_the_tape_leaves_a_gap_and_no_half_line() {
    let now = Instant::now();
    time::count_from(now);
    let mut tape = Tape::new();
    let machine = Adder { sum: 4 };
    tape.begin(now, &machine);
    tape.note(now, &"short", &0, &machine);
    tape.note(now, &"x".repeat(300_000), &0, &machine);
    tape.note(now, &"after", &0, &machine);
    let copy = String::from_utf8(tape.copy(now, &machine)).unwrap();
    let lines: Vec<ReadLine> = copy
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let gaps: Vec<bool> = lines.iter().map(|line| line.gap).collect();
    assert_eq!(gaps, [false, false, true, false, false]);
    assert_eq!(tape.lost(), 1);
}

#[test]
fn a_span_beyond_all_bounds_is_refused() {
    #[derive(Debug, Deserialize)]
    struct Of {
        #[serde(with = "time::span")]
        span: Duration,
    }
    let read = |ns: u64| serde_json::from_str::<Of>(&format!("{{\"span\":{ns}}}"));
    assert_eq!(read(1_500).unwrap().span, Duration::from_nanos(1_500));
    assert!(read(u64::MAX).is_err());
}
