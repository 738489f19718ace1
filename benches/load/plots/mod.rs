//! The results as pictures: which there are, and what goes into each.

mod charts;
mod scale;
mod svg;

use std::fs;
use std::io;
use std::path::Path;

use self::charts::{Bars, Curve, Curves, Series};
use crate::report::{Metric, Place, REFERENCE, Results, Section};
use crate::stats::{Spread, spread};
use crate::workload::{Family, Workload};

/// Where ratios are cut off.
const MOST_RATIO: f64 = 5.0;

/// Draws all that was measured into `folder`.
pub(crate) fn draw(results: &Results, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (index, section) in results.sections.iter().enumerate() {
        let suffix = match index {
            0 => String::new(),
            _ => format!("-{}-threads", section.threads),
        };
        let pictures = [
            ("rates", results.ratios(section, Metric::Speed)),
            ("cpu", results.ratios(section, Metric::Cpu)),
            ("memory", results.memory(section)),
            ("mixed", results.mixed(section)),
            ("latency", results.latency(section)),
        ];
        for (name, picture) in pictures {
            if let Some(picture) = picture {
                fs::write(folder.join(format!("{name}{suffix}.svg")), picture)?;
            }
        }
    }
    Ok(())
}

impl Results {
    /// Ratios to HAProxy, of all that is done as fast as it goes.
    fn ratios(&self, section: &Section, metric: Metric) -> Option<String> {
        let shown = |workload: &&Workload| match workload.family() {
            Family::Rate => true,
            Family::Paced => metric == Metric::Cpu,
            Family::Mixed | Family::Memory => false,
        };
        let workloads: Vec<Workload> = section.workloads.iter().filter(shown).copied().collect();
        let ratio = |place: Place<'_>| match (place.target, metric) {
            (REFERENCE, _) | ("direct", Metric::Cpu) => None,
            _ => {
                let ratio = self.ratio(place, metric)?;
                // A storm's time: the shorter, the better.
                let is_time = metric == Metric::Speed && place.workload == Workload::Storm;
                Some(if is_time { inverse(ratio) } else { ratio })
            }
        };
        let what = if metric == Metric::Cpu {
            "CPU time of the proxy per unit (less is better)"
        } else {
            "Rate; storm: 1 / time (more is better)"
        };
        self.bars(section, &workloads, ratio, |bars| {
            bars.title = format!("{what}, ratio to HAProxy in the same round");
            bars.unit = "× HAProxy".to_owned();
            bars.mark = Some(1.0);
            bars.most = Some(MOST_RATIO);
        })
    }

    fn memory(&self, section: &Section) -> Option<String> {
        let workloads = of_family(section, Family::Memory);
        let value = |place: Place<'_>| self.value(place, Metric::Memory);
        self.bars(section, &workloads, value, |bars| {
            bars.title = "User memory per connection (logarithmic)".to_owned();
            bars.unit = "bytes".to_owned();
            bars.is_log = true;
        })
    }

    fn mixed(&self, section: &Section) -> Option<String> {
        let workloads = of_family(section, Family::Mixed);
        let value = |place: Place<'_>| self.value(place, Metric::Growth);
        self.bars(section, &workloads, value, |bars| {
            bars.title = "p99 of small requests beside downloads, ratio to without".to_owned();
            bars.unit = "× alone".to_owned();
            bars.mark = Some(1.0);
        })
    }

    fn latency(&self, section: &Section) -> Option<String> {
        let workload = Workload::Latency;
        let lines: Vec<Curve> = self
            .targets
            .iter()
            .filter_map(|target| {
                let place = Place {
                    threads: section.threads,
                    workload,
                    target,
                };
                let points = self.curve(place);
                (!points.is_empty()).then(|| Curve {
                    name: target.clone(),
                    colour: colour(target),
                    points,
                })
            })
            .collect();
        let title = format!("Latency: {}", workload.words().title);
        (!lines.is_empty()).then(|| Curves { title, lines }.draw())
    }

    /// Each quantile's median over the rounds.
    fn curve(&self, place: Place<'_>) -> Vec<(u64, f64)> {
        let cells = self.at(place);
        let curves: Vec<&[(u64, f64)]> = cells
            .iter()
            .filter_map(|cell| Some(cell.latency.as_ref()?.curve.as_slice()))
            .collect();
        let quantiles = curves.first().copied().unwrap_or(&[]);
        let median_of = |parts: u64| {
            let values: Vec<f64> = curves
                .iter()
                .filter_map(|curve| curve.iter().find(|(other, _)| *other == parts))
                .map(|(_, micros)| *micros)
                .collect();
            Some((parts, spread(&values)?.median))
        };
        quantiles
            .iter()
            .filter_map(|(parts, _)| median_of(*parts))
            .collect()
    }

    fn bars(
        &self,
        section: &Section,
        workloads: &[Workload],
        value: impl Fn(Place<'_>) -> Option<Spread>,
        finish: impl FnOnce(&mut Bars),
    ) -> Option<String> {
        let series = self.targets.iter().map(|target| Series {
            name: target.clone(),
            colour: colour(target),
            values: workloads
                .iter()
                .map(|workload| {
                    value(Place {
                        threads: section.threads,
                        workload: *workload,
                        target,
                    })
                })
                .collect(),
        });
        let series: Vec<Series> = series
            .filter(|series| series.values.iter().any(Option::is_some))
            .collect();
        let mut bars = Bars {
            title: String::new(),
            unit: String::new(),
            categories: workloads.iter().map(|w| w.name().to_owned()).collect(),
            series,
            mark: None,
            most: None,
            is_log: false,
        };
        finish(&mut bars);
        if section.threads > 1 {
            bars.title
                .push_str(&format!("; {} threads", section.threads));
        }
        (!bars.series.is_empty()).then(|| bars.draw())
    }
}

fn of_family(section: &Section, family: Family) -> Vec<Workload> {
    let workloads = section.workloads.iter().copied();
    workloads
        .filter(|workload| workload.family() == family)
        .collect()
}

fn inverse(ratio: Spread) -> Spread {
    Spread {
        median: ratio.median.recip(),
        min: ratio.max.recip(),
        max: ratio.min.recip(),
    }
}

/// A program has the same colour in every picture; a further HAProxy is greyer.
fn colour(target: &str) -> &'static str {
    match target {
        "direct" => "#999999",
        "haproxy" => "#1f77b4",
        "haproxy-splice" => "#7fb2d9",
        "haproxy-log" => "#14507a",
        "nginx" => "#1b9e77",
        "lbd" => "#d95f02",
        "lbd-log" => "#f2a35e",
        _ => "#8da0b3",
    }
}
