//! What operators changed about servers at run time, as it is kept: the keeper has it for the next
//! proxy process, the state directory for the next boot. Pure.
//!
//! It travels as postcard and lies on disk as JSON: no field may be skipped; in JSON a field that is
//! left out has its default.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The most servers of which something is kept.
pub const NOTES_MAX: usize = 512;

/// What an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminWord {
    /// In service.
    Ready,
    /// No new connections; those it has go on.
    Drain,
    /// Out of service, and not probed.
    Maint,
}

impl AdminWord {
    /// The word users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// What differs from the file for one server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerNote {
    /// Name of the proxy.
    pub proxy: String,
    /// Name of the server.
    pub server: String,
    /// An operator's word; `None`: as in the file.
    #[serde(default)]
    pub admin: Option<AdminWord>,
    /// A weight, 0…256; `None`: as in the file.
    #[serde(default)]
    pub weight: Option<u16>,
    /// It was added, and is so.
    #[serde(default)]
    pub added: Option<AddedServer>,
    /// It is in the file and was removed.
    #[serde(default)]
    pub removed: bool,
}

impl ServerNote {
    /// Nothing differs.
    #[must_use]
    pub fn new(proxy: &str, server: &str) -> Self {
        Self {
            proxy: proxy.to_owned(),
            server: server.to_owned(),
            ..Self::default()
        }
    }

    /// Whether there is nothing to keep.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.admin.is_none() && self.weight.is_none() && self.added.is_none() && !self.removed
    }
}

/// A server that isn't in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedServer {
    /// Where clients' connections go.
    pub address: SocketAddr,
    /// Where it is probed.
    pub check_address: SocketAddr,
    /// Its weight, 0…256.
    pub weight: u16,
    /// Its limit; `None`: unlimited.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// New connections to it in a second; `None`: as they come.
    #[serde(default)]
    pub connects_per_second: Option<u32>,
    /// Used only when no other server is usable.
    #[serde(default)]
    pub backup: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_on_disk_stays_as_it_is() {
        let note = ServerNote {
            admin: Some(AdminWord::Drain),
            weight: Some(7),
            added: Some(AddedServer {
                address: "10.0.0.4:6443".parse().unwrap(),
                check_address: "10.0.0.4:6444".parse().unwrap(),
                weight: 1,
                max_connections: Some(250),
                connects_per_second: None,
                backup: false,
            }),
            ..ServerNote::new("kube", "a")
        };
        let json = "{\"proxy\":\"kube\",\"server\":\"a\",\"admin\":\"drain\",\"weight\":7,\
                    \"added\":{\"address\":\"10.0.0.4:6443\",\"check_address\":\"10.0.0.4:6444\",\
                    \"weight\":1,\"max_connections\":250,\"connects_per_second\":null,\"backup\":false},\"removed\":false}";
        assert_eq!(serde_json::to_string(&note).unwrap(), json);
        let short = "{\"proxy\":\"kube\",\"server\":\"a\",\"removed\":true}";
        let read: ServerNote = serde_json::from_str(short).unwrap();
        assert!(read.removed && !read.is_empty() && read.admin.is_none());
        assert!(ServerNote::new("kube", "a").is_empty());
    }
}
