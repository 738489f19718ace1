//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cells::{Sizes, Workload};
use crate::extra::Extra;
use crate::gates::Limits;
use crate::roles::Role;
use crate::targets::Kind;

/// Compare lbd with HAProxy and with no proxy at all, side by side on this machine.
///
/// As root it measures inside three network namespaces of its own and leaves the host alone;
/// otherwise over loopback. Every byte is checked on both ends.
#[derive(Parser)]
#[command(name = "benches/compare")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    /// The HAProxy to compare with
    #[arg(long, value_name = "PATH", default_value = "haproxy")]
    pub(crate) haproxy: PathBuf,
    /// The lbd to measure (default: the one the wrapper has built)
    #[arg(long, value_name = "PATH", default_value = "target/release/lbd")]
    pub(crate) lbd: PathBuf,
    /// Threads of each program; with more threads than spare CPUs nothing is pinned
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = default_workloads())]
    pub(crate) workloads: Vec<Workload>,
    /// What to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = default_targets())]
    pub(crate) targets: Vec<Kind>,
    /// Another program to compare; it gets the address to listen on and those of the servers
    #[arg(long, value_name = "NAME=COMMAND")]
    pub(crate) extra: Vec<Extra>,
    /// Rounds [default: 8, quick 6]
    #[arg(long)]
    rounds: Option<usize>,
    /// Measured time of a cell in milliseconds [default: 1000, quick 500]
    #[arg(long, value_name = "MS")]
    window: Option<u64>,
    /// Clients of the storm [default: 3000]
    #[arg(long, value_name = "N")]
    storm: Option<usize>,
    /// Connections of the idle test [default: 2000]
    #[arg(long, value_name = "N")]
    idle: Option<usize>,
    /// No further round is begun after this many seconds [default: 210, quick 75]
    #[arg(long, value_name = "S")]
    budget: Option<u64>,
    /// Fewer and shorter rounds: done within 90 seconds
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit with 1 when lbd misses a limit against Debian's HAProxy 2.6: `--gate` for what is
    /// promised, `--gate=floor` for what a busy machine must still reach
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
    /// Replace the marked table in this file
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
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 6 } else { 8 })
    }

    pub(crate) fn budget(&self) -> Duration {
        let default = if self.quick { 75 } else { 210 };
        Duration::from_secs(self.budget.unwrap_or(default))
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let window = self.window.unwrap_or(if self.quick { 500 } else { 1_000 });
        Sizes {
            window: Duration::from_millis(window),
            storm: self.storm.unwrap_or(3_000),
            idle: self.idle.unwrap_or(2_000),
        }
    }
}

fn default_workloads() -> Vec<Workload> {
    vec![
        Workload::Short,
        Workload::Persistent,
        Workload::Bulk,
        Workload::Bulk16,
        Workload::Storm,
        Workload::Idle,
    ]
}

fn default_targets() -> Vec<Kind> {
    vec![Kind::Direct, Kind::Haproxy, Kind::HaproxySplice, Kind::Lbd]
}
