//! HTTP for Prometheus, load balancers and browsers: read only, one answer per connection, bounded
//! in connections, header size and time.
//!
//! `crowd` says who has to go when too many come, `press` writes long pages once for all who ask,
//! `host` tells questions that a foreign page has a browser ask. A slow client keeps nobody waiting:
//! those who have not asked yet and those who are being answered have places of their own, and the
//! oldest loses its place to the next one.

mod crowd;
mod host;
mod press;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::crowd::Crowd;
use self::press::Press;
use super::events::Feed;
use super::status::{FORMAT_VERSION, Status};
use super::{Source, families, page as status_page, table};
use crate::ipc::event::{Event, Wanted};
use crate::metrics;
use crate::net::clock;

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
/// So long one look at the state serves all who ask: a flood of questions must not keep the locks.
const STATUS_AGE_MAX: Duration = Duration::from_millis(10);
/// A control loop that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(2);
/// One that seems to be gets so much more time: the whole process may have been stopped.
const SECOND_LOOK: Duration = Duration::from_millis(250);

/// Connections that wait in the kernel: also while many come at once none is to come again later.
const BACKLOG: i32 = 1024;

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
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What is asked, by whom, and what is answered.
struct Desk {
    source: Source,
    feed: Arc<Feed>,
    recent: Mutex<Option<(Instant, Arc<Status>)>>,
    crowd: Mutex<Crowd<AbortHandle>>,
    metrics: Press,
    json: Press,
    table: Press,
    events: Press,
}

impl Desk {
    fn crowd(&self) -> MutexGuard<'_, Crowd<AbortHandle>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state, or that of a moment ago.
    fn status(&self) -> Arc<Status> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if let Some((at, status)) = recent.as_ref()
            && now.saturating_duration_since(*at) < STATUS_AGE_MAX
        {
            return Arc::clone(status);
        }
        let status = Arc::new((self.source)());
        *recent = Some((now, Arc::clone(&status)));
        status
    }

    /// The present state of a process that lives, or how long its control loop has been stuck.
    async fn living(&self) -> Result<Arc<Status>, Duration> {
        let idle = |status: &Status| Duration::from_millis(status.process.measures.control_ms);
        let status = self.status();
        if idle(&status) < STUCK {
            return Ok(status);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let status = self.status();
        let idle = idle(&status);
        if idle < STUCK { Ok(status) } else { Err(idle) }
    }

    /// Takes a client in, for whom another one may have to go.
    async fn receive(self: &Arc<Self>, stream: TcpStream, client: IpAddr) {
        loop {
            let wait = self.crowd().wait(client, clock::now());
            let Some(until) = wait else { break };
            tokio::time::sleep_until(until.into()).await;
        }
        let gone = {
            let mut crowd = self.crowd();
            let visit = Visit {
                desk: Arc::clone(self),
                number: crowd.next(),
            };
            // It does nothing before this task rests, and leaves by the same lock.
            let task = tokio::spawn(connection(stream, visit));
            crowd.enter(client, clock::now(), task.abort_handle())
        };
        send_away(gone);
        // A question that is here already is read before the next client comes in.
        tokio::task::yield_now().await;
    }
}

/// A connection's place; leaves it when dropped.
struct Visit {
    desk: Arc<Desk>,
    number: u64,
}

impl Visit {
    /// The question is here.
    fn ask(&self) {
        let gone = self.desk.crowd().ask(self.number);
        send_away(gone);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.desk.crowd().leave(self.number);
    }
}

fn send_away(gone: Option<AbortHandle>) {
    if let Some(task) = gone {
        tracing::debug!("too many slow http clients, the oldest is sent away");
        task.abort();
    }
}

/// Answers until the task is aborted. On a runtime of one thread.
///
/// # Errors
/// When the listener cannot be handed to the executor.
pub async fn serve(listener: StdListener, source: Source, feed: Arc<Feed>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let desk = Arc::new(Desk {
        source,
        feed,
        recent: Mutex::default(),
        crowd: Mutex::default(),
        metrics: Press::default(),
        json: Press::default(),
        table: Press::default(),
        events: Press::default(),
    });
    loop {
        match listener.accept().await {
            Ok((stream, client)) => desk.receive(stream, client.ip()).await,
            Err(error) => {
                tracing::debug!(%error, "metrics listener cannot accept");
                let gone = desk.crowd().thin_out();
                match gone {
                    Some(task) => {
                        task.abort();
                        tokio::task::yield_now().await;
                    }
                    None => tokio::time::sleep(ACCEPT_REST).await,
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, visit: Visit) {
    let visit = &visit;
    let service = service_fn(move |request: Request<Incoming>| async move {
        visit.ask();
        Ok::<_, Infallible>(respond(&request, &visit.desk).await)
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

async fn respond(request: &Request<Incoming>, desk: &Arc<Desk>) -> Response<Full<Bytes>> {
    let page = if !matches!(*request.method(), Method::GET | Method::HEAD) {
        Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
    } else if let Some(host) = foreign(request, desk) {
        Page::text(StatusCode::MISDIRECTED_REQUEST, misdirected(&host))
    } else {
        page(request.uri().path(), desk).await
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

/// The name that a browser asked for, if it is not this node's. Probes tell nothing worth the
/// trouble, and some of those who ask for them call themselves browsers.
fn foreign(request: &Request<Incoming>, desk: &Desk) -> Option<String> {
    if matches!(request.uri().path(), "/livez" | "/readyz" | "/healthz") {
        return None;
    }
    let (headers, target) = (request.headers(), request.uri().host());
    // Most are well without a look at the state.
    host::foreign(headers, target, &[])?;
    let status = desk.status();
    host::foreign(headers, target, &status.process.measures.names)
}

fn misdirected(host: &str) -> String {
    let shown: String = host.chars().filter(|c| !c.is_control()).take(253).collect();
    format!(
        "This node doesn't know itself as {shown:?}.\n\n\
         A page from elsewhere could have its own name point here, and read this with your browser.\n\
         Ask by address, by \"localhost\" or by the node's name; further names stand in lb.toml:\n\n\
         [metrics]\nnames = [\"lb.example.com\"]\n"
    )
}

struct Page {
    code: StatusCode,
    kind: &'static str,
    body: Bytes,
}

impl Page {
    fn text(code: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            code,
            kind: TEXT,
            body: body.into(),
        }
    }

    const fn ok(kind: &'static str, body: Bytes) -> Self {
        Self {
            code: StatusCode::OK,
            kind,
            body,
        }
    }
}

async fn page(path: &str, desk: &Arc<Desk>) -> Page {
    let of = Arc::clone(desk);
    match path {
        "/metrics" => {
            let write = move || families::render(&of.status()).into();
            printed(metrics::CONTENT_TYPE, &desk.metrics, write).await
        }
        "/livez" => match desk.living().await {
            Ok(_) => Page::text(StatusCode::OK, "ok\n"),
            Err(idle) => stuck(idle),
        },
        "/readyz" | "/healthz" => match desk.living().await {
            Ok(status) => ready(&status),
            Err(idle) => stuck(idle),
        },
        "/" | "/status" => Page::ok(HTML, status_page::page().into()),
        "/status.txt" => {
            let write = move || table::render(&of.status()).into();
            printed(TEXT, &desk.table, write).await
        }
        "/status.json" => printed(JSON, &desk.json, move || json(&*of.status())).await,
        "/events.json" => {
            let write = move || {
                json(&Events {
                    v: FORMAT_VERSION,
                    events: of.feed.last(EVENTS_SHOWN, &Wanted::default()).0,
                })
            };
            printed(JSON, &desk.events, write).await
        }
        _ => Page::text(
            StatusCode::NOT_FOUND,
            "/ /metrics /livez /readyz /healthz /status.json /status.txt /events.json\n",
        ),
    }
}

/// A page from its press.
async fn printed<F>(kind: &'static str, press: &Press, write: F) -> Page
where
    F: FnOnce() -> Bytes + Send + 'static,
{
    match press.page(write).await {
        Ok(body) => Page::ok(kind, body),
        Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// What happened last, oldest first.
#[derive(Debug, Serialize)]
struct Events {
    v: u32,
    events: Vec<Event>,
}

/// A status and events are always JSON: what cannot be written is said in its place.
fn json(value: &impl Serialize) -> Bytes {
    match serde_json::to_string_pretty(value) {
        Ok(body) => (body + "\n").into(),
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()).into(),
    }
}

fn ready(status: &Status) -> Page {
    match status.not_ready() {
        None => Page::text(StatusCode::OK, "ok\n"),
        Some(reason) => Page::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    }
}

fn stuck(idle: Duration) -> Page {
    let seconds = idle.as_secs();
    Page::text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the control loop has been stuck for {seconds} s\n"),
    )
}
