//! A client that knows only the VIP: a fresh TLS connection every few milliseconds, and some
//! long-lived ones that ask now and then, as kubelets do.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tally::{Attempt, Outcome, Tally};
use crate::net::clock;
use crate::net::netns::Namespace;

/// An answer is at most this long, bytes.
const ANSWER_MAX: usize = 4096;

/// What the client does.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Where it goes.
    pub target: SocketAddr,
    /// A new connection each.
    pub interval: Duration,
    /// One that has no answer by then has failed.
    pub timeout: Duration,
    /// How many long-lived connections it keeps.
    pub held: usize,
    /// How often each of them asks.
    pub held_interval: Duration,
    /// The servers by name, to count answers.
    pub servers: Vec<String>,
}

/// A running client; it ends when dropped.
#[derive(Debug)]
pub struct Client {
    tally: Arc<Mutex<Tally>>,
    _stop: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    habits: Habits,
    tls: Arc<ClientConfig>,
    tally: Arc<Mutex<Tally>>,
}

impl Client {
    /// Starts one inside a namespace.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(host: &Namespace, habits: Habits, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::new(habits.servers.len())));
        let (stop, stopped) = watch::channel(());
        let shared = Arc::new(Shared {
            habits,
            tls,
            tally: Arc::clone(&tally),
        });
        host.thread("client", move || run(&shared, stopped))?;
        Ok(Self { tally, _stop: stop })
    }

    /// Looks at the record so far.
    pub fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        look(&self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn run(shared: &Arc<Shared>, mut stopped: watch::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for _ in 0..shared.habits.held {
            tokio::spawn(hold(Arc::clone(shared)));
        }
        let mut ticks = tokio::time::interval(shared.habits.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => tokio::spawn(attempt(Arc::clone(shared))),
                _ = stopped.changed() => return Ok(()),
            };
        }
    })
}

impl Shared {
    fn record(&self, enter: impl FnOnce(&mut Tally)) {
        enter(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.habits.target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(self.habits.target.ip().into());
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }

    /// One request; which server answered it.
    async fn ask(
        &self,
        stream: &mut TlsStream<TcpStream>,
        request: &[u8],
    ) -> io::Result<Option<usize>> {
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        loop {
            let read = stream.read_buf(&mut answer).await?;
            if let Some(name) = body(&answer) {
                let server = self.habits.servers.iter().position(|known| known == name);
                return Ok(server);
            }
            if read == 0 || answer.len() > ANSWER_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The one-line body of a complete answer.
fn body(answer: &[u8]) -> Option<&str> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let name = body.strip_suffix('\n')?;
    head.starts_with("HTTP/1.1 200 ").then_some(name)
}

async fn attempt(shared: Arc<Shared>) {
    let started = clock::now();
    let tried = tokio::time::timeout(shared.habits.timeout, try_once(&shared)).await;
    let outcome = tried.unwrap_or(Outcome::TimedOut);
    shared.record(|tally| {
        tally.attempt(Attempt {
            started,
            ended: clock::now(),
            outcome,
        });
    });
}

async fn try_once(shared: &Shared) -> Outcome {
    let stream = match shared.connect().await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
        Err(_) => return Outcome::TimedOut,
    };
    let request = b"GET / HTTP/1.1\r\nHost: kube-apiserver\r\nConnection: close\r\n\r\n";
    let answered = async {
        let mut stream = shared.handshake(stream).await?;
        let server = shared.ask(&mut stream, request).await?;
        // Answered it is, however the closing goes.
        match tokio::time::timeout(PARTING, part(&mut stream)).await {
            Ok(Ok(())) | Ok(Err(_)) | Err(_) => io::Result::Ok(server),
        }
    };
    answered.await.map_or(Outcome::Cut, Outcome::Served)
}

/// How long closing in order may take.
const PARTING: Duration = Duration::from_millis(100);

/// Closes in order. Dropped with the server's farewell unread, the connection would be reset, and the
/// proxy would count a client that aborted.
async fn part(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = Vec::new();
    while rest.len() < ANSWER_MAX && stream.read_buf(&mut rest).await? > 0 {}
    Ok(())
}

/// Keeps one connection and asks over it, for ever; makes a new one when it breaks.
async fn hold(shared: Arc<Shared>) {
    loop {
        let mut answered = false;
        let ended = hold_one(&shared, &mut answered).await;
        if ended.is_err() && answered {
            shared.record(|tally| tally.lost(clock::now()));
        }
        tokio::time::sleep(shared.habits.held_interval.min(Duration::from_millis(50))).await;
    }
}

async fn hold_one(shared: &Shared, answered: &mut bool) -> io::Result<()> {
    let request = b"GET / HTTP/1.1\r\nHost: kube-apiserver\r\n\r\n";
    let limit = shared.habits.timeout;
    let mut stream = tokio::time::timeout(limit, async {
        let stream = shared.connect().await?;
        shared.handshake(stream).await
    })
    .await??;
    loop {
        // A silent peer is given longer here: the connection is lost only when it breaks or is
        // dead for good.
        let asked = tokio::time::timeout(limit * 4, shared.ask(&mut stream, request)).await;
        let server = asked??;
        *answered = true;
        shared.record(|tally| tally.held_request(server));
        tokio::time::sleep(shared.habits.held_interval).await;
    }
}
