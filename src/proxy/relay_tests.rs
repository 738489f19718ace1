//! Random runs of both directions of a connection, over pairs of Unix stream sockets that stand in
//! for TCP. Applications write, rest, read and finish as a seed says, events come in any order and
//! late; every byte must arrive, every end behind its last byte, and every run must come to its
//! end: a wake-up that is lost leaves one in which nothing can happen any more.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Flow, Kit, Path, Turn};
use crate::net::epoll::{Epoll, Event, Events, Interest};
use crate::proxy::conn::Side;

/// Seeded numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        let at = self.below(from.len());
        from[at]
    }
}

/// One application at the far end of one of the proxy's sockets.
struct App {
    stream: UnixStream,
    /// What it sends, and how much of that it has sent.
    sends: Vec<u8>,
    sent: usize,
    finished: bool,
    taken: Vec<u8>,
    heard_end: bool,
}

impl App {
    fn new(stream: UnixStream, dice: &mut Dice) -> Self {
        stream.set_nonblocking(true).unwrap();
        let most = dice.pick(&[1, 100, 30_000, 400_000, 3_000_000]);
        let sends = (0..dice.below(most))
            .map(|at| u8::try_from((at * at / 7 + at) % 251).unwrap())
            .collect();
        Self {
            stream,
            sends,
            sent: 0,
            finished: false,
            taken: Vec::new(),
            heard_end: false,
        }
    }

    fn done(&self) -> bool {
        self.finished && self.heard_end
    }

    /// Sends some bytes, or its end behind the last; answers whether anything happened.
    fn write(&mut self, dice: &mut Dice) -> bool {
        if self.finished {
            return false;
        }
        if self.sent == self.sends.len() {
            self.finished = true;
            self.stream.shutdown(Shutdown::Write).unwrap();
            return true;
        }
        let most = dice.pick(&[1, 20, 5_000, 200_000]);
        let upto = (self.sent + 1 + dice.below(most)).min(self.sends.len());
        match self.stream.write(&self.sends[self.sent..upto]) {
            Ok(written) => self.sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn read(&mut self, dice: &mut Dice) -> bool {
        if self.heard_end {
            return false;
        }
        let most = dice.pick(&[1, 50, 10_000, 300_000]);
        let mut piece = vec![0; 1 + dice.below(most)];
        match self.stream.read(&mut piece) {
            Ok(0) => self.heard_end = true,
            Ok(read) => self.taken.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }
}

const CLIENT: u64 = 0;
const SERVER: u64 = 1;

/// The part of a worker that serves one connection.
struct Relay {
    client: UnixStream,
    server: UnixStream,
    sides: [Side; 2],
    up: Flow,
    down: Flow,
    epoll: Epoll,
    watches_write: bool,
    runnable: bool,
    kit: Kit,
}

fn note(side: &mut Side, event: Event) {
    side.add_if(Side::READABLE, event.readable());
    side.add_if(Side::WRITABLE, event.writable());
    side.add_if(Side::READ_CLOSED, event.read_closed());
}

impl Relay {
    fn new(client: UnixStream, server: UnixStream) -> Self {
        let epoll = Epoll::new().unwrap();
        let read = Interest::READ | Interest::READ_CLOSED | Interest::EDGE;
        for (stream, token, interest) in [
            (&client, CLIENT, read),
            (&server, SERVER, read | Interest::WRITE),
        ] {
            stream.set_nonblocking(true).unwrap();
            epoll.add(stream, token, interest).unwrap();
        }
        Self {
            client,
            server,
            sides: [Side::WRITABLE; 2],
            up: Flow::default(),
            down: Flow::default(),
            epoll,
            watches_write: false,
            runnable: false,
            kit: Kit::new(1, RawFd::MAX),
        }
    }

    /// What a worker does when there is news of a connection.
    fn turn(&mut self) {
        let [client_side, server_side] = &mut self.sides;
        let (_, up) = Path {
            from: self.client.as_fd(),
            from_side: client_side,
            to: self.server.as_fd(),
            to_side: server_side,
            flow: &mut self.up,
            track: None,
        }
        .turn(&mut self.kit);
        let (_, down) = Path {
            from: self.server.as_fd(),
            from_side: server_side,
            to: self.client.as_fd(),
            to_side: client_side,
            flow: &mut self.down,
            track: None,
        }
        .turn(&mut self.kit);
        for turn in [up, down] {
            assert!(matches!(turn, Turn::Blocked | Turn::More), "{turn:?}");
        }
        self.runnable = up == Turn::More || down == Turn::More;
        if !client_side.has(Side::WRITABLE) && !self.watches_write {
            self.watches_write = true;
            let all = Interest::READ | Interest::WRITE | Interest::READ_CLOSED | Interest::EDGE;
            self.epoll.modify(&self.client, CLIENT, all).unwrap();
        }
        for (flow, to) in [(&mut self.up, &self.server), (&mut self.down, &self.client)] {
            if flow.is_done() && !flow.finished() {
                flow.finish();
                to.shutdown(Shutdown::Write).unwrap();
            }
        }
    }

    /// Takes some of the events there are, in any order; the rest come with the next wait or the
    /// one after. Answers whether there was something to do.
    fn round(&mut self, late: &mut Vec<Event>, dice: &mut Dice) -> bool {
        let mut events = Events::with_capacity(1 + dice.below(2));
        self.epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        late.extend(events.iter());
        let mut busy = false;
        while !late.is_empty() && dice.below(4) > 0 {
            let event = late.swap_remove(dice.below(late.len()));
            let side = usize::try_from(event.token).unwrap();
            note(&mut self.sides[side], event);
            self.turn();
            busy = true;
        }
        if self.runnable {
            self.turn();
            busy = true;
        }
        busy || !late.is_empty()
    }
}

/// One run; answers the bytes that were spliced.
fn run(seed: u64) -> u64 {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let [(client, near), (server, far)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    let mut apps = [App::new(client, &mut dice), App::new(server, &mut dice)];
    let mut relay = Relay::new(near, far);
    let mut late = Vec::new();
    // In some runs one application rests for long, so that the other side fills up.
    let rests = dice.below(4);
    let mut idle = 0;
    while !(apps.iter().all(App::done) && relay.up.finished() && relay.down.finished()) {
        let mut busy = false;
        let steps = dice.below(6);
        for _ in 0..steps {
            let who = dice.below(2);
            if who == rests && dice.below(20) > 0 {
                continue;
            }
            busy |= if dice.below(2) == 0 {
                apps[who].write(&mut dice)
            } else {
                apps[who].read(&mut dice)
            };
        }
        busy |= relay.round(&mut late, &mut dice);
        idle = if busy { 0 } else { idle + 1 };
        assert!(idle < 2_000, "seed {seed}: nothing happens any more");
    }
    let [client, server] = apps;
    assert!(server.taken == client.sends, "seed {seed}: up differs");
    assert!(client.taken == server.sends, "seed {seed}: down differs");
    relay.kit.spliced
}

#[test]
fn whatever_the_order_of_events_every_byte_arrives_and_every_run_ends() {
    let runs = std::env::var("LBD_RELAY_RUNS").map_or(120, |runs| runs.parse().unwrap());
    let spliced: u64 = (1..=runs).map(run).sum();
    assert!(spliced > 1 << 20, "{spliced}");
}

#[test]
fn one_late_source_is_no_quiet_stream_but_four_quiet_turns_are() {
    let mut flow = Flow::default();
    flow.full();
    flow.full();
    for moved in [100, 0, 100, 16_384, 100, 100, 100] {
        flow.rested(moved);
        assert!(flow.has(Flow::SPLICING), "{moved}");
    }
    flow.rested(16_383);
    assert!(!flow.has(Flow::SPLICING));
    assert_eq!(flow.bytes(), 0);
}

#[test]
fn little_waits_in_memory_for_a_destination_that_was_slow_before() {
    let [(mut client, near), (mut server, far)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut relay = Relay::new(near, far);
    relay.kit.pipes_max = 0;
    let mut held = Vec::new();
    let mut buffer = vec![0; 40_000];
    for _ in 0..20 {
        while server.write(&buffer).is_ok() {}
        for _ in 0..10 {
            relay.sides = [Side::WRITABLE, Side::WRITABLE];
            relay.sides[1].add(Side::READABLE);
            relay.turn();
        }
        if let Some(super::Held::Bytes { data, .. }) = relay.down.held.as_deref() {
            held.push(data.len());
        }
        assert!(client.read(&mut buffer).unwrap() > 0);
    }
    let later = held.get(1..).unwrap();
    assert!(later.iter().all(|held| *held <= 16_384), "{held:?}");
    assert!(!later.is_empty());
}

#[test]
fn what_a_destination_that_is_gone_did_not_take_is_kept_for_another() {
    let [(mut client, near), (gone, far)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    let (mut other, next) = UnixStream::pair().unwrap();
    let mut flow = Flow::default();
    let mut kit = Kit::new(1, RawFd::MAX);
    assert!(flow.is_untaken());
    client.write_all(b"hello").unwrap();
    drop(gone);
    near.set_nonblocking(true).unwrap();
    let (mut from_side, mut to_side) = (Side::WRITABLE, Side::WRITABLE);
    from_side.add(Side::READABLE);
    let mut turn = |to: &UnixStream, to_side: &mut Side| {
        let mut path = Path {
            from: near.as_fd(),
            from_side: &mut from_side,
            to: to.as_fd(),
            to_side,
            flow: &mut flow,
            track: None,
        };
        let turn = path.turn(&mut kit);
        (turn, flow.is_untaken(), flow.is_empty())
    };
    assert_eq!(
        turn(&far, &mut to_side),
        ((5, Turn::DestinationBroken), true, false)
    );
    // Another one gets all of it.
    let mut next_side = Side::WRITABLE;
    assert_eq!(
        turn(&next, &mut next_side),
        ((0, Turn::Blocked), false, true)
    );
    let mut read = [0; 8];
    assert_eq!(other.read(&mut read).unwrap(), 5);
    assert_eq!(read[..5], *b"hello");
}
