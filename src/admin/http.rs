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
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::events::Feed;
use super::status::{FORMAT_VERSION, Status};
use super::{Source, families, page as status_page, table};
use crate::ipc::event::{Event, Wanted};
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

/// The last so many events stand on /events.json.
const EVENTS_SHOWN: usize = 50;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
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
pub async fn serve(listener: StdListener, source: Source, feed: Arc<Feed>) -> io::Result<()> {
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
        let (source, feed) = (Arc::clone(&source), Arc::clone(&feed));
        tokio::spawn(async move {
            connection(stream, source, feed).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, source: Source, feed: Arc<Feed>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &source, &feed);
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

fn respond(method: &Method, path: &str, source: &Source, feed: &Feed) -> Response<Full<Bytes>> {
    let page = if matches!(*method, Method::GET | Method::HEAD) {
        page(path, source, feed)
    } else {
        Page {
            code: StatusCode::METHOD_NOT_ALLOWED,
            kind: TEXT,
            body: "only GET and HEAD\n".into(),
        }
    };
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.code;
    let headers = response.headers_mut();
    if page.code == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    let kind = hyper::header::HeaderValue::from_static(page.kind);
    headers.insert(CONTENT_TYPE, kind);
    let fresh = hyper::header::HeaderValue::from_static("no-store");
    headers.insert(CACHE_CONTROL, fresh);
    status_page::protect(headers);
    response
}

struct Page {
    code: StatusCode,
    kind: &'static str,
    body: Bytes,
}

fn page(path: &str, source: &Source, feed: &Feed) -> Page {
    let ok = |kind, body: String| Page {
        code: StatusCode::OK,
        kind,
        body: body.into(),
    };
    match path {
        "/metrics" => ok(metrics::CONTENT_TYPE, families::render(&source())),
        "/livez" => ok(TEXT, "ok\n".to_owned()),
        "/readyz" | "/healthz" => ready(&source()),
        "/" | "/status" => Page {
            code: StatusCode::OK,
            kind: HTML,
            body: status_page::page().into(),
        },
        "/status.txt" => ok(TEXT, table::render(&source())),
        "/status.json" => json(&source()),
        "/events.json" => json(&Events {
            v: FORMAT_VERSION,
            events: feed.last(EVENTS_SHOWN, &Wanted::default()).0,
        }),
        _ => Page {
            code: StatusCode::NOT_FOUND,
            kind: TEXT,
            body: "/ /metrics /livez /readyz /healthz /status.json /status.txt /events.json\n"
                .into(),
        },
    }
}

/// What happened last, oldest first.
#[derive(Debug, Serialize)]
struct Events {
    v: u32,
    events: Vec<Event>,
}

fn json(value: &impl Serialize) -> Page {
    match serde_json::to_string_pretty(value) {
        Ok(body) => Page {
            code: StatusCode::OK,
            kind: JSON,
            body: (body + "\n").into(),
        },
        Err(error) => Page {
            code: StatusCode::INTERNAL_SERVER_ERROR,
            kind: TEXT,
            body: format!("{error}\n").into(),
        },
    }
}

fn ready(status: &Status) -> Page {
    let (code, body) = match status.not_ready() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n").into(),
        ),
    };
    Page {
        code,
        kind: TEXT,
        body,
    }
}
