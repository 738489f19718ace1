//! The configuration as the rest of lbd sees it: every value in range, every default filled in,
//! every reference resolved. Only `config::parse` builds these. No parsing and no I/O here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::access_log::{AccessFormat, AccessLog};
pub use super::auth::{Auth, Hmac, HmacKey, HmacMode, Password, Secret};
pub use super::balance::Balance;
pub use super::check::{Check, CheckKind, ClientFiles, HttpCheck, TlsCheck, Verify};
pub use super::discovery::{Discovery, Template};
pub use super::guard::{Guard, PerSource, Rate};
pub use super::origin::{HeaderVersion, Network, ProxyProtocol, Source};
pub use super::programs::{Notify, RunAs, Script, TrackFile};
pub use super::rebalance::Rebalance;
pub use super::reload::Reload;
use crate::units::{AdvertInterval, Priority, TrackWeight, Version, Vrid, Weight};

/// One lb.toml, the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[log]`.
    pub log: Log,
    /// `[access-log]`; off when absent.
    pub access_log: Option<AccessLog>,
    /// `[admin]`.
    pub admin: Admin,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[limits]`.
    pub limits: Limits,
    /// `[reload]`.
    pub reload: Reload,
    /// `[peer]`; without it the channel is off.
    pub peer: Option<Peer>,
    /// `state-dir`; `None`: the service manager's, or the usual one if it is there.
    pub state_dir: Option<PathBuf>,
    /// `user`: whom to go on as when started as root; `None`: lbd, where there is such a user.
    pub user: Option<RunAs>,
    /// `[vip.NAME]`, in file order.
    pub vips: Vec<Vip>,
    /// `[vip.NAME]` with `announce = "route"`, in file order.
    pub routes: Vec<RouteVip>,
    /// `[proxy.NAME]`, in file order. Other processes refer to a proxy by its position here.
    pub proxies: Vec<Proxy>,
    /// `[track.script.NAME]`, in file order.
    pub scripts: Vec<Script>,
    /// `[track.file.NAME]`, in file order.
    pub track_files: Vec<TrackFile>,
    /// The names of all `interface:NAME` tracks, each once.
    pub track_interfaces: Vec<String>,
}

/// `[log]`: where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `level`, default info.
    pub level: Level,
    /// `target`, default auto.
    pub target: LogTarget,
    /// `format` on stderr, default text.
    pub format: LogFormat,
    /// `facility` for syslog, default daemon.
    pub facility: Facility,
}

/// The least severe message that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Service lost.
    Error,
    /// Degraded.
    Warning,
    /// One line per transition.
    Info,
    /// Per connection or probe.
    Debug,
    /// Per packet.
    Trace,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// journald when started by systemd (`JOURNAL_STREAM` names stderr), else stderr.
    Auto,
    /// Standard error.
    Stderr,
    /// `/dev/log`, RFC 3164 framing.
    Syslog,
    /// journald's native protocol.
    Journald,
}

/// How a line on stderr looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A syslog facility by number, 0…23 (RFC 5424 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(pub u8);

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `socket`; `None` means `admin.sock` in the runtime directory.
    pub socket: Option<PathBuf>,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `listen`, default 127.0.0.1:9633; `None` ("off") turns the HTTP listener off.
    pub listen: Option<SocketAddr>,
    /// `compat`: names of other exporters too.
    pub compat: bool,
}

/// `[limits]` of the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `max-connections` over all proxies; `None`: derived from `RLIMIT_NOFILE`.
    pub max_connections: Option<NonZeroU32>,
    /// `workers`; `None` ("auto"): one per CPU that the process may use.
    pub workers: Option<NonZeroU16>,
    /// `pin-workers`: each worker stays on a CPU of its own.
    pub pin_workers: bool,
}

/// `[peer]`: the channel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `key-file`.
    pub key_file: PathBuf,
    /// `port` (UDP), default 9634.
    pub port: u16,
    /// `interval` between two messages to a node, default 100ms.
    pub interval: Duration,
}

/// `[vip.NAME]`: a virtual router and the addresses it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The table's name.
    pub name: String,
    /// `address`: one or more, all of one family.
    pub addresses: Vec<VipAddress>,
    /// `interface`; `None`: the one that holds this node's own address.
    pub interface: Option<String>,
    /// `vrid`, default the first address's last octet.
    pub vrid: Vrid,
    /// `version`, default 3.
    pub version: Version,
    /// `advert-interval`, default 1s.
    pub advert_interval: AdvertInterval,
    /// `advert-spacing`: between two adverts sent, at most `advert_interval`; default
    /// [`AdvertInterval::default_spacing`].
    pub advert_spacing: Duration,
    /// `auth`, default none.
    pub auth: Auth,
    /// `mode`, default unicast.
    pub mode: Mode,
    /// `nodes`, at least one; unique addresses.
    pub nodes: Vec<Node>,
    /// `allow-from`: addresses of further routers that may take part, of either family.
    pub allow_from: Vec<IpAddr>,
    /// `preempt`, default after 10s.
    pub preempt: Preempt,
    /// `lease`: the kernel lifetime of the address in whole seconds, default 2s; `None` = "off".
    pub lease: Option<Duration>,
    /// `garp`.
    pub garp: Garp,
    /// `track`, default every proxy of the file without a weight.
    pub track: Vec<Track>,
    /// `virtual-mac`: whether the addresses have the hardware address of the virtual router.
    pub virtual_mac: bool,
    /// `sync-group`: the virtual routers of one group move together. Those that one table with
    /// addresses of both families is split into are such a group, named like the table.
    pub sync_group: Option<String>,
    /// `per-server-weight`: added to the priority for each usable server of the tracked proxies,
    /// default 0.
    pub per_server_weight: u8,
    /// `notify`; `None`: nobody is told.
    pub notify: Option<Notify>,
}

impl Vip {
    /// The position of the node with that name or address.
    #[must_use]
    pub fn node(&self, wanted: &str) -> Option<usize> {
        let address = wanted.parse::<IpAddr>().ok();
        let is_it = |node: &Node| {
            let named = node.name.as_deref() == Some(wanted);
            named || address.is_some_and(|ip| node.address == ip || node.twin == Some(ip))
        };
        self.nodes.iter().position(is_it)
    }
}

/// `[vip.NAME]` with `announce = "route"`: addresses that every node holds while it can serve, for
/// a routing daemon to redistribute. No election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteVip {
    /// The table's name.
    pub name: String,
    /// `address`: one or more host addresses, of either family.
    pub addresses: Vec<VipAddress>,
    /// `interface`, default `lo`.
    pub interface: String,
    /// `lease`: the kernel lifetime of the addresses in whole seconds, default 2s; `None` = "off".
    pub lease: Option<Duration>,
    /// `withdraw-grace`: how long what still arrives is served once the address is gone, default
    /// 5s; zero = "off".
    pub grace: Duration,
    /// `track`, default every proxy of the file; none has a weight.
    pub track: Vec<Track>,
}

/// An address with its prefix length. Without one in the file it is a host address (/32, /128).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// The prefix length, 0…32 or 0…128.
    pub prefix: u8,
}

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// How adverts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One packet to each node.
    Unicast,
    /// To 224.0.0.18 or ff02::12 on the interface.
    Multicast,
}

/// One load-balancer host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `name`; `None` when the file gives only an address.
    pub name: Option<String>,
    /// `address`: the source of this node's adverts, of the family of the virtual addresses.
    pub address: IpAddr,
    /// Its address of the other family, where the file gives one of each.
    pub twin: Option<IpAddr>,
    /// `priority`, default 200, 190, … by position.
    pub priority: Priority,
    /// `interface` of this node, overriding the VIP's.
    pub interface: Option<String>,
    /// `min-ttl` (IPv6: hop limit) accepted from this node, default 255.
    pub min_ttl: u8,
}

impl Node {
    /// The name if there is one, else the address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.address.to_string())
    }
}

/// Whether a stronger Backup displaces a weaker Active (RFC 9568's `Preempt_Mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preempt {
    /// `false`: never.
    Never,
    /// `true`: at once.
    Always,
    /// A duration: not before this long after the node's own start, or after it became able to
    /// serve again. Not applied to an Active at priority 0 or 1.
    After(#[serde(with = "crate::recorder::time::span")] Duration),
}

/// `garp`: gratuitous ARP policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garp {
    /// `repeat`: frames per burst and address, default 5.
    pub repeat: u8,
    /// `delay`: the second burst comes this long after the first, default 5s; zero = none.
    #[serde(with = "crate::recorder::time::span")]
    pub delay: Duration,
    /// `refresh`: one frame per address each so often while Active, default 30s; zero = off.
    #[serde(with = "crate::recorder::time::span")]
    pub refresh: Duration,
    /// `interval` between two frames of one burst, default 0.
    #[serde(with = "crate::recorder::time::span")]
    pub interval: Duration,
}

/// One entry of a VIP's `track` list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// What is watched.
    pub target: TrackTarget,
    /// The `:weight` suffix, or the script's own weight; `None`: a failure means the node
    /// can't serve, which hands the VIP off.
    pub weight: Option<TrackWeight>,
}

/// What a track watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackTarget {
    /// `proxy:NAME`, by position in [`Config::proxies`].
    Proxy(usize),
    /// `script:NAME`, by position in [`Config::scripts`].
    Script(usize),
    /// `interface:NAME`, by position in [`Config::track_interfaces`].
    Interface(usize),
    /// `file:NAME`, by position in [`Config::track_files`].
    File(usize),
}

/// `[proxy.NAME]`: listeners and the servers behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The table's name.
    pub name: String,
    /// `listen`, at least one.
    pub listen: Vec<Listen>,
    /// `balance`.
    pub balance: Balance,
    /// `connect-timeout` of one attempt, default 1s.
    pub connect_timeout: Duration,
    /// `idle-timeout` without a byte in either direction, default 1h.
    pub idle_timeout: Duration,
    /// `half-close-timeout` without a byte once one side has finished, default 30s.
    pub half_close_timeout: Duration,
    /// `queue-timeout`, default 5s.
    pub queue_timeout: Duration,
    /// `max-connections` of this proxy, running and queued; `None`: the process limit alone.
    pub max_connections: Option<NonZeroU32>,
    /// `max-queue`.
    pub max_queue: MaxQueue,
    /// `client-first`: the client speaks first (TLS). Default true with the kube-apiserver preset
    /// or a tls/https check, else false.
    pub client_first: bool,
    /// `first-byte-timeout`; default 10s where the client speaks first, else `None`.
    pub first_byte_timeout: Option<Duration>,
    /// `on-unresponsive`, default reset.
    pub on_unresponsive: OnUnresponsive,
    /// `on-not-ready`, default drain.
    pub on_not_ready: OnNotReady,
    /// `max-ejected`, percent of the servers that could serve, default 50; 0: none.
    pub max_ejected: u8,
    /// `retries` after a failed connect, on another server if there is one, default 3.
    pub retries: u8,
    /// `hedge-after`: when a second connect begins beside one without an answer, default auto.
    pub hedge_after: HedgeAfter,
    /// `slowstart`, default 30s; zero = off.
    pub slowstart: Duration,
    /// `keepalive` idle time on both sides, default 30s; `None` = "off".
    pub keepalive: Option<Duration>,
    /// `user-timeout` on both sides, default 20s: a peer that answers nothing for so long is gone;
    /// `None` = "off".
    pub user_timeout: Option<Duration>,
    /// `proxy-protocol`; `None`: neither accepted nor sent.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `source`, default the kernel's choice.
    pub source: Source,
    /// `allow`, `deny` and `per-source`.
    pub guard: Guard,
    /// `max-age` of a connection; `None` = "off", the default.
    pub max_age: Option<Duration>,
    /// `rebalance`; `None`: connections stay where they are.
    pub rebalance: Option<Rebalance>,
    /// `check` of all servers.
    pub check: Check,
    /// `backends`, in file order; at least one unless there is a `discovery`.
    pub servers: Vec<Server>,
    /// `backends-file`, `discovery`, and the host names in `backends`.
    pub discovery: Discovery,
}

/// What becomes of the established connections of a server that gives no sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnresponsive {
    /// They are closed with RST, while another server could take the clients.
    Reset,
    /// They stay.
    Keep,
}

/// What becomes of the established connections of a server that is alive and not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNotReady {
    /// They stay; new ones go elsewhere.
    Drain,
    /// They are closed with RST, while another server could take the clients.
    Reset,
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `"IP:PORT"`: exactly there, whether or not the address is on this machine yet.
    Addr(SocketAddr),
    /// `":PORT"`: every address of both families (one dual-stack socket; IPv4 alone where the
    /// kernel has no IPv6).
    Any(u16),
}

impl Listen {
    /// Its port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Any(port) => port,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Any(port) => write!(f, ":{port}"),
        }
    }
}

/// When a connect without an answer gets a second one, on another server, beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// `"auto"`: three times the median, at least 50 ms.
    Auto,
    /// After so long.
    After(Duration),
    /// `"off"`: never; it is given up at its timeout.
    Never,
}

/// How many connections may wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxQueue {
    /// `max-queue` of the proxy (default 1024).
    Total(u32),
    /// `backend-defaults.max-queue`: this many for each usable server.
    PerServer(u32),
}

/// One member of a proxy's `backends`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The key in the table form, else the address.
    pub name: String,
    /// `address`.
    pub address: SocketAddr,
    /// `check-address`, default the address.
    pub check_address: SocketAddr,
    /// `weight`, default 1.
    pub weight: Weight,
    /// `max-connections` to this server, exact over all workers; `None`: unlimited.
    pub max_connections: Option<NonZeroU32>,
    /// `connects-per-second`: new connections to this server in a second, evenly spaced; `None`:
    /// as they come.
    pub connects_per_second: Option<NonZeroU32>,
    /// `disabled`: starts in maintenance.
    pub disabled: bool,
    /// `backup`: used only when no other server is usable.
    pub backup: bool,
}
