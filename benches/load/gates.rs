//! The limits that `--gate` holds lbd to: what is promised against HAProxy 3, what against Debian
//! 12's HAProxy 2.6, and the floor that a busy machine must still reach.

use clap::ValueEnum;
use serde::Serialize;

use crate::cells::Cell;
use crate::report::{Metric, Place, REFERENCE, Results};
use crate::stats::Spread;
use crate::workload::Workload as W;

/// Which limits lbd is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    /// What is promised; for a quiet machine.
    Promised,
    /// What not even a busy machine's noise explains; for CI.
    Floor,
}

/// What a figure is held against.
#[derive(Clone, Copy)]
enum Against {
    /// The ratio to the same of this program in the same round.
    Program(&'static str),
    /// Nothing: the figure itself counts.
    Itself,
}

/// One limit. A column without a number is not judged.
struct Gate {
    workload: W,
    metric: Metric,
    against: Against,
    what: &'static str,
    /// Against HAProxy 3, against 2, and the floor.
    limits: [Option<f64>; 3],
}

const HAPROXY: Against = Against::Program(REFERENCE);
const SPLICE: Against = Against::Program("haproxy-splice");

const fn gate(
    (workload, metric): (W, Metric),
    against: Against,
    what: &'static str,
    limits: [Option<f64>; 3],
) -> Gate {
    Gate {
        workload,
        metric,
        against,
        what,
        limits,
    }
}

const fn three(since_3: f64, debian: f64, floor: f64) -> [Option<f64>; 3] {
    [Some(since_3), Some(debian), Some(floor)]
}

const fn both(limit: f64) -> [Option<f64>; 3] {
    [Some(limit), Some(limit), None]
}

const fn newest(limit: f64) -> [Option<f64>; 3] {
    [Some(limit), None, None]
}

#[rustfmt::skip]
const GATES: [Gate; 23] = [
    gate((W::Short, Metric::Cpu), HAPROXY, "proxy CPU per short connection", three(0.77, 0.82, 1.0)),
    gate((W::Short, Metric::Speed), HAPROXY, "short connections per second", three(1.2, 1.1, 0.8)),
    gate((W::Persistent, Metric::Speed), HAPROXY, "requests per second, 64 connections", three(1.2, 1.05, 0.8)),
    gate((W::Persistent, Metric::Cpu), HAPROXY, "proxy CPU per request, 64 connections", newest(0.82)),
    gate((W::Persistent1000, Metric::Speed), HAPROXY, "requests per second, 1,000 connections", newest(1.2)),
    gate((W::Persistent1000, Metric::Cpu), HAPROXY, "proxy CPU per request, 1,000 connections", newest(0.82)),
    gate((W::Latency, Metric::AddedP50), HAPROXY, "added p50 latency", newest(0.85)),
    gate((W::Bulk, Metric::Speed), HAPROXY, "bulk throughput, one stream", three(2.3, 1.9, 1.3)),
    gate((W::Bulk, Metric::Cpu), HAPROXY, "proxy CPU per GB, one stream", three(0.25, 0.30, 0.75)),
    gate((W::Bulk16, Metric::Speed), HAPROXY, "bulk throughput, 16 streams", three(2.3, 1.9, 1.3)),
    gate((W::Bulk16, Metric::Cpu), HAPROXY, "proxy CPU per GB, 16 streams", three(0.25, 0.30, 0.75)),
    gate((W::BulkUp, Metric::Speed), HAPROXY, "bulk throughput up, one stream", newest(2.3)),
    gate((W::BulkUp, Metric::Cpu), HAPROXY, "proxy CPU per GB up, one stream", newest(0.25)),
    gate((W::BulkUp16, Metric::Speed), HAPROXY, "bulk throughput up, 16 streams", newest(2.3)),
    gate((W::BulkUp16, Metric::Cpu), HAPROXY, "proxy CPU per GB up, 16 streams", newest(0.25)),
    gate((W::Bulk, Metric::Speed), SPLICE, "bulk × haproxy-splice, one stream", newest(1.0)),
    gate((W::Bulk, Metric::Cpu), SPLICE, "CPU per GB × haproxy-splice, one stream", newest(0.9)),
    gate((W::Bulk16, Metric::Speed), SPLICE, "bulk × haproxy-splice, 16 streams", newest(1.0)),
    gate((W::Bulk16, Metric::Cpu), SPLICE, "CPU per GB × haproxy-splice, 16 streams", newest(0.9)),
    gate((W::Storm, Metric::Speed), HAPROXY, "storm: time until all are answered", newest(0.66)),
    gate((W::Idle, Metric::Memory), Against::Itself, "user memory per idle connection, bytes", both(200.0)),
    gate((W::Idle, Metric::BaseRss), Against::Itself, "RSS of all processes idle, MB", both(12.0)),
    gate((W::Mixed, Metric::Growth), Against::Itself, "p99 of requests beside bulk × alone", both(2.0)),
];

/// A gate's outcome.
#[derive(Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) figure: Option<Spread>,
    /// What the figure is of, when not of the thing itself.
    pub(crate) note: &'static str,
    pub(crate) passed: bool,
}

impl Metric {
    /// Whether more is better.
    fn is_gain(self, workload: W) -> bool {
        match self {
            Self::Speed => workload != W::Storm,
            Self::Capacity => true,
            Self::Cpu
            | Self::Machine
            | Self::Memory
            | Self::BaseRss
            | Self::AddedP50
            | Self::P50
            | Self::P99
            | Self::Growth => false,
        }
    }
}

impl Results {
    /// Judges lbd with the first number of threads. What was not asked for is not judged; what
    /// could not be measured has failed.
    pub(crate) fn judge(&mut self, limits: Limits) {
        let is_new = self.reference.0 >= 3;
        let (column, whom) = match (limits, is_new) {
            (Limits::Promised, true) => (0, "HAProxy 3, promised"),
            (Limits::Promised, false) => (1, "HAProxy 2.6, promised"),
            (Limits::Floor, _) => (2, "HAProxy, floor"),
        };
        self.limits_of = whom.to_owned();
        let Some(section) = self.sections.first() else {
            return;
        };
        let mut verdicts = Vec::new();
        for gate in &GATES {
            let limit = gate.limits.get(column).copied().flatten();
            let asked = section.workloads.contains(&gate.workload) && self.has(gate.against);
            if let Some(limit) = limit.filter(|_| asked) {
                verdicts.push(self.verdict(section.threads, gate, limit));
            }
        }
        let ours: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| cell.target.starts_with("lbd"))
            .collect();
        let failed: u64 = ours.iter().map(|cell| cell.failed()).sum();
        verdicts.push(Verdict {
            what: "connections lost or bytes wrong".to_owned(),
            limit: "none".to_owned(),
            figure: None,
            note: "",
            passed: failed == 0 && !ours.is_empty(),
        });
        self.verdicts = verdicts;
    }

    fn has(&self, against: Against) -> bool {
        match against {
            // Without it the ratio is missing, and that fails.
            Against::Program(REFERENCE) | Against::Itself => true,
            Against::Program(name) => self.targets.iter().any(|target| target == name),
        }
    }

    fn verdict(&self, threads: usize, gate: &Gate, limit: f64) -> Verdict {
        let at_least = gate.metric.is_gain(gate.workload);
        let (figure, note) = self.judged(threads, gate, limit);
        let sign = if at_least { "≥" } else { "≤" };
        let decimals = if limit < 100.0 { 2 } else { 0 };
        Verdict {
            what: gate.what.to_owned(),
            limit: format!("{sign} {limit:.decimals$}"),
            passed: figure.is_some_and(|figure| match at_least {
                true => figure.median >= limit,
                false => figure.median <= limit,
            }),
            figure,
            note,
        }
    }

    /// Where the load was the limit in most rounds, the rates are as good as equal whatever lbd
    /// costs; then what it can carry per CPU second stands for its rate.
    fn judged(&self, threads: usize, gate: &Gate, limit: f64) -> (Option<Spread>, &'static str) {
        let place = Place {
            threads,
            workload: gate.workload,
            target: "lbd",
        };
        let measured = |metric| match gate.against {
            Against::Program(name) => self.ratio_to(place, metric, name),
            Against::Itself => self.value(place, metric),
        };
        let figure = measured(gate.metric);
        let is_rate = gate.metric == Metric::Speed && gate.metric.is_gain(gate.workload);
        let reached = figure.is_some_and(|figure| figure.median >= limit);
        if is_rate && !reached && self.is_load_bound(place) {
            let note = "  per CPU second: the load was the limit";
            return (measured(Metric::Capacity), note);
        }
        (figure, "")
    }
}
