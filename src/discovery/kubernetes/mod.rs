//! The driver of a watch on a service's EndpointSlices: a list, then what changes, from one API
//! server at a time. When that one fails the next is asked, those of lb.toml first, then those that
//! were found; only when all have failed is there something to tell.

mod client;
mod slices;
mod trust;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use self::client::{Client, ClientError};
use self::slices::{SliceError, Slices};
use super::pause::Pause;
use super::task::Reporter;
use crate::config::discovery::{Kubernetes, Template};
use crate::config::model::Source;
use crate::net::clock;

/// A server ends a watch after this long; one that hangs is found out so.
const WATCH: Duration = Duration::from_secs(60);
/// How much later than that its end may come.
const SLACK: Duration = Duration::from_secs(10);
/// A session that was of use for so long was no failure when it ended.
const SERVED: Duration = Duration::from_secs(1);
/// Between two lists that follow on "too old" at once.
const LIST_AGAIN_EVERY: Duration = Duration::from_secs(5);

/// What one task follows.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub(super) service: Kubernetes,
    pub(super) template: Template,
    /// Whom to ask first.
    pub(super) seeds: Vec<SocketAddr>,
    /// From where servers are reached.
    pub(super) source: Source,
    /// What connections to servers begin with.
    pub(super) header: &'static [u8],
}

/// Why a session with one server came to its end, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The watch ran its time.
    Ran,
    /// Nobody listens to findings any more.
    Unwanted,
}

/// Follows the service for ever.
pub(super) async fn follow(cluster: Cluster, reporter: Reporter) {
    let mut watch = Watch {
        cluster,
        reporter,
        slices: Slices::default(),
        found: Vec::new(),
        progress: false,
    };
    let mut round = Round::default();
    loop {
        let servers = watch.servers();
        let Some(server) = servers.get(round.next % servers.len().max(1)).copied() else {
            return;
        };
        watch.progress = false;
        let began = clock::now();
        let error = match watch.session(server).await {
            Ok(End::Unwanted) => return,
            Ok(End::Ran) => {
                round.over();
                continue;
            }
            Err(error) => error,
        };
        let now = clock::now();
        let served = watch.progress && now.saturating_duration_since(began) >= SERVED;
        tracing::debug!(%server, %error, "watch ended");
        if matches!(error, ClientError::Said(SliceError::Gone)) && round.may_list_again(now) {
            continue;
        }
        // It may have told of others before it failed.
        let Some(wait) = round.failed(watch.servers().len(), served) else {
            continue;
        };
        let told = Err(format!("{server}: {}", one_line(&error)));
        if !watch.reporter.say(told).await {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// Whose turn it is, and how many have failed since one did not.
#[derive(Debug, Default)]
struct Round {
    next: usize,
    failed: usize,
    pause: Pause,
    listed_again: Option<Instant>,
}

impl Round {
    const fn over(&mut self) {
        self.failed = 0;
        self.pause.over();
    }

    /// Whether a server whose history was too short is asked for a list at once; not in a loop.
    fn may_list_again(&mut self, now: Instant) -> bool {
        let may = self
            .listed_again
            .is_none_or(|last| now.saturating_duration_since(last) >= LIST_AGAIN_EVERY);
        if may {
            self.listed_again = Some(now);
        }
        may
    }

    /// The next one's turn; with a wait once all `servers` have failed. One that `served` is
    /// missed only when nobody takes its place.
    fn failed(&mut self, servers: usize, served: bool) -> Option<Duration> {
        self.next = (self.next + 1) % servers.max(1);
        if served {
            self.over();
            return None;
        }
        self.failed += 1;
        if self.failed < servers {
            return None;
        }
        self.failed = 0;
        Some(self.pause.next())
    }
}

/// The error and what caused it.
fn one_line(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(present) = cause {
        let words = present.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = present.source();
    }
    text
}

struct Watch {
    cluster: Cluster,
    reporter: Reporter,
    slices: Slices,
    /// The ready endpoints as last told, to be asked too.
    found: Vec<SocketAddr>,
    /// Whether the present session brought anything.
    progress: bool,
}

impl Watch {
    /// Whom to ask: seeds first, each once.
    fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = self.cluster.seeds.clone();
        let more = self.found.iter().filter(|found| !servers.contains(found));
        let more: Vec<SocketAddr> = more.copied().collect();
        servers.extend(more);
        servers
    }

    /// One connection: a list where one is needed, then watches, until something fails.
    async fn session(&mut self, server: SocketAddr) -> Result<End, ClientError> {
        let mut client = Client::open(&self.cluster, server).await?;
        if self.slices.version().is_none() {
            let list = client.get(&self.path(None)).await?;
            self.slices.on_list(&list)?;
            if !self.tell().await {
                return Ok(End::Unwanted);
            }
        }
        let ended = self.watch(&mut client).await;
        if matches!(ended, Err(ClientError::Said(_))) {
            // What it says cannot be built upon.
            self.slices.forget();
        }
        ended
    }

    async fn watch(&mut self, client: &mut Client) -> Result<End, ClientError> {
        let path = self.path(self.slices.version());
        let began = clock::now();
        let mut lines = client.watch(&path).await?;
        loop {
            let line = timeout(WATCH + SLACK, lines.next()).await;
            let Some(line) = line.map_err(|_elapsed| ClientError::Late)?? else {
                let lasted = clock::now().saturating_duration_since(began);
                // Ended at once, by whatever it may be: not to be asked again at once.
                return if lasted < WATCH / 4 {
                    Err(ClientError::Cut)
                } else {
                    self.progress = true;
                    Ok(End::Ran)
                };
            };
            self.slices.on_event(&line)?;
            if !self.tell().await {
                return Ok(End::Unwanted);
            }
        }
    }

    /// Tells all that is ready, changed or not: it is a sign of life.
    async fn tell(&mut self) -> bool {
        self.progress = true;
        let ready = self.slices.ready(&self.cluster.service.port);
        let template = self.cluster.template;
        let servers = ready.iter().map(|at| template.server(at.to_string(), *at));
        let servers = servers.collect();
        if !ready.is_empty() {
            self.found = ready;
        }
        self.reporter.say(Ok(servers)).await
    }

    /// A list, or a watch from a version on.
    fn path(&self, version: Option<&str>) -> String {
        let Kubernetes {
            namespace, service, ..
        } = &self.cluster.service;
        let list = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices\
             ?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        );
        let Some(version) = version else {
            return list;
        };
        let version: String = version
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let seconds = WATCH.as_secs();
        format!(
            "{list}&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_served_is_no_failure_and_a_wait_comes_when_all_have_failed() {
        let mut round = Round::default();
        assert_eq!(round.failed(2, false), None);
        assert_eq!(round.failed(2, false), Some(Duration::from_secs(1)));
        assert_eq!(round.next, 0);
        assert_eq!(round.failed(2, false), None);
        assert_eq!(round.failed(2, false), Some(Duration::from_secs(2)));
        assert_eq!(round.failed(1, true), None);
        assert_eq!(round.failed(1, false), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_history_that_is_always_too_short_is_asked_for_again_at_a_pace() {
        let mut round = Round::default();
        let now = clock::now();
        assert!(round.may_list_again(now));
        assert!(!round.may_list_again(now + Duration::from_secs(4)));
        assert!(round.may_list_again(now + Duration::from_secs(5)));
    }
}
