//! A lab in one process: servers that do as they are told, an engine before them, and clients.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lbd::config::model::{
    Admin, Balance, Check, CheckKind, Config, Facility, Guard, HedgeAfter, Level, Limits, Listen,
    Log, LogFormat, LogTarget, MaxQueue, Metrics, OnNotReady, OnUnresponsive, Proxy, Reload,
    Server, Source,
};
use lbd::net::{clock, tcp};
use lbd::proxy::engine::{AccessSink, Engine, EngineOptions};
use lbd::proxy::farm::{Farm, FarmStats};
use lbd::proxy::termination::AccessRecord;
use lbd::units::{Count, Weight};
use socket2::{Domain, Socket, Type};

/// Every wait in these tests ends after this long, and the test with it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A server whose connections are each handled by a thread of their own.
pub struct Backend {
    pub addr: SocketAddr,
    /// Connections it has now.
    pub present: Arc<AtomicUsize>,
    /// The most it ever had at once.
    pub most: Arc<AtomicUsize>,
    /// Connections it ever had.
    pub total: Arc<AtomicUsize>,
    /// Connections whose thread panicked.
    failed: Arc<AtomicUsize>,
}

impl Backend {
    pub fn start(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Self {
            addr: listener.local_addr().unwrap(),
            present: Arc::default(),
            most: Arc::default(),
            total: Arc::default(),
            failed: Arc::default(),
        };
        let (present, most, total, failed) = (
            Arc::clone(&backend.present),
            Arc::clone(&backend.most),
            Arc::clone(&backend.total),
            Arc::clone(&backend.failed),
        );
        let handle = Arc::new(handle);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let now = present.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                total.fetch_add(1, Ordering::SeqCst);
                let (handle, present) = (Arc::clone(&handle), Arc::clone(&present));
                let failed = Arc::clone(&failed);
                thread::spawn(move || {
                    let handled = AssertUnwindSafe(|| handle(stream));
                    if catch_unwind(handled).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                    present.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        backend
    }

    /// Connections on which it did not see what it expected; none is left running.
    pub fn failures(&self) -> usize {
        wait_until("the server has done", || {
            self.present.load(Ordering::SeqCst) == 0
        });
        self.failed.load(Ordering::SeqCst)
    }

    /// Sends its id, and then everything back until the client finishes.
    pub fn echo(id: u8) -> Self {
        Self::start(move |mut stream| {
            let mut buffer = [0; 16384];
            let mut greeted = false;
            loop {
                let Ok(read) = stream.read(&mut buffer) else {
                    return;
                };
                if read == 0 {
                    return;
                }
                if !greeted {
                    greeted = true;
                    if stream.write_all(&[id]).is_err() {
                        return;
                    }
                }
                if stream.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
        })
    }
}

/// A port that refuses.
pub fn refusing() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    // Stays bound and never listens: so that no other case's server gets the port.
    let _until_the_end = socket.into_raw_fd();
    addr
}

pub fn server(addr: SocketAddr) -> Server {
    Server {
        name: addr.to_string(),
        address: addr,
        check_address: addr,
        weight: Weight::ONE,
        max_connections: None,
        connects_per_second: None,
        disabled: false,
        backup: false,
    }
}

pub fn weighted(addr: SocketAddr, weight: i64) -> Server {
    Server {
        weight: Weight::try_from(weight).unwrap(),
        ..server(addr)
    }
}

pub fn limited(addr: SocketAddr, max: u32) -> Server {
    Server {
        max_connections: NonZeroU32::new(max),
        ..server(addr)
    }
}

/// A proxy with defaults that no test runs into by accident.
pub fn proxy(servers: Vec<Server>) -> Proxy {
    Proxy {
        name: "test".into(),
        listen: vec![Listen::Addr("127.0.0.1:0".parse().unwrap())],
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(3600),
        half_close_timeout: Duration::from_secs(30),
        queue_timeout: Duration::from_secs(30),
        max_connections: None,
        max_queue: MaxQueue::Total(1024),
        client_first: false,
        first_byte_timeout: None,
        on_unresponsive: OnUnresponsive::Reset,
        on_not_ready: OnNotReady::Drain,
        max_ejected: 0,
        retries: 3,
        hedge_after: HedgeAfter::Never,
        slowstart: Duration::ZERO,
        keepalive: Some(Duration::from_secs(30)),
        user_timeout: Some(Duration::from_secs(20)),
        proxy_protocol: None,
        source: Source::Any,
        guard: Guard::default(),
        max_age: None,
        rebalance: None,
        check: Check {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: Count::TWO,
            fall: Count::TWO,
        },
        discovery: lbd::config::model::Discovery::default(),
        servers,
    }
}

/// A running engine with one proxy.
pub struct Lab {
    pub engine: Engine,
    pub farm: Arc<Farm>,
    pub addr: SocketAddr,
    pub sink: AccessSink,
    records: Mutex<Receiver<AccessRecord>>,
}

impl Lab {
    /// Every server counts as up.
    pub fn start(proxy: Proxy, workers: usize) -> Self {
        Self::start_limited(proxy, workers, 100_000)
    }

    pub fn start_limited(proxy: Proxy, workers: usize, max_connections: u32) -> Self {
        let farm = Arc::new(Farm::new(&proxy));
        for server in 0..proxy.servers.len() {
            farm.set_up(server, true, clock::now());
        }
        let group = tcp::listener_group(proxy.listen[0], workers).unwrap();
        let addr = tcp::local_addr(&group[0]).unwrap();
        let (sink, records) = sync_channel(100_000);
        let sink = AccessSink::new(sink);
        let options = EngineOptions {
            workers,
            max_connections,
            access: Some(sink.clone()),
        };
        let config = config(proxy);
        let farms = [Arc::clone(&farm)];
        let engine = Engine::start(&config, &farms, vec![vec![group]], options).unwrap();
        Self {
            engine,
            farm,
            addr,
            sink,
            records: Mutex::new(records),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = match TcpStream::connect(self.addr) {
            // The RST was there before connect() returned, and its error is spent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => reset_by_peer(),
            connected => connected.unwrap(),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn stats(&self) -> FarmStats {
        self.farm.stats(clock::now())
    }

    /// The next connection that ended.
    pub fn record(&self) -> AccessRecord {
        self.records.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }

    /// Waits until every connection has ended and left no slot behind.
    pub fn settle(&self) {
        let deadline = clock::now() + PATIENCE;
        loop {
            let (stats, left) = (self.stats(), self.engine.connections());
            let none = stats.servers.iter().all(|s| s.connections == 0);
            if left == 0 && stats.queue == 0 && stats.connections == 0 && none {
                return;
            }
            assert!(
                clock::now() < deadline,
                "{left} connections left: {stats:?}"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

pub fn config(proxy: Proxy) -> Config {
    Config {
        log: Log {
            level: Level::Info,
            target: LogTarget::Stderr,
            format: LogFormat::Text,
            facility: Facility(3),
        },
        access_log: None,
        admin: Admin { socket: None },
        metrics: Metrics {
            listen: None,
            compat: true,
            names: Vec::new(),
        },
        limits: Limits {
            max_connections: None,
            workers: None,
            pin_workers: false,
        },
        reload: Reload { watch: false },
        peer: None,
        state_dir: None,
        user: None,
        writable: Vec::new(),
        vips: Vec::new(),
        routes: Vec::new(),
        proxies: vec![proxy],
        scripts: Vec::new(),
        track_files: Vec::new(),
        track_interfaces: Vec::new(),
    }
}

/// Sends `request`, finishes, and reads until the end.
pub fn ask(mut stream: TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    tcp::reset_on_close(&stream).unwrap();
    drop(stream);
}

/// A stream whose peer has reset it.
fn reset_by_peer() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    reset(listener.accept().unwrap().0);
    stream
}

/// Whether the stream ends with RST, after any data.
pub fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Bytes that show it when one is lost, doubled or out of place.
pub struct Pattern(u64);

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }

    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}

/// Seeded numbers.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            dice.below(1);
        }
        dice
    }

    /// From 0 to below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit.max(1)
    }
}
