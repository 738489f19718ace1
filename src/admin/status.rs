//! What this node is doing, as one value: the JSON of `lbd status -o json` and `/status.json`, and
//! the source of the table, the headline and the metrics. Pure.

use serde::{Deserialize, Serialize};

use super::measures::{ProcessMeasures, ProxyMeasures, ServerMeasures};
use crate::ipc::confinement::Confinement;
use crate::ipc::message::VrrpStatus;

/// The version of the JSON form; it changes when a field changes its meaning or goes away.
pub const FORMAT_VERSION: u32 = 1;

/// A keeper that said nothing for this long is reported as silent, milliseconds; it speaks each
/// 500 ms.
pub const KEEPER_SILENT_MS: u64 = 2_000;

/// This node at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT_VERSION`].
    pub v: u32,
    /// What is going on, and what is wrong, in one line.
    pub headline: String,
    /// What is wrong, one entry each; empty when all is well.
    pub problems: Vec<String>,
    /// The process that answers.
    pub process: ProcessStatus,
    /// The keeper's last word; `None`: it has not spoken yet.
    pub vrrp: Option<VrrpStatus>,
    /// One per `[proxy.NAME]`.
    pub proxies: Vec<ProxyStatus>,
    /// What each process of lbd may do, as it says itself.
    #[serde(default)]
    pub sandbox: Vec<Confinement>,
}

/// The proxy process and its tie to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// lbd's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// `--node`, if given.
    pub node: Option<String>,
    /// What this node is called in lb.toml, if it takes part in an election and has a name there.
    #[serde(default)]
    pub name: Option<String>,
    /// The path lb.toml was read from.
    pub config_path: String,
    /// Counts proxy processes started by one keeper, from 1.
    pub generation: u32,
    /// Milliseconds since it began.
    pub uptime_ms: u64,
    /// Whether it accepts connections.
    pub serving: bool,
    /// Milliseconds since the keeper's last word; `None`: it is not connected.
    pub keeper_heard_ms: Option<u64>,
    /// Client connections.
    pub connections: u64,
    /// `limits.max-connections`, or what it was derived to be.
    pub max_connections: u64,
    /// Worker threads.
    pub workers: u64,
    /// The CPU that each of them stays on; empty: they are not pinned.
    #[serde(default)]
    pub worker_cpus: Vec<u64>,
    /// How often the data path ran out of something, by what it was.
    #[serde(default)]
    pub shortages: Vec<(String, u64)>,
    /// Log lines that could not be delivered.
    pub log_dropped: u64,
    /// Access-log lines that could not be delivered.
    pub access_log_dropped: u64,
    /// What only metrics show.
    #[serde(skip)]
    pub measures: ProcessMeasures,
}

/// One `[proxy.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its name.
    pub name: String,
    /// Where it listens, as written in lb.toml.
    pub listen: Vec<String>,
    /// Whether every server has a verdict.
    pub probed: bool,
    /// Servers that may take new connections.
    pub usable: u64,
    /// Every server that is up is held back, and they are used all the same.
    #[serde(default)]
    pub panic: bool,
    /// Client connections, queued ones included.
    pub connections: u64,
    /// `max-connections`; `None`: the process limit alone.
    pub max_connections: Option<u64>,
    /// Connections that wait for a server.
    pub queue: u64,
    /// How many may wait.
    pub max_queue: u64,
    /// Its clients' sources; `None`: without `per-source` they are not counted.
    #[serde(default)]
    pub sources: Option<SourcesStatus>,
    /// Counters since the process began.
    pub totals: ProxyTotals,
    /// Its servers: those of the file, and those that came at run time.
    pub servers: Vec<ServerStatus>,
    /// Where further servers come from; empty: lb.toml names all.
    #[serde(default)]
    pub discovery: Vec<DiscoveryStatus>,
    /// Servers that were removed and have connections still.
    #[serde(default)]
    pub leaving: Vec<LeavingStatus>,
    /// Servers of the file that an operator removed.
    #[serde(default)]
    pub removed: Vec<String>,
    /// What only metrics show.
    #[serde(skip)]
    pub measures: ProxyMeasures,
}

/// A server that was removed and has connections still.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeavingStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Connections it has.
    pub connections: u64,
}

/// The sources of a proxy's clients: IPv4 addresses and IPv6 networks of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourcesStatus {
    /// Those that are remembered.
    pub known: u64,
    /// Those that have a connection.
    pub connected: u64,
    /// Those with most connections, most first, then those that came most often.
    pub top: Vec<TalkerStatus>,
}

/// One source that stands out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TalkerStatus {
    /// The address, or the network.
    pub source: String,
    /// Connections now.
    pub connections: u64,
    /// Connections let in since it is remembered.
    pub accepted: u64,
    /// Connections refused since.
    pub refused: u64,
}

/// Counters of a proxy since the process began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyTotals {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that ended without any fault.
    pub finished: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Bytes of both kinds that went through splice(2).
    pub bytes_spliced: u64,
    /// Connections that went through the queue and got a server.
    pub queued: u64,
    /// Time those spent in the queue, microseconds.
    pub queue_micros: u64,
    /// Connections that ended with a fault, by what it was; constant words of the code.
    pub failed: Vec<(String, u64)>,
    /// Connections that a worker accepted for another one that was busy.
    #[serde(default)]
    pub helped: u64,
    /// Times listeners rested because a limit was reached.
    pub limit_reached: u64,
    /// PROXY headers that were believed.
    #[serde(default)]
    pub headers: u64,
}

/// A server's state as users read it: what the operator wants stands before what checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// No verdict yet.
    #[default]
    Unknown,
    /// Takes connections.
    Up,
    /// Checks say no.
    Down,
    /// The operator: no new connections.
    Drain,
    /// The operator: out of service.
    Maint,
}

impl ServerState {
    /// The word users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// All of them, for one-hot metrics.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Up,
        Self::Down,
        Self::Drain,
        Self::Maint,
    ];
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its state.
    pub state: ServerState,
    /// Milliseconds since checks last changed their verdict.
    pub since_ms: u64,
    /// `ready`, `not-ready` or `unresponsive`: what the last probe found.
    pub verdict: Option<String>,
    /// Why the last probe was no success.
    pub reason: Option<String>,
    /// Results in a row, and how many of them turn the verdict.
    pub counter: (u16, u16),
    /// Milliseconds since the last probe was finished.
    pub checked_ms: Option<u64>,
    /// Microseconds the last probe took.
    pub check_micros: Option<u64>,
    /// Finished probes.
    pub checks: u64,
    /// Those that were no success.
    pub check_failures: u64,
    /// Changes of verdict.
    pub transitions: u64,
    /// `file`, `operator` or `discovered`: who made it a member.
    #[serde(default)]
    pub origin: String,
    /// `ready`, `drain` or `maint`: the operator's word.
    #[serde(default)]
    pub admin: String,
    /// Present weight.
    pub weight: u64,
    /// The weight it came with, where an operator's stands before it.
    #[serde(default)]
    pub own_weight: Option<u64>,
    /// Milliseconds of slowstart already passed; `None`: not ramping.
    pub ramp_ms: Option<u64>,
    /// Connections to it.
    pub connections: u64,
    /// `max-connections`, with slowstart applied; `None`: unlimited.
    pub max_connections: Option<u64>,
    /// Connections it has accepted since the process began.
    pub connected: u64,
    /// Time those connects took, microseconds.
    pub connect_micros: u64,
    /// Connects it refused or that failed.
    pub connect_errors: u64,
    /// Connects without an answer in time.
    pub connect_timeouts: u64,
    /// Failed connects after which the connection went elsewhere.
    pub redispatches: u64,
    /// Connects without an answer that got a second one beside them, on another server.
    pub hedges: u64,
    /// Second connects that it answered first.
    pub hedges_won: u64,
    /// Connections closed because other servers have fewer.
    #[serde(default)]
    pub rebalanced: u64,
    /// Bytes to it.
    pub bytes_in: u64,
    /// Bytes from it.
    pub bytes_out: u64,
    /// Connections it broke off.
    pub aborts: u64,
    /// What stands behind its state, and beside it.
    #[serde(default)]
    pub standing: ServerStanding,
    /// What only metrics show.
    #[serde(skip)]
    pub measures: ServerMeasures,
}

/// What checks in a row and real traffic have made of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStanding {
    /// `ready`, `not-ready` or `unresponsive`, by the rules of the check; `None`: no verdict yet.
    pub verdict: Option<String>,
    /// Milliseconds since it was ejected for what traffic told; `None`: it is not.
    pub ejected_ms: Option<u64>,
    /// Why it was ejected.
    pub ejected_for: Option<String>,
    /// Successful checks in a row that it still needs to be believed after many outages; 0: it is.
    pub missing: u64,
    /// Its established connections are being closed.
    pub closing: bool,
    /// How often traffic made it suspect.
    pub suspicions: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

impl ServerStanding {
    /// Why it takes no new connections although it is up, for people; `None`: it takes them.
    #[must_use]
    pub fn held_back(&self) -> Option<String> {
        match (self.ejected_ms, self.missing) {
            (Some(ms), _) => Some(format!("ejected {}", short_time(ms))),
            (None, 0) => None,
            (None, missing) => Some(format!("not believed yet, {missing} checks to go")),
        }
    }
}

/// A source of servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiscoveryStatus {
    /// `file`, `dns` or `kubernetes`.
    pub kind: String,
    /// Which: a path, `NAME:PORT`, or `NAMESPACE/SERVICE`.
    pub source: String,
    /// Servers it found last.
    pub servers: u64,
    /// Milliseconds since it last had a good word; `None`: never.
    pub heard_ms: Option<u64>,
    /// Milliseconds since its servers changed; `None`: it never had any.
    pub changed_ms: Option<u64>,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Words that were no good, since the process began.
    pub failures: u64,
}

/// A time span for people: `0.4s`, `12s`, `3m02s`, `5h10m`, `3d4h`.
#[must_use]
pub fn short_time(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A number of bytes for people: `512 B`, `1.5 KiB`, `3.2 GiB`.
#[must_use]
pub fn short_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut whole = bytes;
    let mut tenths = 0;
    let mut unit = 0;
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        tenths = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("PiB");
    if unit == 0 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenths} {name}")
    }
}
