//! Streams of every shape: both ways at once, byte by byte, and cut up at random.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lbd::net::tcp;

use super::lab::{Backend, Dice, Lab, Pattern, proxy, reset, server};

/// Who finishes only after it has seen the other's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Client,
    Server,
    Neither,
}

const MIB: usize = 1 << 20;

/// Sends `mib` copies of a block; a block is a prime number of bytes long, so that lost and
/// doubled ones show.
fn send_blocks(mut stream: &TcpStream, block: &[u8], count: usize) {
    for _ in 0..count {
        stream.write_all(block).unwrap();
    }
}

fn take_blocks(mut stream: &TcpStream, block: &[u8], count: usize) {
    let mut taken = vec![0; block.len()];
    for index in 0..count {
        stream.read_exact(&mut taken).unwrap();
        assert!(taken == block, "block {index} differs");
    }
}

fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}

fn take_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// 64 blocks each way; the one that is last sends eight more behind the other's end.
fn exchange(stream: &TcpStream, mine: u64, theirs: u64, last: bool, other_last: bool) {
    let block = |seed| Pattern::bytes(seed, MIB + 13);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send_blocks(stream, &block(mine), 64);
            if !last {
                finish(stream);
            }
        });
        take_blocks(stream, &block(theirs), 64);
        if other_last {
            take_blocks(stream, &block(theirs + 100), 8);
        }
        take_end(stream);
        sender.join().unwrap();
        if last {
            send_blocks(stream, &block(mine + 100), 8);
            finish(stream);
        }
    });
}

#[test]
fn sixty_four_mebibytes_each_way_at_once_arrive_whole_whoever_finishes_first() {
    for (workers, last) in [(1, Last::Client), (1, Last::Server), (2, Last::Neither)] {
        let backend = Backend::start(move |stream| {
            exchange(&stream, 2, 1, last == Last::Server, last == Last::Client);
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let client = lab.connect();
        exchange(&client, 1, 2, last == Last::Client, last == Last::Server);
        lab.settle();
        let totals = lab.stats().totals;
        let block = (MIB + 13) as u64;
        let blocks = |who| if last == who { 72 } else { 64 };
        assert_eq!(totals.bytes_in, blocks(Last::Client) * block);
        assert_eq!(totals.bytes_out, blocks(Last::Server) * block);
        assert!(totals.bytes_spliced > 0, "{totals:?}");
        assert_eq!(totals.finished, 1, "{last:?}");
    }
}

#[test]
fn a_hundred_thousand_writes_of_one_byte_each_way_arrive_in_order() {
    const BYTES: usize = 100_000;
    fn exchange(stream: &TcpStream, mine: u64, theirs: u64) {
        stream.set_nodelay(true).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = stream;
                for byte in Pattern::bytes(mine, BYTES) {
                    stream.write_all(&[byte]).unwrap();
                }
                finish(stream);
            });
            let (mut taken, mut reader) = (Vec::new(), stream);
            reader.read_to_end(&mut taken).unwrap();
            assert!(taken == Pattern::bytes(theirs, BYTES), "{}", taken.len());
        });
    }
    let backend = Backend::start(|stream| exchange(&stream, 2, 1));
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    exchange(&lab.connect(), 1, 2);
    lab.settle();
    assert_eq!(lab.stats().totals.finished, 1);
}

/// How a random connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client finishes, the server sends the rest of its bytes behind that.
    ClientFirst,
    ServerFirst,
    /// Each finishes when it has sent everything.
    Free,
    /// The client resets when its bytes have reached the proxy.
    ClientResets,
    ServerResets,
}

/// What both ends of a random connection know.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    up: usize,
    down: usize,
    end: End,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut len = || match dice.below(10) {
            0 => 0,
            1..=5 => dice.below(2_000),
            6..=8 => dice.below(200_000),
            _ => dice.below(1_500_000),
        };
        let (up, down) = (len(), len());
        let ends = [
            End::ClientFirst,
            End::ServerFirst,
            End::Free,
            End::ClientResets,
            End::ServerResets,
        ];
        let end = ends[dice.below(ends.len())];
        Self {
            seed,
            up,
            down,
            end,
        }
    }

    fn resets(self) -> bool {
        matches!(self.end, End::ClientResets | End::ServerResets)
    }
}

/// Sends `bytes` in pieces of 1 B to more than the proxy's buffer, with pauses. `false`: the
/// other side has broken off.
fn send_pieces(mut stream: &TcpStream, bytes: &[u8], dice: &mut Dice) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = [1, 10, 1_500, 70_000, 300_000][dice.below(5)];
        let (piece, later) = rest.split_at((1 + dice.below(most)).min(rest.len()));
        if stream.write_all(piece).is_err() {
            return false;
        }
        rest = later;
        match dice.below(40) {
            0 => thread::sleep(Duration::from_micros(300)),
            1..=5 => thread::yield_now(),
            _ => {}
        }
    }
    true
}

/// Reads in pieces of random size until the end; answers the bytes, and whether the end was RST.
fn take_pieces(mut stream: &TcpStream, dice: &mut Dice) -> (Vec<u8>, bool) {
    let (mut taken, mut piece) = (Vec::new(), vec![0; 200_000]);
    loop {
        let most = [1, 100, 20_000, 200_000][dice.below(4)];
        let most = 1 + dice.below(most);
        match stream.read(&mut piece[..most]) {
            Ok(0) => return (taken, false),
            Ok(read) => taken.extend_from_slice(&piece[..read]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return (taken, true);
            }
        }
    }
}

/// One side of a random connection.
struct Side {
    mine: Vec<u8>,
    theirs: Vec<u8>,
    /// It sends the rest behind the other's end.
    waits: bool,
    resets: bool,
    dice: [Dice; 2],
}

impl Side {
    fn new(plan: Plan, client: bool) -> Self {
        let up = Pattern::bytes(2 * plan.seed, plan.up);
        let down = Pattern::bytes(2 * plan.seed + 1, plan.down);
        let dice = |salt: u64| Dice::new(plan.seed ^ salt << 32 ^ u64::from(client) << 40);
        let (mine, theirs) = if client { (up, down) } else { (down, up) };
        let (waits, resets) = if client {
            (End::ServerFirst, End::ClientResets)
        } else {
            (End::ClientFirst, End::ServerResets)
        };
        Self {
            mine,
            theirs,
            waits: plan.end == waits,
            resets: plan.end == resets,
            dice: [dice(1), dice(2)],
        }
    }

    fn play(mut self, stream: TcpStream, plan: Plan) {
        let (sending, taking) = self.dice.split_at_mut(1);
        if self.resets {
            assert!(send_pieces(&stream, &self.mine, &mut sending[0]));
            super::lab::wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
            reset(stream);
            return;
        }
        let (taken, was_reset, sent_all) = thread::scope(|scope| {
            let now = if self.waits {
                self.mine.len() / 2
            } else {
                self.mine.len()
            };
            let (first, rest) = self.mine.split_at(now);
            let sender = scope.spawn(|| {
                let whole = send_pieces(&stream, first, &mut sending[0]);
                if whole && !self.waits {
                    stream.shutdown(Shutdown::Write).unwrap_or_default();
                }
                whole
            });
            let (taken, was_reset) = take_pieces(&stream, &mut taking[0]);
            let mut sent_all = sender.join().unwrap();
            if self.waits && sent_all {
                sent_all = send_pieces(&stream, rest, &mut taking[0]);
            }
            (taken, was_reset, sent_all)
        });
        let len = taken.len();
        assert!(taken == self.theirs, "{plan:?} {len}");
        // A write that hears of the reset leaves no error for the reads.
        assert_eq!(was_reset || !sent_all, plan.resets(), "{plan:?}");
    }
}

fn random_connection(lab: &Lab, seed: u64) {
    let plan = Plan::new(seed);
    let mut client = lab.connect();
    // The server is there.
    client.read_exact(&mut [0]).unwrap();
    client.write_all(&seed.to_le_bytes()).unwrap();
    Side::new(plan, true).play(client, plan);
}

#[test]
fn a_thousand_random_segmentations_arrive_as_they_were_sent() {
    let backend = Backend::start(|mut stream| {
        stream.write_all(b"!").unwrap();
        let mut seed = [0; 8];
        stream.read_exact(&mut seed).unwrap();
        let plan = Plan::new(u64::from_le_bytes(seed));
        Side::new(plan, false).play(stream, plan);
    });
    let lab = Arc::new(Lab::start(proxy(vec![server(backend.addr)]), 2));
    let clients: Vec<_> = (0..8_u64)
        .map(|client| {
            let lab = Arc::clone(&lab);
            thread::spawn(move || (0..125).for_each(|n| random_connection(&lab, client * 125 + n)))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    lab.settle();
    let totals = lab.stats().totals;
    assert_eq!(totals.accepted, 1000);
    let broken = totals.client_aborts + totals.server_aborts;
    assert_eq!(totals.finished + broken, 1000, "{totals:?}");
    assert!(
        totals.client_aborts > 100 && totals.server_aborts > 100,
        "{totals:?}"
    );
    assert_eq!(backend.failures(), 0);
}
