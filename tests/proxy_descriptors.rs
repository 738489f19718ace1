//! Running out of descriptors: a test binary of its own, because the limit is the process'.
#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests panic like tests"
)]

#[expect(dead_code, reason = "this binary needs only a part of the lab")]
#[path = "proxy/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use lbd::proxy::shortage::Shortage;

use lab::{Lab, PATIENCE, proxy, server, wait_until};

/// Answers each connection with what it sent, one byte.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read(&mut byte).is_ok_and(|read| read > 0) {
                    if stream.write_all(&byte).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn running_out_of_descriptors_delays_clients_and_loses_none() {
    // Until there is room again its backlog has the connections: it takes no descriptor from lbd.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::start(proxy(vec![server(backend.local_addr().unwrap())]), 1);
    let spare = std::fs::File::open("/dev/null").unwrap();
    let sockets: Vec<socket2::Socket> = (0..40)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
        .collect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let last = sockets.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    let few = u64::try_from(last).unwrap() + 10;
    setrlimit(Resource::RLIMIT_NOFILE, few, hard).unwrap();
    let mut clients: Vec<TcpStream> = sockets
        .into_iter()
        .map(|socket| {
            socket.connect(&lab.addr.into()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
        .collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    let files = || match lab.engine.shortages()[0] {
        (Shortage::Files, times) => times,
        (what, _) => panic!("{what:?} in the place of files"),
    };
    wait_until("the shortage is noticed", || files() > 0);
    let served = lab.engine.connections();
    assert!((1..40).contains(&served), "{served}");
    // One descriptor is room for a client, and none for its server.
    drop(spare);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(lab.engine.connections(), served);
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    echo(backend);
    let mut lost = 0;
    for client in &mut clients {
        let mut answer = [0];
        lost += usize::from(client.read_exact(&mut answer).is_err());
    }
    assert_eq!(lost, 0);
    // With rests of 100 ms between them; a spinning worker would have tried thousands of times.
    assert!(files() < 200, "{}", files());
}
