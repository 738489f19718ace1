//! What the whole daemon says: events with their causes and over a restart, the log level at run
//! time, the client behind a server's connection, the line of the access log beside HAProxy's, and
//! the catalog as journald reads it.

#![cfg(test)]

#[path = "lab/port.rs"]
mod port;
#[path = "lab/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lbd::admin::protocol::{ask_events, ask_status};
use lbd::ipc::event::{Event, EventKind};
use program::Folder;

const PATIENCE: Duration = Duration::from_secs(20);

fn wait_for<T>(what: &str, seen: impl FnMut() -> Option<T>) -> T {
    program::wait_for(what, PATIENCE, seen)
}

/// A server that sends back what it gets, and tells who connected.
fn echo() -> (SocketAddr, std::sync::mpsc::Receiver<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, peers) = std::sync::mpsc::sync_channel(64);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let peer = stream.peer_addr().unwrap();
                let mut bytes = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    sender.try_send(peer).unwrap_or_default();
                    if stream.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, peers)
}

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        program::end(&mut self.0, PATIENCE);
    }
}

struct Daemon<'a> {
    dir: &'a Path,
    _keeper: Running,
    listen: SocketAddr,
}

impl<'a> Daemon<'a> {
    /// `top`: tables before, `rest`: further keys of `[proxy.kube]`, then its backends.
    fn start(dir: &'a Folder, top: &str, rest: &str) -> Self {
        let (dir, listen) = (dir.0.as_path(), port::held());
        let state = dir.join("state");
        let text = format!(
            "state-dir = \"{}\"\n[metrics]\nlisten = \"off\"\n{top}\n[proxy.kube]\n\
             listen = \"{listen}\"\nslowstart = \"off\"\n\
             check = {{ type = \"tcp\", interval = \"200ms\", timeout = \"200ms\" }}\n{rest}",
            state.display()
        );
        fs::write(dir.join("lb.toml"), text).unwrap();
        fs::create_dir_all(&state).unwrap();
        let keeper = program::start_in(dir, program::lbd());
        let daemon = Self {
            dir,
            _keeper: Running(keeper),
            listen,
        };
        wait_for("it serves", || {
            let status = ask_status(&daemon.socket()).ok()?;
            (status.process.serving && status.proxies[0].probed).then_some(())
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/admin.sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn lbd(&self, words: &[&str]) -> Output {
        program::order(&self.socket(), words)
    }

    /// What it prints, if it ends with this code.
    fn said(&self, words: &[&str], code: i32) -> String {
        let output = self.lbd(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn events(&self, kind: EventKind) -> Vec<Event> {
        let mut all = Vec::new();
        let take = |events: Vec<Event>| {
            all.extend(events);
            false
        };
        ask_events(&self.socket(), 1_000, false, take).unwrap();
        all.retain(|event| event.kind == kind);
        all
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.listen).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }
}

fn talk(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_server_that_fails_is_an_event_and_events_outlast_the_daemon() {
    let dir = Folder::new("events");
    let failing = TcpListener::bind(port::held()).unwrap();
    let (good, _peers) = echo();
    let backends = format!(
        "[proxy.kube.backends]\na = \"{}\"\nb = \"{good}\"\n",
        failing.local_addr().unwrap()
    );
    // The record doesn't depend on what is logged.
    let first = Daemon::start(&dir, "[log]\nlevel = \"error\"\n", &backends);
    drop(failing);
    let down = wait_for("server down", || {
        let events = first.events(EventKind::Health).into_iter();
        let mut downs = events.filter(|event| event.to.as_deref() != Some("up"));
        downs.find(|event| event.subject.as_deref() == Some("kube/a"))
    });
    assert_eq!(down.from.as_deref(), Some("up"));
    assert_eq!(down.reason, "connection refused");
    assert!(!first.log().contains("server down"), "{}", first.log());
    // Each was brought to the disk: the sandbox lets it.
    assert!(!first.log().contains("not kept"), "{}", first.log());
    let only_health = first.said(&["events", "--kind", "health", "--since", "1h"], 0);
    assert!(
        only_health.contains("health kube/a: up → "),
        "{only_health}"
    );
    assert!(!only_health.contains("keeper"), "{only_health}");
    let none = first.said(&["events", "--since", "2999-01-01T00:00:00Z"], 0);
    assert_eq!(none, "");
    first.said(&["events", "--kind", "weather"], 2);
    drop(first);
    let second = Daemon::start(&dir, "", &backends);
    let again = second.events(EventKind::Health);
    assert!(again.contains(&down), "{again:?}");
    assert!(!second.log().contains("not kept"), "{}", second.log());
    let started = second.events(EventKind::Keeper);
    let reasons: Vec<&str> = started.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["keeper started", "stopping", "keeper started"]);
    let json = second.said(&["events", "-o", "json", "-n", "1"], 0);
    let value: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert!(value["cause"].is_null() && value["seq"].is_u64(), "{json}");
}

#[test]
fn a_limit_that_is_reached_is_one_event() {
    let dir = Folder::new("limit");
    let (server, _peers) = echo();
    let rest = format!("max-connections = 1\n[proxy.kube.backends]\na = \"{server}\"\n");
    let daemon = Daemon::start(&dir, "", &rest);
    let mut client = daemon.client();
    talk(&mut client);
    let _waiting = daemon.client();
    let limit = wait_for("limit", || daemon.events(EventKind::Limit).pop());
    assert_eq!(limit.subject.as_deref(), Some("kube"));
    let expected = "limit reached: clients wait in the kernel's backlog (key=max-connections)";
    assert_eq!(limit.reason, expected);
}

#[test]
fn the_log_level_changes_at_run_time_and_goes_back_by_itself() {
    let dir = Folder::new("level");
    let (server, _peers) = echo();
    let backends = format!("[proxy.kube.backends]\na = \"{server}\"\n");
    let daemon = Daemon::start(&dir, "[log]\nlevel = \"info\"\n", &backends);
    assert!(!daemon.log().contains("DEBUG"));
    let said = daemon.said(&["log", "debug", "--for", "1s"], 0);
    assert!(said.starts_with("log level debug, "), "{said}");
    assert!(said.ends_with(" (configured: info)\n"), "{said}");
    wait_for("debug lines", || {
        daemon
            .log()
            .contains(" DEBUG proxy: server checked ")
            .then_some(())
    });
    wait_for("its end", || {
        let status = ask_status(&daemon.socket()).ok()?;
        status.vrrp?.log.is_none().then_some(())
    });
    let changes = wait_for("both changes", || {
        Some(daemon.events(EventKind::Log)).filter(|events| events.len() == 2)
    });
    let change = |event: &Event| {
        let (from, to) = (event.from.clone().unwrap(), event.to.clone().unwrap());
        format!("{from} → {to} ({})", event.reason)
    };
    let uid = nix::unistd::getuid();
    assert_eq!(
        changes.iter().map(change).collect::<Vec<_>>(),
        [
            format!("info → debug (ordered by user {uid} for 1 s)"),
            "debug → info (its time is over)".to_owned(),
        ]
    );
    daemon.said(&["log", "trace", "--component", "vrrp"], 0);
    let status = daemon.said(&["status"], 0);
    assert!(
        status.contains("\nlog level trace for vrrp (configured: info)\n"),
        "{status}"
    );
    let reset = daemon.said(&["log", "--reset"], 0);
    assert_eq!(reset, "log level info, as configured\n");
    let json = daemon.said(&["log", "warning", "-o", "json"], 0);
    let expected =
        "{\"level\":\"warning\",\"configured\":\"info\",\"component\":null,\"left_ms\":null}\n";
    assert_eq!(json, expected);
    daemon.said(&["log", "loud"], 2);
    daemon.said(&["log"], 2);
}

#[test]
fn the_client_behind_a_servers_connection_is_found_and_the_reverse() {
    let dir = Folder::new("who");
    let (server, peers) = echo();
    let backends = format!("[proxy.kube.backends]\na = \"{server}\"\n");
    let daemon = Daemon::start(&dir, "", &backends);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| daemon.client()).collect();
    let mut pairs = Vec::new();
    for client in &mut clients {
        talk(client);
        let seen = peers.recv_timeout(PATIENCE).unwrap();
        pairs.push((client.local_addr().unwrap(), seen));
    }
    let (client, seen) = pairs[13];
    let way = format!(
        "client {client} → {} | {seen} → server {server}\n",
        daemon.listen
    );
    for end in [client, seen] {
        let said = daemon.said(&["who", &end.to_string()], 0);
        assert!(said.starts_with(&way), "{said}");
        assert!(said.contains("  kube/a, relaying, since "), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    let json = daemon.said(&["who", &seen.to_string(), "-o", "json"], 0);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["complete"], true);
    assert_eq!(value["connections"][0]["client"], client.to_string());
    assert_eq!(value["connections"][0]["bytes_in"], 5);
    drop(clients);
    let gone = daemon.lbd(&["who", &port::held().to_string()]);
    assert_eq!(gone.status.code(), Some(1));
    daemon.said(&["who", "10.0.0.1"], 2);
}

/// HAProxy in front of the same servers, its log on a pipe.
fn haproxy(dir: &Folder, listen: SocketAddr, servers: &str, timeouts: &str) -> Option<Running> {
    let text = format!(
        "global\n  log stdout format raw local0\ndefaults\n  mode tcp\n  log global\n  option tcplog\n\
         \x20 timeout connect 1s\n  retries 0\n{timeouts}\nlisten kube\n  bind {listen}\n{servers}\n"
    );
    fs::write(dir.0.join("haproxy.cfg"), text).unwrap();
    let log = fs::File::create(dir.0.join("haproxy.log")).unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.args(["-db", "-f"]).arg(dir.0.join("haproxy.cfg"));
    let started = haproxy.stdout(log).stderr(Stdio::null()).spawn();
    match started {
        Ok(child) => Some(Running(child)),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "haproxy: {error}");
            None
        }
    }
}

/// A line without what differs from run to run: the client's port, the date, and times; a time that
/// is -1 stays.
fn shape(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields.len(), 9, "{line}");
    let client = fields[0].rsplit_once(':').unwrap().0;
    let (date, clock) = fields[1].trim_matches(['[', ']']).split_once(':').unwrap();
    let digits = |text: &str| -> String {
        let of = |c: char| if c.is_ascii_digit() { '9' } else { c };
        text.chars().map(of).collect()
    };
    let date: Vec<&str> = date.split('/').collect();
    let date = format!("{}/{}/{}", digits(date[0]), date[1].len(), digits(date[2]));
    let times = fields[4]
        .split('/')
        .map(|time| if time == "-1" { "-1" } else { "t" });
    let times: Vec<&str> = times.collect();
    let times = times.join("/");
    format!(
        "{client} {date} {} {times} {}",
        digits(clock),
        fields[2..4].join(" ")
    ) + " "
        + &fields[5..].join(" ")
}

/// Of two clients the one that waited is meant.
fn is_meant(line: &str, manner: &str) -> bool {
    line.contains(" kube kube/") && (manner != "queue" || line.contains(" sQ "))
}

/// What clients do whose lines are compared; one that is to stay until then.
fn visit(listen: SocketAddr, manner: &str) -> Option<TcpStream> {
    let mut client = wait_for("listener", || TcpStream::connect(listen).ok());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match manner {
        "refused" => {
            let mut rest = [0; 8];
            let end = client.read(&mut rest);
            assert!(!matches!(end, Ok(1..)), "{end:?}");
        }
        "reset" => {
            talk(&mut client);
            let socket = socket2::SockRef::from(&client);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        "idle" => {
            talk(&mut client);
            let end = client.read(&mut [0; 8]);
            assert!(!matches!(end, Ok(1..)), "{end:?}");
        }
        "queue" => {
            talk(&mut client);
            let mut second = TcpStream::connect(listen).unwrap();
            second.set_read_timeout(Some(PATIENCE)).unwrap();
            let end = second.read(&mut [0; 8]);
            assert!(!matches!(end, Ok(1..)), "{end:?}");
            return Some(client);
        }
        _ => talk(&mut client),
    }
    None
}

#[test]
fn a_line_of_the_access_log_is_haproxys_line() {
    let (good, _peers) = echo();
    let dead = port::held();
    let long = "  timeout client 20s\n  timeout server 20s\n  timeout queue 1s";
    let short = "  timeout client 1s\n  timeout server 20s";
    // What a client does, its server, and the same limits in both languages.
    let cases = [
        ("normal", good, (long, ""), ""),
        ("reset", good, (long, ""), ""),
        ("refused", dead, (long, ""), ""),
        ("idle", good, (short, ""), "idle-timeout = \"1s\"\n"),
        (
            "queue",
            good,
            (long, " maxconn 1"),
            "queue-timeout = \"1s\"\nbackend-defaults = { max-connections = 1 }\n",
        ),
    ];
    for (manner, server, (timeouts, limit), keys) in cases {
        let dir = Folder::new(&format!("access-{manner}"));
        let theirs = port::held();
        let servers = format!("  server a {server}{limit}");
        let Some(_haproxy) = haproxy(&dir, theirs, &servers, timeouts) else {
            return;
        };
        let _stays = visit(theirs, manner);
        let theirs = wait_for("HAProxy's line", || {
            let log = fs::read_to_string(dir.0.join("haproxy.log")).unwrap();
            log.lines()
                .find(|line| is_meant(line, manner))
                .map(str::to_owned)
        });
        let top = "[log]\nlevel = \"error\"\n[access-log]\nformat = \"tcplog\"\n";
        // Its check passes all the same.
        let rest = format!(
            "retries = 0\n{keys}[proxy.kube.backends]\n\
             a = {{ address = \"{server}\", check-address = \"{good}\" }}\n"
        );
        let daemon = Daemon::start(&dir, top, &rest);
        let _stays = visit(daemon.listen, manner);
        let ours = wait_for("our line", || {
            let log = daemon.log();
            log.lines()
                .find(|line| is_meant(line, manner))
                .map(str::to_owned)
        });
        assert_eq!(shape(&ours), shape(&theirs), "{manner}:\n{ours}\n{theirs}");
    }
}

#[test]
fn journald_takes_the_catalog() {
    let dir = Folder::new("catalog");
    let catalogs = dir.0.join("usr/lib/systemd/catalog");
    fs::create_dir_all(&catalogs).unwrap();
    fs::create_dir_all(dir.0.join("var/lib/systemd/catalog")).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/lbd.catalog");
    fs::copy(&source, catalogs.join("lbd.catalog")).unwrap();
    let root = format!("--root={}", dir.0.display());
    let journalctl = |words: &[&str]| Command::new("journalctl").arg(&root).args(words).output();
    let Ok(updated) = journalctl(&["--update-catalog"]) else {
        assert!(std::env::var_os("CI").is_none(), "no journalctl");
        return;
    };
    let errors = String::from_utf8_lossy(&updated.stderr);
    assert!(
        updated.status.success() && errors.trim().is_empty(),
        "{errors}"
    );
    let listed = journalctl(&["--list-catalog"]).unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let entries = fs::read_to_string(source).unwrap().matches("\n-- ").count();
    assert_eq!(listed.lines().count(), entries, "{listed}");
    let line = "lbd: Server @LBD_PROXY@/@LBD_SERVER@ is down";
    assert!(listed.contains(line), "{listed}");
}
