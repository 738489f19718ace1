//! Traps that prototypes of this data path have fallen into.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lbd::config::model::Listen;
use lbd::net::clock;
use lbd::net::tcp::{self, ListenError};

use super::lab::{Backend, Lab, Pattern, ask, limited, proxy, reset, server, wait_until};

/// Recycled sockets and reused slots under a mixture of ends; an event of a slot's or socket's
/// last user that reached its next one would cut an answer short.
#[test]
fn no_stale_event_reaches_a_recycled_slot() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.client_first = true;
        let lab = Arc::new(Lab::start(proxy, workers));
        let clients: Vec<_> = (0..16_u64)
            .map(|client| {
                let lab = Arc::clone(&lab);
                thread::spawn(move || {
                    for round in 0..150 {
                        let request = Pattern::bytes(client * 1000 + round, 300);
                        match round % 5 {
                            0 => reset(lab.connect()),
                            1 => drop(lab.connect()),
                            _ => assert_eq!(ask(lab.connect(), &request)[1..], request),
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        let stats = lab.stats();
        assert_eq!(stats.totals.server_aborts, 0);
        assert_eq!(stats.servers[0].totals.connect_errors, 0);
        assert!(stats.servers[0].totals.recycled > 100, "{stats:?}");
        let totals = &stats.servers[0].totals;
        assert_eq!(totals.ended, totals.attempts);
    }
}

#[test]
fn delayed_acks_are_set_after_listen_which_would_undo_them() {
    for (client_first, quick) in [(true, false), (false, true)] {
        let backend = Backend::echo(1);
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.client_first = client_first;
        let lab = Lab::start(proxy, 1);
        let listeners = lab.engine.listeners();
        assert_eq!(tcp::quickack(&listeners[0][0][0]).unwrap(), quick);
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_without_delay() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(b"220 ready").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut fastest = Duration::from_secs(9);
        for _ in 0..10 {
            let began = clock::now();
            lab.connect().read_exact(&mut [0; 9]).unwrap();
            fastest = fastest.min(clock::now() - began);
        }
        // A delayed ACK would hold every one of them back by 200 ms.
        assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    }
}

#[test]
fn the_end_of_a_stream_does_not_overtake_its_data() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(&Pattern::bytes(1, 2_000_000)).unwrap();
        });
        let lab = Arc::new(Lab::start(proxy(vec![server(backend.addr)]), workers));
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let lab = Arc::clone(&lab);
                thread::spawn(move || {
                    let mut client = lab.connect();
                    let (mut answer, mut block) = (Vec::new(), vec![0; 7000]);
                    loop {
                        let read = client.read(&mut block).unwrap();
                        if read == 0 {
                            break;
                        }
                        answer.extend_from_slice(&block[..read]);
                        thread::yield_now();
                    }
                    assert!(answer == Pattern::bytes(1, 2_000_000), "{}", answer.len());
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        lab.settle();
        assert!(lab.stats().totals.bytes_spliced > 0);
    }
}

#[test]
fn urgent_data_does_not_strand_what_stands_behind_its_mark() {
    for workers in [1, 2] {
        let backend = Backend::echo(1);
        let lab = Lab::start(proxy(vec![limited(backend.addr, 1)]), workers);
        let first = lab.connect();
        wait_until("the first is served", || {
            lab.stats().servers[0].connections == 1
        });
        // All of it lies in the kernel before the first read, which stops at the mark; no event
        // tells of the rest.
        let mut client = lab.connect();
        client.write_all(b"before").unwrap();
        socket2::SockRef::from(&client)
            .send_out_of_band(b"!")
            .unwrap();
        client.write_all(b"behind").unwrap();
        wait_until("the second waits and everything has arrived", || {
            lab.stats().queue == 1 && tcp::unsent(&client).unwrap() == 0
        });
        drop(first);
        let mut answer = [0; 14];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\x01before!behind");
    }
}

#[test]
fn a_port_that_another_socket_listens_on_is_refused_not_shared() {
    let group = tcp::listener_group(Listen::Addr("127.0.0.1:0".parse().unwrap()), 2).unwrap();
    assert_eq!(group.len(), 2);
    let addr = tcp::local_addr(&group[0]).unwrap();
    assert_eq!(tcp::local_addr(&group[1]).unwrap(), addr);
    let second = tcp::listener_group(Listen::Addr(addr), 2);
    assert!(
        matches!(second, Err(ListenError::InUse { .. })),
        "{second:?}"
    );
    drop(group);
    let foreign = TcpListener::bind(addr).unwrap();
    let refused = tcp::listener_group(Listen::Addr(addr), 1);
    assert!(
        matches!(refused, Err(ListenError::InUse { .. })),
        "{refused:?}"
    );
    drop(foreign);
    tcp::listener_group(Listen::Addr(addr), 1).unwrap();
}

#[test]
fn every_socket_of_a_group_is_served_also_when_there_are_more_than_workers() {
    let backend = Backend::echo(1);
    let proxy = proxy(vec![server(backend.addr)]);
    let group = tcp::listener_group(proxy.listen[0], 5).unwrap();
    let addr = tcp::local_addr(&group[0]).unwrap();
    let farm = Arc::new(lbd::proxy::farm::Farm::new(&proxy));
    farm.set_up(0, true, clock::now());
    let engine = lbd::proxy::engine::Engine::start(
        &super::lab::config(proxy),
        &[Arc::clone(&farm)],
        vec![vec![group]],
        lbd::proxy::engine::EngineOptions {
            workers: 2,
            max_connections: 1000,
            access: None,
        },
    )
    .unwrap();
    for _ in 0..100 {
        assert_eq!(
            ask(std::net::TcpStream::connect(addr).unwrap(), b"x"),
            [1, b'x']
        );
    }
    wait_until("all end", || engine.connections() == 0);
}

#[test]
fn urgent_data_in_the_midst_of_a_bulk_stream_loses_nothing_behind_it() {
    const PART: usize = 8 << 20;
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(&Pattern::bytes(1, PART)).unwrap();
            socket2::SockRef::from(&stream)
                .send_out_of_band(b"!")
                .unwrap();
            stream.write_all(&Pattern::bytes(2, PART)).unwrap();
            socket2::SockRef::from(&stream)
                .send_out_of_band(b"!")
                .unwrap();
            stream.write_all(b"the end").unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        let mut answer = vec![0; PART];
        for part in [1, 2] {
            client.read_exact(&mut answer).unwrap();
            assert!(answer == Pattern::bytes(part, PART), "part {part}");
            let mut urgent = [0];
            client.read_exact(&mut urgent).unwrap();
            assert_eq!(&urgent, b"!");
        }
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"the end");
    }
}

#[test]
fn urgent_data_that_is_there_before_the_connect_is_noticed_is_not_stranded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(b"before").unwrap();
            let socket = socket2::SockRef::from(&stream);
            socket.send_out_of_band(b"!").unwrap();
            kept.push(stream);
        }
    });
    let lab = Arc::new(Lab::start(proxy(vec![server(addr)]), 1));
    // So many at once that the worker is late for some.
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let lab = Arc::clone(&lab);
            thread::spawn(move || {
                let mut clients: Vec<_> = (0..16).map(|_| lab.connect()).collect();
                for client in &mut clients {
                    let mut answer = [0; 7];
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(&answer, b"before!");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
