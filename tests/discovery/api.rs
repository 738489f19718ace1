//! A Kubernetes API as far as EndpointSlices go: one state behind several servers on loopback, over
//! TLS, with a history that watches are served from.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority with the files that its clients and servers need.
pub(crate) struct Pki {
    dir: PathBuf,
    server: Arc<ServerConfig>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lbd-pki-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = |names: &[&str]| {
            let key = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = rcgen::CertificateParams::new(names).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (cert, key) = leaf(&["kubernetes.default.svc"]);
        let (client, client_key) = leaf(&["lbd"]);
        for (name, text) in [
            ("ca.crt", ca_cert.pem()),
            ("lbd.crt", client.pem()),
            ("lbd.key", client_key.serialize_pem()),
            ("token", "secret-1\n".to_owned()),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca_cert.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            dir,
            server: Arc::new(server),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

/// A request that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) server: SocketAddr,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) certificate: bool,
}

impl Request {
    pub(crate) fn is_watch(&self) -> bool {
        self.path.contains("watch=1")
    }

    /// The version that a watch begins from.
    pub(crate) fn version(&self) -> Option<u64> {
        let (_, rest) = self.path.split_once("resourceVersion=")?;
        rest.split('&').next()?.parse().ok()
    }
}

/// How a server answers a watch from a version that it has no history for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TooOld {
    #[default]
    ByStatus,
    ByEvent,
}

#[derive(Default)]
struct State {
    slices: BTreeMap<String, String>,
    version: u64,
    /// Lines with the versions they led to.
    history: Vec<(u64, String)>,
    /// Watches from before this have no history.
    oldest: u64,
    too_old: TooOld,
    /// Said in place of any answer.
    refusal: Option<(u16, String)>,
    /// Said in place of a list.
    list: Option<String>,
    seen: Vec<Request>,
    streams: Vec<(SocketAddr, TcpStream)>,
    down: Vec<SocketAddr>,
    handshakes_failed: usize,
}

/// The state behind the servers.
#[derive(Clone, Default)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more API server.
    pub(crate) fn server(&self, pki: &Pki) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cluster, config) = (self.clone(), Arc::clone(&pki.server));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if cluster.state().down.contains(&address) {
                    continue;
                }
                let clone = stream.try_clone().unwrap();
                cluster.state().streams.push((address, clone));
                let (cluster, config) = (cluster.clone(), Arc::clone(&config));
                std::thread::spawn(move || cluster.serve(address, stream, config));
            }
        });
        address
    }

    /// A slice with endpoints, each ready or not, at one port.
    pub(crate) fn set(&self, name: &str, port: u16, endpoints: &[(&str, bool)]) {
        let mut state = self.state();
        let kind = if state.slices.contains_key(name) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.version += 1;
        let slice = slice(name, state.version, port, endpoints);
        state.slices.insert(name.to_owned(), slice.clone());
        state.push(kind, &slice);
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.version += 1;
        state.slices.remove(name).unwrap();
        let slice = slice(name, state.version, 1, &[]);
        state.push("DELETED", &slice);
    }

    pub(crate) fn bookmark(&self) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let slice = slice("", state.version, 1, &[]);
        state.push("BOOKMARK", &slice);
        state.version
    }

    /// A line as it is, to all who watch.
    pub(crate) fn say(&self, line: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.history.push((version, line.to_owned()));
    }

    /// What has happened so far is no longer told.
    pub(crate) fn forget_history(&self, too_old: TooOld) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.history.clear();
        state.too_old = too_old;
    }

    pub(crate) fn refuse(&self, status: u16, message: &str) {
        let body = format!(r#"{{"kind": "Status", "code": {status}, "message": "{message}"}}"#);
        self.state().refusal = Some((status, body));
    }

    pub(crate) fn list_as(&self, body: Option<&str>) {
        self.state().list = body.map(str::to_owned);
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        for (_, stream) in self.state().streams.drain(..) {
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }

    /// That server is dead from now on.
    pub(crate) fn take_down(&self, server: SocketAddr) {
        let mut state = self.state();
        state.down.push(server);
        for (_, stream) in state.streams.iter().filter(|(of, _)| *of == server) {
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.state().seen.clone()
    }

    pub(crate) fn watches(&self) -> Vec<Request> {
        self.seen().into_iter().filter(Request::is_watch).collect()
    }

    pub(crate) fn lists(&self) -> usize {
        self.seen().iter().filter(|r| !r.is_watch()).count()
    }

    pub(crate) fn handshakes_failed(&self) -> usize {
        self.state().handshakes_failed
    }

    fn serve(&self, server: SocketAddr, stream: TcpStream, config: Arc<ServerConfig>) {
        let connection = ServerConnection::new(config).unwrap();
        let mut tls = StreamOwned::new(connection, stream);
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            match tls.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) => return,
                Err(_) => {
                    if tls.conn.is_handshaking() {
                        self.state().handshakes_failed += 1;
                    }
                    return;
                }
            }
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let request = Request {
                server,
                path: text.split(' ').nth(1).unwrap().to_owned(),
                authorization: text.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    let it = name.eq_ignore_ascii_case("authorization");
                    it.then(|| value.to_owned())
                }),
                certificate: tls.conn.peer_certificates().is_some(),
            };
            self.state().seen.push(request.clone());
            if self.answer(&mut tls, &request).is_err() {
                return;
            }
        }
    }

    fn answer(&self, out: &mut impl Write, request: &Request) -> std::io::Result<()> {
        let whole = |out: &mut dyn Write, status: u16, body: &str| {
            let length = body.len();
            write!(
                out,
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            out.flush()
        };
        if let Some((status, body)) = self.state().refusal.clone() {
            return whole(out, status, &body);
        }
        if !request.is_watch() {
            let state = self.state();
            let items: Vec<&str> = state.slices.values().map(String::as_str).collect();
            let list = format!(
                r#"{{"kind": "EndpointSliceList", "metadata": {{"resourceVersion": "{}"}}, "items": [{}]}}"#,
                state.version,
                items.join(", ")
            );
            let list = state.list.clone().unwrap_or(list);
            drop(state);
            return whole(out, 200, &list);
        }
        let mut from = request.version().unwrap();
        let (oldest, too_old) = {
            let state = self.state();
            (state.oldest, state.too_old)
        };
        const GONE: &str =
            r#"{"kind": "Status", "code": 410, "message": "too old resource version"}"#;
        if from < oldest && too_old == TooOld::ByStatus {
            return whole(out, 410, GONE);
        }
        write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        out.flush()?;
        if from < oldest {
            line(out, &format!(r#"{{"type": "ERROR", "object": {GONE}}}"#))?;
            write!(out, "0\r\n\r\n")?;
            return out.flush();
        }
        loop {
            let news: Vec<(u64, String)> = {
                let state = self.state();
                let newer = state.history.iter().filter(|(version, _)| *version > from);
                newer.cloned().collect()
            };
            for (version, text) in news {
                line(out, &text)?;
                from = version;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl State {
    fn push(&mut self, kind: &str, slice: &str) {
        let line = format!(r#"{{"type": "{kind}", "object": {slice}}}"#);
        self.history.push((self.version, line));
    }
}

/// In two chunks, as a proxy on the way may cut it.
fn line(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    let text = format!("{text}\n");
    let (one, two) = text.split_at(text.len() / 2);
    for part in [one, two] {
        write!(out, "{:x}\r\n{part}\r\n", part.len())?;
        out.flush()?;
    }
    Ok(())
}

fn slice(name: &str, version: u64, port: u16, endpoints: &[(&str, bool)]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(ip, ready)| {
            format!(r#"{{"addresses": ["{ip}"], "conditions": {{"ready": {ready}}}}}"#)
        })
        .collect();
    format!(
        r#"{{"metadata": {{"name": "{name}", "resourceVersion": "{version}"}}, "addressType": "IPv4",
            "endpoints": [{}], "ports": [{{"name": "https", "port": {port}, "protocol": "TCP"}}]}}"#,
        endpoints.join(", ")
    )
    .replace('\n', " ")
}
