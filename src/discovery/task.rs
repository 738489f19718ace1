//! Starts the task of each source. They end when nobody listens to their findings any more.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::known::Finding;
use super::{dns, file, kubernetes};
use crate::config::discovery::{Credentials, Dns, Kubernetes};
use crate::config::model::{Config, Proxy, Server};
use crate::net::clock;

/// Findings on their way to the control loop; a source waits when it is full.
pub const FINDINGS_MAX: usize = 64;

/// The host's own settings for names.
const ETC: &str = "/etc";

/// What a source says its findings with.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    proxy: usize,
    source: usize,
    findings: mpsc::Sender<Finding>,
}

impl Reporter {
    pub(super) const fn new(proxy: usize, source: usize, findings: mpsc::Sender<Finding>) -> Self {
        Self {
            proxy,
            source,
            findings,
        }
    }

    /// Answers whether anybody still listens.
    pub(super) async fn say(&self, outcome: Result<Vec<Server>, String>) -> bool {
        let finding = Finding {
            proxy: self.proxy,
            source: self.source,
            outcome,
            at: clock::now(),
        };
        self.findings.send(finding).await.is_ok()
    }
}

/// Starts every source of a proxy, the one in this slot; `header` is the PROXY header with which
/// connections to its servers begin.
pub fn start(
    slot: usize,
    proxy: &Proxy,
    header: &'static [u8],
    findings: &mpsc::Sender<Finding>,
) -> Vec<AbortHandle> {
    let mut tasks = Vec::new();
    let mut number = 0..;
    let mut reporter = || {
        let source = number.next().unwrap_or(usize::MAX);
        Reporter::new(slot, source, findings.clone())
    };
    let discovery = &proxy.discovery;
    if let Some(path) = &discovery.file {
        let task = file::follow(path.clone(), discovery.template, reporter());
        tasks.push(tokio::spawn(task).abort_handle());
    }
    for name in discovery.dns.iter().flat_map(|dns| &dns.names) {
        let Some(settings) = discovery.dns.clone() else {
            continue;
        };
        let question = dns::Question {
            name: name.clone(),
            settings,
            template: discovery.template,
            etc: PathBuf::from(ETC),
        };
        let task = dns::follow(question, reporter());
        tasks.push(tokio::spawn(task).abort_handle());
    }
    if let Some(service) = discovery.kubernetes.clone() {
        let cluster = cluster(proxy, service, header);
        let task = kubernetes::follow(cluster, reporter());
        tasks.push(tokio::spawn(task).abort_handle());
    }
    tasks
}

fn cluster(proxy: &Proxy, service: Kubernetes, header: &'static [u8]) -> kubernetes::Cluster {
    kubernetes::Cluster {
        service,
        template: proxy.discovery.template,
        seeds: proxy.servers.iter().map(|server| server.address).collect(),
        source: proxy.source,
        header,
    }
}

/// The files that the sources of a configuration read again and again, for the sandbox.
#[must_use]
pub fn files(config: &Config) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for discovery in config.proxies.iter().map(|proxy| &proxy.discovery) {
        files.extend(discovery.file.clone());
        let asks_the_host = |dns: &Dns| dns.resolvers.is_empty();
        if discovery.dns.as_ref().is_some_and(asks_the_host) {
            let names = dns::SYSTEM_FILES.iter();
            files.extend(names.map(|name| Path::new(ETC).join(name)));
        }
        if let Some(service) = &discovery.kubernetes {
            files.push(service.ca_file.clone());
            files.extend(match &service.credentials {
                Credentials::Certificate { cert, key } => vec![cert.clone(), key.clone()],
                Credentials::Token(token) => vec![token.clone()],
            });
        }
    }
    files
}
