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
use crate::proxy::termination::AccessRecord;

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
                    dropped(write(&record, &farms, &settings, &mut writer));
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

/// Writes a record's line, if it has one; answers how many lines were dropped for it.
fn write(
    record: &AccessRecord,
    farms: &[Arc<Farm>],
    settings: &model::AccessLog,
    writer: &mut AccessWriter,
) -> u64 {
    if settings.skip_empty && record.bytes_in == 0 {
        return 0;
    }
    render(record, farms, settings).map_or(0, |line| writer.write(&line))
}

fn render(
    record: &AccessRecord,
    farms: &[Arc<Farm>],
    settings: &model::AccessLog,
) -> Option<String> {
    let farm = farms.get(record.proxy)?;
    let server = record.server.and_then(|place| farm.member(place));
    let code = record.end.to_string();
    let line = AccessLine {
        accepted_at: record.accepted_at,
        utc_offset: localtime::utc_offset(record.accepted_at),
        client: record.client,
        local: record.local,
        proxy: farm.name(),
        server: server.as_ref().map(|server| server.name.as_str()),
        queue: record.queue,
        connect: record.connect,
        total: record.total,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        code: &code,
        active: record.counts.actconn.into(),
        frontend: record.counts.feconn.into(),
        backend: record.counts.beconn.into(),
        server_active: record.counts.srv_conn.into(),
        retries: record.retries.into(),
        redispatched: record.redispatched,
        hedged: record.hedged,
        server_queue: record.counts.srv_queue.into(),
        backend_queue: record.counts.backend_queue.into(),
    };
    Some(line.render(settings.format))
}
