//! Work spread over workers, and a process that is full.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lbd::config::model::Listen;
use lbd::net::{clock, tcp};
use lbd::proxy::counters::ProxyTotals;
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

/// Two workers, and one address that is the first one's: as if all clients fell to it.
struct OneSided {
    engine: Engine,
    farm: Arc<Farm>,
    addr: SocketAddr,
}

impl OneSided {
    fn start(backend: &Backend, max_connections: u32) -> Self {
        let proxy = proxy(vec![server(backend.addr)]);
        let farm = Arc::new(Farm::new(&proxy));
        farm.set_up(0, true, clock::now());
        let listen = Listen::Addr("127.0.0.1:0".parse().unwrap());
        // Two ports in place of one group; the second worker's is never told to anybody.
        let mut group = tcp::listener_group(listen, 1).unwrap();
        let addr = tcp::local_addr(&group[0]).unwrap();
        group.extend(tcp::listener_group(listen, 1).unwrap());
        let options = EngineOptions {
            workers: 2,
            max_connections,
            access: None,
        };
        let farms = [Arc::clone(&farm)];
        let engine = Engine::start(&config(proxy), &farms, vec![vec![group]], options).unwrap();
        Self { engine, farm, addr }
    }

    fn ask(&self) {
        assert_eq!(ask(TcpStream::connect(self.addr).unwrap(), b"x"), [1, b'x']);
    }

    /// Asks when the owner has had time to go to sleep.
    fn ask_calmly(&self) {
        self.ask();
        wait_until("it is over", || self.engine.connections() == 0);
        thread::sleep(Duration::from_millis(5));
    }

    fn totals(&self) -> ProxyTotals {
        self.farm.stats(clock::now()).totals
    }
}

#[test]
fn clients_that_all_fall_to_one_worker_are_shared_with_the_idle_one() {
    let backend = Backend::echo(1);
    let lab = OneSided::start(&backend, 1000);
    // Alone with its clients, the owner takes them itself.
    (0..50).for_each(|_| lab.ask_calmly());
    assert!(lab.totals().helped <= 15, "{}", lab.totals().helped);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..50).for_each(|_| lab.ask()));
        }
    });
    // Ticks alone bring a handful.
    assert!(lab.totals().helped >= 40, "{}", lab.totals().helped);
    assert_eq!(lab.totals().accepted, 850);
}

#[test]
fn after_a_limit_was_reached_the_owner_stands_before_its_helper_again() {
    let backend = Backend::echo(1);
    let lab = OneSided::start(&backend, 2);
    let mut helped = 0;
    for _ in 0..5 {
        let inside = [(); 2].map(|()| TcpStream::connect(lab.addr).unwrap());
        wait_until("all places are taken", || lab.engine.connections() == 2);
        let limited = lab.totals().limit_reached;
        let outside = TcpStream::connect(lab.addr).unwrap();
        wait_until("the owner rests", || lab.totals().limit_reached > limited);
        drop(inside);
        assert_eq!(ask(outside, b"x"), [1, b'x']);
        wait_until("nobody is left", || lab.engine.connections() == 0);
        // The helper comes back a tenth of a second after the owner.
        thread::sleep(Duration::from_millis(200));
        let before = lab.totals().helped;
        (0..20).for_each(|_| lab.ask_calmly());
        helped += lab.totals().helped - before;
    }
    assert!(helped <= 30, "{helped} of 100");
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
        assert_eq!(lab.stats().totals.accepted, 3_050);
    }
}
