//! The workloads that are about rate, CPU time and latency.

use std::io;
use std::time::Duration;

use super::{Bench, CONNECTIONS, Cell, END_IN};
use crate::client::{Counts, Load, Talk, Then, Work};
use crate::targets::{Target, small};
use crate::workload::Workload;

/// Of [`Workload::Latency`] and [`Workload::ShortPaced`], per second: below what any of the
/// programs can carry with one thread on a slow machine.
const REQUEST_RATE: u32 = 4_000;
const CONNECTION_RATE: u32 = 3_000;

impl Bench<'_> {
    pub(super) fn work(
        &mut self,
        workload: Workload,
        cell: &mut Cell,
        target: &mut Target,
    ) -> io::Result<Counts> {
        let close = Then::Close;
        match workload {
            Workload::Short => self.timed(cell, target, small(Then::Reopen), CONNECTIONS),
            Workload::Persistent1 => self.timed(cell, target, small(Then::Again), 1),
            Workload::Persistent => self.timed(cell, target, small(Then::Again), CONNECTIONS),
            Workload::Persistent1000 => self.timed(cell, target, small(Then::Again), 1_000),
            Workload::Bulk => self.timed(cell, target, bulk(Talk::Download, close), 1),
            Workload::Bulk16 => self.timed(cell, target, bulk(Talk::Download, close), 16),
            Workload::BulkUp => self.timed(cell, target, bulk(Talk::Upload, close), 1),
            Workload::BulkUp16 => self.timed(cell, target, bulk(Talk::Upload, close), 16),
            Workload::ShortPaced | Workload::Latency => self.paced(workload, cell, target),
            Workload::Mixed => self.mixed(cell, target, 1),
            Workload::Mixed4 => self.mixed(cell, target, 4),
            Workload::Storm => self.storm(cell, target),
            Workload::Idle => self.idle(cell, target),
            Workload::Stalled => self.stalled(cell, target),
            Workload::SlowReaders => self.slow_readers(cell, target),
        }
    }

    /// A steady load: warm up, then count for the window, then end in good order.
    fn timed(
        &self,
        cell: &mut Cell,
        target: &Target,
        work: Work,
        connections: usize,
    ) -> io::Result<Counts> {
        let mut load = self.load(target)?;
        load.open(work, connections);
        load.run(self.sizes.window / 5)?;
        self.window(cell, target, &mut load, work.talk)?;
        load.finish(END_IN)
    }

    /// What the load does in the window is what counts.
    fn window(
        &self,
        cell: &mut Cell,
        target: &Target,
        load: &mut Load<'_>,
        talk: Talk,
    ) -> io::Result<()> {
        load.latency().clear();
        let before = self.account(target);
        let counts = load.counts().clone();
        load.run(self.sizes.window)?;
        let after = self.account(target);
        let gained = load.counts();
        cell.bulk_rate = (gained.bulk_in - counts.bulk_in) as f64 / 1e9;
        cell.units = match talk {
            Talk::Exchange { .. } => (gained.done - counts.done) as f64,
            Talk::Download => cell.bulk_rate,
            Talk::Upload => (gained.bytes_out - counts.bytes_out) as f64 / 1e9,
        };
        cell.charge(&before, &after);
        cell.bulk_rate /= cell.seconds;
        cell.latency = load.latency().quantiles();
        if !matches!(talk, Talk::Exchange { .. }) {
            cell.pipes = target.pipes_since_start();
        }
        Ok(())
    }

    /// A fixed rate, each piece counted from when it was due.
    fn paced(&self, workload: Workload, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let mut load = self.load(target)?;
        let Work { talk, .. } = small(Then::Wait);
        if workload == Workload::Latency {
            load.open_waiting(talk, CONNECTIONS);
            load.run_until_done(CONNECTIONS as u64, END_IN)?;
            load.pace_requests(REQUEST_RATE)?;
        } else {
            load.pace_connections(talk, CONNECTION_RATE)?;
        }
        load.run(self.sizes.window / 5)?;
        self.window(cell, target, &mut load, talk)?;
        load.finish(END_IN)
    }

    /// Requests as fast as they go, alone and then beside `streams` downloads.
    fn mixed(&self, cell: &mut Cell, target: &Target, streams: usize) -> io::Result<Counts> {
        let mut load = self.load(target)?;
        let work = small(Then::Again);
        load.open(work, CONNECTIONS);
        load.run(self.sizes.window / 5)?;
        load.latency().clear();
        load.run(self.sizes.window)?;
        cell.alone = load.latency().quantiles();
        load.open(bulk(Talk::Download, Then::Close), streams);
        load.run(self.sizes.window / 5)?;
        self.window(cell, target, &mut load, work.talk)?;
        load.finish(END_IN)
    }

    fn storm(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let mut load = self.load(target)?;
        let clients = self.sizes.storm;
        let before = self.account(target);
        load.open(small(Then::Close), clients);
        load.run_until_done(clients as u64, END_IN * 2)?;
        let after = self.account(target);
        cell.units = load.counts().done as f64;
        cell.charge(&before, &after);
        cell.latency = load.latency().quantiles();
        load.finish(Duration::ZERO)
    }
}

fn bulk(talk: Talk, then: Then) -> Work {
    Work { talk, then }
}
