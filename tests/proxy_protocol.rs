//! The real daemon, as it runs with its rights given up, between clients, servers and Debian's
//! HAProxy: each reads what the other writes, health checks included.
#![cfg(test)]

#[path = "lab/port.rs"]
mod port;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use lbd::net::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A program of the test, ended with it.
struct Program {
    child: Child,
    dir: PathBuf,
}

impl Program {
    fn start(name: &str, program: &str, config: &str, arguments: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("lbd-pp-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config");
        std::fs::write(&file, config).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .arg(&file)
            .args(is_lbd(program).then_some("--runtime-dir"))
            .args(is_lbd(program).then_some(&dir))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn lbd(name: &str, config: &str) -> Self {
        let head = "[log]\ntarget = \"stderr\"\n[metrics]\nlisten = \"off\"\n";
        let program = env!("CARGO_BIN_EXE_lbd");
        Self::start(name, program, &format!("{head}{config}"), &["--config"])
    }

    fn haproxy(name: &str, config: &str) -> Self {
        let head = "defaults\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n";
        Self::start(name, "haproxy", &format!("{head}{config}"), &["-db", "-f"])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

fn is_lbd(program: &str) -> bool {
    Path::new(program).ends_with("lbd")
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.dir.display(), self.log());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap_or_default();
        let deadline = clock::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().unwrap_or_default();
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

/// HAProxy may be missing here; never in CI, where `tests/run` sees to it.
fn has_haproxy() -> bool {
    let found = Command::new("haproxy").arg("-v").output().is_ok();
    if !found {
        println!("skipped: no haproxy");
    }
    found
}

/// An address on which nobody listens.
fn free(ip: &str) -> SocketAddr {
    port::held_at(ip)
}

/// A server that hands over what each connection brought.
fn recorder(ip: &str) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (tx, rx) = sync_channel(1000);
    let listener = TcpListener::bind(format!("{ip}:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tx = tx.clone();
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut request = Vec::new();
                if stream.read_to_end(&mut request).is_ok() {
                    stream.write_all(b"ok").unwrap_or_default();
                    tx.send(request).unwrap_or_default();
                }
            });
        }
    });
    (address, rx)
}

/// The client's address and the answer to its request, once there is one.
fn ask(address: SocketAddr, request: &[u8]) -> (SocketAddr, Vec<u8>) {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let own = stream.local_addr().unwrap();
            let mut answer = Vec::new();
            let asked = stream
                .write_all(request)
                .and_then(|()| stream.shutdown(Shutdown::Write))
                .and_then(|()| stream.read_to_end(&mut answer));
            if asked.is_ok() && !answer.is_empty() {
                return (own, answer);
            }
        }
        assert!(clock::now() < deadline, "no answer of {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_haproxy_sends_is_believed_and_told_on() {
    if !has_haproxy() {
        return;
    }
    for (ip, family) in [("127.0.0.1", "TCP4"), ("[::1]", "TCP6")] {
        for send in ["send-proxy", "send-proxy-v2"] {
            let (server, requests) = recorder(ip);
            let (front, middle) = (free(ip), free(ip));
            let _lbd = Program::lbd(
                &format!("behind-{family}-{send}"),
                &format!(
                    "[proxy.p]\nlisten = \"{middle}\"\nbackends = [\"{server}\"]\n\
                     proxy-protocol = {{ accept = [\"127.0.0.0/8\", \"::1\"], send = \"v1\" }}\n"
                ),
            );
            let _haproxy = Program::haproxy(
                &format!("before-{family}-{send}"),
                &format!("listen l\n bind {front}\n mode tcp\n server s {middle} {send}\n"),
            );
            let (client, answer) = ask(front, b"hello");
            assert_eq!(answer, b"ok");
            let plain = client.ip();
            let line = format!(
                "PROXY {family} {plain} {plain} {} {}\r\nhello",
                client.port(),
                front.port()
            );
            let deadline = clock::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(clock::now());
                // Checks come, too; they name no client.
                let request = requests.recv_timeout(left).unwrap();
                if request == line.as_bytes() {
                    break;
                }
                assert!(request.starts_with(b"PROXY UNKNOWN\r\n"), "{request:?}");
            }
        }
    }
}

#[test]
fn haproxy_believes_what_is_sent_and_counts_checks_as_its_senders_own() {
    if !has_haproxy() {
        return;
    }
    for ip in ["127.0.0.1", "[::1]"] {
        for send in ["v1", "v2"] {
            let (front, back) = (free(ip), free(ip));
            let _haproxy = Program::haproxy(
                &format!("{}-{send}", ip.len()),
                &format!(
                    "frontend f\n bind {back} accept-proxy\n mode http\n \
                     http-request return status 200 content-type text/plain \
                     lf-string \"%[src] %[src_port] %[dst_port]\"\n"
                ),
            );
            // Without a header its check would get no answer, and nobody be served.
            let _lbd = Program::lbd(
                &format!("before-{}-{send}", ip.len()),
                &format!(
                    "[proxy.p]\nlisten = \"{front}\"\nbackends = [\"{back}\"]\n\
                     check = {{ type = \"http\", interval = \"100ms\" }}\n\
                     proxy-protocol = {{ send = \"{send}\" }}\n"
                ),
            );
            let (client, answer) = ask(front, b"GET / HTTP/1.0\r\n\r\n");
            let answer = String::from_utf8(answer).unwrap();
            let seen = format!("{} {} {}", client.ip(), client.port(), front.port());
            assert!(answer.ends_with(&seen), "{seen}: {answer}");
        }
    }
}

#[test]
fn a_check_and_a_connection_come_from_the_source_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let front = free("127.0.0.1");
    let _lbd = Program::lbd(
        "source",
        &format!(
            "[proxy.p]\nlisten = \"{front}\"\nbackends = [\"{server}\"]\n\
             source = \"127.0.0.77\"\nproxy-protocol = {{ send = \"v1\" }}\n"
        ),
    );
    let asking = std::thread::spawn(move || ask(front, b"hello"));
    let (mut checks, mut clients) = (0, 0);
    while checks == 0 || clients == 0 {
        let (mut stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.77");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        if line == "PROXY UNKNOWN\r\n" {
            checks += 1;
        } else {
            assert!(
                line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
                "{line}"
            );
            clients += 1;
            stream.write_all(b"ok").unwrap();
        }
    }
    asking.join().unwrap();
}

#[test]
fn a_source_that_is_not_here_takes_its_servers_down_with_that_reason() {
    let (server, _requests) = recorder("127.0.0.1");
    let front = free("127.0.0.1");
    let lbd = Program::lbd(
        "foreign",
        &format!(
            "[proxy.p]\nlisten = \"{front}\"\nbackends = [\"{server}\"]\nsource = \"192.0.2.77\"\n"
        ),
    );
    let deadline = clock::now() + PATIENCE;
    while !lbd.log().contains("source address not on this machine") {
        assert!(clock::now() < deadline, "{}", lbd.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn senders_that_only_connect_and_close_do_not_hide_one_that_sends_no_header() {
    let (server, _requests) = recorder("127.0.0.1");
    let front = free("127.0.0.1");
    let lbd = Program::lbd(
        "closers",
        &format!(
            "[limits]\nworkers = 1\n[proxy.p]\nlisten = \"{front}\"\nbackends = [\"{server}\"]\n\
             proxy-protocol = {{ accept = \"127.0.0.0/8\" }}\n"
        ),
    );
    let deadline = clock::now() + PATIENCE;
    while !lbd.log().contains("serving") {
        assert!(clock::now() < deadline, "{}", lbd.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..5 {
        let mut check = TcpStream::connect(front).unwrap();
        check.shutdown(Shutdown::Write).unwrap();
        // Refused by now: it ends, one way or the other.
        check.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    let mut stranger = TcpStream::connect(front).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stranger.read_to_end(&mut Vec::new()).unwrap_or_default();
    let deadline = clock::now() + Duration::from_secs(5);
    while !lbd.log().contains("it does not begin with a header") {
        assert!(clock::now() < deadline, "{}", lbd.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!lbd.log().contains("closed before"), "{}", lbd.log());
}
