//! What the sockets on both sides are set to, seen from outside: nothing small waits for an
//! acknowledgement, idle peers are probed, nobody who speaks first is held back, and urgent bytes
//! stay in their place. On new sockets and on recycled ones.

use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lbd::net::{clock, tcp};

use super::lab::{Backend, Lab, PATIENCE, proxy, server, wait_until};

/// What a server's bytes at once may take; a delayed acknowledgement would take at least 40 ms,
/// on the first packets of a connection 200 ms.
const AT_ONCE: Duration = Duration::from_millis(40);

/// Ends one connection after another in order, so that the next uses a recycled socket.
fn recycle(lab: &Lab) {
    let before = lab.stats().servers[0].totals.recycled;
    wait_until("a socket is recycled", || {
        let mut client = lab.connect();
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        lab.settle();
        lab.stats().servers[0].totals.recycled > before
    });
}

/// A server that says when each byte came, and sends two bytes a little apart when told.
struct Timed {
    backend: Backend,
    arrivals: Receiver<Instant>,
}

fn timed() -> Timed {
    let (tell, arrivals) = sync_channel(16);
    let backend = Backend::start(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while slow_read(&mut stream, &mut byte) > 0 {
            match byte[0] {
                b'2' => two_bytes(&mut stream),
                b't' => tell.send(clock::now()).unwrap(),
                _ => {}
            }
        }
    });
    Timed { backend, arrivals }
}

/// Reads without acknowledging at once, as a peer does that expects to answer.
fn slow_read(stream: &mut TcpStream, byte: &mut [u8; 1]) -> usize {
    tcp::set_quickack(&*stream, false).unwrap();
    stream.read(byte).unwrap_or(0)
}

fn two_bytes(stream: &mut TcpStream) {
    stream.write_all(b"t").unwrap();
    thread::sleep(Duration::from_millis(3));
    stream.write_all(b"t").unwrap();
}

#[test]
fn nothing_small_waits_for_an_acknowledgement_on_new_and_on_recycled_sockets() {
    let Timed { backend, arrivals } = timed();
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    for recycled in [false, true] {
        if recycled {
            recycle(&lab);
        }
        let mut client = lab.connect();
        client.set_nodelay(true).unwrap();
        let mut gaps = [Duration::MAX; 2];
        for _ in 0..10 {
            two_bytes(&mut client);
            let arrival = || arrivals.recv_timeout(PATIENCE).unwrap();
            let (first, second) = (arrival(), arrival());
            gaps[0] = gaps[0].min(second - first);
            client.write_all(b"2").unwrap();
            assert_eq!(slow_read(&mut client, &mut [0]), 1);
            let first = clock::now();
            assert_eq!(slow_read(&mut client, &mut [0]), 1);
            gaps[1] = gaps[1].min(clock::now() - first);
        }
        assert!(gaps.iter().all(|gap| *gap < AT_ONCE / 2), "{gaps:?}");
        let used = lab.stats().servers[0].totals.recycled > 0;
        assert_eq!(used, recycled);
        drop(client);
        lab.settle();
    }
}

/// The kernel's timers of this process' sockets to and from `port`, as /proc tells: kind, jiffies.
fn timers_of(port: u16) -> Vec<(String, u64)> {
    let table = read_to_string("/proc/self/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let established = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields[1].ends_with(&port) || fields[2].ends_with(&port);
        let (kind, left) = fields[5].split_once(':')?;
        let left = u64::from_str_radix(left, 16).unwrap();
        (ours && fields[3] == "01").then(|| (kind.to_owned(), left))
    });
    established.collect()
}

#[test]
fn idle_clients_and_servers_are_probed_also_on_recycled_sockets() {
    let backend = Backend::echo(1);
    let mut config = proxy(vec![server(backend.addr)]);
    config.keepalive = Some(Duration::from_secs(100));
    config.user_timeout = Some(Duration::from_secs(1));
    let lab = Lab::start(config, 1);
    for recycled in [false, true] {
        if recycled {
            recycle(&lab);
        }
        let mut client = lab.connect();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        for port in [lab.addr.port(), backend.addr.port()] {
            // Of each pair one is the engine's, and has a keepalive timer (2) of 100 s, less what
            // has passed since: not more than the two waits here.
            let mut timers = timers_of(port);
            let probed = |timers: &[(String, u64)]| {
                let probed =
                    |(kind, left): &&(String, u64)| kind == "02" && (5_000..=10_100).contains(left);
                timers.len() == 2 && timers.iter().filter(probed).count() == 1
            };
            let deadline = clock::now() + PATIENCE;
            while !probed(&timers) {
                assert!(clock::now() < deadline, "{recycled} {port:04X} {timers:?}");
                thread::sleep(Duration::from_millis(1));
                timers = timers_of(port);
            }
        }
        drop(client);
        lab.settle();
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once_whatever_is_configured_and_recycled() {
    for client_first in [false, true] {
        let backend = Backend::start(|mut stream| {
            stream.write_all(b"220 ready").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap_or(0);
        });
        let mut config = proxy(vec![server(backend.addr)]);
        config.client_first = client_first;
        let lab = Lab::start(config, 1);
        for recycled in [false, true] {
            if recycled {
                recycle(&lab);
            }
            let mut fastest = Duration::MAX;
            for _ in 0..10 {
                let began = clock::now();
                let mut client = lab.connect();
                client.read_exact(&mut [0; 9]).unwrap();
                fastest = fastest.min(clock::now() - began);
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(client.read(&mut [0]).unwrap(), 0);
            }
            assert!(fastest < AT_ONCE, "{client_first} {recycled} {fastest:?}");
        }
        assert!(lab.stats().servers[0].totals.recycled >= 10);
    }
}

/// "before", an urgent byte, "behind".
fn send_urgent(mut stream: &TcpStream) {
    stream.write_all(b"before").unwrap();
    socket2::SockRef::from(stream)
        .send_out_of_band(b"!")
        .unwrap();
    stream.write_all(b"behind").unwrap();
}

#[test]
fn an_urgent_byte_keeps_its_place_both_ways_and_costs_no_cpu() {
    let (tell, heard) = sync_channel(1);
    let tell = Arc::new(Mutex::new(tell));
    let backend = Backend::start(move |mut stream| {
        let mut request = [0; 13];
        socket2::SockRef::from(&stream)
            .set_out_of_band_inline(true)
            .unwrap();
        stream.read_exact(&mut request).unwrap();
        tell.lock().unwrap().send(request).unwrap();
        send_urgent(&stream);
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    for _ in 0..3 {
        let mut client = lab.connect();
        send_urgent(&client);
        assert_eq!(&heard.recv_timeout(PATIENCE).unwrap(), b"before!behind");
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"before!behind");
        let before = cpu(&lab);
        thread::sleep(Duration::from_millis(500));
        let spent = cpu(&lab) - before;
        assert!(spent < Duration::from_millis(50), "{spent:?} of CPU");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        lab.settle();
    }
    assert_eq!(backend.failures(), 0);
}

/// CPU time of the only worker.
fn cpu(lab: &Lab) -> Duration {
    let tid = lab.engine.ticks(clock::now())[0].tid;
    let stat = read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
