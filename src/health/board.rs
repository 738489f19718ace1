//! What is known of every server, for status, metrics, the keeper and the next process. Pure.

use std::time::{Duration, Instant};

use super::probe::Verdict;
use super::task::Finding;
use crate::config::model::Config;
use crate::ipc::message::ServerSnapshot;
use crate::metrics::spans::Spans;

/// Verdicts of a previous process that are older than this are not believed.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(10);

/// All servers of all proxies, by place.
#[derive(Debug, Clone)]
pub struct Board {
    proxies: Vec<ProxyBoard>,
}

/// The servers of one proxy.
#[derive(Debug, Clone)]
pub struct ProxyBoard {
    name: String,
    servers: Vec<Option<Health>>,
    epoch: Epoch,
    /// Every server that was there at the start had its verdict once.
    probed: bool,
    /// All its servers have yet to be discovered, so that it is not probed without any.
    undiscovered: bool,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub name: String,
    /// Whether it is probed at all; a disabled server is not.
    pub watched: bool,
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
    /// How long each of them took.
    pub spans: Spans,
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
                .map(|server| Some(Health::unknown(&server.name, !server.disabled, now)))
                .collect(),
            epoch: Epoch::default(),
            probed: false,
            undiscovered: proxy.servers.is_empty(),
        });
        Self {
            proxies: proxies.collect(),
        }
    }

    /// A proxy comes, or comes back: its servers are added one by one, and it counts as probed once
    /// [`Self::discovered`] was said and all of them were. `at` is the place of one that has gone,
    /// or the next free number.
    pub fn begin(&mut self, at: usize, name: &str) {
        let board = ProxyBoard {
            name: name.to_owned(),
            servers: Vec::new(),
            epoch: Epoch::default(),
            probed: false,
            undiscovered: true,
        };
        match self.proxies.get_mut(at) {
            Some(gone) => *gone = board,
            None => self.proxies.push(board),
        }
    }

    /// A proxy has gone.
    pub fn end(&mut self, at: usize) {
        if let Some(proxy) = self.proxies.get_mut(at) {
            proxy.servers.clear();
        }
    }

    /// A server has come to a place. That it is not probed yet is no concern of a proxy that was.
    pub fn add(&mut self, proxy: usize, place: usize, name: &str, watched: bool, now: Instant) {
        let Some(proxy) = self.proxies.get_mut(proxy) else {
            return;
        };
        proxy.probed |= proxy.is_probed();
        if proxy.servers.len() <= place {
            proxy.servers.resize(place + 1, None);
        }
        if let Some(seat) = proxy.servers.get_mut(place) {
            *seat = Some(Health::unknown(name, watched, now));
        }
    }

    /// Every source of a proxy's servers has spoken; those that were found are here.
    pub fn discovered(&mut self, proxy: usize) {
        if let Some(proxy) = self.proxies.get_mut(proxy) {
            proxy.undiscovered = false;
        }
    }

    /// Before anything was probed: whether this server will be.
    pub fn watch(&mut self, proxy: usize, place: usize, watched: bool) {
        let proxy = self.proxies.get_mut(proxy);
        if let Some(Some(server)) = proxy.and_then(|proxy| proxy.servers.get_mut(place)) {
            server.watched = watched;
        }
    }

    /// A server has gone.
    pub fn remove(&mut self, proxy: usize, place: usize) {
        let proxy = self.proxies.get_mut(proxy);
        if let Some(seat) = proxy.and_then(|proxy| proxy.servers.get_mut(place)) {
            *seat = None;
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
        let Some(Some(server)) = proxy.servers.get_mut(finding.server) else {
            return;
        };
        server.checks += 1;
        server.failures += u64::from(!ready);
        let took = finding.finished.saturating_duration_since(finding.started);
        server.took = Some(took);
        server.spans.add(took);
        server.checked = Some(finding.finished);
        server.last = Some(finding.verdict.clone());
        server.counter = finding.counter;
        let up = finding.health.is_ready();
        if server.up != Some(up) {
            server.transitions += u64::from(server.up.is_some());
            server.up = Some(up);
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
            .position(|server| server.as_ref().is_some_and(|s| s.name == old.server))?;
        let server = servers.get_mut(at)?.as_mut()?;
        server.up = Some(old.up);
        server.checked = Some(now.checked_sub(age).unwrap_or(now));
        server.since = now;
        Some((proxy, at))
    }

    /// Whether every watched server of this proxy has a verdict.
    #[must_use]
    pub fn is_probed(&self, proxy: usize) -> bool {
        self.proxies.get(proxy).is_some_and(ProxyBoard::is_probed)
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

    /// When the last probe of the server at this place was finished.
    #[must_use]
    pub fn checked(&self, proxy: usize, place: usize) -> Option<Instant> {
        self.servers(proxy).get(place)?.as_ref()?.checked
    }

    /// The servers of one proxy, by place.
    #[must_use]
    pub fn servers(&self, proxy: usize) -> &[Option<Health>] {
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
            let servers = proxy.servers.iter().enumerate();
            for (at, server) in servers.filter_map(|(at, s)| Some((at, s.as_ref()?))) {
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

impl ProxyBoard {
    fn is_probed(&self) -> bool {
        let mut servers = self.servers.iter().flatten();
        let all = servers.all(|server| server.up.is_some() || !server.watched);
        self.probed || (all && !self.undiscovered)
    }
}

impl Health {
    fn unknown(name: &str, watched: bool, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            watched,
            up: None,
            last: None,
            counter: (0, 0),
            since: now,
            checked: None,
            took: None,
            spans: Spans::default(),
            checks: 0,
            failures: 0,
            transitions: 0,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::fsm::{self, Change, State};

    fn config() -> Config {
        let text = "[proxy.p]\nlisten = \"127.0.0.1:6443\"\n[proxy.p.backends]\n\
                    a = \"127.0.0.1:1\"\nb = \"127.0.0.1:2\"\n\
                    c = { address = \"127.0.0.1:3\", disabled = true }\n";
        crate::config::load(text).unwrap()
    }

    fn finding(server: usize, up: bool, started: Instant, finished: Instant) -> Finding {
        Finding {
            proxy: 0,
            server,
            verdict: if up {
                Verdict::Ready
            } else {
                Verdict::Unresponsive("connection refused".to_owned())
            },
            health: if up {
                fsm::Health::Ready
            } else {
                fsm::Health::Unresponsive
            },
            counter: (2, 2),
            change: Some(Change {
                from: State::Unknown,
                to: State::UP,
            }),
            started,
            finished,
        }
    }

    fn server(board: &Board, place: usize) -> &Health {
        board.servers(0)[place].as_ref().unwrap()
    }

    fn old(server: &str, up: bool, age: u64) -> ServerSnapshot {
        ServerSnapshot {
            proxy: "p".to_owned(),
            server: server.to_owned(),
            up,
            verdict_age_ms: age,
            ramp_ms: None,
        }
    }

    #[test]
    fn a_proxy_is_probed_when_each_watched_server_has_a_verdict() {
        let now = crate::net::clock::now();
        let mut board = Board::new(&config(), now);
        assert!(!board.is_probed(0));
        board.record(&finding(0, true, now, now));
        assert!(!board.is_probed(0));
        board.record(&finding(1, false, now, now));
        assert!(board.is_probed(0) && board.is_all_probed());
        assert!(!board.is_probed(1));
    }

    #[test]
    fn only_young_verdicts_about_present_servers_are_restored() {
        let now = crate::net::clock::now();
        let mut board = Board::new(&config(), now);
        assert_eq!(board.restore(&old("a", true, 10_000), now), Some((0, 0)));
        assert_eq!(board.restore(&old("b", true, 10_001), now), None);
        assert_eq!(board.restore(&old("gone", true, 0), now), None);
        assert_eq!(server(&board, 0).up, Some(true));
        assert_eq!(server(&board, 1).up, None);
        let passed_on = board.snapshot(now, |_, _| None);
        assert_eq!(passed_on, [old("a", true, 10_000)]);
    }

    #[test]
    fn the_epoch_counts_only_probes_started_after_the_last_count() {
        let start = crate::net::clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut board = Board::new(&config(), start);
        board.record(&finding(0, true, at(0), at(10)));
        assert_eq!(board.probe_epoch(0), 1);
        // In flight together with the first one: proves nothing newer.
        board.record(&finding(1, true, at(5), at(12)));
        assert_eq!(board.probe_epoch(0), 1);
        board.record(&finding(1, false, at(20), at(21)));
        assert_eq!(board.probe_epoch(0), 1);
        board.record(&finding(0, true, at(20), at(22)));
        assert_eq!(board.probe_epoch(0), 2);
    }

    #[test]
    fn one_that_comes_later_leaves_the_proxy_probed_and_the_place_of_one_that_went_is_empty() {
        let now = crate::net::clock::now();
        let mut board = Board::new(&config(), now);
        board.record(&finding(0, true, now, now));
        board.add(0, 3, "d", true, now);
        assert!(!board.is_probed(0));
        board.remove(0, 3);
        board.record(&finding(1, true, now, now));
        board.add(0, 4, "e", true, now);
        assert!(board.is_probed(0));
        board.record(&finding(3, true, now, now));
        assert_eq!(board.servers(0)[3], None);
        board.record(&finding(4, false, now, now));
        assert_eq!(server(&board, 4).up, Some(false));
        assert_eq!(board.snapshot(now, |_, _| None).len(), 3);
    }

    #[test]
    fn a_proxy_whose_servers_are_discovered_is_probed_once_those_of_all_sources_are() {
        let now = crate::net::clock::now();
        let text = "[proxy.p]\nlisten = \":1\"\nbackends-file = \"/etc/lbd/b.json\"\n";
        let mut board = Board::new(&crate::config::load(text).unwrap(), now);
        assert!(!board.is_probed(0));
        board.add(0, 0, "a", true, now);
        board.record(&finding(0, true, now, now));
        board.add(0, 1, "b", true, now);
        assert!(!board.is_probed(0));
        board.discovered(0);
        assert!(!board.is_all_probed());
        board.record(&finding(1, false, now, now));
        assert!(board.is_all_probed());
        board.add(0, 2, "c", true, now);
        assert!(board.is_all_probed());
    }

    #[test]
    fn transitions_count_changes_but_not_the_first_verdict() {
        let now = crate::net::clock::now();
        let mut board = Board::new(&config(), now);
        for up in [true, true, false, true] {
            board.record(&finding(0, up, now, now));
        }
        let server = server(&board, 0);
        assert_eq!(
            (server.checks, server.failures, server.transitions),
            (4, 1, 2)
        );
    }
}
