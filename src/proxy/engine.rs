//! The worker threads: started, watched and stopped. What they do is in `worker`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::census::Census;
use super::farm::Farm;
use super::gate::Gate;
use super::joint::{Joined, Joint};
use super::lookup::{Desk, Lookup};
use super::mailbox::{Mailbox, Message};
use super::reshape::Layout;
use super::shortage::{Descriptors, Shortage, Shortages};
use super::termination::AccessRecord;
use super::worker::Worker;
use crate::config::model::Config;
use crate::ipc::message::WorkerTick;
use crate::net::{clock, cpus, tcp};

/// How long [`Engine::reset_local`] waits for the workers to have done it.
const RESET_WAIT: Duration = Duration::from_millis(200);

/// Listening sockets by proxy, `listen` entry and position in the group.
pub type Listeners = Vec<Vec<Vec<OwnedFd>>>;

/// How the engine is run.
#[derive(Debug)]
pub struct EngineOptions {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Connections over all proxies.
    pub max_connections: u32,
    /// Where records of ended connections go.
    pub access: Option<AccessSink>,
}

/// Where the engine may run, and what it may take.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// The CPU that each worker stays on; empty: the scheduler decides.
    pub cpus: Vec<usize>,
    /// Descriptors for connections.
    pub descriptors: Descriptors,
    /// Another process serves, too: the limits of connections are kept together from the beginning.
    pub shared: Option<Joined>,
}

/// Where records of ended connections go: a bounded channel. One that is full drops the record
/// and counts it, so that a slow log never slows a connection.
#[derive(Debug, Clone)]
pub struct AccessSink {
    records: SyncSender<AccessRecord>,
    dropped: Arc<AtomicU64>,
}

impl AccessSink {
    /// A sink into `records`.
    #[must_use]
    pub fn new(records: SyncSender<AccessRecord>) -> Self {
        Self {
            records,
            dropped: Arc::default(),
        }
    }

    /// Hands over a record, or drops it.
    pub fn offer(&self, record: AccessRecord) {
        match self.records.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Records dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Their count, for whoever takes the records and can't deliver one.
    #[must_use]
    pub fn drops(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel refused a descriptor or a thread that a worker needs.
    #[error("cannot start worker {worker}{}", Self::way_out(source))]
    Worker {
        /// Its number.
        worker: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an option of a listening socket.
    #[error("cannot set up the listeners of proxy {proxy}")]
    Listener {
        /// The proxy's name.
        proxy: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A farm is served by an engine already.
    #[error("proxy {proxy} is served already")]
    Served {
        /// The proxy's name.
        proxy: String,
    },
}

impl EngineError {
    /// What to change when each worker's own descriptors are too many.
    fn way_out(source: &io::Error) -> &'static str {
        match source.raw_os_error() {
            Some(libc::EMFILE) => " (lower limits.workers, or raise LimitNOFILE= or ulimit -n)",
            Some(_) | None => "",
        }
    }
}

/// When a worker last came round, as it tells it itself; on cache lines of its own, for it is
/// written in each round.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Tick {
    tid: AtomicU32,
    millis: AtomicU64,
}

impl Tick {
    /// Notes the calling thread.
    pub(super) fn introduce(&self) {
        let tid = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0);
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// Notes that the worker came round `millis` after the engine's start.
    pub(super) fn set(&self, millis: u64) {
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// When it last came round, milliseconds after the engine's start.
    pub(super) fn millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) gate: Gate,
    /// The gate's limit while another process has a part in it.
    pub(super) joint: Joint,
    /// What this process may have whatever others have.
    pub(super) own_limit: AtomicU32,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) ticks: Vec<Tick>,
    pub(super) placement: Placement,
    pub(super) shortages: Shortages,
    /// Workers that have carried out a [`Message::ResetLocal`], counted over all of them.
    pub(super) resets_done: AtomicU64,
}

impl Shared {
    /// Milliseconds since the engine's start.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells every worker.
    pub(super) fn post(&self, message: &Message) {
        for mailbox in &self.mailboxes {
            mailbox.post(message.clone());
        }
    }
}

/// The data path of this process.
#[derive(Debug)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) layout: Mutex<Layout>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The workers are waited for: they let their connections end.
    draining: AtomicBool,
    resets_asked: Mutex<u64>,
    desk: Desk,
}

impl Engine {
    /// Starts the workers on `listeners`, which are `[proxy][listen][socket]`, one `farm` each.
    ///
    /// # Errors
    /// [`EngineError`]; then no worker runs.
    pub fn start(
        config: &Config,
        farms: &[Arc<Farm>],
        listeners: Listeners,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        Self::start_placed(config, farms, listeners, options, Placement::default())
    }

    /// The same at its place.
    ///
    /// # Errors
    /// [`EngineError`]; then no worker runs.
    pub fn start_placed(
        config: &Config,
        farms: &[Arc<Farm>],
        listeners: Listeners,
        options: EngineOptions,
        placement: Placement,
    ) -> Result<Self, EngineError> {
        let all = 0..options.workers.max(1);
        Self::start_some(config, farms, listeners, options, placement, all)
    }

    /// Starts only the workers in `which`, as if the others were stuck.
    fn start_some(
        config: &Config,
        farms: &[Arc<Farm>],
        listeners: Listeners,
        options: EngineOptions,
        placement: Placement,
        which: Range<usize>,
    ) -> Result<Self, EngineError> {
        let count = options.workers.max(1);
        let layout = Layout::new(&config.proxies, listeners, options.access)?;
        let failed = |worker| move |source| EngineError::Worker { worker, source };
        let mailboxes = (0..count)
            .map(|worker| Mailbox::new().map(Arc::new).map_err(failed(worker)))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, farm) in farms.iter().enumerate() {
            attach(index, farm, &mailboxes)?;
        }
        let shared = Arc::new(Shared {
            started: clock::now(),
            gate: Gate::new(options.max_connections),
            joint: Joint::default(),
            own_limit: AtomicU32::new(options.max_connections),
            ticks: mailboxes.iter().map(|_| Tick::default()).collect(),
            mailboxes,
            placement,
            shortages: Shortages::default(),
            resets_done: AtomicU64::new(0),
        });
        if let Some(joined) = &shared.placement.shared {
            shared.share(joined);
        }
        let mut workers = Vec::with_capacity(count);
        for number in which {
            let worker = Worker::new(Arc::clone(&shared), number, farms, &layout);
            workers.push((number, worker.map_err(failed(number))?));
        }
        let engine = Self {
            shared: Arc::clone(&shared),
            layout: Mutex::new(layout),
            threads: Mutex::new(Vec::with_capacity(count)),
            draining: AtomicBool::new(false),
            resets_asked: Mutex::new(0),
            desk: Desk::default(),
        };
        // All owners first, then their helpers in turn: the kernel asks in this order.
        for place in 0..count {
            for (number, worker) in &mut workers {
                worker.open_listeners(place).map_err(failed(*number))?;
            }
        }
        for (number, worker) in workers {
            let thread = std::thread::Builder::new()
                .name(format!("lbd-w{number}"))
                .spawn(move || {
                    settle(number, &worker.shared.placement);
                    worker.run();
                })
                .map_err(failed(number))?;
            engine.threads().push(thread);
        }
        Ok(engine)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each worker last came round; they do at least each 100 ms.
    #[must_use]
    pub fn ticks(&self, now: Instant) -> Vec<WorkerTick> {
        let now = self.shared.millis(now);
        self.shared
            .ticks
            .iter()
            .map(|tick| WorkerTick {
                tid: tick.tid.load(Ordering::Relaxed),
                age_ms: u32::try_from(now.saturating_sub(tick.millis())).unwrap_or(u32::MAX),
            })
            .collect()
    }

    /// How often the data path ran out of something.
    #[must_use]
    pub fn shortages(&self) -> [(Shortage, u64); Shortage::COUNT] {
        let met = self.shared.shortages.met();
        std::array::from_fn(|at| (Shortage::ALL[at], met[at]))
    }

    /// Sends RST to every client that is connected to one of these addresses. Returns when all
    /// workers have done so, after at most 200 ms; at once while they drain, for some may have ended.
    pub fn reset_local(&self, addresses: &[IpAddr]) {
        if self.draining.load(Ordering::Acquire) {
            let addresses = addresses.iter().copied().collect();
            return self.shared.post(&Message::ResetLocal(addresses));
        }
        if self.threads().is_empty() {
            return;
        }
        let mut asked = self
            .resets_asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *asked += u64::try_from(self.shared.mailboxes.len()).unwrap_or(u64::MAX);
        self.shared
            .post(&Message::ResetLocal(addresses.iter().copied().collect()));
        let deadline = clock::now() + RESET_WAIT;
        while self.shared.resets_done.load(Ordering::Acquire) < *asked {
            if clock::now() >= deadline {
                tracing::warn!("a worker is late with resetting connections");
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Asks every worker which clients are connected to one of these addresses, at most so many.
    #[must_use]
    pub fn census(&self, vips: &[IpAddr], most: usize) -> Arc<Census> {
        let census = Arc::new(Census::new(vips, most, self.shared.mailboxes.len()));
        self.shared.post(&Message::Census(Arc::clone(&census)));
        census
    }

    /// Asks every worker which connections have this address at one of their ends; `None` while
    /// another such question is being answered.
    #[must_use]
    pub fn lookup(&self, address: SocketAddr) -> Option<Arc<Lookup>> {
        let lookup = self.desk.ask(address, self.shared.mailboxes.len())?;
        self.shared.post(&Message::Lookup(Arc::clone(&lookup), 0));
        Some(lookup)
    }

    /// Stops accepting, lets connections finish for at most `grace`, resets what is left, and
    /// waits for the threads. The listening sockets stay open.
    pub fn stop(&self, grace: Duration) {
        let deadline = clock::now() + grace;
        self.draining.store(true, Ordering::Release);
        self.shared.post(&Message::Stop(deadline));
        // Not in the loop's head: the lock would be held until the last connection has ended.
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("worker thread panicked");
            }
        }
    }

    /// Whether workers end with their last connections.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Client connections of this process, running and queued.
    #[must_use]
    pub fn connections(&self) -> usize {
        usize::try_from(self.shared.gate.inside()).unwrap_or(usize::MAX)
    }

    /// The most client connections at once.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        usize::try_from(self.shared.gate.most()).unwrap_or(usize::MAX)
    }

    /// The limit of client connections over all proxies, of this process.
    #[must_use]
    pub fn connections_limit(&self) -> u32 {
        self.shared.own_limit.load(Ordering::Relaxed)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Has the workers serve `farm` as the proxy at position `index`.
pub(super) fn attach(
    index: usize,
    farm: &Farm,
    mailboxes: &[Arc<Mailbox>],
) -> Result<(), EngineError> {
    if farm.attach(index, mailboxes) {
        return Ok(());
    }
    Err(EngineError::Served {
        proxy: farm.name().to_owned(),
    })
}

/// Puts the calling thread, a worker, on its CPU.
fn settle(number: usize, placement: &Placement) {
    let Some(cpu) = placement.cpus.get(number).copied() else {
        return;
    };
    if let Err(error) = cpus::stay_on(cpu) {
        tracing::warn!(%error, key = "limits.pin-workers", to = cpu, "worker can't stay on its CPU");
    }
}

/// Sets what accepted sockets inherit. After listen(), which would reset TCP_QUICKACK.
pub(super) fn prepare(socket: &OwnedFd, proxy: &crate::config::model::Proxy) -> io::Result<()> {
    tcp::set_options(
        socket,
        tcp::Options {
            keepalive: proxy.keepalive,
        },
    )?;
    tcp::set_quickack(socket, !proxy.client_first)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::model::{Listen, MaxQueue};
    use crate::proxy::dispatch::tests::{proxy, server};

    #[test]
    fn connections_of_a_worker_that_does_not_come_round_are_taken_at_once_by_another() {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut target = server(1, 0);
        target.address = backend.local_addr().unwrap();
        std::thread::spawn(move || backend.incoming().flatten().for_each(drop));
        let proxy = proxy(vec![target], MaxQueue::Total(1));
        let farm = Arc::new(Farm::new(&proxy));
        farm.set_up(0, true, clock::now());
        let listen = Listen::Addr("127.0.0.1:0".parse().unwrap());
        let group = tcp::listener_group(listen, 2).unwrap();
        let addr = tcp::local_addr(&group[0]).unwrap();
        let options = EngineOptions {
            workers: 2,
            max_connections: 100,
            access: None,
        };
        let config = crate::proxy::dispatch::tests::config(proxy);
        let engine = Engine::start_some(
            &config,
            &[farm],
            vec![vec![group]],
            options,
            Placement::default(),
            1..2,
        )
        .unwrap();
        // By the kernel's hash about half of these land in the backlog that nobody owns.
        let mut late = 0;
        for _ in 0..40 {
            let began = clock::now();
            let mut client = TcpStream::connect(addr).unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            late += u32::from(clock::now() - began > Duration::from_millis(20));
        }
        // A worker that looks there on its ticks alone lets a dozen and more wait longer.
        assert!(late <= 4, "{late} of 40");
        let ticks = engine.ticks(clock::now());
        assert_eq!(ticks[0].tid, 0);
        assert!(ticks[1].tid > 0);
    }

    #[test]
    fn a_worker_that_finds_no_descriptor_says_what_to_change() {
        let failed = |code| EngineError::Worker {
            worker: 30,
            source: io::Error::from_raw_os_error(code),
        };
        assert_eq!(
            failed(libc::EMFILE).to_string(),
            "cannot start worker 30 (lower limits.workers, or raise LimitNOFILE= or ulimit -n)"
        );
        assert_eq!(failed(libc::EPERM).to_string(), "cannot start worker 30");
    }
}
