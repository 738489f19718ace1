//! Everything at once, and its end.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lbd::net::clock;

use super::lab::{
    Backend, Lab, PATIENCE, Pattern, is_reset, limited, proxy, reset, server, wait_until,
};

/// A client that asks for some bytes, and hears what it asked for or is cut off.
fn asks(addr: std::net::SocketAddr, answered: &AtomicUsize, number: u64) {
    let Ok(mut stream) = TcpStream::connect(addr) else {
        return;
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = if number.is_multiple_of(7) {
        1 << 20
    } else {
        900
    };
    let request = Pattern::bytes(number, len);
    let mut answer = vec![0; 1 + len];
    let mut sender = stream.try_clone().unwrap();
    let sent = request.clone();
    let writer = thread::spawn(move || sender.write_all(&sent).is_ok());
    let heard = stream.read_exact(&mut answer);
    match heard {
        Ok(()) => {
            assert!(answer[1..] == request, "client {number}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "stuck"),
    }
    if number.is_multiple_of(3) {
        reset(stream);
    }
    writer.join().unwrap();
}

#[test]
fn connections_of_an_address_that_leaves_are_reset_also_while_the_process_drains() {
    use std::io::ErrorKind;
    let backend = Backend::echo(0);
    let lab = Arc::new(Lab::start(proxy(vec![limited(backend.addr, 9)]), 1));
    let dial = |patience| {
        let mut client = TcpStream::connect(lab.addr).unwrap();
        let patience = Duration::from_millis(patience);
        client.set_read_timeout(Some(patience)).unwrap();
        client.write_all(b"x").unwrap();
        client
    };
    let mut held = dial(5_000);
    held.read_exact(&mut [0]).unwrap();
    let stopping = {
        let lab = Arc::clone(&lab);
        thread::spawn(move || lab.engine.stop(Duration::from_secs(30)))
    };
    wait_until("nobody is accepted", || {
        dial(100).read_exact(&mut [0]).is_err()
    });
    let began = clock::now();
    lab.engine.reset_local(&["127.0.0.1".parse().unwrap()]);
    // What the server has said already comes first.
    let error = loop {
        if let Err(error) = held.read_exact(&mut [0]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    stopping.join().unwrap();
    assert!(clock::now() - began < Duration::from_secs(10));
}

#[test]
fn resets_and_a_stop_under_full_load_leave_nothing_behind() {
    for workers in [1, 2] {
        let backends = [Backend::echo(0), Backend::echo(1)];
        let mut config = proxy(backends.iter().map(|b| limited(b.addr, 9)).collect());
        config.client_first = true;
        let lab = Arc::new(Lab::start(config, workers));
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients: Vec<_> = (0..30_u64)
            .map(|client| {
                let (addr, over) = (lab.addr, Arc::clone(&over));
                let answered: Arc<AtomicUsize> = Arc::clone(&answered);
                thread::spawn(move || {
                    for round in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        asks(addr, &answered, client * 1_000_000 + round);
                    }
                })
            })
            .collect();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        for turn in 0..20 {
            let before = answered.load(Ordering::Relaxed);
            wait_until("clients are answered", || {
                answered.load(Ordering::Relaxed) > before + 30
            });
            lab.farm
                .set_up(turn % 2, !turn.is_multiple_of(3), clock::now());
            lab.farm.set_up((turn + 1) % 2, true, clock::now());
            lab.engine.reset_local(&[here]);
        }
        over.store(true, Ordering::Relaxed);
        lab.engine.stop(Duration::from_millis(20));
        assert_eq!(lab.engine.connections(), 0);
        let stats = lab.stats();
        assert_eq!((stats.connections, stats.queue), (0, 0));
        for server in &stats.servers {
            assert_eq!(server.connections, 0, "{server:?}");
            assert!(server.connections_max <= 9);
        }
        // Those in the kernel's backlog wait for the next process; here there is none.
        for listener in lab.engine.listeners().iter().flatten().flatten() {
            while let Ok((client, _)) = lbd::net::tcp::accept(listener) {
                lbd::net::tcp::reset_on_close(&client).unwrap();
            }
        }
        drop(clients);
    }
}

#[test]
fn a_client_that_talks_while_its_last_bytes_are_flushed_costs_nothing() {
    let backend = Backend::start(|mut stream| {
        stream.write_all(&Pattern::bytes(1, 300_000)).unwrap();
        wait_until("acknowledged", || {
            lbd::net::tcp::unsent(&stream).unwrap() == 0
        });
        reset(stream);
    });
    let lab = Lab::start(proxy(vec![server(backend.addr)]), 1);
    // The proxy has passed everything on; the client's window is shut.
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4096).unwrap();
    client.connect(&lab.addr.into()).unwrap();
    let mut client = TcpStream::from(client);
    client.set_nodelay(true).unwrap();
    wait_until("the server has broken off", || {
        lab.stats().totals.server_aborts == 1
    });
    // Each of these is an event for a connection that only waits to be read.
    for _ in 0..10_000 {
        client.write_all(b"x").unwrap();
        thread::sleep(Duration::from_micros(100));
    }
    let before = cpu(&lab);
    thread::sleep(Duration::from_secs(1));
    let spent = cpu(&lab) - before;
    assert!(spent < Duration::from_millis(50), "{spent:?} of CPU");
    assert!(is_reset(&mut client));
    lab.settle();
}

/// CPU time of the only worker.
fn cpu(lab: &Lab) -> Duration {
    let tid = lab.engine.ticks(clock::now())[0].tid;
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
