//! The results as a table in Markdown, and its place in docs/failover.md.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::lab::scenario::{Scenario, Seen, Stack};
use super::{Job, SETUPS};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";
/// Stands for what never ended.
const NEVER: Duration = Duration::MAX;

/// One run on one line.
pub(crate) fn one(seen: &Seen) -> String {
    format!(
        "gap {}, {} failed ({} refused), {} lost, two holders {}",
        ms(seen.gap.unwrap_or(NEVER), "never ends"),
        seen.failed,
        seen.refused,
        seen.lost,
        ms(seen.double.unwrap_or(NEVER), "for ever"),
    )
}

/// The table, with the machine and the number of runs above it.
pub(crate) fn render(done: &[(Job, Seen)], runs: usize) -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let mut text = format!(
        "Median / worst of {runs} runs on {cpus} processors, Linux {}, lbd a {build} build.\n\n\
         | event | setup | stack | runs | gap | failed | lost of 5 | old node kept | two holders |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        kernel.trim()
    );
    for scenario in Scenario::ALL {
        for setup in SETUPS {
            for stack in [Stack::Lbd, Stack::Keepalived] {
                let of = |job: &Job| {
                    (job.scenario, job.setup.word, job.stack) == (scenario, setup.word, stack)
                };
                let seen = done.iter().filter(|(job, _)| of(job));
                let seen: Vec<&Seen> = seen.map(|(_, seen)| seen).collect();
                if !seen.is_empty() {
                    text.push_str(&row(scenario, setup.word, stack, &seen));
                }
            }
        }
    }
    text
}

fn row(scenario: Scenario, setup: &str, stack: Stack, seen: &[&Seen]) -> String {
    let stack = match stack {
        Stack::Lbd => "lbd",
        Stack::Keepalived => "keepalived + HAProxy",
    };
    let durations = |of: fn(&Seen) -> Option<Duration>, never: &str| {
        let (median, worst) = spread(seen.iter().map(|one| of(one).unwrap_or(NEVER)));
        format!("{} / {}", ms(median, never), ms(worst, never))
    };
    let counts = |of: fn(&Seen) -> usize| {
        let (median, worst) = spread(seen.iter().map(|one| of(one)));
        format!("{median} / {worst}")
    };
    // A node that nobody can reach holds its address as it likes.
    let unreachable = scenario == Scenario::Vanishes;
    let double = if unreachable {
        "–".to_owned()
    } else {
        durations(|one| one.double, "for ever")
    };
    let kept = if unreachable {
        "cut off".to_owned()
    } else {
        durations(|one| one.kept, "stays")
    };
    let mut row = String::new();
    // Writing to a String can't fail.
    writeln!(
        row,
        "| {} | {setup} | {stack} | {} | {} | {} | {} | {kept} | {double} |",
        scenario.title(),
        seen.len(),
        durations(|one| one.gap, "never ends"),
        counts(|one| one.failed),
        counts(|one| one.lost),
    )
    .unwrap_or_default();
    row
}

fn ms(duration: Duration, never: &str) -> String {
    if duration == NEVER {
        return never.to_owned();
    }
    format!("{} ms", duration.as_millis())
}

/// Median (the lower of two) and largest.
fn spread<T: Ord + Copy>(values: impl Iterator<Item = T>) -> (T, T) {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let last = values.len() - 1;
    (values[last / 2], values[last])
}

/// Replaces what stands between the marks of docs/failover.md.
pub(crate) fn write(table: &str) -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failover.md");
    let text = std::fs::read_to_string(&path)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| std::io::Error::other("no marks"))?;
    std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))
}
