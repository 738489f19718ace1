//! The proxy process end to end: a real process under a keeper played by the test.

#![cfg(test)]

#[path = "proxy_process/checks.rs"]
mod checks;
#[path = "proxy_process/memcheck.rs"]
mod memcheck;
#[path = "proxy_process/pages.rs"]
mod pages;
#[path = "lab/port.rs"]
mod port;
#[path = "proxy_process/reload.rs"]
mod reload;
#[path = "proxy_process/silence.rs"]
mod silence;
#[path = "proxy_process/verdicts.rs"]
mod verdicts;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbd::admin::protocol::{self, ask_status, order};
use lbd::admin::status::{ServerState, Status};
use lbd::daemon::proxy::{ProxyArgs, run};
use lbd::ipc::command::{self, Failover, Outcome};
use lbd::ipc::message::{
    Hello, ListenerGroup, MESSAGE_BYTES_MAX, ServerSnapshot, ToKeeper, ToProxy, Welcome,
};
use lbd::net::seqpacket::{Connection, Listener};
use lbd::net::{clock, memfd};

const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test of its own: the process that the tests below start is this binary again.
#[test]
fn the_process_under_test() {
    let Some(dir) = std::env::var_os("LBD_TEST_RUNTIME_DIR").map(PathBuf::from) else {
        return;
    };
    let args = ProxyArgs {
        keeper_socket: dir.join("keeper.sock"),
        runtime_dir: dir,
    };
    run(args).unwrap();
}

/// A keeper with its runtime directory, and the proxy process it started.
struct Keeper {
    dir: PathBuf,
    listener: Listener,
    connection: Option<Connection>,
    proxy: Child,
    buffer: Vec<u8>,
}

impl Keeper {
    fn start(name: &str) -> Self {
        Self::start_under(name, &[])
    }

    /// The process is started by another program, whose words these are.
    fn start_under(name: &str, under: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("lbd-proxy-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = Listener::bind(&dir.join("keeper.sock")).unwrap();
        let own = std::env::current_exe().unwrap();
        let mut words = under.iter().copied().chain(own.to_str());
        let proxy = Command::new(words.next().unwrap())
            .args(words)
            .args(["--exact", "the_process_under_test", "--nocapture"])
            .env("LBD_TEST_RUNTIME_DIR", &dir)
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self {
            dir,
            listener,
            connection: None,
            proxy,
            buffer: vec![0; MESSAGE_BYTES_MAX],
        }
    }

    /// Waits until the proxy has connected and said hello.
    fn hello(&mut self) -> Hello {
        let connection = wait_for("connection", || self.listener.accept().unwrap());
        assert_eq!(
            connection.peer().unwrap().pid,
            i32::try_from(self.proxy.id()).unwrap()
        );
        self.connection = Some(connection);
        let (message, _) = self.next("hello", |m| matches!(m, ToKeeper::Hello(_)));
        let ToKeeper::Hello(hello) = message else {
            panic!()
        };
        hello
    }

    /// The next message that `wanted` names; others are left out.
    fn next(&mut self, what: &str, wanted: impl Fn(&ToKeeper) -> bool) -> (ToKeeper, Vec<OwnedFd>) {
        let (connection, buffer) = (self.connection.as_ref().unwrap(), &mut self.buffer);
        wait_for(what, || {
            let received = connection.receive(buffer).unwrap()?;
            assert!(received.len > 0, "proxy closed while waiting for {what}");
            let message = ToKeeper::decode(&buffer[..received.len]).unwrap();
            wanted(&message).then_some((message, received.fds))
        })
    }

    fn send(&self, message: &ToProxy, fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let connection = self.connection.as_ref().unwrap();
        connection.send(&message.encode().unwrap(), &fds).unwrap();
    }

    fn welcome(&self, text: &str, snapshot: Vec<ServerSnapshot>) {
        let welcome = Welcome {
            node: Some("lb1".to_owned()),
            config_path: "/etc/lbd/lb.toml".to_owned(),
            generation: 1,
            snapshot,
            notes: None,
        };
        let config = memfd::sealed("lb.toml", text.as_bytes()).unwrap();
        self.send(&ToProxy::Welcome(welcome), &[config]);
    }

    fn hand_over(&self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let group = ListenerGroup {
            proxy: 0,
            listen: 0,
            count: 1,
        };
        self.send(&ToProxy::Listeners(group), &[OwnedFd::from(listener)]);
        self.send(&ToProxy::ListenersDone, &[]);
    }

    /// Everything up to a proxy that serves.
    fn bring_up(&mut self, text: &str, listener: TcpListener) {
        let hello = self.hello();
        assert_eq!((hello.config_digest, hello.serving), (0, false));
        self.welcome(text, Vec::new());
        self.hand_over(listener);
        self.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    }

    fn status(&self) -> Status {
        wait_for("status", || ask_status(&self.dir.join("admin.sock")).ok())
    }

    /// What the proxy has said so far.
    fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap()
    }

    fn wait_end(&mut self) -> i32 {
        let proxy = &mut self.proxy;
        wait_for("end", || proxy.try_wait().unwrap())
            .code()
            .unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the proxy said:\n{}", self.stderr());
        }
        self.proxy.kill().unwrap_or_default();
        self.proxy.wait().map(drop).unwrap_or_default();
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(clock::now() < deadline, "no {what} in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A server whose backlog is full: SYNs go unanswered as long as the second value lives.
fn black_hole() -> (SocketAddr, (socket2::Socket, Vec<TcpStream>)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(200);
    let full = (0..8).map_while(|_| TcpStream::connect_timeout(&address, patience).ok());
    let full = full.collect();
    (address, (socket, full))
}

fn front() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config(front: SocketAddr, servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|server| format!("\"{server}\""))
        .collect();
    format!(
        "[metrics]\nlisten = \"off\"\n[limits]\nmax-connections = 50\nworkers = 2\n\
         [proxy.p]\nlisten = \"{front}\"\nbackends = [{}]\n\
         check = {{ type = \"tcp\", interval = \"200ms\", timeout = \"5s\" }}\n",
        servers.join(", ")
    )
}

fn talk(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text)?;
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}

fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

#[test]
fn a_proxy_serves_beats_reports_and_stops_on_the_keepers_word() {
    let mut keeper = Keeper::start("serve");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    let (message, _) = keeper.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    let ToKeeper::Serving(serving) = message else {
        panic!()
    };
    assert!(serving[0].probed);
    assert_eq!(serving[0].usable, 1);
    assert!(serving[0].probe_epoch >= 1);
    let (message, _) = keeper.next("snapshot", |m| matches!(m, ToKeeper::Snapshot(_)));
    let ToKeeper::Snapshot(snapshot) = message else {
        panic!()
    };
    assert!(snapshot[0].up && snapshot[0].verdict_age_ms < 5_000);

    assert_eq!(talk(&mut dial(address), b"hello").unwrap(), b"hello");
    let status = keeper.status();
    assert_eq!(status.process.node.as_deref(), Some("lb1"));
    assert_eq!(status.process.max_connections, 50);
    assert_eq!(status.proxies[0].servers[0].state, ServerState::Up);
    assert_eq!(status.headline, "p 1 of 1 servers up");

    keeper.send(&ToProxy::Vrrp(Box::default()), &[]);
    wait_for("vrrp status", || keeper.status().vrrp);

    keeper.send(&ToProxy::Stop { grace_ms: 0 }, &[]);
    assert_eq!(keeper.wait_end(), 0);
    assert!(!keeper.dir.join("admin.sock").exists());
}

#[test]
fn heartbeats_come_each_50_ms_with_every_workers_tick() {
    let mut keeper = Keeper::start("beat");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    let mut beats: Vec<(u64, Instant)> = Vec::new();
    let deadline = clock::now() + PATIENCE;
    while beats.len() < 20 {
        assert!(clock::now() < deadline, "workers that never run");
        let (message, _) = keeper.next("heartbeat", |m| matches!(m, ToKeeper::Heartbeat(_)));
        let ToKeeper::Heartbeat(beat) = message else {
            panic!()
        };
        assert_eq!(beat.workers.len(), 2);
        // A worker has no number before it runs for the first time.
        if beat.workers.iter().any(|worker| worker.tid == 0) {
            beats.clear();
            continue;
        }
        beats.push((beat.seq, clock::now()));
    }
    assert!(beats.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
    let (first, last) = (beats[0].1, beats[19].1);
    // 19 beats of 50 ms; slower on a busy machine, not faster.
    assert!(
        last - first > Duration::from_millis(600),
        "{:?}",
        last - first
    );
}

#[test]
fn a_fresh_snapshot_lets_a_new_process_serve_before_its_first_probe_is_back() {
    let (silent, _kept) = black_hole();
    let good = echo();
    let mut keeper = Keeper::start("fresh");
    let (listener, address) = front();
    keeper.hello();
    let old = |server: SocketAddr, up| ServerSnapshot {
        proxy: "p".to_owned(),
        server: server.to_string(),
        up,
        verdict_age_ms: 1_000,
        ramp_ms: None,
    };
    let text = config(address, &[good, silent]);
    keeper.welcome(&text, vec![old(good, true), old(silent, false)]);
    let begun = clock::now();
    keeper.hand_over(listener);
    let (message, _) = keeper.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    let ToKeeper::Serving(serving) = message else {
        panic!()
    };
    assert!(serving[0].probed);
    assert_eq!(serving[0].usable, 1);
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
    // Without the snapshot it would have waited 2 s for the silent server's first verdict.
    let waited = clock::now() - begun;
    assert!(waited < Duration::from_millis(1_500), "{waited:?}");
}

#[test]
fn serving_begins_after_2_s_even_if_a_server_is_not_probed_yet() {
    let (silent, _kept) = black_hole();
    let mut keeper = Keeper::start("bound");
    let (listener, address) = front();
    keeper.hello();
    keeper.welcome(&config(address, &[echo(), silent]), Vec::new());
    let begun = clock::now();
    keeper.hand_over(listener);
    let (message, _) = keeper.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    let ToKeeper::Serving(serving) = message else {
        panic!()
    };
    assert!(!serving[0].probed);
    assert_eq!(serving[0].usable, 1);
    assert!(clock::now() - begun >= Duration::from_millis(1_900));
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
}

#[test]
fn an_orphaned_proxy_serves_on_and_gives_its_sockets_to_the_next_keeper() {
    let mut keeper = Keeper::start("orphan");
    let (listener, address) = front();
    let text = config(address, &[echo()]);
    keeper.bring_up(&text, listener);
    let mut client = dial(address);
    assert_eq!(talk(&mut client, b"before").unwrap(), b"before");

    keeper.connection = None;
    assert_eq!(talk(&mut client, b"orphan").unwrap(), b"orphan");
    assert_eq!(talk(&mut dial(address), b"new").unwrap(), b"new");

    let hello = keeper.hello();
    assert!(hello.serving);
    assert_eq!(hello.config_digest, lbd::config::digest(&text));
    let (message, fds) = keeper.next("listeners", |m| matches!(m, ToKeeper::Listeners(_)));
    let ToKeeper::Listeners(group) = message else {
        panic!()
    };
    assert_eq!((group.proxy, group.listen, group.count), (0, 0, 1));
    let back = TcpListener::from(fds.into_iter().next().unwrap());
    assert_eq!(back.local_addr().unwrap(), address);
    keeper.next("end of listeners", |m| matches!(m, ToKeeper::ListenersDone));
    keeper.welcome(&text, Vec::new());
    keeper.next("serving", |m| matches!(m, ToKeeper::Serving(_)));
    assert_eq!(talk(&mut client, b"after").unwrap(), b"after");
    keeper.send(&ToProxy::Stop { grace_ms: 100 }, &[]);
    assert_eq!(keeper.wait_end(), 0);
}

#[test]
fn a_proxy_leaves_when_the_next_keeper_has_another_file() {
    let mut keeper = Keeper::start("other");
    let (listener, address) = front();
    let text = config(address, &[echo()]);
    keeper.bring_up(&text, listener);
    keeper.connection = None;
    assert!(keeper.hello().serving);
    keeper.welcome(&format!("{text}\n# changed\n"), Vec::new());
    assert_eq!(keeper.wait_end(), 0);
}

#[test]
fn connections_to_a_leaving_address_are_reset() {
    let mut keeper = Keeper::start("reset");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    let mut client = dial(address);
    assert_eq!(talk(&mut client, b"x").unwrap(), b"x");
    keeper.send(
        &ToProxy::ResetLocal(vec![IpAddr::from([127, 9, 9, 9])]),
        &[],
    );
    assert_eq!(talk(&mut client, b"y").unwrap(), b"y");
    keeper.send(&ToProxy::ResetLocal(vec![address.ip()]), &[]);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_keeper_may_ask_for_a_probe_at_once() {
    let mut keeper = Keeper::start("probe");
    let (listener, address) = front();
    let text = config(address, &[echo()]).replace("200ms", "1h");
    keeper.bring_up(&text, listener);
    let checks = || keeper.status().proxies[0].servers[0].checks;
    assert_eq!(checks(), 1);
    keeper.send(&ToProxy::Probe, &[]);
    wait_for("second probe", || (checks() == 2).then_some(()));
}

#[test]
fn the_access_log_has_a_tcplog_line_for_each_connection_that_said_something() {
    let mut keeper = Keeper::start("access");
    let (listener, address) = front();
    let server = echo();
    let text = format!(
        "[log]\nlevel = \"warning\"\n[access-log]\nskip-empty = true\n{}",
        config(address, &[server])
    );
    keeper.bring_up(&text, listener);
    let silent = dial(address);
    let peer = silent.local_addr().unwrap();
    drop(silent);
    let ended = |s: &Status| s.process.connections == 0 && s.proxies[0].totals.accepted > 0;
    wait_for("end of the silent one", || {
        ended(&keeper.status()).then_some(())
    });
    let mut client = dial(address);
    let talker = client.local_addr().unwrap();
    assert_eq!(talk(&mut client, b"hello").unwrap(), b"hello");
    drop(client);
    let line = wait_for("line", || {
        let said = keeper.stderr();
        let line = said
            .lines()
            .find(|line| line.starts_with(&talker.to_string()));
        line.map(str::to_owned)
    });
    // HAProxy's field order; times vary, 5 bytes came back, and nobody was waiting. Its own place at
    // the server is given back.
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields.len(), 9, "{line}");
    assert_eq!(fields[2], "p");
    assert_eq!(fields[3], format!("p/{server}"));
    assert_eq!((fields[5], fields[6]), ("5", "--"), "{line}");
    assert_eq!((fields[7], fields[8]), ("1/1/0/0/0", "0/0"), "{line}");
    assert!(
        !keeper.stderr().contains(&peer.to_string()),
        "{}",
        keeper.stderr()
    );
    // A connection that the stop itself ends has its line, too.
    let mut last = dial(address);
    let talker = last.local_addr().unwrap();
    assert_eq!(talk(&mut last, b"bye").unwrap(), b"bye");
    keeper.send(&ToProxy::Stop { grace_ms: 0 }, &[]);
    assert_eq!(keeper.wait_end(), 0);
    let said = keeper.stderr();
    assert!(said.contains(&talker.to_string()), "{said}");
}

/// An API server as the checks see one: TLS, and an answer with `status`.
fn apiserver(status: &'static str) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let cert = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, tcp);
            if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        }
    });
    address
}

#[test]
fn api_servers_are_checked_over_tls_from_within_the_sandbox() {
    let mut keeper = Keeper::start("readyz");
    let (listener, address) = front();
    let servers = [
        apiserver("200 OK"),
        apiserver("403 Forbidden"),
        apiserver("500 Internal Server Error"),
    ];
    let text = config(address, &servers).replace(
        "check = { type = \"tcp\", interval = \"200ms\", timeout = \"5s\" }",
        "check = { type = \"kube-apiserver\", timeout = \"2s\" }",
    );
    assert!(text.contains("kube-apiserver"));
    keeper.bring_up(&text, listener);
    let status = keeper.status();
    let servers = &status.proxies[0].servers;
    let states: Vec<ServerState> = servers.iter().map(|server| server.state).collect();
    use ServerState::{Down, Up};
    assert_eq!(states, [Up, Up, Down]);
    assert_eq!(servers[2].verdict.as_deref(), Some("not-ready"));
    assert_eq!(servers[2].reason.as_deref(), Some("status 500"));
    let said = keeper.stderr();
    assert!(
        said.contains("check is not authorized, counted as ready"),
        "{said}"
    );
}

#[test]
fn a_stopped_process_with_the_admin_socket_does_not_hold_the_next_one() {
    let mut keeper = Keeper::start("blocked");
    let blocker = lbd::admin::socket::bind(&keeper.dir.join("admin.sock")).unwrap();
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    assert_eq!(talk(&mut dial(address), b"x").unwrap(), b"x");
    assert!(keeper.stderr().contains("cannot listen for questions"));
    drop(blocker);
    assert!(keeper.status().process.serving);
}

#[test]
fn sigterm_drains_and_ends_the_process() {
    let mut keeper = Keeper::start("sigterm");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    let mut client = dial(address);
    assert_eq!(talk(&mut client, b"x").unwrap(), b"x");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(keeper.proxy.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_for("stop", || (!keeper.status().process.serving).then_some(()));
    assert_eq!(talk(&mut client, b"still").unwrap(), b"still");
    drop(client);
    assert_eq!(keeper.wait_end(), 0);
}

/// An operator who waits for what becomes of a failover.
fn operator(keeper: &Keeper) -> std::thread::JoinHandle<Outcome> {
    let path = keeper.dir.join("admin.sock");
    let failover = protocol::Command::Failover(Failover {
        vips: vec!["kube".to_owned()],
        hold_ms: Some(5_000),
    });
    std::thread::spawn(move || order(&path, failover, PATIENCE).unwrap())
}

fn next_order(keeper: &mut Keeper) -> u64 {
    let (message, _) = keeper.next("order", |m| matches!(m, ToKeeper::Command { .. }));
    let ToKeeper::Command { id, command } = message else {
        panic!()
    };
    let expected = Failover {
        vips: vec!["kube".to_owned()],
        hold_ms: Some(5_000),
    };
    assert_eq!(command, command::Command::Failover(expected));
    id
}

#[test]
fn each_order_gets_the_keepers_answer_to_it_in_whatever_order_they_come() {
    let mut keeper = Keeper::start("orders");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    keeper.status();
    let first = operator(&keeper);
    let one = next_order(&mut keeper);
    let second = operator(&keeper);
    let two = next_order(&mut keeper);
    for (id, text) in [(two, "second"), (one, "first")] {
        let outcome = Outcome::Refused(text.to_owned());
        keeper.send(&ToProxy::Outcome { id, outcome }, &[]);
    }
    let refused = |text: &str| Outcome::Refused(text.to_owned());
    assert_eq!(second.join().unwrap(), refused("second"));
    assert_eq!(first.join().unwrap(), refused("first"));
    // Nobody waits for this one.
    let outcome = refused("stray");
    keeper.send(&ToProxy::Outcome { id: 77, outcome }, &[]);
    assert!(keeper.status().process.serving);
}

#[test]
fn orders_beyond_the_bound_are_refused_and_a_dead_keeper_leaves_nobody_waiting() {
    let mut keeper = Keeper::start("orders-lost");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    keeper.status();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let waiting = operator(&keeper);
            next_order(&mut keeper);
            waiting
        })
        .collect();
    let refused = operator(&keeper).join().unwrap();
    assert_eq!(refused, Outcome::Refused("too many orders at once".into()));
    assert!(keeper.status().process.serving);
    // Nor will another keeper be there: the process looks for one.
    std::fs::remove_file(keeper.dir.join("keeper.sock")).unwrap();
    keeper.connection = None;
    for waiting in waiting {
        let outcome = waiting.join().unwrap();
        let lost = "the keeper ended before it said how it ended";
        assert_eq!(outcome, Outcome::Unknown(lost.to_owned()));
    }
    let refused = operator(&keeper).join().unwrap();
    assert_eq!(refused, Outcome::Refused("no keeper is there".into()));
}

#[test]
fn a_hung_keeper_leaves_nobody_waiting() {
    let mut keeper = Keeper::start("orders-hung");
    let (listener, address) = front();
    keeper.bring_up(&config(address, &[echo()]), listener);
    keeper.status();
    let waiting = operator(&keeper);
    next_order(&mut keeper);
    let lost = "the keeper does not answer: what becomes of it is not known";
    assert_eq!(waiting.join().unwrap(), Outcome::Unknown(lost.to_owned()));
}

#[test]
fn a_keeper_that_sends_nonsense_gets_no_proxy() {
    let mut keeper = Keeper::start("nonsense");
    keeper.hello();
    keeper
        .connection
        .as_ref()
        .unwrap()
        .send(b"\xff\xff\xff", &[])
        .unwrap();
    keeper.send(&ToProxy::ListenersDone, &[]);
    assert_ne!(keeper.wait_end(), 0);
}

#[test]
fn a_left_over_admin_socket_is_replaced_and_a_living_one_is_not() {
    let dir = std::env::temp_dir().join(format!("lbd-bind-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("admin.sock");
    let bind = |path: &Path| lbd::admin::socket::bind(path);
    drop(bind(&path).unwrap());
    let living = bind(&path).unwrap();
    assert_eq!(
        bind(&path).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    drop(living);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(
        bind(&path).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_dir_all(&dir).unwrap();
}
