//! The HTTP half of a probe: one GET and what its answer means.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::probe::{Report, Verdict, io_reason, tls_error, tls_verdict};
use crate::config::model::HttpCheck;

/// The most of an answer's body that is read, bytes: /readyz lists its failing parts there.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The most of an answer's head, bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What is asked of whom.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) check: &'a HttpCheck,
    pub(super) address: SocketAddr,
    pub(super) over_tls: bool,
    /// The `Authorization` header, for a verified server alone.
    pub(super) token: Option<&'a HeaderValue>,
}

/// One GET; the connection is driven beside it and closed with it.
pub(super) async fn ask<S>(asked: &Asked<'_>, stream: S) -> Report
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(request) = request(asked) else {
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
        Ok(judge(asked, response).await)
    });
    let answered = tokio::select! {
        answered = &mut answer => answered,
        // The connection may end first with the answer already read.
        _ended = &mut connection => answer.await,
    };
    answered.unwrap_or_else(|error: hyper::Error| http_verdict(&error).into())
}

fn request(asked: &Asked<'_>) -> Option<Request<Empty<Bytes>>> {
    let http = asked.check;
    let host = http
        .host
        .clone()
        .unwrap_or_else(|| asked.address.to_string());
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&http.path)
        .header(HOST, host)
        .header(
            USER_AGENT,
            concat!("lbd/", env!("CARGO_PKG_VERSION"), " (health check)"),
        )
        .header(CONNECTION, "close");
    if let Some(token) = asked.token {
        request = request.header(AUTHORIZATION, token);
    }
    request.body(Empty::new()).ok()
}

async fn judge(asked: &Asked<'_>, response: Response<Incoming>) -> Report {
    let http = asked.check;
    let status = response.status().as_u16();
    if http.expect_status.contains(&status) {
        return Verdict::Ready.into();
    }
    if asked.over_tls && http.unauthorized_is_ready && matches!(status, 401 | 403) {
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

fn http_verdict(error: &hyper::Error) -> Verdict {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(present) = cause {
        if let Some(io) = present.downcast_ref::<io::Error>() {
            return match tls_error(io) {
                // In TLS 1.3 a server refuses a certificate when the client thinks all is done.
                Some(refused) => tls_verdict(refused),
                None => Verdict::unresponsive(&format!("http: {}", io_reason(io))),
            };
        }
        cause = present.source();
    }
    if error.is_parse() {
        Verdict::not_ready("the answer is no http")
    } else {
        Verdict::unresponsive("http: connection closed without an answer")
    }
}
