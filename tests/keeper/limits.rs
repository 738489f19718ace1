//! Limits while two proxy processes serve, under load: never exceeded, and nobody waits for room that
//! is there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::alone::{single, wait_served};
use super::node::{Folder, Node, SOON, wait_for};
use super::upgrade::{Stream, upgrade};

/// Clients that have an answer and have not closed yet, and what was seen of them.
#[derive(Default)]
struct Crowd {
    stop: AtomicBool,
    inside: AtomicU32,
    most: AtomicU32,
    answers: AtomicU32,
    longest: Mutex<Duration>,
}

impl Crowd {
    /// So many clients, one connection after the other. One that is not served within `SOON` ends the
    /// test.
    fn begin(address: SocketAddr, clients: usize) -> (Arc<Self>, Vec<thread::JoinHandle<()>>) {
        let crowd = Arc::new(Self::default());
        let threads = (0..clients).map(|_| {
            let crowd = Arc::clone(&crowd);
            thread::spawn(move || {
                while !crowd.stop.load(Ordering::Relaxed) {
                    crowd.come(address);
                }
            })
        });
        let threads = threads.collect();
        (crowd, threads)
    }

    fn come(&self, address: SocketAddr) {
        let began = clock::now();
        let stream = Stream::open(address);
        let waited = clock::now() - began;
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.answers.fetch_add(1, Ordering::SeqCst);
        let mut longest = self.longest.lock().unwrap();
        *longest = waited.max(*longest);
        drop(longest);
        thread::sleep(Duration::from_millis(3));
        // Before the proxy hears of it.
        self.inside.fetch_sub(1, Ordering::SeqCst);
        drop(stream);
    }

    /// The most that were inside at once from here on until so many more were served.
    fn most_while(&self, answers: u32) -> u32 {
        self.most.store(0, Ordering::SeqCst);
        let goal = self.answers.load(Ordering::SeqCst) + answers;
        wait_for("a crowd to be served", SOON * 2, || {
            (self.answers.load(Ordering::SeqCst) >= goal).then_some(())
        });
        self.most.load(Ordering::SeqCst)
    }
}

#[test]
fn a_crowd_gets_exactly_what_the_process_before_leaves_of_the_limit() {
    let folder = Folder::new("crowd");
    let (address, config) = single();
    let config = config.replace("[limits]\n", "[limits]\nmax-connections = 6\n");
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let mut streams = vec![Stream::open(address), Stream::open(address)];
    let first = node.proxy();
    let (crowd, clients) = Crowd::begin(address, 12);
    assert_eq!(crowd.most_while(100), 4);
    // The process before has two, the new one the rest; and each of them at once while both accept.
    crowd.most.store(0, Ordering::SeqCst);
    let output = upgrade(&node);
    assert!(output.status.success(), "{output:?}\n{}", node.log());
    assert!(crowd.most.load(Ordering::SeqCst) <= 4);
    assert_eq!(crowd.most_while(300), 4);
    streams.iter_mut().for_each(Stream::ask);
    // What one of its connections gives back, and then the process as it dies, is had by others.
    streams.pop();
    wait_for("a place", SOON, || {
        (crowd.most_while(50) == 5).then_some(())
    });
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    wait_for("a place", SOON, || {
        (crowd.most_while(50) == 6).then_some(())
    });
    assert_eq!(crowd.most_while(200), 6);
    crowd.stop.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let longest = *crowd.longest.lock().unwrap();
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

/// Whether a connection is served; `false`: it is reset.
fn is_served(address: SocketAddr, kept: &mut Vec<TcpStream>) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let served = stream
        .write_all(b"x")
        .and_then(|()| stream.read_exact(&mut [0]));
    if served.is_ok() {
        kept.push(stream);
    }
    served.is_ok()
}

#[test]
fn what_one_source_may_have_is_exact_over_two_processes() {
    let folder = Folder::new("source-limit");
    let (address, config) = single();
    let config = format!("{config}per-source = {{ max-connections = 4 }}\n");
    let node = Node::start(&folder, "lb", &config, None);
    wait_served(address);
    let mut streams = vec![Stream::open(address), Stream::open(address)];
    let first = node.proxy();
    let output = upgrade(&node);
    assert!(output.status.success(), "{output:?}\n{}", node.log());
    let mut kept = Vec::new();
    wait_for("two of four", SOON, || {
        is_served(address, &mut kept);
        (kept.len() == 2).then_some(())
    });
    for _ in 0..20 {
        assert!(!is_served(address, &mut kept), "{}", node.log());
    }
    streams.iter_mut().for_each(Stream::ask);
    streams.pop();
    wait_for("one more", SOON, || {
        is_served(address, &mut kept).then_some(())
    });
    assert!(!is_served(address, &mut kept));
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    wait_for("the last", SOON, || {
        is_served(address, &mut kept).then_some(())
    });
    assert!(!is_served(address, &mut kept));
    // Alone again, it counts by itself.
    node.wait_log("limits are kept together with another process shared=false");
    assert!(!is_served(address, &mut kept));
    kept.pop();
    wait_for("one in place", SOON, || {
        is_served(address, &mut kept).then_some(())
    });
    assert_eq!(kept.len(), 4);
}
