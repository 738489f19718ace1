//! What a client sees when something happens to the active node: lbd beside keepalived + HAProxy
//! with the users' own files, in the same laboratory, run by run in turn. `tests/failover --help`.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

#[path = "../lab/mod.rs"]
mod lab;

mod table;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lab::peers::installed;
use lab::scenario::{Scenario, Seen, Setup, Stack, V2_1S, V3_10MS, V3_100MS, measure};
use lbd::net::clock;
use lbd::net::netns::sandbox::{self, Sandbox};

const HELP: &str = "tests/failover [OPTIONS]
  --runs N                 runs of each scenario, setup and stack (3)
  --only SCENARIO/SETUP    parts of the names, e.g. sigterm, heals/v3-100ms, /v2-1s
  --stack lbd|keepalived   one of the two
  --parallel N             labs at once (4 at adverts of 1 s, 3 at 100 ms, 2 at 10 ms)
  --write                  put the table into docs/failover.md
  --list                   name scenarios and setups, and end";

pub(crate) const SETUPS: [&Setup; 3] = [&V2_1S, &V3_100MS, &V3_10MS];

/// One run to be made.
#[derive(Debug, Clone, Copy)]
struct Job {
    scenario: Scenario,
    setup: &'static Setup,
    stack: Stack,
    /// Made again once when it fails.
    again: bool,
}

/// What was asked for.
struct Options {
    runs: usize,
    scenario: String,
    setup: String,
    stack: String,
    parallel: Option<usize>,
    write: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if has("--list") {
        let scenarios = Scenario::ALL.map(Scenario::word).join(" ");
        let setups = SETUPS.map(|setup| setup.word).join(" ");
        println!("scenarios: {scenarios}\nsetups: {setups}");
        return ExitCode::SUCCESS;
    }
    match sandbox::enter() {
        Ok(Sandbox::Inside(_)) => {}
        Ok(Sandbox::Ended(code)) => return code.into(),
        Err(error) => {
            println!("failover: {error}");
            return ExitCode::FAILURE;
        }
    }
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(why) => {
            println!("failover: {why}\n{HELP}");
            return ExitCode::FAILURE;
        }
    };
    let done = run(&options);
    let text = table::render(&done, options.runs);
    println!("\n{text}");
    if options.write
        && let Err(error) = table::write(&text)
    {
        println!("failover: docs/failover.md: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        runs: 3,
        scenario: String::new(),
        setup: String::new(),
        stack: String::new(),
        parallel: None,
        write: false,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--write" {
            options.write = true;
            continue;
        }
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_not| format!("{word} {value}: a number"))
        };
        match word.as_str() {
            "--runs" => options.runs = number()?,
            "--parallel" => options.parallel = Some(number()?),
            "--stack" => options.stack.clone_from(value),
            "--only" => {
                let (scenario, setup) = value.split_once('/').unwrap_or((value, ""));
                options.scenario = scenario.to_owned();
                options.setup = setup.to_owned();
            }
            _ => return Err(format!("unknown option {word}")),
        }
    }
    Ok(options)
}

/// All runs; results in the order in which they ended.
fn run(options: &Options) -> Vec<(Job, Seen)> {
    let mut stacks = vec![Stack::Lbd, Stack::Keepalived];
    if !installed("keepalived") || !installed("haproxy") {
        println!("keepalived or haproxy is not installed: lbd alone is measured");
        stacks.truncate(1);
    }
    let word = |stack: &Stack| format!("{stack:?}").to_lowercase();
    stacks.retain(|stack| options.stack.is_empty() || word(stack) == options.stack);
    let begin = clock::now();
    let mut done = Vec::new();
    let setups = SETUPS
        .iter()
        .filter(|setup| setup.word.contains(&options.setup));
    for setup in setups {
        let scenarios = || {
            let all = Scenario::ALL.into_iter();
            all.filter(|scenario| scenario.word().contains(&options.scenario))
        };
        let mut jobs = VecDeque::new();
        for _ in 0..options.runs {
            for scenario in scenarios() {
                jobs.extend(stacks.iter().map(|stack| Job {
                    scenario,
                    setup,
                    stack: *stack,
                    again: true,
                }));
            }
        }
        let parallel = options.parallel.unwrap_or(setup.parallel);
        println!("{}: {} runs, {parallel} at once", setup.word, jobs.len());
        done.extend(work(jobs, parallel));
    }
    println!("took {} s", (clock::now() - begin).as_secs());
    done
}

fn work(jobs: VecDeque<Job>, parallel: usize) -> Vec<(Job, Seen)> {
    let all = jobs.len();
    let jobs = Mutex::new(jobs);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..parallel.clamp(1, 16) {
            let (jobs, done) = (&jobs, &done);
            scope.spawn(move || {
                // Not all at the same moment of their lives.
                thread::sleep(Duration::from_millis(700) * u32::try_from(number).unwrap_or(0));
                while let Some(job) = next(jobs) {
                    let begin = clock::now();
                    let seen = catch_unwind(AssertUnwindSafe(|| {
                        measure(job.stack, job.scenario, job.setup)
                    }));
                    let took = (clock::now() - begin).as_secs_f32();
                    let name = format!(
                        "{:<8} {:<16} {:<10}",
                        job.setup.word,
                        job.scenario.word(),
                        format!("{:?}", job.stack).to_lowercase(),
                    );
                    let Ok(seen) = seen else {
                        println!("{name} failed after {took:.1} s");
                        if job.again {
                            let again = Job {
                                again: false,
                                ..job
                            };
                            lock(jobs).push_back(again);
                        }
                        continue;
                    };
                    let mut done = lock(done);
                    let line = table::one(&seen);
                    done.push((job, seen));
                    println!("[{:>3}/{all}] {name} {line} ({took:.1} s)", done.len());
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn next(jobs: &Mutex<VecDeque<Job>>) -> Option<Job> {
    lock(jobs).pop_front()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
