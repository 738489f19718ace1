//! The access log: a thread that turns the data path's records into lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::model::{self, Config};
use crate::log::access::AccessLine;
use crate::log::{AccessWriter, LogError};
use crate::net::localtime;
use crate::proxy::engine::AccessSink;
use crate::proxy::farm::Farm;
use crate::proxy::termination::{AccessRecord, Termination};

/// Records that wait for the writer. More are dropped and counted: a slow log never slows a
/// connection.
const RECORDS_MAX: usize = 8_192;

/// The writer looks for records this often, and is not woken by them: a wake-up costs the worker a
/// hundred times what the record does, 8 µs of a short connection's 60. In a round this long
/// 300,000 connections a second must end before one is dropped.
const ROUND: Duration = Duration::from_millis(25);

/// The end of a process waits no longer for its access log.
const DRAIN_WITHIN: Duration = Duration::from_millis(500);

/// All farms, by slot; replaced as a whole.
pub(super) type Farms = Arc<ArcSwap<Vec<Arc<Farm>>>>;

/// The access log of this process: on or off, perhaps by turns.
#[derive(Debug)]
pub(super) struct AccessLog {
    /// For the names in its lines.
    pub(super) farms: Farms,
    running: Mutex<Option<Arc<Running>>>,
    /// Lines that those before the present one dropped.
    dropped_before: AtomicU64,
}

impl AccessLog {
    /// Turns it on, if there is one.
    pub(super) fn new(access: Option<Access>, farms: Vec<Arc<Farm>>) -> std::io::Result<Self> {
        let farms: Farms = Arc::new(ArcSwap::from_pointee(farms));
        let running = access.map(|access| access.spawn(Arc::clone(&farms)));
        Ok(Self {
            farms,
            running: Mutex::new(running.transpose()?.map(Arc::new)),
            dropped_before: AtomicU64::new(0),
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where records go; `None`: it is off.
    pub(super) fn sink(&self) -> Option<AccessSink> {
        self.running().as_ref().map(|running| running.sink.clone())
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        let now = self.running().as_ref().map_or(0, |r| r.sink.dropped());
        now + self.dropped_before.load(Ordering::Relaxed)
    }

    /// Goes on with another one, or none. The present one ends when the last worker has let go of
    /// its sink; what that drops then is not counted.
    pub(super) fn replace(&self, next: Option<Running>) {
        let before = std::mem::replace(&mut *self.running(), next.map(Arc::new));
        let dropped = before.map_or(0, |running| running.sink.dropped());
        self.dropped_before.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Waits until every record offered so far is written, for a limited time.
    pub(super) async fn drain(&self) {
        let running = self.running().clone();
        if let Some(running) = running {
            running.drain().await;
        }
    }
}

/// Where the data path puts its records, and the thread that will take them.
#[derive(Debug)]
pub(super) struct Access {
    sink: AccessSink,
    records: Receiver<AccessRecord>,
    writer: AccessWriter,
    settings: model::AccessLog,
}

/// Opens the access log's target; `None` when it is off.
pub(super) fn start(config: &Config) -> Result<Option<Access>, LogError> {
    let Some(settings) = config.access_log.clone() else {
        return Ok(None);
    };
    let (sender, records) = sync_channel(RECORDS_MAX);
    Ok(Some(Access {
        sink: AccessSink::new(sender),
        records,
        writer: AccessWriter::open(&config.log)?,
        settings,
    }))
}

/// The running access log, as the control thread sees it.
#[derive(Debug)]
pub(super) struct Running {
    sink: AccessSink,
    rounds: Arc<AtomicU64>,
}

impl Access {
    /// Starts the thread; it ends with the last sink.
    pub(super) fn spawn(self, farms: Farms) -> std::io::Result<Running> {
        let Self {
            sink,
            records,
            writer,
            settings,
        } = self;
        let mut writer = writer;
        let mut sampling = Sampling::new(settings.sample);
        let rounds = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rounds);
        let drops = sink.drops();
        let dropped = move |lines| {
            drops.fetch_add(lines, Ordering::Relaxed);
        };
        let work = move || loop {
            match records.try_recv() {
                Ok(record) => {
                    let farms = farms.load();
                    let by = (farms.as_slice(), &mut sampling);
                    dropped(write(&record, by, &settings, &mut writer));
                }
                Err(TryRecvError::Empty) => {
                    dropped(writer.flush());
                    counted.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(ROUND);
                }
                Err(TryRecvError::Disconnected) => {
                    dropped(writer.flush());
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("lbd-access".to_owned())
            .spawn(work)?;
        Ok(Running { sink, rounds })
    }
}

impl Running {
    /// Where records go.
    pub(super) fn sink(&self) -> AccessSink {
        self.sink.clone()
    }

    /// Waits until every record offered so far is written, at most [`DRAIN_WITHIN`]: a round that
    /// begins after this call leaves none of them, and the second one to end from here did.
    pub(super) async fn drain(&self) {
        let seen = self.rounds.load(Ordering::Relaxed);
        let drained = async {
            while self.rounds.load(Ordering::Relaxed) < seen + 2 {
                tokio::time::sleep(ROUND / 4).await;
            }
        };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            tracing::warn!("access log is not written to its end");
        }
    }
}

/// Which connections without any fault are logged: one in so many of each proxy.
#[derive(Debug)]
struct Sampling {
    one_in: u32,
    seen: Vec<u32>,
}

impl Sampling {
    const fn new(one_in: u32) -> Self {
        Self {
            one_in,
            seen: Vec::new(),
        }
    }

    /// For how many connections this one's line stands; 0: it has none.
    fn weight(&mut self, record: &AccessRecord) -> u32 {
        let faultless = record.end == Termination::NORMAL && record.retries == 0;
        if !faultless || self.one_in == 1 {
            return 1;
        }
        // A reload may bring further proxies.
        if self.seen.len() <= record.proxy {
            self.seen.resize(record.proxy + 1, 0);
        }
        let Some(seen) = self.seen.get_mut(record.proxy) else {
            return 1;
        };
        let taken = *seen == 0 && self.one_in > 0;
        *seen = (*seen + 1).checked_rem(self.one_in).unwrap_or(0);
        if taken { self.one_in } else { 0 }
    }
}

/// The time in the queue of one that never left it: all it had.
fn waited(record: &AccessRecord) -> Option<Duration> {
    (record.counts.backend_queue > 0).then_some(record.total)
}

/// Writes a record's line, if it has one; answers how many lines were dropped for it.
fn write(
    record: &AccessRecord,
    (farms, sampling): (&[Arc<Farm>], &mut Sampling),
    settings: &model::AccessLog,
    writer: &mut AccessWriter,
) -> u64 {
    if settings.skip_empty && record.bytes_in == 0 {
        return 0;
    }
    let sample = sampling.weight(record);
    let Some(farm) = farms.get(record.proxy).filter(|_| sample > 0) else {
        return 0;
    };
    let server = record.server.and_then(|place| farm.member(place));
    let code = record.end.to_string();
    let line = AccessLine {
        accepted_at: record.accepted_at,
        utc_offset: localtime::utc_offset(record.accepted_at),
        client: record.client,
        local: record.local,
        proxy: farm.name(),
        server: server.as_ref().map(|server| server.name.as_str()),
        queue: record.queue.or_else(|| waited(record)),
        connect: record.connect,
        total: record.total,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        code: &code,
        active: record.counts.actconn.into(),
        frontend: record.counts.feconn.into(),
        // HAProxy has given this one's place at the server back before it writes its line.
        backend: record.counts.beconn.saturating_sub(1).into(),
        server_active: record.counts.srv_conn.saturating_sub(1).into(),
        retries: record.retries.into(),
        redispatched: record.redispatched,
        hedged: record.hedged,
        server_queue: record.counts.srv_queue.into(),
        backend_queue: record.counts.backend_queue.into(),
        sample,
    };
    writer.write(&line, settings.format)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::proxy::termination::{Cause, Counts, Phase};

    fn record(proxy: usize, end: Termination, retries: u8) -> AccessRecord {
        let address = "127.0.0.1:1".parse().unwrap();
        AccessRecord {
            accepted_at: SystemTime::UNIX_EPOCH,
            proxy,
            server: None,
            client: address,
            local: address,
            queue: None,
            connect: None,
            total: Duration::ZERO,
            bytes_in: 1,
            bytes_out: 1,
            end,
            retries,
            redispatched: false,
            hedged: false,
            counts: Counts::default(),
        }
    }

    #[test]
    fn of_faultless_connections_one_in_so_many_is_logged_of_each_proxy() {
        let mut sampling = Sampling::new(3);
        let mut weight = |proxy, end, retries| sampling.weight(&record(proxy, end, retries));
        let normal = Termination::NORMAL;
        let fault = Termination::new(Cause::Client, Phase::Data);
        let first: Vec<u32> = (0..7).map(|_| weight(0, normal, 0)).collect();
        assert_eq!(first, [3, 0, 0, 3, 0, 0, 3]);
        assert_eq!(weight(1, normal, 0), 3);
        assert_eq!(weight(1, fault, 0), 1);
        assert_eq!(weight(1, normal, 1), 1);
        assert_eq!(weight(1, normal, 0), 0);
    }

    #[test]
    fn with_0_only_faults_are_logged_and_with_1_everything() {
        let fault = record(0, Termination::NO_SERVER, 3);
        let normal = record(0, Termination::NORMAL, 0);
        let mut none = Sampling::new(0);
        assert_eq!((none.weight(&normal), none.weight(&normal)), (0, 0));
        assert_eq!(none.weight(&fault), 1);
        let mut all = Sampling::new(1);
        assert_eq!((all.weight(&normal), all.weight(&normal)), (1, 1));
    }
}
