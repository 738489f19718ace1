//! The values of `check`: what one probe does and how its results count.

use std::path::PathBuf;
use std::time::Duration;

use crate::units::Count;

/// How servers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What one probe does.
    pub kind: CheckKind,
    /// `interval` when steady up, default 2s (preset 1s).
    pub interval: Duration,
    /// `fast-interval` in transition, default interval/4 (preset 250ms).
    pub fast_interval: Duration,
    /// `down-interval` when steady down, default 1s.
    pub down_interval: Duration,
    /// `timeout` of one probe, default 2s (preset 500ms).
    pub timeout: Duration,
    /// `rise`, default 2.
    pub rise: Count,
    /// `fall`, default 2.
    pub fall: Count,
}

/// What one probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// `"tcp"`: connect.
    Tcp,
    /// `"tls"`: connect and complete a handshake.
    Tls(TlsCheck),
    /// `"http"`: connect, one GET.
    Http(HttpCheck),
    /// `"https"` and the preset `"kube-apiserver"`: handshake, one GET.
    Https(TlsCheck, HttpCheck),
}

/// The TLS half of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCheck {
    /// `ca-file`; `None`: with `verify` true it is a config error, except for the preset, which
    /// uses /etc/kubernetes/pki/ca.crt if present at start and else checks unverified and says so.
    pub ca_file: Option<PathBuf>,
    /// `server-name` for SNI and verification; `None`: the server's IP address.
    pub server_name: Option<String>,
    /// `verify`: whether the certificate is verified.
    pub verify: Verify,
    /// `client-cert` and `client-key`; never shown to a server that is not verified.
    pub client: Option<ClientFiles>,
}

/// Who a check says it is in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// `client-cert`: a chain in PEM, the client's own certificate first.
    pub cert: PathBuf,
    /// `client-key`: its private key in PEM.
    pub key: PathBuf,
}

/// Whether a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Against `ca_file`.
    Required,
    /// Not at all.
    Off,
    /// The preset: against `ca_file` or the cluster's CA if that file exists, else unverified.
    IfCaPresent,
}

/// The HTTP half of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `path`, default "/" (preset "/readyz").
    pub path: String,
    /// `host` header; `None`: the server's address.
    pub host: Option<String>,
    /// `expect-status`: codes that count as ready, default 200.
    pub expect_status: Vec<u16>,
    /// Preset only: 401 and 403 count as ready too, with a warning.
    pub unauthorized_is_ready: bool,
    /// `token-file`: a bearer token; never sent to a server that is not verified.
    pub token_file: Option<PathBuf>,
}
