//! How one server is spoken to in TLS: with the setup that is in force, and shortened by what the
//! last handshake left.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{Files, Wanted};
use super::session::Session;
use super::setup::Setup;
use crate::config::model::TlsCheck;

pub use super::setup::TlsSetupError;

/// Where kubeadm puts the cluster's CA.
pub const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// A shortened handshake proves that the server lives, but doesn't look at its certificate again:
/// so often it is a whole one.
const WHOLE_EVERY: Duration = Duration::from_secs(60);

/// How one server is spoken to in TLS.
#[derive(Debug)]
pub(super) struct Tls {
    files: Arc<Files>,
    server_name: ServerName<'static>,
    own: Mutex<Option<Own>>,
}

/// What belongs to one server and one reading of the files.
struct Own {
    setup: Arc<Setup>,
    connector: TlsConnector,
    session: Arc<Session>,
    /// When the last whole handshake was made.
    whole: Option<Instant>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("setup", &self.setup)
            .field("whole", &self.whole)
            .finish_non_exhaustive()
    }
}

impl Own {
    fn new(setup: Arc<Setup>) -> Self {
        let session = Arc::new(Session::default());
        let mut config = setup.config.clone();
        config.resumption = Resumption::store(Arc::clone(&session) as _);
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            setup,
            session,
            whole: None,
        }
    }
}

impl Tls {
    /// Reads the files, unless that is done. `wanted_for` is the address that is probed.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub(super) fn open(wanted: Wanted, wanted_for: IpAddr) -> Result<Self, TlsSetupError> {
        let server_name = server_name(&wanted.tls, wanted_for)?;
        Ok(Self {
            files: Files::open(wanted)?,
            server_name,
            own: Mutex::new(None),
        })
    }

    /// What is in force.
    pub(super) fn present(&self) -> Arc<Setup> {
        self.files.present()
    }

    /// Looks at the files, if that is due.
    pub(super) async fn freshen(&self) {
        self.files.freshen().await;
    }

    /// The next handshake is a whole one.
    pub(super) fn forget_session(&self) {
        if let Some(own) = &*self.own() {
            own.session.forget();
        }
    }

    /// One handshake that begins at `now`, and what is in force then.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        now: Instant,
    ) -> io::Result<(TlsStream<TcpStream>, Arc<Setup>)> {
        let (connector, setup) = self.connector(now);
        let stream = connector.connect(self.server_name.clone(), tcp).await?;
        if stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Resumed)
            && let Some(own) = &mut *self.own()
        {
            own.whole = Some(now);
        }
        Ok((stream, setup))
    }

    fn connector(&self, now: Instant) -> (TlsConnector, Arc<Setup>) {
        let setup = self.files.present();
        let mut own = self.own();
        let own = match &mut *own {
            Some(own) if Arc::ptr_eq(&own.setup, &setup) => own,
            other => other.insert(Own::new(Arc::clone(&setup))),
        };
        let due = |whole| now.saturating_duration_since(whole) >= WHOLE_EVERY;
        if own.whole.is_some_and(due) {
            own.session.forget();
        }
        (own.connector.clone(), setup)
    }

    fn own(&self) -> MutexGuard<'_, Option<Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn server_name(tls: &TlsCheck, address: IpAddr) -> Result<ServerName<'static>, TlsSetupError> {
    let Some(name) = &tls.server_name else {
        return Ok(ServerName::from(address));
    };
    ServerName::try_from(name.clone()).map_err(|source| TlsSetupError::ServerName {
        name: name.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Verify;
    use crate::net::clock;
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener};
    use std::path::PathBuf;
    use tokio::io::AsyncReadExt;

    /// Completes each handshake, says one byte and closes.
    fn server() -> SocketAddr {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(tls, tcp);
                stream.write_all(b"x").unwrap_or_default();
                stream.conn.send_close_notify();
                stream.flush().unwrap_or_default();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_whole_handshake_is_made_every_minute() {
        let address = server();
        let wanted = Wanted {
            tls: TlsCheck {
                ca_file: None,
                server_name: None,
                verify: Verify::Off,
                client: None,
            },
            token_file: None,
            protocols: &[],
            cluster_ca: PathBuf::new(),
        };
        let tls = Tls::open(wanted, address.ip()).unwrap();
        let start = clock::now();
        let mut kinds = Vec::new();
        for second in [0, 1, 59, 60, 61, 119, 200] {
            let tcp = TcpStream::connect(address).await.unwrap();
            let now = start + Duration::from_secs(second);
            let (mut stream, _) = tls.handshake(tcp, now).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            kinds.push((second, resumed));
        }
        let whole: Vec<u64> = kinds.iter().filter(|k| !k.1).map(|k| k.0).collect();
        assert_eq!(whole, [0, 60, 200]);
    }
}
