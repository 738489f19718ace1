//! What each source found last, what is wrong with it, and the set of servers that all sources of
//! a proxy make together. Pure.

use std::time::Instant;

use crate::config::discovery::FOUND_MAX;
use crate::config::model::{Config, Proxy, Server};

/// The longest error kept, characters.
const ERROR_CHARS_MAX: usize = 160;
/// What is wrong with a source that has no server.
const NOTHING: &str = "it names no server";

/// What a source brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Position of the proxy in the file.
    pub proxy: usize,
    /// Position of the source in the proxy.
    pub source: usize,
    /// Its servers, all of them; or why it has none to tell.
    pub outcome: Result<Vec<Server>, String>,
    /// When it was found.
    pub at: Instant,
}

/// The servers of a proxy that were found, all of them, in the order of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Position of the proxy in the file.
    pub proxy: usize,
    /// Those that `backends` doesn't have.
    pub servers: Vec<Server>,
}

/// What kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `backends-file`.
    File,
    /// A host name.
    Dns,
    /// `discovery.kubernetes`.
    Kubernetes,
}

impl Kind {
    /// The word users read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dns => "dns",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What kind.
    pub kind: Kind,
    /// Which: a path, `NAME:PORT`, or `NAMESPACE/SERVICE`.
    pub label: String,
    /// What it found last.
    pub servers: Vec<Server>,
    /// When it last had a good word, even the same as before.
    pub heard: Option<Instant>,
    /// When that last differed from the one before.
    pub changed: Option<Instant>,
    /// What is wrong with it now.
    pub error: Option<String>,
    /// Words that were no good, since the process began.
    pub failures: u64,
    spoke: bool,
}

/// What a finding meant, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// As before.
    Nothing,
    /// It has a new set.
    Changed,
    /// It fails, in this way for the first time.
    Failed,
    /// It failed and has the same set again.
    Recovered,
}

/// Every source of every proxy.
#[derive(Debug, Clone, Default)]
pub struct Known {
    proxies: Vec<Of>,
}

/// The sources of one proxy, and the servers that it has anyway.
#[derive(Debug, Clone)]
struct Of {
    fixed: Vec<Server>,
    sources: Vec<Source>,
    merged: Vec<Server>,
    settled: bool,
    /// What was found before that is by sources that are gone.
    since: Option<Instant>,
}

impl Known {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            proxies: config.proxies.iter().map(Of::new).collect(),
        }
    }

    /// Other sources from here on, or other servers that the proxy has anyway. What a source found
    /// last stays known if it is there still; what was found before `now` by others is not heard.
    /// Answers the servers of all of them together.
    pub fn change(&mut self, at: usize, proxy: &Proxy, now: Instant) -> Update {
        while self.proxies.len() <= at {
            self.proxies.push(Of::nothing());
        }
        let mut next = Of::new(proxy);
        next.since = Some(now);
        if let Some(of) = self.proxies.get_mut(at) {
            for source in &mut next.sources {
                let same =
                    |before: &&Source| before.kind == source.kind && before.label == source.label;
                if let Some(before) = of.sources.iter().find(same) {
                    *source = before.clone();
                }
            }
            next.merged = next.merge();
            *of = next;
        }
        Update {
            proxy: at,
            servers: self
                .proxies
                .get(at)
                .map_or_else(Vec::new, |of| of.merged.clone()),
        }
    }

    /// The same sources as before, but other servers that the proxy has anyway. Answers the servers
    /// of all sources together.
    pub fn change_fixed(&mut self, at: usize, proxy: &Proxy) -> Update {
        let servers = self.proxies.get_mut(at).map_or_else(Vec::new, |of| {
            of.fixed.clone_from(&proxy.servers);
            of.merged = of.merge();
            of.merged.clone()
        });
        Update { proxy: at, servers }
    }

    /// Notes a finding. Answers what is new about its source, and the proxy's set if that changed.
    pub fn record(&mut self, finding: Finding) -> (News, Option<Update>) {
        let Some(of) = self.proxies.get_mut(finding.proxy) else {
            return (News::Nothing, None);
        };
        if of.since.is_some_and(|since| finding.at < since) {
            return (News::Nothing, None);
        }
        let Some(source) = of.sources.get_mut(finding.source) else {
            return (News::Nothing, None);
        };
        let news = source.note(finding.outcome, finding.at);
        if news != News::Changed {
            return (news, None);
        }
        let merged = of.merge();
        if merged == of.merged {
            return (news, None);
        }
        of.merged.clone_from(&merged);
        let update = Update {
            proxy: finding.proxy,
            servers: merged,
        };
        (news, Some(update))
    }

    /// Notes whether a proxy has the servers that were found for it, and no others.
    pub fn settle(&mut self, proxy: usize, settled: bool) {
        if let Some(of) = self.proxies.get_mut(proxy) {
            of.settled = settled;
        }
    }

    /// The sets that are not in force yet.
    #[must_use]
    pub fn unsettled(&self) -> Vec<Update> {
        let proxies = self.proxies.iter().enumerate();
        let unsettled = proxies.filter(|(_, of)| !of.settled);
        let updates = unsettled.map(|(proxy, of)| Update {
            proxy,
            servers: of.merged.clone(),
        });
        updates.collect()
    }

    /// The sources of a proxy, by their numbers.
    #[must_use]
    pub fn sources(&self, proxy: usize) -> &[Source] {
        self.proxies
            .get(proxy)
            .map_or(&[], |of| of.sources.as_slice())
    }

    /// One source.
    #[must_use]
    pub fn source(&self, proxy: usize, source: usize) -> Option<&Source> {
        self.sources(proxy).get(source)
    }

    /// Whether every source of a proxy has said something.
    #[must_use]
    pub fn has_spoken(&self, proxy: usize) -> bool {
        self.sources(proxy).iter().all(|source| source.spoke)
    }
}

/// The sources of a proxy: the file, the names in file order, Kubernetes.
fn sources(proxy: &Proxy) -> Vec<Source> {
    let discovery = &proxy.discovery;
    let file = discovery
        .file
        .iter()
        .map(|path| Source::new(Kind::File, path.display().to_string()));
    let names = discovery.dns.iter().flat_map(|dns| &dns.names);
    let names = names.map(|name| Source::new(Kind::Dns, name.to_string()));
    let kubernetes = discovery.kubernetes.iter().map(|service| {
        let label = format!("{}/{}", service.namespace, service.service);
        Source::new(Kind::Kubernetes, label)
    });
    file.chain(names).chain(kubernetes).collect()
}

impl Source {
    const fn new(kind: Kind, label: String) -> Self {
        Self {
            kind,
            label,
            servers: Vec::new(),
            heard: None,
            changed: None,
            error: None,
            failures: 0,
            spoke: false,
        }
    }

    fn note(&mut self, outcome: Result<Vec<Server>, String>, at: Instant) -> News {
        self.spoke = true;
        let judged = outcome.and_then(|servers| match servers.len() {
            0 => Err(NOTHING.to_owned()),
            1..=FOUND_MAX => Ok(servers),
            many => Err(format!("{many} servers are more than {FOUND_MAX}")),
        });
        match judged {
            Err(error) => {
                let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
                self.failures += 1;
                let new = self.error.as_ref() != Some(&error);
                self.error = Some(error);
                if new { News::Failed } else { News::Nothing }
            }
            Ok(servers) => {
                self.heard = Some(at);
                let failed = self.error.take().is_some();
                if servers != self.servers {
                    self.servers = servers;
                    self.changed = Some(at);
                    News::Changed
                } else if failed {
                    News::Recovered
                } else {
                    News::Nothing
                }
            }
        }
    }
}

impl Of {
    fn new(proxy: &Proxy) -> Self {
        Self {
            fixed: proxy.servers.clone(),
            sources: sources(proxy),
            ..Self::nothing()
        }
    }

    const fn nothing() -> Self {
        Self {
            fixed: Vec::new(),
            sources: Vec::new(),
            merged: Vec::new(),
            settled: true,
            since: None,
        }
    }

    /// Each address once, and each name: the earlier source wins, and `backends` before all.
    fn merge(&self) -> Vec<Server> {
        let mut merged: Vec<Server> = Vec::new();
        for server in self.sources.iter().flat_map(|source| &source.servers) {
            let mut present = self.fixed.iter().chain(&merged);
            let taken =
                present.any(|other| other.address == server.address || other.name == server.name);
            if !taken && merged.len() < FOUND_MAX {
                merged.push(server.clone());
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::load;
    use crate::config::model::Template;

    const TEXT: &str = "[proxy.p]\nlisten = \":6443\"\nbackends = { one = \"10.0.0.1:6443\", x = \"x.example:6443\" }\n\
        backends-file = \"/etc/lbd/b.json\"\n\
        discovery = { kubernetes = { token-file = \"/t\" }, dns = \"y.example:6443\" }\n";

    fn servers(hosts: &[u8]) -> Vec<Server> {
        let server = |host: &u8| {
            let address = format!("10.0.0.{host}:6443");
            Template::default().server(address.clone(), address.parse().unwrap())
        };
        hosts.iter().map(server).collect()
    }

    struct Scene {
        known: Known,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                known: Known::new(&load(TEXT).unwrap()),
                now: crate::net::clock::now(),
            }
        }

        fn found(&mut self, source: usize, hosts: &[u8]) -> (News, Option<Vec<String>>) {
            self.say(source, Ok(servers(hosts)))
        }

        fn failed(&mut self, source: usize, why: &str) -> (News, Option<Vec<String>>) {
            self.say(source, Err(why.to_owned()))
        }

        fn say(
            &mut self,
            source: usize,
            outcome: Result<Vec<Server>, String>,
        ) -> (News, Option<Vec<String>>) {
            self.now += Duration::from_secs(1);
            let (news, update) = self.known.record(Finding {
                proxy: 0,
                source,
                outcome,
                at: self.now,
            });
            let names = |update: Update| update.servers.into_iter().map(|s| s.name).collect();
            (news, update.map(names))
        }
    }

    fn names(hosts: &[u8]) -> Option<Vec<String>> {
        Some(hosts.iter().map(|h| format!("10.0.0.{h}:6443")).collect())
    }

    #[test]
    fn sources_stand_in_the_order_file_names_kubernetes() {
        let scene = Scene::new();
        let seen: Vec<_> = scene
            .known
            .sources(0)
            .iter()
            .map(|source| (source.kind.word(), source.label.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("file", "/etc/lbd/b.json"),
                ("dns", "x.example:6443"),
                ("dns", "y.example:6443"),
                ("kubernetes", "default/kubernetes")
            ]
        );
    }

    #[test]
    fn an_address_that_several_sources_have_is_one_server_and_backends_keep_theirs() {
        let mut scene = Scene::new();
        assert_eq!(scene.found(1, &[1, 3, 2]), (News::Changed, names(&[3, 2])));
        assert_eq!(scene.found(0, &[2, 4]), (News::Changed, names(&[2, 4, 3])));
        // What it adds is all known already.
        assert_eq!(scene.found(3, &[1, 2, 3, 4]), (News::Changed, None));
        // The others still have them.
        assert_eq!(scene.found(0, &[5]), (News::Changed, names(&[5, 3, 2, 4])));
    }

    #[test]
    fn no_failure_and_no_empty_word_takes_a_server_away() {
        let mut scene = Scene::new();
        scene.found(1, &[2, 3]);
        assert_eq!(scene.failed(1, "timed out"), (News::Failed, None));
        assert_eq!(scene.failed(1, "timed out"), (News::Nothing, None));
        assert_eq!(scene.found(1, &[]), (News::Failed, None));
        let source = scene.known.source(0, 1).unwrap();
        assert_eq!(source.servers.len(), 2);
        assert_eq!(source.error.as_deref(), Some("it names no server"));
        assert_eq!(source.failures, 3);
        assert_eq!(source.heard, source.changed);
        assert_eq!(scene.found(1, &[2, 3]), (News::Recovered, None));
        let source = scene.known.source(0, 1).unwrap();
        assert_eq!(source.error, None);
        assert_eq!(source.heard, Some(scene.now));
        assert_eq!(
            source.changed,
            scene.now.checked_sub(Duration::from_secs(4))
        );
        assert_eq!(scene.found(1, &[3]), (News::Changed, names(&[3])));
    }

    #[test]
    fn more_than_the_table_holds_is_no_word_at_all() {
        let mut scene = Scene::new();
        let template = Template::default();
        let many: Vec<Server> = (1..=513_u16)
            .map(|port| template.server(port.to_string(), ([10, 0, 0, 9], port).into()))
            .collect();
        assert_eq!(scene.say(0, Ok(many)), (News::Failed, None));
        let error = scene.known.source(0, 0).unwrap().error.clone();
        assert_eq!(error.as_deref(), Some("513 servers are more than 512"));
    }

    #[test]
    fn all_have_spoken_once_each_has_said_anything() {
        let mut scene = Scene::new();
        for source in 0..4 {
            assert!(!scene.known.has_spoken(0));
            scene.failed(source, "no");
        }
        assert!(scene.known.has_spoken(0));
    }

    #[test]
    fn a_finding_of_nobody_is_ignored() {
        let mut scene = Scene::new();
        assert_eq!(scene.found(9, &[1]), (News::Nothing, None));
    }

    #[test]
    fn sources_that_stay_keep_what_they_found_and_late_words_of_those_that_left_are_not_heard() {
        let mut scene = Scene::new();
        scene.found(0, &[2]);
        scene.found(1, &[3]);
        let text = TEXT.replace("backends-file = \"/etc/lbd/b.json\"\n", "");
        let after = load(&text).unwrap();
        scene.now += Duration::from_secs(1);
        let late = scene.now;
        scene.now += Duration::from_secs(1);
        let update = scene.known.change(0, &after.proxies[0], scene.now);
        let named = |servers: Vec<Server>| servers.into_iter().map(|s| s.name).collect();
        assert_eq!(Some(named(update.servers)), names(&[3]));
        // The file was number 0, which now is x.example.
        let word = Finding {
            proxy: 0,
            source: 0,
            outcome: Ok(servers(&[9])),
            at: late,
        };
        assert_eq!(scene.known.record(word), (News::Nothing, None));
        assert_eq!(scene.found(0, &[4]), (News::Changed, names(&[4])));
        // An address that `backends` has from here on is no discovered server any more.
        let mut fixed = after.proxies[0].clone();
        fixed.servers = servers(&[4]);
        assert_eq!(scene.known.change_fixed(0, &fixed).servers, []);
    }
}
