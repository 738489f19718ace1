//! The keys of `[proxy.NAME]`.

use super::{DAY, Fallback, HOUR, Key, Kind, SECOND, Section, Word, ms, ms_or_off};

const WEIGHT: Kind = Kind::Integer { min: 0, max: 256 };
pub(super) const CONNECTIONS: Kind = Kind::Integer {
    min: 1,
    max: 10_000_000,
};
const QUEUE: Kind = Kind::Integer {
    min: 0,
    max: 1_000_000,
};

pub(super) const PACE: Kind = Kind::Integer {
    min: 1,
    max: 1_000_000,
};

pub(super) const PROXY: Section = Section {
    path: "proxy.NAME",
    doc: "Listeners and the servers behind them.",
    keys: &[
        Key::new(
            "listen",
            Kind::Form("`IP:PORT`, `:PORT`, or a list of up to 64"),
            Fallback::Required,
            "Where clients connect; `:PORT` is every address of this machine.",
        )
        .called(&["bind", "address", "port"]),
        Key::new(
            "backends",
            Kind::Named("proxy.NAME.backends.NAME"),
            Fallback::Words("none; needed unless `backends-file` or `discovery` brings servers"),
            "The servers: a list of `IP:PORT`, or a table `NAME = \"IP:PORT\"` or `NAME = { … }`. A host name in place of an IP address stands for every server it resolves to.",
        )
        .called(&["server", "servers", "backend"]),
        Key::new(
            "check",
            Kind::Table("proxy.NAME.check"),
            Fallback::Words("`\"tcp\"`"),
            "How servers are checked: a type in short, or a table.",
        )
        .called(&["health-check", "healthcheck", "option_tcp-check"]),
        Key::new(
            "balance",
            Kind::Choice(&[
                Word::new("round-robin").called(&["roundrobin", "rr", "wrr", "static-rr", "round_robin"]),
                Word::new("least-connections").called(&["leastconn", "least-conn", "least_conn", "least_request", "lc", "wlc"]),
                Word::new("random").called(&["p2c"]),
                Word::new("source-hash").called(&["source", "ip_hash", "ring_hash", "maglev", "sh"]),
                Word::new("first"),
            ]),
            Fallback::Value("\"round-robin\""),
            "How the next server is chosen: in turn by weight; the one with the fewest connections for its weight; the less loaded of two drawn by weight; the same for the same client address; the first with room. See balancing.md.",
        )
        .called(&["algorithm", "lb_algo"]),
        Key::new(
            "connect-timeout",
            ms(1, HOUR),
            Fallback::Value("\"1s\""),
            "For one attempt to connect to a server.",
        )
        .called(&["timeout_connect", "contimeout"]),
        Key::new(
            "idle-timeout",
            ms(SECOND, 30 * DAY),
            Fallback::Value("\"1h\""),
            "A connection without a byte in either direction for so long is closed.",
        )
        .called(&["timeout_client", "timeout_server", "timeout_tunnel", "timeout", "clitimeout", "srvtimeout"]),
        Key::new(
            "half-close-timeout",
            ms(SECOND, DAY),
            Fallback::Value("\"30s\""),
            "The same once one side has finished.",
        )
        .called(&["timeout_client-fin", "timeout_server-fin"]),
        Key::new(
            "queue-timeout",
            ms(1, HOUR),
            Fallback::Value("\"5s\""),
            "The longest wait for a free server.",
        )
        .called(&["timeout_queue"]),
        Key::new(
            "max-connections",
            CONNECTIONS,
            Fallback::Words("the limit of the process"),
            "Client connections of this proxy, running and queued.",
        )
        .called(&["maxconn"]),
        Key::new(
            "max-queue",
            QUEUE,
            Fallback::Value("1024"),
            "Connections that may wait for a server, over the whole proxy; more are refused at once.",
        )
        .called(&["maxqueue", "backlog"]),
        Key::new(
            "client-first",
            Kind::Bool,
            Fallback::Words("true for tls, https and kube-apiserver checks"),
            "The client speaks first, as in TLS and HTTP.",
        ),
        Key::new(
            "first-byte-timeout",
            ms_or_off(100, DAY),
            Fallback::Words("`\"10s\"` where the client speaks first, else off"),
            "A client that stays silent for so long is dropped; only where the client speaks first.",
        )
        .called(&["timeout_http-request"]),
        Key::new(
            "retries",
            Kind::Integer { min: 0, max: 100 },
            Fallback::Value("3"),
            "Attempts after a failed connect, on another server if there is one.",
        )
        .called(&["redispatch"]),
        Key::new(
            "slowstart",
            ms_or_off(0, DAY),
            Fallback::Value("\"30s\""),
            "A server that came back reaches its full share after so long.",
        )
        .called(&["slow-start"]),
        Key::new(
            "keepalive",
            ms_or_off(SECOND, 9 * HOUR),
            Fallback::Value("\"30s\""),
            "Idle time until TCP keepalive probes, on both sides.",
        )
        .called(&["tcpka", "clitcpka", "srvtcpka"]),
        Key::new(
            "user-timeout",
            ms_or_off(SECOND, DAY),
            Fallback::Value("\"20s\""),
            "A peer that leaves bytes unacknowledged and probes unanswered for so long is gone, on both sides. One that only stops reading is not.",
        )
        .called(&["tcp-ut"]),
        Key::new(
            "backend-defaults",
            Kind::Table("proxy.NAME.backend-defaults"),
            Fallback::Words("none"),
            "What holds for every backend that doesn't say otherwise.",
        )
        .called(&["default-server"]),
        Key::new(
            "proxy-protocol",
            Kind::Table("proxy.NAME.proxy-protocol"),
            Fallback::Words("off"),
            "The PROXY protocol: who the client is, told in a header before a connection's bytes.",
        )
        .called(&["send-proxy", "accept-proxy", "send-proxy-v2", "expect-proxy", "proxy_protocol"]),
        Key::new(
            "source",
            Kind::Form("IP address, `[\"IPV4\", \"IPV6\"]`, or `\"client\"`"),
            Fallback::Words("the kernel's choice"),
            "The address that servers are connected to from, checks too. `\"client\"` is the client's own, for servers that have this node as their gateway (docs/transparent.md); checks then come from this node's.",
        )
        .called(&["usesrc", "proxy_bind", "source-address", "transparent"]),
        Key::new(
            "allow",
            Kind::Form("network or address, or a list of up to 1024"),
            Fallback::Words("everybody"),
            "Only clients from these networks may connect; others get RST. The client is who its PROXY header says, where one is accepted.",
        )
        .called(&["allowlist", "allow-list", "whitelist", "src", "loadBalancerSourceRanges"]),
        Key::new(
            "deny",
            Kind::Form("network or address, or a list of up to 1024"),
            Fallback::Words("nobody"),
            "Clients from these networks get RST, even those in `allow`.",
        )
        .called(&["denylist", "deny-list", "blacklist", "blocklist", "block", "reject"]),
        Key::new(
            "per-source",
            Kind::Table("proxy.NAME.per-source"),
            Fallback::Words("off"),
            "What one source, an IPv4 address or an IPv6 /64, may take; an empty table only counts (docs/capacity.md).",
        )
        .called(&["per-ip", "per-client", "limit_conn", "limit-conn", "sc0_conn_cur", "stick-table"]),
        Key::new(
            "hedge-after",
            ms_or_off(1, HOUR),
            Fallback::Words("`\"auto\"`"),
            "A connect that has no answer after so long gets a second one beside it, on another server; the first to answer gets the client. `\"auto\"` is three times the median connect time, at least 50 ms.",
        )
        .called(&["hedge", "hedging", "hedge_policy"]),
        Key::new(
            "on-unresponsive",
            Kind::Choice(&[
                Word::new("reset").called(&["shutdown-sessions", "close"]),
                Word::new("keep").called(&["none"]),
            ]),
            Fallback::Value("\"reset\""),
            "What becomes of established connections to a server that gives no sign of life: closed with RST while another server is ready, or left alone (docs/verdicts.md).",
        )
        .called(&["on-marked-down", "close_connections_on_host_health_failure"]),
        Key::new(
            "on-not-ready",
            Kind::Choice(&[
                Word::new("drain").called(&["keep"]),
                Word::new("reset").called(&["shutdown-sessions", "close"]),
            ]),
            Fallback::Value("\"drain\""),
            "What becomes of established connections to a server that is alive and says that it is not ready: left alone, or closed with RST while another server is ready.",
        ),
        Key::new(
            "max-ejected",
            Kind::Integer { min: 0, max: 100 },
            Fallback::Value("50"),
            "Percent of the servers that may be taken out of service for what real traffic tells of them, before their checks have failed. Never the last one; 0: none.",
        )
        .called(&["max_ejection_percent", "max-ejection-percent"]),
        Key::new(
            "max-age",
            ms_or_off(SECOND, 30 * DAY),
            Fallback::Value("\"off\""),
            "A connection that is so old, a tenth more or less, ends at its next quiet moment (docs/rebalancing.md).",
        )
        .called(&["max-lifetime", "max_connection_duration", "max_downstream_connection_duration", "max-session-age"]),
        Key::new(
            "rebalance",
            Kind::Table("proxy.NAME.rebalance"),
            Fallback::Words("off"),
            "Moves idle TLS connections to servers that came back or have fewer than their share; an empty table turns it on.",
        )
        .called(&["rebalancing", "balance-existing"]),
        Key::new(
            "backends-file",
            Kind::Form("absolute path"),
            Fallback::Words("none"),
            "More servers, from a file that is read again when it changes: `backends` as here in a file that ends in .toml, else Prometheus's file_sd JSON (docs/discovery.md).",
        )
        .called(&["file-sd", "file_sd_configs", "backends_file", "servers-file"]),
        Key::new(
            "discovery",
            Kind::Table("proxy.NAME.discovery"),
            Fallback::Words("off"),
            "More servers, from DNS or Kubernetes (docs/discovery.md).",
        )
        .called(&["server-template", "resolvers", "resolver", "resolve", "eds", "service-discovery"]),
    ],
};

pub(super) const BACKEND_DEFAULTS: Section = Section {
    path: "proxy.NAME.backend-defaults",
    doc: "What holds for every backend that doesn't say otherwise.",
    keys: &[
        Key::new(
            "weight",
            WEIGHT,
            Fallback::Value("1"),
            "Share in the rotation; 0 takes no new connections.",
        ),
        Key::new(
            "max-connections",
            CONNECTIONS,
            Fallback::Words("no limit"),
            "Connections to one server, exact over all workers.",
        )
        .called(&["maxconn"]),
        Key::new(
            "connects-per-second",
            PACE,
            Fallback::Words("no limit"),
            "New connections to one server in a second, evenly spaced; the excess waits in the queue.",
        )
        .called(&["max-connects-per-second", "connection-rate", "max-connrate"]),
        Key::new(
            "max-queue",
            QUEUE,
            Fallback::Words("`max-queue` of the proxy"),
            "Waiting connections for each usable server; their sum is the proxy's queue.",
        )
        .called(&["maxqueue"]),
    ],
};

pub(super) const BACKENDS: Section = Section {
    path: "proxy.NAME.backends.NAME",
    doc: "One server; `NAME = \"IP:PORT\"` is short for `NAME = { address = \"IP:PORT\" }`.",
    keys: &[
        Key::new(
            "address",
            Kind::Form("`IP:PORT`"),
            Fallback::Required,
            "Where it listens.",
        )
        .called(&["server", "addr", "ip"]),
        Key::new(
            "weight",
            WEIGHT,
            Fallback::Words("`backend-defaults`, else 1"),
            "Share in the rotation; 0 takes no new connections.",
        ),
        Key::new(
            "max-connections",
            CONNECTIONS,
            Fallback::Words("`backend-defaults`, else no limit"),
            "Connections to this server, exact over all workers.",
        )
        .called(&["maxconn"]),
        Key::new(
            "connects-per-second",
            PACE,
            Fallback::Words("`backend-defaults`, else no limit"),
            "New connections to this server in a second, evenly spaced; the excess waits in the queue.",
        )
        .called(&["max-connects-per-second", "connection-rate", "max-connrate"]),
        Key::new(
            "check-address",
            Kind::Form("`IP:PORT`"),
            Fallback::Words("the address"),
            "Where it is checked.",
        ),
        Key::new(
            "disabled",
            Kind::Bool,
            Fallback::Value("false"),
            "Starts in maintenance.",
        ),
        Key::new(
            "backup",
            Kind::Bool,
            Fallback::Value("false"),
            "Used only when no other server is usable; then with all others like it.",
        )
        .called(&["allbackups"]),
    ],
};
