//! `benches/micro`: what the parts of lbd cost, in instructions. Each case runs in a process of its
//! own under valgrind's callgrind, which counts exactly what runs inside [`measured`]; so a busy
//! machine changes nothing, and one percent more is one percent more. What it can't see: the
//! kernel, caches and branches. Those are benches/compare's.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result goes to standard output, talk to standard error"
)]

mod baseline;
mod callgrind;
mod cases;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::baseline::{Baseline, Verdict};
use crate::cases::Case;

/// What to do with the numbers.
#[derive(Debug, Parser)]
#[command(
    name = "benches/micro",
    about = "Instructions per operation, by part of lbd"
)]
struct Options {
    /// Ends with 1 when a case costs more than the baseline allows.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Writes the baseline anew.
    #[arg(long)]
    update: bool,
    /// Only the cases whose names contain this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leaves callgrind's profiles there, for `callgrind_annotate`.
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
    /// The baseline.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "benches/instructions/baseline.toml"
    )]
    baseline: PathBuf,
    /// What built this; counts change with it.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    toolchain: String,
    /// Runs one case that often, in this process.
    #[arg(long, hide = true, value_name = "NAME", requires = "times")]
    run: Option<String>,
    #[arg(long, hide = true)]
    times: Option<u32>,
    /// Cargo's own flag.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match act(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("benches/micro: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(options: &Options) -> Result<bool, Box<dyn Error>> {
    if let (Some(name), Some(times)) = (&options.run, options.times) {
        let case = cases::find(name).ok_or_else(|| format!("no case {name}"))?;
        (case.run)(times)?;
        return Ok(true);
    }
    let wanted = |case: &Case| {
        let only = options.only.as_deref();
        only.is_none_or(|text| case.name.contains(text))
    };
    let chosen: Vec<Case> = cases::all().into_iter().filter(wanted).collect();
    let counts = callgrind::count(&chosen, options.profiles.as_deref())?;
    let measured = Baseline {
        toolchain: options.toolchain.clone(),
        instructions: counts,
    };
    if options.update {
        if options.only.is_some() {
            return Err("--update measures everything; leave --only out".into());
        }
        std::fs::write(&options.baseline, measured.to_text())?;
        println!("{}", measured.to_text());
        return Ok(true);
    }
    let text = std::fs::read_to_string(&options.baseline)?;
    let before = Baseline::parse(&text)?;
    Ok(report(&before, &measured, options))
}

/// Prints the comparison; answers whether it is good.
fn report(before: &Baseline, now: &Baseline, options: &Options) -> bool {
    let tolerance = before.tolerance(now);
    println!(
        "{:>12} {:>12} {:>8}  instructions per",
        "baseline", "now", "change"
    );
    let mut bad = 0;
    for line in before.compare(now, options.only.is_none()) {
        println!("{line}");
        bad += usize::from(line.verdict(tolerance) == Verdict::Bad);
    }
    if before.toolchain != now.toolchain {
        println!(
            "The baseline was made with {}, this with {}: up to {tolerance} % more is let pass.",
            before.toolchain, now.toolchain
        );
    }
    if bad > 0 {
        println!(
            "{bad} cost more than {tolerance} % above the baseline, or are missing in one of the \
             two. If that is meant: `benches/micro --update`, and say in the commit what it buys."
        );
    }
    bad == 0 || !options.check
}

/// The only place where callgrind counts, by this function's name: `op`, so often.
#[inline(never)]
fn measured(times: u32, op: &mut dyn FnMut()) {
    for _ in 0..times {
        op();
    }
}
