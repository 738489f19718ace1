//! `lbd who`: the two sides of a connection, as they are told and as people read them. Pure.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::status::{short_bytes, short_time};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Who {
    /// Connections that have the address at one of their ends.
    pub connections: Vec<Connection>,
    /// Whether every worker has answered in time.
    pub complete: bool,
}

/// A connection with both its sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The proxy's name.
    pub proxy: String,
    /// The server's name; `None`: it has none yet.
    pub server: Option<String>,
    /// The client.
    pub client: SocketAddr,
    /// Who connected in the client's name, by a PROXY header.
    pub via: Option<SocketAddr>,
    /// The address that the client connected to.
    pub local: Option<SocketAddr>,
    /// The client of the connection to the server, as the server sees it.
    pub source: Option<SocketAddr>,
    /// The server's address.
    pub server_address: Option<SocketAddr>,
    /// Where it stands.
    pub state: String,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Milliseconds since a byte last moved.
    pub idle_ms: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

impl Connection {
    /// Two lines: the way from the client to the server, and what is known of it.
    #[must_use]
    pub fn render(&self) -> String {
        let shown = |address: Option<SocketAddr>| {
            address.map_or_else(|| "?".to_owned(), |address| address.to_string())
        };
        let mut way = format!("client {}", self.client);
        if let Some(via) = self.via {
            way.push_str(&format!(" (through {via})"));
        }
        way.push_str(&format!(" → {}", shown(self.local)));
        if self.source.is_some() || self.server_address.is_some() {
            let (source, server) = (shown(self.source), shown(self.server_address));
            way.push_str(&format!(" | {source} → server {server}"));
        }
        let server = self.server.as_deref().unwrap_or("no server yet");
        format!(
            "{way}\n  {}/{server}, {}, since {}, idle {}, in {}, out {}\n",
            self.proxy,
            self.state,
            short_time(self.age_ms),
            short_time(self.idle_ms),
            short_bytes(self.bytes_in),
            short_bytes(self.bytes_out),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_stand_in_one_line() {
        let address = |text: &str| Some(text.parse().unwrap());
        let one = Connection {
            proxy: "kube".into(),
            server: Some("master1".into()),
            client: "10.0.0.9:51234".parse().unwrap(),
            via: None,
            local: address("172.16.0.10:6443"),
            source: address("172.16.0.2:40112"),
            server_address: address("172.16.0.4:6443"),
            state: "relaying".into(),
            age_ms: 62_000,
            idle_ms: 3_000,
            bytes_in: 517,
            bytes_out: 7_321,
        };
        let way = "client 10.0.0.9:51234 → 172.16.0.10:6443 | 172.16.0.2:40112 → server \
                   172.16.0.4:6443\n";
        let text = one.render();
        let rest = "  kube/master1, relaying, since 1m02s, idle 3.0s, in 517 B, out 7.1 KiB\n";
        assert_eq!(text.strip_prefix(way), Some(rest));
        let unknown = Connection {
            source: None,
            ..one.clone()
        };
        assert!(unknown.render().contains(" | ? → server 172.16.0.4:6443\n"));
        let queued = Connection {
            server: None,
            source: None,
            server_address: None,
            via: address("10.0.0.1:7"),
            state: "queued".into(),
            ..one
        };
        let way = "client 10.0.0.9:51234 (through 10.0.0.1:7) → 172.16.0.10:6443\n  kube/no server \
                   yet, queued";
        assert!(queued.render().starts_with(way), "{}", queued.render());
    }
}
