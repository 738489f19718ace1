//! The keys of `[proxy.NAME.per-source]`.

use super::proxy::{CONNECTIONS, PACE};
use super::{Fallback, Key, Kind, Section};

pub(super) const PER_SOURCE: Section = Section {
    path: "proxy.NAME.per-source",
    doc: "What one source may take of this proxy: an IPv4 address, or an IPv6 network of 64 bits. More is refused with RST. Everybody is counted; `lbd status --top` shows the busiest.",
    keys: &[
        Key::new(
            "max-connections",
            CONNECTIONS,
            Fallback::Words("no limit"),
            "Connections at once, running and queued.",
        )
        .called(&[
            "maxconn",
            "conn_cur",
            "max_connections_per_ip",
            "limit_conn",
        ]),
        Key::new(
            "connections-per-second",
            PACE,
            Fallback::Words("no limit"),
            "New connections in a second, in the long run.",
        )
        .called(&[
            "conn_rate",
            "rate",
            "rate-limit",
            "limit_req",
            "connects-per-second",
        ]),
        Key::new(
            "burst",
            PACE,
            Fallback::Words("`connections-per-second`"),
            "New connections at once, after a rest.",
        ),
        Key::new(
            "exempt",
            Kind::Form("network or address, or a list of up to 1024"),
            Fallback::Words("none"),
            "Sources that are counted and never limited.",
        )
        .called(&["except", "whitelist", "allow"]),
    ],
};
