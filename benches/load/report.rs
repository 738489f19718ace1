//! From cells to what people read: medians, paired ratios to HAProxy, gates, JSON.

use serde::Serialize;

use crate::cells::{Cell, Workload};
use crate::gates::Verdict;
use crate::stats::{Spread, paired, spread};

const REFERENCE: &str = "haproxy";

/// A column: what of a cell it shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Units per second, or a storm's duration.
    Speed,
    /// CPU time of the program per unit.
    Cpu,
    /// Units per second of the program's CPU time.
    Capacity,
    /// CPU time of program, client and servers per unit, less the same of `direct`.
    Machine,
    /// User memory per idle connection (PSS).
    Memory,
}

/// All cells of a run.
#[derive(Default, Serialize)]
pub(crate) struct Results {
    pub(crate) setting: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Results {
    /// The tables, one for each workload.
    pub(crate) fn table(&self, workloads: &[Workload]) -> String {
        let mut text = self.setting.join("\n");
        text.push('\n');
        for workload in workloads {
            self.workload_table(*workload, &mut text);
        }
        text
    }

    /// What went wrong, cell by cell.
    pub(crate) fn failures(&self) -> String {
        let mut text = String::new();
        for cell in self.cells.iter().filter(|cell| cell.failed() > 0) {
            let causes: Vec<String> = cell
                .failures
                .iter()
                .map(|(cause, count)| format!("{count} × {cause}"))
                .collect();
            line(
                &mut text,
                format_args!(
                    "round {} {} {}: {}",
                    cell.round,
                    cell.workload,
                    cell.target,
                    causes.join(", ")
                ),
            );
        }
        text
    }

    fn workload_table(&self, workload: Workload, text: &mut String) {
        let (title, speed, each, scale) = words(workload);
        line(text, format_args!("\n{}: {title}", workload.name()));
        if workload == Workload::Idle {
            line(
                text,
                format_args!(
                    "{:<15}{:>10} {:<22}{:>10}{:>13}{:>7}",
                    "", "PSS B/conn", " × haproxy", "RSS B/conn", "base PSS MB", "failed"
                ),
            );
        } else {
            line(
                text,
                format_args!(
                    "{:<15}{speed:>10} {:<22}{each:>11} {:<22}{:>9} {:<9}{:>6}{:>6}{:>7}",
                    "",
                    " × haproxy",
                    " × haproxy",
                    "+machine",
                    " × hap.",
                    "proxy",
                    "load",
                    "failed"
                ),
            );
        }
        let usual = ["direct", "haproxy", "haproxy-splice", "lbd"];
        for target in usual.into_iter().chain(crate::extra::names()) {
            let cells: Vec<&Cell> = self.of(workload, target).collect();
            if !cells.is_empty() {
                self.row(workload, target, &cells, scale, text);
            }
        }
    }

    fn row(
        &self,
        workload: Workload,
        target: &'static str,
        cells: &[&Cell],
        scale: f64,
        text: &mut String,
    ) {
        let median = |of: &dyn Fn(&Cell) -> f64| {
            let samples: Vec<f64> = cells.iter().map(|cell| of(cell)).collect();
            spread(&samples).map_or(0.0, |spread| spread.median)
        };
        let ratio = |metric| {
            let ratio = self.ratio(workload, target, metric);
            ratio
                .filter(|_| target != REFERENCE)
                .map_or(String::new(), with_range)
        };
        let failed: u64 = cells.iter().map(|cell| cell.failed()).sum();
        if workload == Workload::Idle {
            let (pss, rss) = (median(&|c| c.pss_each), median(&|c| c.rss_each));
            let base = median(&|c| c.pss_base / 1e6);
            line(
                text,
                format_args!(
                    "{target:<15}{pss:>10.0} {:<22}{rss:>10.0}{base:>13.1}{failed:>7}",
                    ratio(Metric::Memory)
                ),
            );
            return;
        }
        let speed = match workload {
            Workload::Storm => median(&|c| c.seconds * 1e3),
            Workload::Bulk | Workload::Bulk16 | Workload::BulkUp => median(&Cell::rate),
            Workload::Short | Workload::Persistent | Workload::Idle => median(&Cell::rate).round(),
        };
        let decimals = if speed < 100.0 { 2 } else { 0 };
        let cpu = median(&|c| c.cpu_each() * scale);
        let machine: Vec<f64> = self
            .series(workload, target, Metric::Machine)
            .iter()
            .map(|(_, v)| v * scale)
            .collect();
        let machine = spread(&machine).map_or(0.0, |spread| spread.median);
        let machine_ratio = self.ratio(workload, target, Metric::Machine);
        let machine_ratio = machine_ratio
            .filter(|_| target != REFERENCE && target != "direct")
            .map_or(String::new(), |ratio| format!(" {:.2}", ratio.median));
        let cpu_ratio = if target == "direct" {
            String::new()
        } else {
            ratio(Metric::Cpu)
        };
        let busy = |cpu: f64| format!("{:.0}%", cpu * 100.0);
        let limit = if mostly_load_bound(cells) {
            "  load-bound"
        } else {
            ""
        };
        line(
            text,
            format_args!(
                "{target:<15}{speed:>10.decimals$} {:<22}{cpu:>11.1} {cpu_ratio:<22}{machine:>9.1} {machine_ratio:<9}{:>6}{:>6}{failed:>7}{limit}",
                ratio(Metric::Speed),
                busy(median(&|c| c.proxy_cpu / c.seconds)),
                busy(median(&|c| c.load_cpu / c.seconds)),
            ),
        );
    }

    pub(crate) fn of(&self, workload: Workload, target: &str) -> impl Iterator<Item = &Cell> {
        let cells = self.of_target(target);
        cells.filter(move |cell| cell.workload == workload.name())
    }

    pub(crate) fn of_target(&self, target: &str) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.target == target)
    }

    /// The values of a metric by round.
    fn series(&self, workload: Workload, target: &str, metric: Metric) -> Vec<(usize, f64)> {
        let usable = self.of(workload, target).filter(|cell| cell.units > 0.0);
        usable
            .filter_map(|cell| {
                let value = match metric {
                    Metric::Speed if workload == Workload::Storm => cell.seconds,
                    Metric::Speed => cell.rate(),
                    Metric::Cpu => cell.cpu_each(),
                    Metric::Capacity => cell.cpu_each().recip(),
                    Metric::Memory => cell.pss_each,
                    Metric::Machine => {
                        let mut direct = self.of(workload, "direct");
                        let direct = direct.find(|other| other.round == cell.round)?;
                        cell.machine_each() - direct.machine_each()
                    }
                };
                Some((cell.round, value))
            })
            .collect()
    }

    pub(crate) fn ratio(&self, workload: Workload, target: &str, metric: Metric) -> Option<Spread> {
        let ours = self.series(workload, target, metric);
        let reference = self.series(workload, REFERENCE, metric);
        spread(&paired(&ours, &reference))
    }
}

/// Title, speed's unit, CPU's unit and its scale.
fn words(workload: Workload) -> (&'static str, &'static str, &'static str, f64) {
    match workload {
        Workload::Short => (
            "connect, 1 KiB up, 2 KiB down, close; 64 at a time",
            "conn/s",
            "CPU µs/conn",
            1e6,
        ),
        Workload::Persistent => (
            "1 KiB up, 2 KiB down, again; 64 connections",
            "req/s",
            "CPU µs/req",
            1e6,
        ),
        Workload::Bulk => ("download, one stream", "GB/s", "CPU ms/GB", 1e3),
        Workload::Bulk16 => ("download, 16 streams", "GB/s", "CPU ms/GB", 1e3),
        Workload::BulkUp => ("upload, 16 streams", "GB/s", "CPU ms/GB", 1e3),
        Workload::Storm => (
            "all clients at once: ms until all have their answer",
            "ms",
            "CPU µs/conn",
            1e6,
        ),
        Workload::Idle => ("user memory of a connection that is silent", "", "", 1.0),
    }
}

pub(crate) fn mostly_load_bound(cells: &[&Cell]) -> bool {
    let bound = cells.iter().filter(|cell| cell.is_load_bound()).count();
    bound * 2 > cells.len()
}

fn with_range(ratio: Spread) -> String {
    let Spread { median, min, max } = ratio;
    format!(" {median:.2} ({min:.2}–{max:.2})")
}

pub(crate) fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.push_str(&arguments.to_string());
    let trimmed = text.trim_end_matches(' ').len();
    text.truncate(trimmed);
    text.push('\n');
}
