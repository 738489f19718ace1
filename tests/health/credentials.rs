//! Certificates and tokens that a check shows, to whom, and what becomes of it when their files
//! change.

use super::*;

use std::os::unix::fs::symlink;
use std::sync::Mutex;

use lbd::config::model::ClientFiles;
use lbd::health::files::flaws;
use rustls::HandshakeKind;
use rustls::server::WebPkiClientVerifier;

impl Pki {
    /// A certificate and its key in PEM, signed by this CA, for a client of this name.
    fn client(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(Vec::new()).unwrap();
        leaf.distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let cert = leaf.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// The same server, now for clients alone that `clients` signed.
    fn requiring(
        &self,
        clients: &Self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = std::fs::read(&clients.ca_file).unwrap();
        let ca: CertificateDer<'_> =
            rustls::pki_types::pem::PemObject::from_pem_slice(&ca).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from(self.identity.0.clone())],
                PrivateKeyDer::try_from(self.identity.1.clone()).unwrap(),
            )
            .unwrap();
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
        Arc::new(config)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A check of servers of this CA that shows a certificate signed by `clients`.
    fn showing(&self, clients: &Self) -> TlsCheck {
        let (cert, key) = clients.client("lbd");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        TlsCheck {
            ca_file: Some(self.ca_file.clone()),
            server_name: None,
            verify: Verify::Required,
            client: Some(ClientFiles {
                cert: self.write(&format!("{number}.crt"), &cert),
                key: self.write(&format!("{number}.key"), &key),
            }),
        }
    }
}

fn serving(config: &Arc<ServerConfig>, serve: impl Fn(Tls) + Send + Sync + 'static) -> SocketAddr {
    let config = Arc::clone(config);
    server(move |tcp| {
        serve(StreamOwned::new(
            ServerConnection::new(Arc::clone(&config)).unwrap(),
            tcp,
        ));
    })
}

fn new_probe(kind: CheckKind, address: SocketAddr) -> Probe {
    Probe::new(&check(kind), address, Path::new("/nonexistent")).unwrap()
}

/// Probes again and again until the verdict or the report is as wanted.
fn until(probe: &Probe, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let deadline = clock::now() + Duration::from_secs(20);
    loop {
        let report = block_on(probe.run());
        if wanted(&report) {
            return report;
        }
        assert!(clock::now() < deadline, "{what}: {report:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn a_server_that_requires_a_certificate_is_ready_for_who_shows_one_and_alive_for_others() {
    let (pki, clients, strangers) = (Pki::new(), Pki::new(), Pki::new());
    for version in VERSIONS {
        let config = pki.requiring(&clients, version);
        let address = serving(&config, |tls| answer(tls, "200 OK", "ok"));
        let known = pki.showing(&clients);
        let nameless = TlsCheck {
            client: None,
            ..known.clone()
        };
        let https = |tls: &TlsCheck| CheckKind::Https(tls.clone(), readyz());
        let with = new_probe(https(&known), address);
        assert!(with.has_credentials());
        assert_eq!(block_on(with.run()).verdict, Verdict::Ready);
        let stranger = pki.showing(&strangers);
        for tls in [&nameless, &stranger] {
            for kind in [https(tls), CheckKind::Tls(tls.clone())] {
                let verdict = probe(kind, address).verdict;
                let reason = verdict.reason().unwrap_or("ready").to_owned();
                assert!(
                    matches!(verdict, Verdict::NotReady(_)),
                    "{version:?} {reason}"
                );
                assert!(reason.starts_with("tls: received fatal alert"), "{reason}");
            }
        }
        assert_eq!(
            probe(CheckKind::Tls(pki.showing(&clients)), address).verdict,
            Verdict::Ready
        );
    }
}

/// The `Authorization` header of what a probe with this TLS half asks.
fn authorization(
    pki: &Pki,
    tls: TlsCheck,
    token: Option<PathBuf>,
) -> (Verdict, Option<String>, bool) {
    let (seen, heads) = mpsc::sync_channel(4);
    let accept = pki.accept();
    let address = server(move |tcp| {
        let mut tls = accept(tcp);
        if let Some(head) = read_head(&mut tls) {
            seen.send(head).unwrap();
            tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let http = HttpCheck {
        token_file: token,
        ..readyz()
    };
    let probe = new_probe(CheckKind::Https(tls, http), address);
    let verdict = block_on(probe.run()).verdict;
    let head = heads.recv_timeout(Duration::from_secs(5)).unwrap();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "));
    (verdict, line.map(str::to_owned), probe.has_credentials())
}

#[test]
fn a_token_goes_to_a_verified_server_and_to_no_other() {
    let pki = Pki::new();
    let token = pki.write("token", "eyJhbGciOi.J9-_x\n");
    let verified = TlsCheck {
        ca_file: Some(pki.ca_file.clone()),
        verify: Verify::Required,
        ..unverified()
    };
    let sent = Some("Bearer eyJhbGciOi.J9-_x".to_owned());
    assert_eq!(
        authorization(&pki, verified, Some(token.clone())),
        (Verdict::Ready, sent, true)
    );
    assert_eq!(
        authorization(&pki, unverified(), Some(token)),
        (Verdict::Ready, None, false)
    );
}

#[test]
fn a_certificate_is_not_shown_to_a_server_that_nobody_verifies() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let config = pki.requiring(&clients, &rustls::version::TLS13);
    let address = serving(&config, |tls| answer(tls, "200 OK", "ok"));
    let tls = TlsCheck {
        ca_file: None,
        verify: Verify::IfCaPresent,
        ..pki.showing(&clients)
    };
    let probe = new_probe(CheckKind::Https(tls, readyz()), address);
    assert!(!probe.has_credentials());
    let verdict = block_on(probe.run()).verdict;
    assert_eq!(
        verdict,
        not_ready("tls: received fatal alert: CertificateRequired")
    );
}

#[test]
fn credentials_that_were_replaced_are_used_by_the_next_probes() {
    let (pki, clients, strangers) = (Pki::new(), Pki::new(), Pki::new());
    let seen = Arc::new(Mutex::new(String::new()));
    let config = pki.requiring(&clients, &rustls::version::TLS13);
    let last = Arc::clone(&seen);
    let address = serving(&config, move |mut tls| {
        if let Some(head) = read_head(&mut tls) {
            *last.lock().unwrap() = head;
            tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap_or_default();
        }
    });
    // As a kubelet lays out a secret: links through a link that is replaced as a whole.
    let secret = |name: &str, signer: &Pki, token: &str| {
        let folder = pki.dir.join(name);
        std::fs::create_dir(&folder).unwrap();
        let (cert, key) = signer.client("lbd");
        std::fs::write(folder.join("tls.crt"), cert).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
    };
    secret("..one", &strangers, "first");
    secret("..two", &clients, "second");
    let link = |to: &str| {
        symlink(to, pki.dir.join("..new")).unwrap();
        std::fs::rename(pki.dir.join("..new"), pki.dir.join("..data")).unwrap();
    };
    link("..one");
    for file in ["tls.crt", "tls.key", "token"] {
        symlink(Path::new("..data").join(file), pki.dir.join(file)).unwrap();
    }
    let tls = TlsCheck {
        ca_file: Some(pki.ca_file.clone()),
        server_name: None,
        verify: Verify::Required,
        client: Some(ClientFiles {
            cert: pki.dir.join("tls.crt"),
            key: pki.dir.join("tls.key"),
        }),
    };
    let http = HttpCheck {
        token_file: Some(pki.dir.join("token")),
        ..readyz()
    };
    let probe = new_probe(CheckKind::Https(tls, http), address);
    assert!(!block_on(probe.run()).verdict.is_ready());
    link("..two");
    until(&probe, "new files", |report| report.verdict.is_ready());
    assert!(
        seen.lock()
            .unwrap()
            .contains("authorization: Bearer second\r\n")
    );
    // A token alone, in place by rename.
    std::fs::write(pki.dir.join("..two/new"), "third\n").unwrap();
    std::fs::rename(pki.dir.join("..two/new"), pki.dir.join("..two/token")).unwrap();
    until(&probe, "new token", |_| {
        seen.lock()
            .unwrap()
            .contains("authorization: Bearer third\r\n")
    });
}

#[test]
fn files_that_cannot_be_used_leave_the_former_in_force() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (ours, theirs) = (
        pki.answering("200 OK", "ok"),
        other.answering("200 OK", "ok"),
    );
    let tls = TlsCheck {
        ca_file: Some(pki.ca_file.clone()),
        verify: Verify::Required,
        ..unverified()
    };
    let kind = CheckKind::Https(tls, readyz());
    let (ours, theirs) = (new_probe(kind.clone(), ours), new_probe(kind, theirs));
    assert!(block_on(ours.run()).verdict.is_ready());
    std::fs::write(&pki.ca_file, "-----BEGIN CERTIFICATE-----\nnot yet whole").unwrap();
    // For longer than it takes to see a change.
    let end = clock::now() + Duration::from_millis(2_500);
    while clock::now() < end {
        assert_eq!(block_on(ours.run()).verdict, Verdict::Ready);
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_file(&pki.ca_file).unwrap();
    std::fs::copy(&other.ca_file, &pki.ca_file).unwrap();
    until(&theirs, "new ca", |report| report.verdict.is_ready());
    // What one probe has read holds for all that read the same files.
    assert!(!block_on(ours.run()).verdict.is_ready());
}

#[test]
fn the_clusters_ca_is_used_once_it_appears_and_not_given_up_when_it_goes() {
    let (pki, other) = (Pki::new(), Pki::new());
    let address = pki.answering("200 OK", "ok");
    let late = pki.dir.join("pki/ca.crt");
    std::fs::create_dir(pki.dir.join("pki")).unwrap();
    let check = check(CheckKind::Https(unverified(), readyz()));
    let probe = Probe::new(&check, address, &late).unwrap();
    assert_eq!(block_on(probe.run()).verdict, Verdict::Ready);
    assert!(probe.is_unverified());
    std::fs::copy(&pki.ca_file, &late).unwrap();
    until(&probe, "verified", |_| !probe.is_unverified());
    std::fs::remove_file(&late).unwrap();
    // For longer than it takes to see a change.
    let end = clock::now() + Duration::from_millis(2_500);
    while clock::now() < end {
        assert_eq!(block_on(probe.run()).verdict, Verdict::Ready);
        assert!(!probe.is_unverified());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::copy(&other.ca_file, &late).unwrap();
    until(&probe, "another ca", |report| !report.verdict.is_ready());
}

#[test]
fn handshakes_are_shortened_until_the_server_or_its_trust_changes() {
    let pki = Pki::new();
    for version in VERSIONS {
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let config = pki.requiring(&pki, version);
        let seen = Arc::clone(&kinds);
        let address = serving(&config, move |mut tls| {
            if read_head(&mut tls).is_some() {
                seen.lock()
                    .unwrap()
                    .push(tls.conn.handshake_kind().unwrap());
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .unwrap_or_default();
            }
        });
        let kind = CheckKind::Https(pki.showing(&pki), readyz());
        let (one, other) = (new_probe(kind.clone(), address), new_probe(kind, address));
        for probe in [&one, &one, &one, &other, &other] {
            assert_eq!(block_on(probe.run()).verdict, Verdict::Ready);
        }
        let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
        assert_eq!(
            *kinds.lock().unwrap(),
            [full, resumed, resumed, full, resumed],
            "{version:?}"
        );
        // Touched files are read again, and a new start is made of them.
        let ca = std::fs::read(&pki.ca_file).unwrap();
        std::fs::write(&pki.ca_file, ca).unwrap();
        until(&one, "whole handshake", |_| {
            kinds.lock().unwrap().last() == Some(&full)
        });
    }
}

#[test]
fn a_tls_check_shortens_its_handshakes_too() {
    let pki = Pki::new();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let config = pki.requiring(&pki, &rustls::version::TLS13);
    let seen = Arc::clone(&kinds);
    let address = serving(&config, move |mut tls| {
        tls.read_to_end(&mut Vec::new()).unwrap_or_default();
        seen.lock()
            .unwrap()
            .push(tls.conn.handshake_kind().unwrap());
    });
    let probe = new_probe(CheckKind::Tls(pki.showing(&pki)), address);
    for _ in 0..2 {
        assert_eq!(block_on(probe.run()).verdict, Verdict::Ready);
    }
    let deadline = clock::now() + Duration::from_secs(10);
    while kinds.lock().unwrap().len() < 2 {
        assert!(clock::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(
        *kinds.lock().unwrap(),
        [HandshakeKind::Full, HandshakeKind::Resumed]
    );
}

#[test]
fn each_file_of_no_use_is_named_by_its_key() {
    let pki = Pki::new();
    let named = |tls: &TlsCheck, token: Option<PathBuf>| -> Vec<&'static str> {
        let http = HttpCheck {
            token_file: token,
            ..readyz()
        };
        let check = check(CheckKind::Https(tls.clone(), http));
        let flaws = flaws(&check);
        let usable = Probe::new(&check, closed_port(), Path::new("/nonexistent")).is_ok();
        let unusable = |flaw: &lbd::config::Flaw| matches!(flaw, lbd::config::Flaw::Unusable(_));
        assert_eq!(
            usable,
            !flaws.iter().any(|(_, flaw)| unusable(flaw)),
            "{flaws:?}"
        );
        flaws.into_iter().map(|(key, _)| key).collect()
    };
    let sound = pki.showing(&pki);
    let files = sound.client.clone().unwrap();
    let private = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    };
    assert_eq!(named(&sound, None), ["client-key"], "readable by all");
    private(&files.key);
    assert_eq!(named(&sound, None), [""; 0]);
    let both = pki.write("both", &pki.client("x").0);
    private(&both);
    let swapped = |cert: &Path, key: &Path| TlsCheck {
        client: Some(ClientFiles {
            cert: cert.to_owned(),
            key: key.to_owned(),
        }),
        ..sound.clone()
    };
    assert_eq!(named(&swapped(&both, &files.key), None), ["client-key"]);
    assert_eq!(named(&swapped(&files.cert, &both), None), ["client-key"]);
    assert_eq!(
        named(&swapped(&files.key, &files.key), None),
        ["client-cert"]
    );
    for text in ["", "two words\n", "\u{e9}\n", "a\nb\n"] {
        let token = pki.write("token", text);
        private(&token);
        assert_eq!(named(&sound, Some(token)), ["token-file"], "{text:?}");
    }
    assert_eq!(named(&sound, Some(pki.dir.clone())), ["token-file"; 2]);
    std::fs::write(&pki.ca_file, "no certificate\n").unwrap();
    assert_eq!(named(&sound, None), ["ca-file"]);
}
