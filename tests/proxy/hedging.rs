//! A second connect beside one without an answer: who gets it, who wins, and what is left behind.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lbd::config::model::{HedgeAfter, Proxy, Server};
use lbd::net::clock;
use lbd::proxy::server::AdminState;

use crate::noise::Noise;

use super::lab::{
    Backend, Lab, ask, is_reset, limited, proxy, refusing, reset, server, wait_until,
};

/// A server that leaves connects without an answer: its backlog is full.
pub struct Hole {
    pub addr: SocketAddr,
    listener: TcpListener,
    fills: TcpStream,
}

impl Hole {
    pub fn new() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let addr = listener.local_addr().unwrap();
        Self {
            addr,
            listener,
            fills: TcpStream::connect(addr).unwrap(),
        }
    }

    /// From now on it answers; a connect that waits is heard when its packet is sent again, a second
    /// after the first.
    fn open(self, id: u8) {
        drop(self.fills);
        thread::spawn(move || {
            for stream in self.listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let _gone = stream.write_all(&[id]);
                    let _gone = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                });
            }
        });
    }
}

fn hedging(servers: Vec<Server>) -> Proxy {
    Proxy {
        hedge_after: HedgeAfter::After(Duration::from_millis(60)),
        ..proxy(servers)
    }
}

/// Waits until so many second connects were begun.
fn wait_for_hedges(lab: &Lab, count: u64) {
    wait_until("a second connect is under way", || {
        let stats = lab.stats();
        stats.servers.iter().map(|s| s.totals.hedges).sum::<u64>() == count
    });
}

/// Two servers that leave connects without an answer, and a client with a connect to each.
fn asking_both(workers: usize) -> (Hole, Hole, Lab, TcpStream) {
    let (first, second) = (Hole::new(), Hole::new());
    let servers = vec![server(first.addr), server(second.addr)];
    let lab = Lab::start(hedging(servers), workers);
    lab.farm.passed_check(1, clock::now());
    let client = lab.connect();
    wait_for_hedges(&lab, 1);
    (first, second, lab, client)
}

fn connections(lab: &Lab) -> Vec<u32> {
    let stats = lab.stats();
    stats.servers.iter().map(|s| s.connections).collect()
}

#[test]
fn a_server_that_swallows_connects_costs_a_client_the_time_until_the_second_one() {
    for (workers, after) in [
        (1, HedgeAfter::After(Duration::from_millis(60))),
        (2, HedgeAfter::Auto),
    ] {
        let (hole, good) = (Hole::new(), Backend::echo(1));
        let mut config = hedging(vec![server(hole.addr), server(good.addr)]);
        config.hedge_after = after;
        let lab = Lab::start(config, workers);
        lab.farm.passed_check(1, clock::now());
        let noise = Noise::start();
        let began = clock::now();
        assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(50), "{took:?}");
        let bound = noise.stretched(Duration::from_millis(900), began);
        assert!(took < bound, "{took:?}, not within {bound:?}");
        let record = lab.record();
        assert_eq!((record.server, record.retries), (Some(1), 0));
        assert!(record.redispatched && record.hedged);
        lab.settle();
        let stats = lab.stats();
        let totals = |server: usize| &stats.servers[server].totals;
        assert_eq!((totals(0).hedges, totals(0).hedges_won), (1, 0));
        assert_eq!((totals(1).hedges, totals(1).hedges_won), (0, 1));
        assert_eq!((totals(0).redispatches, totals(1).redispatches), (1, 0));
        assert_eq!(totals(0).attempts + totals(1).attempts, 2);
        assert!(lab.farm.take_suspect(0), "a check of it is due");
    }
}

#[test]
fn only_a_server_that_answered_lately_has_a_slot_and_takes_newcomers_gets_a_second_connect() {
    let (hole, good) = (Hole::new(), Backend::echo(1));
    let mut config = hedging(vec![server(hole.addr), limited(good.addr, 1)]);
    config.connect_timeout = Duration::from_millis(400);
    let lab = Lab::start(config, 1);
    let slow = |lab: &Lab| {
        let began = clock::now();
        let answer = ask(lab.connect(), b"x");
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(400), "{took:?}");
        answer
    };
    // It never answered.
    assert_eq!(slow(&lab), [1, b'x']);
    lab.settle();
    // It is to get no new connections.
    lab.farm.passed_check(1, clock::now());
    lab.farm.set_admin(1, AdminState::Drain, clock::now());
    let mut client = lab.connect();
    assert!(is_reset(&mut client), "the other has no answer");
    lab.farm.set_admin(1, AdminState::Ready, clock::now());
    lab.settle();
    // It has no slot.
    lab.farm.set_admin(0, AdminState::Drain, clock::now());
    let busy = lab.connect();
    wait_until("the good one is busy", || connections(&lab) == [0, 1]);
    lab.farm.set_admin(0, AdminState::Ready, clock::now());
    lab.farm.passed_check(1, clock::now());
    let second = lab.connect();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(connections(&lab), [1, 1]);
    reset(second);
    drop(busy);
    lab.settle();
    let hedges: u64 = lab.stats().servers.iter().map(|s| s.totals.hedges).sum();
    assert_eq!(hedges, 0);
}

#[test]
fn the_first_may_answer_after_all_and_the_second_leaves_no_slot() {
    for workers in [1, 2] {
        let (first, _second, lab, client) = asking_both(workers);
        assert_eq!(connections(&lab), [1, 1]);
        first.open(7);
        assert_eq!(ask(client, b"x"), [7, b'x']);
        let record = lab.record();
        assert_eq!((record.server, record.retries), (Some(0), 0));
        assert!(record.hedged && !record.redispatched);
        lab.settle();
        assert_eq!(lab.stats().servers[1].totals.hedges_won, 0);
    }
}

#[test]
fn a_second_connect_goes_on_when_the_first_is_refused() {
    for workers in [1, 2] {
        let (first, second, lab, client) = asking_both(workers);
        drop(first);
        wait_until("the first is refused", || connections(&lab) == [0, 1]);
        second.open(8);
        assert_eq!(ask(client, b"x"), [8, b'x']);
        let record = lab.record();
        assert_eq!((record.server, record.retries), (Some(1), 1));
        assert!(record.hedged && record.redispatched);
        lab.settle();
        assert_eq!(lab.stats().servers[0].totals.connect_errors, 1);
    }
}

#[test]
fn a_second_connect_that_is_refused_is_followed_by_another_elsewhere() {
    for workers in [1, 2] {
        let (hole, good) = (Hole::new(), Backend::echo(3));
        let servers = vec![server(hole.addr), server(refusing()), server(good.addr)];
        let lab = Lab::start(hedging(servers), workers);
        lab.farm.passed_check(1, clock::now());
        let client = lab.connect();
        wait_until("the second connect is refused", || {
            lab.stats().servers[1].totals.connect_errors == 1
        });
        wait_until("its slot is back", || connections(&lab) == [1, 0, 0]);
        lab.farm.passed_check(2, clock::now());
        assert_eq!(ask(client, b"x"), [3, b'x']);
        assert_eq!(lab.record().server, Some(2));
        lab.settle();
    }
}

#[test]
fn a_client_that_leaves_between_two_connects_leaves_no_slot_behind() {
    for workers in [1, 2] {
        let (first, second) = (Hole::new(), Hole::new());
        let servers = vec![limited(first.addr, 1), limited(second.addr, 1)];
        let lab = Lab::start(hedging(servers), workers);
        for round in 1..=4 {
            lab.farm.passed_check(0, clock::now());
            lab.farm.passed_check(1, clock::now());
            let client = lab.connect();
            wait_for_hedges(&lab, round);
            assert_eq!(connections(&lab), [1, 1]);
            reset(client);
            lab.settle();
        }
        assert_eq!(lab.stats().totals.clients_left, 4);
    }
}

#[test]
fn a_stop_between_two_connects_leaves_no_slot_behind() {
    for workers in [1, 2] {
        let (_first, _second, lab, mut client) = asking_both(workers);
        lab.engine.stop(Duration::from_millis(20));
        assert!(is_reset(&mut client));
        lab.settle();
        assert_eq!(lab.record().end.to_string(), "KC");
    }
}

#[test]
fn whichever_of_the_two_servers_goes_down_the_connection_goes_on() {
    for workers in [1, 2] {
        for order in [[0, 1], [1, 0]] {
            let (first, second, good) = (Hole::new(), Hole::new(), Backend::echo(3));
            let servers = vec![server(first.addr), server(second.addr), server(good.addr)];
            let lab = Lab::start(hedging(servers), workers);
            lab.farm.passed_check(1, clock::now());
            let client = lab.connect();
            wait_for_hedges(&lab, 1);
            assert_eq!(connections(&lab), [1, 1, 0]);
            lab.farm.set_up(order[0], false, clock::now());
            wait_until("its slot is back", || connections(&lab)[order[0]] == 0);
            assert_eq!(connections(&lab)[order[1]], 1);
            lab.farm.set_up(order[1], false, clock::now());
            assert_eq!(ask(client, b"x"), [3, b'x']);
            let record = lab.record();
            assert_eq!((record.server, record.retries), (Some(2), 0));
            lab.settle();
        }
    }
}

#[test]
fn a_server_in_doubt_is_spared_by_all_but_one_at_a_time() {
    for workers in [1, 2] {
        let (hole, good) = (Hole::new(), Backend::echo(1));
        let servers = vec![server(hole.addr), server(good.addr)];
        let lab = Lab::start(hedging(servers), workers);
        lab.farm.passed_check(1, clock::now());
        let began = clock::now();
        for _ in 0..200 {
            assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        }
        let took = clock::now() - began;
        lab.settle();
        let stats = lab.stats();
        // One finds out; then a trial each 250 ms.
        let trials = u64::try_from(took.as_millis() / 250).unwrap();
        let attempts = stats.servers[0].totals.attempts;
        assert!(
            (1..=1 + trials).contains(&attempts),
            "{attempts} in {took:?}"
        );
        assert_eq!(stats.servers[1].totals.connected, 200);
        // A check that passes ends the doubt.
        lab.farm.passed_check(0, clock::now());
        let before = stats.servers[0].totals.attempts;
        assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        assert_eq!(ask(lab.connect(), b"x"), [1, b'x']);
        assert_eq!(lab.stats().servers[0].totals.attempts, before + 1);
    }
}

#[test]
fn a_server_in_doubt_gets_what_the_others_have_no_room_for() {
    let (hole, good) = (Hole::new(), Backend::echo(1));
    let servers = vec![server(hole.addr), limited(good.addr, 1)];
    let lab = Lab::start(hedging(servers), 1);
    lab.farm.passed_check(1, clock::now());
    let mut busy = lab.connect();
    wait_until("the good one is busy", || connections(&lab) == [0, 1]);
    busy.write_all(b"x").unwrap();
    // One alone: of two at once a kernel whose backlog overflows may lose the bytes before a FIN.
    let client = lab.connect();
    wait_until("it waits for the one in doubt", || {
        connections(&lab) == [1, 1]
    });
    hole.open(5);
    assert_eq!(ask(client, b"x"), [5, b'x']);
    drop(busy);
    lab.settle();
}

#[test]
fn every_server_is_asked_before_a_client_is_refused() {
    let good = Backend::echo(9);
    let mut servers: Vec<_> = (0..8).map(|_| server(refusing())).collect();
    servers.push(server(good.addr));
    let mut config = proxy(servers);
    config.retries = 1;
    let lab = Lab::start(config, 1);
    for _ in 0..9 {
        assert_eq!(ask(lab.connect(), b"x"), [9, b'x']);
    }
    lab.settle();
    assert_eq!(lab.stats().totals.unreachable, 0);
    lab.farm.set_up(8, false, clock::now());
    assert!(is_reset(&mut lab.connect()));
    wait_until("it is counted", || lab.stats().totals.unreachable == 1);
    // Eight refuse each; the ninth, which is down, is left alone.
    let stats = lab.stats();
    assert!(stats.servers[..8].iter().all(|s| s.totals.attempts > 0));
}

/// A server that accepts and breaks off at once.
fn breaking_off() -> Backend {
    Backend::start(reset)
}

#[test]
fn a_server_that_breaks_off_before_a_byte_is_like_one_that_refuses() {
    for workers in [1, 2] {
        let (broken, good) = (breaking_off(), Backend::echo(4));
        let servers = vec![server(broken.addr), server(good.addr)];
        let lab = Lab::start(proxy(servers), workers);
        for _ in 0..20 {
            let client = lab.connect();
            wait_until("it is at the good one", || {
                let stats = lab.stats();
                stats.servers[0].connections == 0 && stats.servers[1].connections == 1
            });
            assert_eq!(ask(client, b"x"), [4, b'x']);
            lab.settle();
        }
        let stats = lab.stats();
        assert_eq!(stats.servers[0].totals.connect_errors, 10);
        assert_eq!(stats.totals.server_aborts, 0);
        assert!(lab.farm.take_suspect(0));
    }
}

#[test]
fn a_server_that_breaks_off_is_the_last_one_asked_where_there_is_no_other() {
    let broken = breaking_off();
    let lab = Lab::start(proxy(vec![server(broken.addr)]), 1);
    assert!(is_reset(&mut lab.connect()));
    lab.settle();
    let totals = lab.stats().servers[0].totals;
    assert!(totals.attempts <= 4, "{totals:?}");
}

#[test]
fn one_that_was_told_something_is_not_left_for_another() {
    let broken = Backend::start(|mut stream| {
        let _read = std::io::Read::read(&mut stream, &mut [0]);
        reset(stream);
    });
    let good = Backend::echo(4);
    let servers = vec![server(broken.addr), server(good.addr)];
    let lab = Lab::start(proxy(servers), 1);
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    assert!(is_reset(&mut client));
    lab.settle();
    assert_eq!(lab.stats().servers[1].totals.attempts, 0);
}

#[test]
fn a_second_connect_whose_server_goes_down_is_followed_by_another() {
    for workers in [1, 2] {
        let (first, second, good) = (Hole::new(), Hole::new(), Backend::echo(3));
        let servers = vec![server(first.addr), server(second.addr), server(good.addr)];
        let mut config = hedging(servers);
        config.connect_timeout = Duration::from_secs(60);
        let lab = Lab::start(config, workers);
        lab.farm.passed_check(1, clock::now());
        let client = lab.connect();
        wait_for_hedges(&lab, 1);
        assert_eq!(connections(&lab), [1, 1, 0]);
        lab.farm.set_admin(1, AdminState::Maint, clock::now());
        wait_until("its slot is back", || connections(&lab) == [1, 0, 0]);
        lab.farm.passed_check(2, clock::now());
        assert_eq!(ask(client, b"x"), [3, b'x']);
        lab.settle();
    }
}

#[test]
fn one_that_was_refused_waits_for_a_backup_that_is_full_and_asks_nobody_twice() {
    for workers in [1, 2] {
        let good = Backend::echo(6);
        let mut backup = limited(good.addr, 1);
        backup.backup = true;
        let mut config = proxy(vec![server(refusing()), backup]);
        config.queue_timeout = Duration::from_secs(60);
        let lab = Lab::start(config, workers);
        let mut busy = lab.connect();
        busy.write_all(b"x").unwrap();
        wait_until("the backup is full", || connections(&lab) == [0, 1]);
        // One after the other, for they are served in the order in which they came.
        let waiting = [1, 2].map(|number| {
            let client = lab.connect();
            wait_until("it waits", || lab.stats().queue == number);
            client
        });
        assert_eq!(lab.stats().servers[0].totals.attempts, 3);
        drop(busy);
        for client in waiting {
            assert_eq!(ask(client, b"x"), [6, b'x']);
        }
        lab.settle();
        assert_eq!(lab.stats().servers[0].totals.attempts, 3);
    }
}

#[test]
fn a_server_that_said_that_it_is_done_is_not_left_for_another_when_it_breaks_off() {
    let (told, heard) = std::sync::mpsc::sync_channel::<()>(1);
    let heard = std::sync::Mutex::new(heard);
    let done = Backend::start(move |stream| {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        heard.lock().unwrap().recv().unwrap();
        reset(stream);
    });
    let good = Backend::echo(4);
    let lab = Lab::start(proxy(vec![server(done.addr), server(good.addr)]), 1);
    let mut client = lab.connect();
    assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    told.send(()).unwrap();
    lab.settle();
    assert_eq!(lab.stats().servers[1].totals.attempts, 0);
}
