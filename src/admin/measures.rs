//! What only /metrics shows of proxies and servers: it stays out of the JSON. Pure.

use super::pace::Pace;
use crate::metrics::spans::Spans;

/// Of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessMeasures {
    /// When it began, seconds since 1970.
    pub started: u64,
    /// Whether metrics have other exporters' names too (`metrics.compat`).
    pub compat: bool,
    /// Names of this node that browsers may ask for, those of `metrics.names` among them.
    pub names: Vec<String>,
    /// Milliseconds since the control loop last turned.
    pub control_ms: u64,
}

/// Of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyMeasures {
    /// Servers that could take connections, as far as checks and the operator say.
    pub able: u64,
    /// The most client connections at once.
    pub connections_most: u64,
    /// The most connections that ever waited at once.
    pub queue_most: u64,
    /// Waits that ended with a server.
    pub waits: Spans,
    /// Rates and averages.
    pub pace: Pace,
}

/// Of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMeasures {
    /// Whether it is used only when no other server is usable.
    pub backup: bool,
    /// Whether it may take new connections.
    pub usable: bool,
    /// The present share of its weight, percent.
    pub share_percent: u64,
    /// The most connections at once.
    pub connections_most: u64,
    /// The most new connections in a second; `None`: as they come.
    pub connects_per_second: Option<u64>,
    /// Connects begun.
    pub attempts: u64,
    /// Failed connects after which the connection tried again.
    pub retries: u64,
    /// Clients that broke off.
    pub client_aborts: u64,
    /// Connections that ended.
    pub ended: u64,
    /// How long those had lasted in all, microseconds.
    pub life_micros: u64,
    /// Connections whose first bytes from the client were delivered to it.
    pub asked: u64,
    /// Connections that got a first byte from it.
    pub answered: u64,
    /// How long those had waited for it, microseconds.
    pub answer_micros: u64,
    /// Connections that ended without a byte from it after the client had asked.
    pub unanswered: u64,
    /// How often it went down.
    pub downs: u64,
    /// How long it was down in all, milliseconds.
    pub down_ms: u64,
    /// Connects that it accepted.
    pub connects: Spans,
    /// Finished checks.
    pub checks: Spans,
    /// Rates and averages.
    pub pace: Pace,
}
