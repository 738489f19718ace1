//! One probe of one server: connect, perhaps a TLS handshake, perhaps one GET (`http`), all within
//! one timeout. Says what it found; what that means over time is `fsm`'s business.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant as Deadline, timeout_at};
use tokio_rustls::client::TlsStream;

use super::files::Wanted;
use super::fsm::Health;
use super::http::{self, Asked};
use super::patience::patiently;
use super::setup::{Setup, TlsSetupError};
use super::tls::Tls;
use crate::config::model::{Check, CheckKind, HttpCheck};
use crate::net::{clock, source};

/// The longest reason shown, characters.
const REASON_CHARS_MAX: usize = 120;
/// What a server that nobody knows to answer an end of stream gets for it; and what a server gets
/// to refuse a certificate, which in TLS 1.3 it does after the client's handshake.
const GRACE: Duration = Duration::from_millis(100);

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

    pub(super) fn not_ready(reason: &str) -> Self {
        Self::NotReady(reason.chars().take(REASON_CHARS_MAX).collect())
    }

    pub(super) fn unresponsive(reason: &str) -> Self {
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

/// How one server is probed, with its files read and its TLS set up. Those that read the same files
/// share what was made of them, and a change of the files is seen by the next probe.
#[derive(Debug)]
pub struct Probe {
    address: SocketAddr,
    timeout: Duration,
    tls: Option<Tls>,
    http: Option<HttpCheck>,
    source: Option<IpAddr>,
    header: &'static [u8],
    /// Whether this server, while it listened, has ever answered an end of stream.
    answers: AtomicBool,
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
        let wanted = tls.map(|tls| Wanted {
            tls: tls.clone(),
            token_file: http.and_then(|http| http.token_file.clone()),
            protocols: if http.is_some() { &["http/1.1"] } else { &[] },
            cluster_ca: cluster_ca.to_owned(),
        });
        Ok(Self {
            address,
            timeout: check.timeout,
            tls: wanted
                .map(|wanted| Tls::open(wanted, address.ip()))
                .transpose()?,
            http: http.cloned(),
            source: None,
            header: &[],
            answers: AtomicBool::new(false),
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
        self.tls.as_ref().is_some_and(|tls| !tls.present().verified)
    }

    /// Whether it says who it is, by a certificate or a token.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            let present = tls.present();
            present.token.is_some() || present.shows_certificate
        })
    }

    /// How long a probe may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Probes once; never takes longer than the check's timeout, and a look at changed files.
    pub async fn run(&self) -> Report {
        if let Some(tls) = &self.tls {
            tls.freshen().await;
        }
        let end = Deadline::from_std(clock::now() + self.timeout);
        let report = self.run_until(end).await;
        if let Some(tls) = &self.tls
            && !report.verdict.is_ready()
        {
            // Whatever was agreed on with it before shall not be the reason.
            tls.forget_session();
        }
        report
    }

    async fn run_until(&self, end: Deadline) -> Report {
        let tcp = match patiently(end, || self.connect()).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    // Nobody listens: what listens there next may be something else.
                    self.answers.store(false, Ordering::Relaxed);
                }
                return Verdict::unresponsive(&io_reason(&error)).into();
            }
            Err(_elapsed) => return Verdict::unresponsive("connect timed out").into(),
        };
        let Some(tls) = &self.tls else {
            return match &self.http {
                Some(http) => timeout_at(end, http::ask(&self.asked(http, None), tcp))
                    .await
                    .unwrap_or_else(|_elapsed| Verdict::unresponsive(NO_ANSWER).into()),
                None => self.accepted(tcp, end).await.into(),
            };
        };
        let (stream, setup) = match timeout_at(end, tls.handshake(tcp, clock::now())).await {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return handshake_verdict(&error).into(),
            Err(_elapsed) => return Verdict::unresponsive("tls handshake timed out").into(),
        };
        let Some(http) = &self.http else {
            return self.agreed(stream, end).await.into();
        };
        // A kernel completes TCP for a process that hangs; only an answer in TLS proves life.
        timeout_at(end, http::ask(&self.asked(http, Some(&setup)), stream))
            .await
            .unwrap_or_else(|_elapsed| Verdict::not_ready(NO_ANSWER).into())
    }

    /// The end of a TCP check. A kernel completes connections for a process that hangs; a process
    /// that takes one and finds it ended closes it too, or answers what it read. Some servers
    /// never do: one of which no answer was ever seen is believed without.
    async fn accepted(&self, mut tcp: TcpStream, end: Deadline) -> Verdict {
        let known = self.answers.load(Ordering::Relaxed);
        let until = if known {
            end
        } else {
            end.min(Deadline::from_std(clock::now() + GRACE))
        };
        let answer = async {
            // An end or a reset of the server may be here already: an answer as well.
            if let Err(error) = tcp.shutdown().await {
                tracing::debug!(%error, server = %self.address, "server was first to close");
            }
            tcp.read(&mut [0; 64]).await
        };
        if let Ok(_any_answer) = timeout_at(until, answer).await {
            self.answers.store(true, Ordering::Relaxed);
            return Verdict::Ready;
        }
        // It shall not keep the half that nobody will ever write to.
        if let Err(error) = tcp.set_zero_linger() {
            tracing::debug!(%error, server = %self.address, "probe is closed in order");
        }
        if known {
            Verdict::unresponsive("connected, but the server didn't take the connection")
        } else {
            Verdict::Ready
        }
    }

    /// The end of a TLS check: the server has a moment to refuse, and to give what shortens the
    /// next handshake.
    async fn agreed(&self, mut stream: TlsStream<TcpStream>, end: Deadline) -> Verdict {
        let until = end.min(Deadline::from_std(clock::now() + GRACE));
        let word = async {
            stream.shutdown().await?;
            stream.read(&mut [0; 64]).await
        };
        match timeout_at(until, word).await {
            Ok(Err(error)) => match tls_error(&error) {
                Some(refused) => tls_verdict(refused),
                // It has shown that it lives.
                None => Verdict::Ready,
            },
            Ok(Ok(_)) | Err(_) => Verdict::Ready,
        }
    }

    fn asked<'a>(&'a self, http: &'a HttpCheck, setup: Option<&'a Setup>) -> Asked<'a> {
        Asked {
            check: http,
            address: self.address,
            over_tls: setup.is_some(),
            token: setup.and_then(|setup| setup.token.as_ref()),
        }
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
}

/// A server that answers in TLS is alive, even if what it says cannot be accepted.
fn handshake_verdict(error: &io::Error) -> Verdict {
    match tls_error(error) {
        Some(error) => tls_verdict(error),
        None => Verdict::unresponsive(&format!("tls handshake: {}", io_reason(error))),
    }
}

/// What TLS has against it, if it is that.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

pub(super) fn tls_verdict(error: &rustls::Error) -> Verdict {
    if let rustls::Error::InvalidCertificate(what) = error {
        return Verdict::not_ready(&format!("certificate not accepted: {what:?}"));
    }
    Verdict::not_ready(&format!("tls: {error}"))
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
pub(super) fn io_reason(error: &io::Error) -> String {
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
