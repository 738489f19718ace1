//! A server of the laboratory, a process of its own so that it can be stopped and killed. On one
//! port: TLS with `/readyz` for checks, and for the measured clients plain lines, each answered by
//! the server's name. What it does wrong is told to it on standard input.

use std::convert::Infallible;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lbd::cli::demo::certificate::Tls;
use lbd::net::clock;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A slow server accepts one connection each.
const SLOW_ACCEPT: Duration = Duration::from_millis(50);
/// How many may wait to be accepted by a slow server: further SYNs are dropped.
const SLOW_BACKLOG: i32 = 8;
const BACKLOG: i32 = 4096;
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

const ACCEPT_NORMAL: u8 = 0;
const ACCEPT_RESET: u8 = 1;
const ACCEPT_SLOW: u8 = 2;
const READY: u8 = 0;
const READY_FAILS: u8 = 1;
const READY_HANGS: u8 = 2;

/// What it was told to do, and how many clients it has.
struct Shared {
    name: String,
    accept: AtomicU8,
    readyz: AtomicU8,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// `--serve ADDRESS NAME`: serves until standard input ends.
pub fn main(arguments: &[String]) -> ExitCode {
    let [address, name] = arguments else {
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(address.parse().unwrap(), name.clone()));
    ExitCode::SUCCESS
}

async fn serve(address: SocketAddr, name: String) {
    let tls = Tls::new(&[address.ip()]).unwrap();
    let acceptor = TlsAcceptor::from(tls.server);
    let listener = TcpListener::bind(address).await.unwrap();
    SockRef::from(&listener).listen(BACKLOG).unwrap();
    let shared = Arc::new(Shared {
        name,
        accept: AtomicU8::new(ACCEPT_NORMAL),
        readyz: AtomicU8::new(READY),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let ended = Mutex::new(Some(ended));
    let told = Arc::clone(&shared);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            obey(&told, &line);
        }
        drop(ended.lock().unwrap().take());
    });
    say("ready");
    tokio::select! {
        () = accept(&listener, &shared, &acceptor) => {}
        _ = end => {}
    }
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    // The laboratory may have gone.
    drop(writeln!(output, "{line}").and_then(|()| output.flush()));
}

fn obey(shared: &Shared, line: &str) {
    match line {
        "accept normal" => shared.accept.store(ACCEPT_NORMAL, Ordering::Relaxed),
        "accept reset" => shared.accept.store(ACCEPT_RESET, Ordering::Relaxed),
        "accept slow" => shared.accept.store(ACCEPT_SLOW, Ordering::Relaxed),
        "readyz ok" => shared.readyz.store(READY, Ordering::Relaxed),
        "readyz fails" => shared.readyz.store(READY_FAILS, Ordering::Relaxed),
        "readyz hangs" => shared.readyz.store(READY_HANGS, Ordering::Relaxed),
        "most" => return say(&shared.most.load(Ordering::Relaxed).to_string()),
        other => panic!("no order: {other}"),
    }
    say("done");
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, acceptor: &TlsAcceptor) {
    let mut next = clock::now();
    loop {
        let mode = shared.accept.load(Ordering::Relaxed);
        if mode == ACCEPT_SLOW {
            SockRef::from(listener).listen(SLOW_BACKLOG).unwrap();
            next = next.max(clock::now()) + SLOW_ACCEPT;
            tokio::time::sleep_until(next.into()).await;
        }
        // Out of descriptors, or a client that left: the next may do better.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if shared.accept.load(Ordering::Relaxed) == ACCEPT_RESET {
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            continue;
        }
        tokio::spawn(meet(stream, Arc::clone(shared), acceptor.clone()));
    }
}

/// Who is it: a check, or a client?
async fn meet(stream: TcpStream, shared: Arc<Shared>, acceptor: TlsAcceptor) {
    let mut first = [0];
    let Ok(1) = stream.peek(&mut first).await else {
        return;
    };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if first[0] != HANDSHAKE {
        let now = shared.now.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most.fetch_max(now, Ordering::Relaxed);
        // A client may leave as it likes.
        drop(lines(stream, &shared.name).await);
        shared.now.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let answers = service_fn(|_request: Request<Incoming>| readyz(&shared));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answers)
        .await;
    drop(served);
}

/// Every byte `?` is answered by the name on a line.
async fn lines(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut read = [0; 64];
    let answer = format!("{name}\n");
    loop {
        let count = stream.read(&mut read).await?;
        if count == 0 {
            return Ok(());
        }
        for _ in read[..count].iter().filter(|byte| **byte == b'?') {
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

async fn readyz(shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match shared.readyz.load(Ordering::Relaxed) {
        READY_HANGS => std::future::pending().await,
        READY_FAILS => (StatusCode::INTERNAL_SERVER_ERROR, "[-]etcd failed\n"),
        _ => (StatusCode::OK, "ok"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}
