//! The unit file as it is shipped: the keys that the service manager here obeys, and those that it
//! can't. A key that is in neither list is an error, so that none is forgotten.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What is obeyed.
pub const OBEYED: &[&str] = &[
    "Type",
    "NotifyAccess",
    "ExecStart",
    "ExecReload",
    "KillMode",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "StartLimitIntervalSec",
    "WatchdogSec",
    "TimeoutStopSec",
    "FileDescriptorStoreMax",
    "User",
    "Group",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "RuntimeDirectoryPreserve",
    "StateDirectory",
    "StateDirectoryMode",
    "UMask",
    "AmbientCapabilities",
    "CapabilityBoundingSet",
    "NoNewPrivileges",
    "LimitNOFILE",
    "ProtectProc",
    "ProcSubset",
    "ProtectSystem",
    "ProtectHome",
    "ProtectKernelTunables",
    "ProtectControlGroups",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "MemoryDenyWriteExecute",
    "SystemCallFilter",
    "SystemCallErrorNumber",
];

/// What is not, and why.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("Description", "text"),
    ("ExecReload", "`lbd reload` is a program of its own"),
    ("Documentation", "text"),
    ("After", "order of services"),
    ("Wants", "order of services"),
    ("WantedBy", "order of services"),
    ("LimitRTPRIO", "containers may not raise it"),
    ("LimitMEMLOCK", "containers may not raise it"),
    ("OOMScoreAdjust", "containers may not lower it"),
    ("ProtectKernelModules", "a file system of systemd's making"),
    ("ProtectKernelLogs", "a file system of systemd's making"),
    ("ProtectClock", "a filter of systemd's making"),
    ("ProtectHostname", "a namespace of systemd's making"),
    ("PrivateIPC", "a namespace of systemd's making"),
    ("RemoveIPC", "lbd has no such objects"),
    ("RestrictSUIDSGID", "a filter of systemd's making"),
    ("LockPersonality", "a filter of systemd's making"),
    ("KeyringMode", "a keyring of systemd's making"),
    ("SystemCallArchitectures", "a filter of systemd's making"),
];

/// A parsed unit file.
#[derive(Debug)]
pub struct Unit {
    keys: BTreeMap<String, Vec<String>>,
}

impl Unit {
    /// The unit that is shipped.
    pub fn shipped() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/lbd.service");
        Self::parse(&std::fs::read_to_string(path).expect("the unit can be read"))
    }

    /// systemd.syntax(7), as far as the unit uses it.
    pub fn parse(text: &str) -> Self {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';', '[']) {
                continue;
            }
            let (key, value) = line.split_once('=').expect("KEY=VALUE");
            let values = keys.entry(key.to_owned()).or_default();
            values.push(value.to_owned());
        }
        Self { keys }
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The last value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.last().map(String::as_str)
    }

    /// All values of a key, in their order.
    pub fn all(&self, key: &str) -> &[String] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// A key that the unit must have.
    pub fn required(&self, key: &str) -> &str {
        self.value(key)
            .unwrap_or_else(|| panic!("the unit has no {key}"))
    }

    pub fn flag(&self, key: &str) -> bool {
        matches!(self.value(key), Some("yes" | "true" | "on" | "1"))
    }

    /// A span of time, systemd.time(7): a number with `ms`, `s`, `min` or nothing (seconds).
    pub fn span(&self, key: &str) -> Duration {
        span(self.required(key))
    }
}

pub fn span(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().expect("a number");
    match text.trim_start_matches(digits) {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "min" => Duration::from_secs(60 * number),
        unit => panic!("the service manager does not know the unit {unit:?}"),
    }
}
