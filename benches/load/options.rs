//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cells::Sizes;
use crate::gates::Limits;
use crate::roles::Role;
use crate::targets::{Extra, Kind};
use crate::workload::{Family, Workload};

/// Compare lbd with HAProxy, nginx and no proxy at all, side by side on this machine.
///
/// As root it measures inside three network namespaces of its own and leaves the host alone;
/// otherwise over loopback. Every byte is checked on both ends.
#[derive(Parser)]
#[command(name = "benches/compare")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    /// The HAProxy to compare with; given again, further ones beside it (the first is the
    /// reference)
    #[arg(long, value_name = "PATH", default_value = "haproxy")]
    pub(crate) haproxy: Vec<PathBuf>,
    /// The nginx, with its stream module; left out when there is none
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    pub(crate) nginx: PathBuf,
    /// The lbd to measure (default: the one the wrapper has built)
    #[arg(long, value_name = "PATH", default_value = "target/release/lbd")]
    pub(crate) lbd: PathBuf,
    /// Threads of each program, or several numbers to measure one after the other; with more
    /// threads than spare CPUs nothing is pinned [default: 1, full 1,2]
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// What to compare
    #[arg(long, value_enum, value_delimiter = ',')]
    targets: Vec<Kind>,
    /// Another program, called NAME; COMMAND gets the address to listen on and those of the servers
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) extra: Vec<Extra>,
    /// Rounds [default: 8, quick 6, full 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Measured time of a cell in milliseconds [default: 1000, quick 500]
    #[arg(long, value_name = "MS")]
    window: Option<u64>,
    /// Clients of the storm [default: 5000, quick 3000]
    #[arg(long, value_name = "N")]
    storm: Option<usize>,
    /// Connections of the idle test [default: 2000, full 9000 or what the descriptor limit allows]
    #[arg(long, value_name = "N")]
    idle: Option<usize>,
    /// No further round is begun that would not end within so many seconds
    /// [default: 210, quick 85, full 840]
    #[arg(long, value_name = "S")]
    budget: Option<u64>,
    /// Fewer and shorter rounds: done within 90 seconds
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// Every workload, every program, 1 and 2 threads: within 15 minutes
    #[arg(long)]
    pub(crate) full: bool,
    /// Exit with 1 when lbd misses a limit: `--gate` for what is promised against the HAProxy at
    /// hand (there are limits for 2.6 and for 3.x), `--gate=floor` for what a busy machine must
    /// still reach
    #[arg(
        long,
        value_name = "LIMITS",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "promised"
    )]
    pub(crate) gate: Option<Limits>,
    /// Pin nothing: everybody shares all CPUs
    #[arg(long)]
    pub(crate) shared: bool,
    /// Only show that the checks can fail: measure servers that send wrong, missing, repeated and
    /// additional bytes, and see each noticed
    #[arg(long)]
    pub(crate) self_test: bool,
    /// Write every cell here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the results as SVG into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Replace the marked tables in this file, and the plots in the folder named like it
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
    /// Where configuration and logs of the programs go; removed by the wrapper
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn threads(&self) -> Vec<usize> {
        match (self.threads.is_empty(), self.full) {
            (false, _) => self.threads.clone(),
            (true, true) => vec![1, 2],
            (true, false) => vec![1],
        }
    }

    /// The workloads for one number of threads. Unless it was told, a full run measures with
    /// further threads only what threads change.
    pub(crate) fn workloads(&self, is_first: bool) -> Vec<Workload> {
        use Workload as W;
        if !self.workloads.is_empty() {
            return self.workloads.clone();
        }
        let usual = [
            W::Short,
            W::Persistent,
            W::Bulk,
            W::Bulk16,
            W::Storm,
            W::Idle,
        ];
        let every = [
            W::Short,
            W::ShortPaced,
            W::Persistent1,
            W::Persistent,
            W::Persistent1000,
            W::Latency,
            W::Bulk,
            W::Bulk16,
            W::BulkUp,
            W::BulkUp16,
            W::Mixed,
            W::Mixed4,
            W::Storm,
            W::Idle,
            W::Stalled,
            W::SlowReaders,
        ];
        let threaded = |workload: &W| {
            is_first || workload.family() == Family::Rate && *workload != W::Persistent1
        };
        match self.full {
            true => every.into_iter().filter(threaded).collect(),
            false => usual.to_vec(),
        }
    }

    pub(crate) fn targets(&self) -> Vec<Kind> {
        if !self.targets.is_empty() {
            return self.targets.clone();
        }
        let mut kinds = vec![Kind::Direct, Kind::Haproxy, Kind::HaproxySplice];
        if self.full {
            kinds.extend([Kind::HaproxyLog, Kind::Nginx]);
        }
        kinds.push(Kind::Lbd);
        if self.full {
            kinds.push(Kind::LbdLog);
        }
        kinds
    }

    pub(crate) fn rounds(&self) -> usize {
        let default = match (self.quick, self.full) {
            (true, _) => 6,
            (false, true) => 5,
            (false, false) => 8,
        };
        self.rounds.unwrap_or(default)
    }

    pub(crate) fn budget(&self) -> Duration {
        let default = match (self.quick, self.full) {
            (true, _) => 85,
            (false, true) => 840,
            (false, false) => 210,
        };
        Duration::from_secs(self.budget.unwrap_or(default))
    }

    /// `files`: how many descriptors a process may have. A proxy needs two for each connection.
    pub(crate) fn sizes(&self, files: u64) -> Sizes {
        let window = self.window.unwrap_or(if self.quick { 500 } else { 1_000 });
        let room = usize::try_from(files.saturating_sub(2_000) / 2).unwrap_or(2_000);
        let idle = if self.full { 9_000 } else { 2_000 };
        let storm = if self.quick { 3_000 } else { 5_000 };
        Sizes {
            window: Duration::from_millis(window),
            storm: self.storm.unwrap_or(storm).min(room),
            idle: self.idle.unwrap_or(idle).min(room),
        }
    }
}
