//! A certificate made for one run: the servers show it, the client trusts nothing else.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Both ends' TLS settings.
#[derive(Debug, Clone)]
pub struct Tls {
    /// For the servers.
    pub server: Arc<ServerConfig>,
    /// For the client.
    pub client: Arc<ClientConfig>,
}

impl Tls {
    /// Makes a key and a certificate for these addresses.
    ///
    /// # Errors
    /// When the key or certificate can't be made.
    pub fn new(addresses: &[IpAddr]) -> io::Result<Self> {
        let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let params = rcgen::CertificateParams::new(names).map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let certificate = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(io::Error::other)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}
