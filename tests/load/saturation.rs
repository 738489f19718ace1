//! Every processor busy, with the proxy's own work and with others'.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lbd::net::clock;

use super::floods::{keeper_ns, transitions};
use super::forge::LB2 as LB2_IP;
use super::lab::cases::Case;
use super::lab::scenario::{Stack, V3_10MS, pair};
use super::lab::{LB2, Pair};
use super::tap::Tap;
use super::{pass, seconds};

pub const CASES: &[Case] = &[(
    "adverts_of_10_ms_hold_while_every_processor_is_saturated",
    &[],
    saturated,
)];

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(172, 16, 0, 10)), 6443);

fn saturated() {
    let pair = pair(Stack::Lbd, &V3_10MS);
    let realtime = pair.metric(LB2, "lbd_keeper_realtime ") == Some(1);
    let (tap, arriving) = (Tap::at_lb2(&pair), Tap::start(&pair));
    let (before, starts) = (transitions(&pair), starts(&pair));
    let cpu = keeper_ns(&pair);
    let at = clock::now();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // Clients that never rest, and a thread for each processor that never sleeps.
    let load = Load::start(&pair, 8 * cpus);
    let spinners = Spinners::start(cpus);
    pass(seconds(12, 600), || {
        format!(
            "{:?} transitions, {}",
            transitions(&pair),
            tap.spacing(LB2_IP).describe()
        )
    });
    drop(spinners);
    let took = clock::now() - at;
    let answered = load.finish();
    let moves = pair.lab.history(|history| history.moves(at, clock::now()));
    let spacing = tap.spacing(LB2_IP);
    let nanos = u64::try_from(took.as_nanos()).expect("short");
    let used = (keeper_ns(&pair) - cpu) * 100 / nanos;
    assert!(answered > 0, "no connection got through");
    println!(
        "    {} connections/s beside the busy loops",
        answered / took.as_secs()
    );
    println!("    {}; keeper {used} % of a processor", spacing.describe());
    println!(
        "    as they reach lb1: {}",
        arriving.spacing(LB2_IP).describe()
    );
    let restarts = self::starts(&pair) - starts;
    println!("    {moves} moves, {restarts} proxy restarts, real-time: {realtime}");
    assert_eq!(restarts, 0, "{}", pair.report());
    if !realtime {
        println!("    this machine permits no real-time scheduling: nothing is promised without");
        return;
    }
    assert_eq!(moves, 0, "{}", pair.report());
    assert_eq!(transitions(&pair), before, "{}", pair.report());
    // The other node gives up after three intervals and its Skew_Time.
    let p99 = spacing.permille(990);
    assert!(p99 <= Duration::from_millis(15), "p99 {p99:?}");
}

/// Proxy processes that both keepers have started.
fn starts(pair: &Pair) -> u64 {
    let of = |node| pair.metric(node, "lbd_keeper_proxy_starts_total ");
    [0, 1]
        .map(|node| of(node).expect("lbd answers"))
        .iter()
        .sum()
}

/// Clients that make one connection through the VIP after the other.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<u64>>>,
}

impl Load {
    fn start(pair: &Pair, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            let work = move || {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    match ask() {
                        Ok(()) => answered += 1,
                        // Full queues and the like: that is what load does.
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
                answered
            };
            pair.lab.client.thread("load", work).expect("a thread")
        };
        let threads = (0..clients).map(client).collect();
        Self { stop, threads }
    }

    /// How many connections were answered.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let counts = threads.map(|thread| thread.join().expect("no panic").expect("inside"));
        counts.sum()
    }
}

/// One connection to a server and back; it answers what is no TLS with an alert.
fn ask() -> std::io::Result<()> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&VIP, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"hello, this is no TLS\r\n")?;
    let mut answer = [0; 64];
    match stream.read(&mut answer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Threads that never sleep, until dropped.
struct Spinners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..count).map(spin).collect();
        Self { stop, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
