//! Long-lived connections, TLS as far as records go: they move to a server that came back, and end
//! when they are old, at a moment when nothing is lost. With one worker and with two.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lbd::config::model::{Proxy, Rebalance};
use lbd::net::clock;

use super::lab::{Backend, Lab, PATIENCE, proxy, refusing, server, wait_until};

/// A record of application data.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut record = vec![23, 3, 3, length[0], length[1]];
    record.extend_from_slice(payload);
    record
}

/// Reads a record; `None`: the stream has ended in order before it.
fn next(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; 5];
    let mut seen = 0;
    while seen < 5 {
        match stream.read(&mut header[seen..]).unwrap() {
            0 => {
                assert_eq!(seen, 0, "cut within a header");
                return None;
            }
            read => seen += read,
        }
    }
    let mut payload = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    let whole = stream.read_exact(&mut payload);
    assert!(whole.is_ok(), "cut within a record: {whole:?}");
    Some(payload)
}

/// Answers each record with one of its own that begins with its id.
fn records(id: u8) -> Backend {
    Backend::start(move |mut stream| {
        while let Some(payload) = next(&mut stream) {
            let answer = [&[id][..], &payload].concat();
            if stream.write_all(&record(&answer)).is_err() {
                return;
            }
        }
    })
}

/// A client that has a connection, or is about to.
fn client(lab: &Lab) -> (TcpStream, u8) {
    let mut stream = lab.connect();
    stream.write_all(&record(b"hello")).unwrap();
    let answer = next(&mut stream).unwrap();
    assert_eq!(&answer[1..], b"hello");
    (stream, answer[0])
}

fn moving(servers: &[&Backend]) -> Proxy {
    let mut proxy = proxy(servers.iter().map(|b| server(b.addr)).collect());
    proxy.client_first = true;
    proxy.rebalance = Some(Rebalance {
        above: 125,
        rate: NonZeroU32::new(200).unwrap(),
        quiet: Duration::from_millis(300),
    });
    proxy
}

/// The control thread.
fn tick(lab: &Lab, last: &mut Instant) {
    let now = clock::now();
    if now - *last >= Duration::from_millis(250) {
        *last = now;
        lab.farm.tick(now);
    }
}

/// So many clients, each with a connection on one of the first two servers, half of them by half.
fn before_the_return(lab: &Lab, count: usize) -> Vec<TcpStream> {
    lab.farm.set_up(2, false, clock::now());
    let clients: Vec<_> = (0..count).map(|_| client(lab)).collect();
    let on = |id| clients.iter().filter(|(_, server)| *server == id).count();
    assert_eq!([on(0), on(1), on(2)], [count / 2, count / 2, 0]);
    clients.into_iter().map(|(stream, _)| stream).collect()
}

/// Holds a connection as client-go does: reads, and connects again when it has ended.
fn hold(lab: &Arc<Lab>, stream: TcpStream, over: &Arc<AtomicBool>, moves: &Arc<AtomicUsize>) {
    let (lab, over, moves) = (Arc::clone(lab), Arc::clone(over), Arc::clone(moves));
    thread::spawn(move || {
        let mut stream = stream;
        loop {
            assert_eq!(next(&mut stream), None);
            if over.load(Ordering::SeqCst) {
                return;
            }
            moves.fetch_add(1, Ordering::SeqCst);
            stream = client(&lab).0;
        }
    });
}

#[test]
fn connections_move_to_a_server_that_came_back_until_shares_are_even_and_then_stay() {
    for workers in [1, 2] {
        let backends = [records(0), records(1), records(2)];
        let [a, b, c] = &backends;
        let lab = Arc::new(Lab::start(moving(&[a, b, c]), workers));
        let (over, moves) = (Arc::<AtomicBool>::default(), Arc::default());
        for stream in before_the_return(&lab, 300) {
            hold(&lab, stream, &over, &moves);
        }
        let mut last = clock::now();
        lab.farm.tick(last);
        let began = clock::now();
        lab.farm.set_up(2, true, began);
        let present = || {
            backends
                .each_ref()
                .map(|b| b.present.load(Ordering::SeqCst))
        };
        wait_until("shares are even", || {
            tick(&lab, &mut last);
            present() == [100, 100, 100]
        });
        let took = clock::now() - began;
        assert!(took < Duration::from_secs(6), "{took:?}");
        // Nobody is moved who need not be, and there is peace.
        assert_eq!(moves.load(Ordering::SeqCst), 100);
        let peace = clock::now() + Duration::from_secs(1);
        wait_until("a second has passed", || {
            tick(&lab, &mut last);
            assert_eq!(present(), [100, 100, 100]);
            clock::now() > peace
        });
        let stats = lab.stats();
        let shed = |server: usize| stats.servers[server].totals.rebalanced;
        assert_eq!([shed(0), shed(1), shed(2)], [50, 50, 0]);
        assert_eq!(stats.totals.rebalanced, 100);
        assert_eq!(lab.record().end.to_string(), "KD");
        over.store(true, Ordering::SeqCst);
        lab.engine.stop(Duration::ZERO);
    }
}

#[test]
fn connections_that_are_busy_or_within_a_record_or_no_tls_are_left_alone() {
    for workers in [1, 2] {
        let backends = [records(0), records(1), records(2)];
        let [a, b, c] = &backends;
        let mut config = moving(&[a, b, c]);
        // Longer than a machine with more to do than it can keeps a busy client waiting.
        config.rebalance.as_mut().unwrap().quiet = Duration::from_secs(2);
        let lab = Lab::start(config, workers);
        let mut last = clock::now();
        lab.farm.tick(last);
        let mut clients = before_the_return(&lab, 60);
        // A third in the middle of a record, a third busy; the rest may go.
        for client in &mut clients[..20] {
            client.write_all(&[23, 3, 3, 0, 9, b'r', b'e']).unwrap();
        }
        lab.farm.set_up(2, true, clock::now());
        let mut keep_busy = || {
            // Together: each is busy as often as the machine lets it be.
            for client in &mut clients[20..40] {
                client.write_all(&record(b"x")).unwrap();
            }
            for client in &mut clients[20..40] {
                assert!(next(client).is_some(), "a busy one was closed");
            }
            tick(&lab, &mut last);
            lab.stats().totals.rebalanced
        };
        wait_until("as many as were missing there are closed", || {
            keep_busy() >= 20
        });
        let peace = clock::now() + Duration::from_secs(1);
        wait_until("a second has passed", || {
            keep_busy();
            clock::now() > peace
        });
        let closed = lab.stats().totals.rebalanced;
        assert_eq!(closed, 20, "as many as were missing there");
        for client in &mut clients[40..] {
            assert_eq!(next(client), None);
        }
        // What was begun is ended.
        for client in &mut clients[..20] {
            client.write_all(b"st of i").unwrap();
            assert_eq!(&next(client).unwrap()[1..], b"rest of i");
        }
        drop(clients);
        // What is no TLS at all: echo answers with bytes that are no records.
        let backends = [Backend::echo(0), Backend::echo(1), Backend::echo(2)];
        let [a, b, c] = &backends;
        let lab = Lab::start(moving(&[a, b, c]), workers);
        lab.farm.set_up(2, false, clock::now());
        lab.farm.tick(clock::now());
        let clients: Vec<_> = (0..30)
            .map(|_| {
                let mut client = lab.connect();
                client.write_all(b"GET").unwrap();
                client.read_exact(&mut [0; 4]).unwrap();
                client
            })
            .collect();
        lab.farm.set_up(2, true, clock::now());
        let until = clock::now() + Duration::from_secs(1);
        wait_until("some time has passed", || {
            tick(&lab, &mut last);
            clock::now() > until
        });
        assert_eq!(lab.stats().totals.rebalanced, 0);
        drop(clients);
    }
}

#[test]
fn nothing_moves_while_the_other_servers_can_take_nobody() {
    let backends = [records(0), records(1)];
    let [a, b] = &backends;
    let mut config = moving(&[a, b]);
    config.servers.push(server(refusing()));
    config.servers[1].max_connections = NonZeroU32::new(10);
    let lab = Lab::start(config, 2);
    lab.farm.set_up(2, false, clock::now());
    let clients: Vec<_> = (0..60).map(|_| client(&lab)).collect();
    let mut last = clock::now();
    let until = last + Duration::from_secs(1);
    wait_until("some time has passed", || {
        tick(&lab, &mut last);
        clock::now() > until
    });
    let stats = lab.stats();
    assert_eq!(stats.totals.rebalanced, 0, "there was no room");
    assert_eq!(stats.servers[0].connections, 50);
    lab.farm.set_up(1, false, clock::now());
    let until = last + Duration::from_secs(1);
    wait_until("some time has passed", || {
        tick(&lab, &mut last);
        clock::now() > until
    });
    assert_eq!(lab.stats().totals.rebalanced, 0, "there was one server");
    drop(clients);
}

/// A proxy whose connections last a second.
fn aging(backend: &Backend) -> Proxy {
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.client_first = true;
    proxy.max_age = Some(Duration::from_secs(1));
    proxy
}

#[test]
fn old_connections_end_in_order_and_not_all_at_once() {
    for workers in [1, 2] {
        let backend = records(7);
        let lab = Lab::start(aging(&backend), workers);
        let mut clients: Vec<_> = (0..50).map(|_| client(&lab).0).collect();
        for client in &mut clients {
            assert_eq!(next(client), None);
        }
        let mut ages = Vec::new();
        for _ in 0..50 {
            let record = lab.record();
            assert_eq!(record.end.to_string(), "KD");
            ages.push(record.total);
        }
        ages.sort_unstable();
        let (first, last) = (ages[0], ages[49]);
        assert!(first >= Duration::from_millis(900), "{first:?}");
        assert!(last < Duration::from_millis(1900), "{last:?}");
        assert!(last - first >= Duration::from_millis(100), "{ages:?}");
        assert_eq!(lab.stats().totals.max_age, 50);
        lab.settle();
        assert_eq!(backend.failures(), 0);
    }
}

#[test]
fn an_old_connection_that_is_busy_ends_at_its_next_quiet_moment_and_no_byte_is_lost() {
    let backend = records(7);
    let lab = Lab::start(aging(&backend), 1);
    let (mut client, _) = client(&lab);
    let began = clock::now();
    // Due after 1.1 s at the latest, with a second of grace.
    while clock::now() - began < Duration::from_millis(1500) {
        client.write_all(&record(b"busy")).unwrap();
        assert_eq!(&next(&mut client).unwrap()[1..], b"busy");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(next(&mut client), None);
    let took = clock::now() - began;
    assert!(took < Duration::from_millis(2100), "{took:?}");
    assert_eq!(lab.stats().totals.max_age, 1);
}

#[test]
fn an_old_connection_within_a_record_gets_its_grace_and_no_more() {
    let backend = records(7);
    let lab = Lab::start(aging(&backend), 1);
    let began = clock::now();
    let (mut client, _) = client(&lab);
    client.write_all(&[23, 3, 3, 0, 9, b'r']).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next(&mut client), None);
    let took = clock::now() - began;
    assert!(took >= Duration::from_millis(1850), "{took:?}");
    assert!(took < Duration::from_millis(2600), "{took:?}");
}

#[test]
fn what_was_sent_before_an_old_connection_ends_arrives_whole() {
    // The client reads only after the connection is over.
    let backend = Backend::start(|mut stream| {
        assert!(next(&mut stream).is_some());
        let payload = vec![5; 16_000];
        for _ in 0..10 {
            stream.write_all(&record(&payload)).unwrap();
        }
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "FIN, no RST");
    });
    let lab = Lab::start(aging(&backend), 1);
    let mut client = lab.connect();
    client.write_all(&record(b"hello")).unwrap();
    wait_until("it is over", || lab.engine.connections() == 0);
    for _ in 0..10 {
        assert_eq!(next(&mut client).unwrap(), vec![5; 16_000]);
    }
    assert_eq!(next(&mut client), None);
    assert_eq!(backend.failures(), 0);
}
