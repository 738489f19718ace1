//! Peers that stop reading, and peers that vanish.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::tcp;

use super::lab::{Backend, Lab, PATIENCE, Pattern, proxy, server, wait_until};

const TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER: usize = 24 << 20;

fn lab(backend: &Backend, workers: usize) -> Lab {
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.user_timeout = Some(TIMEOUT);
    Lab::start(proxy, workers)
}

/// Drops every packet that arrives for this socket: its host has vanished.
fn vanish(stream: &TcpStream) {
    let drop_all = socket2::SockFilter::new(6, 0, 0, 0); // BPF_RET | BPF_K: accept 0 bytes
    socket2::SockRef::from(stream)
        .attach_filter(&[drop_all])
        .unwrap();
}

/// Waits until nothing moves any more; answers since when.
fn stuck(lab: &Lab) -> Instant {
    let mut last = (u64::MAX, clock::now());
    wait_until("nothing moves any more", || {
        let totals = lab.stats().totals;
        let moved = totals.bytes_in + totals.bytes_out;
        if moved != last.0 {
            last = (moved, clock::now());
        }
        moved > 0 && clock::now() - last.1 > Duration::from_millis(100)
    });
    last.1
}

/// What a client reads to the end; if it is cut off, how the proxy and the kernel say that came.
fn read_all(lab: &Lab, client: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    assert!(
        read.is_ok(),
        "{read:?} after {} bytes: {:?}\n{:?}\n{}",
        answer.len(),
        lab.record(),
        lab.stats().totals,
        fs::read_to_string("/proc/net/netstat").unwrap()
    );
    answer
}

#[test]
fn a_client_that_rests_for_four_times_the_user_timeout_gets_every_byte() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(&Pattern::bytes(1, ANSWER)).unwrap();
        });
        let lab = lab(&backend, workers);
        let mut client = lab.connect();
        thread::sleep(4 * TIMEOUT);
        let answer = read_all(&lab, &mut client);
        assert!(answer == Pattern::bytes(1, ANSWER), "{}", answer.len());
    }
}

#[test]
fn a_client_that_dropped_what_it_had_offered_to_take_is_not_kept_waiting_when_it_takes_again() {
    // Its kernel is short of memory: each repetition is answered and dropped, and the time
    // between two of them is doubled each time, far beyond the user timeout.
    let backend = Backend::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        for block in Pattern::bytes(7, 60_000).chunks(1_000) {
            stream.write_all(block).unwrap();
            wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
        }
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let lab = lab(&backend, 1);
    let mut client = lab.connect();
    let buffer = socket2::SockRef::from(&client);
    buffer.set_recv_buffer_size(1).unwrap();
    client.write_all(b"x").unwrap();
    wait_until("the server has sent everything", || {
        lab.stats().totals.bytes_out == 60_000
    });
    // Without a bound the next repetitions would come after 6.2 s and 12.6 s.
    thread::sleep(7 * TIMEOUT);
    let mut answer = vec![0; 60_000];
    let there = tcp::peek(&client, &mut answer).unwrap();
    assert!(there < 59_000, "{there} bytes were taken at once");
    let buffer = socket2::SockRef::from(&client);
    buffer.set_recv_buffer_size(1 << 20).unwrap();
    let began = clock::now();
    // The first byte that it had dropped; how fast its window opens from there is its own affair.
    let (first, rest) = answer.split_at_mut(there + 1);
    client.read_exact(first).unwrap();
    let took = clock::now() - began;
    client.read_exact(rest).unwrap();
    assert!(answer == Pattern::bytes(7, 60_000));
    // An older kernel has no bound.
    let bounded = tcp::set_probe_interval(&client, TIMEOUT).is_ok();
    assert!(took < 2 * TIMEOUT || !bounded, "{took:?}");
}

#[test]
fn a_client_that_rests_while_a_few_bytes_wait_gets_every_byte() {
    // Its window is shut, and the proxy's send buffer far from full.
    let backend = Backend::start(|mut stream| {
        let pattern = Pattern::bytes(2, 400_000);
        for block in pattern.chunks(10_000) {
            stream.write_all(block).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    });
    let lab = lab(&backend, 1);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&lab.addr.into()).unwrap();
    let mut client = TcpStream::from(client);
    thread::sleep(4 * TIMEOUT);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == Pattern::bytes(2, 400_000), "{}", answer.len());
}

#[test]
fn a_client_that_rests_after_the_server_closed_gets_every_byte() {
    // All of it lies in the proxy's send buffer, and for both sides the connection has ended.
    let backend = Backend::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(&Pattern::bytes(3, 300_000)).unwrap();
    });
    let lab = lab(&backend, 1);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&lab.addr.into()).unwrap();
    let mut client = TcpStream::from(client);
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_until("the server has sent everything", || {
        lab.stats().totals.bytes_out == 300_000
    });
    wait_until("the server has gone", || backend.failures() == 0);
    thread::sleep(4 * TIMEOUT);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == Pattern::bytes(3, 300_000), "{}", answer.len());
}

/// A client that has finished, has room for little, and was seen to take no more of `sent` bytes.
fn rested(lab: &Lab, sent: u64) -> TcpStream {
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&lab.addr.into()).unwrap();
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_until("the server has sent everything", || {
        lab.stats().totals.bytes_out == sent
    });
    // Its kernel answers the first probes seldom, for they come one upon the other; no longer.
    thread::sleep(2 * TIMEOUT);
    client
}

#[test]
fn a_client_that_rested_before_the_server_closed_gets_every_byte() {
    // Its window was seen shut, and the kernel gives a socket that is closed up as soon as its
    // probes are as far apart as they may be.
    let (seen, close) = sync_channel::<()>(1);
    let close = Mutex::new(close);
    let backend = Backend::start(move |mut stream| {
        stream.write_all(&Pattern::bytes(8, 300_000)).unwrap();
        close.lock().unwrap().recv().unwrap();
    });
    let lab = lab(&backend, 1);
    let mut client = rested(&lab, 300_000);
    seen.send(()).unwrap();
    thread::sleep(4 * TIMEOUT);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == Pattern::bytes(8, 300_000), "{}", answer.len());
    lab.settle();
    assert_eq!(lab.record().end.to_string(), "--");
}

#[test]
fn a_server_that_rests_gets_every_byte() {
    let (done, verdict) = sync_channel(1);
    let backend = Backend::start(move |mut stream| {
        thread::sleep(4 * TIMEOUT);
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        done.send(request == Pattern::bytes(4, ANSWER)).unwrap();
    });
    let lab = lab(&backend, 1);
    let mut client = lab.connect();
    client.write_all(&Pattern::bytes(4, ANSWER)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(verdict.recv_timeout(Duration::from_secs(20)).unwrap());
    lab.settle();
}

#[test]
fn a_server_that_rested_before_the_client_closed_gets_every_byte() {
    // It has finished itself, so that nothing but what it has not read keeps the connection.
    let (done, verdict) = sync_channel(1);
    let backend = Backend::start(move |mut stream| {
        socket2::SockRef::from(&stream)
            .set_recv_buffer_size(4096)
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        thread::sleep(6 * TIMEOUT);
        let mut request = Vec::new();
        let read = stream.read_to_end(&mut request);
        let whole = read.is_ok() && request == Pattern::bytes(9, 300_000);
        done.send(whole).unwrap();
    });
    let lab = lab(&backend, 1);
    let mut client = lab.connect();
    client.write_all(&Pattern::bytes(9, 300_000)).unwrap();
    wait_until("the server is sent everything", || {
        lab.stats().totals.bytes_in == 300_000
    });
    thread::sleep(TIMEOUT);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(verdict.recv_timeout(Duration::from_secs(20)).unwrap());
    lab.settle();
    assert_eq!(lab.record().end.to_string(), "--");
}

#[test]
fn a_client_that_vanishes_behind_the_end_of_a_connection_is_given_up_too() {
    let (seen, close) = sync_channel::<()>(1);
    let close = Mutex::new(close);
    let backend = Backend::start(move |mut stream| {
        stream.write_all(&Pattern::bytes(10, 300_000)).unwrap();
        close.lock().unwrap().recv().unwrap();
    });
    let lab = lab(&backend, 1);
    let client = rested(&lab, 300_000);
    seen.send(()).unwrap();
    wait_until("the server has gone", || backend.failures() == 0);
    let began = clock::now();
    vanish(&client);
    assert_gone(&lab, "CL", began);
    assert_eq!(lab.stats().totals.client_aborts, 1);
}

#[test]
fn a_client_that_vanishes_is_given_up_after_the_user_timeout() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(&Pattern::bytes(5, ANSWER)).unwrap_or(());
        });
        let lab = lab(&backend, workers);
        let client = lab.connect();
        let since = stuck(&lab);
        vanish(&client);
        assert_gone(&lab, "CD", since);
    }
}

#[test]
fn a_client_that_vanishes_after_a_long_rest_is_given_up_too() {
    let backend = Backend::start(|mut stream| {
        stream.write_all(&Pattern::bytes(6, ANSWER)).unwrap_or(());
    });
    let lab = lab(&backend, 1);
    let client = lab.connect();
    thread::sleep(4 * TIMEOUT);
    let began = clock::now();
    vanish(&client);
    assert_gone(&lab, "CD", began);
}

#[test]
fn a_client_that_vanishes_with_bytes_on_their_way_is_given_up() {
    let backend = Backend::start(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        // The client has been silent for longer than the timeout by then.
        thread::sleep(TIMEOUT + TIMEOUT / 2);
        stream.write_all(b"late").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap_or(0);
    });
    let lab = lab(&backend, 1);
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    wait_until("acknowledged", || tcp::unsent(&client).unwrap() == 0);
    vanish(&client);
    wait_until("the answer is on its way", || {
        lab.stats().totals.bytes_out == 4
    });
    let began = clock::now();
    assert_gone(&lab, "CD", began);
}

#[test]
fn a_server_that_vanishes_is_given_up_after_the_user_timeout() {
    let (vanished, gone) = sync_channel(1);
    let backend = Backend::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"x").unwrap();
        wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
        vanish(&stream);
        vanished.send(()).unwrap();
        thread::sleep(Duration::from_secs(20));
    });
    let lab = lab(&backend, 1);
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    // What arrives before would be acknowledged.
    gone.recv().unwrap();
    let began = clock::now();
    client.write_all(b"into the void").unwrap();
    assert_gone(&lab, "SD", began);
}

/// Given up not before the timeout, and not long after; it may have answered until `began`.
fn assert_gone(lab: &Lab, code: &str, began: Instant) {
    lab.settle();
    let took = clock::now() - began;
    assert!(took >= TIMEOUT / 2, "{took:?}");
    assert!(took < 4 * TIMEOUT, "{took:?}");
    assert_eq!(lab.record().end.to_string(), code);
}

#[test]
fn an_idle_client_may_miss_a_keepalive_probe() {
    let backend = Backend::echo(1);
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.user_timeout = Some(TIMEOUT);
    // Probes after 1, 2 and 3 s; the third that misses its answer ends it after 4 s.
    proxy.keepalive = Some(Duration::from_secs(1));
    let lab = Lab::start(proxy, 1);
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    vanish(&client);
    thread::sleep(Duration::from_millis(2500));
    socket2::SockRef::from(&client).detach_filter().unwrap();
    client.write_all(b"y").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    vanish(&client);
    let began = clock::now();
    lab.settle();
    assert!(clock::now() - began < Duration::from_secs(6));
}

/// The kernel's timer of the established connection to `addr`: 2 stands for keepalive, 0 for none.
fn timer_of(addr: SocketAddr) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", addr.port());
    let line = table.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("01")
    })?;
    let timer = line.split_whitespace().nth(5)?;
    timer.split(':').next()?.parse().ok()
}

#[test]
fn the_server_of_a_lasting_connection_is_probed_too() {
    let backend = Backend::echo(1);
    let mut proxy = proxy(vec![server(backend.addr)]);
    proxy.keepalive = Some(Duration::from_secs(1));
    let lab = Lab::start(proxy, 1);
    let mut client = lab.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    wait_until("keepalive runs", || timer_of(backend.addr) == Some(2));
}
