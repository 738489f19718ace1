//! The TLS setup of a check: its files read, what is trusted, who the probe says it is. To a server
//! that is not verified a probe shows neither certificate nor token: it could be anybody.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::files::Wanted;
use crate::config::model::{ClientFiles, TlsCheck, Verify};

/// The most that is read of a file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Why a check's TLS half cannot be set up: the operator's files or names.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file is no PEM.
    #[error("{} is no PEM file", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The CA file holds no usable certificate.
    #[error("{} holds no certificate that can be trusted", .0.display())]
    NoCertificate(PathBuf),
    /// Verification was asked for without saying what to trust.
    #[error("verification needs a ca-file")]
    NoCaFile,
    /// The file of the client certificate holds none.
    #[error("{} holds no certificate", .0.display())]
    NoClientCertificate(PathBuf),
    /// The file of the client key holds none.
    #[error("{} holds no private key without a passphrase", .0.display())]
    NoClientKey(PathBuf),
    /// The two don't belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate or the key is of no use to TLS.
    #[error("{} and {} cannot be used", cert.display(), key.display())]
    ClientCertificate {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What rustls says.
        #[source]
        source: Box<rustls::Error>,
    },
    /// The token file holds no bearer token.
    #[error("{} holds no token: one line of visible characters is expected", .0.display())]
    Token(PathBuf),
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

/// What was made of a check's files.
pub(super) struct Setup {
    /// Shared by all servers but for the session, which is each one's own.
    pub(super) config: ClientConfig,
    /// Whether certificates are verified.
    pub(super) verified: bool,
    /// `Bearer …`, only where certificates are verified.
    pub(super) token: Option<HeaderValue>,
    /// Whether a client certificate is shown.
    pub(super) shows_certificate: bool,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("verified", &self.verified)
            .field("token", &self.token.is_some())
            .field("shows_certificate", &self.shows_certificate)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// Reads the files and sets TLS up. All files are read, so that a mistake shows, even those
    /// that are of no use while nothing is verified.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub(super) fn read(wanted: &Wanted) -> Result<Self, TlsSetupError> {
        if wanted.tls.verify == Verify::Required && wanted.tls.ca_file.is_none() {
            return Err(TlsSetupError::NoCaFile);
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Provider)?;
        let trusted = wanted.trusted_file();
        let builder = match trusted {
            Some(path) => builder.with_root_certificates(read_roots(path)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
        };
        let verified = trusted.is_some();
        let token = wanted.token_file.as_deref().map(read_token).transpose()?;
        let identified = wanted
            .tls
            .client
            .as_ref()
            .map(|client| identified(builder.clone(), client))
            .transpose()?;
        let (mut config, shows_certificate) = match identified {
            Some(config) if verified => (config, true),
            Some(_) | None => (builder.with_no_client_auth(), false),
        };
        config.alpn_protocols = wanted
            .protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Self {
            config,
            verified,
            token: token.filter(|_| verified),
            shows_certificate,
        })
    }
}

/// What is wrong with each of these files, with the key that names it.
pub(super) fn troubles(
    tls: &TlsCheck,
    token_file: Option<&Path>,
) -> Vec<(&'static str, TlsSetupError)> {
    let mut troubles = Vec::new();
    if let Some(Err(error)) = tls.ca_file.as_deref().map(read_roots) {
        troubles.push(("ca-file", error));
    }
    if let Some(client) = &tls.client {
        match read_client(client) {
            Ok((chain, key)) => {
                let provider = ring::default_provider();
                if let Err(error) = CertifiedKey::from_der(chain, key, &provider) {
                    troubles.push(("client-key", unfit(client, error)));
                }
            }
            Err(failed) => troubles.push(failed),
        }
    }
    if let Some(Err(error)) = token_file.map(read_token) {
        troubles.push(("token-file", error));
    }
    troubles
}

/// The same with a client certificate.
fn identified(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    client: &ClientFiles,
) -> Result<ClientConfig, TlsSetupError> {
    let (chain, key) = read_client(client).map_err(|(_key, error)| error)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| unfit(client, error))
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What the two files hold, or which key names the one that is of no use.
fn read_client(client: &ClientFiles) -> Result<ChainAndKey, (&'static str, TlsSetupError)> {
    let ClientFiles { cert, key } = client;
    let chain = read_chain(cert).map_err(|error| ("client-cert", error))?;
    let key = read_key(key).map_err(|error| ("client-key", error))?;
    Ok((chain, key))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let text = read_file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|source| no_pem(path, source))?;
    if chain.is_empty() {
        return Err(TlsSetupError::NoClientCertificate(path.to_owned()));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    match PrivateKeyDer::from_pem_slice(&read_file(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsSetupError::NoClientKey(path.to_owned())),
        Err(source) => Err(no_pem(path, source)),
    }
}

fn unfit(client: &ClientFiles, error: rustls::Error) -> TlsSetupError {
    let ClientFiles { cert, key } = client.clone();
    if let rustls::Error::InconsistentKeys(_) = error {
        return TlsSetupError::KeyMismatch { cert, key };
    }
    TlsSetupError::ClientCertificate {
        cert,
        key,
        source: Box::new(error),
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let text = read_file(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|source| no_pem(path, source))?;
        if let Err(error) = roots.add(certificate) {
            tracing::warn!(%error, key = "ca-file", "certificate left out of the trusted ones");
        }
    }
    if roots.is_empty() {
        return Err(TlsSetupError::NoCertificate(path.to_owned()));
    }
    Ok(roots)
}

fn read_token(path: &Path) -> Result<HeaderValue, TlsSetupError> {
    let bad = || TlsSetupError::Token(path.to_owned());
    let text = String::from_utf8(read_file(path)?).map_err(|_not_text| bad())?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad());
    }
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_no_header| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The whole of a file of bounded size; never waits for the other end of a pipe.
fn read_file(path: &Path) -> Result<Vec<u8>, TlsSetupError> {
    let failed = |source| TlsSetupError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(FILE_BYTES_MAX);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if bounded.limit() == 0 {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn no_pem(path: &Path, source: pem::Error) -> TlsSetupError {
    TlsSetupError::Pem {
        path: path.to_owned(),
        source,
    }
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
