//! What is measured: the workloads, their names, units, and which program takes part. Pure.

use clap::ValueEnum;

use crate::targets::Kind;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Workload {
    /// Connect, 1 KiB up, 2 KiB down, close; 64 at a time.
    Short,
    /// The same at a fixed rate, counted from when each was due.
    ShortPaced,
    /// 1 KiB up, 2 KiB down, again and again over one connection.
    Persistent1,
    /// The same over 64 connections.
    Persistent,
    /// The same over 1,000 connections.
    Persistent1000,
    /// 4,000 such requests per second over 64 connections, counted from when each was due.
    Latency,
    /// One download.
    Bulk,
    /// Sixteen downloads.
    Bulk16,
    /// One upload.
    BulkUp,
    /// Sixteen uploads.
    BulkUp16,
    /// Requests over 64 connections without and with a download beside them.
    Mixed,
    /// The same with four downloads.
    Mixed4,
    /// Everybody connects at once: time until all have their answer.
    Storm,
    /// User memory of a silent connection.
    Idle,
    /// User memory for a client that reads nothing of a long answer.
    Stalled,
    /// The same for a client that reads slowly.
    SlowReaders,
}

/// Workloads that are shown in the same columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// As much as goes.
    Rate,
    /// Requests at a fixed rate.
    Paced,
    /// Requests beside bulk.
    Mixed,
    /// User memory, of fresh processes.
    Memory,
}

/// How a workload is told.
pub(crate) struct Words {
    pub(crate) title: &'static str,
    /// What is counted, and the CPU time it costs.
    pub(crate) speed: &'static str,
    pub(crate) each: &'static str,
    /// From seconds to the unit of `each`.
    pub(crate) scale: f64,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::ShortPaced => "short-paced",
            Self::Persistent1 => "persistent1",
            Self::Persistent => "persistent",
            Self::Persistent1000 => "persistent1000",
            Self::Latency => "latency",
            Self::Bulk => "bulk",
            Self::Bulk16 => "bulk16",
            Self::BulkUp => "bulk-up",
            Self::BulkUp16 => "bulk-up16",
            Self::Mixed => "mixed",
            Self::Mixed4 => "mixed4",
            Self::Storm => "storm",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::SlowReaders => "slow-readers",
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Short
            | Self::Persistent1
            | Self::Persistent
            | Self::Persistent1000
            | Self::Bulk
            | Self::Bulk16
            | Self::BulkUp
            | Self::BulkUp16
            | Self::Storm => Family::Rate,
            Self::ShortPaced | Self::Latency => Family::Paced,
            Self::Mixed | Self::Mixed4 => Family::Mixed,
            Self::Idle | Self::Stalled | Self::SlowReaders => Family::Memory,
        }
    }

    pub(crate) fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::Bulk | Self::Bulk16 | Self::BulkUp | Self::BulkUp16
        )
    }

    /// Whether `kind` takes part: not where it would show nothing of its own.
    pub(crate) fn measures(self, kind: Kind) -> bool {
        let logged = matches!(self, Self::Short | Self::ShortPaced | Self::Storm);
        match kind {
            Kind::Direct => self.family() != Family::Memory,
            Kind::HaproxySplice => self.is_bulk() || self.family() == Family::Mixed,
            Kind::HaproxyLog | Kind::LbdLog => logged,
            Kind::Haproxy | Kind::Nginx | Kind::Lbd | Kind::Extra => true,
        }
    }

    pub(crate) fn words(self) -> Words {
        let (speed, each, scale) = match self {
            Self::Short | Self::ShortPaced => ("conn/s", "CPU µs/conn", 1e6),
            Self::Persistent1
            | Self::Persistent
            | Self::Persistent1000
            | Self::Latency
            | Self::Mixed
            | Self::Mixed4 => ("req/s", "CPU µs/req", 1e6),
            Self::Bulk | Self::Bulk16 | Self::BulkUp | Self::BulkUp16 => ("GB/s", "CPU ms/GB", 1e3),
            Self::Storm => ("ms", "CPU µs/conn", 1e6),
            Self::Idle | Self::Stalled | Self::SlowReaders => ("", "", 1.0),
        };
        Words {
            title: self.title(),
            speed,
            each,
            scale,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Short => "connect, 1 KiB up, 2 KiB down, close; 64 at a time",
            Self::ShortPaced => "3,000 such connections per second, from when each was due",
            Self::Persistent1 => "1 KiB up, 2 KiB down, again; one connection",
            Self::Persistent => "1 KiB up, 2 KiB down, again; 64 connections",
            Self::Persistent1000 => "1 KiB up, 2 KiB down, again; 1,000 connections",
            Self::Latency => {
                "4,000 requests per second over 64 connections, from when each was due"
            }
            Self::Bulk => "download, one stream",
            Self::Bulk16 => "download, 16 streams",
            Self::BulkUp => "upload, one stream",
            Self::BulkUp16 => "upload, 16 streams",
            Self::Mixed => "requests over 64 connections, alone and beside one download",
            Self::Mixed4 => "requests over 64 connections, alone and beside four downloads",
            Self::Storm => "all clients at once: ms until all have their answer",
            Self::Idle => "user memory of a connection that is silent",
            Self::Stalled => "user memory for a client that reads nothing of 16 MiB; 100 of them",
            Self::SlowReaders => {
                "user memory for a client that reads 0.8 MB/s of 8 MiB; 100 of them"
            }
        }
    }
}
