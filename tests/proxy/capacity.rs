//! Thousands of clients before servers that take few: limits as the servers count them, the order
//! of those who wait, refusals at once, the return of all servers, and the pace of connects.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::config::model::{MaxQueue, Server};
use lbd::net::clock;
use lbd::proxy::server::AdminState;

use crate::noise::Noise;

use super::lab::{Lab, PATIENCE, is_reset, limited, proxy, reset, server, wait_until};

/// A server that greets whom it accepts, keeps everybody, and counts them as they are at each
/// accept.
struct Counter {
    addr: SocketAddr,
    most: Arc<AtomicUsize>,
    accepted: Arc<Mutex<Vec<Instant>>>,
}

impl Counter {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let counter = Self {
            addr: listener.local_addr().unwrap(),
            most: Arc::default(),
            accepted: Arc::default(),
        };
        let (most, accepted) = (Arc::clone(&counter.most), Arc::clone(&counter.accepted));
        thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                accepted.lock().unwrap().push(clock::now());
                held.retain(is_alive);
                stream.set_nonblocking(true).unwrap();
                if is_alive(&stream) && stream.write_all(b"!").is_ok() {
                    held.push(stream);
                }
                most.fetch_max(held.len(), Ordering::Relaxed);
            }
        });
        counter
    }
}

/// Whether the other side is still there, as far as this machine has heard.
fn is_alive(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// How it stands with a client that does not wait.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Greeted,
    Refused,
}

fn fate(client: &TcpStream) -> Fate {
    client.set_nonblocking(true).unwrap();
    match (&mut &*client).read(&mut [0]) {
        Ok(1) => Fate::Greeted,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fate::Waits,
        Ok(_) | Err(_) => Fate::Refused,
    }
}

#[test]
fn three_thousand_clients_meet_three_servers_of_250_and_a_queue_of_256() {
    let servers = [Counter::start(), Counter::start(), Counter::start()];
    let mut config = proxy(servers.iter().map(|s| limited(s.addr, 250)).collect());
    config.max_queue = MaxQueue::Total(256);
    let lab = Lab::start(config, 2);
    let mut served: Vec<TcpStream> = (0..750).map(|_| lab.connect()).collect();
    wait_until("750 are greeted", || {
        let peek = |client: &TcpStream| {
            client.set_nonblocking(true).unwrap();
            client.peek(&mut [0]).is_ok()
        };
        served.iter().all(peek)
    });
    // Each joins when the one before it has, so that their order is known.
    let waiting: Vec<TcpStream> = (1..=256)
        .map(|number| {
            let client = lab.connect();
            wait_until("it waits", || lab.stats().queue == number);
            client
        })
        .collect();
    for _ in 0..1994 {
        // The RST may be there before the client has heard that it is connected.
        match TcpStream::connect(lab.addr) {
            Ok(mut client) => {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                assert!(is_reset(&mut client));
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    let mut late = 0;
    for _ in 0..1994 {
        let record = lab.record();
        assert_eq!(record.end.to_string(), "SQ");
        late += u32::from(record.total >= Duration::from_millis(100));
    }
    // The machine may have other things to do for a moment, but not each time.
    assert!(late < 200, "{late} of 1994 refused late");
    let stats = lab.stats();
    assert_eq!(
        (stats.queue, stats.queue_max, stats.connections),
        (256, 256, 1006)
    );
    assert_eq!(stats.totals.queue_full, 1994);
    // Every seventh of those who wait leaves; each slot that comes free goes to the next.
    let mut waiting: Vec<Option<TcpStream>> = waiting.into_iter().map(Some).collect();
    for leaver in waiting.iter_mut().skip(3).step_by(7) {
        reset(leaver.take().unwrap());
    }
    wait_until("they have left", || lab.stats().queue == 219);
    let line: Vec<TcpStream> = waiting.into_iter().flatten().collect();
    for (at, client) in line.iter().enumerate() {
        drop(served.pop());
        wait_until("the next is greeted", || fate(client) == Fate::Greeted);
        let behind = line.iter().skip(at + 1);
        assert!(
            behind.take(3).all(|other| fate(other) == Fate::Waits),
            "{at}"
        );
    }
    for server in &servers {
        let most = server.most.load(Ordering::Relaxed);
        assert_eq!(most, 250);
    }
    line.into_iter().chain(served).for_each(reset);
    lab.settle();
    let stats = lab.stats();
    assert!(stats.servers.iter().all(|s| s.connections_max == 250));
    assert_eq!(stats.totals.queued, 219);
}

/// Clients that try again 20 ms after they were refused, until they are greeted; so many per
/// thread. Answers when each was greeted.
fn herd(
    addr: SocketAddr,
    threads: usize,
    each: usize,
    over: &Arc<AtomicBool>,
) -> Vec<thread::JoinHandle<Vec<(TcpStream, Instant)>>> {
    (0..threads)
        .map(|_| {
            let over = Arc::clone(over);
            thread::spawn(move || {
                let mut greeted = Vec::new();
                let mut trying: Vec<TcpStream> = Vec::new();
                while greeted.len() < each && !over.load(Ordering::Relaxed) {
                    while trying.len() + greeted.len() < each {
                        trying.extend(TcpStream::connect(addr));
                    }
                    thread::sleep(Duration::from_millis(20));
                    for client in std::mem::take(&mut trying) {
                        match fate(&client) {
                            Fate::Waits => trying.push(client),
                            Fate::Greeted => greeted.push((client, clock::now())),
                            Fate::Refused => {}
                        }
                    }
                }
                greeted
            })
        })
        .collect()
}

#[test]
fn seven_hundred_clients_are_all_served_soon_after_the_servers_return() {
    let servers = [Counter::start(), Counter::start(), Counter::start()];
    let mut config = proxy(servers.iter().map(|s| limited(s.addr, 250)).collect());
    config.max_queue = MaxQueue::PerServer(256);
    config.slowstart = Duration::from_secs(60);
    config.queue_timeout = Duration::from_secs(5);
    let lab = Lab::start(config, 2);
    for server in 0..3 {
        lab.farm.set_up(server, false, clock::now());
    }
    let over = Arc::new(AtomicBool::new(false));
    let clients = herd(lab.addr, 4, 175, &over);
    wait_until("they try in vain", || lab.stats().totals.no_server >= 1400);
    // The first two return at different times, the last with a second's delay.
    let back = clock::now();
    for (server, pause) in [(0, 30), (1, 1000), (2, 0)] {
        lab.farm.set_up(server, true, clock::now());
        thread::sleep(Duration::from_millis(pause));
    }
    let greeted: Vec<(TcpStream, Instant)> = clients
        .into_iter()
        .flat_map(|c| c.join().unwrap())
        .collect();
    assert_eq!(greeted.len(), 700);
    let last = greeted.iter().map(|(_, at)| *at).max().unwrap();
    assert!(last - back < Duration::from_secs(5), "{:?}", last - back);
    let totals = lab.stats().totals;
    assert_eq!((totals.queue_timeouts, totals.queue_too_slow), (0, 0));
    assert!(
        servers
            .iter()
            .all(|s| s.most.load(Ordering::Relaxed) <= 250)
    );
}

fn paced(addr: SocketAddr, rate: u32) -> Server {
    Server {
        connects_per_second: NonZeroU32::new(rate),
        ..server(addr)
    }
}

#[test]
fn a_herd_reaches_paced_servers_at_their_rates_and_in_order() {
    let servers = [Counter::start(), Counter::start()];
    let config = proxy(vec![
        paced(servers[0].addr, 100),
        paced(servers[1].addr, 50),
    ]);
    let lab = Lab::start(config, 2);
    let noise = Noise::start();
    let before = clock::now();
    let clients: Vec<TcpStream> = (0..600).map(|_| lab.connect()).collect();
    wait_until("all are greeted", || lab.stats().totals.queued >= 590);
    wait_until("all are accepted", || {
        servers
            .iter()
            .map(|s| s.accepted.lock().unwrap().len())
            .sum::<usize>()
            == 600
    });
    let stamps: Vec<Vec<Instant>> = servers
        .iter()
        .map(|s| s.accepted.lock().unwrap().clone())
        .collect();
    // 598 after the first two, at 150 a second: 3.99 s.
    let end = stamps.iter().filter_map(|s| s.last()).max().unwrap();
    let took = *end - before;
    assert!(took >= Duration::from_millis(3900), "{took:?}");
    let busy = usize::try_from(noise.since(before)).unwrap();
    assert!(
        took < noise.stretched(Duration::from_millis(5500), before),
        "{took:?}"
    );
    let share = stamps[0].len();
    assert!((395..=405).contains(&share), "{share}");
    for (stamps, rate) in stamps.iter().zip([100, 50]) {
        // In no second more than its rate, and what a late wake-up may make up for.
        for (first, stamp) in stamps.iter().enumerate() {
            let second = stamps
                .iter()
                .skip(first)
                .take_while(|s| **s - *stamp < Duration::from_secs(1));
            let count = second.count();
            // The servers' own threads may be late by then.
            let most = (rate + rate / 5 + 2) * busy / 100;
            assert!(count <= most, "{rate}: {count}, not {most}");
        }
    }
    drop(clients);
    lab.settle();
}

#[test]
fn a_paced_server_alone_is_never_exceeded_and_the_unpaced_takes_the_rest() {
    for workers in [1, 2] {
        let servers = [Counter::start(), Counter::start()];
        let config = proxy(vec![paced(servers[0].addr, 2), server(servers[1].addr)]);
        let lab = Lab::start(config, workers);
        let clients: Vec<TcpStream> = (0..50).map(|_| lab.connect()).collect();
        wait_until("nobody waits", || {
            servers
                .iter()
                .map(|s| s.accepted.lock().unwrap().len())
                .sum::<usize>()
                == 50
        });
        assert!(servers[0].accepted.lock().unwrap().len() <= 5);
        assert_eq!(lab.stats().totals.queued, 0);
        drop(clients);
        lab.settle();
    }
}

#[test]
fn those_who_wait_for_a_pace_are_served_though_every_other_thing_rests() {
    let backend = Counter::start();
    let lab = Lab::start(proxy(vec![paced(backend.addr, 4)]), 2);
    let began = clock::now();
    let mut clients: Vec<TcpStream> = (0..4).map(|_| lab.connect()).collect();
    for client in &mut clients {
        client.read_exact(&mut [0]).unwrap();
    }
    let stamps = backend.accepted.lock().unwrap().clone();
    // 250 ms apart; the server's own thread may be late.
    for (stamp, earliest) in stamps.iter().zip([0, 240, 490, 740]) {
        let took = *stamp - began;
        assert!(took >= Duration::from_millis(earliest), "{took:?}");
    }
    for pair in stamps.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap < Duration::from_secs(2), "{gap:?}");
    }
    // A drained server wakes nobody, and its clients hear so.
    let mut last = lab.connect();
    wait_until("it waits", || lab.stats().queue == 1);
    lab.farm.set_admin(0, AdminState::Drain, clock::now());
    assert!(is_reset(&mut last));
}

#[test]
fn who_would_wait_in_vain_is_refused_at_once() {
    let backend = Counter::start();
    let mut config = proxy(vec![limited(backend.addr, 1)]);
    config.queue_timeout = Duration::from_millis(400);
    let lab = Lab::start(config, 2);
    let _served = lab.connect();
    wait_until("one is served", || lab.stats().servers[0].connections == 1);
    // A line that never moves, for longer than anybody would wait in it.
    let noise = Noise::start();
    let began = clock::now();
    let deadline = began + PATIENCE;
    let mut waiting = vec![lab.connect()];
    while lab.stats().totals.queue_too_slow == 0 {
        assert!(clock::now() < deadline);
        waiting.push(lab.connect());
        thread::sleep(Duration::from_millis(20));
    }
    let refused = std::iter::from_fn(|| Some(lab.record()))
        .find(|record| record.end.to_string() == "SQ")
        .unwrap();
    // Not after the 400 ms for which it could have waited.
    let bound = noise.stretched(Duration::from_millis(100), began);
    assert!(refused.total < bound, "not within {bound:?}: {refused:?}");
    assert_eq!(lab.stats().totals.queue_full, 0);
}
