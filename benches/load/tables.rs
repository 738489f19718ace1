//! The results as text: a table for each workload.

use std::fmt::Arguments;

use crate::cells::Cell;
use crate::report::{Metric, Place, REFERENCE, Results, Section};
use crate::stats::{Spread, spread};
use crate::workload::{Family, Words, Workload};

impl Results {
    /// The setting, and the tables.
    pub(crate) fn table(&self) -> String {
        let mut text = self.setting.join("\n");
        text.push('\n');
        for section in &self.sections {
            let (threads, pinning) = (section.threads, &section.pinning);
            line(
                &mut text,
                format_args!("\n== {threads} thread(s) each | {pinning}"),
            );
            for workload in &section.workloads {
                self.workload_table(section, *workload, &mut text);
                self.extra_table(section.threads, *workload, &mut text);
            }
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
            let (round, threads) = (cell.round, cell.threads);
            line(
                &mut text,
                format_args!(
                    "{threads} thread(s), round {round}, {} {}: {}",
                    cell.workload,
                    cell.target,
                    causes.join(", ")
                ),
            );
        }
        text
    }

    fn workload_table(&self, section: &Section, workload: Workload, text: &mut String) {
        let words = workload.words();
        line(text, format_args!("\n{}: {}", workload.name(), words.title));
        let (speed, each) = (words.speed, words.each);
        match workload.family() {
            Family::Rate => line(
                text,
                format_args!(
                    "{:<19}{speed:>9} {:<18}{each:>12} {:<18}{:>9} {:<5}{:>8}{:>8}{:>6}{:>6}{:>7}",
                    "", " ×", " ×", "+machine", " ×", "p50 µs", "p99 µs", "proxy", "load", "failed"
                ),
            ),
            Family::Paced => line(
                text,
                format_args!(
                    "{:<19}{:>8} {:>8} {:<18}{:>8}{:>8}{:>8}{each:>12} {:<18}{:>7}",
                    "", "p50 µs", "added", " ×", "p90", "p99", "p99.9", " ×", "failed"
                ),
            ),
            Family::Mixed => line(
                text,
                format_args!(
                    "{:<19}{:>10}{:>8}{:>12}{:>8}  {:<18}{speed:>8}{:>8}{:>7}",
                    "", "alone: p50", "p99", "beside: p50", "p99", "p99 grows ×", "GB/s", "failed"
                ),
            ),
            Family::Memory => line(
                text,
                format_args!(
                    "{:<19}{:>10} {:<18}{:>10}{:>13}{:>13}{:>7}",
                    "", "PSS B/conn", " ×", "RSS B/conn", "base PSS MB", "base RSS MB", "failed"
                ),
            ),
        }
        for target in &self.targets {
            let place = Place {
                threads: section.threads,
                workload,
                target,
            };
            let cells = self.at(place);
            if cells.is_empty() {
                continue;
            }
            match workload.family() {
                Family::Rate => self.rate_row(place, &cells, &words, text),
                Family::Paced => self.paced_row(place, &cells, &words, text),
                Family::Mixed => self.mixed_row(place, &cells, text),
                Family::Memory => self.memory_row(place, &cells, text),
            }
        }
    }

    /// The programs that `--extra` added against lbd.
    fn extra_table(&self, threads: usize, workload: Workload, text: &mut String) {
        let metrics: &[(&str, Metric)] = match workload.family() {
            Family::Memory => &[("memory", Metric::Memory)],
            Family::Paced => &[("p50", Metric::P50), ("CPU", Metric::Cpu)],
            Family::Rate | Family::Mixed => &[
                (workload.words().speed, Metric::Speed),
                ("CPU", Metric::Cpu),
            ],
        };
        for target in &self.extras {
            let place = Place {
                threads,
                workload,
                target,
            };
            for (what, metric) in metrics {
                if let Some(ratio) = self.ratio_to(place, *metric, "lbd") {
                    let ratio = with_range(ratio);
                    line(
                        text,
                        format_args!("{target:<19}{what:>9} {ratio:<18} × lbd"),
                    );
                }
            }
        }
    }

    fn rate_row(&self, place: Place<'_>, cells: &[&Cell], words: &Words, text: &mut String) {
        let speed = if place.workload == Workload::Storm {
            median(cells, |c| c.seconds * 1e3)
        } else if place.workload.is_bulk() {
            median(cells, Cell::rate)
        } else {
            median(cells, Cell::rate).round()
        };
        let decimals = if speed < 100.0 { 2 } else { 0 };
        let cpu = median(cells, |c| c.cpu_each() * words.scale);
        let machine = self.value(place, Metric::Machine);
        let machine = machine.map_or(0.0, |machine| machine.median * words.scale);
        let apart = place.target != REFERENCE && place.target != "direct";
        let machine_ratio = self.ratio(place, Metric::Machine).filter(|_| apart);
        let machine_ratio =
            machine_ratio.map_or(String::new(), |ratio| format!(" {:.2}", ratio.median));
        let cpu_ratio = match place.target {
            "direct" => String::new(),
            _ => self.shown_ratio(place, Metric::Cpu),
        };
        let busy = |cpu: f64| format!("{:.0}%", cpu * 100.0);
        let latency = |metric| {
            let value = self.value(place, metric);
            value.map_or(String::new(), |value| format!("{:.0}", value.median))
        };
        line(
            text,
            format_args!(
                "{:<19}{speed:>9.decimals$} {:<18}{cpu:>12.1} {cpu_ratio:<18}{machine:>9.1} \
                 {machine_ratio:<5}{:>8}{:>8}{:>6}{:>6}{:>7}{}{}",
                place.target,
                self.shown_ratio(place, Metric::Speed),
                latency(Metric::P50),
                latency(Metric::P99),
                busy(median(cells, |c| c.proxy_cpu / c.seconds)),
                busy(median(cells, |c| c.load_cpu / c.seconds)),
                failed(cells),
                match self.is_load_bound(place) {
                    true => "  load-bound",
                    false => "",
                },
                spliced(cells),
            ),
        );
    }

    fn paced_row(&self, place: Place<'_>, cells: &[&Cell], words: &Words, text: &mut String) {
        let quantile = |of: fn(&crate::histogram::Quantiles) -> f64| {
            median(cells, |cell| cell.latency.as_ref().map_or(0.0, of))
        };
        let (p50, p90) = (quantile(|q| q.p50), quantile(|q| q.p90));
        let (p99, p999) = (quantile(|q| q.p99), quantile(|q| q.p999));
        let added = self.value(place, Metric::AddedP50);
        let added = added.map_or(0.0, |added| added.median);
        let is_direct = place.target == "direct";
        let ratio = |metric| match is_direct {
            true => String::new(),
            false => self.shown_ratio(place, metric),
        };
        let cpu = median(cells, |c| c.cpu_each() * words.scale);
        line(
            text,
            format_args!(
                "{:<19}{p50:>8.0} {added:>8.0} {:<18}{p90:>8.0}{p99:>8.0}{p999:>8.0}{cpu:>12.1} {:<18}{:>7}",
                place.target,
                ratio(Metric::AddedP50),
                ratio(Metric::Cpu),
                failed(cells),
            ),
        );
    }

    fn mixed_row(&self, place: Place<'_>, cells: &[&Cell], text: &mut String) {
        let alone = |of: fn(&crate::histogram::Quantiles) -> f64| {
            median(cells, |cell| cell.alone.as_ref().map_or(0.0, of))
        };
        let beside = |of: fn(&crate::histogram::Quantiles) -> f64| {
            median(cells, |cell| cell.latency.as_ref().map_or(0.0, of))
        };
        let growth = self.value(place, Metric::Growth);
        line(
            text,
            format_args!(
                "{:<19}{:>10.0}{:>8.0}{:>12.0}{:>8.0}  {:<18}{:>8.0}{:>8.2}{:>7}",
                place.target,
                alone(|q| q.p50),
                alone(|q| q.p99),
                beside(|q| q.p50),
                beside(|q| q.p99),
                growth.map_or(String::new(), with_range),
                median(cells, Cell::rate),
                median(cells, |c| c.bulk_rate),
                failed(cells),
            ),
        );
    }

    fn memory_row(&self, place: Place<'_>, cells: &[&Cell], text: &mut String) {
        line(
            text,
            format_args!(
                "{:<19}{:>10.0} {:<18}{:>10.0}{:>13.1}{:>13.1}{:>7}",
                place.target,
                median(cells, |c| c.pss_each),
                self.shown_ratio(place, Metric::Memory),
                median(cells, |c| c.rss_each),
                median(cells, |c| c.pss_base / 1e6),
                median(cells, |c| c.rss_base / 1e6),
                failed(cells),
            ),
        );
    }

    fn shown_ratio(&self, place: Place<'_>, metric: Metric) -> String {
        let ratio = self.ratio(place, metric);
        ratio
            .filter(|_| place.target != REFERENCE)
            .map_or(String::new(), |ratio| format!(" {}", with_range(ratio)))
    }

    /// The gates' outcomes.
    pub(crate) fn verdict_lines(&self) -> String {
        let mut text = String::new();
        for verdict in &self.verdicts {
            let mark = if verdict.passed { "ok  " } else { "MISS" };
            let figure = verdict.figure.map_or(String::new(), |figure| {
                // One digit more than the limits have: 1.097 is not 1.10.
                format!("{:.3} ({:.2}–{:.2})", figure.median, figure.min, figure.max)
            });
            let (what, limit, note) = (&verdict.what, &verdict.limit, verdict.note);
            line(
                &mut text,
                format_args!("{mark} {what:<46} {limit:<8} {figure}{note}"),
            );
        }
        text
    }
}

/// Says of a bulk row how it was done: `option splice-auto` may be on and do nothing.
fn spliced(cells: &[&Cell]) -> &'static str {
    let pipes: Vec<usize> = cells.iter().filter_map(|cell| cell.pipes).collect();
    if pipes.is_empty() {
        return "";
    }
    let without = pipes.iter().filter(|pipes| **pipes == 0).count();
    match without * 2 > pipes.len() {
        true => "  copied",
        false => "  spliced",
    }
}

fn failed(cells: &[&Cell]) -> u64 {
    cells.iter().map(|cell| cell.failed()).sum()
}

fn median(cells: &[&Cell], of: impl Fn(&Cell) -> f64) -> f64 {
    let samples: Vec<f64> = cells.iter().map(|cell| of(cell)).collect();
    spread(&samples).map_or(0.0, |spread| spread.median)
}

fn with_range(ratio: Spread) -> String {
    let Spread { median, min, max } = ratio;
    format!("{median:.2} ({min:.2}–{max:.2})")
}

fn line(text: &mut String, arguments: Arguments<'_>) {
    text.push_str(&arguments.to_string());
    let trimmed = text.trim_end_matches(' ').len();
    text.truncate(trimmed);
    text.push('\n');
}
