//! The messages between keeper and proxy, and the snapshot types both show to users.
//! Pure: bytes in, values out.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::command::{Command, LogState, Outcome};
use super::confinement::Confinement;
pub use super::counters::{SpanCounts, VrrpCounters};
use super::event::{Event, Happening};
use super::note::ServerNote;
use super::record::{Record, Tapes};
use super::reload::{PrepareAnswer, ReloadStatus};
pub use super::route::{RouteCounters, RouteStatus};
use super::tally::Page;
pub use super::upgrade::{UpgradeStage, UpgradeStatus};

/// The longest encoded message either side accepts, bytes.
pub const MESSAGE_BYTES_MAX: usize = 160 * 1024;

/// A message that could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// Not a message of this protocol.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
}

/// From the proxy to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// First message after connecting. A proxy that already serves (`serving`) is being adopted:
    /// it hands back its listening sockets in the `Listeners` messages that follow.
    Hello(Hello),
    /// Listening sockets of one `listen` entry, beside the message; adoption only.
    Listeners(ListenerGroup),
    /// All listeners were sent; adoption only. Beside it: the memory that the tapes of this process lie
    /// in, if it has one. See `recorder::blackbox`.
    ListenersDone,
    /// Each 50 ms from the control thread.
    Heartbeat(Heartbeat),
    /// Whether each proxy (by position in the file) can serve; on change and once a second.
    Serving(Vec<ProxyServing>),
    /// What the next proxy process should know; on change, at most 10 a second.
    Snapshot(Vec<ServerSnapshot>),
    /// What operators changed about servers, all of it; on change.
    Notes(Vec<ServerNote>),
    /// Something happened here: for the record.
    Note(Happening),
    /// An operator's order. The answer is a [`ToProxy::Outcome`] with the same number, once it is
    /// known.
    Command {
        /// Chosen by the proxy process, never twice.
        id: u64,
        /// The order.
        command: Command,
    },
    /// A piece of the list of client connections to virtual addresses; the first piece begins a
    /// new list, and the last one completes it. Only where the nodes share it.
    Clients {
        /// Whether a new list begins here.
        first: bool,
        /// Whether it is complete with this.
        last: bool,
        /// At most [`FLOWS_PER_MESSAGE`].
        flows: Vec<ClientFlow>,
    },
    /// The answer to [`ToProxy::Prepare`] with this number.
    Prepared {
        /// The reload's number.
        id: u64,
        /// Whether it can be applied.
        answer: PrepareAnswer,
    },
    /// The answer to [`ToProxy::Commit`]: the new configuration counts here.
    Committed {
        /// The reload's number.
        id: u64,
    },
    /// Beside it: the table of limits that this process has; adoption only. See `proxy::shares`.
    Shares,
    /// What this process counted, and those before it: for the one that took over.
    Tally(Page),
    /// The answer to [`ToProxy::Record`].
    Tapes(Tapes),
}

/// Client connections in one message.
pub const FLOWS_PER_MESSAGE: usize = 1024;
/// Client connections that a node tells of; more are left out.
pub const FLOWS_MAX: usize = 8192;

/// One client's connection to a virtual address: its addresses and ports, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientFlow {
    /// The virtual address.
    pub vip: IpAddr,
    /// Its port.
    pub port: u16,
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
}

/// From the keeper to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToProxy {
    /// The answer to `Hello`. Beside it: a sealed memfd with the text of lb.toml and, for a process that
    /// begins, the memory that its tapes are to lie in: see `recorder::blackbox`.
    Welcome(Welcome),
    /// Listening sockets of one `listen` entry, beside the message.
    Listeners(ListenerGroup),
    /// All listeners were sent: start serving.
    ListenersDone,
    /// State of every virtual router; on change and each 500 ms.
    Vrrp(Box<VrrpStatus>),
    /// The VIP leaves this node: reset (RST) every client connection to these addresses.
    ResetLocal(Vec<IpAddr>),
    /// Probe every server at once: whether this node takes the VIP over waits for it.
    Probe,
    /// What happened, oldest first: all that is kept for a new process, then each event once.
    Events(Vec<Event>),
    /// Stop accepting, let connections finish for at most this many milliseconds, then exit.
    Stop {
        /// Milliseconds; 0 = at once.
        grace_ms: u32,
    },
    /// What became of an order.
    Outcome {
        /// The order's number.
        id: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Get ready for another configuration, changing nothing yet; see [`super::reload`]. Beside it: one
    /// descriptor, a sealed memfd with the text. Then `Listeners` (new sockets) and `ListenersDone`.
    Prepare {
        /// The reload's number, never twice from one keeper.
        id: u64,
    },
    /// Apply what was prepared.
    Commit {
        /// The reload's number.
        id: u64,
    },
    /// Drop what was prepared.
    Abort {
        /// The reload's number.
        id: u64,
    },
    /// A successor serves: close the doors for questions, stop accepting, let connections finish for
    /// at most this many milliseconds, then exit.
    Drain {
        /// Milliseconds.
        grace_ms: u32,
    },
    /// Beside it: the table of limits that proxy processes keep together. Before `ListenersDone`.
    Shares {
        /// This process's column.
        column: u8,
    },
    /// Whether another process serves the same servers, too; before anybody said so, none does.
    Share {
        /// It does.
        shared: bool,
    },
    /// What processes before this one counted.
    Tally(Page),
    /// Another process serves: what it counted comes once it does no more. Before `ListenersDone`.
    Succeeds,
    /// What keeper and runner may do; once for each process, and on change.
    Confined(Vec<Confinement>),
    /// A recording is being written: what were the machines of this process told?
    Record(Record),
}

/// Who connects. Keepers and proxies of different versions meet here: the order of what is in these
/// enums and structs stays, further variants come last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Process id of the proxy; the kernel's peer credentials must agree.
    pub pid: u32,
    /// lbd's version.
    pub version: String,
    /// FNV-1a 64 digest of the configuration text it serves; 0 when it has none yet.
    pub config_digest: u64,
    /// True when it already accepts connections.
    pub serving: bool,
}

/// The keeper's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// `--node` as given to the keeper.
    pub node: Option<String>,
    /// The path lb.toml was read from, for messages.
    pub config_path: String,
    /// Counts proxies started by this keeper, from 1.
    pub generation: u32,
    /// The last proxy's knowledge, possibly empty.
    pub snapshot: Vec<ServerSnapshot>,
    /// What operators changed about servers; `None`: no proxy has told this keeper yet.
    pub notes: Option<Vec<ServerNote>>,
}

/// Which `listen` entry the descriptors beside a message belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerGroup {
    /// Position in `Config::proxies`.
    pub proxy: u16,
    /// Position in that proxy's `listen`.
    pub listen: u16,
    /// Descriptors beside this message; a group larger than 64 comes in several messages.
    pub count: u16,
}

/// Sign of life with what the keeper needs to tell hung from busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up by one.
    pub seq: u64,
    /// One per worker thread.
    pub workers: Vec<WorkerTick>,
}

/// When a worker last came round its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerTick {
    /// Kernel thread id.
    pub tid: u32,
    /// Milliseconds since it last came round.
    pub age_ms: u32,
}

/// Whether one proxy can serve clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyServing {
    /// Every server has had a verdict since this process began (or one young enough was handed over).
    pub probed: bool,
    /// Servers that may take new connections.
    pub usable: u16,
    /// Counts up whenever a probe that was started after the previous count has succeeded
    /// anywhere in this proxy; lets the keeper ask "has a probe succeeded since then?".
    pub probe_epoch: u64,
}

/// What is known of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSnapshot {
    /// Name of the proxy.
    pub proxy: String,
    /// Name of the server.
    pub server: String,
    /// Last verdict.
    pub up: bool,
    /// Milliseconds since the last finished probe, when this was taken.
    pub verdict_age_ms: u64,
    /// Milliseconds of slowstart already passed; `None` when not ramping.
    pub ramp_ms: Option<u64>,
}

/// All virtual routers of this node, for status and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VrrpStatus {
    /// One per `[vip.NAME]`.
    pub vips: Vec<VipStatus>,
    /// One per `[vip.NAME]` with `announce = "route"`.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// Process id of the keeper.
    pub keeper_pid: u32,
    /// Proxy processes started by this keeper.
    pub proxy_starts: u32,
    /// Times this keeper found a proxy runnable but without CPU.
    pub proxy_starved: u64,
    /// Times this keeper found a proxy hung.
    pub proxy_hung: u64,
    /// Whether the keeper runs under real-time scheduling.
    pub realtime: bool,
    /// The keeper's version of lbd.
    #[serde(default)]
    pub keeper_version: String,
    /// Proxy processes that were succeeded and still have connections.
    #[serde(default)]
    pub draining: u32,
    /// The last `lbd upgrade`, as far as it has come.
    #[serde(default)]
    pub upgrade: Option<UpgradeStatus>,
    /// The channel between nodes; `None`: no `[peer]` in the file.
    pub channel: Option<ChannelStatus>,
    /// What is logged, where an operator changed that.
    #[serde(default)]
    pub log: Option<LogState>,
    /// Reloads of the configuration.
    #[serde(default)]
    pub reload: ReloadStatus,
}

/// The channel between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Why it is out of order, although the file asks for it.
    pub fault: Option<String>,
    /// Keys in force, 0 to 2.
    pub keys: u8,
    /// Messages sent.
    pub sent: u64,
    /// Messages that could not be sent.
    pub failed: u64,
    /// Messages believed.
    pub received: u64,
    /// Messages not believed, by reason; the reasons are constant words of the code.
    pub rejected: Vec<(String, u64)>,
    /// Client connections on this node that the others are told of.
    pub clients: u64,
    /// Packets sent to wake clients of a node that died.
    pub tickles: u64,
    /// The other nodes.
    pub nodes: Vec<NodeView>,
}

/// Another node as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name in the file, or its address.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether it has spoken lately.
    pub reachable: bool,
    /// Milliseconds since its last message that was believed; `None`: never.
    pub heard_ms: Option<u64>,
    /// Its version of lbd; empty before its first message.
    pub version: String,
    /// Whether it can serve clients.
    pub can_serve: bool,
    /// Its client connections that this node knows of.
    pub clients: u64,
    /// Its virtual routers that this node has too.
    pub routers: Vec<RouterView>,
}

/// One virtual router as another node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterView {
    /// The table's name here.
    pub vip: String,
    /// The other node's state.
    pub state: VrrpState,
    /// Its priority with tracks applied.
    pub priority: u8,
    /// For so long it has listened and heard no advert of this node, milliseconds.
    pub silence_ms: u64,
    /// Whether this node is Active and the other one should have heard it by now.
    pub unheard: bool,
}

/// One virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The table's name.
    pub name: String,
    /// The group it moves with, if any.
    pub sync_group: Option<String>,
    /// `VRID`.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// The interface that carries it here.
    pub interface: String,
    /// `ADDRESS/PREFIX`.
    pub addresses: Vec<String>,
    /// Present state.
    pub state: VrrpState,
    /// Why it is in that state, in a few words.
    pub reason: String,
    /// Milliseconds in that state.
    pub since_ms: u64,
    /// Whether the addresses are on the interface now.
    pub holds: bool,
    /// Configured priority.
    pub base_priority: u8,
    /// Priority with tracks applied.
    pub effective_priority: u8,
    /// Advert interval in force, milliseconds.
    pub advert_interval_ms: u32,
    /// Who is Active as far as this node knows.
    pub active: Option<IpAddr>,
    /// Set while this node doesn't preempt because it was failed over by command.
    pub held_back: Option<HeldBack>,
    /// Whether the active node is heard on other wires of the group but not on this one.
    pub silent: bool,
    /// Another host answers for an address that this node holds: who, and why probably.
    pub conflict: Option<String>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// What is tracked, with its present verdict.
    pub tracks: Vec<TrackStatus>,
    /// Counters since the keeper began.
    pub counters: VrrpCounters,
}

/// How much longer a node preempts nobody after a failover by command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Milliseconds; `None`: until that is cancelled or the other node fails.
    pub left_ms: Option<u64>,
}

/// A virtual router's state as users read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VrrpState {
    /// Not taking part: start, stop, or fault of the own interface.
    Initialize,
    /// Watching.
    Backup,
    /// Holding the addresses.
    Active,
    /// Holding the addresses but silent: waiting for the successor's first advert.
    Leaving,
}

/// Another node as this one hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name in the file, if any.
    pub name: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Milliseconds since its last accepted advert; `None`: never.
    pub last_advert_age_ms: Option<u64>,
    /// Priority in that advert.
    pub priority: Option<u8>,
    /// Accepted adverts.
    pub adverts: u64,
    /// By how much half of its adverts deviate from their usual spacing at most, microseconds;
    /// `None`: not enough of them yet.
    pub jitter_p50_us: Option<u64>,
    /// The same for 99 of 100.
    pub jitter_p99_us: Option<u64>,
    /// By how much each of its adverts deviated from their usual spacing.
    #[serde(default)]
    pub deviations: SpanCounts,
    /// Whether it was active, fell silent, and still answers by ARP.
    pub alive_unheard: bool,
    /// Its packets that were rejected, by reason.
    pub rejected: Vec<(String, u64)>,
}

/// One entry of a VIP's `track` list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackStatus {
    /// As written in lb.toml, e.g. `proxy:kube-apiserver`.
    pub name: String,
    /// `None` until the first result.
    pub ok: Option<bool>,
    /// What it adds to the priority; `None` for one that decides alone.
    pub weight: Option<i16>,
}

macro_rules! codec {
    ($name:ty) => {
        impl $name {
            /// Encodes into a packet.
            ///
            /// # Errors
            /// [`CodecError`] when too long.
            pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
                let bytes = postcard::to_stdvec(self).map_err(CodecError::Malformed)?;
                if bytes.len() > MESSAGE_BYTES_MAX {
                    return Err(CodecError::TooLong(bytes.len()));
                }
                Ok(bytes)
            }

            /// Decodes one packet.
            ///
            /// # Errors
            /// [`CodecError`] when it is no message of this kind.
            pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                if bytes.len() > MESSAGE_BYTES_MAX {
                    return Err(CodecError::TooLong(bytes.len()));
                }
                postcard::from_bytes(bytes).map_err(CodecError::Malformed)
            }
        }
    };
}
pub(super) use codec;

codec!(ToKeeper);
codec!(ToProxy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_round_trip() {
        let hello = ToKeeper::Hello(Hello {
            pid: 7,
            version: "0.1.0".into(),
            config_digest: 1,
            serving: false,
        });
        assert_eq!(ToKeeper::decode(&hello.encode().unwrap()).unwrap(), hello);
        let stop = ToProxy::Stop { grace_ms: 1500 };
        assert_eq!(ToProxy::decode(&stop.encode().unwrap()).unwrap(), stop);
    }

    #[test]
    fn every_truncation_of_a_message_is_refused() {
        let message = ToProxy::ResetLocal(vec!["172.16.0.10".parse().unwrap()]);
        let bytes = message.encode().unwrap();
        for end in 0..bytes.len() {
            assert!(ToProxy::decode(&bytes[..end]).is_err(), "{end}");
        }
    }
}
