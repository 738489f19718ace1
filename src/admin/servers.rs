//! What an operator can order about servers, and what became of it: a part of the admin socket's
//! words. Pure.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ipc::command::NAMES_MAX;
use crate::ipc::note::AdminWord;

/// A server, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerName {
    /// The proxy's; `None`: the only proxy that has a server of this name.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Its own.
    pub server: String,
}

impl ServerName {
    /// `PROXY/SERVER`, or `SERVER` alone.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((proxy, server)) => Self {
                proxy: Some(proxy.to_owned()),
                server: server.to_owned(),
            },
            None => Self {
                proxy: None,
                server: text.to_owned(),
            },
        }
    }
}

/// An order about servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCommand {
    /// To put servers into a state.
    State(AdminWord, Vec<ServerName>),
    /// To give a server a weight.
    Weight(SetWeight),
    /// To add one.
    Add(Box<AddServer>),
    /// To remove one.
    Remove(ServerName),
}

/// Servers that are to be drained, readied or taken out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// At least one.
    pub servers: Vec<ServerName>,
}

/// A server and its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// The server.
    pub server: ServerName,
    /// 0…256; `None`: the one it came with.
    #[serde(default)]
    pub weight: Option<u16>,
}

/// A server that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddServer {
    /// Its name; the proxy may be left out where there is only one.
    pub server: ServerName,
    /// Where clients' connections go; `None`: the file's server of this name is to come back.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Where it is probed; `None`: there too.
    #[serde(default)]
    pub check_address: Option<SocketAddr>,
    /// 0…256; `None`: 1.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Its limit; `None`: the one on which all servers of the file agree, else unlimited.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Used only when no other server is usable.
    #[serde(default)]
    pub backup: bool,
}

impl AddServer {
    /// Whether nothing but the name is given.
    #[must_use]
    pub const fn is_name_alone(&self) -> bool {
        self.address.is_none()
            && self.check_address.is_none()
            && self.weight.is_none()
            && self.max_connections.is_none()
            && !self.backup
    }
}

impl ServerCommand {
    /// The most names are bounded, and at least one is needed.
    ///
    /// # Errors
    /// What is wrong with their number.
    pub fn check(&self) -> Result<(), String> {
        let names = match self {
            Self::State(_, names) => names.len(),
            Self::Weight(_) | Self::Add(_) | Self::Remove(_) => 1,
        };
        match names {
            0 => Err("no server is named".to_owned()),
            1..=NAMES_MAX => Ok(()),
            _ => Err(format!("more than {NAMES_MAX} names")),
        }
    }
}

/// What became of an order about servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServersOutcome {
    /// It was carried out.
    Done(ServersDone),
    /// Nothing was done, and why.
    Refused(String),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServersDone {
    /// In the order of the names.
    pub servers: Vec<ServerChange>,
    /// For how long it holds.
    pub kept: Kept,
}

/// One server before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerChange {
    /// Its proxy.
    pub proxy: String,
    /// Its name.
    pub server: String,
    /// What it was: `ready`, `drain`, `maint`, `absent`, or `weight N`.
    pub from: String,
    /// What it is.
    pub to: String,
    /// Connections that it has.
    pub connections: u64,
    /// Servers of its proxy that take new connections.
    pub usable: u64,
}

/// For how long a change holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Until it is changed again: it lies in the state directory.
    Reboot,
    /// Until the daemon ends, and why no longer.
    Restart(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_its_proxy() {
        let name = |proxy: Option<&str>, server: &str| ServerName {
            proxy: proxy.map(str::to_owned),
            server: server.to_owned(),
        };
        assert_eq!(ServerName::parse("kube/a"), name(Some("kube"), "a"));
        assert_eq!(ServerName::parse("a"), name(None, "a"));
        let v6 = ServerName::parse("kube/[2001:db8::1]:6443");
        assert_eq!(v6, name(Some("kube"), "[2001:db8::1]:6443"));
    }

    #[test]
    fn an_order_names_between_one_and_64_servers() {
        let of =
            |count| ServerCommand::State(AdminWord::Drain, vec![ServerName::parse("a"); count]);
        assert!(of(0).check().is_err());
        assert!(of(64).check().is_ok());
        assert!(of(65).check().is_err());
    }
}
