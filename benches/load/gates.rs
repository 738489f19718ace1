//! The limits that `--gate` holds lbd to, against Debian's HAProxy 2.6 in the same rounds.

use clap::ValueEnum;
use serde::Serialize;

use crate::cells::{Cell, Workload};
use crate::report::{Metric, Results, line, mostly_load_bound};
use crate::stats::Spread;

/// Which limits lbd is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    /// What is promised; for a quiet machine.
    Promised,
    /// What not even a busy machine's noise explains; for CI.
    Floor,
}

/// One limit that `--gate` holds lbd to, as a median of paired ratios to HAProxy.
struct Gate {
    workload: Workload,
    metric: Metric,
    what: &'static str,
    promised: f64,
    floor: f64,
    at_least: bool,
}

const GATES: [Gate; 7] = [
    Gate::new(
        Workload::Short,
        Metric::Cpu,
        "proxy CPU per short connection",
        0.82,
        1.0,
        false,
    ),
    Gate::new(
        Workload::Short,
        Metric::Speed,
        "short connections per second",
        1.1,
        0.8,
        true,
    ),
    Gate::new(
        Workload::Persistent,
        Metric::Speed,
        "requests per second",
        1.05,
        0.8,
        true,
    ),
    Gate::new(
        Workload::Bulk,
        Metric::Speed,
        "bulk throughput, one stream",
        1.9,
        1.3,
        true,
    ),
    Gate::new(
        Workload::Bulk,
        Metric::Cpu,
        "proxy CPU per GB, one stream",
        0.30,
        0.75,
        false,
    ),
    Gate::new(
        Workload::Bulk16,
        Metric::Speed,
        "bulk throughput, 16 streams",
        1.9,
        1.3,
        true,
    ),
    Gate::new(
        Workload::Bulk16,
        Metric::Cpu,
        "proxy CPU per GB, 16 streams",
        0.30,
        0.75,
        false,
    ),
];

impl Gate {
    const fn new(
        workload: Workload,
        metric: Metric,
        what: &'static str,
        promised: f64,
        floor: f64,
        at_least: bool,
    ) -> Self {
        Self {
            workload,
            metric,
            what,
            promised,
            floor,
            at_least,
        }
    }

    fn limit(&self, limits: Limits) -> f64 {
        match limits {
            Limits::Promised => self.promised,
            Limits::Floor => self.floor,
        }
    }
}

/// A gate's outcome.
#[derive(Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) ratio: Option<Spread>,
    /// What the ratio is of, when not of the thing itself.
    pub(crate) note: &'static str,
    pub(crate) passed: bool,
}

impl Results {
    /// Judges lbd. What was not asked for is not judged; what could not be measured has failed.
    pub(crate) fn judge(&mut self, workloads: &[Workload], limits: Limits) {
        let asked = GATES
            .iter()
            .filter(|gate| workloads.contains(&gate.workload));
        self.verdicts = asked
            .map(|gate| {
                let limit = gate.limit(limits);
                let (ratio, note) = self.judged_ratio(gate, limit);
                let sign = if gate.at_least { "≥" } else { "≤" };
                Verdict {
                    what: gate.what.to_owned(),
                    limit: format!("{sign} {limit:.2}"),
                    passed: ratio.is_some_and(|ratio| match gate.at_least {
                        true => ratio.median >= limit,
                        false => ratio.median <= limit,
                    }),
                    ratio,
                    note,
                }
            })
            .collect();
        let failed: u64 = self.of_target("lbd").map(Cell::failed).sum();
        self.verdicts.push(Verdict {
            what: "connections lost or bytes wrong".to_owned(),
            limit: "none".to_owned(),
            ratio: None,
            note: "",
            passed: failed == 0 && self.of_target("lbd").next().is_some(),
        });
    }

    /// Where the load was the limit in most rounds, the rates are as good as equal whatever lbd
    /// costs; then what it can carry per CPU second stands for its rate.
    fn judged_ratio(&self, gate: &Gate, limit: f64) -> (Option<Spread>, &'static str) {
        let measured = self.ratio(gate.workload, "lbd", gate.metric);
        let reached = measured.is_some_and(|ratio| ratio.median >= limit);
        let cells: Vec<&Cell> = self.of(gate.workload, "lbd").collect();
        if gate.metric == Metric::Speed && !reached && mostly_load_bound(&cells) {
            let capacity = self.ratio(gate.workload, "lbd", Metric::Capacity);
            return (capacity, "  per CPU second: the load was the limit");
        }
        (measured, "")
    }

    /// The gates' outcomes.
    pub(crate) fn verdict_lines(&self) -> String {
        let mut text = String::new();
        for verdict in &self.verdicts {
            let mark = if verdict.passed { "ok  " } else { "MISS" };
            let ratio = verdict.ratio.map_or(String::new(), |ratio| {
                // One digit more than the limits have: 1.097 is not 1.10.
                format!(" {:.3} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
            });
            let (what, limit, note) = (&verdict.what, &verdict.limit, verdict.note);
            line(
                &mut text,
                format_args!("{mark} {what:<34} {limit:<7} {ratio}{note}"),
            );
        }
        text
    }
}
