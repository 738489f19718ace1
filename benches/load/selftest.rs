//! Shows that the checks can fail: servers that lie must be noticed, honest ones not accused.

use std::error::Error;
use std::time::Duration;

use crate::backend::Lie;
use crate::client::{Load, Then};
use crate::lab::{Lab, usable_cpus};
use crate::options::Options;
use crate::pattern::Pattern;
use crate::targets::small;

/// False when a lie of the servers goes unnoticed, or an honest server is accused.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let lies = [
        (None, ""),
        (Some(Lie::WrongByte), "wrong byte"),
        (Some(Lie::Shifted), "wrong byte"),
        (Some(Lie::Short), "closed early"),
        (Some(Lie::Long), "too many bytes"),
        (Some(Lie::Doubt), "backend: wrong byte"),
    ];
    let pattern = Pattern::new();
    let usable = usable_cpus()?;
    let threads = options.threads().first().copied().unwrap_or(1);
    let mut good = true;
    for (lie, expected) in lies {
        let mut lab = Lab::open(&usable, threads, true, lie)?;
        let mut load = Load::new(lab.direct.clone(), &pattern)?;
        load.open(small(Then::Close), 32);
        load.run_until_done(32, Duration::from_secs(2))?;
        let counts = load.finish(Duration::from_secs(1))?;
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
