//! The load: 1 KiB and a header up, 2 KiB down, as in benches/compare; 16 clients at a time, three
//! servers on 127.0.0.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use lbd::net::clock;

use crate::program::wait_until;
use crate::trace::Span;

/// Clients at a time.
pub(crate) const CLIENTS: usize = 16;
/// Requests of a client before they count.
const WARM_UP: usize = 10;
const REQUEST: [u8; 1056] = [1; 1056];
const ANSWER: [u8; 2048] = [2; 2048];
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers, and clients as they are needed.
pub(crate) struct Load {
    pub(crate) servers: Vec<SocketAddr>,
    /// Connections that servers have now.
    present: Arc<AtomicUsize>,
}

impl Load {
    pub(crate) fn new() -> Self {
        let present = Arc::new(AtomicUsize::new(0));
        let servers = (0..3).map(|_| serve(&present)).collect();
        Self { servers, present }
    }

    /// So many connections of each client, one after the other.
    pub(crate) fn connections(&self, addr: SocketAddr, each: usize) -> Span {
        let from = now();
        let clients = [(); CLIENTS].map(|()| {
            thread::spawn(move || {
                for _ in 0..each {
                    exchange(&mut connect(addr));
                }
            })
        });
        for client in clients {
            client.join().unwrap();
        }
        wait_until("the servers' connections have ended", || {
            self.present.load(Ordering::SeqCst) == 0
        });
        Span { from, to: now() }
    }

    /// So many requests of each client over one connection.
    pub(crate) fn requests(&self, addr: SocketAddr, each: usize) -> Span {
        let stage = Arc::new(Barrier::new(CLIENTS + 1));
        let clients = [(); CLIENTS].map(|()| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || {
                let mut stream = connect(addr);
                (0..WARM_UP).for_each(|_| exchange(&mut stream));
                stage.wait();
                stage.wait();
                (0..each).for_each(|_| exchange(&mut stream));
                stage.wait();
                stage.wait();
            })
        });
        stage.wait();
        let from = now();
        stage.wait();
        stage.wait();
        let to = now();
        stage.wait();
        for client in clients {
            client.join().unwrap();
        }
        Span { from, to }
    }
}

fn now() -> Duration {
    let wall = clock::wall().duration_since(std::time::UNIX_EPOCH);
    wall.unwrap()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream) {
    stream.write_all(&REQUEST).unwrap();
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
}

/// A server that answers each request, until its peer has finished.
fn serve(present: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let present = Arc::clone(present);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            present.fetch_add(1, Ordering::SeqCst);
            let present = Arc::clone(&present);
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let mut request = [0; REQUEST.len()];
                while stream.read_exact(&mut request).is_ok() && stream.write_all(&ANSWER).is_ok() {
                }
                drop(stream);
                present.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    addr
}
