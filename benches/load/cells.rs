//! One cell = one workload against one target in one round: the load, the clock around it, the CPU
//! account around it, and the comparison of what both ends saw.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::ValueEnum;
use lbd::net::clock;
use serde::Serialize;

use crate::client::{Counts, Load, Talk, Then};
use crate::lab::Lab;
use crate::pattern::Pattern;
use crate::targets::{Kind, Programs, Target, small};
use crate::usage::Processes;

/// How long what is under way may take to end.
const END_IN: Duration = Duration::from_secs(5);
/// Connections of the closed loops.
const CONNECTIONS: usize = 64;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// Connect, 1 KiB up, 2 KiB down, close; 64 at a time.
    Short,
    /// 1 KiB up, 2 KiB down, again and again over 64 connections.
    Persistent,
    /// One download.
    Bulk,
    /// Sixteen downloads.
    Bulk16,
    /// Sixteen uploads.
    BulkUp,
    /// Everybody connects at once: time until all have their answer.
    Storm,
    /// User memory of a silent connection.
    Idle,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Persistent => "persistent",
            Self::Bulk => "bulk",
            Self::Bulk16 => "bulk16",
            Self::BulkUp => "bulk-up",
            Self::Storm => "storm",
            Self::Idle => "idle",
        }
    }

    pub(crate) fn measures(self, kind: Kind) -> bool {
        let bulk = matches!(self, Self::Bulk | Self::Bulk16 | Self::BulkUp);
        match kind {
            Kind::Direct => self != Self::Idle,
            Kind::HaproxySplice => bulk,
            Kind::Haproxy | Kind::Lbd | Kind::Extra(_) => true,
        }
    }
}

/// How much of each.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) window: Duration,
    pub(crate) storm: usize,
    pub(crate) idle: usize,
}

/// What a cell brought.
#[derive(Serialize)]
pub(crate) struct Cell {
    pub(crate) round: usize,
    pub(crate) workload: &'static str,
    pub(crate) target: &'static str,
    /// Units: connections, requests, gigabytes; clients of a storm; idle connections.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// CPU time of the target, of client and servers.
    pub(crate) proxy_cpu: f64,
    pub(crate) load_cpu: f64,
    /// CPUs that were set aside for either; 0: shared.
    pub(crate) proxy_cpus: f64,
    pub(crate) load_cpus: f64,
    /// Bytes of user memory (Idle only): per connection, and before the first.
    pub(crate) pss_each: f64,
    pub(crate) rss_each: f64,
    pub(crate) pss_base: f64,
    /// Connections that failed, by cause; both ends.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections by server.
    pub(crate) per_server: Vec<u64>,
}

impl Cell {
    pub(crate) fn rate(&self) -> f64 {
        self.units / self.seconds
    }

    pub(crate) fn cpu_each(&self) -> f64 {
        self.proxy_cpu / self.units
    }

    pub(crate) fn machine_each(&self) -> f64 {
        (self.proxy_cpu + self.load_cpu) / self.units
    }

    /// Whether the load was the bottleneck: its CPUs were full while the program's were not. Then
    /// the rate says how much load there was, not how much the program can take.
    pub(crate) fn is_load_bound(&self) -> bool {
        let full = |cpu: f64, cpus: f64| cpus > 0.0 && cpu > 0.93 * cpus * self.seconds;
        full(self.load_cpu, self.load_cpus) && !full(self.proxy_cpu, self.proxy_cpus)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// What is the same for all cells.
pub(crate) struct Bench<'a> {
    pub(crate) lab: Lab,
    pub(crate) pattern: &'a Pattern,
    pub(crate) programs: Programs,
    pub(crate) sizes: Sizes,
}

impl Bench<'_> {
    /// Measures one cell.
    pub(crate) fn measure(
        &mut self,
        round: usize,
        workload: Workload,
        target: &mut Target,
    ) -> io::Result<Cell> {
        self.lab.settle()?;
        target.find_processes();
        let cpus = &self.lab.cpus;
        let mut cell = Cell {
            round,
            workload: workload.name(),
            target: target.kind.name(),
            units: 0.0,
            seconds: 0.0,
            proxy_cpu: 0.0,
            load_cpu: 0.0,
            proxy_cpus: cpus.proxy.len() as f64,
            load_cpus: cpus.load() as f64,
            pss_each: 0.0,
            rss_each: 0.0,
            pss_base: 0.0,
            failures: BTreeMap::new(),
            per_server: Vec::new(),
        };
        let counts = match workload {
            Workload::Short => self.timed(&mut cell, target, small(), Then::Reopen, CONNECTIONS)?,
            Workload::Persistent => {
                self.timed(&mut cell, target, small(), Then::Again, CONNECTIONS)?
            }
            Workload::Bulk => self.timed(&mut cell, target, Talk::Download, Then::Close, 1)?,
            Workload::Bulk16 => self.timed(&mut cell, target, Talk::Download, Then::Close, 16)?,
            Workload::BulkUp => self.timed(&mut cell, target, Talk::Upload, Then::Close, 16)?,
            Workload::Storm => self.storm(&mut cell, target)?,
            Workload::Idle => self.idle(&mut cell, target)?,
        };
        self.compare_ends(&mut cell, &counts)?;
        Ok(cell)
    }

    /// A steady load: warm up, then count for the window, then end in good order.
    fn timed(
        &self,
        cell: &mut Cell,
        target: &Target,
        talk: Talk,
        then: Then,
        connections: usize,
    ) -> io::Result<Counts> {
        let mut load = Load::new(target.plan(talk, then), self.pattern)?;
        load.open(connections);
        load.run(self.sizes.window / 5)?;
        let before = self.account(target);
        let counts = load.counts().clone();
        load.run(self.sizes.window)?;
        let after = self.account(target);
        let gained = load.counts();
        cell.units = match talk {
            Talk::Exchange { .. } => (gained.done - counts.done) as f64,
            Talk::Download => (gained.bytes_in - counts.bytes_in) as f64 / 1e9,
            Talk::Upload => (gained.bytes_out - counts.bytes_out) as f64 / 1e9,
        };
        cell.charge(&before, &after);
        load.finish(END_IN)
    }

    fn storm(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let mut load = Load::new(target.plan(small(), Then::Close), self.pattern)?;
        let clients = self.sizes.storm;
        let before = self.account(target);
        load.open(clients);
        load.run_until_done(clients as u64, END_IN * 2)?;
        let after = self.account(target);
        cell.units = load.counts().done as f64;
        cell.charge(&before, &after);
        load.finish(Duration::ZERO)
    }

    fn idle(&self, cell: &mut Cell, target: &Target) -> io::Result<Counts> {
        let connections = self.sizes.idle;
        // What the first connections make a program allocate once is not per connection.
        let mut first = Load::new(target.plan(small(), Then::Close), self.pattern)?;
        first.open(CONNECTIONS);
        first.run_until_done(CONNECTIONS as u64, END_IN)?;
        let mut sum = first.finish(END_IN)?;
        let base = target.memory();
        let start = self.account(target);
        let mut load = Load::new(target.plan(small(), Then::Hold), self.pattern)?;
        load.open(connections);
        load.run_until_done(connections as u64, END_IN * 2)?;
        // Silent for a moment: what a program gives back when a connection is quiet counts.
        load.run(self.sizes.window / 2)?;
        let full = target.memory();
        cell.charge(&start, &self.account(target));
        let each = |now: u64, before: u64| (now as f64 - before as f64) / connections as f64;
        cell.units = load.counts().done as f64;
        cell.pss_base = base.pss as f64;
        cell.pss_each = each(full.pss, base.pss);
        cell.rss_each = each(full.rss, base.rss);
        let counts = load.finish(END_IN)?;
        sum.bytes_in += counts.bytes_in;
        sum.bytes_out += counts.bytes_out;
        for (cause, count) in counts.failures {
            *sum.failures.entry(cause).or_default() += count;
        }
        Ok(sum)
    }

    /// Each end's failures, and the totals of both ends against each other.
    fn compare_ends(&mut self, cell: &mut Cell, counts: &Counts) -> io::Result<()> {
        let report = self.lab.settle()?;
        for (cause, count) in &counts.failures {
            cell.failures.insert((*cause).to_owned(), *count);
        }
        cell.failures.extend(report.failures);
        if report.open > 0 {
            let cause = "left open at the backend".to_owned();
            cell.failures.insert(cause, report.open);
        }
        let same = report.bytes_in == counts.bytes_out && report.bytes_out == counts.bytes_in;
        if cell.failures.is_empty() && !same {
            cell.failures
                .insert("totals differ between the ends".to_owned(), 1);
        }
        cell.per_server = report.per_server;
        Ok(())
    }

    fn account(&self, target: &Target) -> Account {
        let load = Processes::one(std::process::id()).cpu();
        let servers = Processes::one(self.lab.backend_pid()).cpu();
        Account {
            at: clock::now(),
            proxy: target.cpu(),
            load: load + servers,
        }
    }
}

struct Account {
    at: std::time::Instant,
    proxy: Duration,
    load: Duration,
}

impl Cell {
    fn charge(&mut self, before: &Account, after: &Account) {
        self.seconds = after.at.duration_since(before.at).as_secs_f64();
        self.proxy_cpu = after.proxy.saturating_sub(before.proxy).as_secs_f64();
        self.load_cpu = after.load.saturating_sub(before.load).as_secs_f64();
    }
}
