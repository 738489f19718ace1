//! The results as tables in Markdown, and their places in docs/health.md.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use lbd::net::clock;

use super::client::PATIENCE;
use super::faults::{Fault, Seen};
use super::targets::Target;

/// One run on one line.
pub fn one(seen: &Seen) -> String {
    let Seen {
        attempts,
        lost,
        held,
        told_count,
        innocent,
        endings,
        ..
    } = seen;
    format!(
        "{lost} of {attempts} lost ({endings}), slowest {}, p99 {}, calm {}, marked {}, told {} \
         ({told_count} of {held}), others told {innocent}",
        took(seen.slowest),
        took(seen.p99),
        took(seen.calm),
        maybe(seen.marked, "never"),
        maybe(seen.told, "never"),
    )
}

pub fn faults(done: &[(Fault, Target, Seen)]) -> String {
    let mut text = String::from(
        "| the second server … | | new connections lost | slowest | p99 | slowest before | marked down after | \
         its established clients told after | told of them | others broken |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for fault in Fault::ALL {
        for target in Target::ALL {
            let of = |one: &&(Fault, Target, Seen)| (one.0, one.1) == (fault, target);
            let seen: Vec<&Seen> = done.iter().filter(of).map(|one| &one.2).collect();
            if !seen.is_empty() {
                text.push_str(&row(fault, target, &seen));
            }
        }
    }
    text
}

fn row(fault: Fault, target: Target, seen: &[&Seen]) -> String {
    let longest = |of: fn(&Seen) -> Option<Duration>| {
        maybe(
            median(seen.iter().map(|one| of(one).unwrap_or(Duration::MAX)))
                .filter(|one| *one < Duration::MAX),
            "–",
        )
    };
    let number = |of: fn(&Seen) -> usize| median(seen.iter().map(|one| of(one))).unwrap_or(0);
    let worst = seen.iter().map(|one| one.lost).max().unwrap_or(0);
    let slowest = seen.iter().map(|one| one.slowest).max();
    format!(
        "| {} | {} | {} (worst {worst}) of {} | {} (worst {}) | {} | {} | {} | {} | {} of {} | {} |\n",
        fault.title(),
        target.title(),
        number(|one| one.lost),
        number(|one| one.attempts),
        longest(|one| Some(one.slowest)),
        maybe(slowest, "–"),
        longest(|one| Some(one.p99)),
        longest(|one| Some(one.calm)),
        longest(|one| one.marked),
        longest(|one| one.told),
        number(|one| one.told_count),
        number(|one| one.held),
        number(|one| one.innocent),
    )
}

/// The lower of the two in the middle.
pub fn median<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let middle = values.len().saturating_sub(1) / 2;
    values.into_iter().nth(middle)
}

pub fn took(duration: Duration) -> String {
    match duration.as_secs_f64() {
        _ if duration >= PATIENCE => "10 s (gave up)".to_owned(),
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 0.01 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{:.1} ms", seconds * 1e3),
    }
}

/// The same for what may not have happened, and may have taken longer.
pub fn maybe(duration: Option<Duration>, never: &str) -> String {
    match duration {
        None => never.to_owned(),
        Some(long) if long >= PATIENCE => format!("{:.1} s", long.as_secs_f64()),
        Some(short) => took(short),
    }
}

/// Replaces what stands between the marks of each table, and the line about the run.
///
/// # Errors
/// When the file can't be read or written, or has no marks.
pub fn write(
    document: &str,
    tables: &[(&str, String)],
    words: &str,
    runs: usize,
) -> std::io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let mut text = std::fs::read_to_string(&path)?;
    let about = about(words, runs);
    for (name, table) in tables {
        let begin = format!("<!-- {name}: begin -->\n");
        let end = format!("<!-- {name}: end -->\n");
        let parts = text.split_once(&begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(&end)?;
            Some((before, after))
        });
        let (before, after) =
            parts.ok_or_else(|| std::io::Error::other(format!("no marks for {name}")))?;
        text = format!("{before}{begin}{about}\n\n{table}{end}{after}");
    }
    std::fs::write(path, text)
}

fn about(words: &str, runs: usize) -> String {
    let cpus = thread_count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let rounds = match runs {
        1 => "one round".to_owned(),
        many => format!("medians of {many} rounds"),
    };
    format!(
        "{}, `tests/faults {words}`: {rounds}, {cpus} processors, Linux {}, lbd a \
         {build} build.",
        date(),
        kernel.trim()
    )
}

fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Today, in UTC: the civil calendar from the number of days.
fn date() -> String {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut days = since.as_secs() / 86_400;
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}
