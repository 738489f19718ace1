//! The keys of `[vip.NAME]` and of what it tracks.

use super::{
    DAY, Fallback, HOUR, Key, Kind, MINUTE, SECOND, Section, Word, seconds, seconds_or_off,
};

pub(super) const VIP: Section = Section {
    path: "vip.NAME",
    doc: "A virtual router: addresses that exactly one of the nodes holds.",
    keys: &[
        Key::new(
            "address",
            Kind::Form("`IP/PREFIX`, or a list of up to 20"),
            Fallback::Required,
            "The virtual address; without a prefix a host address (/32, /128). Addresses of both families become two virtual routers that move together, NAME and NAME-v6 (or NAME-v4). RFC 9568 wants a link-local address first among IPv6 ones, for routers; lbd does without.",
        )
        .called(&["virtual_ipaddress", "virtual-address", "ip", "addresses", "vip"]),
        Key::new(
            "nodes",
            Kind::List("addresses or tables, at most 16"),
            Fallback::Required,
            "The load-balancer hosts, the same list on each; a node finds itself by its addresses. With virtual addresses of both families each gives one of both: `[\"172.16.0.2\", \"fd00:16::2\"]`.",
        )
        .called(&["unicast_peer", "unicast-peers", "peers", "node"]),
        Key::new(
            "interface",
            Kind::Form("interface name"),
            Fallback::Words("the one that holds the node's address"),
            "The interface that carries the address.",
        )
        .called(&["dev", "nic"]),
        Key::new(
            "vrid",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Words("the last octet of the first address"),
            "The virtual router's number on its LAN; required when that octet is 0 or the address IPv6.",
        )
        .called(&["virtual_router_id", "router-id"]),
        Key::new(
            "version",
            Kind::Integer { min: 2, max: 3 },
            Fallback::Value("3"),
            "The VRRP version; 2 is keepalived's default, and for IPv4 alone.",
        )
        .called(&["vrrp_version"]),
        Key::new(
            "advert-interval",
            seconds(10, 255 * SECOND),
            Fallback::Value("\"1s\""),
            "Time between adverts: version 3 10ms to 40950ms in steps of 10ms, version 2 whole seconds.",
        )
        .called(&["advert_int", "advertisement-interval"]),
        Key::new(
            "advert-spacing",
            seconds_or_off(10, 255 * SECOND),
            Fallback::Words("a fifth of `advert-interval`, at least 10ms"),
            "Time between two adverts sent, so that lost ones don't move the address; \"off\" = `advert-interval`, as the RFC says. A node that hears an Active twice an interval or more often believes its silence half an interval sooner.",
        ),
        Key::new(
            "auth",
            Kind::Table("vip.NAME.auth"),
            Fallback::Words("none"),
            "How adverts prove who sent them: a password in clear (version 2), or HMAC.",
        )
        .called(&["authentication"]),
        Key::new(
            "mode",
            Kind::Choice(&[Word::new("unicast"), Word::new("multicast")]),
            Fallback::Value("\"unicast\""),
            "How adverts travel: to each node, or to 224.0.0.18 and ff02::12.",
        ),
        Key::new(
            "preempt",
            Kind::Form("`true`, `false` or a duration"),
            Fallback::Value("\"10s\""),
            "Whether a stronger node takes over from a weaker one, and how long after its own start or recovery.",
        ),
        Key::new(
            "lease",
            seconds_or_off(SECOND, 60 * SECOND),
            Fallback::Value("\"2s\""),
            "The kernel removes the address this long after lbd last renewed it; whole seconds.",
        ),
        Key::new("garp", Kind::Table("vip.NAME.garp"), Fallback::Words("see there"), "Gratuitous ARP, by IPv6 unsolicited Neighbor Advertisements."),
        Key::new(
            "track",
            Kind::List(
                "`proxy:NAME`, `script:NAME`, `interface:NAME` or `file:NAME`, optionally with `:WEIGHT`",
            ),
            Fallback::Words("every proxy of the file"),
            "What this node must be able to do; without a weight a failure hands the address over. With one it is added to the priority: a positive weight while all is well, a negative one while it has failed. An interface must be there, up and have carrier; the own one is always tracked. A file: see `[track.file.NAME]`.",
        )
        .called(&["track_script", "track_interface", "track_file"]),
        Key::new(
            "per-server-weight",
            Kind::Integer { min: 0, max: 100 },
            Fallback::Value("0"),
            "Added to the priority for each usable server of the tracked proxies, so that the node that reaches more of them wins. A holder counts a loss, any other node a gain, only once it has lasted for one check interval.",
        ),
        Key::new(
            "notify",
            Kind::Table("vip.NAME.notify"),
            Fallback::Words("none"),
            "Programs that are told about changes.",
        )
        .called(&["notify_master", "notify_backup", "notify_fault"]),
        Key::new(
            "sync-group",
            Kind::Form("name"),
            Fallback::Words("none"),
            "Virtual routers with the same word here move together, all or none; what one of them tracks, all do.",
        )
        .called(&["vrrp_sync_group"]),
        Key::new(
            "virtual-mac",
            Kind::Bool,
            Fallback::Value("false"),
            "Whether the addresses have the RFC's hardware address 00:00:5e:00:01:VRID (IPv6: 02), on a macvlan device; needs `arp_ignore` 1 on the host's interface.",
        )
        .called(&["use_vmac"]),
        Key::new(
            "announce",
            Kind::Choice(&[Word::new("vrrp"), Word::new("route")]),
            Fallback::Value("\"vrrp\""),
            "`route`: no election; every node that can serve holds the address (a host address, on `lo` or `interface`), for FRR or BIRD to redistribute. Only `address`, `interface`, `lease`, `track` and `withdraw-grace` go with it.",
        ),
        Key::new(
            "withdraw-grace",
            seconds_or_off(100, MINUTE),
            Fallback::Words("5s"),
            "With `announce = \"route\"`: how long connections are still served after the address was withdrawn, while routers learn of it; then they are reset.",
        ),
        Key::new(
            "allow-from",
            Kind::List("addresses, at most 16"),
            Fallback::Words("none"),
            "Routers beyond `nodes` that may take part, a third one during a migration say: by unicast adverts go to them, too; theirs are judged as those of nodes, with TTL 255.",
        ),
    ],
};

pub(super) const NOTIFY: Section = Section {
    path: "vip.NAME.notify",
    doc: "Programs that are told about changes, one at a time and in order; of the changes that come while one runs only the last is told. Each is a list: absolute path of the program, then its arguments. In the environment: LBD_VIP, LBD_VRID, LBD_STATE (`active`, `backup`, `fault`, `stop`), LBD_PREVIOUS_STATE (the state told before; empty at first), LBD_PRIORITY, LBD_REASON, LBD_ADDRESSES (`ADDRESS/PREFIX`, separated by spaces), LBD_INTERFACE, LBD_NODE, LBD_SEQ (grows with each change), PATH, and nothing else. They run without capabilities and cannot gain any; exit codes only matter to the log.",
    keys: &[
        Key::new(
            "active",
            Kind::List("program and arguments"),
            Fallback::Words("none"),
            "This node has taken the address.",
        )
        .called(&["master", "notify_master"]),
        Key::new(
            "backup",
            Kind::List("program and arguments"),
            Fallback::Words("none"),
            "This node watches; also told once at the start.",
        )
        .called(&["notify_backup"]),
        Key::new(
            "fault",
            Kind::List("program and arguments"),
            Fallback::Words("none"),
            "The interface is gone or down.",
        )
        .called(&["notify_fault"]),
        Key::new(
            "stop",
            Kind::List("program and arguments"),
            Fallback::Words("`backup`"),
            "lbd leaves; it waits for the programs, for at most 15s.",
        )
        .called(&["notify_stop"]),
        Key::new(
            "any",
            Kind::List("program and arguments"),
            Fallback::Words("none"),
            "Run after each of the others.",
        )
        .called(&["notify"]),
        Key::new(
            "keepalived-arguments",
            Kind::Bool,
            Fallback::Value("false"),
            "`any` gets four more arguments as keepalived's `notify` does: `INSTANCE`, the name of the VIP, `MASTER`, `BACKUP`, `FAULT` or `STOP`, and the priority.",
        ),
        Key::new(
            "timeout",
            seconds(100, 5 * MINUTE),
            Fallback::Value("\"10s\""),
            "A program that runs longer is ended with its whole process group: SIGTERM, a second later SIGKILL.",
        ),
        Key::new("user", USER_KIND, USER_DEFAULT, USER_DOC).called(&["script_user"]),
    ],
};

const USER_KIND: Kind = Kind::Form("`\"user\"` or `\"user:group\"`");
const USER_DEFAULT: Fallback = Fallback::Words("the one lbd runs as");
const USER_DOC: &str = "Whose rights it gets, with the user's supplementary groups and without any capability. Another one than lbd's takes an lbd that runs as root, with CAP_SETUID, CAP_SETGID and CAP_KILL. As root a program is run only if nobody but root can change it or its directories.";

pub(super) const AUTH: Section = Section {
    path: "vip.NAME.auth",
    doc: "Authentication of adverts, the same on every node.",
    keys: &[
        Key::new(
            "type",
            Kind::Choice(&[
                Word::new("hmac").called(&["HMAC", "auth_hmac"]),
                Word::new("pass").called(&["PASS"]),
                Word::later("ah").called(&["AH"]),
            ]),
            Fallback::Required,
            "`hmac` is a trailer by draft-cassen-vrrp-auth-hmac (keepalived 2.4.2 and later); it needs clocks that agree within three intervals, at least 5 s. `pass` is the simple password of RFC 2338, version 2 only, sent in clear.",
        )
        .called(&["auth_type"]),
        Key::new(
            "key",
            Kind::Form("1 to 8 bytes"),
            Fallback::Words("required with `pass`"),
            "The password.",
        )
        .called(&["auth_pass", "password", "pass"]),
        Key::new(
            "keys",
            Kind::List("1 to 4 of `{ id = 1, key = \"…\" }`"),
            Fallback::Words("required with `hmac`"),
            "The first signs, all are accepted. To change keys without a gap: add the new one in second place everywhere, then put it first everywhere, then drop the old one.",
        ),
        Key::new(
            "mode",
            Kind::Choice(&[
                Word::new("enforce"),
                Word::new("permissive"),
                Word::new("receive-only").called(&["receive_only"]),
            ]),
            Fallback::Value("\"enforce\""),
            "For bringing `hmac` into a running group, one step on every node after the other: `receive-only` signs nothing and checks what is signed, `permissive` signs and still accepts what is not.",
        ),
    ],
};

pub(super) const AUTH_KEYS: Section = Section {
    path: "vip.NAME.auth.keys",
    doc: "One shared secret of HMAC authentication.",
    keys: &[
        Key::new(
            "id",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Required,
            "Adverts name their key by it.",
        ),
        Key::new(
            "key",
            Kind::Form("32 to 64 bytes, or `hex:` and 64 to 128 digits"),
            Fallback::Required,
            "The secret; `openssl rand -hex 32` makes one.",
        ),
    ],
};

pub(super) const NODES: Section = Section {
    path: "vip.NAME.nodes",
    doc: "One load-balancer host; `\"172.16.0.2\"` is short for `{ address = \"172.16.0.2\" }`.",
    keys: &[
        Key::new(
            "address",
            Kind::Form("IP address, or a list with one of each family"),
            Fallback::Required,
            "The source of this node's adverts; by IPv6 multicast its link-local address.",
        )
        .called(&["unicast_src_ip", "ip"]),
        Key::new(
            "name",
            Kind::Form("name"),
            Fallback::Words("none"),
            "What people call it.",
        ),
        Key::new(
            "priority",
            Kind::Integer { min: 2, max: 255 },
            Fallback::Words("200, 190, … by position"),
            "The strongest able node is active.",
        ),
        Key::new(
            "interface",
            Kind::Form("interface name"),
            Fallback::Words("the VIP's"),
            "The interface on this node.",
        ),
        Key::new(
            "min-ttl",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Value("255"),
            "The least TTL or hop limit accepted from this node by unicast; 255 proves that it is on this LAN. keepalived sends IPv6 unicast with hop limit 64: write 64 for such a node.",
        ),
    ],
};

pub(super) const GARP: Section = Section {
    path: "vip.NAME.garp",
    doc: "Gratuitous ARP: how the LAN learns where the address is.",
    keys: &[
        Key::new(
            "repeat",
            Kind::Integer { min: 1, max: 100 },
            Fallback::Value("5"),
            "Frames per burst and address.",
        )
        .called(&["garp_master_repeat"]),
        Key::new(
            "delay",
            seconds_or_off(0, MINUTE),
            Fallback::Value("\"5s\""),
            "A second burst comes this long after the first.",
        )
        .called(&["garp_master_delay"]),
        Key::new(
            "refresh",
            seconds_or_off(0, HOUR),
            Fallback::Value("\"30s\""),
            "One frame per address so often while active.",
        )
        .called(&["garp_master_refresh"]),
        Key::new(
            "interval",
            seconds(0, SECOND),
            Fallback::Value("\"0ms\""),
            "Between two frames of one burst.",
        )
        .called(&["garp_interval", "vrrp_garp_interval"]),
    ],
};

pub(super) const TRACK: Section = Section {
    path: "track",
    doc: "What a VIP can track beside proxies.",
    keys: &[
        Key::new(
            "script",
            Kind::Named("track.script.NAME"),
            Fallback::Words("none"),
            "Programs whose exit status says whether this node may serve.",
        )
        .called(&["scripts", "vrrp_script"]),
        Key::new(
            "file",
            Kind::Named("track.file.NAME"),
            Fallback::Words("none"),
            "Files whose content says whether this node may serve: a drain switch.",
        )
        .called(&["files", "vrrp_track_file", "track_file"]),
    ],
};

pub(super) const FILE: Section = Section {
    path: "track.file.NAME",
    doc: "A number in a file. A file that is not there is 0, a whole number is that number, anything else (an empty file too) is 1. Tracked without a weight, a number other than 0 hands the address over: `touch` drains this node, `rm` brings it back. With a weight, number × weight (−253 to 253) is added to the priority. A file that cannot be read counts as failed. Changes are seen at once; what the kernel does not tell of (network file systems, targets of symbolic links) within 5s.",
    keys: &[
        Key::new(
            "path",
            Kind::Form("absolute path"),
            Fallback::Required,
            "The file.",
        )
        .called(&["file"]),
        Key::new(
            "weight",
            Kind::Integer {
                min: -253,
                max: 253,
            },
            Fallback::Words("none: a number other than 0 hands the address over"),
            "Multiplied with the number in the file and added to the priority; not 0.",
        ),
    ],
};

pub(super) const SCRIPT: Section = Section {
    path: "track.script.NAME",
    doc: "A program whose exit status 0 means that this node may serve.",
    keys: &[
        Key::new(
            "command",
            Kind::List("absolute path of the program, then its arguments"),
            Fallback::Required,
            "Started directly, not through a shell.",
        )
        .called(&["script", "exec", "cmd"]),
        Key::new(
            "interval",
            seconds(100, DAY),
            Fallback::Value("\"1s\""),
            "Between two starts.",
        ),
        Key::new(
            "timeout",
            seconds(10, DAY),
            Fallback::Words("the interval"),
            "A run that takes longer has failed and is killed.",
        ),
        Key::new(
            "rise",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Value("1"),
            "Successes in a row until it counts as well.",
        ),
        Key::new(
            "fall",
            Kind::Integer { min: 1, max: 255 },
            Fallback::Value("1"),
            "Failures in a row until it counts as failed.",
        ),
        Key::new(
            "weight",
            Kind::Integer {
                min: -253,
                max: 253,
            },
            Fallback::Words("none: a failure hands the address over"),
            "Added to the priority on success if positive, on failure if negative; not 0.",
        ),
        Key::new("user", USER_KIND, USER_DEFAULT, USER_DOC).called(&["script_user"]),
    ],
};
