//! Connections of every kind, many at a time, and the servers that they reach.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lbd::net::tcp;

use super::daemon::PATIENCE;

/// Clients at a time.
const CLIENTS: usize = 24;
/// What a bulk answer has: enough for several full reads, so that it is spliced.
const BULK: usize = 400_000;

/// A server that does what a connection's first byte says, and a port that refuses.
pub struct Servers {
    does: SocketAddr,
    refuses: SocketAddr,
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

fn reset(stream: TcpStream) {
    tcp::reset_on_close(&stream).unwrap();
    drop(stream);
}

fn serve(mut stream: TcpStream, bulk: &[u8]) -> std::io::Result<()> {
    patient(&stream);
    let mut word = [0];
    if stream.read(&mut word)? == 0 {
        return Ok(());
    }
    match word[0] {
        b'r' => reset(stream),
        b'b' => stream.write_all(bulk)?,
        b'f' => {
            // Finishes first, and then waits for the client's end.
            stream.write_all(b"bye")?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        _ => {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest)?;
            stream.write_all(&rest)?;
        }
    }
    Ok(())
}

impl Servers {
    pub fn start() -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let does = listener.local_addr().unwrap();
        let bulk: Arc<[u8]> = vec![7; BULK].into();
        for _ in 0..4 * CLIENTS {
            let (listener, bulk) = (Arc::clone(&listener), Arc::clone(&bulk));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    // Clients that break off are a part of it.
                    serve(stream.unwrap(), &bulk).unwrap_or(());
                }
            });
        }
        // Bound and not listening: nobody else gets the port.
        let holds = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let holds = holds.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        holds.bind(&any.into()).unwrap();
        let refuses = holds.local_addr().unwrap().as_socket().unwrap();
        thread::spawn(move || {
            thread::park();
            drop(holds);
        });
        Self { does, refuses }
    }
}

/// A proxy with a good server and one that refuses, one with only the latter, and one whose
/// server takes one connection at a time. All pass their checks.
pub fn config(servers: &Servers) -> (String, Crowd) {
    let (does, refuses) = (servers.does, servers.refuses);
    let [mixed, dead, narrow] = [(); 3].map(|()| crate::port::held());
    let bad = format!("{{ address = \"{refuses}\", check-address = \"{does}\" }}");
    let good = format!("{{ address = \"{does}\" }}");
    let proxy = |name, listen, body: &str| {
        format!(
            "[proxy.{name}]\nlisten = \"{listen}\"\nslowstart = \"0s\"\n\
             check = {{ type = \"tcp\", interval = \"1s\", timeout = \"10s\" }}\n{body}\n"
        )
    };
    let text = [
        "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n[limits]\nworkers = 2\n".into(),
        proxy(
            "mixed",
            mixed,
            &format!("[proxy.mixed.backends]\na = {good}\nb = {bad}"),
        ),
        proxy(
            "dead",
            dead,
            &format!("retries = 1\n[proxy.dead.backends]\nb = {bad}"),
        ),
        proxy(
            "narrow",
            narrow,
            &format!(
                "client-first = true\nbackend-defaults = {{ max-connections = 1 }}\n\
                 [proxy.narrow.backends]\na = {good}"
            ),
        ),
    ];
    let crowd = Crowd {
        mixed,
        dead,
        narrow,
    };
    (text.concat(), crowd)
}

/// Where clients go.
#[derive(Clone, Copy)]
pub struct Crowd {
    mixed: SocketAddr,
    dead: SocketAddr,
    narrow: SocketAddr,
}

impl Crowd {
    /// Makes the connections `from` to `to`; answers how many that were.
    pub fn run(self, from: u64, to: u64) -> u64 {
        let next = AtomicU64::new(from);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= to {
                            return;
                        }
                        self.client(number);
                    }
                });
            }
        });
        to - from
    }

    fn client(self, number: u64) {
        let addr = match number % 25 {
            0 => self.dead,
            1..=4 => self.narrow,
            _ => self.mixed,
        };
        let stream = TcpStream::connect(addr).unwrap();
        patient(&stream);
        match number % 25 {
            0 => assert!(heard(stream, b"").is_err()),
            1 | 2 => ends_in_order(stream),
            // In the queue mostly, for somebody else is there.
            3 | 5 => reset(stream),
            4 | 6 => drop(stream),
            7 => {
                let mut stream = stream;
                stream.write_all(b"bulk").unwrap();
                stream.read_exact(&mut [0; 100]).unwrap();
                reset(stream);
            }
            8..=10 => {
                let answer = heard(stream, b"b").unwrap();
                assert!(answer.len() == BULK && answer.iter().all(|byte| *byte == 7));
            }
            11 | 12 => assert!(heard(stream, b"r").is_err()),
            13 | 14 => {
                let answer = heard(stream, b"f");
                assert_eq!(answer.unwrap(), b"bye");
            }
            15 => {
                let mut stream = stream;
                stream.write_all(b"e").unwrap();
                reset(stream);
            }
            _ => ends_in_order(stream),
        }
    }
}

fn ends_in_order(mut stream: TcpStream) {
    stream.write_all(b"e12345").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"12345");
}

/// Says a word and hears what comes.
fn heard(mut stream: TcpStream, word: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(word)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
