//! The watch on a service, as a source: what it tells while API servers list, watch, forget, cut,
//! refuse, lie and come back.

use std::net::SocketAddr;
use std::sync::mpsc::Receiver;

use lbd::config;
use lbd::discovery::known::Finding;
use lbd::discovery::task;
use tokio::sync::mpsc;

use crate::api::{Cluster, Pki, TooOld};
use crate::{PATIENCE, wait_until};

/// A running source.
struct Source(Receiver<Finding>);

impl Source {
    fn start(pki: &Pki, seeds: &[SocketAddr], credentials: &str) -> Self {
        let seeds: Vec<String> = seeds.iter().map(|seed| format!("\"{seed}\"")).collect();
        let text = format!(
            "[proxy.p]\nlisten = \":1\"\nbackends = [{}]\n[proxy.p.discovery.kubernetes]\n\
             ca-file = \"{}\"\ntimeout = \"2s\"\n{credentials}\n",
            seeds.join(", "),
            pki.file("ca.crt").display()
        );
        let config = config::load(&text).unwrap();
        let (told, findings) = std::sync::mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (sender, mut findings) = mpsc::channel(64);
                task::start(0, &config.proxies[0], &[], &sender);
                while let Some(finding) = findings.recv().await {
                    if told.send(finding).is_err() {
                        return;
                    }
                }
            });
        });
        Self(findings)
    }

    fn with_token(pki: &Pki, seeds: &[SocketAddr]) -> Self {
        Self::start(pki, seeds, &token(pki))
    }

    fn next(&self) -> Result<Vec<String>, String> {
        let finding = self.0.recv_timeout(PATIENCE).expect("a finding");
        let names = |servers: Vec<config::model::Server>| {
            servers.into_iter().map(|server| server.name).collect()
        };
        finding.outcome.map(names)
    }

    /// Skips what is as before.
    fn next_but(&self, before: &Result<Vec<String>, String>) -> Result<Vec<String>, String> {
        loop {
            let next = self.next();
            if next != *before {
                return next;
            }
        }
    }
}

fn token(pki: &Pki) -> String {
    format!("token-file = \"{}\"", pki.file("token").display())
}

fn found(servers: &[&str]) -> Result<Vec<String>, String> {
    Ok(servers.iter().map(|server| (*server).to_owned()).collect())
}

#[test]
fn what_is_ready_is_found_by_a_list_and_followed_by_a_watch() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true), ("10.0.0.5", false)]);
    let server = cluster.server(&pki);
    let source = Source::with_token(&pki, &[server]);
    assert_eq!(source.next(), found(&["10.0.0.4:6443"]));
    cluster.set("one", 6443, &[("10.0.0.4", true), ("10.0.0.5", true)]);
    assert_eq!(source.next(), found(&["10.0.0.4:6443", "10.0.0.5:6443"]));
    cluster.set("two", 7443, &[("10.0.0.6", true)]);
    let three = found(&["10.0.0.4:6443", "10.0.0.5:6443", "10.0.0.6:7443"]);
    assert_eq!(source.next(), three);
    cluster.set("one", 6443, &[]);
    assert_eq!(source.next(), found(&["10.0.0.6:7443"]));
    cluster.delete("two");
    // The farm keeps what it had: an empty word is no word.
    assert_eq!(source.next(), found(&[]));
    let seen = cluster.seen();
    let list = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                ?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";
    assert_eq!(seen[0].path, list);
    assert_eq!(
        seen[1].path,
        format!("{list}&watch=1&allowWatchBookmarks=true&resourceVersion=1&timeoutSeconds=60")
    );
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer secret-1"));
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_watch_that_is_cut_goes_on_from_its_last_bookmark_at_the_next_server() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true)]);
    let (a, b) = (cluster.server(&pki), cluster.server(&pki));
    let source = Source::with_token(&pki, &[a, b]);
    let before = source.next();
    let version = cluster.bookmark();
    assert_eq!(source.next(), before);
    cluster.cut();
    cluster.set("one", 6443, &[("10.0.0.5", true)]);
    assert_eq!(source.next_but(&before), found(&["10.0.0.5:6443"]));
    let watches = cluster.watches();
    assert_eq!(watches[1].version(), Some(version));
    assert_eq!((watches[0].server, watches[1].server), (a, b));
    assert_eq!(cluster.lists(), 1);
}

#[test]
fn a_version_that_is_too_old_means_another_list_however_it_is_told() {
    for too_old in [TooOld::ByStatus, TooOld::ByEvent] {
        let (pki, cluster) = (Pki::new(), Cluster::default());
        cluster.set("one", 6443, &[("10.0.0.4", true)]);
        cluster.set("gone", 6443, &[("10.0.0.9", true)]);
        let (a, b) = (cluster.server(&pki), cluster.server(&pki));
        let source = Source::with_token(&pki, &[a, b]);
        let before = source.next();
        assert_eq!(before, found(&["10.0.0.4:6443", "10.0.0.9:6443"]));
        wait_until("a watch", || cluster.watches().len() == 1);
        cluster.take_down(a);
        // Told to nobody: only another list can know.
        cluster.delete("gone");
        cluster.forget_history(too_old);
        assert_eq!(source.next_but(&before), found(&["10.0.0.4:6443"]));
        assert_eq!(cluster.lists(), 2);
    }
}

#[test]
fn a_word_that_makes_no_sense_is_answered_by_another_list() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true)]);
    let (a, b) = (cluster.server(&pki), cluster.server(&pki));
    let source = Source::with_token(&pki, &[a, b]);
    let before = source.next();
    cluster.say("{\"type\": \"ADDED\", \"object\": ");
    wait_until("another list", || cluster.lists() >= 2);
    cluster.set("one", 6443, &[("10.0.0.5", true)]);
    assert_eq!(source.next_but(&before), found(&["10.0.0.5:6443"]));
}

#[test]
fn servers_that_were_found_are_asked_when_those_of_the_file_are_dead() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    let (a, b) = (cluster.server(&pki), cluster.server(&pki));
    cluster.set("a", a.port(), &[("127.0.0.1", true)]);
    cluster.set("b", b.port(), &[("127.0.0.1", true)]);
    let source = Source::with_token(&pki, &[a]);
    let before = source.next();
    assert_eq!(before.as_ref().map(Vec::len), Ok(2));
    wait_until("a watch", || cluster.watches().len() == 1);
    cluster.take_down(a);
    cluster.delete("a");
    let after = source.next_but(&before);
    assert_eq!(after, Ok(vec![b.to_string()]), "{a} {:?}", cluster.seen());
    assert_eq!(cluster.watches().last().unwrap().server, b);
}

#[test]
fn what_a_server_says_against_it_is_told_once_all_have_said_so() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    let (a, b) = (cluster.server(&pki), cluster.server(&pki));
    cluster.refuse(403, "lbd may not list endpointslices");
    let source = Source::with_token(&pki, &[a, b]);
    let told = source.next().unwrap_err();
    assert_eq!(
        told,
        format!("{b}: status 403: lbd may not list endpointslices")
    );
    let asked: Vec<SocketAddr> = cluster.seen().iter().map(|seen| seen.server).collect();
    assert_eq!(asked[..2], [a, b]);
}

#[test]
fn a_list_that_makes_no_sense_changes_nothing_but_the_error() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true)]);
    cluster.list_as(Some("{\"items\": []}"));
    let server = cluster.server(&pki);
    let source = Source::with_token(&pki, &[server]);
    let told = source.next().unwrap_err();
    assert!(told.contains("sent something else"), "{told}");
    cluster.list_as(None);
    assert_eq!(source.next_but(&Err(told)), found(&["10.0.0.4:6443"]));
}

#[test]
fn an_impostor_is_shown_nothing() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (cluster, real) = (Cluster::default(), Cluster::default());
    real.set("one", 6443, &[("10.0.0.4", true)]);
    let impostor = cluster.server(&other);
    let genuine = real.server(&pki);
    let source = Source::with_token(&pki, &[impostor]);
    let told = source.next().unwrap_err();
    assert!(told.contains("invalid peer certificate"), "{told}");
    let certificate = format!(
        "client-cert = \"{}\"\nclient-key = \"{}\"",
        pki.file("lbd.crt").display(),
        pki.file("lbd.key").display()
    );
    let source = Source::start(&pki, &[impostor, genuine], &certificate);
    assert_eq!(source.next(), found(&["10.0.0.4:6443"]));
    wait_until("both handshakes", || cluster.handshakes_failed() >= 2);
    assert_eq!(cluster.seen(), []);
    assert!(real.seen()[0].certificate);
    assert_eq!(real.seen()[0].authorization, None);
}

#[test]
fn a_token_and_an_authority_that_are_replaced_serve_the_next_connection() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true)]);
    let ca = std::fs::read(pki.file("ca.crt")).unwrap();
    std::fs::write(pki.file("ca.crt"), "no certificate").unwrap();
    let (a, b) = (cluster.server(&pki), cluster.server(&pki));
    let source = Source::with_token(&pki, &[a, b]);
    let told = source.next().unwrap_err();
    assert!(told.contains("ca.crt holds no certificate"), "{told}");
    std::fs::write(pki.file("new"), ca).unwrap();
    std::fs::rename(pki.file("new"), pki.file("ca.crt")).unwrap();
    assert_eq!(source.next_but(&Err(told)), found(&["10.0.0.4:6443"]));
    wait_until("a watch", || cluster.watches().len() == 1);
    std::fs::write(pki.file("new"), "secret-2").unwrap();
    std::fs::rename(pki.file("new"), pki.file("token")).unwrap();
    cluster.cut();
    wait_until("another watch", || cluster.watches().len() == 2);
    let tokens: Vec<_> = cluster
        .watches()
        .into_iter()
        .map(|w| w.authorization)
        .collect();
    assert_eq!(tokens[0].as_deref(), Some("Bearer secret-1"));
    assert_eq!(tokens[1].as_deref(), Some("Bearer secret-2"));
}

#[test]
fn servers_that_are_down_are_asked_again_until_one_is_back() {
    let (pki, cluster) = (Pki::new(), Cluster::default());
    cluster.set("one", 6443, &[("10.0.0.4", true)]);
    let closed = crate::port::held();
    let source = Source::with_token(&pki, &[closed]);
    let told = source.next().unwrap_err();
    assert_eq!(told, format!("{closed}: Connection refused (os error 111)"));
    assert_eq!(source.next(), Err(told));
}
