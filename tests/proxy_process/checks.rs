//! Credentials of checks in a real process that has given up its rights: their files are replaced
//! behind its back, as a kubelet and as an administrator do it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lbd::admin::status::{ServerState, ServerStatus};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Keeper, config, front, wait_for};

type Issuer = rcgen::Issuer<'static, rcgen::KeyPair>;

/// A CA in PEM and what signs with it.
fn authority() -> (String, Issuer) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = ca.self_signed(&key).unwrap();
    (cert.pem(), rcgen::Issuer::new(ca, key))
}

/// A certificate for 127.0.0.1 and its key, in PEM.
fn signed(by: &Issuer) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = leaf.signed_by(&key, by).unwrap();
    (cert.pem(), key.serialize_pem())
}

/// A server that wants a certificate of `clients`, and tells the last token it saw.
fn strict(own: &Issuer, clients: &str, token: &Arc<Mutex<String>>) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(clients.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let (cert, key) = signed(own);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let (config, token) = (Arc::new(config), Arc::clone(token));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, tcp);
            let mut head = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut head) else {
                continue;
            };
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "));
            *token.lock().unwrap() = line.unwrap_or("none").to_owned();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap_or_default();
        }
    });
    address
}

/// A folder outside of everything that the process may use for other reasons.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lbd-checks-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// By rename, as whoever wants readers to see whole files.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }

    /// `..data` points to a new folder with these files, the former is gone.
    fn swap(&self, files: [(&str, &str); 3]) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let next = format!("..version-{number}");
        std::fs::create_dir(self.0.join(&next)).unwrap();
        for (name, text) in files {
            std::fs::write(self.0.join(&next).join(name), text).unwrap();
        }
        let former = std::fs::read_link(self.0.join("..data"));
        symlink(&next, self.0.join("..new")).unwrap();
        std::fs::rename(self.0.join("..new"), self.0.join("..data")).unwrap();
        if let Ok(former) = former {
            std::fs::remove_dir_all(self.0.join(former)).unwrap();
        }
    }

    fn link(&self, name: &str) {
        symlink(Path::new("..data").join(name), self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

fn wait_until(keeper: &Keeper, what: &str, wanted: impl Fn(&ServerStatus) -> bool) {
    wait_for(what, || {
        let status = keeper.status();
        wanted(&status.proxies[0].servers[0]).then_some(())
    });
}

#[test]
fn replaced_files_of_checks_are_read_again_from_within_the_sandbox() {
    let (ca, servers) = authority();
    let (clients_ca, clients) = authority();
    let (other_ca, strangers) = authority();
    let token = Arc::default();
    let address = strict(&servers, &clients_ca, &token);
    let (trust, secret) = (Folder::new("trust"), Folder::new("secret"));
    let ca_file = trust.put("ca.crt", &ca);
    let (cert, key) = signed(&strangers);
    secret.swap([("tls.crt", &cert), ("tls.key", &key), ("token", "one\n")]);
    for name in ["tls.crt", "tls.key", "token"] {
        secret.link(name);
    }
    let mut keeper = Keeper::start("credentials");
    let (listener, door) = front();
    let (ca_path, secrets) = (ca_file.display(), secret.0.display());
    let check = format!(
        "check = {{ type = \"kube-apiserver\", ca-file = \"{ca_path}\", client-cert = \"{secrets}/tls.crt\", \
         client-key = \"{secrets}/tls.key\", token-file = \"{secrets}/token\", timeout = \"5s\" }}"
    );
    let text = config(door, &[address]).replace(
        "check = { type = \"tcp\", interval = \"200ms\", timeout = \"5s\" }",
        &check,
    );
    assert!(text.contains("kube-apiserver"));
    keeper.bring_up(&text, listener);
    let up = |server: &ServerStatus| server.state == ServerState::Up;
    let reason = |server: &ServerStatus| server.reason.clone().unwrap_or_default();
    wait_until(&keeper, "refused certificate", |server| {
        !up(server) && reason(server).starts_with("tls: received fatal alert")
    });
    // As a kubelet does it.
    let (cert, key) = signed(&clients);
    secret.swap([("tls.crt", &cert), ("tls.key", &key), ("token", "two\n")]);
    wait_until(&keeper, "accepted certificate", up);
    assert_eq!(*token.lock().unwrap(), "Bearer two");
    // A key that is not the certificate's: what was there before goes on.
    let (_, foreign) = signed(&clients);
    secret.swap([
        ("tls.crt", &cert),
        ("tls.key", &foreign),
        ("token", "three\n"),
    ]);
    wait_for("warning", || {
        keeper
            .stderr()
            .contains("is not that of the certificate in")
            .then_some(())
    });
    assert!(up(&keeper.status().proxies[0].servers[0]));
    assert_eq!(*token.lock().unwrap(), "Bearer two");
    secret.swap([("tls.crt", &cert), ("tls.key", &key), ("token", "four\n")]);
    wait_for("new token", || {
        (*token.lock().unwrap() == "Bearer four").then_some(())
    });
    // As an administrator does it.
    trust.put("ca.crt", &other_ca);
    wait_until(&keeper, "refused server", |server| {
        !up(server) && reason(server).starts_with("certificate not accepted")
    });
    trust.put("ca.crt", &ca);
    wait_until(&keeper, "trusted server", up);
    let said = keeper.stderr();
    if !said.contains("landlock on") {
        println!("without landlock here:\n{said}");
    }
}
