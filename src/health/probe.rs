//! One probe of one server: connect, perhaps a TLS handshake, perhaps one GET, all within one
//! timeout. Says what it found; what that means over time is `fsm`'s business.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant as Deadline, timeout_at};
use tokio_rustls::client::TlsStream;

use super::fsm::Health;
use super::patience::patiently;
use super::tls::{Tls, TlsSetupError};
use crate::config::model::{Check, CheckKind, HttpCheck};
use crate::net::{clock, source};

/// The most of an answer's body that is read, bytes: /readyz lists its failing parts there.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The most of an answer's head, bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The longest reason shown, characters.
const REASON_CHARS_MAX: usize = 120;

const NO_ANSWER: &str = "no http answer in time";

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// Takes clients.
    Ready,
    /// Alive, but says that it takes no clients, or cannot be trusted.
    NotReady(String),
    /// No sign of life, or a broken one.
    Unresponsive(String),
}

impl Verdict {
    /// Whether this counts as a success.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Without the reason.
    #[must_use]
    pub const fn health(&self) -> Health {
        match self {
            Self::Ready => Health::Ready,
            Self::NotReady(_) => Health::NotReady,
            Self::Unresponsive(_) => Health::Unresponsive,
        }
    }

    /// Why not ready.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::NotReady(reason) | Self::Unresponsive(reason) => Some(reason),
        }
    }

    fn not_ready(reason: &str) -> Self {
        Self::NotReady(reason.chars().take(REASON_CHARS_MAX).collect())
    }

    fn unresponsive(reason: &str) -> Self {
        Self::Unresponsive(reason.chars().take(REASON_CHARS_MAX).collect())
    }
}

/// A finished probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it found.
    pub verdict: Verdict,
    /// The answer was 401 or 403 and counted as ready.
    pub unauthorized: bool,
}

impl From<Verdict> for Report {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            unauthorized: false,
        }
    }
}

/// How one server is probed, with its files read and its TLS set up.
#[derive(Debug, Clone)]
pub struct Probe {
    address: SocketAddr,
    timeout: Duration,
    tls: Option<Tls>,
    http: Option<HttpCheck>,
    source: Option<IpAddr>,
    header: &'static [u8],
}

impl Probe {
    /// Prepares probes of `address`. `cluster_ca` is [`super::tls::CLUSTER_CA`] outside tests.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn new(
        check: &Check,
        address: SocketAddr,
        cluster_ca: &Path,
    ) -> Result<Self, TlsSetupError> {
        let (tls, http) = match &check.kind {
            CheckKind::Tcp => (None, None),
            CheckKind::Tls(tls) => (Some(tls), None),
            CheckKind::Http(http) => (None, Some(http)),
            CheckKind::Https(tls, http) => (Some(tls), Some(http)),
        };
        let protocols: &[&str] = if http.is_some() { &["http/1.1"] } else { &[] };
        Ok(Self {
            address,
            timeout: check.timeout,
            tls: tls
                .map(|tls| Tls::open(tls, protocols, cluster_ca))
                .transpose()?,
            http: http.cloned(),
            source: None,
            header: &[],
        })
    }

    /// Connects from this local address.
    #[must_use]
    pub fn from_source(mut self, source: Option<IpAddr>) -> Self {
        self.source = source;
        self
    }

    /// Sends these bytes before anything else: the header that the server expects.
    #[must_use]
    pub fn beginning_with(mut self, header: &'static [u8]) -> Self {
        self.header = header;
        self
    }

    /// Whether it speaks TLS without knowing to whom.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.verified)
    }

    /// How long a probe may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Probes once; never takes longer than the check's timeout.
    pub async fn run(&self) -> Report {
        let end = Deadline::from_std(clock::now() + self.timeout);
        let tcp = match patiently(end, || self.connect()).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Verdict::unresponsive(&io_reason(&error)).into(),
            Err(_elapsed) => return Verdict::unresponsive("connect timed out").into(),
        };
        let Some(tls) = &self.tls else {
            return match &self.http {
                Some(http) => timeout_at(end, self.ask(http, tcp))
                    .await
                    .unwrap_or_else(|_elapsed| Verdict::unresponsive(NO_ANSWER).into()),
                None => Verdict::Ready.into(),
            };
        };
        let mut stream = match timeout_at(end, self.handshake(tls, tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return handshake_verdict(&error).into(),
            Err(_elapsed) => return Verdict::unresponsive("tls handshake timed out").into(),
        };
        if let Some(http) = &self.http {
            // A kernel completes TCP for a process that hangs; only an answer in TLS proves life.
            return timeout_at(end, self.ask(http, stream))
                .await
                .unwrap_or_else(|_elapsed| Verdict::not_ready(NO_ANSWER).into());
        }
        if let Ok(Err(error)) = timeout_at(end, stream.shutdown()).await {
            tracing::debug!(%error, server = %self.address, "probe was not closed in order");
        }
        Verdict::Ready.into()
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut tcp = match self.source {
            None => TcpStream::connect(self.address).await?,
            Some(ip) => {
                let socket = match self.address {
                    SocketAddr::V4(_) => TcpSocket::new_v4(),
                    SocketAddr::V6(_) => TcpSocket::new_v6(),
                }?;
                source::bind(&socket, ip).map_err(not_here)?;
                socket.connect(self.address).await?
            }
        };
        if !self.header.is_empty() {
            tcp.write_all(self.header).await?;
        }
        Ok(tcp)
    }

    async fn handshake(&self, tls: &Tls, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = tls
            .server_name
            .clone()
            .unwrap_or_else(|| ServerName::from(self.address.ip()));
        tls.connector.connect(name, tcp).await
    }

    /// One GET; the connection is driven beside it and closed with it.
    async fn ask<S>(&self, http: &HttpCheck, stream: S) -> Report
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(request) = self.request(http) else {
            return Verdict::not_ready("path or host of the check is no valid http").into();
        };
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut sender, connection) = match handshake {
            Ok(pair) => pair,
            Err(error) => return http_verdict(&error).into(),
        };
        let mut connection = pin!(connection);
        let mut answer = pin!(async {
            let response = sender.send_request(request).await?;
            Ok(judge(http, self.tls.is_some(), response).await)
        });
        let answered = tokio::select! {
            answered = &mut answer => answered,
            // The connection may end first with the answer already read.
            _ended = &mut connection => answer.await,
        };
        answered.unwrap_or_else(|error: hyper::Error| http_verdict(&error).into())
    }

    fn request(&self, http: &HttpCheck) -> Option<Request<Empty<Bytes>>> {
        let host = http
            .host
            .clone()
            .unwrap_or_else(|| self.address.to_string());
        Request::builder()
            .method(Method::GET)
            .uri(&http.path)
            .header(HOST, host)
            .header(
                USER_AGENT,
                concat!("lbd/", env!("CARGO_PKG_VERSION"), " (health check)"),
            )
            .header(CONNECTION, "close")
            .body(Empty::new())
            .ok()
    }
}

async fn judge(http: &HttpCheck, over_tls: bool, response: Response<Incoming>) -> Report {
    let status = response.status().as_u16();
    if http.expect_status.contains(&status) {
        return Verdict::Ready.into();
    }
    if over_tls && http.unauthorized_is_ready && matches!(status, 401 | 403) {
        return Report {
            verdict: Verdict::Ready,
            unauthorized: true,
        };
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
    let failing = match body.collect().await {
        Ok(body) => failing_parts(&String::from_utf8_lossy(&body.to_bytes())),
        Err(_too_long_or_cut) => String::new(),
    };
    Verdict::not_ready(&format!("status {status}{failing}")).into()
}

/// ` (etcd, poststarthook/start-x)` out of the `[-]etcd failed: …` lines of kube-apiserver.
fn failing_parts(body: &str) -> String {
    let parts: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next())
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

/// A server that answers in TLS is alive, even if what it says cannot be accepted.
fn handshake_verdict(error: &io::Error) -> Verdict {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(what)) => {
            Verdict::not_ready(&format!("certificate not accepted: {what:?}"))
        }
        Some(other) => Verdict::not_ready(&format!("tls: {other}")),
        None => Verdict::unresponsive(&format!("tls handshake: {}", io_reason(error))),
    }
}

fn http_verdict(error: &hyper::Error) -> Verdict {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(present) = cause {
        if let Some(io) = present.downcast_ref::<io::Error>() {
            return Verdict::unresponsive(&format!("http: {}", io_reason(io)));
        }
        cause = present.source();
    }
    if error.is_parse() {
        Verdict::not_ready("the answer is no http")
    } else {
        Verdict::unresponsive("http: connection closed without an answer")
    }
}

/// Without the kernel's number, by which a connect says that it has no port.
fn not_here(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        io::Error::other("source address not on this machine")
    } else {
        error
    }
}

/// The usual errors in few words; whatever else a kernel says is shown as it says it.
fn io_reason(error: &io::Error) -> String {
    const WORDS: [(io::ErrorKind, &str); 7] = [
        (io::ErrorKind::AddrNotAvailable, "no local port or address"),
        (io::ErrorKind::ConnectionRefused, "connection refused"),
        (io::ErrorKind::ConnectionReset, "connection reset"),
        (io::ErrorKind::UnexpectedEof, "connection closed"),
        (io::ErrorKind::TimedOut, "connect timed out"),
        (io::ErrorKind::HostUnreachable, "no route to host"),
        (io::ErrorKind::NetworkUnreachable, "network unreachable"),
    ];
    let known = WORDS.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_local_ports_is_not_called_a_wrong_source() {
        let error = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        assert_eq!(io_reason(&error), "no local port or address");
    }
}
