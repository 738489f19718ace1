//! What becomes of connections, established and new, when a server hangs, refuses, or says that it
//! is not ready: three servers, some of which do so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbd::config::model::{OnNotReady, OnUnresponsive};
use lbd::health::fsm::Health;
use lbd::net::clock;
use lbd::proxy::dispatch::verdicts::Checked;

use super::lab::{Backend, Lab, ask, is_reset, proxy, refusing, server, wait_until};

/// A server that is there for the kernel alone: connects succeed, nobody answers.
fn hanging() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A connection that has reached a server, and which one that is.
fn established(lab: &Lab) -> (TcpStream, u8) {
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], b'x');
    (client, answer[0])
}

/// So many connections, apart by the server they have reached.
fn clients(lab: &Lab, count: usize) -> [Vec<TcpStream>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for _ in 0..count {
        let (client, server) = established(lab);
        all[usize::from(server)].push(client);
    }
    all
}

fn still_served(client: &mut TcpStream) -> bool {
    let mut byte = [0];
    client.write_all(b"y").is_ok() && client.read_exact(&mut byte).is_ok() && byte == *b"y"
}

/// Checks of these servers, begun and finished now.
fn checks(lab: &Lab, results: &[(usize, Health)]) {
    for (server, health) in results {
        lab.farm.set_health(*server, *health, clock::now());
    }
}

const READY: Health = Health::Ready;
const NOT_READY: Health = Health::NotReady;
const UNRESPONSIVE: Health = Health::Unresponsive;

fn three() -> [Backend; 3] {
    [Backend::echo(0), Backend::echo(1), Backend::echo(2)]
}

#[test]
fn clients_of_an_unresponsive_server_are_told_and_those_of_others_are_left_alone() {
    for workers in [1, 2] {
        let backends = three();
        let servers = backends.iter().map(|b| server(b.addr)).collect();
        let lab = Lab::start(proxy(servers), workers);
        let [lost, mut kept, mut others] = clients(&lab, 60);
        assert_eq!([lost.len(), kept.len(), others.len()], [20, 20, 20]);
        checks(&lab, &[(0, UNRESPONSIVE), (1, READY)]);
        for mut client in lost {
            assert!(is_reset(&mut client));
            assert_eq!(lab.record().end.to_string(), "DD");
        }
        assert!(kept.iter_mut().chain(&mut others).all(still_served));
        assert_eq!(lab.stats().totals.server_down, 20);
        assert_eq!(lab.stats().servers[0].connections, 0);
        let [none, _, _] = clients(&lab, 10);
        assert!(none.is_empty(), "a new connection went to it");
    }
}

#[test]
fn many_connections_are_closed_little_by_little() {
    let backends = three();
    let servers = backends.iter().take(2).map(|b| server(b.addr)).collect();
    let lab = Lab::start(proxy(servers), 1);
    let [lost, _kept, _] = clients(&lab, 800);
    let began = clock::now();
    checks(&lab, &[(0, UNRESPONSIVE), (1, READY)]);
    // An eighth at once, and one more in each tick of 50 ms: seven ticks, the first perhaps soon.
    wait_until("all are closed", || lab.stats().totals.server_down == 400);
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(290), "{took:?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    drop(lost);
}

#[test]
fn closing_stops_when_the_server_gives_a_sign_of_life() {
    let backends = three();
    let servers = backends.iter().take(2).map(|b| server(b.addr)).collect();
    let lab = Lab::start(proxy(servers), 1);
    let [mut lost, _kept, _] = clients(&lab, 800);
    checks(&lab, &[(0, UNRESPONSIVE), (1, READY)]);
    wait_until("some are closed", || lab.stats().totals.server_down > 0);
    checks(&lab, &[(0, NOT_READY)]);
    let kept = lost
        .iter_mut()
        .filter_map(|client| still_served(client).then_some(()));
    let kept = u64::try_from(kept.count()).unwrap();
    let closed = lab.stats().totals.server_down;
    assert!(kept > 0 && closed > 0, "{kept} kept, {closed} closed");
    assert_eq!(kept + closed, 400);
}

#[test]
fn nobody_is_closed_while_all_servers_are_unresponsive() {
    for workers in [1, 2] {
        let backends = three();
        let servers = backends.iter().map(|b| server(b.addr)).collect();
        let lab = Lab::start(proxy(servers), workers);
        let [mut a, mut b, mut c] = clients(&lab, 12);
        checks(
            &lab,
            &[(0, UNRESPONSIVE), (1, UNRESPONSIVE), (2, UNRESPONSIVE)],
        );
        assert!((0..3).all(|server| !lab.farm.closes(server)));
        // One wakes up; another does too, at its next check.
        checks(&lab, &[(1, READY), (0, NOT_READY)]);
        assert!(a.iter_mut().chain(&mut b).chain(&mut c).all(still_served));
        assert_eq!(lab.stats().totals.server_down, 0);
        // The third is still gone when it is looked at again.
        checks(&lab, &[(2, UNRESPONSIVE)]);
        assert!(c.iter_mut().all(is_reset));
        assert!(a.iter_mut().chain(&mut b).all(still_served));
    }
}

#[test]
fn connections_are_left_alone_where_so_configured() {
    let backends = three();
    let servers = backends.iter().take(2).map(|b| server(b.addr)).collect();
    let mut proxy = proxy(servers);
    proxy.on_unresponsive = OnUnresponsive::Keep;
    let lab = Lab::start(proxy, 1);
    let [mut a, _b, _] = clients(&lab, 4);
    checks(&lab, &[(0, UNRESPONSIVE), (1, READY), (0, UNRESPONSIVE)]);
    assert!(!lab.farm.closes(0));
    assert!(a.iter_mut().all(still_served));
}

#[test]
fn a_server_that_is_not_ready_keeps_its_clients_unless_told_otherwise() {
    for (on_not_ready, closed) in [(OnNotReady::Drain, false), (OnNotReady::Reset, true)] {
        let backends = three();
        let servers = backends.iter().map(|b| server(b.addr)).collect();
        let mut proxy = proxy(servers);
        proxy.on_not_ready = on_not_ready;
        let lab = Lab::start(proxy, 2);
        let [mut a, _b, _c] = clients(&lab, 6);
        checks(&lab, &[(0, NOT_READY), (1, READY), (0, NOT_READY)]);
        if closed {
            assert!(a.iter_mut().all(is_reset));
        } else {
            assert!(a.iter_mut().all(still_served));
            assert_eq!(lab.stats().servers[0].connections, 2);
        }
        let [none, _, _] = clients(&lab, 6);
        assert!(none.is_empty(), "a new connection went to it");
    }
}

#[test]
fn a_server_that_refuses_is_left_out_after_three_connects_until_a_check_finds_it_well() {
    for workers in [1, 2] {
        let (a, b) = (Backend::echo(1), Backend::echo(2));
        let servers = vec![server(refusing()), server(a.addr), server(b.addr)];
        let mut proxy = proxy(servers);
        proxy.max_ejected = 50;
        let lab = Lab::start(proxy, workers);
        let alarms = Arc::new(AtomicUsize::new(0));
        let rung = Arc::clone(&alarms);
        lab.farm.set_alarm(Arc::new(move || {
            rung.fetch_add(1, Ordering::SeqCst);
        }));
        let serve = |count: usize| {
            for _ in 0..count {
                assert_eq!(ask(lab.connect(), b"x")[1..], *b"x");
            }
        };
        serve(60);
        let refused = || lab.stats().servers[0].totals.connect_errors;
        assert_eq!(refused(), 3);
        let stats = lab.stats();
        assert_eq!((stats.usable, stats.able), (2, 3));
        let standing = &stats.servers[0].standing;
        assert_eq!((standing.ejections, standing.suspicions), (1, 1));
        assert_eq!(
            standing.ejected_for,
            Some("connects failed one after the other")
        );
        // Whoever checks servers heard of it once, and has not looked yet.
        assert_eq!(alarms.load(Ordering::SeqCst), 1);
        assert!(lab.farm.take_suspect(0) && !lab.farm.take_suspect(1));
        checks(&lab, &[(0, READY)]);
        assert_eq!(lab.stats().usable, 3);
        serve(60);
        assert_eq!(refused(), 6);
        // A check alone does not bring it back this time: it is out for a second at least.
        checks(&lab, &[(0, READY)]);
        assert_eq!(lab.stats().usable, 2);
    }
}

#[test]
fn the_last_server_is_never_left_out_for_what_traffic_tells() {
    let good = Backend::echo(1);
    let mut proxy = proxy(vec![server(refusing()), server(good.addr)]);
    proxy.max_ejected = 100;
    let lab = Lab::start(proxy, 1);
    checks(&lab, &[(1, NOT_READY)]);
    for _ in 0..5 {
        assert!(is_reset(&mut lab.connect()));
    }
    assert_eq!(lab.stats().usable, 1);
}

#[test]
fn a_server_that_takes_requests_and_answers_none_is_suspect_after_half_a_second() {
    for workers in [1, 2] {
        let (_hangs, addr) = hanging();
        let (a, b) = (Backend::echo(1), Backend::echo(2));
        let mut proxy = proxy(vec![server(addr), server(a.addr), server(b.addr)]);
        proxy.client_first = true;
        proxy.max_ejected = 50;
        let lab = Lab::start(proxy, workers);
        let began = clock::now();
        let waiting: Vec<TcpStream> = (0..9)
            .map(|_| {
                let mut client = lab.connect();
                client.write_all(b"x").unwrap();
                client
            })
            .collect();
        wait_until("the server is suspect", || {
            lab.farm.watch(clock::now());
            lab.farm.take_suspect(0)
        });
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(took <= Duration::from_secs(2), "{took:?}");
        assert!(!lab.farm.take_suspect(1) && !lab.farm.take_suspect(2));
        assert_eq!(lab.stats().usable, 3);
        // The check that was made at once fails as well: no more clients for it.
        failed_check(&lab, 0, clock::now());
        assert_eq!(lab.stats().usable, 2);
        let stats = lab.stats();
        let standing = &stats.servers[0].standing;
        assert_eq!(
            standing.ejected_for,
            Some("clients were not served and a check failed")
        );
        for _ in 0..6 {
            assert_eq!(ask(lab.connect(), b"x")[1..], *b"x");
        }
        drop(waiting);
    }
}

/// One check that failed, and the server is still up by the rules.
fn failed_check(lab: &Lab, server: usize, now: Instant) {
    let checked = Checked {
        health: READY,
        found: UNRESPONSIVE,
        began: now,
    };
    lab.farm.on_check(server, checked, now);
}

#[test]
fn a_server_that_speaks_first_is_never_suspect_for_being_silent() {
    let (_hangs, addr) = hanging();
    let good = Backend::echo(1);
    let lab = Lab::start(proxy(vec![server(addr), server(good.addr)]), 1);
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| lab.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"x").unwrap();
    }
    wait_until("the server was asked", || {
        lab.stats().servers[0].totals.asked == 4
    });
    let began = clock::now();
    wait_until("a second has passed", || {
        lab.farm.watch(clock::now());
        clock::now() - began > Duration::from_secs(1)
    });
    assert!(!lab.farm.take_suspect(0));
}
