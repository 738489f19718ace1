//! The line of the access log. Pure: a finished connection in, text out.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::event::push_pair;
use super::time::Civil;
use crate::config::model::AccessFormat;

/// A finished connection, as the access log shows it.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the client was accepted.
    pub accepted_at: SystemTime,
    /// The zone of the stamp, seconds east of Greenwich.
    pub utc_offset: i64,
    /// The client.
    pub client: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// The proxy's name.
    pub proxy: &'a str,
    /// The server's name; `None`: it never got one.
    pub server: Option<&'a str>,
    /// Time in the queue; `None`: it was never in it, nor had a server.
    pub queue: Option<Duration>,
    /// Time to connect to the server; `None`: never connected.
    pub connect: Option<Duration>,
    /// Time from accept to close.
    pub total: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// HAProxy's two-letter termination code.
    pub code: &'a str,
    /// Connections of the process at the end.
    pub active: u64,
    /// Connections of the frontend at the end.
    pub frontend: u64,
    /// Connections of the backend at the end.
    pub backend: u64,
    /// Connections of the server at the end.
    pub server_active: u64,
    /// Connects that were tried again.
    pub retries: u32,
    /// Whether it went to another server than the first choice.
    pub redispatched: bool,
    /// Whether a second connect was begun beside one without an answer.
    pub hedged: bool,
    /// Connections that were waiting for the server.
    pub server_queue: u64,
    /// Connections that were waiting for any server.
    pub backend_queue: u64,
    /// It stands for so many like it.
    pub sample: u32,
}

impl AccessLine<'_> {
    /// The line, without a line end.
    #[must_use]
    pub fn render(&self, format: AccessFormat) -> String {
        match format {
            AccessFormat::Tcplog => self.tcplog(),
            AccessFormat::Json => self.json(),
            AccessFormat::Logfmt => self.logfmt(),
        }
    }

    /// HAProxy's `option tcplog`:
    /// `%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq`.
    fn tcplog(&self) -> String {
        let at = Civil::at(self.accepted_at, self.utc_offset).haproxy();
        let retries = if self.redispatched {
            format!("+{}", self.retries)
        } else {
            self.retries.to_string()
        };
        format!(
            "{}:{} [{at}] {proxy} {proxy}/{} {}/{}/{} {} {} {}/{}/{}/{}/{retries} {}/{}",
            self.client.ip(),
            self.client.port(),
            self.server.unwrap_or("<NOSRV>"),
            millis_or_minus_one(self.queue),
            millis_or_minus_one(self.connect),
            self.total.as_millis(),
            self.bytes_out,
            self.code,
            self.active,
            self.frontend,
            self.backend,
            self.server_active,
            self.server_queue,
            self.backend_queue,
            proxy = self.proxy,
        )
    }

    /// The same as fields for a target that keeps them apart: names and values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let pairs = self.pairs().into_iter().skip(1);
        pairs.filter_map(|(key, value)| Some((key, value.given()?)))
    }

    fn pairs(&self) -> Vec<(&'static str, Value)> {
        let at = Civil::at(self.accepted_at, self.utc_offset).rfc3339();
        let optional = |time: Option<Duration>| time.map_or(Value::None, millis);
        let mut pairs = vec![
            ("time", Value::Text(at)),
            ("client", Value::Text(self.client.to_string())),
            ("local", Value::Text(self.local.to_string())),
            ("proxy", Value::Text(self.proxy.to_owned())),
            (
                "server",
                self.server
                    .map_or(Value::None, |name| Value::Text(name.to_owned())),
            ),
            ("queue_ms", optional(self.queue)),
            ("connect_ms", optional(self.connect)),
            ("elapsed_ms", millis(self.total)),
            ("bytes_in", Value::Number(self.bytes_in)),
            ("bytes_out", Value::Number(self.bytes_out)),
            ("code", Value::Text(self.code.to_owned())),
            ("reason", Value::Text(long_name(self.code))),
            ("retries", Value::Number(self.retries.into())),
            ("redispatched", Value::Flag(self.redispatched)),
            ("hedged", Value::Flag(self.hedged)),
        ];
        if self.sample > 1 {
            pairs.push(("sample", Value::Number(self.sample.into())));
        }
        pairs
    }

    fn json(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> = self
            .pairs()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.json()))
            .collect();
        serde_json::Value::Object(object).to_string()
    }

    fn logfmt(&self) -> String {
        let mut line = String::new();
        for (key, value) in self.pairs() {
            push_pair(&mut line, key, &value.text());
        }
        line.trim_start().to_owned()
    }
}

enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    None,
}

impl Value {
    fn json(self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::None => serde_json::Value::Null,
        }
    }

    fn text(self) -> String {
        self.given().unwrap_or_else(|| "-".to_owned())
    }

    fn given(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(number.to_string()),
            Self::Flag(flag) => Some(flag.to_string()),
            Self::None => None,
        }
    }
}

fn millis(time: Duration) -> Value {
    Value::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn millis_or_minus_one(time: Option<Duration>) -> String {
    time.map_or_else(|| "-1".to_owned(), |time| time.as_millis().to_string())
}

/// What a termination code says in words: who ended it, and where it was.
#[must_use]
pub fn long_name(code: &str) -> String {
    let whole = match code {
        "--" => Some("finished"),
        "SQ" => Some("no usable server"),
        "sQ" => Some("timed out in the queue"),
        "SC" => Some("connect failed"),
        "sC" => Some("connect timed out"),
        "PR" => Some("refused for who the client is"),
        "cR" => Some("no PROXY header in time"),
        // The rest says itself letter by letter.
        _ => None,
    };
    if let Some(words) = whole {
        return words.to_owned();
    }
    let mut letters = code.chars();
    let who = match letters.next() {
        Some('C') => "client broke off",
        Some('S') => "server broke off",
        Some('P') => "a limit was reached",
        Some('R') => "out of resources",
        Some('D') => "its server went down",
        Some('K') => "closed by this node",
        Some('c') => "client timed out",
        Some('s') => "server timed out",
        Some(_) | None => "other",
    };
    let phase = match letters.next() {
        Some('R') => " before its PROXY header was whole",
        Some('Q') => " in the queue",
        Some('C') => " while connecting",
        Some('D') => " during data",
        Some('L') => " during the last data",
        Some(_) | None => "",
    };
    format!("{who}{phase}")
}
