//! Ends that are no ends in order: resets behind and amid data, leavers, and both ends at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use lbd::net::{clock, tcp};

use super::lab::{
    Backend, Lab, PATIENCE, Pattern, is_reset, limited, proxy, reset, server, wait_until,
};

/// More than all the kernel's buffers on the way hold.
const BULK: usize = 48 << 20;

/// Sends bulk, and breaks off when the last byte has reached the proxy.
fn send_and_reset(mut stream: TcpStream, seed: u64) {
    stream.write_all(&Pattern::bytes(seed, BULK)).unwrap();
    wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
    reset(stream);
}

/// Reads bulk with rests, so that most of it always waits; the rest must end with RST.
fn take_slowly(stream: &mut TcpStream, seed: u64) {
    let mut taken = vec![0; BULK];
    for piece in taken.chunks_mut(8 << 20) {
        thread::sleep(Duration::from_millis(20));
        stream.read_exact(piece).unwrap();
    }
    assert!(taken == Pattern::bytes(seed, BULK));
    assert!(is_reset(stream));
}

#[test]
fn a_servers_reset_arrives_behind_a_spliced_stream_that_still_waits() {
    for workers in [1, 2] {
        let backend = Backend::start(|stream| send_and_reset(stream, 3));
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        take_slowly(&mut lab.connect(), 3);
        lab.settle();
        let totals = lab.stats().totals;
        assert!(totals.bytes_spliced > 0, "{totals:?}");
        assert_eq!((totals.server_aborts, totals.client_aborts), (1, 0));
        assert_eq!(backend.failures(), 0);
    }
}

#[test]
fn a_clients_reset_arrives_behind_a_spliced_stream_that_still_waits() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| take_slowly(&mut stream, 4));
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        send_and_reset(lab.connect(), 4);
        lab.settle();
        let totals = lab.stats().totals;
        assert!(totals.bytes_spliced > 0, "{totals:?}");
        assert_eq!((totals.server_aborts, totals.client_aborts), (0, 1));
        assert_eq!(backend.failures(), 0);
    }
}

#[test]
fn an_end_arrives_behind_a_spliced_stream_that_still_waits() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(&Pattern::bytes(5, BULK)).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        thread::sleep(Duration::from_millis(100));
        let mut taken = Vec::new();
        client.read_to_end(&mut taken).unwrap();
        assert!(taken == Pattern::bytes(5, BULK), "{}", taken.len());
    }
}

#[test]
fn a_reset_behind_an_end_is_carried_too() {
    for workers in [1, 2] {
        let (told, outcome) = sync_channel(1);
        let backend = Backend::start(move |mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            stream.write_all(b"half").unwrap();
            // The stream has ended; only a write can tell.
            wait_until("the reset", || stream.write_all(b"x").is_err());
            told.send(request).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        reset(client);
        assert_eq!(outcome.recv_timeout(PATIENCE).unwrap(), b"request");
        lab.settle();
        assert_eq!(lab.stats().totals.client_aborts, 1);
    }
}

#[test]
fn a_servers_reset_behind_its_end_is_carried_too() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(b"all").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_exact(&mut [0; 2]).unwrap();
            reset(stream);
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"all");
        client.write_all(b"go").unwrap();
        wait_until("the reset", || client.write_all(b"x").is_err());
        lab.settle();
        assert_eq!(lab.stats().totals.server_aborts, 1);
    }
}

#[test]
fn both_may_finish_or_break_off_at_the_same_instant() {
    for workers in [1, 2] {
        let barrier = Arc::new(Barrier::new(2));
        let theirs = Arc::clone(&barrier);
        let backend = Backend::start(move |mut stream| {
            let mut round = [0];
            stream.read_exact(&mut round).unwrap();
            stream.write_all(&round).unwrap();
            theirs.wait();
            leave(stream, round[0]);
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        for round in 0..200_u8 {
            let mut client = lab.connect();
            client.write_all(&[round]).unwrap();
            client.read_exact(&mut [0]).unwrap();
            barrier.wait();
            leave(client, round);
        }
        lab.settle();
        let totals = lab.stats().totals;
        let broken = totals.client_aborts + totals.server_aborts;
        assert_eq!((totals.finished, broken), (100, 100), "{totals:?}");
        assert_eq!(backend.failures(), 0);
    }
}

/// In even rounds finishes and sees the other's end, in odd ones breaks off.
fn leave(mut stream: TcpStream, round: u8) {
    if round.is_multiple_of(2) {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    } else {
        reset(stream);
    }
}

#[test]
fn a_connect_that_its_client_has_left_is_never_seen_by_the_server() {
    let hole = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    hole.bind(&any.into()).unwrap();
    hole.listen(0).unwrap();
    let hole_addr = hole.local_addr().unwrap().as_socket().unwrap();
    let fills = TcpStream::connect(hole_addr).unwrap();
    let mut proxy = proxy(vec![limited(hole_addr, 2)]);
    proxy.connect_timeout = Duration::from_secs(600);
    let lab = Lab::start(proxy, 2);
    let (gone, stays) = (lab.connect(), lab.connect());
    wait_until("both connects are under way", || {
        lab.stats().servers[0].connections == 2
    });
    reset(gone);
    wait_until("the slot is free", || {
        lab.stats().servers[0].connections == 1
    });
    // The server takes connections again: the one that is still wanted comes, and no other.
    let (first, from) = hole.accept().unwrap();
    assert_eq!(from.as_socket().unwrap(), fills.local_addr().unwrap());
    let (mut second, _) = hole.accept().unwrap();
    let mut stays = stays;
    stays.write_all(b"wanted").unwrap();
    let mut request = [0; 6];
    second.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"wanted");
    hole.set_nonblocking(true).unwrap();
    let none = hole.accept().unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    drop((first, second));
}

#[test]
fn a_client_that_does_not_finish_after_the_server_is_given_up() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(b"bye").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or(0);
        });
        let mut proxy = proxy(vec![server(backend.addr)]);
        proxy.half_close_timeout = Duration::from_millis(200);
        let lab = Lab::start(proxy, workers);
        let mut client = lab.connect();
        let began = clock::now();
        client.write_all(b"x").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"bye");
        assert_eq!(lab.record().end.to_string(), "cL");
        let took = clock::now() - began;
        assert!(took >= Duration::from_millis(180), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(lab.stats().totals.half_close_timeouts, 1);
        lab.settle();
    }
}

#[test]
fn a_stop_amid_the_last_bytes_of_a_server_that_broke_off_is_no_second_reason() {
    let backend = Backend::start(|mut stream| {
        // More than a client's kernel takes that does not read.
        stream.write_all(&Pattern::bytes(5, 1 << 20)).unwrap();
        wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
        reset(stream);
    });
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    let client = lab.connect();
    wait_until("the server breaks off", || {
        lab.stats().totals.server_aborts == 1
    });
    assert_eq!(lab.stats().connections, 1);
    lab.engine.stop(Duration::ZERO);
    assert_eq!(lab.record().end.to_string(), "SD");
    let totals = lab.stats().totals;
    assert_eq!((totals.server_aborts, totals.killed), (1, 0), "{totals:?}");
    drop(client);
}
