//! The limits that `--gate` holds lbd to, against Debian's HAProxy 2.6 in the same rounds.

use serde::Serialize;

use crate::cells::{Cell, Workload};
use crate::report::{Metric, Results, line, mostly_load_bound};
use crate::stats::Spread;

/// One limit that `--gate` holds lbd to, as a median of paired ratios to HAProxy.
struct Gate {
    workload: Workload,
    metric: Metric,
    what: &'static str,
    limit: f64,
    at_least: bool,
}

/// DESIGN §6, against Debian's HAProxy 2.6.
const GATES: [Gate; 7] = [
    Gate::new(
        Workload::Short,
        Metric::Cpu,
        "proxy CPU per short connection",
        0.82,
        false,
    ),
    Gate::new(
        Workload::Short,
        Metric::Speed,
        "short connections per second",
        1.1,
        true,
    ),
    Gate::new(
        Workload::Persistent,
        Metric::Speed,
        "requests per second",
        1.05,
        true,
    ),
    Gate::new(
        Workload::Bulk,
        Metric::Speed,
        "bulk throughput, one stream",
        1.9,
        true,
    ),
    Gate::new(
        Workload::Bulk,
        Metric::Cpu,
        "proxy CPU per GB, one stream",
        0.30,
        false,
    ),
    Gate::new(
        Workload::Bulk16,
        Metric::Speed,
        "bulk throughput, 16 streams",
        1.9,
        true,
    ),
    Gate::new(
        Workload::Bulk16,
        Metric::Cpu,
        "proxy CPU per GB, 16 streams",
        0.30,
        false,
    ),
];

impl Gate {
    const fn new(
        workload: Workload,
        metric: Metric,
        what: &'static str,
        limit: f64,
        at_least: bool,
    ) -> Self {
        Self {
            workload,
            metric,
            what,
            limit,
            at_least,
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
    pub(crate) fn judge(&mut self, workloads: &[Workload]) {
        let asked = GATES
            .iter()
            .filter(|gate| workloads.contains(&gate.workload));
        self.verdicts = asked
            .map(|gate| {
                let (ratio, note) = self.judged_ratio(gate);
                let sign = if gate.at_least { "≥" } else { "≤" };
                Verdict {
                    what: gate.what.to_owned(),
                    limit: format!("{sign} {:.2}", gate.limit),
                    passed: ratio.is_some_and(|ratio| match gate.at_least {
                        true => ratio.median >= gate.limit,
                        false => ratio.median <= gate.limit,
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
    fn judged_ratio(&self, gate: &Gate) -> (Option<Spread>, &'static str) {
        let measured = self.ratio(gate.workload, "lbd", gate.metric);
        let reached = measured.is_some_and(|ratio| ratio.median >= gate.limit);
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
