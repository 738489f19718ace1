//! `tests/faults`: all of it, each round with every target at the same time, medians over the
//! rounds, and the tables of docs/health.md.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use lbd::net::clock;
use lbd::net::netns::sandbox::{self, Sandbox};

use super::faults::{self, Fault, Seen};
use super::lab::peers::installed;
use super::targets::Target;
use super::{capacity, etcd, herd, pause, shares, sources, table};

const HELP: &str = "tests/faults [OPTIONS]
  --runs N             rounds (3); medians are told
  --only PART,PART     parts of names: refused black-hole stopped resets restarts slow-accept
                       not-ready ready-hangs herd capacity shares slowstart source-hash pause etcd
  --target PART        lbd, seed (HAProxy with the guide's file) or tuned (HAProxy)
  --seconds N          how long each fault is looked at (8 to 30, by fault)
  --document FILE      put the tables into this file (docs/health.md)";

/// What was asked for.
pub struct Options {
    pub runs: usize,
    pub only: Vec<String>,
    pub targets: Vec<Target>,
    pub seconds: Option<u64>,
    pub document: Option<String>,
}

impl Options {
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

pub fn main(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match sandbox::enter() {
        Ok(Sandbox::Inside(_)) => {}
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            println!("faults: {error}");
            return ExitCode::FAILURE;
        }
    }
    let options = match options(arguments) {
        Ok(options) => options,
        Err(why) => {
            println!("faults: {why}\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    let begin = clock::now();
    let mut tables = Vec::new();
    let faults = faults(&options);
    if !faults.is_empty() {
        tables.push(("faults", table::faults(&faults)));
    }
    for (name, make) in [
        ("herd", herd::table as fn(&Options) -> String),
        ("pause", pause::table),
        ("capacity", capacity::table),
        ("shares", shares::table),
        ("slowstart", shares::slowstart_table),
        ("source-hash", sources::table),
        ("etcd", etcd::table),
    ] {
        if options.wants(name) {
            tables.push((name, make(&options)));
        }
    }
    println!("took {} s", (clock::now() - begin).as_secs());
    for (_, table) in &tables {
        println!("\n{table}");
    }
    let Some(document) = &options.document else {
        return ExitCode::SUCCESS;
    };
    let words = arguments.join(" ");
    match table::write(document, &tables, &words, options.runs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("faults: {document}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        runs: 3,
        only: Vec::new(),
        targets: Target::ALL.to_vec(),
        seconds: None,
        document: None,
    };
    if !installed("haproxy") {
        println!("haproxy is not installed: lbd alone is measured");
        options.targets.truncate(1);
    }
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_not| format!("{word} {value}: a number"))
        };
        match word.as_str() {
            "--runs" => options.runs = usize::try_from(number()?.max(1)).unwrap_or(1),
            "--seconds" => options.seconds = Some(number()?),
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--target" => options
                .targets
                .retain(|target| target.word().contains(value.as_str())),
            "--document" => options.document = Some(value.clone()),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(options)
}

/// Each round has every target at once, so that they share what the machine does meanwhile.
fn faults(options: &Options) -> Vec<(Fault, Target, Seen)> {
    let chosen = Fault::ALL.into_iter();
    let chosen: Vec<Fault> = chosen.filter(|fault| options.wants(fault.word())).collect();
    let mut done = Vec::new();
    for round in 1..=options.runs {
        for fault in &chosen {
            let window = options.seconds.map(Duration::from_secs);
            let window = window.unwrap_or(fault.window());
            for (target, seen) in together(&options.targets, |target| {
                faults::measure(target, *fault, window)
            }) {
                println!(
                    "[{round}] {:<12} {:<15} {}",
                    fault.word(),
                    target.title(),
                    table::one(&seen)
                );
                done.push((*fault, target, seen));
            }
        }
    }
    done
}

/// Does it with each target at the same time; who fails is left out, and says so.
pub fn together<T: Send>(
    targets: &[Target],
    work: impl Fn(Target) -> T + Sync,
) -> Vec<(Target, T)> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = targets
            .iter()
            .map(|target| {
                let run = move || catch_unwind(AssertUnwindSafe(|| work(*target)));
                (*target, scope.spawn(run))
            })
            .collect();
        let mut done = Vec::new();
        for (target, thread) in threads {
            match thread.join() {
                Ok(Ok(result)) => done.push((target, result)),
                Ok(Err(_)) | Err(_) => println!("{}: failed, left out", target.title()),
            }
        }
        done
    })
}
