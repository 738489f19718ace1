//! What is known of every server, for status, metrics, the keeper and the next process. Pure.

use std::time::{Duration, Instant};

use super::probe::Verdict;
use super::task::Finding;
use crate::config::model::Config;
use crate::ipc::message::ServerSnapshot;

/// Verdicts of a previous process that are older than this are not believed.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(10);

/// All servers of all proxies, in the file's order.
#[derive(Debug, Clone)]
pub struct Board {
    proxies: Vec<ProxyBoard>,
}

/// The servers of one proxy.
#[derive(Debug, Clone)]
pub struct ProxyBoard {
    name: String,
    servers: Vec<Health>,
    epoch: Epoch,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// By the rules; `None`: no verdict yet.
    pub up: Option<bool>,
    /// What the last probe of this process found.
    pub last: Option<Verdict>,
    /// The counter: results in a row, and how many of them turn the verdict.
    pub counter: (u16, u16),
    /// When `up` last changed.
    pub since: Instant,
    /// When the last probe was finished; backdated for a restored verdict.
    pub checked: Option<Instant>,
    /// How long the last probe took.
    pub took: Option<Duration>,
    /// Finished probes.
    pub checks: u64,
    /// Those that were no success.
    pub failures: u64,
    /// Changes of verdict, the first one apart.
    pub transitions: u64,
}

/// Counts successes of probes that were started after the previous count, so that "has a probe
/// succeeded since I asked?" can be answered from outside.
#[derive(Debug, Clone, Copy, Default)]
struct Epoch {
    count: u64,
    counted: Option<Instant>,
}

impl Epoch {
    fn on_success(&mut self, started: Instant, finished: Instant) {
        if self.counted.is_none_or(|counted| started >= counted) {
            self.count += 1;
            self.counted = Some(finished);
        }
    }
}

impl Board {
    /// Nothing is known.
    #[must_use]
    pub fn new(config: &Config, now: Instant) -> Self {
        let proxies = config.proxies.iter().map(|proxy| ProxyBoard {
            name: proxy.name.clone(),
            servers: proxy
                .servers
                .iter()
                .map(|server| Health::unknown(&server.name, now))
                .collect(),
            epoch: Epoch::default(),
        });
        Self {
            proxies: proxies.collect(),
        }
    }

    /// Takes a finding in.
    pub fn record(&mut self, finding: &Finding) {
        let Some(proxy) = self.proxies.get_mut(finding.proxy) else {
            return;
        };
        let ready = finding.verdict.is_ready();
        if ready {
            proxy.epoch.on_success(finding.started, finding.finished);
        }
        let Some(server) = proxy.servers.get_mut(finding.server) else {
            return;
        };
        server.checks += 1;
        server.failures += u64::from(!ready);
        server.took = Some(finding.finished.saturating_duration_since(finding.started));
        server.checked = Some(finding.finished);
        server.last = Some(finding.verdict.clone());
        server.counter = finding.counter;
        if server.up != Some(finding.up) {
            server.transitions += u64::from(server.up.is_some());
            server.up = Some(finding.up);
            server.since = finding.finished;
        }
    }

    /// Takes over a previous process's verdict, if it is young enough and about a server that is
    /// still there. Says which server that is: position of the proxy and of the server.
    pub fn restore(&mut self, old: &ServerSnapshot, now: Instant) -> Option<(usize, usize)> {
        let age = Duration::from_millis(old.verdict_age_ms);
        if age > SNAPSHOT_AGE_MAX {
            return None;
        }
        let proxy = self.proxies.iter().position(|p| p.name == old.proxy)?;
        let servers = &mut self.proxies.get_mut(proxy)?.servers;
        let at = servers
            .iter()
            .position(|server| server.name == old.server)?;
        let server = servers.get_mut(at)?;
        server.up = Some(old.up);
        server.checked = Some(now.checked_sub(age).unwrap_or(now));
        server.since = now;
        Some((proxy, at))
    }

    /// Whether every server of this proxy has a verdict.
    #[must_use]
    pub fn is_probed(&self, proxy: usize) -> bool {
        self.proxies
            .get(proxy)
            .is_some_and(|proxy| proxy.servers.iter().all(|server| server.up.is_some()))
    }

    /// Whether every server of every proxy has a verdict.
    #[must_use]
    pub fn is_all_probed(&self) -> bool {
        (0..self.proxies.len()).all(|proxy| self.is_probed(proxy))
    }

    /// The proxy's epoch; see [`crate::ipc::message::ProxyServing::probe_epoch`].
    #[must_use]
    pub fn probe_epoch(&self, proxy: usize) -> u64 {
        self.proxies.get(proxy).map_or(0, |proxy| proxy.epoch.count)
    }

    /// The servers of one proxy, in the file's order.
    #[must_use]
    pub fn servers(&self, proxy: usize) -> &[Health] {
        self.proxies.get(proxy).map_or(&[], |proxy| &proxy.servers)
    }

    /// What the next process should know. `ramp` tells the slowstart time already passed.
    #[must_use]
    pub fn snapshot(
        &self,
        now: Instant,
        ramp: impl Fn(usize, usize) -> Option<Duration>,
    ) -> Vec<ServerSnapshot> {
        let mut all = Vec::new();
        for (proxy_at, proxy) in self.proxies.iter().enumerate() {
            for (at, server) in proxy.servers.iter().enumerate() {
                let (Some(up), Some(checked)) = (server.up, server.checked) else {
                    continue;
                };
                all.push(ServerSnapshot {
                    proxy: proxy.name.clone(),
                    server: server.name.clone(),
                    up,
                    verdict_age_ms: millis(now.saturating_duration_since(checked)),
                    ramp_ms: ramp(proxy_at, at).map(millis),
                });
            }
        }
        all
    }
}

impl Health {
    fn unknown(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            up: None,
            last: None,
            counter: (0, 0),
            since: now,
            checked: None,
            took: None,
            checks: 0,
            failures: 0,
            transitions: 0,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
