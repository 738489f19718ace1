//! Streams and small requests side by side on one worker: neither starves.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lbd::net::clock;

use super::lab::{Backend, Lab, Pattern, proxy, server};

const CLIENTS: u64 = 64;
const REQUESTS: u64 = 30;
/// What an answer may take on a machine that does other things, too: all of it waits for one CPU.
const GENEROUS: Duration = Duration::from_secs(3);
/// The least that the streams move meanwhile.
const STREAMED: u64 = 64 << 20;

/// `d`: sends without end; `u`: takes without end; else answers each KiB with two.
fn serve(mut stream: std::net::TcpStream) {
    let mut block = vec![0; 1 << 18];
    let mut word = [0];
    stream.read_exact(&mut word).unwrap();
    match word[0] {
        b'd' => while stream.write_all(&block).is_ok() {},
        b'u' => while stream.read(&mut block).is_ok_and(|read| read > 0) {},
        _ => {
            let request = &mut block[..1024];
            while stream.read_exact(request).is_ok() {
                let twice = [&*request, &*request].concat();
                stream.write_all(&twice).unwrap();
            }
        }
    }
}

#[test]
fn sixty_four_clients_are_answered_while_streams_run_both_ways_and_the_streams_go_on() {
    let backend = Backend::start(serve);
    let lab = Arc::new(Lab::start(proxy(vec![server(backend.addr)]), 1));
    let over = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = [b'd', b'u']
        .map(|word| {
            let (mut stream, over) = (lab.connect(), Arc::clone(&over));
            thread::spawn(move || {
                let mut block = vec![word; 1 << 18];
                stream.write_all(&[word]).unwrap();
                while !over.load(Ordering::Relaxed) {
                    if word == b'd' {
                        assert!(stream.read(&mut block).unwrap() > 0);
                    } else {
                        stream.write_all(&block).unwrap();
                    }
                }
            })
        })
        .into();
    let before = lab.stats().totals;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut stream = lab.connect();
            thread::spawn(move || {
                stream.write_all(b"s").unwrap();
                let mut longest = Duration::ZERO;
                for number in 0..REQUESTS {
                    let request = Pattern::bytes(client * REQUESTS + number, 1024);
                    let began = clock::now();
                    stream.write_all(&request).unwrap();
                    let mut answer = [0; 2048];
                    stream.read_exact(&mut answer).unwrap();
                    longest = longest.max(clock::now() - began);
                    assert!(answer[..1024] == request && answer[1024..] == request);
                }
                longest
            })
        })
        .collect();
    let longest = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .max();
    assert!(longest.unwrap() < GENEROUS, "{longest:?}");
    super::lab::wait_until("both streams go on", || {
        let now = lab.stats().totals;
        now.bytes_in - before.bytes_in > STREAMED && now.bytes_out - before.bytes_out > STREAMED
    });
    over.store(true, Ordering::Relaxed);
    for stream in streams {
        stream.join().unwrap();
    }
    lab.settle();
}
