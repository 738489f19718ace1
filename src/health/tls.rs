//! TLS for probes: what is trusted, and the connector made from it. A probe never shows a client
//! certificate or a token, so an unverified server learns nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::config::model::{TlsCheck, Verify};

/// Where kubeadm puts the cluster's CA.
pub const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// Why a check's TLS half cannot be set up: the operator's files or names.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The CA file is unreadable or no PEM.
    #[error("cannot read certificates from {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: pem::Error,
    },
    /// The CA file holds no usable certificate.
    #[error("{} holds no certificate that can be trusted", .0.display())]
    NoCertificate(PathBuf),
    /// Verification was asked for without saying what to trust.
    #[error("verification needs a ca-file")]
    NoCaFile,
    /// `server-name` is neither a DNS name nor an address.
    #[error("server-name {name:?} is no DNS name")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: InvalidDnsNameError,
    },
    /// rustls refused its own settings.
    #[error("TLS cannot be set up")]
    Provider(#[source] rustls::Error),
}

/// A connector with the name to verify.
#[derive(Clone)]
pub struct Tls {
    /// Makes handshakes.
    pub connector: TlsConnector,
    /// `server-name`; `None`: the address that is probed.
    pub server_name: Option<ServerName<'static>>,
    /// Whether certificates are verified.
    pub verified: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the CA file, if any, and sets TLS up. `cluster_ca` is [`CLUSTER_CA`] outside tests.
    /// The `protocols` are offered by ALPN; none at all for a server that needn't speak HTTP.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn open(
        check: &TlsCheck,
        protocols: &[&str],
        cluster_ca: &Path,
    ) -> Result<Self, TlsSetupError> {
        let trusted = trusted_file(check, cluster_ca)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Provider)?;
        let mut config = match &trusted {
            Some(path) => builder.with_root_certificates(read_roots(path)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
        }
        .with_no_client_auth();
        // Each probe shall do the whole handshake: that is what it tests.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: check.server_name.as_deref().map(server_name).transpose()?,
            verified: trusted.is_some(),
        })
    }
}

/// The CA file that applies; `None`: unverified.
fn trusted_file(check: &TlsCheck, cluster_ca: &Path) -> Result<Option<PathBuf>, TlsSetupError> {
    match (check.verify, &check.ca_file) {
        (Verify::Off, _) => Ok(None),
        (Verify::Required | Verify::IfCaPresent, Some(path)) => Ok(Some(path.clone())),
        (Verify::Required, None) => Err(TlsSetupError::NoCaFile),
        (Verify::IfCaPresent, None) => Ok(cluster_ca.exists().then(|| cluster_ca.to_owned())),
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsSetupError> {
    ServerName::try_from(name.to_owned()).map_err(|source| TlsSetupError::ServerName {
        name: name.to_owned(),
        source,
    })
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let failed = |source| TlsSetupError::CaFile {
        path: path.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        if let Err(error) = roots.add(certificate.map_err(failed)?) {
            tracing::warn!(%error, key = "ca-file", "certificate left out of the trusted ones");
        }
    }
    if roots.is_empty() {
        return Err(TlsSetupError::NoCertificate(path.to_owned()));
    }
    Ok(roots)
}

/// Takes any certificate, but still has the server prove that it holds the key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
