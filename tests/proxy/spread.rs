//! Work spread over workers, and a process that is full.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lbd::config::model::Listen;
use lbd::net::{clock, tcp};
use lbd::proxy::engine::{Engine, EngineOptions};
use lbd::proxy::farm::Farm;

use super::lab::{Backend, Lab, ask, config, proxy, server, wait_until};

/// CPU time of all workers.
fn cpu(engine: &Engine) -> Duration {
    let ticks = engine.ticks(clock::now());
    let of_worker = ticks.iter().map(|tick| {
        let path = format!("/proc/self/task/{}/schedstat", tick.tid);
        let stat = std::fs::read_to_string(path).unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    });
    of_worker.sum()
}

#[test]
fn clients_that_all_fall_to_one_worker_are_shared_with_the_idle_one() {
    let backend = Backend::echo(1);
    let proxy = proxy(vec![server(backend.addr)]);
    let farm = Arc::new(Farm::new(&proxy));
    farm.set_up(0, true, clock::now());
    let listen = Listen::Addr("127.0.0.1:0".parse().unwrap());
    // Two ports in place of one group: all clients choose the first worker's.
    let mut group = tcp::listener_group(listen, 1).unwrap();
    let addr = tcp::local_addr(&group[0]).unwrap();
    group.extend(tcp::listener_group(listen, 1).unwrap());
    let options = EngineOptions {
        workers: 2,
        max_connections: 1000,
        access: None,
    };
    let farms = [Arc::clone(&farm)];
    let engine = Engine::start(&config(proxy), &farms, vec![vec![group]], options).unwrap();
    let totals = || farm.stats(clock::now()).totals;
    // Alone with its clients, the owner takes them itself.
    for _ in 0..50 {
        assert_eq!(ask(TcpStream::connect(addr).unwrap(), b"x"), [1, b'x']);
    }
    assert!(totals().helped <= 10, "{}", totals().helped);
    let clients = (0..16).map(|_| {
        thread::spawn(move || {
            for _ in 0..50 {
                assert_eq!(ask(TcpStream::connect(addr).unwrap(), b"x"), [1, b'x']);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().unwrap();
    }
    // Ticks alone bring a handful.
    assert!(totals().helped >= 40, "{}", totals().helped);
    assert_eq!(totals().accepted, 850);
    drop(engine);
}

#[test]
fn three_thousand_clients_at_once_never_exceed_the_limit_and_a_full_process_rests() {
    const LIMIT: u32 = 50;
    for workers in [2, 3] {
        let backend = Backend::echo(1);
        let lab = Lab::start_limited(proxy(vec![server(backend.addr)]), workers, LIMIT);
        let mut inside: Vec<TcpStream> = Vec::new();
        for _ in 0..LIMIT {
            inside.push(lab.connect());
        }
        wait_until("all places are taken", || lab.engine.connections() == 50);
        let mut outside: Vec<TcpStream> = Vec::new();
        for _ in 0..3_000 {
            let mut client = lab.connect();
            client.write_all(b"x").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            outside.push(client);
        }
        wait_until("the limit is noticed", || {
            lab.stats().totals.limit_reached > 0
        });
        let before = cpu(&lab.engine);
        thread::sleep(Duration::from_secs(1));
        let spent = cpu(&lab.engine) - before;
        assert!(spent < Duration::from_millis(20), "{spent:?} of CPU, full");
        assert_eq!(lab.engine.connections(), 50);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(lab.engine.connections() <= 50);
                    thread::sleep(Duration::from_micros(100));
                }
            });
            drop(inside);
            for mut client in outside {
                let mut answer = [0; 2];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(answer, [1, b'x']);
            }
            over.store(true, Ordering::Relaxed);
        });
        lab.settle();
        assert_eq!(lab.engine.connections_max(), 50);
        assert!(backend.most.load(Ordering::SeqCst) <= 50);
        assert_eq!(lab.stats().totals.accepted, 3_050);
    }
}
