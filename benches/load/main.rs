//! `benches/compare`: lbd, HAProxy and no proxy side by side, in interleaved rounds. How it
//! measures and what its numbers mean: docs/performance.md. Only the bench lives here; nothing of
//! the product may depend on it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result goes to standard output, talk to standard error"
)]
#![expect(
    clippy::float_arithmetic,
    reason = "rates and ratios for people, no decisions"
)]

mod backend;
mod cells;
mod client;
mod extra;
mod gates;
mod lab;
mod options;
mod pattern;
mod protocol;
mod report;
mod roles;
mod stats;
mod targets;
mod usage;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use lbd::net::clock;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::backend::Lie;
use crate::cells::{Bench, Workload};
use crate::client::{Load, Plan, Then};
use crate::gates::Limits;
use crate::lab::Lab;
use crate::options::Options;
use crate::pattern::Pattern;
use crate::report::Results;
use crate::targets::{Kind, Programs, Target};

/// Rounds in which memory is measured: each needs fresh processes, and the values hardly vary.
const IDLE_ROUNDS: usize = 2;
const TABLE_BEGINS: &str = "<!-- compare: table begins -->";
const TABLE_ENDS: &str = "<!-- compare: table ends -->";

fn main() -> ExitCode {
    let mut options = Options::parse();
    let outcome = match options.role.take() {
        Some(role) => roles::run(role).map(|()| true).map_err(Into::into),
        None if options.self_test => self_test(&options),
        None => compare(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches/compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False when a gate that was asked for is missed.
fn compare(options: &Options) -> Result<bool, Box<dyn Error>> {
    let begun = clock::now();
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    let scratch = Scratch::new(options.scratch.as_deref())?;
    let programs = Programs {
        haproxy: options.haproxy.clone(),
        lbd: fs::canonicalize(&options.lbd).unwrap_or_else(|_| options.lbd.clone()),
        threads: options.threads,
        max_connections: (files.saturating_sub(400) / 2).min(20_000),
        scratch: scratch.path.clone(),
    };
    let pattern = Pattern::new();
    let lab = Lab::open(options.threads, options.shared, None)?;
    let mut results = Results {
        setting: setting(options, &lab, &programs),
        ..Results::default()
    };
    let mut bench = Bench {
        lab,
        pattern: &pattern,
        programs,
        sizes: options.sizes(),
    };
    let mut targets = Vec::new();
    let extras = extra::register(options.extra.clone()).map(Kind::Extra);
    for kind in options.targets.iter().copied().chain(extras) {
        let (lab, programs) = (&mut bench.lab, &bench.programs);
        targets.push(Target::start(kind, lab, programs, &pattern)?);
    }
    for round in 0..options.rounds() {
        if clock::now().duration_since(begun) > options.budget() {
            eprintln!("out of time after {round} rounds");
            break;
        }
        eprint!("round {} of {}: ", round + 1, options.rounds());
        for workload in &options.workloads {
            eprint!("{} ", workload.name());
            measure_in_turn(&mut bench, &mut results, round, *workload, &mut targets)?;
        }
        eprintln!();
    }
    drop(targets);
    results.judge(&options.workloads, options.gate.unwrap_or(Limits::Promised));
    publish(options, &results)?;
    Ok(options.gate.is_none() || results.verdicts.iter().all(|verdict| verdict.passed))
}

/// False when a lie of the servers goes unnoticed, or an honest server is accused.
fn self_test(options: &Options) -> Result<bool, Box<dyn Error>> {
    let lies = [
        (None, ""),
        (Some(Lie::WrongByte), "wrong byte"),
        (Some(Lie::Shifted), "wrong byte"),
        (Some(Lie::Short), "closed early"),
        (Some(Lie::Long), "too many bytes"),
        (Some(Lie::Doubt), "backend: wrong byte"),
    ];
    let pattern = Pattern::new();
    let mut good = true;
    for (lie, expected) in lies {
        let mut lab = Lab::open(options.threads, true, lie)?;
        let plan = Plan {
            targets: lab.direct.clone(),
            talk: targets::small(),
            then: Then::Close,
        };
        let mut load = Load::new(plan, &pattern)?;
        load.open(32);
        load.run_until_done(32, std::time::Duration::from_secs(2))?;
        let counts = load.finish(std::time::Duration::from_secs(1))?;
        let report = lab.settle()?;
        let client = counts.failures.get(expected).copied();
        let server = report.failures.get(expected).copied();
        let seen = client.or(server).unwrap_or(0);
        let noticed = match lie {
            None => counts.done == 32 && counts.failed() == 0 && report.failures.is_empty(),
            Some(_) => seen == 32,
        };
        good &= noticed;
        let mark = if noticed { "ok  " } else { "MISS" };
        match lie {
            None => println!(
                "{mark} honest servers: {} of 32 exchanges in order",
                counts.done
            ),
            Some(lie) => println!("{mark} {lie:?}: {seen} of 32 connections: {expected}"),
        }
    }
    Ok(good)
}

/// One workload against every target, in an order that differs from round to round.
fn measure_in_turn(
    bench: &mut Bench<'_>,
    results: &mut Results,
    round: usize,
    workload: Workload,
    targets: &mut [Target],
) -> Result<(), Box<dyn Error>> {
    if workload == Workload::Idle && round >= IDLE_ROUNDS {
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
        if !workload.measures(target.kind) {
            continue;
        }
        let cell = if workload == Workload::Idle {
            let (lab, programs) = (&mut bench.lab, &bench.programs);
            let mut fresh = Target::start(target.kind, lab, programs, bench.pattern)?;
            bench.measure(round, workload, &mut fresh)?
        } else {
            bench.measure(round, workload, target)?
        };
        results.cells.push(cell);
    }
    Ok(())
}

fn publish(options: &Options, results: &Results) -> Result<(), Box<dyn Error>> {
    let table = results.table(&options.workloads);
    print!("{table}\n{}", extra::against_lbd(&results.cells));
    let failures = results.failures();
    if !failures.is_empty() {
        print!("\nfailures:\n{failures}");
    }
    if options.targets.contains(&Kind::Lbd) {
        print!("\nlimits against HAProxy 2.6 (median of the rounds' ratios):\n");
        print!("{}", results.verdict_lines());
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(results)?)?;
    }
    if let Some(path) = &options.document {
        let text = fs::read_to_string(path)?;
        let (before, rest) = text.split_once(TABLE_BEGINS).ok_or("no table's begin")?;
        let (_, after) = rest.split_once(TABLE_ENDS).ok_or("no table's end")?;
        let block = format!("{TABLE_BEGINS}\n```text\n{table}```\n{TABLE_ENDS}");
        fs::write(path, format!("{before}{block}{after}"))?;
    }
    Ok(())
}

/// What the numbers hold for.
fn setting(options: &Options, lab: &Lab, programs: &Programs) -> Vec<String> {
    let version = |program: &Path, flag: &str| {
        let output = Command::new(program).arg(flag).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        text.lines().next().unwrap_or("no version").to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or("").trim_start_matches([' ', '\t', ':']);
    let cpus = lab.cpus.count;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let place = match lab.is_isolated() {
        true => "three network namespaces over veth",
        false => "loopback of this host (not root: no namespaces)",
    };
    let pinned = match lab.cpus.proxy.is_empty() {
        true => "everybody shares all CPUs".to_owned(),
        false => format!(
            "proxy on CPU {:?}, client {:?}, servers {:?}",
            lab.cpus.proxy, lab.cpus.client, lab.cpus.backend
        ),
    };
    vec![
        format!(
            "{} | {}",
            version(&programs.lbd, "--version"),
            version(&programs.haproxy, "-v")
        ),
        format!(
            "kernel {} | {cpus} × {model} | load average at start {load}",
            kernel.trim()
        ),
        format!("{place} | {} thread(s) each | {pinned}", options.threads),
        format!(
            "medians of up to {} rounds of {} ms; × haproxy = median (min–max) of the ratios within a round",
            options.rounds(),
            options.sizes().window.as_millis()
        ),
    ]
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
