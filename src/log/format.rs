//! How a message looks on each kind of target. Pure: values in, bytes out.

use tracing::Level;

use super::catalog;
use super::event::{Message, push_pair};
use super::time::Civil;

/// No line is longer, bytes; `PIPE_BUF` of Linux, so that a write to a pipe is whole or nothing.
pub(crate) const LINE_BYTES_MAX: usize = 4096;

/// The process that speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker {
    pub(crate) role: &'static str,
    pub(crate) pid: u32,
}

/// `2026-11-22T12:31:31.123456Z INFO keeper: message key=value`
pub(crate) fn text(message: &Message, speaker: Speaker, at: Civil) -> String {
    let mut line = format!(
        "{} {:5} {}: ",
        at.rfc3339(),
        level_word(message.level),
        speaker.role
    );
    push_body(&mut line, message);
    finish_line(line)
}

/// One JSON object.
pub(crate) fn json(message: &Message, speaker: Speaker, at: Civil) -> String {
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: &str| {
        object.insert(key.to_owned(), value.into());
    };
    put("time", &at.rfc3339());
    put("level", &level_word(message.level).to_lowercase());
    put("process", speaker.role);
    put("message", &message.text);
    for (key, value) in &message.fields {
        put(key, value);
    }
    let line = serde_json::Value::Object(object).to_string();
    if line.len() < LINE_BYTES_MAX {
        return line + "\n";
    }
    // An object cut in two is no object: keep what says the most.
    let short = serde_json::json!({
        "time": at.rfc3339(), "process": speaker.role, "message": message.text, "truncated": true
    });
    finish_line(short.to_string())
}

/// RFC 3164: `<PRI>Nov 22 12:31:31 lbd[pid]: keeper: message key=value`, without a host name, as
/// `/dev/log` has it.
pub(crate) fn syslog(message: &Message, speaker: Speaker, at: Civil, facility: u8) -> String {
    let mut body = format!("{}: ", speaker.role);
    push_body(&mut body, message);
    syslog_line(&body, severity(message.level), speaker.pid, at, facility)
}

/// An RFC 3164 datagram around any body.
pub(crate) fn syslog_line(body: &str, severity: u8, pid: u32, at: Civil, facility: u8) -> String {
    let pri = u16::from(facility) * 8 + u16::from(severity);
    let mut line = format!("<{pri}>{} lbd[{pid}]: {body}", at.rfc3164());
    truncate(&mut line, LINE_BYTES_MAX);
    line
}

/// journald's native protocol: `KEY=value` lines. The fields come as `LBD_KEY`.
pub(crate) fn journal(message: &Message, speaker: Speaker, facility: u8) -> String {
    let mut body = String::new();
    push_body(&mut body, message);
    truncate(&mut body, LINE_BYTES_MAX);
    let mut datagram = journal_datagram(&body, severity(message.level), speaker.pid, facility);
    datagram.push_str(&format!("LBD_PROCESS={}\n", speaker.role));
    if let Some(entry) = catalog::entry(&message.text) {
        datagram.push_str(&format!("MESSAGE_ID={:032x}\n", entry.id));
    }
    for (key, value) in &message.fields {
        push_field(&mut datagram, key, value);
    }
    datagram
}

/// Appends `LBD_KEY=value`; the value has no control characters.
pub(crate) fn push_field(datagram: &mut String, key: &str, value: &str) {
    let key = key.to_ascii_uppercase().replace(['.', '-'], "_");
    let mut value = value.to_owned();
    truncate(&mut value, LINE_BYTES_MAX);
    datagram.push_str(&format!("LBD_{key}={value}\n"));
}

/// A journald datagram with only a message.
pub(crate) fn journal_datagram(body: &str, severity: u8, pid: u32, facility: u8) -> String {
    format!(
        "MESSAGE={body}\nPRIORITY={severity}\nSYSLOG_IDENTIFIER=lbd\nSYSLOG_FACILITY={facility}\nSYSLOG_PID={pid}\n"
    )
}

fn push_body(line: &mut String, message: &Message) {
    line.push_str(&message.text);
    for (key, value) in &message.fields {
        push_pair(line, key, value);
    }
}

fn finish_line(mut line: String) -> String {
    truncate(&mut line, LINE_BYTES_MAX - 1);
    line.push('\n');
    line
}

/// Cuts at a character boundary so that at most `max` bytes stay.
pub(crate) fn truncate(line: &mut String, max: usize) {
    if line.len() <= max {
        return;
    }
    let mark = '…';
    let mut end = max.saturating_sub(mark.len_utf8());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push(mark);
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// RFC 5424 §6.2.1 Table 2.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// RFC 5424's "informational", the severity of access-log lines.
pub(crate) const SEVERITY_INFO: u8 = 6;
