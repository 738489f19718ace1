//! `[access-log]`.

/// `[access-log]`: one line per proxied connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `format`, default tcplog.
    pub format: AccessFormat,
    /// `skip-empty`, default false: leave out connections on which the client sent nothing.
    pub skip_empty: bool,
    /// `sample`, default 1: of connections without any fault one in so many is logged; 0: none.
    pub sample: u32,
}

/// The shape of an access-log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// HAProxy's `option tcplog`, field by field.
    Tcplog,
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}
