//! How bytes, ends and resets travel.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use lbd::net::tcp;

use super::lab::{
    Backend, Lab, PATIENCE, Pattern, ask, is_reset, proxy, reset, server, wait_until,
};

const BULK: usize = 256 << 20;

fn send_pattern(stream: &mut TcpStream, seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let mut block = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        pattern.fill(&mut block);
        stream.write_all(&block).unwrap();
    }
}

fn check_pattern(stream: &mut TcpStream, seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let (mut expected, mut block) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for index in 0..len >> 20 {
        pattern.fill(&mut expected);
        stream.read_exact(&mut block).unwrap();
        assert!(block == expected, "MiB {index} differs");
    }
    assert_eq!(stream.read(&mut block).unwrap(), 0);
}

#[test]
fn bulk_to_the_client_arrives_whole_and_through_splice() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| send_pattern(&mut stream, 5, BULK));
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        check_pattern(&mut lab.connect(), 5, BULK);
        let totals = lab.stats().totals;
        assert_eq!(totals.bytes_out, BULK as u64);
        assert!(totals.bytes_spliced > BULK as u64 / 2, "{totals:?}");
    }
}

#[test]
fn bulk_to_the_server_arrives_whole_and_through_splice() {
    for workers in [1, 2] {
        let (done, verdict) = sync_channel(1);
        let backend = Backend::start(move |mut stream| {
            check_pattern(&mut stream, 6, BULK);
            done.send(()).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        send_pattern(&mut client, 6, BULK);
        client.shutdown(Shutdown::Write).unwrap();
        verdict.recv_timeout(PATIENCE).unwrap();
        let totals = lab.stats().totals;
        assert_eq!(totals.bytes_in, BULK as u64);
        assert!(totals.bytes_spliced > BULK as u64 / 2, "{totals:?}");
    }
}

#[test]
fn small_requests_are_answered_while_a_bulk_stream_runs() {
    let bulk = Backend::start(|mut stream| {
        let block = vec![0; 1 << 20];
        while stream.write_all(&block).is_ok() {}
    });
    let lab = Lab::start(proxy(vec![server(bulk.addr)]), 1);
    let mut stream = lab.connect();
    let taker = thread::spawn(move || {
        let mut block = vec![0; 1 << 20];
        let mut taken = 0;
        while taken < 512 << 20 {
            taken += stream.read(&mut block).unwrap();
        }
    });
    let mut asked = 0;
    while !taker.is_finished() {
        let mut small = lab.connect();
        small.read_exact(&mut [0; 1000]).unwrap();
        reset(small);
        asked += 1;
    }
    taker.join().unwrap();
    assert!(asked > 3, "only {asked} small requests were answered");
}

#[test]
fn a_client_that_finished_sending_gets_its_whole_answer() {
    for workers in [1, 2] {
        let backend = Backend::start(|mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            assert_eq!(request, Pattern::bytes(1, 100_000));
            stream.write_all(&Pattern::bytes(2, 2_000_000)).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let answer = ask(lab.connect(), &Pattern::bytes(1, 100_000));
        assert!(answer == Pattern::bytes(2, 2_000_000));
        lab.settle();
        assert_eq!(lab.stats().totals.finished, 1);
    }
}

#[test]
fn a_server_that_finished_sending_gets_the_rest_of_the_request() {
    for workers in [1, 2] {
        let (done, request) = sync_channel(1);
        let backend = Backend::start(move |mut stream| {
            stream.write_all(&Pattern::bytes(3, 100_000)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            done.send(request).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == Pattern::bytes(3, 100_000));
        client.write_all(&Pattern::bytes(4, 2_000_000)).unwrap();
        drop(client);
        assert!(request.recv_timeout(PATIENCE).unwrap() == Pattern::bytes(4, 2_000_000));
        lab.settle();
    }
}

#[test]
fn a_servers_reset_reaches_the_client_as_a_reset_behind_the_data() {
    for workers in [1, 2] {
        let (go, gate) = sync_channel::<()>(1);
        let gate = Mutex::new(gate);
        let backend = Backend::start(move |mut stream| {
            stream.write_all(&Pattern::bytes(7, 100_000)).unwrap();
            gate.lock().unwrap().recv().unwrap();
            reset(stream);
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        let mut answer = vec![0; 100_000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == Pattern::bytes(7, 100_000));
        go.send(()).unwrap();
        assert!(is_reset(&mut client));
        assert_eq!(lab.record().end.to_string(), "SD");
        lab.settle();
    }
}

#[test]
fn a_servers_reset_does_not_overtake_data_that_a_slow_client_has_not_read() {
    for workers in [1, 2] {
        let backend = Backend::start(move |mut stream| {
            stream.write_all(&Pattern::bytes(7, 1_000_000)).unwrap();
            // Everything has left this socket before it is reset.
            wait_until("acknowledged", || tcp::unsent(&stream).unwrap() == 0);
            reset(stream);
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        wait_until("the server has gone", || {
            backend.total.load(std::sync::atomic::Ordering::SeqCst) == 1
                && backend.present.load(std::sync::atomic::Ordering::SeqCst) == 0
        });
        let mut answer = vec![0; 1_000_000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == Pattern::bytes(7, 1_000_000));
        let was_reset = is_reset(&mut client);
        assert!(was_reset, "{workers} {:?}", lab.record());
    }
}

#[test]
fn a_clients_reset_reaches_the_server_as_a_reset_behind_the_data() {
    for workers in [1, 2] {
        let (seen, outcome) = sync_channel(1);
        let backend = Backend::start(move |mut stream| {
            let mut request = vec![0; 100_000];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"ok").unwrap();
            seen.send((request, is_reset(&mut stream))).unwrap();
        });
        let lab = Lab::start(proxy(vec![server(backend.addr)]), workers);
        let mut client = lab.connect();
        client.write_all(&Pattern::bytes(8, 100_000)).unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
        reset(client);
        let (request, was_reset) = outcome.recv_timeout(PATIENCE).unwrap();
        assert!(request == Pattern::bytes(8, 100_000));
        assert!(was_reset);
        assert_eq!(lab.record().end.to_string(), "CD");
        lab.settle();
    }
}

/// What each server sends, sixteen times. Shared, so that it counts once.
static BLOCK: [u8; 1 << 20] = [7; 1 << 20];

#[test]
fn a_hundred_clients_that_do_not_read_cost_little_memory() {
    let backend = Backend::start(|mut stream| {
        stream.set_write_timeout(None).unwrap();
        // These count against what the kernel gives to all TCP sockets together, too. When that is
        // used up it drops what arrives, and those who sent it repeat it ever more seldom.
        let socket = socket2::SockRef::from(&stream);
        socket.set_send_buffer_size(64 << 10).unwrap();
        for _ in 0..16 {
            if stream.write_all(&BLOCK).is_err() {
                return;
            }
        }
    });
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 2);
    let before = resident();
    let clients: Vec<TcpStream> = (0..100).map(|_| lab.connect()).collect();
    let mut last = (0, 0);
    wait_until("everything is stuck", || {
        thread::sleep(Duration::from_millis(20));
        let moved = lab.stats().totals.bytes_out;
        last = if moved == last.0 {
            (moved, last.1 + 1)
        } else {
            (moved, 0)
        };
        last.1 >= 10 && lab.engine.connections() == 100
    });
    // Buffered whole, the answers would be 1.6 GB. Other tests run in this process too.
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB", grown >> 20);
    // All at once: none is stuck for much longer than another, however busy the machine.
    let readers: Vec<_> = clients
        .into_iter()
        .map(|client| thread::spawn(move || take_all(client)))
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 16 << 20);
    }
    lab.settle();
}

/// Reads what the servers send; answers how much it was.
fn take_all(mut client: TcpStream) -> usize {
    let (mut total, mut block) = (0, vec![0; 1 << 18]);
    loop {
        let read = client.read(&mut block).unwrap();
        if read == 0 {
            return total;
        }
        assert!(block[..read] == BLOCK[..read]);
        total += read;
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}
