//! Where messages go: stderr, syslog, journald. Nothing that logs ever waits for a reader: a full
//! pipe, a slow terminal or a missing `/dev/log` costs lines (counted by [`dropped`]), never time.
//!
//! A tracing event becomes a `event::Message` (control characters escaped), `format` turns that
//! into the target's bytes, `sink` delivers them. `access` is the access log's line, which goes to
//! the same target through its own [`AccessWriter`] and is not filtered by `[log] level`. `level` is
//! what is logged at all, and changes at run time; `catalog` numbers messages, `tap` makes events of
//! some.

pub mod access;
mod catalog;
mod event;
mod format;
pub mod level;
mod sink;
pub mod spacing;
mod tap;
mod time;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::model::{AccessFormat, Facility, Log, LogFormat, LogTarget};
use crate::net::{clock, localtime};
use access::AccessLine;
use event::Message;
use format::Speaker;
use sink::{Datagram, Sink, Stream};
use tap::Tap;
use time::Civil;

pub use event::escape;
pub use sink::dropped;
pub use tap::happenings;
pub use time::{parse_wall_time, wall_time};

/// Where this process's messages go.
static PLACE: OnceLock<Arc<ArcSwap<Output>>> = OnceLock::new();

const SYSLOG_SOCKET: &str = "/dev/log";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A process logs to one place, chosen once.
    #[error("logging was already set up in this process")]
    Already,
    /// Standard error is closed.
    #[error("standard error is not usable")]
    Stderr(#[source] io::Error),
    /// What is logged stays as it was.
    #[error("{0}")]
    Level(String),
}

/// Sends this process's messages to the configured target from now on. `role` is `keeper`,
/// `proxy` or `runner`. Call it before privileges and file access are given up.
///
/// # Errors
/// [`LogError`]; a syslog or journal socket that is missing is no error: it is said once on
/// standard error and tried again with later messages.
pub fn init(config: &Log, role: &'static str) -> Result<(), LogError> {
    localtime::load_zone();
    let out = Output::open(config, SocketPaths::default(), say_on_stderr)?;
    let out = Arc::new(ArcSwap::from_pointee(out));
    let speaker = Speaker {
        role,
        pid: std::process::id(),
    };
    let layer = LineLayer {
        out: Arc::clone(&out),
        speaker,
    };
    // What becomes an event of the record doesn't depend on what is logged.
    let recorded = Targets::new().with_target("lbd", LevelFilter::INFO);
    let tap = (role == "proxy").then(|| Tap.with_filter(recorded));
    tracing_subscriber::registry()
        .with(layer.with_filter(level::filter(config.level)))
        .with(tap)
        .try_init()
        .map_err(|_already_set| LogError::Already)?;
    PLACE.set(out).map_err(|_already_set| LogError::Already)
}

/// This process's messages go by another configuration from now on. A process that may still open
/// the log daemons' sockets can have this; for the others there is [`level::configure`].
///
/// # Errors
/// [`LogError`]; everything stays as it was.
pub fn configure(config: &Log) -> Result<(), LogError> {
    let out = Output::open(config, SocketPaths::default(), say_on_stderr)?;
    level::configure(config.level).map_err(LogError::Level)?;
    if let Some(place) = PLACE.get() {
        place.store(Arc::new(out));
    }
    Ok(())
}

/// Writes access-log lines to the target of `[log]`, at info, whatever its level.
#[derive(Debug)]
pub struct AccessWriter {
    out: Output,
    pid: u32,
    /// Lines that go out together, as far as the target takes more than one.
    batch: String,
}

impl AccessWriter {
    /// Opens the target. Call it before privileges and file access are given up.
    ///
    /// # Errors
    /// [`LogError::Stderr`].
    pub fn open(config: &Log) -> Result<Self, LogError> {
        Ok(Self {
            // What is missing was said by `init`.
            out: Output::open(config, SocketPaths::default(), |_| {})?,
            pid: std::process::id(),
            batch: String::new(),
        })
    }

    /// Delivers one line (without a line end), at once or by the next [`AccessWriter::flush`];
    /// answers how many lines were dropped.
    #[must_use]
    pub fn write(&mut self, line: &AccessLine<'_>, format: AccessFormat) -> u64 {
        let text = line.render(format);
        self.put(&text, line.fields())
    }

    /// `fields` go where the target keeps them apart from the text.
    fn put(&mut self, text: &str, fields: impl Iterator<Item = (&'static str, String)>) -> u64 {
        let line = escape(text);
        let bytes = match self.out.shape {
            Shape::Text | Shape::Json => {
                let mut line = line;
                format::truncate(&mut line, format::LINE_BYTES_MAX - 1);
                line.push('\n');
                let most = self.out.sink.batch_max();
                if line.len() <= most {
                    let dropped = if self.batch.len() + line.len() > most {
                        self.flush()
                    } else {
                        0
                    };
                    self.batch.push_str(&line);
                    return dropped;
                }
                return self.flush() + u64::from(!self.out.sink.deliver(line.as_bytes()));
            }
            Shape::Syslog(Facility(facility)) => {
                let at = civil_now();
                format::syslog_line(&line, format::SEVERITY_INFO, self.pid, at, facility)
            }
            Shape::Journal(Facility(facility)) => {
                let mut datagram =
                    format::journal_datagram(&line, format::SEVERITY_INFO, self.pid, facility);
                for (key, value) in fields {
                    format::push_field(&mut datagram, key, &escape(&value));
                }
                datagram
            }
        };
        u64::from(!self.out.sink.deliver(bytes.as_bytes()))
    }

    /// Delivers what waits; answers how many lines were dropped.
    #[must_use]
    pub fn flush(&mut self) -> u64 {
        if self.batch.is_empty() {
            return 0;
        }
        let dropped = self.out.sink.write_lines(self.batch.as_bytes());
        self.batch.clear();
        dropped
    }
}

/// A target with the shape its lines have.
#[derive(Debug)]
struct Output {
    shape: Shape,
    sink: Sink,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    Json,
    Syslog(Facility),
    Journal(Facility),
}

/// Where the system's log daemons listen; tests put their own sockets there.
#[derive(Debug)]
struct SocketPaths {
    syslog: PathBuf,
    journal: PathBuf,
}

impl Default for SocketPaths {
    fn default() -> Self {
        Self {
            syslog: SYSLOG_SOCKET.into(),
            journal: JOURNAL_SOCKET.into(),
        }
    }
}

impl Output {
    /// `complain` is told of a socket that is not there yet.
    fn open(
        config: &Log,
        paths: SocketPaths,
        complain: impl FnOnce(&str),
    ) -> Result<Self, LogError> {
        let target = match config.target {
            LogTarget::Auto if stderr_is_the_journal() => LogTarget::Journald,
            LogTarget::Auto => LogTarget::Stderr,
            chosen @ (LogTarget::Stderr | LogTarget::Syslog | LogTarget::Journald) => chosen,
        };
        let facility = config.facility;
        match target {
            LogTarget::Syslog => Ok(Self::datagram(
                paths.syslog,
                Shape::Syslog(facility),
                complain,
            )),
            LogTarget::Journald => Ok(Self::datagram(
                paths.journal,
                Shape::Journal(facility),
                complain,
            )),
            LogTarget::Auto | LogTarget::Stderr => Ok(Self {
                shape: match config.format {
                    LogFormat::Text => Shape::Text,
                    LogFormat::Json => Shape::Json,
                },
                sink: Sink::Stream(Stream::stderr().map_err(LogError::Stderr)?),
            }),
        }
    }

    fn datagram(path: PathBuf, shape: Shape, complain: impl FnOnce(&str)) -> Self {
        let shown = path.display().to_string();
        let (datagram, first) = Datagram::open(path);
        if let Err(error) = first {
            complain(&format!(
                "lbd: {shown}: {error}; messages are lost until it is there\n"
            ));
        }
        Self {
            shape,
            sink: Sink::Datagram(datagram),
        }
    }

    fn write(&self, message: &Message, speaker: Speaker) {
        let bytes = match self.shape {
            Shape::Text => format::text(message, speaker, civil_now()),
            Shape::Json => format::json(message, speaker, civil_now()),
            Shape::Syslog(Facility(facility)) => {
                format::syslog(message, speaker, civil_now(), facility)
            }
            Shape::Journal(Facility(facility)) => format::journal(message, speaker, facility),
        };
        self.sink.write(bytes.as_bytes());
    }
}

/// tracing's door to an [`Output`].
#[derive(Debug)]
struct LineLayer {
    out: Arc<ArcSwap<Output>>,
    speaker: Speaker,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        self.out.load().write(&Message::of(event), self.speaker);
    }
}

fn civil_now() -> Civil {
    let now = clock::wall();
    Civil::at(now, localtime::utc_offset(now))
}

/// Whether systemd connected stderr to the journal: `$JOURNAL_STREAM` names the device and inode
/// of that stream (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

fn say_on_stderr(line: &str) {
    if io::stderr().write_all(line.as_bytes()).is_err() {
        // Nobody is there to be told.
    }
}

#[cfg(test)]
mod tests;
