//! From what sources of servers find to the farms: the last good word of each is kept, the whole
//! set of a proxy goes into its farm, and what is new is said in the log.

use tokio::sync::mpsc;

use super::report::Shared;
use crate::config::model::Config;
pub(super) use crate::discovery::known::Finding;
use crate::discovery::known::{Known, News, Source};
use crate::discovery::task::{self, FINDINGS_MAX};
use crate::proxy::farm::Farm;
use crate::proxy::pp;
use crate::proxy::roster::{Origin, ServerSpec};

/// Starts the sources of the file.
pub(super) fn start(config: &Config) -> (mpsc::Receiver<Finding>, Known) {
    let (sender, findings) = mpsc::channel(FINDINGS_MAX);
    let send = config.proxies.iter().map(|proxy| {
        let send = proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
        send.map_or(&[] as &[u8], pp::own)
    });
    let headers: Vec<&'static [u8]> = send.collect();
    task::start(config, &headers, &sender);
    (findings, Known::new(config))
}

/// Takes one finding in.
pub(super) fn take_in(shared: &Shared, finding: Finding) {
    let (at, source) = (finding.proxy, finding.source);
    let mut changing = shared.changing();
    let (news, update) = changing.known.record(finding);
    let config = shared.config.proxies.get(at);
    if let (Some(config), Some(source)) = (config, changing.known.source(at, source)) {
        say(&config.name, source, news);
    }
    drop(changing);
    if let (Some(update), Some(config), Some(farm)) = (update, config, shared.farms.get(at)) {
        reconcile(&config.name, farm, &update.servers);
    }
}

/// Once every source of a proxy has spoken, and its servers are known to the board, their verdicts
/// are all that it waits for.
pub(super) fn settle(shared: &Shared, proxy: usize) {
    let mut changing = shared.changing();
    if changing.known.has_spoken(proxy) {
        changing.board.discovered(proxy);
    }
}

fn say(proxy: &str, source: &Source, news: News) {
    let (kind, key) = (source.kind.word(), source.label.as_str());
    let servers = source.servers.len();
    match news {
        News::Nothing => {}
        News::Changed => tracing::info!(proxy, kind, key, servers, "servers discovered"),
        News::Recovered => {
            tracing::info!(proxy, kind, key, servers, "servers are discovered again");
        }
        News::Failed => {
            let error = source.error.as_deref().unwrap_or_default();
            tracing::warn!(
                proxy,
                kind,
                key,
                servers,
                error,
                "no servers discovered, known ones stay"
            );
        }
    }
}

fn reconcile(proxy: &str, farm: &Farm, servers: &[ServerSpec]) {
    let done = farm.reconcile(Origin::Discovered, servers);
    for server in &done.added {
        tracing::info!(proxy, server, reason = "discovered", "server added");
    }
    for server in &done.removed {
        tracing::info!(
            proxy,
            server,
            reason = "no longer discovered",
            "server removed"
        );
    }
    for server in &done.changed {
        tracing::info!(proxy, server, reason = "discovered", "server changed");
    }
    for (server, error) in &done.refused {
        tracing::warn!(proxy, server, %error, "server cannot be added");
    }
}
