//! TLS towards an API server: the files are read for each connection, so that renewed ones are
//! used without being told. Its certificate is verified always, and before anything of ours is
//! shown: there is no way to turn that off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::config::discovery::{Credentials, Kubernetes};

/// The largest token, bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Why there can be no connection: the operator's files.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("cannot read {}: {source}", path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no token", .0.display())]
    NoToken(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("certificate and key do not fit: {0}")]
    Refused(#[source] rustls::Error),
    #[error("server-name is no name: {0}")]
    Name(#[source] InvalidDnsNameError),
}

/// What a connection needs to know whom it speaks to, and to say who speaks.
pub(super) struct Trust {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
    /// `Authorization`, where a token is used.
    pub(super) authorization: Option<String>,
}

impl Trust {
    /// Reads the files.
    pub(super) fn read(service: &Kubernetes) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&service.ca_file)? {
            if let Err(error) = roots.add(certificate) {
                tracing::debug!(%error, key = "ca-file", "certificate left out of the trusted ones");
            }
        }
        if roots.is_empty() {
            return Err(TrustError::NoCertificate(service.ca_file.clone()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Refused)?
            .with_root_certificates(roots);
        let (mut config, authorization) = match &service.credentials {
            Credentials::Certificate { cert, key } => {
                let chain = certificates(cert)?;
                plain(key)?;
                let failed = |source| TrustError::Pem {
                    path: key.clone(),
                    source,
                };
                let key = PrivateKeyDer::from_pem_file(key).map_err(failed)?;
                let config = builder
                    .with_client_auth_cert(chain, key)
                    .map_err(TrustError::Refused)?;
                (config, None)
            }
            Credentials::Token(path) => {
                let bearer = format!("Bearer {}", token(path)?);
                (builder.with_no_client_auth(), Some(bearer))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(service.server_name.clone()).map_err(TrustError::Name)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
            authorization,
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    plain(path)?;
    let failed = |source| TrustError::Pem {
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(TrustError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}

/// To open a pipe would wait for its other end.
fn plain(path: &Path) -> Result<(), TrustError> {
    let looked = std::fs::metadata(path).and_then(|meta| {
        let other = || std::io::Error::other("it is no file");
        meta.is_file().then_some(()).ok_or_else(other)
    });
    looked.map_err(|source| TrustError::Token {
        path: path.to_owned(),
        source,
    })
}

fn token(path: &Path) -> Result<String, TrustError> {
    plain(path)?;
    let text = std::fs::read_to_string(path).map_err(|source| TrustError::Token {
        path: path.to_owned(),
        source,
    })?;
    let token = text.trim();
    if token.is_empty()
        || token.len() > TOKEN_BYTES_MAX
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(TrustError::NoToken(path.to_owned()));
    }
    Ok(token.to_owned())
}
