//! HTTP for Prometheus, load balancers and browsers: read only, one answer per connection, bounded
//! in connections, header size and time.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::status::Status;
use super::{Source, families};
use crate::metrics;

/// Connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8;
/// Time for the whole head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the whole connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The most of a request's head, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// Rest after a failed accept (no descriptors left).
const ACCEPT_REST: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Listens at `address`.
///
/// # Errors
/// The kernel's.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until the task is aborted.
///
/// # Errors
/// When the listener cannot be handed to the executor.
pub async fn serve(listener: StdListener, source: Source) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&slots).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _client)) => stream,
            Err(error) => {
                tracing::debug!(%error, "metrics listener cannot accept");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            connection(stream, source).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, source: Source) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &source);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "http conversation broke off"),
        Err(_elapsed) => tracing::debug!("http conversation took too long"),
    }
}

fn respond(method: &Method, path: &str, source: &Source) -> Response<Full<Bytes>> {
    let page = if matches!(*method, Method::GET | Method::HEAD) {
        page(path, source)
    } else {
        Page {
            code: StatusCode::METHOD_NOT_ALLOWED,
            kind: TEXT,
            body: "only GET and HEAD\n".to_owned(),
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.code;
    let headers = response.headers_mut();
    if page.code == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    let kind = hyper::header::HeaderValue::from_static(page.kind);
    headers.insert(CONTENT_TYPE, kind);
    let fresh = hyper::header::HeaderValue::from_static("no-store");
    headers.insert(CACHE_CONTROL, fresh);
    response
}

struct Page {
    code: StatusCode,
    kind: &'static str,
    body: String,
}

fn page(path: &str, source: &Source) -> Page {
    let ok = |kind, body| Page {
        code: StatusCode::OK,
        kind,
        body,
    };
    match path {
        "/metrics" => ok(metrics::CONTENT_TYPE, families::render(&source())),
        "/livez" => ok(TEXT, "ok\n".to_owned()),
        "/readyz" | "/healthz" => ready(&source()),
        "/status.json" => match serde_json::to_string_pretty(&source()) {
            Ok(body) => ok(JSON, body + "\n"),
            Err(error) => Page {
                code: StatusCode::INTERNAL_SERVER_ERROR,
                kind: TEXT,
                body: format!("{error}\n"),
            },
        },
        _ => Page {
            code: StatusCode::NOT_FOUND,
            kind: TEXT,
            body: "/metrics /livez /readyz /healthz /status.json\n".to_owned(),
        },
    }
}

fn ready(status: &Status) -> Page {
    let (code, body) = match status.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    };
    Page {
        code,
        kind: TEXT,
        body,
    }
}
