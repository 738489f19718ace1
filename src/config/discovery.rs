//! Where servers come from besides `backends`: a file, DNS names, Kubernetes. Types alone;
//! `config::parse` builds them.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::model::Server;
use crate::units::Weight;

/// The most servers that one source may bring.
pub const FOUND_MAX: usize = 512;

/// `backends-file`, `discovery` and the host names in `backends` of one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// `backends-file`.
    pub file: Option<PathBuf>,
    /// `discovery.dns`, and host names in `backends`; `None`: there is none.
    pub dns: Option<Dns>,
    /// `discovery.kubernetes`.
    pub kubernetes: Option<Kubernetes>,
    /// What holds for servers that are found.
    pub template: Template,
}

impl Discovery {
    /// Whether every server stands in lb.toml.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.file.is_none() && self.dns.is_none() && self.kubernetes.is_none()
    }
}

/// `backend-defaults`, as far as it shapes one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// `weight`, default 1.
    pub weight: Weight,
    /// `max-connections`; `None`: unlimited.
    pub max_connections: Option<NonZeroU32>,
    /// `connects-per-second`; `None`: as many as come.
    pub connects_per_second: Option<NonZeroU32>,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            weight: Weight::ONE,
            max_connections: None,
            connects_per_second: None,
        }
    }
}

impl Template {
    /// A server at `address`, all else by default.
    #[must_use]
    pub const fn server(&self, name: String, address: SocketAddr) -> Server {
        Server {
            name,
            address,
            check_address: address,
            weight: self.weight,
            max_connections: self.max_connections,
            connects_per_second: self.connects_per_second,
            disabled: false,
            backup: false,
        }
    }
}

/// `discovery.dns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// `names`, at least one, each once.
    pub names: Vec<DnsName>,
    /// `resolvers`, asked in this order; empty: those of /etc/resolv.conf, after /etc/hosts.
    pub resolvers: Vec<SocketAddr>,
    /// `family`.
    pub family: Family,
    /// `min-interval`: between two questions, whatever the TTL, default 5s.
    pub min_interval: Duration,
    /// `max-interval`: the same, at most, default 5m.
    pub max_interval: Duration,
    /// `timeout` of one resolver, default 2s.
    pub timeout: Duration,
}

/// `"NAME:PORT"`: a name whose addresses are servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName {
    /// The name, absolute, in lower case, without the last dot.
    pub host: String,
    /// The port of every server.
    pub port: u16,
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which addresses of a name are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// All.
    Any,
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
}

/// `discovery.kubernetes`: the endpoints of a service, as its API server tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// `ca-file`, default /etc/kubernetes/pki/ca.crt: API servers are always verified.
    pub ca_file: PathBuf,
    /// `server-name` that their certificates must have, default kubernetes.default.svc.
    pub server_name: String,
    /// What this client shows.
    pub credentials: Credentials,
    /// `namespace`, default default.
    pub namespace: String,
    /// `service`, default kubernetes.
    pub service: String,
    /// `port`: the name of the endpoints' port, default https.
    pub port: String,
    /// `timeout` for connecting and for an answer to begin, default 5s.
    pub timeout: Duration,
}

/// Who lbd is to an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `client-cert` and `client-key`.
    Certificate {
        /// PEM, the chain.
        cert: PathBuf,
        /// PEM.
        key: PathBuf,
    },
    /// `token-file`.
    Token(PathBuf),
}
