//! One cell = one workload against one target in one round: the load, the clock around it, the CPU
//! account around it, and the comparison of what both ends saw.

mod loads;
mod memory;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use lbd::net::clock;
use serde::Serialize;

use crate::client::{Counts, Load};
use crate::histogram::Quantiles;
use crate::lab::Lab;
use crate::pattern::Pattern;
use crate::targets::{Programs, Target};
use crate::usage::Processes;
use crate::workload::Workload;

/// How long what is under way may take to end.
const END_IN: Duration = Duration::from_secs(5);
/// Connections of most closed loops.
const CONNECTIONS: usize = 64;

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
    pub(crate) threads: usize,
    pub(crate) workload: &'static str,
    pub(crate) target: String,
    /// Units: connections, requests, gigabytes; clients of a storm; idle connections.
    pub(crate) units: f64,
    pub(crate) seconds: f64,
    /// CPU time of the target, of client and servers.
    pub(crate) proxy_cpu: f64,
    pub(crate) load_cpu: f64,
    /// CPUs that were set aside for either; 0: shared.
    pub(crate) proxy_cpus: f64,
    pub(crate) load_cpus: f64,
    /// How long exchanges took; for `mixed` beside the bulk, and alone just before.
    pub(crate) latency: Option<Quantiles>,
    pub(crate) alone: Option<Quantiles>,
    /// Gigabytes per second of the bulk beside the requests.
    pub(crate) bulk_rate: f64,
    /// Pipes the program had open in the middle of a bulk workload, less those at its start: 0
    /// means that nothing was spliced.
    pub(crate) pipes: Option<usize>,
    /// Bytes of user memory (memory workloads only): per connection, and of all the program's
    /// processes before the first.
    pub(crate) pss_each: f64,
    pub(crate) rss_each: f64,
    pub(crate) pss_base: f64,
    pub(crate) rss_base: f64,
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

    fn charge(&mut self, before: &Account, after: &Account) {
        self.seconds = after.at.duration_since(before.at).as_secs_f64();
        self.proxy_cpu = after.proxy.saturating_sub(before.proxy).as_secs_f64();
        self.load_cpu = after.load.saturating_sub(before.load).as_secs_f64();
    }
}

struct Account {
    at: std::time::Instant,
    proxy: Duration,
    load: Duration,
}

/// What is the same for all cells of one number of threads.
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
        let mut cell = self.blank(round, workload, target);
        let counts = self.work(workload, &mut cell, target)?;
        self.compare_ends(&mut cell, &counts)?;
        Ok(cell)
    }

    fn blank(&self, round: usize, workload: Workload, target: &Target) -> Cell {
        let cpus = &self.lab.cpus;
        Cell {
            round,
            threads: self.programs.threads,
            workload: workload.name(),
            target: target.name.clone(),
            units: 0.0,
            seconds: 0.0,
            proxy_cpu: 0.0,
            load_cpu: 0.0,
            proxy_cpus: cpus.proxy.len() as f64,
            load_cpus: cpus.load() as f64,
            latency: None,
            alone: None,
            bulk_rate: 0.0,
            pipes: None,
            pss_each: 0.0,
            rss_each: 0.0,
            pss_base: 0.0,
            rss_base: 0.0,
            failures: BTreeMap::new(),
            per_server: Vec::new(),
        }
    }

    fn load(&self, target: &Target) -> io::Result<Load<'_>> {
        Load::new(target.addresses.clone(), self.pattern)
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
