//! The keys outside `[vip.NAME]` and `[proxy.NAME]`.

use super::{Fallback, Key, Kind, SECOND, Section, Word, ms};

pub(super) const ROOT: Section = Section {
    path: "",
    doc: "What stands in no other table.",
    keys: &[
        Key::new(
            "log",
            Kind::Table("log"),
            Fallback::Words("see there"),
            "Where messages go.",
        ),
        Key::new(
            "access-log",
            Kind::Table("access-log"),
            Fallback::Words("off"),
            "One line per connection; off when the table is absent.",
        )
        .called(&["accesslog"]),
        Key::new(
            "admin",
            Kind::Table("admin"),
            Fallback::Words("see there"),
            "The admin socket.",
        )
        .called(&["stats"]),
        Key::new(
            "metrics",
            Kind::Table("metrics"),
            Fallback::Words("see there"),
            "The HTTP listener.",
        ),
        Key::new(
            "limits",
            Kind::Table("limits"),
            Fallback::Words("see there"),
            "Limits of the process.",
        )
        .called(&["global"]),
        Key::new(
            "reload",
            Kind::Table("reload"),
            Fallback::Words("see there"),
            "When this file is read again.",
        ),
        Key::new(
            "vip",
            Kind::Named("vip.NAME"),
            Fallback::Words("none"),
            "Virtual addresses.",
        )
        .called(&["vrrp_instance", "vrrp", "vips"]),
        Key::new(
            "proxy",
            Kind::Named("proxy.NAME"),
            Fallback::Words("none"),
            "Listeners and their servers.",
        )
        .called(&["frontend", "proxies", "listen"]),
        Key::new(
            "track",
            Kind::Table("track"),
            Fallback::Words("none"),
            "What can be tracked beside proxies.",
        ),
        Key::new(
            "peer",
            Kind::Table("peer"),
            Fallback::Words("off"),
            "The channel between nodes.",
        ),
        Key::new(
            "user",
            Kind::Form("user name, or `user:group`; `root` to stay root"),
            Fallback::Words("`\"lbd\"` if there is such a user and no program is to run as another one, else root"),
            "Whom the daemon goes on as when root starts it without a service manager that does this. It keeps the rights to move addresses, and no other.",
        )
        .called(&["uid"]),
        Key::new(
            "state-dir",
            Kind::Form("absolute path"),
            Fallback::Words("`$STATE_DIRECTORY`, which systemd sets; else /var/lib/lbd, if it is there and the runtime directory is /run/lbd"),
            "The directory in which servers' admin states, weights, and servers added at run time, outlast a reboot. Without one they last until the daemon ends.",
        )
        .called(&["server_state_file", "server_state_base", "load_server_state_from_file", "state_file"]),
        Key::new(
            "writable",
            Kind::List("absolute paths, at most 16"),
            Fallback::Words("none"),
            "Directories that scripts and notify programs may write beside /tmp, /var/tmp, the runtime and the state directory, where no service manager says so and lbd restricts it itself; `[\"/\"]`: everywhere. Under systemd it is `ReadWritePaths=` of the unit.",
        )
        .called(&["read-write-paths", "readwritepaths"]),
    ],
};

pub(super) const LOG: Section = Section {
    path: "log",
    doc: "Where messages go.",
    keys: &[
        Key::new(
            "level",
            Kind::Choice(&[
                Word::new("error").called(&["err", "crit", "alert", "emerg"]),
                Word::new("warning").called(&["warn"]),
                Word::new("info").called(&["notice"]),
                Word::new("debug"),
                Word::new("trace"),
            ]),
            Fallback::Value("\"info\""),
            "The least severe message that is logged.",
        ),
        Key::new(
            "target",
            Kind::Choice(&[
                Word::new("auto"),
                Word::new("stderr"),
                Word::new("syslog").called(&["/dev/log"]),
                Word::new("journald").called(&["journal"]),
            ]),
            Fallback::Value("\"auto\""),
            "`auto` is journald when systemd started lbd, else stderr.",
        ),
        Key::new(
            "format",
            Kind::Choice(&[Word::new("text"), Word::new("json")]),
            Fallback::Value("\"text\""),
            "How a line on stderr looks.",
        ),
        Key::new(
            "facility",
            Kind::Choice(FACILITIES),
            Fallback::Value("\"daemon\""),
            "The syslog facility.",
        ),
    ],
};

/// Syslog's facilities; a facility's number is its position (RFC 5424 §6.2.1).
pub(super) const FACILITIES: &[Word] = &[
    Word::new("kern"),
    Word::new("user"),
    Word::new("mail"),
    Word::new("daemon"),
    Word::new("auth"),
    Word::new("syslog"),
    Word::new("lpr"),
    Word::new("news"),
    Word::new("uucp"),
    Word::new("cron"),
    Word::new("authpriv"),
    Word::new("ftp"),
    Word::new("ntp"),
    Word::new("audit"),
    Word::new("alert"),
    Word::new("clock"),
    Word::new("local0"),
    Word::new("local1"),
    Word::new("local2"),
    Word::new("local3"),
    Word::new("local4"),
    Word::new("local5"),
    Word::new("local6"),
    Word::new("local7"),
];

pub(super) const ACCESS_LOG: Section = Section {
    path: "access-log",
    doc: "One line per proxied connection, to the target of `[log]`; off when the table is absent.",
    keys: &[
        Key::new(
            "format",
            Kind::Choice(&[
                Word::new("tcplog").called(&["httplog"]),
                Word::new("json"),
                Word::new("logfmt"),
            ]),
            Fallback::Value("\"tcplog\""),
            "`tcplog` is HAProxy's `option tcplog`, field by field.",
        ),
        Key::new(
            "skip-empty",
            Kind::Bool,
            Fallback::Value("false"),
            "Leave out connections on which the client sent nothing.",
        )
        .called(&["dontlognull"]),
        Key::new(
            "sample",
            Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            Fallback::Value("1"),
            "Of connections that ended without any fault one in so many is logged; 0: none. All others always are.",
        )
        .called(&["dontlog-normal"]),
    ],
};

pub(super) const ADMIN: Section = Section {
    path: "admin",
    doc: "The socket that `lbd status` talks to.",
    keys: &[Key::new(
        "socket",
        Kind::Form("absolute path"),
        Fallback::Words("`admin.sock` in the runtime directory"),
        "The path of the socket.",
    )
    .called(&["stats_socket"])],
};

pub(super) const METRICS: Section = Section {
    path: "metrics",
    doc: "The HTTP listener for /metrics, /livez, /readyz, the status page at / and /status.json.",
    keys: &[
        Key::new(
            "listen",
            Kind::Form("`IP:PORT` or `\"off\"`"),
            Fallback::Value("\"127.0.0.1:9633\""),
            "Where it listens.",
        )
        .called(&["bind"]),
        Key::new(
            "compat",
            Kind::Bool,
            Fallback::Value("true"),
            "Also answers by the metric names and labels of HAProxy's exporter and of keepalived-exporter, for their dashboards.",
        ),
        Key::new(
            "names",
            Kind::List("host names, at most 16"),
            Fallback::Words("the host's name, and the names of `nodes`"),
            "Further names by which browsers may open the status page: a question for a foreign name may come from a foreign page (DNS rebinding). Addresses and `localhost` always do; Prometheus, probes and `curl` may use any name.",
        )
        .called(&["hosts", "host-names", "allowed-hosts", "server-names"]),
    ],
};

pub(super) const LIMITS: Section = Section {
    path: "limits",
    doc: "Limits of the whole process.",
    keys: &[
        Key::new(
            "max-connections",
            Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            Fallback::Words("from the limit on open files"),
            "Client connections over all proxies; the rest waits in the kernel's backlog.",
        )
        .called(&["maxconn"]),
        Key::new(
            "workers",
            Kind::IntegerOr {
                min: 1,
                max: 256,
                word: "auto",
            },
            Fallback::Value("\"auto\""),
            "Threads of the data path; auto: one for each CPU that the process may use, by its affinity and its cgroup's quota.",
        )
        .called(&["nbthread", "threads", "nbproc", "worker-processes"]),
        Key::new(
            "pin-workers",
            Kind::Bool,
            Fallback::Value("false"),
            "Each worker stays on a CPU of its own, of those the process may use; with more workers than those, none does.",
        )
        .called(&["cpu-map", "worker-cpu-affinity"]),
    ],
};

pub(super) const RELOAD: Section = Section {
    path: "reload",
    doc: "When this file is read again, beside `lbd reload` and SIGHUP; see docs/reload.md.",
    keys: &[Key::new(
        "watch",
        Kind::Bool,
        Fallback::Value("false"),
        "Also as soon as it changes, in place, by a rename or by a link that points elsewhere. One that is refused changes nothing, and is told of in log and events.",
    )],
};

pub(super) const PEER: Section = Section {
    path: "peer",
    doc: "The channel between the nodes of all VIPs: each sees the other's view, one-way loss is noticed, idle clients of a node that died are freed. Off without a key file; see docs/peer.md.",
    keys: &[
        Key::new(
            "key-file",
            Kind::Form("absolute path"),
            Fallback::Required,
            "One key per line, 32 characters or more, the same on every node: the first signs, a second is accepted too. Not readable by others than its owner and group.",
        ),
        Key::new(
            "port",
            Kind::Integer {
                min: 1_024,
                max: 65_535,
            },
            Fallback::Value("9634"),
            "The UDP port, on the nodes' own addresses.",
        ),
        Key::new(
            "interval",
            ms(20, 10 * SECOND),
            Fallback::Value("\"100ms\""),
            "Between two messages to each node; a change of state is told at once.",
        ),
    ],
};
