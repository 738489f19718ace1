//! `cargo bench --bench farm`: what a connection pays for what all workers share: a slot on a
//! server taken and given back under each strategy, and a record for the access log, with 1, 2 and 4
//! threads. Prints nanoseconds of CPU and of wall time for each; nothing to pass or fail.
#![expect(clippy::print_stdout, reason = "the result goes to standard output")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, SystemTime};

use lbd::config;
use lbd::config::model::Balance;
use lbd::net::clock;
use lbd::proxy::balance::Key;
use lbd::proxy::dispatch::{Admission, Turn};
use lbd::proxy::engine::AccessSink;
use lbd::proxy::farm::Farm;
use lbd::proxy::queue::{Ticket, Tried};
use lbd::proxy::termination::{AccessRecord, Counts, Termination};
use nix::time::{ClockId, clock_gettime};

/// Repetitions of each measurement; their median counts.
const ROUNDS: usize = 9;
/// Operations of one thread in a round.
const PAIRS: u64 = 200_000;

const STRATEGIES: [&str; 5] = [
    "round-robin",
    "least-connections",
    "random",
    "source-hash",
    "first",
];

const FILE: &str = r#"
[proxy.p]
listen = ":6443"
backend-defaults = { max-connections = 1000 }
[proxy.p.backends]
a = { address = "127.0.0.1:1", weight = WEIGHT }
b = "127.0.0.1:2"
c = "127.0.0.1:3"
"#;

/// Nanoseconds of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    cpu: u64,
    wall: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("ns an operation: CPU (wall), medians of {ROUNDS} rounds by threads");
    for (name, weight) in [("1:1:1", "1"), ("200:1:1", "200")] {
        let config = config::load(&FILE.replace("WEIGHT", weight))
            .map_err(|problems| format!("{problems:?}"))?;
        let proxy = config.proxies.first().ok_or("no proxy")?;
        let farm = Farm::new(proxy);
        for server in 0..proxy.servers.len() {
            farm.set_up(server, true, clock::now());
        }
        row(&format!("slot taken and given back, {name}"), |thread| {
            take_and_give_back(&farm, thread);
        })?;
    }
    for servers in [3, 16, 200] {
        for balance in STRATEGIES {
            let farm = farm(balance, servers)?;
            row(&format!("{balance}, {servers} servers"), |thread| {
                take_and_give_back(&farm, thread);
            })?;
        }
    }
    let (sender, receiver) = sync_channel(8192);
    let sink = AccessSink::new(sender);
    let reader = thread::spawn(move || receiver.iter().count());
    let record = record();
    row("record offered to the access log", |_| {
        for _ in 0..PAIRS {
            sink.offer(record.clone());
        }
    })?;
    let dropped = sink.dropped();
    drop(sink);
    let read = reader.join().map_err(|_panic| "the reader panicked")?;
    println!("records read {read}, dropped {dropped}");
    Ok(())
}

/// Equal servers, all up.
fn farm(balance: &str, servers: usize) -> Result<Farm, Box<dyn Error>> {
    let addresses: Vec<String> = (1..=servers)
        .map(|n| format!("\"127.0.0.1:{n}\""))
        .collect();
    let file = format!(
        "[proxy.p]\nlisten = \":6443\"\nbalance = \"{balance}\"\nbackends = [{}]\n\
         backend-defaults = {{ max-connections = 1000 }}\n",
        addresses.join(", ")
    );
    let config = config::load(&file).map_err(|problems| format!("{problems:?}"))?;
    let farm = Farm::new(config.proxies.first().ok_or("no proxy")?);
    for server in 0..servers {
        farm.set_up(server, true, clock::now());
    }
    Ok(farm)
}

fn take_and_give_back(farm: &Farm, thread: u16) {
    let ticket = Ticket {
        worker: thread,
        slot: 0,
        serial: 0,
    };
    let by_source = farm.config().balance == Balance::SourceHash;
    for client in 0..PAIRS {
        let key = if by_source {
            Key::of(Ipv4Addr::from_bits(u32::try_from(client).unwrap_or(0)).into())
        } else {
            Key::NONE
        };
        match farm.admit(ticket, Tried::default(), Turn::First, key) {
            Admission::Server(server) => {
                farm.release(server);
            }
            other @ (Admission::Queued(_)
            | Admission::NoServer
            | Admission::QueueFull
            | Admission::NotInTime) => {
                println!("unexpected: {other:?}");
            }
        }
    }
}

fn row(name: &str, work: impl Fn(u16) + Sync) -> Result<(), Box<dyn Error>> {
    let mut cells = String::new();
    for threads in [1, 2, 4] {
        let mut costs = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            costs.push(round(threads, &work)?);
        }
        costs.sort_unstable();
        let median = costs.get(ROUNDS / 2).ok_or("no rounds")?;
        cells += &format!("  {threads}: {:>4} ({:>4})", median.cpu, median.wall);
    }
    println!("{name:<40}{cells}");
    Ok(())
}

/// Lets `threads` threads work at once; CPU time of all of them over all operations, and wall time
/// over the operations of one.
fn round(threads: u16, work: &(impl Fn(u16) + Sync)) -> Result<Cost, Box<dyn Error>> {
    let start = Barrier::new(usize::from(threads) + 1);
    let (cpu, wall) = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || -> nix::Result<Duration> {
                    start.wait();
                    let before = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
                    work(thread);
                    let after = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
                    Ok(Duration::from(after).saturating_sub(before.into()))
                })
            })
            .collect();
        start.wait();
        let began = clock::now();
        let mut cpu = Duration::ZERO;
        for thread in running {
            cpu += thread.join().map_err(|_panic| "a thread panicked")??;
        }
        Ok::<_, Box<dyn Error>>((cpu, clock::now().saturating_duration_since(began)))
    })?;
    let each = |time: Duration, operations: u64| {
        u64::try_from(time.as_nanos() / u128::from(operations)).unwrap_or(u64::MAX)
    };
    Ok(Cost {
        cpu: each(cpu, PAIRS * u64::from(threads)),
        wall: each(wall, PAIRS),
    })
}

fn record() -> AccessRecord {
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    AccessRecord {
        accepted_at: SystemTime::UNIX_EPOCH,
        proxy: 0,
        server: Some(0),
        client: addr,
        local: addr,
        queue: None,
        connect: None,
        total: Duration::from_millis(1),
        bytes_in: 1,
        bytes_out: 1,
        end: Termination::NORMAL,
        retries: 0,
        redispatched: false,
        hedged: false,
        counts: Counts::default(),
    }
}
