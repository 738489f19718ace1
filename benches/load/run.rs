//! A run: for each number of threads a lab, the programs in it, and rounds of all workloads
//! against all programs.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lbd::net::clock;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cells::Bench;
use crate::gates::Limits;
use crate::lab::{Lab, usable_cpus};
use crate::options::Options;
use crate::pattern::Pattern;
use crate::plots;
use crate::report::{Results, Section};
use crate::setting;
use crate::targets::{Kind, Program, Programs, Target};
use crate::workload::{Family, Workload};

/// Rounds in which memory is measured: each needs fresh processes, and the values hardly vary.
const MEMORY_ROUNDS: usize = 2;
const TABLE_BEGINS: &str = "<!-- compare: table begins -->";
const TABLE_ENDS: &str = "<!-- compare: table ends -->";

/// False when a gate that was asked for is missed.
pub(crate) fn compare(options: &Options) -> Result<bool, Box<dyn Error>> {
    let begun = clock::now();
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    let scratch = Scratch::new(options.scratch.as_deref())?;
    let usable = usable_cpus()?;
    let pattern = Pattern::new();
    let (programs, notes) = setting::programs(options);
    for note in &notes {
        eprintln!("note: {note}");
    }
    let mut results = Results::new(&programs);
    let threads = options.threads();
    for (index, count) in threads.iter().enumerate() {
        let lab = Lab::open(&usable, *count, options.shared, None)?;
        if index == 0 {
            results.setting = setting::lines(options, &lab, &programs);
            results.setting.extend(notes.iter().cloned());
        }
        let workloads = options.workloads(index == 0);
        results.sections.push(Section {
            threads: *count,
            pinning: setting::pinning(&lab),
            workloads: workloads.clone(),
        });
        let mut bench = Bench {
            lab,
            pattern: &pattern,
            programs: Programs {
                threads: *count,
                max_connections: (files.saturating_sub(400) / 2).min(20_000),
                scratch: scratch.path.clone(),
            },
            sizes: options.sizes(files),
        };
        let end = begun + share(options.budget(), index, threads.len());
        rounds(
            &mut bench,
            &mut results,
            &programs,
            &workloads,
            (options.rounds(), end),
        )?;
    }
    results.judge(options.gate.unwrap_or(Limits::Promised));
    publish(options, &results)?;
    Ok(options.gate.is_none() || results.verdicts.iter().all(|verdict| verdict.passed))
}

/// When the section `index` of `count` has to end: the first, which measures most, gets three
/// parts of the time, every other one.
fn share(budget: Duration, index: usize, count: usize) -> Duration {
    let parts = |sections: usize| u32::try_from(sections + 2).unwrap_or(u32::MAX);
    budget * parts(index + 1) / parts(count)
}

fn rounds(
    bench: &mut Bench<'_>,
    results: &mut Results,
    programs: &[Program],
    workloads: &[Workload],
    (count, end): (usize, Instant),
) -> Result<(), Box<dyn Error>> {
    let mut targets = Vec::new();
    for program in programs {
        let (lab, shared) = (&mut bench.lab, &bench.programs);
        targets.push(Target::start(program, lab, shared, bench.pattern)?);
    }
    let mut longest = Duration::ZERO;
    for round in 0..count {
        let begun = clock::now();
        if begun + longest > end {
            eprintln!("out of time after {round} rounds");
            break;
        }
        let threads = bench.programs.threads;
        eprint!("{threads} thread(s), round {} of {count}: ", round + 1);
        for workload in workloads {
            eprint!("{} ", workload.name());
            measure_in_turn(bench, results, round, *workload, &mut targets)?;
        }
        // The first ones measure memory too.
        longest = clock::now().duration_since(begun);
        eprintln!("({} s)", longest.as_secs());
    }
    Ok(())
}

/// One workload against every target, in an order that differs from round to round.
fn measure_in_turn(
    bench: &mut Bench<'_>,
    results: &mut Results,
    round: usize,
    workload: Workload,
    targets: &mut [Target],
) -> Result<(), Box<dyn Error>> {
    let needs_fresh = workload.family() == Family::Memory;
    if needs_fresh && round >= MEMORY_ROUNDS {
        return Ok(());
    }
    let mut order: Vec<usize> = (0..targets.len()).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order.rotate_left(round / 2 % targets.len().max(1));
    for index in order {
        let Some(target) = targets.get_mut(index) else {
            continue;
        };
        if !workload.measures(target.program.kind) {
            continue;
        }
        let cell = if needs_fresh {
            let (lab, programs) = (&mut bench.lab, &bench.programs);
            let mut fresh = Target::start(&target.program, lab, programs, bench.pattern)?;
            bench.measure(round, workload, &mut fresh)?
        } else {
            bench.measure(round, workload, target)?
        };
        results.cells.push(cell);
    }
    Ok(())
}

fn publish(options: &Options, results: &Results) -> Result<(), Box<dyn Error>> {
    let mut table = results.table();
    let failures = results.failures();
    if !failures.is_empty() {
        table.push_str(&format!("\nfailures:\n{failures}"));
    }
    if options.targets().contains(&Kind::Lbd) {
        let whom = &results.limits_of;
        table.push_str(&format!(
            "\nlimits against {whom} (median of the rounds' ratios):\n{}",
            results.verdict_lines()
        ));
    }
    print!("{table}");
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(results)?)?;
    }
    if let Some(folder) = &options.plots {
        plots::draw(results, folder)?;
    }
    if let Some(path) = &options.document {
        let text = fs::read_to_string(path)?;
        let (before, rest) = text.split_once(TABLE_BEGINS).ok_or("no table's begin")?;
        let (_, after) = rest.split_once(TABLE_ENDS).ok_or("no table's end")?;
        let block = format!("{TABLE_BEGINS}\n```text\n{table}```\n{TABLE_ENDS}");
        fs::write(path, format!("{before}{block}{after}"))?;
        plots::draw(results, &path.with_extension(""))?;
    }
    Ok(())
}

/// The folder for configuration files and logs.
struct Scratch {
    path: PathBuf,
    ours: bool,
}

impl Scratch {
    fn new(given: Option<&Path>) -> std::io::Result<Self> {
        let own = || std::env::temp_dir().join(format!("lbd-compare-{}", std::process::id()));
        let path = given.map_or_else(own, Path::to_path_buf);
        fs::create_dir_all(&path)?;
        Ok(Self {
            path,
            ours: given.is_none(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("note: {} stays: {error}", self.path.display());
        }
    }
}
