//! What clients lose to a server that takes connections and does not serve, or ends them: it is out
//! of service after a few of them, without any check.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lbd::config::model::{HedgeAfter, Proxy, Server};
use lbd::net::clock;

use super::hedging::Hole;
use super::lab::{Backend, Lab, ask, is_reset, proxy, reset, server, wait_until};

/// Where the client speaks first, and half of the servers may be ejected.
fn spoken_to(servers: Vec<Server>) -> Proxy {
    Proxy {
        client_first: true,
        max_ejected: 50,
        ..proxy(servers)
    }
}

fn ejected_for(lab: &Lab, server: usize) -> Option<&'static str> {
    lab.stats().servers[server].standing.ejected_for
}

/// A server that answers each byte with the same.
fn plain() -> Backend {
    Backend::start(|mut stream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    })
}

/// A client that has asked; nothing is read yet.
fn asking(lab: &Lab) -> TcpStream {
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    client
}

#[test]
fn a_server_that_stops_answering_is_out_after_a_quarter_second_and_keeps_whom_it_has() {
    for workers in [1, 2] {
        let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
        let (a, b) = (plain(), plain());
        let servers = vec![
            server(hangs.local_addr().unwrap()),
            server(a.addr),
            server(b.addr),
        ];
        let lab = Lab::start(spoken_to(servers), workers);
        let began = clock::now();
        let mut clients = Vec::new();
        wait_until("the server is ejected", || {
            clients.push(asking(&lab));
            thread::sleep(Duration::from_millis(10));
            lab.farm.watch(clock::now());
            ejected_for(&lab, 0).is_some()
        });
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(250), "{took:?}");
        assert_eq!(
            ejected_for(&lab, 0),
            Some("clients got no answer while others did")
        );
        assert!(lab.farm.take_suspect(0), "a check of it is due");
        assert_eq!(ejected_for(&lab, 1).or(ejected_for(&lab, 2)), None);
        let kept = lab.stats().servers[0].connections;
        assert!(kept >= 3, "{kept}");
        for _ in 0..9 {
            let mut byte = [0];
            asking(&lab).read_exact(&mut byte).unwrap();
        }
        assert_eq!(lab.stats().servers[0].connections, kept);
    }
}

#[test]
fn a_server_that_is_always_slow_to_answer_first_stays_in_service() {
    let slow = Backend::start(|mut stream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            thread::sleep(Duration::from_millis(600));
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    });
    let quick = plain();
    let lab = Lab::start(spoken_to(vec![server(slow.addr), server(quick.addr)]), 2);
    // It is known by its first answers.
    let mut first: Vec<TcpStream> = (0..4).map(|_| asking(&lab)).collect();
    for client in &mut first {
        client.read_exact(&mut [0]).unwrap();
    }
    lab.farm.watch(clock::now());
    let end = clock::now() + Duration::from_millis(1_500);
    let mut clients = Vec::new();
    while clock::now() < end {
        if clients.len() < 40 {
            clients.push(asking(&lab));
        } else {
            // Only the quick one is asked on.
            let _more = clients[1].write_all(b"x");
            clients.push(asking(&lab));
        }
        thread::sleep(Duration::from_millis(25));
        lab.farm.watch(clock::now());
    }
    assert_eq!(ejected_for(&lab, 0), None);
    assert_eq!(lab.stats().servers[0].standing.ejections, 0);
}

#[test]
fn a_server_that_resets_whoever_asks_loses_three_clients() {
    for workers in [1, 2] {
        let broken = Backend::start(|mut stream| {
            let _read = stream.read(&mut [0]);
            reset(stream);
        });
        let (a, b) = (plain(), plain());
        let servers = vec![server(broken.addr), server(a.addr), server(b.addr)];
        let lab = Lab::start(spoken_to(servers), workers);
        let mut lost = 0;
        for _ in 0..60 {
            let mut client = asking(&lab);
            match client.read_exact(&mut [0]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => lost += 1,
                Err(error) => panic!("{error}"),
            }
            drop(client);
            lab.settle();
        }
        assert_eq!(lost, 3);
        assert_eq!(
            ejected_for(&lab, 0),
            Some("connections were ended before an answer")
        );
    }
}

#[test]
fn a_server_that_ends_connections_as_it_gets_them_costs_no_client_who_is_silent() {
    for ends in [|stream: TcpStream| drop(stream), reset] {
        let broken = Backend::start(ends);
        let (a, b) = (Backend::echo(1), Backend::echo(2));
        let servers = vec![server(broken.addr), server(a.addr), server(b.addr)];
        let lab = Lab::start(spoken_to(servers), 1);
        for _ in 0..12 {
            let client = lab.connect();
            wait_until("it is at a good server", || {
                let stats = lab.stats();
                let at = |server: usize| stats.servers[server].connections;
                at(0) == 0 && at(1) + at(2) == 1
            });
            assert_eq!(ask(client, b"x")[1..], *b"x");
            lab.settle();
        }
        assert_eq!(
            ejected_for(&lab, 0),
            Some("connections were ended before an answer")
        );
        assert_eq!(lab.stats().totals.server_aborts, 0);
    }
}

#[test]
fn a_server_that_ends_a_connection_after_a_while_may_have_waited_for_long_enough() {
    let patient = Backend::start(|stream| {
        thread::sleep(Duration::from_millis(700));
        drop(stream);
    });
    let good = plain();
    let servers = vec![server(patient.addr), server(good.addr)];
    let lab = Lab::start(spoken_to(servers), 1);
    let mut client = lab.connect();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "its end is passed on");
    assert_eq!(lab.stats().servers[0].standing.suspicions, 0);
}

#[test]
fn clients_who_leave_before_they_are_answered_are_not_held_against_a_server() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = plain();
    let servers = vec![server(hangs.local_addr().unwrap()), server(good.addr)];
    let lab = Lab::start(spoken_to(servers), 1);
    let end = clock::now() + Duration::from_millis(700);
    while clock::now() < end {
        let client = asking(&lab);
        client.shutdown(Shutdown::Write).unwrap();
        thread::sleep(Duration::from_millis(5));
        reset(client);
        lab.settle();
        lab.farm.watch(clock::now());
    }
    let stats = lab.stats();
    let totals = stats.servers[0].totals;
    assert!(totals.asked >= 3, "{totals:?}");
    assert_eq!(totals.unanswered, totals.asked);
    assert_eq!(stats.servers[0].standing.ejections, 0);
}

#[test]
fn a_black_hole_is_out_after_a_quarter_second_of_connects_without_an_answer() {
    let (hole, a, b) = (Hole::new(), Backend::echo(1), Backend::echo(2));
    let mut config = spoken_to(vec![server(hole.addr), server(a.addr), server(b.addr)]);
    config.hedge_after = HedgeAfter::After(Duration::from_millis(60));
    let lab = Lab::start(config, 1);
    for server in [1, 2] {
        lab.farm.passed_check(server, clock::now());
    }
    let began = clock::now();
    let mut clients = Vec::new();
    wait_until("the server is ejected", || {
        clients.push(asking(&lab));
        thread::sleep(Duration::from_millis(10));
        ejected_for(&lab, 0).is_some()
    });
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(250), "{took:?}");
    assert!(took <= Duration::from_secs(3), "{took:?}");
    assert_eq!(
        ejected_for(&lab, 0),
        Some("connects had no answer while others had")
    );
    for client in &mut clients {
        assert!(!is_reset_now(client));
    }
}

/// Whether its connection was reset, without waiting.
fn is_reset_now(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    match client.peek(&mut [0]) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(_) => is_reset(client),
    }
}
