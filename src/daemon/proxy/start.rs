//! The beginning of a proxy process: what the keeper hands over, and the probes made from it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ProxyError;
use super::link::{Link, RECONNECT_EVERY};
use super::tapes::Lasting;
use crate::config;
use crate::config::model::{Config, Proxy, Server};
use crate::health::probe::Probe;
use crate::health::tls::CLUSTER_CA;
use crate::ipc::confinement::Confinement;
use crate::ipc::event::Event;
use crate::ipc::message::{Hello, ListenerGroup, ToKeeper, ToProxy, VrrpStatus, Welcome};
use crate::ipc::tally::Page;
use crate::net::memfd;
use crate::proxy::engine::Listeners;
use crate::proxy::pp;
use crate::proxy::shares::{Column, Shares};

/// A proxy process that no keeper wants for this long ends.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);

/// The table of limits, as the keeper handed it over.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// This process's part of it.
    pub(super) column: Option<Column>,
    /// Other processes have theirs.
    pub(super) beside: bool,
}

/// Everything the keeper handed over.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) link: Link,
    pub(super) welcome: Welcome,
    pub(super) config: Config,
    pub(super) digest: u64,
    pub(super) listeners: Listeners,
    /// The last word about virtual routers, if one came already.
    pub(super) vrrp: Option<VrrpStatus>,
    /// What keeper and runner may do.
    pub(super) confined: Vec<Confinement>,
    /// What happened before this process was there.
    pub(super) events: Vec<Event>,
    /// The limits that it keeps together with other processes.
    pub(super) table: Table,
    /// Of the processes before this one.
    pub(super) before: Before,
    /// Where its tapes outlast it.
    pub(super) lasting: Option<Lasting>,
}

/// What processes before this one counted.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// One serves, and will tell.
    pub(super) succeeds: bool,
    /// What was told already.
    pub(super) pages: Vec<Page>,
}

/// Finds the keeper and takes over what it hands out.
pub(super) async fn begin(path: &Path) -> Result<Begin, ProxyError> {
    let welcomed = async {
        let link = loop {
            match Link::connect(path) {
                Ok(link) => break link,
                Err(_not_there_yet) => tokio::time::sleep(RECONNECT_EVERY).await,
            }
        };
        link.send(&ToKeeper::Hello(hello(0, false)), &[])
            .await
            .map_err(ProxyError::KeeperLost)?;
        receive_all(link).await
    };
    tokio::time::timeout(WELCOME_WITHIN, welcomed)
        .await
        .unwrap_or_else(|_elapsed| {
            Err(ProxyError::NoKeeper {
                path: path.to_owned(),
                waited: WELCOME_WITHIN,
            })
        })
}

/// Who this process is.
pub(super) fn hello(config_digest: u64, serving: bool) -> Hello {
    Hello {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest,
        serving,
    }
}

async fn receive_all(mut link: Link) -> Result<Begin, ProxyError> {
    let mut welcomed: Option<(Welcome, Config, u64)> = None;
    let mut listeners = Listeners::new();
    let mut vrrp = None;
    let mut confined = Vec::new();
    let mut events = Vec::new();
    let mut table = Table::default();
    let mut before = Before::default();
    let mut lasting = None;
    loop {
        let (message, fds) = link.receive().await.map_err(ProxyError::KeeperLost)?;
        match message {
            ToProxy::Welcome(welcome) => {
                let mut fds = fds.into_iter();
                let (fds, second) = (fds.next().into_iter().collect(), fds.next());
                lasting = second.and_then(Lasting::map);
                let text = read_text(fds)?;
                let config = config::load(&text).map_err(|p| ProxyError::Config(p.len()))?;
                listeners = empty_listeners(&config);
                welcomed = Some((welcome, config, config::digest(&text)));
            }
            ToProxy::Listeners(group) => put(&mut listeners, group, fds)?,
            ToProxy::ListenersDone => {
                let Some((welcome, config, digest)) = welcomed else {
                    return Err(ProxyError::Handshake("listeners without a welcome"));
                };
                if listeners.iter().flatten().any(Vec::is_empty) {
                    return Err(ProxyError::Handshake("no socket for a `listen` entry"));
                }
                return Ok(Begin {
                    link,
                    welcome,
                    config,
                    digest,
                    listeners,
                    vrrp,
                    confined,
                    events,
                    table,
                    before,
                    lasting,
                });
            }
            ToProxy::Vrrp(status) => vrrp = Some(*status),
            ToProxy::Shares { column: own } => table.column = shares(own, fds),
            ToProxy::Share { shared } => table.beside = shared,
            ToProxy::Succeeds => before.succeeds = true,
            ToProxy::Tally(page) => before.pages.push(page),
            ToProxy::Events(more) => events.extend(more),
            // The first probes begin with the process anyway.
            ToProxy::Confined(others) => confined = others,
            ToProxy::ResetLocal(_) | ToProxy::Probe | ToProxy::Outcome { .. } => {}
            // It has told its machines nothing yet.
            ToProxy::Record(_) => {}
            // A process that doesn't serve yet is not asked to reload.
            ToProxy::Prepare { .. } | ToProxy::Commit { .. } | ToProxy::Abort { .. } => {}
            ToProxy::Stop { .. } | ToProxy::Drain { .. } => {
                return Err(ProxyError::KeeperLost(
                    io::ErrorKind::ConnectionAborted.into(),
                ));
            }
        }
    }
}

/// The table of limits beside a message; `None`: it is another version's.
fn shares(column: u8, fds: Vec<OwnedFd>) -> Option<Column> {
    let table = fds.into_iter().next().map(Shares::open)?;
    match table {
        Ok(shares) => Some(Column {
            shares: Arc::new(shares),
            column,
        }),
        Err(error) => {
            tracing::warn!(%error, "limits hold for each process alone");
            None
        }
    }
}

/// The text of lb.toml from the memory file beside a welcome.
pub(super) fn read_text(fds: Vec<OwnedFd>) -> Result<String, ProxyError> {
    let fd = fds
        .into_iter()
        .next()
        .ok_or(ProxyError::Handshake("a welcome without a configuration"))?;
    let bytes = memfd::read_sealed(fd).map_err(ProxyError::KeeperLost)?;
    String::from_utf8(bytes).map_err(|_bad| ProxyError::Handshake("a text that is not UTF-8"))
}

fn empty_listeners(config: &Config) -> Listeners {
    let groups = |count: usize| (0..count).map(|_| Vec::new()).collect();
    let proxies = config.proxies.iter();
    proxies.map(|proxy| groups(proxy.listen.len())).collect()
}

fn put(
    listeners: &mut Listeners,
    group: ListenerGroup,
    fds: Vec<OwnedFd>,
) -> Result<(), ProxyError> {
    if fds.len() != usize::from(group.count) {
        return Err(ProxyError::Handshake("fewer sockets than it said"));
    }
    listeners
        .get_mut(usize::from(group.proxy))
        .and_then(|groups| groups.get_mut(usize::from(group.listen)))
        .ok_or(ProxyError::Handshake(
            "sockets of a `listen` entry that is not there",
        ))?
        .extend(fds);
    Ok(())
}

/// One probe per server, `[proxy][server]`, with its files read.
pub(super) fn probes(config: &Config) -> Result<Vec<Vec<Probe>>, ProxyError> {
    let mut all = Vec::with_capacity(config.proxies.len());
    for proxy in &config.proxies {
        let mut of_proxy = Vec::with_capacity(proxy.servers.len());
        for server in &proxy.servers {
            of_proxy.push(probe(proxy, server)?);
        }
        if of_proxy.iter().any(Probe::is_unverified) {
            tracing::warn!(
                proxy = proxy.name,
                reason = "no ca-file",
                "check does not verify certificates, and sends no credentials"
            );
        }
        all.push(of_proxy);
    }
    Ok(all)
}

/// The probe of one server, with its files read.
pub(super) fn probe(proxy: &Proxy, server: &Server) -> Result<Probe, ProxyError> {
    let probe = Probe::new(&proxy.check, server.check_address, Path::new(CLUSTER_CA));
    let probe = probe.map_err(|source| ProxyError::Check {
        proxy: proxy.name.clone(),
        server: server.name.clone(),
        source: Box::new(source),
    })?;
    let send = proxy.proxy_protocol.as_ref().and_then(|pp| pp.send);
    let source = proxy.source.fixed_for(server.check_address.ip());
    Ok(probe
        .from_source(source)
        .beginning_with(send.map_or(&[], pp::own)))
}
