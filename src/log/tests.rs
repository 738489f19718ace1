//! Golden lines of each target, and sinks that do not wait.

use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::Level as TracingLevel;

use super::*;
use crate::config::model::{AccessFormat, Level};

const SPEAKER: Speaker = Speaker {
    role: "proxy",
    pid: 4242,
};

fn moment() -> SystemTime {
    // 2026-11-22 12:31:31.123 UTC
    UNIX_EPOCH + Duration::from_millis(1_795_350_691_123)
}

fn at() -> Civil {
    Civil::at(moment(), 0)
}

fn message() -> Message {
    Message {
        level: TracingLevel::WARN,
        text: "server down".to_owned(),
        fields: vec![
            ("proxy", "kube-apiserver".to_owned()),
            ("server", "172.16.0.4:6443".to_owned()),
            ("reason", escape("status 500\nfake line \u{1b}[31m")),
        ],
    }
}

#[test]
fn a_text_line_reads_time_level_process_message_and_fields() {
    assert_eq!(
        format::text(&message(), SPEAKER, at()),
        "2026-11-22T12:31:31.123000Z WARN  proxy: server down proxy=kube-apiserver \
         server=172.16.0.4:6443 reason=\"status 500\\nfake line \\u{1b}[31m\"\n"
    );
}

#[test]
fn a_json_line_is_one_object() {
    let line = format::json(&message(), SPEAKER, at());
    assert_eq!(line.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "time": "2026-11-22T12:31:31.123000Z",
            "level": "warn",
            "process": "proxy",
            "message": "server down",
            "proxy": "kube-apiserver",
            "server": "172.16.0.4:6443",
            "reason": "status 500\\nfake line \\u{1b}[31m",
        })
    );
}

#[test]
fn a_syslog_line_carries_facility_and_severity() {
    // local0 is 16, warning is 4: 16 * 8 + 4 = 132 (RFC 3164 §4.1.1).
    assert_eq!(
        format::syslog(&message(), SPEAKER, at(), 16),
        "<132>Nov 22 12:31:31 lbd[4242]: proxy: server down proxy=kube-apiserver \
         server=172.16.0.4:6443 reason=\"status 500\\nfake line \\u{1b}[31m\""
    );
}

#[test]
fn a_journal_datagram_has_a_field_for_each_value() {
    assert_eq!(
        format::journal(&message(), SPEAKER, 3),
        "MESSAGE=server down proxy=kube-apiserver server=172.16.0.4:6443 \
         reason=\"status 500\\nfake line \\u{1b}[31m\"\nPRIORITY=4\nSYSLOG_IDENTIFIER=lbd\n\
         SYSLOG_FACILITY=3\nSYSLOG_PID=4242\nLBD_PROCESS=proxy\nMESSAGE_ID=448f4e14fabd4aa2bfe460f04b966f7e\nLBD_PROXY=kube-apiserver\n\
         LBD_SERVER=172.16.0.4:6443\nLBD_REASON=status 500\\nfake line \\u{1b}[31m\n"
    );
}

#[test]
fn no_line_outgrows_a_pipes_atomic_write() {
    let long = Message {
        level: TracingLevel::INFO,
        text: "é".repeat(5_000),
        fields: Vec::new(),
    };
    assert!(format::text(&long, SPEAKER, at()).len() <= 4096);
    assert!(format::text(&long, SPEAKER, at()).ends_with("…\n"));
    assert!(format::syslog(&long, SPEAKER, at(), 3).len() <= 4096);
    assert!(format::json(&long, SPEAKER, at()).len() <= 4096);
}

/// No fields.
fn none() -> impl Iterator<Item = (&'static str, String)> {
    std::iter::empty()
}

fn access() -> AccessLine<'static> {
    AccessLine {
        accepted_at: moment(),
        utc_offset: 0,
        client: SocketAddr::from(([10, 0, 0, 9], 51_234)),
        local: SocketAddr::from(([172, 16, 0, 10], 6443)),
        proxy: "kube-apiserver",
        server: Some("kube-apiserver-1"),
        queue: Some(Duration::from_millis(3)),
        connect: Some(Duration::from_micros(1_900)),
        total: Duration::from_millis(2_500),
        bytes_in: 517,
        bytes_out: 7_321,
        code: "--",
        active: 12,
        frontend: 11,
        backend: 10,
        server_active: 4,
        retries: 1,
        redispatched: true,
        hedged: false,
        server_queue: 0,
        backend_queue: 2,
        sample: 1,
    }
}

#[test]
fn tcplog_has_haproxys_fields_in_haproxys_order() {
    assert_eq!(
        access().render(AccessFormat::Tcplog),
        "10.0.0.9:51234 [22/Nov/2026:12:31:31.123] kube-apiserver \
         kube-apiserver/kube-apiserver-1 3/1/2500 7321 -- 12/11/10/4/+1 0/2"
    );
    // HAProxy 3.4 with every server down: `… be/<NOSRV> -1/-1/0 0 SC 1/1/0/0/0 0/0`.
    let refused = AccessLine {
        server: None,
        queue: None,
        connect: None,
        total: Duration::ZERO,
        bytes_in: 0,
        bytes_out: 0,
        code: "SC",
        active: 1,
        frontend: 1,
        backend: 0,
        server_active: 0,
        retries: 0,
        redispatched: false,
        hedged: false,
        backend_queue: 0,
        ..access()
    };
    assert_eq!(
        refused.render(AccessFormat::Tcplog),
        "10.0.0.9:51234 [22/Nov/2026:12:31:31.123] kube-apiserver kube-apiserver/<NOSRV> \
         -1/-1/0 0 SC 1/1/0/0/0 0/0"
    );
}

#[test]
fn logfmt_and_json_name_every_field() {
    assert_eq!(
        access().render(AccessFormat::Logfmt),
        "time=2026-11-22T12:31:31.123000Z client=10.0.0.9:51234 local=172.16.0.10:6443 \
         proxy=kube-apiserver server=kube-apiserver-1 queue_ms=3 connect_ms=1 elapsed_ms=2500 \
         bytes_in=517 bytes_out=7321 code=-- reason=finished retries=1 redispatched=true hedged=false"
    );
    let json: serde_json::Value =
        serde_json::from_str(&access().render(AccessFormat::Json)).unwrap();
    assert_eq!(json["bytes_out"], 7321);
    assert_eq!(json["server"], "kube-apiserver-1");
    assert_eq!(json["reason"], "finished");
    assert!(json.get("sample").is_none());
    let sampled = AccessLine {
        sample: 10,
        ..access()
    };
    assert!(
        sampled
            .render(AccessFormat::Logfmt)
            .ends_with(" hedged=false sample=10")
    );
    let tcplog = sampled.render(AccessFormat::Tcplog);
    assert_eq!(tcplog, access().render(AccessFormat::Tcplog));
}

#[test]
fn termination_codes_are_put_into_words() {
    for (code, words) in [
        ("--", "finished"),
        ("sQ", "timed out in the queue"),
        ("SC", "connect failed"),
        ("CD", "client broke off during data"),
        ("KL", "closed by this node during the last data"),
        ("DD", "its server went down during data"),
        ("CR", "client broke off before its PROXY header was whole"),
        ("PR", "refused for who the client is"),
        ("", "other"),
    ] {
        assert_eq!(access::long_name(code), words);
    }
}

fn temp_socket(name: &str) -> (tempdir::Dir, PathBuf) {
    let dir = tempdir::Dir::new(name);
    let path = dir.path().join("log");
    (dir, path)
}

#[test]
fn a_syslog_daemon_that_starts_late_is_found() {
    let (_dir, path) = temp_socket("late");
    let (datagram, first) = Datagram::open(path.clone());
    assert!(first.is_err());
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    let sink = Sink::Datagram(datagram);
    let deadline = clock::now() + Duration::from_secs(5);
    let mut buffer = [0; 64];
    let received = loop {
        sink.write(b"<14>hello");
        if let Ok(count) = server.recv(&mut buffer) {
            break buffer[..count].to_vec();
        }
        assert!(clock::now() < deadline, "never reconnected");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(received, b"<14>hello");
}

#[test]
fn a_syslog_daemon_that_restarts_is_found_again_at_once() {
    let (_dir, path) = temp_socket("restart");
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let (datagram, first) = Datagram::open(path.clone());
    first.unwrap();
    drop(server);
    std::fs::remove_file(&path).unwrap();
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    Sink::Datagram(datagram).write(b"<14>again");
    let mut buffer = [0; 64];
    let count = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"<14>again");
}

#[test]
fn a_syslog_daemon_that_does_not_read_costs_lines_not_time() {
    let (_dir, path) = temp_socket("stuck");
    let _server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let (datagram, first) = Datagram::open(path);
    first.unwrap();
    let sink = Sink::Datagram(datagram);
    let before = dropped();
    for _ in 0..10_000 {
        sink.write(b"<14>nobody reads this");
    }
    assert!(dropped() - before > 1_000);
}

#[test]
fn a_full_pipe_costs_lines_not_time() {
    let (mut reader, writer) = io::pipe().unwrap();
    let stream = Stream::new(writer.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let sink = Sink::Stream(stream);
    let before = dropped();
    let line = [b'x'; 1024];
    for _ in 0..200 {
        sink.write(&line);
    }
    // 64 KiB fit into a pipe: 64 lines of 1 KiB; 136 do not.
    assert!(dropped() - before >= 136);
    drop(sink);
    drop(writer);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), 64 * 1024);
}

fn access_writer(out: Output) -> AccessWriter {
    AccessWriter {
        out,
        pid: 7,
        batch: String::new(),
    }
}

fn text_into(file: &impl AsFd) -> AccessWriter {
    let stream = Stream::new(file.as_fd().try_clone_to_owned().unwrap()).unwrap();
    access_writer(Output {
        shape: Shape::Text,
        sink: Sink::Stream(stream),
    })
}

#[test]
fn access_lines_reach_a_file_in_few_writes_all_and_in_order() {
    let (_dir, path) = temp_socket("batch");
    let mut writer = text_into(&std::fs::File::create(&path).unwrap());
    let lines: String = (0..5_000).map(|n| format!("{n:09}\n")).collect();
    let mut sizes = Vec::new();
    for line in lines.lines() {
        assert_eq!(writer.put(line, none()), 0);
        sizes.push(path.metadata().unwrap().len());
    }
    sizes.dedup();
    // 3,276 lines of 10 bytes are the most that fit into 32 KiB.
    assert_eq!(sizes, [0, 32_760]);
    assert_eq!(writer.flush(), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), lines);
}

#[test]
fn a_pipe_that_is_filling_up_takes_whole_access_lines_and_the_others_are_counted() {
    let (mut reader, end) = io::pipe().unwrap();
    let mut writer = text_into(&end);
    let line = "x".repeat(300);
    let lost: u64 = (0..1_000).map(|_| writer.put(&line, none())).sum();
    let lost = lost + writer.flush();
    drop((writer, end));
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    let whole = read.lines().filter(|got| *got == line).count();
    assert_eq!(whole, read.lines().count());
    assert!(whole >= 190, "{whole}");
    assert_eq!(usize::try_from(lost).unwrap(), 1_000 - whole);
}

#[test]
fn the_configured_shape_reaches_the_configured_socket() {
    let (_dir, path) = temp_socket("shape");
    let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let config = Log {
        level: Level::Warning,
        target: LogTarget::Syslog,
        format: LogFormat::Text,
        facility: Facility(16),
    };
    let paths = SocketPaths {
        syslog: path,
        journal: "/nonexistent".into(),
    };
    let out = Output::open(&config, paths, |_| {}).unwrap();
    let mut writer = access_writer(out);
    assert_eq!(writer.put("a line\nand a forged one", none()), 0);
    let mut buffer = [0; 256];
    let count = server.recv(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..count]).unwrap();
    // local0 (16) at info (6): 16 * 8 + 6 = 134.
    assert!(text.starts_with("<134>"), "{text}");
    assert!(
        text.ends_with(" lbd[7]: a line\\nand a forged one"),
        "{text}"
    );
}

/// A directory of this test, removed at its end.
mod tempdir {
    use std::path::{Path, PathBuf};

    pub(super) struct Dir(PathBuf);

    impl Dir {
        pub(super) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lbd-log-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap_or_default();
        }
    }
}
