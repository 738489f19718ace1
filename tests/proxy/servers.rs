//! Which server a connection gets, and what happens when that one fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lbd::config::model::Source;
use lbd::net::clock;
use lbd::proxy::server::AdminState;

use super::hedging::Hole;
use super::lab::{
    Backend, Lab, PATIENCE, Pattern, ask, is_reset, limited, proxy, refusing, server, wait_until,
    weighted,
};

#[test]
fn ten_thousand_connections_are_shared_exactly_by_weight_and_every_byte_is_right() {
    for workers in [1, 2] {
        let backends = [Backend::echo(0), Backend::echo(1), Backend::echo(2)];
        let servers = (1..).zip(&backends).map(|(w, b)| weighted(b.addr, w));
        let mut proxy = proxy(servers.collect());
        proxy.client_first = true;
        let lab = Arc::new(Lab::start(proxy, workers));
        let next = Arc::new(AtomicUsize::new(0));
        let got = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (lab, next, got) = (Arc::clone(&lab), Arc::clone(&next), Arc::clone(&got));
                thread::spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= 10_000 {
                            return;
                        }
                        let len = 1 + number % 5000;
                        let request = Pattern::bytes(number as u64, len);
                        let answer = ask(lab.connect(), &request);
                        assert_eq!(answer[1..], request);
                        got[usize::from(answer[0])].fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let got = [0, 1, 2].map(|i: usize| got[i].load(Ordering::SeqCst));
        // 1666 whole rounds of 6, and the first four picks of the next: 3, 2, 1, 3.
        assert_eq!(got, [1667, 3333, 5000]);
        lab.settle();
        let stats = lab.stats();
        assert_eq!(stats.totals.accepted, 10_000);
        assert_eq!(stats.totals.finished, 10_000);
        assert!(
            stats.servers[2].totals.recycled > 0,
            "no socket was recycled"
        );
    }
}

#[test]
fn a_server_that_refuses_costs_no_client_its_connection() {
    for workers in [1, 2] {
        let (a, b) = (Backend::echo(1), Backend::echo(2));
        let servers = vec![server(a.addr), server(refusing()), server(b.addr)];
        let lab = Lab::start(proxy(servers), workers);
        for number in 0..300 {
            let request = Pattern::bytes(number, 100);
            assert_eq!(ask(lab.connect(), &request)[1..], request);
        }
        lab.settle();
        let stats = lab.stats();
        assert_eq!(stats.servers[1].totals.connect_errors, 100);
        assert_eq!(stats.servers[1].totals.connected, 0);
        assert!(lab.farm.take_suspect(1));
        assert!(!lab.farm.take_suspect(0));
    }
}

#[test]
fn a_server_that_swallows_connects_costs_a_client_one_connect_timeout() {
    for workers in [1, 2] {
        let (hole, good) = (Hole::new(), Backend::echo(1));
        let mut proxy = proxy(vec![server(hole.addr), server(good.addr)]);
        proxy.connect_timeout = Duration::from_millis(150);
        let lab = Lab::start(proxy, workers);
        let began = clock::now();
        assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(150), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let record = lab.record();
        assert_eq!((record.retries, record.redispatched), (1, true));
        assert_eq!(record.end.to_string(), "--");
        assert_eq!(lab.stats().servers[0].totals.connect_timeouts, 1);
    }
}

#[test]
fn a_connect_in_flight_to_a_server_that_goes_down_is_sent_elsewhere() {
    for workers in [1, 2] {
        let (hole, good) = (Hole::new(), Backend::echo(1));
        let mut proxy = proxy(vec![server(hole.addr), server(good.addr)]);
        proxy.connect_timeout = Duration::from_secs(600);
        let lab = Lab::start(proxy, workers);
        let mut client = lab.connect();
        wait_until("the connect is under way", || {
            lab.stats().servers[0].connections == 1
        });
        lab.farm.set_up(0, false, clock::now());
        client.write_all(b"x").unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, b'x']);
        assert_eq!(lab.stats().servers[0].connections, 0);
    }
}

#[test]
fn a_client_that_leaves_while_its_connect_is_under_way_frees_the_slot_at_once() {
    for workers in [1, 2] {
        let hole = Hole::new();
        let mut proxy = proxy(vec![server(hole.addr)]);
        proxy.connect_timeout = Duration::from_secs(600);
        let lab = Lab::start(proxy, workers);
        let client = lab.connect();
        wait_until("the connect is under way", || {
            lab.stats().servers[0].connections == 1
        });
        super::lab::reset(client);
        let record = lab.record();
        assert_eq!(record.end.to_string(), "CC");
        assert_eq!((record.queue.is_some(), record.connect), (true, None));
        lab.settle();
    }
}

#[test]
fn a_listener_without_address_serves_both_families() {
    let backend = Backend::echo(1);
    let mut config = proxy(vec![server(backend.addr)]);
    config.listen = vec![lbd::config::model::Listen::Any(0)];
    let lab = Lab::start(config, 2);
    for (host, shown) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let Ok(client) = TcpStream::connect((host, lab.addr.port())) else {
            eprintln!("skipped: no {host} here");
            continue;
        };
        let from = client.local_addr().unwrap();
        assert_eq!(ask(client, b"x"), [1, b'x']);
        let record = lab.record();
        assert_eq!(record.local.ip().to_string(), shown);
        assert_eq!(record.client, from);
    }
}

#[test]
fn with_no_usable_server_the_client_is_reset_at_once() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        lab.farm.set_admin(0, AdminState::Drain, clock::now());
        let began = clock::now();
        assert!(is_reset(&mut lab.connect()));
        assert!(clock::now() - began < Duration::from_secs(1));
        assert_eq!(lab.stats().totals.no_server, 1);
        let record = lab.record();
        assert_eq!(
            (record.end.to_string().as_str(), record.server),
            ("SC", None)
        );
    }
}

#[test]
fn with_every_server_refusing_the_client_is_reset_after_its_retries() {
    for workers in [1, 2] {
        let mut proxy = proxy(vec![server(refusing()), server(refusing())]);
        proxy.retries = 3;
        let lab = Lab::start(proxy, workers);
        assert!(is_reset(&mut lab.connect()));
        let record = lab.record();
        assert_eq!((record.end.to_string().as_str(), record.retries), ("SC", 3));
        let attempts: u64 = lab.stats().servers.iter().map(|s| s.totals.attempts).sum();
        assert_eq!(attempts, 4);
        lab.settle();
    }
}

#[test]
fn a_source_that_is_not_on_this_machine_is_no_want_of_ports() {
    let backend = Backend::echo(1);
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.source = Source::Fixed {
        v4: Some("192.0.2.77".parse().unwrap()),
        v6: None,
    };
    let lab = Lab::start(proxy, 1);
    assert!(is_reset(&mut lab.connect()));
    assert_eq!(lab.record().end.to_string(), "SC");
    let totals = lab.stats().totals;
    assert_eq!((totals.unreachable, totals.resource_errors), (1, 0));
    assert!(lab.engine.shortages().iter().all(|(_, met)| *met == 0));
    // A check of it is due, and will say why.
    assert!(lab.farm.take_suspect(0));
    lab.settle();
}

#[test]
fn a_draining_server_keeps_its_connections_and_gets_no_new_ones() {
    for workers in [1, 2] {
        let (a, b) = (Backend::echo(1), Backend::echo(2));
        let lab = Lab::start(proxy(vec![server(a.addr), server(b.addr)]), workers);
        let mut old = lab.connect();
        old.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 2];
        old.write_all(b"x").unwrap();
        old.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, b'x']);
        lab.farm.set_admin(0, AdminState::Drain, clock::now());
        for _ in 0..10 {
            assert_eq!(ask(lab.connect(), b"y"), [2, b'y']);
        }
        assert_eq!(ask(old, b"z"), b"z");
    }
}

#[test]
fn a_freed_slot_is_handed_over_between_workers() {
    let backend = Backend::echo(1);
    let lab = Arc::new(Lab::start(proxy(vec![limited(backend.addr, 1)]), 2));
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let lab = Arc::clone(&lab);
            thread::spawn(move || {
                let request = Pattern::bytes(number, 2000);
                assert_eq!(ask(lab.connect(), &request)[1..], request);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    lab.settle();
    assert_eq!(lab.stats().servers[0].connections_max, 1);
}

/// Servers that come and go, limits, a short queue, and clients of every kind: afterwards no slot
/// and no place is left behind, and whoever was answered was answered right.
#[test]
fn nothing_leaks_whatever_happens() {
    for workers in [1, 2] {
        let backends = [Backend::echo(0), Backend::echo(1)];
        let mut servers: Vec<_> = backends.iter().map(|b| limited(b.addr, 4)).collect();
        servers.push(limited(refusing(), 4));
        let mut config = proxy(servers);
        config.client_first = true;
        config.queue_timeout = Duration::from_millis(30);
        config.max_queue = lbd::config::model::MaxQueue::Total(6);
        config.max_connections = std::num::NonZeroU32::new(12);
        let lab = Arc::new(Lab::start(config, workers));
        let clients: Vec<_> = (0..20_u64)
            .map(|client| {
                let lab = Arc::clone(&lab);
                thread::spawn(move || (0..120).for_each(|round| random_client(&lab, client, round)))
            })
            .collect();
        let mut turn = 0_usize;
        while clients.iter().any(|client| !client.is_finished()) {
            turn += 1;
            lab.farm
                .set_up(turn % 3, !turn.is_multiple_of(5), clock::now());
            let admin = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
            lab.farm
                .set_admin(turn % 2, admin[turn / 2 % 3], clock::now());
            lab.farm.tick(clock::now());
            thread::sleep(Duration::from_millis(2));
        }
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        for server in 0..3 {
            lab.farm.set_admin(server, AdminState::Ready, clock::now());
            lab.farm.set_up(server, true, clock::now());
        }
        for server in &lab.stats().servers {
            assert!(server.connections_max <= 4, "{server:?}");
        }
        assert!(lab.stats().connections_max <= 12);
        for _ in 0..20 {
            assert_eq!(ask(lab.connect(), b"x")[1..], *b"x");
        }
        lab.settle();
    }
}

fn random_client(lab: &Lab, client: u64, round: u64) {
    let request = Pattern::bytes(client * 1000 + round, 2000);
    // One that is refused at once may hear of it before it knows that it was connected.
    let Ok(mut stream) = TcpStream::connect(lab.addr) else {
        return;
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match (client + round) % 6 {
        0 => super::lab::reset(stream),
        1 => drop(stream),
        2 => {
            if stream.write_all(&request).is_ok() {
                super::lab::reset(stream);
            }
        }
        _ => {
            if stream.write_all(&request).is_err()
                || stream.shutdown(std::net::Shutdown::Write).is_err()
            {
                return;
            }
            let mut answer = Vec::new();
            if stream.read_to_end(&mut answer).is_ok() {
                assert_eq!(answer[1..], request);
            }
        }
    }
}
