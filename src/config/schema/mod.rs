//! The one table of keys of lb.toml: name, type, range, default, meaning, and the words users
//! bring from elsewhere. Parsing, did-you-mean, `docs/config.md` and the tests of the shipped
//! examples all read it. No parsing here, only the table and look-ups in it.

mod check;
mod discovery;
mod general;
mod origin;
mod proxy;
mod rebalance;
mod source;
mod vip;

/// One table of lb.toml, such as `[vip.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where it stands, `NAME` for a name the user chooses; empty for the top of the file.
    pub path: &'static str,
    /// One line about it.
    pub doc: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Key],
}

/// One key of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name in kebab-case.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when it is left out.
    pub default: Fallback,
    /// One line for people.
    pub doc: &'static str,
    /// Whether this release can do it.
    pub support: Support,
    /// Other programs' words for it, and likely slips.
    pub aliases: &'static [&'static str],
}

/// The values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A whole number, or a word in its place.
    IntegerOr {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
        /// The word.
        word: &'static str,
    },
    /// A string such as `"250ms"`, limits in milliseconds.
    Duration {
        /// The shortest, ms.
        min: u64,
        /// The longest, ms.
        max: u64,
        /// Whether `"off"` is a value too.
        off: bool,
        /// The unit that a user who wrote a bare number probably meant.
        habit: Habit,
    },
    /// One of a few words.
    Choice(&'static [Word]),
    /// A string or another form, described in words; read by a function of its own.
    Form(&'static str),
    /// A list, described in words.
    List(&'static str),
    /// A table with the keys of this section.
    Table(&'static str),
    /// Tables with the keys of this section, each under a name of the user's choice.
    Named(&'static str),
}

/// Where users of a duration key come from, hence what their bare numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// HAProxy: milliseconds.
    Milliseconds,
    /// keepalived: seconds.
    Seconds,
}

/// One value of a [`Kind::Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The value.
    pub word: &'static str,
    /// Whether this release can do it.
    pub support: Support,
    /// Other programs' words for it.
    pub aliases: &'static [&'static str],
}

/// What holds when a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The file is refused.
    Required,
    /// This value, as TOML.
    Value(&'static str),
    /// Something that depends on the rest, in words.
    Words(&'static str),
}

/// Whether this release can do what a key or value asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Yes.
    Supported,
    /// Known, and refused with "not supported yet".
    Later,
}

/// Every section of lb.toml.
pub const SECTIONS: &[Section] = &[
    general::ROOT,
    general::LOG,
    general::ACCESS_LOG,
    general::ADMIN,
    general::METRICS,
    general::LIMITS,
    general::RELOAD,
    general::PEER,
    vip::VIP,
    vip::NOTIFY,
    vip::AUTH,
    vip::AUTH_KEYS,
    vip::NODES,
    vip::GARP,
    vip::TRACK,
    vip::SCRIPT,
    vip::FILE,
    proxy::PROXY,
    check::CHECK,
    origin::PROXY_PROTOCOL,
    source::PER_SOURCE,
    rebalance::REBALANCE,
    proxy::BACKEND_DEFAULTS,
    proxy::BACKENDS,
    discovery::DISCOVERY,
    discovery::DNS,
    discovery::KUBERNETES,
];

/// A section without keys: what an unknown path looks up.
const NOWHERE: Section = Section {
    path: "",
    doc: "",
    keys: &[],
};

/// The section at `path`, written as in the table; an empty one when there is none.
#[must_use]
pub fn section(path: &str) -> &'static Section {
    SECTIONS
        .iter()
        .find(|section| section.path == path)
        .unwrap_or(&NOWHERE)
}

impl Section {
    /// The key of that exact name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that users of other programs call `word`.
    #[must_use]
    pub fn key_called(&self, word: &str) -> Option<&'static Key> {
        let kebab = word.to_ascii_lowercase().replace('_', "-");
        self.keys
            .iter()
            .find(|key| key.aliases.contains(&word))
            .or_else(|| self.key(&kebab))
            .or_else(|| {
                let fits = |alias: &&str| alias.replace('_', "-") == kebab;
                self.keys.iter().find(|key| key.aliases.iter().any(fits))
            })
    }
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: Fallback, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            doc,
            support: Support::Supported,
            aliases: &[],
        }
    }

    const fn called(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The default as TOML, if it is a plain value.
    #[must_use]
    pub const fn default_toml(&self) -> Option<&'static str> {
        match self.default {
            Fallback::Value(text) => Some(text),
            Fallback::Required | Fallback::Words(_) => None,
        }
    }

    /// The default without the quotes of a TOML string; empty if there is no plain default.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        self.default_toml().unwrap_or("").trim_matches('"')
    }
}

impl Word {
    const fn new(word: &'static str) -> Self {
        Self {
            word,
            support: Support::Supported,
            aliases: &[],
        }
    }

    const fn later(word: &'static str) -> Self {
        Self {
            word,
            support: Support::Later,
            aliases: &[],
        }
    }

    const fn called(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }
}

/// A duration from HAProxy's world, limits in milliseconds.
const fn ms(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min,
        max,
        off: false,
        habit: Habit::Milliseconds,
    }
}

/// The same, or `"off"`.
const fn ms_or_off(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min,
        max,
        off: true,
        habit: Habit::Milliseconds,
    }
}

/// A duration from keepalived's world, limits in milliseconds.
const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min,
        max,
        off: false,
        habit: Habit::Seconds,
    }
}

/// The same, or `"off"`.
const fn seconds_or_off(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min,
        max,
        off: true,
        habit: Habit::Seconds,
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Words that need more than another name: (section, word, what to write instead).
pub const REMARKS: &[(&str, &str, &str)] = &[
    ("vip.NAME", "nopreempt", "write `preempt = false`"),
    (
        "vip.NAME",
        "preempt_delay",
        "write the delay as the value of `preempt`, e.g. `preempt = \"10s\"`",
    ),
    (
        "vip.NAME",
        "auth_pass",
        "write `auth = { type = \"pass\", key = \"…\" }`",
    ),
    (
        "vip.NAME",
        "auth_type",
        "write `auth = { type = \"pass\", key = \"…\" }`",
    ),
    (
        "vip.NAME",
        "auth_hmac",
        "write `auth = { type = \"hmac\", keys = [{ id = 1, key = \"…\" }] }`",
    ),
    (
        "vip.NAME",
        "notify_master",
        "write `notify = { active = [\"/path\", \"argument\"] }`",
    ),
    (
        "vip.NAME",
        "notify_backup",
        "write `notify = { backup = [\"/path\", \"argument\"] }`",
    ),
    (
        "vip.NAME",
        "notify_fault",
        "write `notify = { fault = [\"/path\", \"argument\"] }`",
    ),
    (
        "vip.NAME",
        "notify_stop",
        "write `notify = { stop = [\"/path\", \"argument\"] }`",
    ),
    (
        "vip.NAME",
        "state",
        "leave it out: the priorities in `nodes` decide who is active",
    ),
    (
        "vip.NAME",
        "priority",
        "give each node its own in `nodes`: `{ address = \"…\", priority = 110 }`",
    ),
    (
        "vip.NAME",
        "unicast_src_ip",
        "leave it out: a node finds itself in `nodes` by its addresses",
    ),
    (
        "vip.NAME",
        "track_interface",
        "the own interface is always tracked; for another one write `track = [\"interface:NAME\"]`",
    ),
    (
        "vip.NAME",
        "prefix",
        "write it with the address: `address = \"172.16.0.10/24\"`",
    ),
    (
        "vip.NAME",
        "script",
        "write `[track.script.NAME]` and `track = [\"script:NAME\"]`",
    ),
    ("track", "vrrp_script", "write `[track.script.NAME]`"),
    (
        "track",
        "interface",
        "write `interface:NAME` in the `track` list of a VIP",
    ),
    ("proxy.NAME", "mode", "leave it out: lbd forwards TCP only"),
    (
        "proxy.NAME",
        "option",
        "there are no options: `[access-log]` is tcplog and dontlognull, `check` is tcp-check and httpchk",
    ),
    (
        "proxy.NAME",
        "default_backend",
        "leave it out: the servers stand in `backends` of the same table",
    ),
    (
        "proxy.NAME",
        "weight",
        "write it in `backend-defaults` or with a backend",
    ),
    ("proxy.NAME", "rise", "write it in `check = { … }`"),
    ("proxy.NAME", "fall", "write it in `check = { … }`"),
    ("proxy.NAME", "interval", "write it in `check = { … }`"),
    ("proxy.NAME", "inter", "write `interval` in `check = { … }`"),
    (
        "proxy.NAME.backend-defaults",
        "rise",
        "write it in the proxy's `check = { … }`",
    ),
    (
        "proxy.NAME.backend-defaults",
        "fall",
        "write it in the proxy's `check = { … }`",
    ),
    (
        "proxy.NAME.backend-defaults",
        "inter",
        "write `interval` in the proxy's `check = { … }`",
    ),
    (
        "proxy.NAME.backend-defaults",
        "downinter",
        "write `down-interval` in the proxy's `check = { … }`",
    ),
    (
        "proxy.NAME.backend-defaults",
        "fastinter",
        "write `fast-interval` in the proxy's `check = { … }`",
    ),
    (
        "proxy.NAME.backend-defaults",
        "slowstart",
        "write it in the proxy's own table",
    ),
    (
        "",
        "defaults",
        "there is no such table: give the key in each `[proxy.NAME]`",
    ),
    (
        "",
        "backend",
        "write its servers into `backends` of `[proxy.NAME]`, beside `listen`",
    ),
    ("", "vrrp_script", "write `[track.script.NAME]`"),
    ("", "vrrp_track_file", "write `[track.file.NAME]`"),
    ("", "track_file", "write `[track.file.NAME]`"),
    (
        "",
        "vrrp_sync_group",
        "write `sync-group = \"NAME\"` in each `[vip.NAME]` of the group",
    ),
    (
        "",
        "daemon",
        "leave it out: the service manager runs lbd in the foreground",
    ),
    ("", "global_defs", "leave it out: lbd needs nothing of it"),
];

/// What to write instead of `word` in the section at `path`, when it takes more than a new name.
#[must_use]
pub fn remark(path: &str, word: &str) -> Option<&'static str> {
    let plain = word.replace('-', "_");
    REMARKS
        .iter()
        .find(|(section, alias, _)| *section == path && (*alias == word || *alias == plain))
        .map(|(_, _, text)| *text)
}

/// Syslog's facilities; a facility's number is its position.
pub fn facility_names() -> impl Iterator<Item = &'static str> {
    general::FACILITIES.iter().map(|word| word.word)
}

/// Other sections that have a key of this name, as their paths.
#[must_use]
pub fn sections_with(name: &str) -> Vec<&'static str> {
    SECTIONS
        .iter()
        .filter(|section| section.key(name).is_some())
        .map(|section| section.path)
        .collect()
}
