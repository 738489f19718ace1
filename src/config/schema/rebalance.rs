//! The keys of `[proxy.NAME.rebalance]`.

use super::{Fallback, Key, Kind, MINUTE, Section, ms};

pub(super) const REBALANCE: Section = Section {
    path: "proxy.NAME.rebalance",
    doc: "Moves idle TLS connections from servers that have more than their share to those that have less, by closing them at a quiet moment; an empty table does so with these defaults (docs/rebalancing.md).",
    keys: &[
        Key::new(
            "above",
            Kind::Integer {
                min: 105,
                max: 1000,
            },
            Fallback::Value("125"),
            "Percent of its fair share at which a server has too many. After a server came back, more than the share is enough.",
        )
        .called(&["threshold", "skew"]),
        Key::new(
            "connections-per-second",
            Kind::Integer { min: 1, max: 1000 },
            Fallback::Value("10"),
            "Connections that are closed in a second, at most.",
        )
        .called(&["rate", "pace"]),
        Key::new(
            "quiet",
            ms(100, 60 * MINUTE),
            Fallback::Value("\"1s\""),
            "Time without a byte in either direction after which a connection may be closed; five times as long where the client spoke last.",
        )
        .called(&["idle"]),
    ],
};
