//! From the text of lb.toml to a [`Config`], along the table in `schema`: syntax first, with
//! recovery, then section by section; every mistake is collected, none stops the walk.
//!
//! An item (a VIP, a proxy, a script) with a mistake in it is left out of the draft, so that the
//! lints see only sound items; the draft becomes a configuration if nothing was refused.

mod address;
mod allow;
mod auth;
mod check;
mod discovery;
mod family;
mod fields;
mod given;
mod guard;
mod metrics;
mod notify;
mod origin;
mod proxy;
mod rebalance;
mod route;
mod syntax;
mod track;
mod unknown;
mod value;
mod vip;
mod writable;

#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::discovery::backends;
use self::fields::Fields;
use self::given::Sink;
pub use self::unknown::nearest;
pub(super) use self::value::show_duration;
pub use self::value::{is_name, plain_duration};
use super::lint::{self, View};
use super::model::{
    AccessFormat, AccessLog, Admin, Config, Facility, Level, Limits, Log, LogFormat, LogTarget,
    Peer, Reload, Script, TrackFile,
};
use super::problem::Problem;
use super::schema;
use crate::units::TrackWeight;

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The configuration; present exactly if no problem is an error.
    pub config: Option<Config>,
    /// Every mistake and every warning, in the order of the text.
    pub problems: Vec<Problem>,
}

/// The sound items of a file, and the names of all of them.
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) proxy_names: Vec<String>,
    pub(super) tracked: Tracked,
    /// VIPs, sound or not.
    pub(super) vip_count: usize,
    pub(super) spans: Spans,
}

/// What a `track` list can name beside proxies.
#[derive(Default)]
pub(super) struct Tracked {
    pub(super) scripts: Vec<TrackEntry>,
    pub(super) files: Vec<TrackEntry>,
    /// Collected from the lists themselves.
    pub(super) interfaces: Vec<String>,
}

/// A `[track.script.NAME]` or `[track.file.NAME]`, sound or not.
pub(super) struct TrackEntry {
    pub(super) name: String,
    pub(super) weight: Option<TrackWeight>,
}

/// Where each key and value stands, by path: `vip/kube/nodes/0/address`.
#[derive(Default)]
pub(super) struct Spans(HashMap<String, (Range<usize>, String)>);

impl Spans {
    fn of(root: &DeTable<'_>) -> Self {
        let mut spans = Self::default();
        spans.table("", root);
        spans
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let below = if path.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{path}/{}", key.get_ref())
            };
            self.value(below, value);
        }
    }

    fn value(&mut self, path: String, value: &Spanned<DeValue<'_>>) {
        let mut text = String::new();
        match value.get_ref() {
            DeValue::Table(table) => self.table(&path, table),
            DeValue::Array(array) => {
                for (index, item) in array.iter().enumerate() {
                    self.value(format!("{path}/{index}"), item);
                }
            }
            DeValue::String(string) => text.push_str(string),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
        self.0.insert(path, (value.span(), text));
    }

    /// Makes what stands below `vip/FROM` known below `vip/TO` too, with these of its addresses.
    fn split(&mut self, from: &str, to: &str, kept: &[usize]) {
        let below = format!("vip/{from}");
        let inside = |path: &str| {
            let rest = path.strip_prefix(&below)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
        };
        let all = self.0.iter();
        let found: Vec<_> = all
            .filter_map(|(path, place)| Some((inside(path)?, place.clone())))
            .collect();
        for (rest, place) in found {
            let old = rest.strip_prefix("/address/");
            let Some(old) = old.and_then(|digits| digits.parse::<usize>().ok()) else {
                self.0.insert(format!("vip/{to}{rest}"), place);
                continue;
            };
            if let Some(new) = kept.iter().position(|kept| *kept == old) {
                self.0.insert(format!("vip/{to}/address/{new}"), place);
            }
        }
    }

    /// The string at `path`, or nothing.
    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", |(_, text)| text)
    }

    /// Where the value at `path` stands, or the nearest thing above it.
    pub(super) fn at(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some((span, _)) = self.0.get(path) {
                return span.clone();
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return 0..0,
            }
        }
    }

    /// Whether the file says something at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

/// Reads a configuration, knowing nothing about this machine.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    examine(text, View::Anywhere)
}

/// Reads a configuration and also says what doesn't fit where it is seen from.
#[must_use]
pub fn examine(text: &str, view: View<'_>) -> Parsed {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut sink = Sink::default();
    if !errors.is_empty()
        && let Some(problem) = syntax::another_format(text)
    {
        return Parsed {
            config: None,
            problems: vec![problem],
        };
    }
    for error in &errors {
        sink.push(syntax::problem(text, error));
    }
    sink.recovering = !errors.is_empty();
    syntax::refuse_toml_1_1(text, tree.get_ref(), &mut sink);
    let draft = draft(&tree, &mut sink);
    if errors.is_empty() {
        lint::lint(&draft, view, &mut sink.problems);
    }
    let mut problems = sink.problems;
    problems.sort_by_key(Problem::position);
    let refused = problems.iter().any(Problem::is_error);
    if !errors.is_empty() {
        syntax::keep_causes(text, &mut problems);
    }
    Parsed {
        config: (!refused).then_some(draft.config),
        problems,
    }
}

/// Reads a configuration that is to be used.
///
/// # Errors
/// Every problem of the file, if at least one refuses it.
pub fn load(text: &str) -> Result<Config, Vec<Problem>> {
    let parsed = parse(text);
    parsed.config.ok_or(parsed.problems)
}

fn draft(tree: &Spanned<DeTable<'_>>, sink: &mut Sink) -> Draft {
    let mut spans = Spans::of(tree.get_ref());
    let mut root = Fields::root(tree, sink);
    let log = log(root.table("log", sink), sink);
    let access_log = root
        .table("access-log", sink)
        .map(|fields| access_log(fields, sink));
    let admin = admin(root.table("admin", sink), sink);
    let metrics = metrics::metrics(root.table("metrics", sink), sink);
    let limits = limits(root.table("limits", sink), sink);
    let reload = reload(root.table("reload", sink), sink);
    let peer = root
        .table("peer", sink)
        .and_then(|fields| peer(fields, sink));
    let state_dir = root.absolute_path("state-dir", sink);
    let user = notify::run_as(&mut root, sink);
    let writable = writable::writable(&mut root, sink);

    let (mut tracked, scripts, track_files) = tracks(root.table("track", sink), sink);

    let mut proxy_names = Vec::new();
    let mut proxies = Vec::new();
    for fields in root.named("proxy", sink) {
        proxy_names.push(fields.own_name().to_owned());
        proxies.extend(proxy::proxy(fields, sink));
    }

    let mut vips = Vec::new();
    let mut vip_count = 0;
    let mut routes = Vec::new();
    let tables = root.named("vip", sink);
    let names: Vec<String> = tables.iter().map(|vip| vip.own_name().to_owned()).collect();
    let taken = |name: &str| names.iter().any(|other| other == name);
    for mut fields in tables {
        vip_count += 1;
        if route::is_route(&mut fields, sink) {
            routes.extend(route::route(fields, &proxy_names, &mut tracked, sink));
            continue;
        }
        if let Some(vip) = vip::vip(fields, &proxy_names, &mut tracked, sink) {
            let routers = family::split(vip, taken, &mut spans, sink);
            // Split or refused: the count is of what would be there if all were sound.
            vip_count += routers.len().saturating_sub(1);
            vips.extend(routers);
        }
    }
    root.finish(sink);

    ask_for_something(&spans, sink);
    Draft {
        config: Config {
            log,
            access_log,
            admin,
            metrics,
            limits,
            reload,
            peer,
            state_dir,
            user,
            writable,
            vips,
            routes,
            proxies,
            scripts,
            track_files,
            track_interfaces: tracked.interfaces.clone(),
        },
        proxy_names,
        tracked,
        vip_count,
        spans,
    }
}

fn ask_for_something(spans: &Spans, sink: &mut Sink) {
    if !spans.has("vip") && !spans.has("proxy") && !sink.recovering && sink.errors() == 0 {
        sink.push(
            Problem::error("E0003", "the file asks for nothing")
                .help("add `[vip.NAME]`, `[proxy.NAME]` or both; conf/lb.toml is a whole example"),
        );
    }
}

/// `[track]`: the names in it, and its sound scripts and files.
fn tracks(
    fields: Option<Fields<'_, '_>>,
    sink: &mut Sink,
) -> (Tracked, Vec<Script>, Vec<TrackFile>) {
    let mut tracked = Tracked::default();
    let (mut scripts, mut files) = (Vec::new(), Vec::new());
    let Some(mut fields) = fields else {
        return (tracked, scripts, files);
    };
    for fields in fields.named("script", sink) {
        let name = fields.own_name().to_owned();
        let (script, weight) = track::script(fields, sink);
        scripts.extend(script);
        tracked.scripts.push(TrackEntry { name, weight });
    }
    for fields in fields.named("file", sink) {
        let name = fields.own_name().to_owned();
        let (file, weight) = track::file(fields, sink);
        files.extend(file);
        tracked.files.push(TrackEntry { name, weight });
    }
    fields.finish(sink);
    (tracked, scripts, files)
}

fn log(fields: Option<Fields<'_, '_>>, sink: &mut Sink) -> Log {
    let mut fields = fields.unwrap_or_else(|| Fields::absent("log"));
    let span = |fields: &Fields<'_, '_>, name| fields.has(name).then(|| fields.span_of(name));
    let (format_given, facility_given) = (span(&fields, "format"), span(&fields, "facility"));
    let log = Log {
        level: match fields.word("level", sink) {
            "error" => Level::Error,
            "warning" => Level::Warning,
            "debug" => Level::Debug,
            "trace" => Level::Trace,
            _ => Level::Info,
        },
        target: match fields.word("target", sink) {
            "stderr" => LogTarget::Stderr,
            "syslog" => LogTarget::Syslog,
            "journald" => LogTarget::Journald,
            _ => LogTarget::Auto,
        },
        format: match fields.word("format", sink) {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        facility: facility(fields.word("facility", sink)),
    };
    fields.finish(sink);
    let idle = match log.target {
        LogTarget::Auto => None,
        LogTarget::Stderr => facility_given.map(|at| (at, "facility", "stderr has none")),
        LogTarget::Syslog | LogTarget::Journald => {
            format_given.map(|at| (at, "format", "it is for lines on stderr"))
        }
    };
    if let Some((at, key, why)) = idle {
        sink.push(
            Problem::error("E0109", format!("`log.{key}` has no meaning here"))
                .at(&at, why)
                .help("leave it out, or give `target` another value"),
        );
    }
    log
}

fn facility(word: &str) -> Facility {
    let number = schema::facility_names().position(|name| name == word);
    Facility(number.and_then(|n| u8::try_from(n).ok()).unwrap_or(3))
}

fn access_log(mut fields: Fields<'_, '_>, sink: &mut Sink) -> AccessLog {
    let log = AccessLog {
        format: match fields.word("format", sink) {
            "json" => AccessFormat::Json,
            "logfmt" => AccessFormat::Logfmt,
            _ => AccessFormat::Tcplog,
        },
        skip_empty: fields.flag("skip-empty", sink),
        sample: fields
            .integer("sample", sink)
            .map_or(1, |number| u32::try_from(number).unwrap_or(1)),
    };
    fields.finish(sink);
    log
}

fn admin(fields: Option<Fields<'_, '_>>, sink: &mut Sink) -> Admin {
    let mut fields = fields.unwrap_or_else(|| Fields::absent("admin"));
    let admin = Admin {
        socket: fields.absolute_path("socket", sink),
    };
    fields.finish(sink);
    admin
}

fn reload(fields: Option<Fields<'_, '_>>, sink: &mut Sink) -> Reload {
    let mut fields = fields.unwrap_or_else(|| Fields::absent("reload"));
    let watch = fields.flag("watch", sink);
    fields.finish(sink);
    Reload { watch }
}

fn limits(fields: Option<Fields<'_, '_>>, sink: &mut Sink) -> Limits {
    let mut fields = fields.unwrap_or_else(|| Fields::absent("limits"));
    let limits = Limits {
        max_connections: fields.count_u32("max-connections", sink),
        workers: fields
            .integer_or_word("workers", sink)
            .and_then(|number| u16::try_from(number).ok())
            .and_then(NonZeroU16::new),
        pin_workers: fields.flag("pin-workers", sink),
    };
    fields.finish(sink);
    limits
}

fn peer(mut fields: Fields<'_, '_>, sink: &mut Sink) -> Option<Peer> {
    let port = fields
        .integer("port", sink)
        .or_else(|| fields.default_text("port").parse().ok());
    let key_file = fields.absolute_path("key-file", sink);
    let interval = fields.time("interval", sink);
    fields.finish(sink);
    Some(Peer {
        key_file: key_file?,
        port: u16::try_from(port?).ok()?,
        interval,
    })
}
