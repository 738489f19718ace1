//! From cells to figures: series by round, medians, ratios to HAProxy within a round.

use serde::Serialize;

use crate::cells::Cell;
use crate::gates::Verdict;
use crate::stats::{Spread, paired, spread};
use crate::targets::{Kind, Program};
use crate::workload::Workload;

/// What ratios are to.
pub(crate) const REFERENCE: &str = "haproxy";

/// What of a cell a column shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Metric {
    /// Units per second, or a storm's duration.
    Speed,
    /// CPU time of the program per unit.
    Cpu,
    /// Units per second of the program's CPU time.
    Capacity,
    /// CPU time of program, client and servers per unit, less the same of `direct`.
    Machine,
    /// User memory per connection (PSS).
    Memory,
    /// RSS of all processes before the first connection, in megabytes.
    BaseRss,
    /// The median latency less that of `direct`, in microseconds.
    AddedP50,
    P50,
    P99,
    /// `mixed`: p99 beside the bulk over p99 alone, both of the same program.
    Growth,
}

/// The cells of one number of threads.
#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) threads: usize,
    pub(crate) pinning: String,
    #[serde(skip)]
    pub(crate) workloads: Vec<Workload>,
}

/// All cells of a run.
#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) setting: Vec<String>,
    /// The names of the programs, in the order of the tables.
    pub(crate) targets: Vec<String>,
    /// Those among them that `--extra` added.
    #[serde(skip)]
    pub(crate) extras: Vec<String>,
    /// HAProxy's version, which says what limits hold.
    pub(crate) reference: (u32, u32),
    /// The limits that were applied, in words.
    pub(crate) limits_of: String,
    pub(crate) sections: Vec<Section>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// One program's cells of one workload with one number of threads.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) threads: usize,
    pub(crate) workload: Workload,
    pub(crate) target: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn of<'b>(self, target: &'b str) -> Place<'b>
    where
        'a: 'b,
    {
        Place { target, ..self }
    }
}

impl Results {
    pub(crate) fn new(programs: &[Program]) -> Self {
        let reference = programs
            .iter()
            .find(|program| program.kind == Kind::Haproxy);
        Self {
            setting: Vec::new(),
            targets: programs
                .iter()
                .map(|program| program.name.clone())
                .collect(),
            extras: programs
                .iter()
                .filter(|program| program.kind == Kind::Extra)
                .map(|program| program.name.clone())
                .collect(),
            reference: reference.map_or((0, 0), |program| program.version),
            limits_of: String::new(),
            sections: Vec::new(),
            cells: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    pub(crate) fn at(&self, place: Place<'_>) -> Vec<&Cell> {
        let cells = self.cells.iter().filter(|cell| {
            cell.threads == place.threads
                && cell.target == place.target
                && cell.workload == place.workload.name()
        });
        cells.collect()
    }

    /// The values of a metric by round.
    pub(crate) fn series(&self, place: Place<'_>, metric: Metric) -> Vec<(usize, f64)> {
        let direct = self.at(place.of("direct"));
        let beside = |cell: &Cell| {
            let mut direct = direct.iter();
            direct.find(|other| other.round == cell.round).copied()
        };
        let value = |cell: &Cell| {
            let latency = cell.latency.as_ref();
            let value = match metric {
                Metric::Speed if place.workload == Workload::Storm => cell.seconds,
                Metric::Speed => cell.rate(),
                Metric::Cpu => cell.cpu_each(),
                Metric::Capacity => cell.cpu_each().recip(),
                Metric::Memory => cell.pss_each,
                Metric::BaseRss => cell.rss_base / 1e6,
                Metric::Machine => cell.machine_each() - beside(cell)?.machine_each(),
                Metric::AddedP50 => latency?.p50 - beside(cell)?.latency.as_ref()?.p50,
                Metric::P50 => latency?.p50,
                Metric::P99 => latency?.p99,
                Metric::Growth => latency?.p99 / cell.alone.as_ref()?.p99,
            };
            Some((cell.round, value))
        };
        let cells = self.at(place);
        let usable = cells.iter().filter(|cell| cell.units > 0.0);
        usable.filter_map(|cell| value(cell)).collect()
    }

    /// The metric itself over the rounds.
    pub(crate) fn value(&self, place: Place<'_>, metric: Metric) -> Option<Spread> {
        let values: Vec<f64> = self
            .series(place, metric)
            .iter()
            .map(|(_, value)| *value)
            .collect();
        spread(&values)
    }

    /// The metric's ratios to the same of `reference`, each within a round.
    pub(crate) fn ratio_to(
        &self,
        place: Place<'_>,
        metric: Metric,
        reference: &str,
    ) -> Option<Spread> {
        let ours = self.series(place, metric);
        let theirs = self.series(place.of(reference), metric);
        spread(&paired(&ours, &theirs))
    }

    /// The ratios to HAProxy.
    pub(crate) fn ratio(&self, place: Place<'_>, metric: Metric) -> Option<Spread> {
        self.ratio_to(place, metric, REFERENCE)
    }

    /// Whether the load was the limit in most rounds.
    pub(crate) fn is_load_bound(&self, place: Place<'_>) -> bool {
        let cells = self.at(place);
        let bound = cells.iter().filter(|cell| cell.is_load_bound()).count();
        bound * 2 > cells.len()
    }
}
