//! One connection to one API server: verified, then requests one after the other, the last of
//! them a watch whose lines are read as they come.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Cluster;
use super::slices::{SliceError, refusal};
use super::trust::{Trust, TrustError};
use crate::net::{source, tcp};

/// The largest list, bytes.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most that is read of a refusal, bytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// The longest line of a watch, bytes.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// The largest head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A server that answers no keepalive probe is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why a connection, or what came through it, is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is too long or was cut")]
    Body,
    #[error("connection cut")]
    Cut,
    #[error("service, namespace or token is no valid http")]
    Request,
    #[error(transparent)]
    Said(#[from] SliceError),
}

/// A verified connection.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    host: String,
    authorization: Option<HeaderValue>,
    patience: Duration,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Connects to one server and verifies it.
    pub(super) async fn open(cluster: &Cluster, server: SocketAddr) -> Result<Self, ClientError> {
        let trust = Trust::read(&cluster.service)?;
        let authorization = match &trust.authorization {
            None => None,
            Some(text) => {
                let mut value = HeaderValue::from_str(text).map_err(|_bad| ClientError::Request)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let patience = cluster.service.timeout;
        let opened = async {
            let tcp = connect(cluster, server).await?;
            let tls = trust.connector.connect(trust.name.clone(), tcp).await?;
            let io = TokioIo::new(tls);
            let mut builder = http1::Builder::new();
            let (sender, connection) = builder.max_buf_size(HEAD_BYTES_MAX).handshake(io).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to an api server ended");
                }
            });
            Ok::<_, ClientError>((sender, driver))
        };
        let opened = timeout(patience, opened).await;
        let (sender, driver) = opened.map_err(|_elapsed| ClientError::Late)??;
        Ok(Self {
            sender,
            driver,
            host: server.to_string(),
            authorization,
            patience,
        })
    }

    /// GET of something small, as a whole.
    pub(super) async fn get(&mut self, path: &str) -> Result<Bytes, ClientError> {
        let patience = self.patience;
        let all = async {
            let response = self.ask(path).await?;
            body(response, LIST_BYTES_MAX).await
        };
        let all = timeout(patience, all).await;
        all.map_err(|_elapsed| ClientError::Late)?
    }

    /// GET of something that goes on.
    pub(super) async fn watch(&mut self, path: &str) -> Result<Lines, ClientError> {
        let patience = self.patience;
        let response = timeout(patience, self.ask(path)).await;
        let response = response.map_err(|_elapsed| ClientError::Late)??;
        Ok(Lines {
            body: response.into_body(),
            buffer: Vec::new(),
        })
    }

    async fn ask(&mut self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("lbd/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(Empty::new())
            .map_err(|_bad| ClientError::Request)?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let why = body(response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Err(refusal(status, &why).into())
    }
}

async fn connect(cluster: &Cluster, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if let Some(ip) = cluster.source.fixed_for(server.ip()) {
        source::bind(&socket, ip)?;
    }
    let mut stream = socket.connect(server).await?;
    tcp::set_keepalive(&stream, KEEPALIVE)?;
    if !cluster.header.is_empty() {
        stream.write_all(cluster.header).await?;
    }
    Ok(stream)
}

async fn body(response: Response<Incoming>, most: usize) -> Result<Bytes, ClientError> {
    let collected = Limited::new(response.into_body(), most).collect().await;
    let collected = collected.map_err(|_long_or_cut| ClientError::Body)?;
    Ok(collected.to_bytes())
}

/// The lines of a watch.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at an end in order.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ClientError::Body);
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None | Some(Err(_)) => return Err(ClientError::Cut),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
