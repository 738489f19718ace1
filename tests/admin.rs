//! The admin socket and the HTTP pages, with askers who behave and askers who don't.

#![cfg(test)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbd::admin::protocol::{AskError, ask_status};
use lbd::admin::status::{ProcessStatus, ProxyStatus, Status};
use lbd::admin::{Source, http, socket};
use lbd::net::clock;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(30);

fn ready() -> Status {
    Status {
        process: ProcessStatus {
            version: "0.1.0".to_owned(),
            serving: true,
            keeper_heard_ms: Some(0),
            max_connections: 10,
            ..ProcessStatus::default()
        },
        proxies: vec![ProxyStatus {
            name: "kube".to_owned(),
            probed: true,
            usable: 1,
            ..ProxyStatus::default()
        }],
        ..Status::default()
    }
    .judged()
}

fn source(status: Status) -> Source {
    Arc::new(move || status.clone())
}

/// Runs `service` on its own thread until the test process ends.
fn run<F>(service: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = std::io::Result<()>>,
{
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(service())
            .unwrap();
    });
}

struct Socket {
    dir: PathBuf,
    path: PathBuf,
}

impl Socket {
    fn serve(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("lbd-admin-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("admin.sock");
        let listener = socket::bind(&path).unwrap();
        let (orders, _nobody) = mpsc::channel(1);
        run(move || socket::serve(listener, source(ready()), Arc::default(), orders));
        Self { dir, path }
    }

    fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn say(&self, question: &[u8]) -> String {
        let mut stream = self.dial();
        stream.write_all(question).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

#[test]
fn a_question_gets_one_line_of_json_and_the_end() {
    let socket = Socket::serve("one");
    let answer = socket.say(b"{\"v\":1,\"command\":\"status\"}\n");
    assert_eq!(answer.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(value["v"], 1);
    assert_eq!(value["status"]["process"]["version"], "0.1.0");
    assert_eq!(ask_status(&socket.path).unwrap(), ready());
}

#[test]
fn the_socket_is_for_owner_and_group() {
    let socket = Socket::serve("mode");
    let mode = std::fs::metadata(&socket.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn nonsense_gets_an_error_and_nobody_else_notices() {
    let socket = Socket::serve("nonsense");
    for bad in [&b"hello\n"[..], b"\n", b"", b"\x00\xff\xfe\n", b"{\"v\":1"] {
        let answer = socket.say(bad);
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(value["error"].is_string(), "{answer}");
    }
    ask_status(&socket.path).unwrap();
}

#[test]
fn a_question_that_never_ends_is_cut_off() {
    let socket = Socket::serve("endless");
    let mut stream = socket.dial();
    // The other end may close while this still writes; what counts is that it ends.
    let mut sent = 0_usize;
    while stream.write_all(&[b'x'; 1024]).is_ok() {
        sent += 1024;
        assert!(sent < 64 << 20, "still reading after {sent} bytes");
    }
    ask_status(&socket.path).unwrap();
}

#[test]
fn silent_askers_are_sent_away_and_keep_nobody_out_for_long() {
    let socket = Socket::serve("silent");
    let silent: Vec<UnixStream> = (0..16).map(|_| socket.dial()).collect();
    let begun = clock::now();
    ask_until(&socket.path, begun + PATIENCE);
    for mut stream in silent {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("no question came in time"), "{answer}");
    }
}

fn ask_until(path: &Path, deadline: Instant) {
    while ask_status(path).is_err() {
        assert!(clock::now() < deadline, "locked out");
    }
}

#[test]
fn a_client_knows_why_nobody_answers() {
    let missing = ask_status(Path::new("/nonexistent/admin.sock")).unwrap_err();
    assert!(matches!(missing, AskError::Unreachable { .. }), "{missing}");
    let dir = std::env::temp_dir().join(format!("lbd-admin-{}-liar", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let liar = std::thread::spawn(move || {
        for answer in [
            &b"{\"v\":1,\"error\":\"no\"}\n"[..],
            b"what?\n",
            b"{\"v\":1",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let question = stream.read(&mut [0; 256]).unwrap();
            assert!(question > 0);
            stream.write_all(answer).unwrap();
        }
    });
    let errors: Vec<AskError> = (0..3).map(|_| ask_status(&path).unwrap_err()).collect();
    assert!(matches!(&errors[0], AskError::Refused(reason) if reason == "no"));
    assert!(matches!(errors[1], AskError::Foreign { .. }));
    assert!(matches!(errors[2], AskError::Broken { .. }));
    liar.join().unwrap();
    let gone = ask_status(&path).unwrap_err();
    assert!(matches!(gone, AskError::Unreachable { .. }), "{gone}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_daemon_that_accepts_nobody_does_not_hold_those_who_ask() {
    let dir = std::env::temp_dir().join(format!("lbd-admin-{}-stuck", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("admin.sock");
    let listener = socket::bind(&path).unwrap();
    let waiting: Vec<UnixStream> = (0..)
        .map_while(|_| {
            let socket = socket2::Socket::new(
                socket2::Domain::UNIX,
                socket2::Type::STREAM.nonblocking(),
                None,
            )
            .unwrap();
            let address = socket2::SockAddr::unix(&path).unwrap();
            socket.connect(&address).ok()?;
            Some(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
        })
        .collect();
    assert!(!waiting.is_empty());
    let error = ask_status(&path).unwrap_err();
    assert!(matches!(error, AskError::Broken { .. }), "{error}");
    assert_eq!(
        socket::bind(&path).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    drop((waiting, listener));
    std::fs::remove_dir_all(&dir).unwrap();
}

fn pages(status: Status) -> SocketAddr {
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    run(move || http::serve(listener, source(status), Arc::default()));
    address
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `request` and reads until the end, however it comes.
fn fetch(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = dial(address);
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = fetch(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    );
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (code, body)
}

#[test]
fn each_page_answers() {
    let address = pages(ready());
    assert_eq!(get(address, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
    let (code, body) = get(address, "/metrics");
    assert_eq!(code, 200);
    assert!(body.contains("lbd_process_ready 1\n"), "{body}");
    let (code, body) = get(address, "/status.json");
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<Status>(&body).unwrap(), ready());
    let (code, body) = get(address, "/events.json");
    assert_eq!(code, 200);
    assert_eq!(body, "{\n  \"v\": 1,\n  \"events\": []\n}\n");
    let (code, body) = get(address, "/status.txt");
    assert_eq!(code, 200);
    assert!(
        body.starts_with("kube: no usable server\n\nlbd 0.1.0 "),
        "{body}"
    );
    for path in ["/", "/status"] {
        let (code, body) = get(address, path);
        assert_eq!(code, 200);
        assert!(body.starts_with("<!doctype html>\n"), "{body}");
    }
    assert_eq!(get(address, "/index.html").0, 404);
    assert_eq!(get(address, "/metrics/../livez").0, 404);
    assert_eq!(get(address, "/livez?verbose").0, 200);
}

#[test]
fn a_node_that_cannot_serve_says_so_with_503() {
    let mut status = ready();
    status.proxies[0].usable = 0;
    let address = pages(status);
    let (code, body) = get(address, "/readyz");
    assert_eq!(
        (code, body.as_str()),
        (503, "not ready: kube: no usable server\n")
    );
    assert_eq!(get(address, "/livez").0, 200);
}

#[test]
fn only_reading_is_allowed() {
    let address = pages(ready());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = fetch(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
        assert!(
            answer.to_lowercase().contains("allow: get, head"),
            "{answer}"
        );
    }
    let answer = fetch(address, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn one_connection_gets_one_answer() {
    let address = pages(ready());
    let answer = fetch(
        address,
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[test]
fn garbage_and_giants_are_refused() {
    let address = pages(ready());
    let answer = fetch(
        address,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    );
    assert!(!answer.contains(" 200 "), "{answer}");
    let giant = format!(
        "GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    let mut stream = dial(address);
    stream.write_all(giant.as_bytes()).unwrap_or_default();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = fetch(
        address,
        format!("GET /livez HTTP/1.1\r\n{many}\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(get(address, "/livez").0, 200);
}

/// So soon nobody is sent away for being slow: who is gone by then had to make room.
const SOON: Duration = Duration::from_millis(600);

#[test]
fn clients_that_dawdle_are_cut_off_and_keep_nobody_waiting() {
    let address = pages(ready());
    let begun = clock::now();
    let mut dawdlers: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = dial(address);
            stream.write_all(b"GET /livez HTTP/1.1\r\nHos").unwrap();
            stream
        })
        .collect();
    assert_eq!(get(address, "/livez").0, 200);
    // 24 places: the first six made room for the last six, another one for the question.
    for stream in dawdlers.drain(..7) {
        assert!(end_of(stream).is_empty());
    }
    let waited = clock::now() - begun;
    assert!(waited < SOON, "{waited:?}");
    // The rest goes for being slow.
    for stream in dawdlers {
        assert!(!end_of(stream).starts_with(b"HTTP/1.1 200"));
    }
    let waited = clock::now() - begun;
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

fn end_of(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_default();
    answer
}

#[test]
fn clients_that_do_not_read_keep_neither_a_place_nor_a_page_each() {
    let mut status = ready();
    let server = |n: u32| lbd::admin::status::ServerStatus {
        name: format!("kube-apiserver-{n:04}-{}", "x".repeat(60_000)),
        ..Default::default()
    };
    // Pages of about 6 MB: more than the kernel takes for one who doesn't read.
    status.proxies[0].servers = (0..100).map(server).collect();
    let address = pages(status);
    let begun = clock::now();
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = dial(address);
            let question = b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(question).unwrap();
            stream
        })
        .collect();
    // Were it to wait for a place, it would for the 5 s that each of them may take.
    assert_eq!(get(address, "/livez").0, 200);
    let waited = clock::now() - begun;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    // Such a page takes its time in a debug build.
    let question = b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n";
    while fetch(address, question).len() < 5_000_000 {
        assert!(clock::now() < begun + 3 * PATIENCE, "no page");
    }
    let cut = silent.into_iter().map(end_of);
    let cut = cut.filter(|answer| answer.len() < 5_000_000).count();
    assert!(cut >= 32, "{cut} were cut off");
}

#[test]
fn a_process_whose_control_loop_is_stuck_says_so() {
    let stuck = |ms: u64| {
        let mut status = ready();
        status.process.measures.control_ms = ms;
        let address = pages(status);
        (get(address, "/livez"), get(address, "/readyz"))
    };
    let well = (200, "ok\n".to_owned());
    assert_eq!(stuck(1_900), (well.clone(), well));
    let (live, ready) = stuck(7_100);
    assert_eq!(
        live,
        (503, "the control loop has been stuck for 7 s\n".to_owned())
    );
    assert_eq!(ready, live);
}

#[test]
fn a_flood_of_questions_looks_at_the_state_some_times_a_second() {
    let looked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looked);
    let source: Source = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        ready()
    });
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    run(move || http::serve(listener, source, Arc::default()));
    let begun = clock::now();
    for _ in 0..200 {
        assert_eq!(get(address, "/readyz").0, 200);
    }
    let looked = looked.load(Ordering::Relaxed);
    let most = (clock::now() - begun).as_millis() / 10 + 1;
    assert!(
        looked >= 1 && (looked as u128) <= most,
        "{looked} of at most {most}"
    );
}

#[test]
fn every_answer_tells_browsers_what_they_may_do_with_it() {
    let address = pages(ready());
    for path in [
        "/",
        "/metrics",
        "/status.json",
        "/events.json",
        "/readyz",
        "/none",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://127.0.0.1\r\n\r\n");
        // Of a page on another port: it gets an answer that its script can't read.
        let answer = fetch(
            address,
            request.replace("Host: x", "Host: 127.0.0.1").as_bytes(),
        );
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_lowercase();
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: {header}\n{head}");
        }
        assert!(!head.contains("access-control-"), "{head}");
    }
}
