//! The part of the model that is about programs and files beside lbd: track scripts, tracked
//! files, notify programs, and whose rights they get. No parsing and no I/O here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Count;

/// `[track.script.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The table's name.
    pub name: String,
    /// `command`: program (absolute path) and arguments, never through a shell; at least one item.
    pub command: Vec<String>,
    /// `interval` between two starts, default 1s.
    pub interval: Duration,
    /// `timeout` of one run, default the interval.
    pub timeout: Duration,
    /// `rise`, default 1.
    pub rise: Count,
    /// `fall`, default 1.
    pub fall: Count,
    /// `user`; `None`: the user lbd runs as.
    pub user: Option<RunAs>,
}

/// `[track.file.NAME]`: a number in a file, such as a drain switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFile {
    /// The table's name.
    pub name: String,
    /// `path`, absolute.
    pub path: PathBuf,
}

/// Whose rights a program gets: `"name"` or `"name:group"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The user's name.
    pub user: String,
    /// The group's name; `None`: the user's own.
    pub group: Option<String>,
}

/// `notify`: programs that are told about changes of a virtual router. Each is a program (absolute
/// path) and its arguments; empty: none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// `active`: this node has taken the address.
    pub active: Vec<String>,
    /// `backup`: another node may have it.
    pub backup: Vec<String>,
    /// `fault`: this node takes no part.
    pub fault: Vec<String>,
    /// `stop`: lbd leaves; when empty `backup` is run.
    pub stop: Vec<String>,
    /// `any`: after each of the others.
    pub any: Vec<String>,
    /// `keepalived-arguments`: `any` gets `INSTANCE`, the name, the state and the priority as
    /// further arguments.
    pub keepalived_arguments: bool,
    /// `timeout` of one program, default 10s.
    pub timeout: Duration,
    /// `user`; `None`: the user lbd runs as.
    pub user: Option<RunAs>,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => f.write_str(&self.user),
        }
    }
}
