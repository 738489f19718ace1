//! A process that ends at any word it writes, and one that writes anything.

#![expect(
    clippy::disallowed_methods,
    reason = "any instant does to count from, and `net` is out of reach here"
)]

use std::cell::RefCell;
use std::io;
use std::time::Instant;

use serde::Serialize;

use super::*;
use crate::recorder::file::{self, Ended, Header, VERSION};
use crate::recorder::tape::{Recorded, Tape};
use crate::recorder::time;

/// Memory as the kernel gives it: all 0.
#[derive(Debug)]
struct Zeroed(Vec<AtomicU64>);

impl Deref for Zeroed {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl Source for Zeroed {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        assert!(from + into.len() <= WORDS * WORD, "beyond the end");
        for (at, byte) in into.iter_mut().enumerate() {
            let word = self.0[(from + at) / WORD].load(Ordering::Relaxed);
            *byte = word.to_ne_bytes()[(from + at) % WORD];
        }
        Ok(())
    }
}

fn zeroed() -> Arc<Zeroed> {
    Arc::new(Zeroed((0..WORDS).map(|_| AtomicU64::new(0)).collect()))
}

#[derive(Debug, Serialize)]
struct Counter {
    count: u64,
}

impl Recorded for Counter {
    type Standing = u64;

    fn standing(&self, _now: Instant) -> u64 {
        self.count
    }
}

fn begun() -> (Arc<Zeroed>, BlackBox) {
    let memory = zeroed();
    let of_all = BlackBox::begin(Arc::clone(&memory) as _, 5, 7).unwrap();
    (memory, of_all)
}

/// Steps of so many bytes each, more or less.
fn count(tape: &mut Tape, steps: u64, bytes: usize) -> Counter {
    let now = Instant::now();
    time::count_from(now);
    let mut machine = Counter { count: 0 };
    tape.begin(now, &machine);
    for step in 0..steps {
        machine.count += 1;
        tape.note(now, &("x".repeat(bytes), step), &step, &machine);
    }
    machine
}

fn lines(tape: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(tape).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_is_found_is_what_a_tape_in_own_memory_has_but_for_its_end() {
    for (steps, bytes) in [(0, 1), (3, 10), (40, 333), (700, 90), (5_000, 13)] {
        let (memory, of_all) = begun();
        let mut lasting = Tape::lasting(of_all.seat("p/a").unwrap());
        let mut own = Tape::of(Size::SMALL);
        let machine = count(&mut lasting, steps, bytes);
        count(&mut own, steps, bytes);
        let without_times = |tape: &[u8]| -> Vec<String> {
            let all = lines(tape).into_iter();
            all.map(|line| line.split_once(',').unwrap().1.to_owned())
                .collect()
        };
        let copied = lasting.copy(Instant::now(), &machine);
        let expected = without_times(&own.copy(Instant::now(), &machine));
        assert_eq!(without_times(&copied), expected, "{steps} {bytes}");
        let found = read(&*memory).unwrap();
        assert_eq!((found.t, found.boottime_ns, found.broken), (5, 7, 0));
        let [(name, tape)] = &found.tapes[..] else {
            panic!("{found:?}")
        };
        assert_eq!(name, "p/a");
        let end = expected.len() - 1;
        assert_eq!(without_times(tape), expected[..end], "{steps} {bytes}");
    }
}

#[test]
fn a_line_that_was_half_written_is_not_there() {
    let (memory, of_all) = begun();
    let seat = of_all.seat("p/a").unwrap();
    let line = b"{\"t\":1,\"machine\":{\"sum\":0}}\n";
    seat.put(0, line);
    // The process ends before the length says that the second one is there.
    store(&memory.0, data(0, 0), line.len(), b"{\"t\":2,\"in\":3");
    assert_eq!(read(&*memory).unwrap().tapes[0].1, line);
    // Or lies about it.
    seat.set(LENGTHS, line.len() + 13);
    assert_eq!(read(&*memory).unwrap().tapes[0].1, line);
    for lie in [PART_BYTES, PART_BYTES + 1, usize::MAX] {
        seat.set(LENGTHS, lie);
        assert_eq!(read(&*memory).unwrap().tapes[0].1, line);
    }
}

#[test]
fn seats_are_free_again_and_a_name_that_is_too_long_has_none() {
    let (memory, of_all) = begun();
    let mut all: Vec<Seat> = (0..SEATS)
        .map(|at| of_all.seat(&at.to_string()).unwrap())
        .collect();
    assert!(of_all.seat("p/more").is_none());
    all[7].put(0, b"{\"t\":1,\"machine\":0}\n");
    drop(all.swap_remove(7));
    assert_eq!(read(&*memory).unwrap().broken, SEATS - 1, "empty tapes");
    let again = of_all.seat("p/more").unwrap();
    assert_eq!(
        (again.at, again.used(0)),
        (7, 0),
        "nothing of the one before"
    );
    drop(all);
    assert!(of_all.seat(&"n".repeat(NAME_BYTES_MAX + 1)).is_none());
    assert!(of_all.seat("").is_none());
    let longest = "n".repeat(NAME_BYTES_MAX);
    let seat = of_all.seat(&longest).unwrap();
    seat.put(0, b"{\"t\":1,\"machine\":0}\n");
    drop(again);
    assert_eq!(read(&*memory).unwrap().tapes[0].0, longest);
}

#[test]
fn what_a_process_drops_as_it_ends_stays_by_a_panic_too() {
    let (memory, of_all) = begun();
    let left = || {
        let found = read(&*memory).unwrap().tapes.into_iter();
        found.map(|(name, _)| name).collect::<Vec<_>>()
    };
    let gone = Tape::lasting(of_all.seat("p/gone").unwrap());
    let mut tape = Tape::lasting(of_all.seat("p/a").unwrap());
    let lives = of_all.clone();
    let process = std::thread::spawn(move || {
        count(&mut tape, 3, 10);
        let _tape = tape;
        let _life = lives.life();
        drop(gone);
        panic!("a fault of its own");
    });
    process.join().unwrap_err();
    assert_eq!(left(), ["p/a"]);
}

#[test]
fn memory_where_nobody_began_is_said_to_be_that() {
    assert!(matches!(
        read(&*zeroed()).unwrap_err(),
        UnreadableBox::NotBegun
    ));
    let short = Arc::new(Zeroed((0..WORDS - 1).map(|_| AtomicU64::new(0)).collect()));
    assert!(BlackBox::begin(short as _, 0, 0).is_none());
}

/// What is found goes into a recording that can be read, and is so long and no longer.
fn is_sound(memory: &Zeroed) -> usize {
    let Ok(found) = read(memory) else { return 0 };
    assert!(found.tapes.len() + found.broken <= SEATS);
    let mut sections = Vec::new();
    let ended = Ended {
        pid: 7,
        t: 0,
        how: "killed by signal 9".into(),
    };
    for (name, tape) in &found.tapes {
        assert!(tape.len() <= PARTS * PART_BYTES && tape.ends_with(b"\n"));
        file::ended_section(&mut sections, name, 3, &ended).unwrap();
        sections.extend_from_slice(tape);
    }
    let header = Header {
        version: VERSION,
        lbd: "0.1.0".into(),
        config: "1".into(),
        node: None,
        boot: "b".into(),
        why: "proxy-ended".into(),
        wall_ms: 0,
        t: 0,
        lacks: None,
    };
    let text =
        String::from_utf8(file::write(&header, &[], &[("sections", &sections)]).unwrap()).unwrap();
    let machines = file::read(&text).unwrap().machines;
    assert_eq!(machines.len(), found.tapes.len());
    assert!(
        machines
            .iter()
            .all(|one| one.ended.as_ref() == Some(&ended))
    );
    machines.iter().map(|one| one.lines.len()).sum()
}

#[test]
fn whatever_a_process_wrote_there_the_recording_can_be_read() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |most: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(most).unwrap()).unwrap()
    };
    let (memory, of_all) = begun();
    let mut tapes: Vec<Tape> = (0..6)
        .map(|at| Tape::lasting(of_all.seat(&format!("p/{at}")).unwrap()))
        .collect();
    for (at, tape) in tapes.iter_mut().enumerate() {
        count(tape, 100 * u64::try_from(at).unwrap(), 40);
    }
    let good: Vec<u64> = memory.0.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    let whole = is_sound(&memory);
    assert!(whole > 500, "{whole}");
    let heads = HEADS..HEADS + 8 * HEAD_WORDS;
    let texts = data(0, 0)..data(6, 0);
    let odd = b"\"{}[],:0198-eE\\\n\0\xffatn";
    let (mut less, mut some) = (0, 0);
    for round in 0..400 {
        for _ in 0..=random(20) {
            let range = if round % 2 == 0 { &heads } else { &texts };
            let at = range.start + random(range.len());
            let word = &memory.0[at];
            let mut raw = word.load(Ordering::Relaxed).to_ne_bytes();
            match random(4) {
                0 => raw[random(8)] = odd[random(odd.len())],
                1 => raw = (random(2 * PART_BYTES) as u64).to_ne_bytes(),
                2 => raw = [0xff; 8],
                _ => {
                    raw = memory.0[texts.start + random(texts.len())]
                        .load(Ordering::Relaxed)
                        .to_ne_bytes();
                }
            }
            word.store(u64::from_ne_bytes(raw), Ordering::Relaxed);
        }
        let lines = is_sound(&memory);
        less += usize::from(lines < whole);
        some += usize::from(lines > 0);
        if round % 10 == 9 {
            for (word, good) in memory.0.iter().zip(&good) {
                word.store(*good, Ordering::Relaxed);
            }
        }
    }
    assert!(less > 300 && some > 300, "{less} {some}");
}

#[test]
fn no_line_of_another_kind_gets_out_and_time_does_not_go_back() {
    let (memory, of_all) = begun();
    let seat = of_all.seat("p/a").unwrap();
    let begin = "{\"t\":1,\"machine\":0}\n";
    let after = |more: &str| {
        seat.clear(0);
        seat.put(0, format!("{begin}{more}").as_bytes());
        lines(&read(&*memory).unwrap().tapes[0].1).len()
    };
    assert_eq!(after("{\"t\":1,\"in\":1}\n"), 2);
    for bad in [
        "{\"end\":3}\n",
        "{\"section\":\"vrrp\",\"name\":\"v\"}\n",
        "{\"t\":0,\"in\":1}\n",
        "{\"t\":400000000000000000,\"in\":1}\n",
        "{\"t\":1,\"in\":1,\"machine\":1}\n",
        "{\"t\":1}\n",
        "\n",
        "{\"t\":1,\"in\":1}",
        "{\"t\":1,\"in\":1}\r\0\n",
        &format!("{{\"t\":1,\"in\":{}}}\n", "[".repeat(900)),
    ] {
        assert_eq!(after(bad), 1, "{bad}");
    }
    seat.clear(0);
    seat.put(0, b"{\"t\":1,\"in\":1}\n");
    assert_eq!(read(&*memory).unwrap().broken, 1, "no machine first");
    for name in ["a\nb", "\u{7f}"] {
        let other = of_all.seat("ccc").unwrap();
        other.put(0, begin.as_bytes());
        store(&memory.0, other.head() + NAME, 0, name.as_bytes());
        other.set(NAME_LENGTH, name.len());
        assert_eq!(read(&*memory).unwrap().broken, 2, "{name:?}");
    }
}

/// Memory whose writer goes on while it is read.
struct Moving {
    memory: Arc<Zeroed>,
    writer: RefCell<(Tape, Counter)>,
    /// Lines between two halves of what is read at a time.
    lines: u64,
}

impl Source for Moving {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let half = into.len() / 2;
        let (first, second) = into.split_at_mut(half);
        self.memory.read_at(offset, first)?;
        let (tape, machine) = &mut *self.writer.borrow_mut();
        for _ in 0..self.lines {
            machine.count += 1;
            tape.note(Instant::now(), &"xxxx", &machine.count, &*machine);
        }
        let behind = u64::try_from(half).unwrap();
        self.memory.read_at(offset + behind, second)
    }
}

#[test]
fn while_it_is_written_whole_lines_of_one_tape_are_found_in_their_order() {
    let (memory, of_all) = begun();
    let mut tape = Tape::lasting(of_all.seat("p/a").unwrap());
    let machine = count(&mut tape, 0, 0);
    let source = Moving {
        memory,
        writer: RefCell::new((tape, machine)),
        lines: 1,
    };
    let (mut whole, mut torn) = (0, 0);
    for _ in 0..40 {
        // Three times a part was begun while it was read.
        let found = read(&source).unwrap();
        let Some((_, tape)) = found.tapes.first() else {
            torn += 1;
            continue;
        };
        let mut last = None;
        for line in lines(tape) {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let count = line["machine"]["count"].as_u64();
            let count = count.or(line["out"].as_u64()).unwrap();
            // A part begins with the machine as the last one left it.
            let follows = last.is_none_or(|last| count == last || count == last + 1);
            assert!(follows, "{count} after {last:?}");
            last = Some(count);
        }
        whole += 1;
    }
    assert!(whole > 30, "{whole} {torn}");
}

#[test]
fn lines_of_all_tapes_are_so_many() {
    let (memory, of_all) = begun();
    let seats: Vec<Seat> = (0..SEATS)
        .map(|at| of_all.seat(&at.to_string()).unwrap())
        .collect();
    let line = b"{\"t\":1,\"machine\":0}\n";
    for seat in &seats {
        for part in 0..PARTS {
            while seat.room(part) >= line.len() {
                seat.put(part, line);
            }
        }
    }
    let found = read(&*memory).unwrap();
    let all: usize = found.tapes.iter().map(|(_, tape)| lines(tape).len()).sum();
    assert_eq!(all, 250_000);
}
