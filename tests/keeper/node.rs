//! A running lbd, a client, an echo server: what the tests here share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lbd::net::clock;

pub(crate) use crate::program::{Folder, wait_for};
pub(crate) use crate::running::{Node, SOON};
pub(crate) use crate::segment::enter;

/// An echo server on `listener`'s address until the test ends.
pub(crate) fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// One connection, one byte there and back, within a second.
pub(crate) fn ask(address: SocketAddr) -> std::io::Result<()> {
    ask_within(Duration::from_secs(1), address)
}

/// The same, each step within `limit`.
pub(crate) fn ask_within(limit: Duration, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// A client that asks again and again until it is stopped.
pub(crate) struct Client {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) outcome: Arc<Mutex<Outcome>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) answered: u32,
    pub(crate) failed: Vec<String>,
    /// The longest time between two answers.
    pub(crate) gap: Duration,
    pub(crate) last: Option<Instant>,
}

impl Client {
    pub(crate) fn start(address: SocketAddr) -> Self {
        Self::patient(Duration::from_secs(1), address)
    }

    /// One that waits so long for an answer.
    pub(crate) fn patient(limit: Duration, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (stopped, results) = (Arc::clone(&stop), Arc::clone(&outcome));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let result = ask_within(limit, address);
                let now = clock::now();
                let mut results = results.lock().unwrap();
                match result {
                    Ok(()) => {
                        results.answered += 1;
                        let gap = results.last.map_or(Duration::ZERO, |last| now - last);
                        results.gap = results.gap.max(gap);
                        results.last = Some(now);
                    }
                    Err(error) => results.failed.push(error.to_string()),
                }
                drop(results);
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            outcome,
            thread: Some(thread),
        }
    }

    pub(crate) fn so_far(&self) -> Outcome {
        self.outcome.lock().unwrap().clone()
    }

    /// Waits for that many more answers.
    pub(crate) fn wait_answers(&self, count: u32) {
        let goal = self.so_far().answered + count;
        wait_for("answers", SOON, || {
            (self.so_far().answered >= goal).then_some(())
        });
    }

    pub(crate) fn finish(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.so_far()
    }
}
