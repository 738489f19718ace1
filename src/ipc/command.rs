//! What an operator can order the keeper to do, and what became of it: the words of the admin
//! socket and of the socket between keeper and proxy. Pure.
//!
//! They travel as JSON and as postcard: no field may be skipped, none may need a self-describing
//! format. In JSON a field that is left out has its default.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::reload::{ReloadOrder, ReloadReport};

/// The most names one command may carry.
pub const NAMES_MAX: usize = 64;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Hand virtual IPs over to another node, make before break.
    Failover(Failover),
    /// End what a failover left behind: take part in elections without restraint again.
    ReleaseHold(ReleaseHold),
    /// Read lb.toml again, and apply it whole or not at all.
    Reload(ReloadOrder),
    /// Run from the program on disk from here on, without losing a connection.
    Upgrade,
    /// Log more or less than the configuration says, for a while.
    Log(SetLog),
    /// Write down what the state machines were told of late.
    Record,
}

/// [`Command::Log`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLog {
    /// The least severe message that is logged; `None`: as the configuration says.
    #[serde(default)]
    pub level: Option<LogLevel>,
    /// Only of this component; `None`: of all.
    #[serde(default)]
    pub component: Option<String>,
    /// For so long, milliseconds; `None`: until another order or the end of the keeper.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Whose order it is, as the kernel says; what an asker puts here counts for nothing.
    #[serde(default)]
    pub uid: Option<u32>,
}

/// How severe a message is at least, to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Service lost.
    Error,
    /// Degraded.
    Warning,
    /// One line for each transition.
    Info,
    /// For each connection and check.
    Debug,
    /// For each packet.
    Trace,
}

impl LogLevel {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What is logged, where that is not what the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The level in force.
    pub level: LogLevel,
    /// That of the configuration.
    pub configured: LogLevel,
    /// Only of this component; `None`: of all.
    pub component: Option<String>,
    /// For so much longer, milliseconds; `None`: until another order.
    pub left_ms: Option<u64>,
}

/// [`Command::Failover`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Names of `[vip.NAME]`; none: all that this node is Active for.
    #[serde(default)]
    pub vips: Vec<String>,
    /// How long this node doesn't preempt afterwards, milliseconds; `None`: until
    /// [`Command::ReleaseHold`] or until the other node fails.
    #[serde(default)]
    pub hold_ms: Option<u64>,
}

/// [`Command::ReleaseHold`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseHold {
    /// Names of `[vip.NAME]`; none: all.
    #[serde(default)]
    pub vips: Vec<String>,
}

/// What became of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What became of each virtual IP.
    Vips(Vec<VipOutcome>),
    /// Nothing was done, and why.
    Refused(String),
    /// It was begun, or may have been; nobody is left who could tell how it ended, and why.
    Unknown(String),
    /// What became of a reload.
    Reload(Box<ReloadReport>),
    /// What is logged from now on; `left_ms` is `None` too when it is as the configuration says.
    Log(LogState),
    /// An upgrade was begun; the status says by this number how it goes.
    Upgrading(u64),
    /// A recording was written to this file.
    Recorded(String),
}

/// What became of one virtual IP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipOutcome {
    /// The table's name.
    pub vip: String,
    /// In a word.
    pub result: VipResult,
    /// Who is Active for it, as far as this node knows.
    pub active: Option<IpAddr>,
    /// The name of that node, if it has one.
    pub node: Option<String>,
    /// Milliseconds from the order to the result.
    pub elapsed_ms: u64,
}

/// What became of one virtual IP, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipResult {
    /// Another node took it over.
    TakenOver,
    /// Nobody took it over: this node is Active again.
    NobodyTookOver,
    /// This node was not Active: there was nothing to hand over.
    NotActive,
    /// Something else ended it: the interface went down, this node is stopping.
    Interrupted,
    /// This node is no longer held back.
    Released,
    /// This node was not held back.
    NotHeldBack,
    /// No virtual IP of this node has that name.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_json_what_is_left_out_has_its_default() {
        let command: Command = serde_json::from_str("{\"failover\":{}}").unwrap();
        assert_eq!(command, Command::Failover(Failover::default()));
        let unknown = serde_json::from_str::<Command>("{\"failover\":{\"vip\":\"a\"}}");
        assert!(unknown.is_err());
    }

    #[test]
    fn words_of_the_json_form_stay_as_they_are() {
        let outcome = Outcome::Vips(vec![VipOutcome {
            vip: "kube".into(),
            result: VipResult::TakenOver,
            active: Some("172.16.0.3".parse().unwrap()),
            node: Some("lb2".into()),
            elapsed_ms: 12,
        }]);
        let json = "{\"vips\":[{\"vip\":\"kube\",\"result\":\"taken-over\",\
                    \"active\":\"172.16.0.3\",\"node\":\"lb2\",\"elapsed_ms\":12}]}";
        assert_eq!(serde_json::to_string(&outcome).unwrap(), json);
    }
}
