//! The clients: some that open a connection each few milliseconds, ask once and leave, and some
//! that stay and ask again and again. On a host of their own, in one thread.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lbd::net::clock;
use lbd::net::netns::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// A client gives up after it: client-go gives a TLS handshake as long.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// An established client asks each.
const ASK: Duration = Duration::from_millis(200);

/// How an attempt to connect and to be answered ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By this server, counted from 0.
    Served(usize),
    /// RST instead of a connection.
    Refused,
    /// RST instead of an answer.
    Reset,
    /// FIN instead of an answer.
    Closed,
    /// Neither within [`PATIENCE`].
    GaveUp,
}

#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub started: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

impl Attempt {
    pub fn took(&self) -> Duration {
        self.ended - self.started
    }

    pub fn is_lost(&self) -> bool {
        self.served_by().is_none()
    }

    pub fn served_by(&self) -> Option<usize> {
        match self.outcome {
            Outcome::Served(server) => Some(server),
            Outcome::Refused | Outcome::Reset | Outcome::Closed | Outcome::GaveUp => None,
        }
    }
}

/// An established connection: which server it has, since when, and when it was told to go.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub server: usize,
    pub since: Instant,
    pub told: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub held: Vec<Held>,
    open: usize,
}

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub target: SocketAddr,
    /// New connections each second.
    pub rate: u32,
    /// Established ones.
    pub held: usize,
}

/// Running clients; they end when dropped.
pub struct Clients {
    record: Arc<Mutex<Record>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Clients {
    pub fn start(host: &Namespace, habits: Habits) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&record);
        let run = move || block_on(run(habits, shared, stopped));
        let thread = host.thread("clients", run).unwrap();
        Self {
            record,
            stop,
            thread: Some(thread),
        }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.lock().unwrap())
    }

    /// Opens no more; returns the record when each attempt has ended.
    pub fn finish(mut self) -> Record {
        self.stop.send(true).unwrap();
        let ended = self.thread.take().unwrap().join().unwrap();
        ended.unwrap();
        std::mem::take(&mut self.record.lock().unwrap())
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

async fn run(habits: Habits, record: Arc<Mutex<Record>>, mut stopped: watch::Receiver<bool>) {
    for _ in 0..habits.held {
        tokio::spawn(hold(habits.target, Arc::clone(&record)));
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / habits.rate);
    // All of them, also when this machine is late.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                record.lock().unwrap().open += 1;
                let record = Arc::clone(&record);
                tokio::spawn(async move {
                    let attempt = attempt(habits.target, None).await;
                    let mut record = record.lock().unwrap();
                    record.open -= 1;
                    record.attempts.push(attempt);
                });
            }
            _ = stopped.changed() => break,
        }
    }
    while record.lock().unwrap().open > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One connection, one answer.
pub async fn attempt(target: SocketAddr, source: Option<Ipv4Addr>) -> Attempt {
    attempt_to_stay(target, source).await.0
}

/// The same, and the connection, if it was answered.
pub async fn attempt_to_stay(
    target: SocketAddr,
    source: Option<Ipv4Addr>,
) -> (Attempt, Option<TcpStream>) {
    let started = clock::now();
    let tried = tokio::time::timeout(PATIENCE, first_answer(target, source)).await;
    let (outcome, stream) = match tried {
        Ok(Ok((stream, server))) => (Outcome::Served(server), Some(stream)),
        Ok(Err(outcome)) => (outcome, None),
        Err(_) => (Outcome::GaveUp, None),
    };
    let attempt = Attempt {
        started,
        ended: clock::now(),
        outcome,
    };
    (attempt, stream)
}

/// A connection that was answered once, and by which server.
///
/// # Errors
/// How it was not answered.
pub async fn first_answer(
    target: SocketAddr,
    source: Option<Ipv4Addr>,
) -> Result<(TcpStream, usize), Outcome> {
    let mut stream = connect(target, source).await.map_err(|error| {
        let refused = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset];
        if refused.contains(&error.kind()) {
            Outcome::Refused
        } else {
            Outcome::GaveUp
        }
    })?;
    let asked = async {
        stream.write_all(b"?").await?;
        answer(&mut stream).await
    };
    match asked.await {
        Ok(Some(server)) => Ok((stream, server)),
        Ok(None) => Err(Outcome::Closed),
        Err(_) => Err(Outcome::Reset),
    }
}

async fn connect(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The server that answered; nothing when the connection ended.
async fn answer(stream: &mut TcpStream) -> io::Result<Option<usize>> {
    let mut line = Vec::new();
    loop {
        if stream.read_buf(&mut line).await? == 0 {
            return Ok(None);
        }
        if line.ends_with(b"\n") {
            let number = line[line.len() - 2];
            return Ok(Some(usize::from(number - b'1')));
        }
    }
}

/// Keeps one connection, asks whether it is answered or not, and makes a new one when it ends.
async fn hold(target: SocketAddr, record: Arc<Mutex<Record>>) {
    loop {
        if let Ok(Ok((stream, server))) =
            tokio::time::timeout(PATIENCE, first_answer(target, None)).await
        {
            let index = {
                let mut record = record.lock().unwrap();
                let since = clock::now();
                record.held.push(Held {
                    server,
                    since,
                    told: None,
                });
                record.held.len() - 1
            };
            stay(stream).await;
            // The record is taken away when it is over.
            if let Some(held) = record.lock().unwrap().held.get_mut(index) {
                held.told = Some(clock::now());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns when the connection has ended.
async fn stay(stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let mut ticks = tokio::time::interval(ASK);
    let mut bytes = [0; 1024];
    loop {
        tokio::select! {
            read = read.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            _ = ticks.tick() => if write.write_all(b"?").await.is_err() {
                return;
            },
        }
    }
}
