//! Probes against real servers of this process: TCP, TLS and HTTPS, well and in every way ill.

#![cfg(test)]

#[path = "health/accept.rs"]
mod accept;
#[path = "health/credentials.rs"]
mod credentials;
#[path = "lab/port.rs"]
mod port;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lbd::config::model::{Check, CheckKind, HttpCheck, TlsCheck, Verify};
use lbd::health::fsm::{Health, Machine, State};
use lbd::health::probe::{Probe, Report, Verdict};
use lbd::health::recorded::RecordedMachine;
use lbd::health::task::{self, Finding, Target};
use lbd::net::clock;
use lbd::units::Count;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A CA, a file that holds it, and a server configuration signed by it.
struct Pki {
    dir: PathBuf,
    ca_file: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    identity: (Vec<u8>, Vec<u8>),
    server: Arc<ServerConfig>,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Pki {
    fn new() -> Self {
        Self::valid_between((2020, 1, 1), (2090, 1, 1))
    }

    fn valid_between(from: (i32, u8, u8), to: (i32, u8, u8)) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "kubernetes".to_owned()];
        let mut leaf = rcgen::CertificateParams::new(names).unwrap();
        leaf.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        leaf.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let cert = leaf.signed_by(&key, &issuer).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lbd-health-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca_file = dir.join("ca.crt");
        std::fs::write(&ca_file, ca_cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = (cert.der().to_vec(), key.serialize_der());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(identity.0.clone())],
                PrivateKeyDer::try_from(identity.1.clone()).unwrap(),
            )
            .unwrap();
        Self {
            dir,
            ca_file,
            issuer,
            identity,
            server: Arc::new(server),
        }
    }

    fn accept(&self) -> impl Fn(TcpStream) -> Tls + Send + Sync + 'static {
        let config = Arc::clone(&self.server);
        move |tcp| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), tcp)
    }

    /// A server that answers every request with this status and body.
    fn answering(&self, status: &'static str, body: &'static str) -> SocketAddr {
        let accept = self.accept();
        server(move |tcp| answer(accept(tcp), status, body))
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

/// Hands every connection to `serve`, on its own thread, until the test process ends.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            connection
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            std::thread::spawn(move || serve(connection));
        }
    });
    address
}

fn answer(mut stream: impl Read + Write, status: &str, body: &str) {
    if read_head(&mut stream).is_none() {
        return;
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap_or_default();
    stream.flush().unwrap_or_default();
    stream.read(&mut [0; 16]).unwrap_or_default();
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn reset(tcp: &TcpStream) {
    socket2::SockRef::from(tcp)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

fn unverified() -> TlsCheck {
    TlsCheck {
        ca_file: None,
        server_name: None,
        verify: Verify::IfCaPresent,
        client: None,
    }
}

fn readyz() -> HttpCheck {
    HttpCheck {
        path: "/readyz".to_owned(),
        host: None,
        expect_status: vec![200],
        unauthorized_is_ready: true,
        token_file: None,
    }
}

fn check(kind: CheckKind) -> Check {
    Check {
        kind,
        interval: Duration::from_secs(1),
        fast_interval: Duration::from_millis(50),
        down_interval: Duration::from_millis(50),
        timeout: Duration::from_secs(10),
        rise: Count::TWO,
        fall: Count::TWO,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn probe(kind: CheckKind, address: SocketAddr) -> Report {
    probe_within(Duration::from_secs(10), kind, address)
}

fn probe_within(timeout: Duration, kind: CheckKind, address: SocketAddr) -> Report {
    let check = Check {
        timeout,
        ..check(kind)
    };
    let probe = Probe::new(&check, address, Path::new("/nonexistent")).unwrap();
    let begun = clock::now();
    let report = block_on(probe.run());
    let took = clock::now() - begun;
    assert!(took < timeout + Duration::from_secs(5), "{took:?}");
    report
}

fn https(address: SocketAddr) -> Report {
    probe(CheckKind::Https(unverified(), readyz()), address)
}

fn not_ready(reason: &str) -> Verdict {
    Verdict::NotReady(reason.to_owned())
}

fn unresponsive(reason: &str) -> Verdict {
    Verdict::Unresponsive(reason.to_owned())
}

/// An address on which nothing listens.
fn closed_port() -> SocketAddr {
    port::held()
}

#[test]
fn a_listening_port_is_ready_for_tcp_and_a_closed_one_is_unresponsive() {
    let (seen, ends) = mpsc::sync_channel(4);
    let address = server(move |mut tcp| {
        seen.send(tcp.read(&mut [0; 8]).map_err(|e| e.kind()))
            .unwrap();
    });
    assert_eq!(probe(CheckKind::Tcp, address).verdict, Verdict::Ready);
    // The probe closes in order: the server reads an end of stream, not a reset.
    assert_eq!(ends.recv_timeout(Duration::from_secs(5)).unwrap(), Ok(0));
    assert_eq!(
        probe(CheckKind::Tcp, closed_port()).verdict,
        unresponsive("connection refused")
    );
}

/// A probe that comes from 127.0.0.77 and begins with a header.
fn headed(kind: CheckKind, address: SocketAddr) -> Report {
    let probe = Probe::new(&check(kind), address, Path::new("/nonexistent")).unwrap();
    let probe = probe
        .from_source(Some([127, 0, 0, 77].into()))
        .beginning_with(b"PROXY UNKNOWN\r\n");
    block_on(probe.run())
}

#[test]
fn every_kind_of_check_begins_with_the_header_and_comes_from_the_source_address() {
    let pki = Pki::new();
    let accept = pki.accept();
    let behind_header = |serve: Box<dyn Fn(TcpStream) + Send + Sync>| {
        server(move |mut tcp| {
            assert_eq!(tcp.peer_addr().unwrap().ip().to_string(), "127.0.0.77");
            let mut header = [0; 15];
            tcp.read_exact(&mut header).unwrap();
            assert_eq!(&header, b"PROXY UNKNOWN\r\n");
            serve(tcp);
        })
    };
    let (seen, ends) = mpsc::sync_channel(4);
    let tcp = behind_header(Box::new(move |mut tcp| {
        seen.send(tcp.read(&mut [0; 8]).unwrap()).unwrap();
    }));
    assert_eq!(headed(CheckKind::Tcp, tcp).verdict, Verdict::Ready);
    assert_eq!(ends.recv_timeout(Duration::from_secs(5)), Ok(0));
    let http = behind_header(Box::new(|tcp| answer(tcp, "200 OK", "ok")));
    assert_eq!(
        headed(CheckKind::Http(readyz()), http).verdict,
        Verdict::Ready
    );
    let tls = behind_header(Box::new(move |tcp| answer(accept(tcp), "200 OK", "ok")));
    let kinds = [
        CheckKind::Tls(unverified()),
        CheckKind::Https(unverified(), readyz()),
    ];
    for kind in kinds {
        assert_eq!(headed(kind, tls).verdict, Verdict::Ready);
    }
    // The same server is not ready for a check without the header.
    assert!(!probe(CheckKind::Http(readyz()), http).verdict.is_ready());
}

#[test]
fn a_source_address_that_is_not_here_is_said_to_be_the_reason() {
    let address = server(drop);
    let probe = Probe::new(&check(CheckKind::Tcp), address, Path::new("/nonexistent")).unwrap();
    let probe = probe.from_source(Some([192, 0, 2, 77].into()));
    assert_eq!(
        block_on(probe.run()).verdict,
        unresponsive("source address not on this machine")
    );
}

#[test]
fn an_apiserver_that_answers_200_on_readyz_is_ready() {
    let pki = Pki::new();
    let (seen, heads) = mpsc::sync_channel(4);
    let accept = pki.accept();
    let address = server(move |tcp| {
        let mut tls = accept(tcp);
        seen.send(read_head(&mut tls).unwrap()).unwrap();
        tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
    });
    assert_eq!(https(address).verdict, Verdict::Ready);
    let head = heads.recv_timeout(Duration::from_secs(5)).unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("GET /readyz HTTP/1.1"));
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
}

#[test]
fn an_apiserver_that_answers_500_is_not_ready_and_says_which_part() {
    let pki = Pki::new();
    let body = "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n";
    let address = pki.answering("500 Internal Server Error", body);
    assert_eq!(https(address).verdict, not_ready("status 500 (etcd)"));
}

#[test]
fn an_unauthorized_answer_counts_as_ready_only_for_the_preset() {
    let pki = Pki::new();
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let address = pki.answering(status, "");
        let report = https(address);
        assert_eq!(
            (report.verdict, report.unauthorized),
            (Verdict::Ready, true)
        );
        let strict = HttpCheck {
            unauthorized_is_ready: false,
            ..readyz()
        };
        let report = probe(CheckKind::Https(unverified(), strict), address);
        assert!(matches!(report.verdict, Verdict::NotReady(_)), "{report:?}");
    }
}

#[test]
fn expected_statuses_are_the_operators_choice() {
    let address = server(|tcp| answer(tcp, "204 No Content", ""));
    let picky = HttpCheck {
        expect_status: vec![200, 204],
        ..readyz()
    };
    assert_eq!(
        probe(CheckKind::Http(picky), address).verdict,
        Verdict::Ready
    );
    let report = probe(CheckKind::Http(readyz()), address);
    assert_eq!(report.verdict, not_ready("status 204"));
}

#[test]
fn silence_means_something_else_at_each_stage() {
    let pki = Pki::new();
    let short = |kind, address| probe_within(Duration::from_millis(300), kind, address).verdict;
    let https = || CheckKind::Https(unverified(), readyz());
    let mute = server(|mut tcp| {
        tcp.read_to_end(&mut Vec::new()).unwrap_or_default();
    });
    assert_eq!(
        short(https(), mute),
        unresponsive("tls handshake timed out")
    );
    assert_eq!(
        short(CheckKind::Tls(unverified()), mute),
        unresponsive("tls handshake timed out")
    );
    assert_eq!(
        short(CheckKind::Http(readyz()), mute),
        unresponsive("no http answer in time")
    );
    let accept = pki.accept();
    let hung = server(move |tcp| {
        accept(tcp).read_to_end(&mut Vec::new()).unwrap_or_default();
    });
    assert_eq!(
        probe_within(Duration::from_secs(2), https(), hung).verdict,
        not_ready("no http answer in time")
    );
    assert_eq!(
        probe(CheckKind::Tls(unverified()), hung).verdict,
        Verdict::Ready
    );
}

#[test]
fn a_body_that_never_ends_does_not_hold_a_probe() {
    let endless = server(|mut tcp| {
        read_head(&mut tcp);
        tcp.write_all(b"HTTP/1.1 500 No\r\n\r\n")
            .unwrap_or_default();
        while tcp.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let report = probe(CheckKind::Http(readyz()), endless);
    assert_eq!(report.verdict, not_ready("status 500"));
}

#[test]
fn a_head_that_never_ends_does_not_hold_a_probe() {
    let endless = server(|mut tcp| {
        read_head(&mut tcp);
        tcp.write_all(b"HTTP/1.1 200 OK\r\n").unwrap_or_default();
        while tcp
            .write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
            .is_ok()
        {}
    });
    let report = probe(CheckKind::Http(readyz()), endless);
    assert!(!report.verdict.is_ready(), "{report:?}");
}

#[test]
fn resets_and_broken_protocols_are_told_apart() {
    let pki = Pki::new();
    let resetting = server(|mut tcp| {
        tcp.read(&mut [0; 1]).unwrap_or_default();
        reset(&tcp);
    });
    assert_eq!(
        https(resetting).verdict,
        unresponsive("tls handshake: connection reset")
    );
    let plain_spoken = server(|mut tcp| {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap_or_default();
        tcp.read_to_end(&mut Vec::new()).unwrap_or_default();
    });
    assert!(matches!(https(plain_spoken).verdict, Verdict::NotReady(_)));
    let accept = pki.accept();
    let closing = server(move |tcp| {
        let mut tls = accept(tcp);
        read_head(&mut tls);
        tls.conn.send_close_notify();
        tls.flush().unwrap_or_default();
    });
    let verdict = https(closing).verdict;
    assert!(matches!(verdict, Verdict::Unresponsive(_)), "{verdict:?}");
    let noise = server(|mut tcp| {
        read_head(&mut tcp);
        tcp.write_all(b"\x00\x01nothing like http\r\n\r\n")
            .unwrap_or_default();
    });
    let verdict = probe(CheckKind::Http(readyz()), noise).verdict;
    assert_eq!(verdict, not_ready("the answer is no http"));
}

#[test]
fn a_tls_check_is_not_about_http() {
    let mut pki = Pki::new();
    Arc::get_mut(&mut pki.server).unwrap().alpn_protocols = vec![b"h2".to_vec()];
    let accept = pki.accept();
    let address = server(move |tcp| {
        accept(tcp).read_to_end(&mut Vec::new()).unwrap_or_default();
    });
    assert_eq!(
        probe(CheckKind::Tls(unverified()), address).verdict,
        Verdict::Ready
    );
    let verdict = https(address).verdict;
    assert!(matches!(verdict, Verdict::NotReady(_)), "{verdict:?}");
}

#[test]
fn a_certificate_is_verified_against_the_file_and_the_name() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let address = pki.answering("200 OK", "ok");
    let verified = |pki: &Pki, name: Option<&str>| {
        let tls = TlsCheck {
            ca_file: Some(pki.ca_file.clone()),
            server_name: name.map(str::to_owned),
            verify: Verify::Required,
            client: None,
        };
        probe(CheckKind::Https(tls, readyz()), address).verdict
    };
    assert_eq!(verified(&pki, None), Verdict::Ready);
    assert_eq!(verified(&pki, Some("kubernetes")), Verdict::Ready);
    for verdict in [verified(&stranger, None), verified(&pki, Some("other"))] {
        let reason = verdict.reason().unwrap().to_owned();
        assert!(matches!(verdict, Verdict::NotReady(_)), "{reason}");
        assert!(reason.starts_with("certificate not accepted"), "{reason}");
    }
    let expired = Pki::valid_between((2020, 1, 1), (2021, 1, 1));
    let old = expired.answering("200 OK", "ok");
    let tls = TlsCheck {
        ca_file: Some(expired.ca_file.clone()),
        server_name: None,
        verify: Verify::Required,
        client: None,
    };
    let verdict = probe(CheckKind::Https(tls, readyz()), old).verdict;
    let reason = verdict.reason().unwrap();
    assert!(reason.contains("xpired"), "{reason}");
}

#[test]
fn the_preset_verifies_when_the_clusters_ca_is_there_and_knows_when_it_does_not() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let address = pki.answering("200 OK", "ok");
    let kind = CheckKind::Https(unverified(), readyz());
    let with = |ca: &Path| Probe::new(&check(kind.clone()), address, ca).unwrap();
    let without = with(Path::new("/nonexistent"));
    assert!(without.is_unverified());
    assert!(!with(&pki.ca_file).is_unverified());
    assert_eq!(block_on(without.run()).verdict, Verdict::Ready);
    assert_eq!(block_on(with(&pki.ca_file).run()).verdict, Verdict::Ready);
    assert!(!block_on(with(&stranger.ca_file).run()).verdict.is_ready());
}

#[test]
fn a_ca_file_without_a_certificate_is_an_error_of_the_operator() {
    let pki = Pki::new();
    std::fs::write(&pki.ca_file, "no certificate\n").unwrap();
    for path in [pki.ca_file.clone(), PathBuf::from("/nonexistent")] {
        let tls = TlsCheck {
            ca_file: Some(path),
            server_name: None,
            verify: Verify::Required,
            client: None,
        };
        let check = check(CheckKind::Tls(tls));
        assert!(Probe::new(&check, closed_port(), Path::new("/nonexistent")).is_err());
    }
}

#[test]
fn a_watched_server_goes_down_after_fall_failures_and_up_after_rise_successes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let check = check(CheckKind::Tcp);
    let probe = Probe::new(&check, address, Path::new("/nonexistent")).unwrap();
    block_on(async {
        let (sender, mut findings) = tokio::sync::mpsc::channel(1);
        let target = Target {
            proxy: 3,
            server: 2,
            proxy_name: "p".to_owned(),
            server_name: "s".to_owned(),
            probe,
            machine: RecordedMachine::new(Machine::new(&check, clock::now()), None, clock::now()),
            hurry: Arc::default(),
        };
        let task = tokio::spawn(task::watch(target, sender));
        let mut next = async || -> Finding {
            tokio::time::timeout(Duration::from_secs(10), findings.recv())
                .await
                .unwrap()
                .unwrap()
        };
        let first = next().await;
        assert_eq!(
            (first.proxy, first.server, first.health),
            (3, 2, Health::Ready)
        );
        assert_eq!(first.change.unwrap().from, State::Unknown);
        drop(listener);
        let failed = next().await;
        assert_eq!((failed.health, failed.change), (Health::Ready, None));
        let down = next().await;
        assert!(down.health != Health::Ready && down.change.is_some());
        assert_eq!(down.verdict, unresponsive("connection refused"));
        let _listener = TcpListener::bind(address).unwrap();
        let up = loop {
            let finding = next().await;
            // A first success is a sign of life, and no more.
            if finding.health != Health::Unresponsive && !finding.verdict.is_ready() {
                panic!("{finding:?}");
            }
            if finding.health == Health::Ready {
                break finding;
            }
        };
        assert_eq!(up.change.unwrap().to, State::UP);
        drop(findings);
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    });
}

#[test]
fn however_often_a_probe_is_asked_for_some_time_passes_between_two() {
    let address = server(drop);
    let check = Check {
        interval: Duration::from_secs(3600),
        ..check(CheckKind::Tcp)
    };
    let hurry = Arc::<tokio::sync::Notify>::default();
    let target = Target {
        proxy: 0,
        server: 0,
        proxy_name: "p".to_owned(),
        server_name: "s".to_owned(),
        probe: Probe::new(&check, address, Path::new("/nonexistent")).unwrap(),
        machine: RecordedMachine::new(Machine::new(&check, clock::now()), None, clock::now()),
        hurry: Arc::clone(&hurry),
    };
    block_on(async {
        let (sender, mut findings) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(task::watch(target, sender));
        let first = findings.recv().await.unwrap();
        let mut last = first;
        for _ in 0..10 {
            hurry.notify_one();
            let next = findings.recv().await.unwrap();
            let pause = next.started - last.finished;
            assert!(pause >= Duration::from_millis(50), "{pause:?}");
            assert!(pause < Duration::from_secs(60), "{pause:?}");
            last = next;
        }
        task.abort();
    });
}
