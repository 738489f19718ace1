//! Limits of connections, the queue, and who gives way.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lbd::config::model::MaxQueue;
use lbd::net::clock;
use std::num::NonZeroU32;

use super::lab::{Backend, Lab, Pattern, ask, is_reset, limited, proxy, reset, server, wait_until};

#[test]
fn seven_connections_are_never_exceeded_by_a_hundred_clients() {
    for workers in [1, 2] {
        let backend = Backend::echo(9);
        let lab = Arc::new(Lab::start(proxy(vec![limited(backend.addr, 7)]), workers));
        let clients: Vec<_> = (0..100_u64)
            .map(|number| {
                let lab = Arc::clone(&lab);
                thread::spawn(move || {
                    for round in 0..5 {
                        let request = Pattern::bytes(number * 8 + round, 3000);
                        assert_eq!(ask(lab.connect(), &request)[1..], request);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        let stats = lab.stats();
        assert_eq!(stats.servers[0].connections_max, 7);
        assert_eq!(stats.totals.finished, 500);
        assert!(stats.totals.queued > 0);
    }
}

/// Whether a connection is still there, as far as its own machine has heard.
fn is_alive(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn a_server_never_has_more_connections_than_its_limit_while_clients_break_off() {
    const LIMIT: usize = 5;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_nonblocking(true).unwrap();
            held.retain(is_alive);
            held.extend(is_alive(&stream).then_some(stream));
            seen.fetch_max(held.len(), Ordering::Relaxed);
        }
    });
    let limit = u32::try_from(LIMIT).unwrap();
    let lab = Arc::new(Lab::start(proxy(vec![limited(addr, limit)]), 2));
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let lab = Arc::clone(&lab);
            thread::spawn(move || {
                for _ in 0..25 {
                    reset(lab.connect());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    lab.settle();
    // Where the server is late, all were gone before it looked.
    let _stays = lab.connect();
    wait_until("one who stays is seen", || most.load(Ordering::Relaxed) > 0);
    let most = most.load(Ordering::Relaxed);
    assert!(most <= LIMIT, "{most}");
}

#[test]
fn those_who_wait_are_served_in_the_order_they_came() {
    for workers in [1, 2] {
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, gate) = sync_channel::<()>(100);
        let gate = Mutex::new(gate);
        let seen = Arc::clone(&order);
        let backend = Backend::start(move |mut stream| {
            let mut number = [0];
            if stream.read_exact(&mut number).is_ok() {
                seen.lock().unwrap().push(number[0]);
                gate.lock().unwrap().recv().unwrap();
            }
        });
        let lab = Lab::start(proxy(vec![limited(backend.addr, 1)]), workers);
        let mut clients = Vec::new();
        for number in 0..20_u8 {
            let mut client = lab.connect();
            client.write_all(&[number]).unwrap();
            wait_until("it waits or is served", || {
                // The first has its place: a second worker's client would be ahead of it.
                let stats = lab.stats();
                stats.queue == usize::from(number) && stats.servers[0].connections == 1
            });
            clients.push(client);
        }
        for served in 0..20 {
            wait_until("the next is served", || {
                order.lock().unwrap().len() == served + 1
            });
            go.send(()).unwrap();
            drop(clients.remove(0));
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<u8>>());
    }
}

/// A server that keeps every connection until the client leaves.
fn keeper() -> Backend {
    Backend::start(|mut stream| {
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    })
}

#[test]
fn one_more_than_the_queue_holds_is_refused_at_once() {
    for workers in [1, 2] {
        let backend = keeper();
        let mut proxy = proxy(vec![limited(backend.addr, 1)]);
        proxy.max_queue = MaxQueue::Total(2);
        let lab = Lab::start(proxy, workers);
        let clients: Vec<TcpStream> = (0..3).map(|_| lab.connect()).collect();
        wait_until("two wait", || lab.stats().queue == 2);
        let began = clock::now();
        assert!(is_reset(&mut lab.connect()));
        assert!(clock::now() - began < Duration::from_secs(1));
        let record = lab.record();
        assert_eq!(record.end.to_string(), "SQ");
        assert_eq!(lab.stats().totals.queue_full, 1);
        drop(clients);
        lab.settle();
    }
}

#[test]
fn a_client_that_waited_too_long_is_reset() {
    for workers in [1, 2] {
        let backend = keeper();
        let mut proxy = proxy(vec![limited(backend.addr, 1)]);
        proxy.queue_timeout = Duration::from_millis(150);
        let lab = Lab::start(proxy, workers);
        let _served = lab.connect();
        wait_until("one is served", || lab.stats().servers[0].connections == 1);
        let began = clock::now();
        assert!(is_reset(&mut lab.connect()));
        let waited = clock::now() - began;
        assert!(waited >= Duration::from_millis(149), "{waited:?}");
        assert!(waited < Duration::from_secs(2), "{waited:?}");
        assert_eq!(lab.record().end.to_string(), "sQ");
        assert_eq!(lab.stats().queue, 0);
    }
}

#[test]
fn a_client_that_leaves_the_queue_frees_its_place_at_once() {
    for workers in [1, 2] {
        let backend = keeper();
        let mut proxy = proxy(vec![limited(backend.addr, 1)]);
        proxy.client_first = true;
        let lab = Lab::start(proxy, workers);
        let _served = lab.connect();
        wait_until("one is served", || lab.stats().servers[0].connections == 1);
        let (resets, closes) = (lab.connect(), lab.connect());
        wait_until("two wait", || lab.stats().queue == 2);
        reset(resets);
        wait_until("one left", || lab.stats().queue == 1);
        drop(closes);
        wait_until("both left", || lab.stats().queue == 0);
        assert_eq!(lab.record().end.to_string(), "CQ");
        assert_eq!(lab.record().end.to_string(), "CQ");
        assert_eq!(lab.engine.connections(), 1);
    }
}

#[test]
fn at_the_process_limit_newcomers_wait_in_the_kernel_and_nothing_spins() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start_limited(proxy(vec![server(backend.addr)]), workers, 3);
        let mut inside: Vec<TcpStream> = (0..3).map(|_| lab.connect()).collect();
        wait_until("all are served", || lab.engine.connections() == 3);
        let mut outside = lab.connect();
        outside.write_all(b"x").unwrap();
        wait_until("the limit is noticed", || {
            lab.stats().totals.limit_reached > 0
        });
        wait_until("all workers run", || {
            let ticks = lab.engine.ticks(clock::now());
            ticks.iter().all(|worker| worker.tid > 0)
        });
        let before = cpu_of_workers(&lab);
        let mut answer = [0; 2];
        outside
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(outside.read_exact(&mut answer).is_err());
        let spent = cpu_of_workers(&lab) - before;
        assert!(spent < 10, "{spent} clock ticks spent in 300 ms of waiting");
        assert_eq!(lab.engine.connections(), 3);
        outside
            .set_read_timeout(Some(super::lab::PATIENCE))
            .unwrap();
        inside.pop();
        outside.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, b'x']);
        assert_eq!(lab.engine.connections_max(), 3);
    }
}

/// Clock ticks that the lab's worker threads have used.
fn cpu_of_workers(lab: &Lab) -> u64 {
    let mut ticks = 0;
    for worker in lab.engine.ticks(clock::now()) {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", worker.tid)).unwrap();
        let (name, rest) = stat.rsplit_once(')').unwrap();
        assert!(name.contains("(lbd-w"), "{name}");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    }
    ticks
}

#[test]
fn the_proxys_own_limit_is_exact_and_lets_the_next_in_when_one_leaves() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.max_connections = NonZeroU32::new(5);
        let lab = Arc::new(Lab::start(proxy, workers));
        let clients: Vec<_> = (0..40_u64)
            .map(|number| {
                let lab = Arc::clone(&lab);
                thread::spawn(move || {
                    let request = Pattern::bytes(number, 5000);
                    assert_eq!(ask(lab.connect(), &request)[1..], request);
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        assert!(lab.stats().connections_max <= 5);
    }
}

#[test]
fn at_the_limit_the_oldest_silent_client_gives_way_to_one_that_speaks() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.client_first = true;
        proxy.first_byte_timeout = Some(Duration::from_secs(600));
        let lab = Lab::start_limited(proxy, workers, 3);
        let mut silent: Vec<TcpStream> = (0..3).map(|_| lab.connect()).collect();
        wait_until("all are in", || lab.engine.connections() == 3);
        assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        let evicted = lab.stats().totals.gave_way;
        assert!(evicted >= 1, "{evicted}");
        wait_until("the silent ones noticed", || {
            silent.iter_mut().any(|stream| {
                stream.set_nonblocking(true).unwrap();
                stream
                    .read(&mut [0])
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
            })
        });
        assert_eq!(lab.record().end.to_string(), "PD");
    }
}

#[test]
fn only_clients_of_the_given_address_are_reset() {
    for workers in [1, 2] {
        let backend = keeper();
        let mut config = proxy(vec![server(backend.addr)]);
        config.listen = vec![lbd::config::model::Listen::Any(0)];
        let lab = Lab::start(config, workers);
        let port = lab.addr.port();
        let mut leaving: Vec<TcpStream> = (0..10)
            .map(|_| TcpStream::connect(("127.0.0.2", port)).unwrap())
            .collect();
        let staying = TcpStream::connect(("127.0.0.3", port)).unwrap();
        wait_until("all are served", || lab.engine.connections() == 11);
        lab.engine
            .reset_local(&["127.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(lab.engine.connections(), 1);
        assert!(leaving.iter_mut().all(is_reset));
        assert_eq!(lab.record().end.to_string(), "KD");
        drop(staying);
        lab.settle();
    }
}

#[test]
fn a_stop_lets_connections_finish_and_resets_what_is_left() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let (mut finishes, mut lingers) = (lab.connect(), lab.connect());
        for client in [&mut finishes, &mut lingers] {
            client.write_all(b"a").unwrap();
            client.read_exact(&mut [0; 2]).unwrap();
        }
        let began = clock::now();
        thread::scope(|scope| {
            let stop = scope.spawn(|| lab.engine.stop(Duration::from_millis(400)));
            assert_eq!(ask(finishes, b"b"), b"b");
            stop.join().unwrap();
        });
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(400), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(is_reset(&mut lingers));
        assert_eq!(lab.engine.connections(), 0);
        assert_eq!(lab.engine.listeners()[0][0].len(), workers);
    }
}

#[test]
fn every_worker_comes_round_within_a_hundred_milliseconds() {
    let backend = keeper();
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 2);
    wait_until("both have introduced themselves", || {
        lab.engine.ticks(clock::now()).iter().all(|t| t.tid > 0)
    });
    let start = clock::now();
    let (mut samples, mut late) = (0, 0);
    while clock::now() - start < Duration::from_millis(500) {
        let ticks = lab.engine.ticks(clock::now());
        assert_eq!(ticks.len(), 2);
        samples += 1;
        late += u32::from(ticks.iter().any(|t| t.age_ms > 100));
        thread::yield_now();
    }
    // The test shares the machine with others, so a few may find a worker without a core.
    assert!(late * 4 < samples, "{late} of {samples}");
}
