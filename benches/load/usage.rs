//! What processes cost: CPU time from the scheduler's own account, user memory from smaps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The processes of one program under test.
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// Every descendant of `root` that runs another program than this one: what was launched, and
    /// all that it started (lbd's keeper, runner and proxy), but not our launchers.
    pub(crate) fn under(root: u32) -> Self {
        let own = fs::read_link("/proc/self/exe").ok();
        let parents: Vec<(u32, u32)> = numeric_entries(Path::new("/proc"))
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let mut family = vec![root];
        let mut seen = 0;
        while let Some(&pid) = family.get(seen) {
            seen += 1;
            family.extend(parents.iter().filter(|(_, p)| *p == pid).map(|(c, _)| *c));
        }
        family.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok() != own);
        Self(family)
    }

    /// No process at all.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Exactly this process.
    pub(crate) fn one(pid: u32) -> Self {
        Self(vec![pid])
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.0.iter().filter_map(|pid| i32::try_from(*pid).ok())
    }

    /// Gives them the weight that this process' session has among the machine's sessions. A
    /// program that begins a session of its own (lbd does) would have another one, and neighbours
    /// would then slow it more than the others.
    pub(crate) fn weigh_like_us(&self) {
        let nice = |pid: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/autogroup")).ok()?;
            Some(text.rsplit_once(' ')?.1.trim().to_owned())
        };
        let Some(ours) = nice("self") else {
            return;
        };
        for pid in self.0.iter().map(ToString::to_string) {
            if nice(&pid).is_some_and(|theirs| theirs != ours)
                && let Err(error) = fs::write(format!("/proc/{pid}/autogroup"), &ours)
            {
                eprintln!("note: process {pid} keeps its weight among sessions: {error}");
            }
        }
    }

    /// CPU time of all threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Descriptors of pipes that they have open.
    pub(crate) fn pipes(&self) -> usize {
        let pipes_of = |pid: &u32| {
            let entries = fs::read_dir(format!("/proc/{pid}/fd"));
            let targets = entries.into_iter().flatten().flatten();
            let targets = targets.filter_map(|entry| fs::read_link(entry.path()).ok());
            targets
                .filter(|target| target.to_string_lossy().starts_with("pipe:"))
                .count()
        };
        self.0.iter().map(pipes_of).sum()
    }

    /// Resident and proportional user memory, in bytes.
    pub(crate) fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for pid in &self.0 {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let rollup = rollup.unwrap_or_default();
            sum.rss += kilobytes(&rollup, "Rss:") * 1024;
            sum.pss += kilobytes(&rollup, "Pss:") * 1024;
        }
        sum
    }
}

/// User memory in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// Shared pages counted by share: the honest sum over processes of one binary.
    pub(crate) pss: u64,
}

impl Memory {
    /// The larger of each.
    pub(crate) fn most(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
        }
    }
}

fn cpu_of(pid: u32) -> Duration {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let nanos = numeric_entries(&tasks).filter_map(|tid| {
        let text = fs::read_to_string(tasks.join(tid.to_string()).join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn kilobytes(rollup: &str, key: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

fn numeric_entries(path: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}
