//! From what sources of servers find to the farms: the last good word of each is kept, the whole
//! set of a proxy goes into its farm, and what is new is said in the log.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::report::Shared;
use crate::config::{
    self,
    model::{Config, Proxy},
};
pub(super) use crate::discovery::known::Finding;
use crate::discovery::known::{Known, News, Source, Update};
use crate::discovery::task::{self, FINDINGS_MAX};
use crate::proxy::farm::Farm;
use crate::proxy::farm::table::Reconciled;
use crate::proxy::pp;
use crate::proxy::roster::{Origin, ServerSpec};

/// Why a server is left out.
const ITSELF: &str = "it is this load balancer itself";
/// The same, of all servers of a source.
const ITSELF_ALONE: &str = "it names this load balancer itself and no other";

/// Starts the sources of the file.
pub(super) fn start(config: &Config) -> (Discoveries, mpsc::Receiver<Finding>, Known) {
    let (sender, findings) = mpsc::channel(FINDINGS_MAX);
    let mut discoveries = Discoveries {
        sender,
        tasks: Vec::new(),
    };
    for (at, proxy) in config.proxies.iter().enumerate() {
        discoveries.follow(at, Some(proxy));
    }
    (discoveries, findings, Known::new(config))
}

/// The tasks behind the sources, by slot of their proxy.
#[derive(Debug)]
pub(super) struct Discoveries {
    sender: mpsc::Sender<Finding>,
    tasks: Vec<Vec<AbortHandle>>,
}

impl Discoveries {
    /// Asks the sources of this proxy from here on, and those that it had no more.
    pub(super) fn follow(&mut self, slot: usize, proxy: Option<&Proxy>) {
        if self.tasks.len() <= slot {
            self.tasks.resize_with(slot + 1, Vec::new);
        }
        let Some(tasks) = self.tasks.get_mut(slot) else {
            return;
        };
        for task in tasks.drain(..) {
            task.abort();
        }
        if let Some(proxy) = proxy {
            let send = proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
            let header = send.map_or(&[] as &[u8], pp::own);
            *tasks = task::start(slot, proxy, header, &self.sender);
        }
    }
}

/// Takes one finding in.
pub(super) fn take_in(shared: &Shared, finding: Finding) {
    let (at, source) = (finding.proxy, finding.source);
    let in_force = shared.in_force();
    let Some(placed) = in_force.proxy(at) else {
        return;
    };
    let (config, farm) = (placed.config, placed.farm);
    let mut changing = shared.changing();
    let (finding, own) = without_itself(&in_force.config, config, finding);
    let (news, update) = changing.known.record(finding);
    if let Some(source) = changing.known.source(at, source) {
        say(&config.name, source, news);
        if news == News::Changed {
            for server in &own {
                let (proxy, reason) = (&config.name, ITSELF);
                tracing::warn!(proxy, server, reason, "server discovered and left out");
            }
        }
    }
    drop(changing);
    if let Some(update) = update {
        reconcile(shared, farm, &update);
    }
}

/// Makes the discovered servers of a proxy those of `update`.
pub(super) fn reconcile(shared: &Shared, farm: &Farm, update: &Update) {
    let name = farm.name();
    let done = farm.reconcile(Origin::Discovered, &update.servers);
    shared
        .changing()
        .known
        .settle(update.proxy, done.is_settled());
    tell(name, &done);
    for server in &done.held {
        let (proxy, reason) = (name, "no other is ready");
        tracing::warn!(proxy, server, reason, "server no longer discovered stays");
    }
    for (server, error) in &done.refused {
        let proxy = name;
        tracing::warn!(proxy, server, %error, "server cannot be added");
    }
}

/// Tries again what could not be done yet, with less to say about it.
pub(super) fn again(shared: &Shared) {
    let in_force = shared.in_force();
    let unsettled = shared.changing().known.unsettled();
    for update in unsettled {
        if let Some(placed) = in_force.proxy(update.proxy) {
            let (config, farm) = (placed.config, placed.farm);
            let done = farm.reconcile(Origin::Discovered, &update.servers);
            shared
                .changing()
                .known
                .settle(update.proxy, done.is_settled());
            tell(&config.name, &done);
        }
    }
}

/// Leaves out servers that are this load balancer itself: each connection to one would make
/// another, without end.
fn without_itself(config: &Config, proxy: &Proxy, finding: Finding) -> (Finding, Vec<String>) {
    let Ok(servers) = &finding.outcome else {
        return (finding, Vec::new());
    };
    let own = |server: &&ServerSpec| config::comes_back(config, proxy, server.address);
    let names: Vec<String> = servers.iter().filter(own).map(|s| s.name.clone()).collect();
    if names.is_empty() {
        return (finding, names);
    }
    let others: Vec<ServerSpec> = servers.iter().filter(|s| !own(s)).cloned().collect();
    let outcome = if others.is_empty() {
        Err(ITSELF_ALONE.to_owned())
    } else {
        Ok(others)
    };
    (Finding { outcome, ..finding }, names)
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

fn tell(proxy: &str, done: &Reconciled) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Template;
    use crate::net::clock;

    fn found(addresses: &[&str]) -> (Result<Vec<String>, String>, Vec<String>) {
        let text = "[proxy.p]\nlisten = \"127.0.0.1:80\"\nbackends-file = \"/etc/lbd/b.json\"\n";
        let config = config::load(text).unwrap();
        let servers = addresses.iter().map(|address| {
            let at = address.parse().unwrap();
            Template::default().server((*address).to_owned(), at)
        });
        let finding = Finding {
            proxy: 0,
            source: 0,
            outcome: Ok(servers.collect()),
            at: clock::now(),
        };
        let (finding, own) = without_itself(&config, &config.proxies[0], finding);
        let names = |servers: Vec<ServerSpec>| servers.into_iter().map(|s| s.name).collect();
        (finding.outcome.map(names), own)
    }

    #[test]
    fn a_proxy_never_becomes_its_own_server() {
        let (others, own) = found(&["10.0.0.1:80", "127.0.0.1:80", "127.0.0.1:81"]);
        assert_eq!(others.unwrap(), ["10.0.0.1:80", "127.0.0.1:81"]);
        assert_eq!(own, ["127.0.0.1:80"]);
        let (none, own) = found(&["127.0.0.1:80"]);
        assert_eq!(none, Err(ITSELF_ALONE.to_owned()));
        assert_eq!(own, ["127.0.0.1:80"]);
        assert_eq!(found(&["10.0.0.1:80"]).1, [""; 0]);
    }
}
