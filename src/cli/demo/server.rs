//! A stand-in for kube-apiserver: TLS, `GET /readyz` says ok, any other path names the server.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::net::netns::Namespace;

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct TlsServer {
    _stop: watch::Sender<()>,
}

impl TlsServer {
    /// Starts one inside a namespace.
    ///
    /// # Errors
    /// When the address can't be bound or no thread be started.
    pub fn start(
        host: &Namespace,
        address: SocketAddr,
        name: &str,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let listener = host.run(|| TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = watch::channel(());
        let body = Bytes::from(format!("{name}\n"));
        host.thread(name, move || serve(listener, &body, tls, stopped))?;
        Ok(Self { _stop: stop })
    }
}

fn serve(
    listener: TcpListener,
    name: &Bytes,
    tls: Arc<ServerConfig>,
    mut stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // Out of descriptors, or a client that left: the next may do better.
                    Err(_) => continue,
                },
                _ = stopped.changed() => return Ok(()),
            };
            let (acceptor, name) = (acceptor.clone(), name.clone());
            tokio::spawn(async move {
                if stream.set_nodelay(true).is_err() {
                    return;
                }
                // A client that goes away in the middle is the client's own affair.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let answers = service_fn(|request| answer(request, name.clone()));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answers)
                    .await;
                drop(served);
            });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    name: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/readyz" | "/healthz" | "/livez" => Bytes::from_static(b"ok"),
        _ => name,
    };
    Ok(Response::new(Full::new(body)))
}
