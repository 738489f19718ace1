//! Verdicts come in here, from checks and from the data path, and what follows from them goes out:
//! to the workers, to those who check servers, and to the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Farm, millis};
use crate::health::fsm::Health;
use crate::net::clock;
use crate::proxy::counters::{ServerCount, WorkerCounters};
use crate::proxy::dispatch::Dispatch;
use crate::proxy::dispatch::verdicts::{Checked, News};
use crate::proxy::mailbox::Message;
use crate::proxy::server::Server;
use crate::proxy::unanswered::Tally;

/// What a farm calls when a server is to be checked at once.
pub type Alarm = Arc<dyn Fn() + Send + Sync>;

/// Which servers are to be checked at once.
pub(super) struct Suspects {
    marks: Vec<AtomicBool>,
    alarm: OnceLock<Alarm>,
}

impl std::fmt::Debug for Suspects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Suspects").field(&self.marks).finish()
    }
}

impl Suspects {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            marks: (0..servers).map(|_| AtomicBool::new(false)).collect(),
            alarm: OnceLock::new(),
        }
    }

    /// The place has another user.
    pub(super) fn forget(&self, server: usize) {
        if let Some(mark) = self.marks.get(server) {
            mark.store(false, Ordering::Release);
        }
    }

    fn mark(&self, server: usize) {
        let Some(mark) = self.marks.get(server) else {
            return;
        };
        // Told once until it is taken.
        if !mark.swap(true, Ordering::AcqRel)
            && let Some(alarm) = self.alarm.get()
        {
            alarm();
        }
    }
}

/// What stands behind a server's operational state, and beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Standing {
    /// `ready`, `not-ready` or `unresponsive`, by the rules; `None`: no verdict yet.
    pub verdict: Option<&'static str>,
    /// Milliseconds since it was ejected; `None`: it is not.
    pub ejected_ms: Option<u64>,
    /// Why it was ejected.
    pub ejected_for: Option<&'static str>,
    /// Successes in a row that it still needs to be believed after many outages; 0: it is.
    pub missing: u16,
    /// Its established connections are being closed.
    pub closing: bool,
    /// How often traffic made it suspect.
    pub suspicions: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

impl Standing {
    pub(super) fn new(server: &Server, now: Instant) -> Self {
        let ejected = server.evidence.ejected();
        Self {
            verdict: server.health().map(Health::word),
            ejected_ms: ejected.map(|e| millis(now.saturating_duration_since(e.since))),
            ejected_for: ejected.map(|e| e.grounds.word()),
            missing: server.damping.missing(),
            closing: server.closing(),
            suspicions: server.evidence.suspicions(),
            ejections: server.evidence.ejections(),
        }
    }
}

impl Farm {
    /// A verdict without the check it comes from. DOWN→UP starts slowstart, the first verdict
    /// doesn't; UP→DOWN sends connects in flight elsewhere.
    pub fn set_health(&self, server: usize, health: Health, now: Instant) {
        self.judge(|dispatch| dispatch.set_health(server, health, now));
    }

    /// Ready, or alive and not ready.
    pub fn set_up(&self, server: usize, up: bool, now: Instant) {
        self.set_health(server, Health::up_or_not(up), now);
    }

    /// A check of a server has finished.
    pub fn on_check(&self, server: usize, checked: Checked, now: Instant) {
        self.judge(|dispatch| dispatch.on_check(server, checked, now));
    }

    /// Has `alarm` called, on any thread, when [`Farm::take_suspect`] has something to tell. The
    /// first caller is heard.
    pub fn set_alarm(&self, alarm: Alarm) {
        if self.suspects.alarm.set(alarm).is_err() {
            tracing::debug!(proxy = self.name(), "somebody listens already");
        }
    }

    /// Whether a server is to be checked at once.
    #[must_use]
    pub fn is_suspect(&self, server: usize) -> bool {
        let mark = self.suspects.marks.get(server);
        mark.is_some_and(|mark| mark.load(Ordering::Acquire))
    }

    /// The same; the question is settled then.
    #[must_use]
    pub fn take_suspect(&self, server: usize) -> bool {
        let mark = self.suspects.marks.get(server);
        mark.is_some_and(|mark| mark.swap(false, Ordering::AcqRel))
    }

    /// A connect to `server` failed.
    pub fn suspect(&self, server: usize) {
        let connected = self.sum(server, ServerCount::Connected);
        let now = clock::now();
        self.judge(|dispatch| dispatch.connect_failed(server, connected, now));
    }

    /// A connect to `server` has had no answer for `waited`, and a later one to another server had.
    pub fn silent(&self, server: usize, waited: Duration) {
        let connected = self.sum(server, ServerCount::Connected);
        let now = clock::now();
        let began = now.checked_sub(waited).unwrap_or(now);
        self.judge(|dispatch| dispatch.connect_silent(server, connected, began, now));
    }

    /// `server` ended a connection as soon as it had it, before it had answered.
    pub fn broke_off(&self, server: usize) {
        let (mut answered, mut elsewhere) = (0, 0);
        for (place, _) in self.roster().present() {
            let sum = if place == server {
                &mut answered
            } else {
                &mut elsewhere
            };
            *sum += self.sum(place, ServerCount::Answered);
        }
        let now = clock::now();
        self.judge(|dispatch| dispatch.broke_off(server, answered, elsewhere, now));
    }

    /// Looks whether clients are answered; the control thread calls this each 50 ms. Only where the
    /// client speaks first is a server that says nothing late.
    pub fn watch(&self, now: Instant) {
        if !self.config().client_first {
            return;
        }
        let roster = self.roster();
        let tallies = roster.present().map(|(place, _)| {
            // In this order: an answer that comes meanwhile is one too many, never one too few.
            let asked = self.sum(place, ServerCount::Asked);
            let tally = Tally {
                asked,
                unanswered: self.sum(place, ServerCount::Unanswered),
                waited: self.sum(place, ServerCount::AnswerMicros),
                answered: self.sum(place, ServerCount::Answered),
            };
            (place, tally)
        });
        let tallies: Vec<(usize, Tally)> = tallies.collect();
        self.judge(|dispatch| dispatch.watch_answers(&tallies, now));
    }

    /// Whether the established connections of a server are to be closed, at this moment.
    #[must_use]
    pub fn closes(&self, server: usize) -> bool {
        self.dispatch().closes(server)
    }

    /// Servers that could serve as far as checks and the operator say: what this node can do, which
    /// what its own traffic met lately does not change.
    #[must_use]
    pub fn able(&self) -> usize {
        self.dispatch().able()
    }

    fn sum(&self, server: usize, what: ServerCount) -> u64 {
        let counters = self.attached.get().map(|attached| &attached.counters);
        let each = |counters: &Arc<WorkerCounters>| counters.of_server(server, what);
        counters.into_iter().flatten().map(each).sum()
    }

    /// Runs `change` under the lock, and tells what follows from it outside of it.
    pub(super) fn judge<T>(&self, change: impl FnOnce(&mut Dispatch) -> T) -> T {
        let (outcome, news) = self.change(|dispatch| {
            let outcome = change(dispatch);
            (outcome, dispatch.take_news())
        });
        for one in news {
            self.tell(one);
        }
        outcome
    }

    fn tell(&self, news: News) {
        match news {
            News::Elsewhere(server) => {
                self.doubts.clear(server);
                self.tell_server_down(server);
            }
            News::Close(server) => self.tell_close(server),
            News::Check(server) => self.suspects.mark(server),
            News::Suspect(_)
            | News::Ejected(..)
            | News::Returned(..)
            | News::Held(..)
            | News::Believed(_)
            | News::Panic(_) => {}
        }
        self.say(news);
    }

    fn tell_close(&self, server: usize) {
        if let Some(attached) = self.attached.get() {
            let proxy = attached.proxy;
            for mailbox in &attached.mailboxes {
                mailbox.post(Message::CloseServer { proxy, server });
            }
        }
    }

    fn server_name(&self, server: usize) -> String {
        let member = self.member(server);
        member.map_or_else(String::new, |member| member.name.clone())
    }

    fn say(&self, news: News) {
        let proxy = self.name();
        match news {
            News::Elsewhere(_) | News::Check(_) => {}
            News::Close(server) => {
                // Most servers that are found dead have none.
                if self
                    .board
                    .slots(server)
                    .is_some_and(|slots| slots.used() > 0)
                {
                    let server = self.server_name(server);
                    tracing::warn!(proxy, server, "established connections are closed");
                }
            }
            News::Suspect(server) => {
                let server = self.server_name(server);
                let reason = "clients that asked get no answer";
                tracing::info!(proxy, server, reason, "server suspect, checked at once");
            }
            News::Ejected(server, grounds) => {
                let (server, reason) = (self.server_name(server), grounds.word());
                tracing::warn!(proxy, server, reason, "server ejected");
            }
            News::Returned(server, elapsed) => {
                let (server, elapsed_ms) = (self.server_name(server), elapsed.as_millis());
                tracing::info!(proxy, server, elapsed_ms, "server no longer ejected");
            }
            News::Held(server, missing) => {
                let server = self.server_name(server);
                let reason = "it went down again and again";
                tracing::warn!(
                    proxy,
                    server,
                    reason,
                    missing,
                    "server up, not believed yet"
                );
            }
            News::Believed(server) => {
                let server = self.server_name(server);
                tracing::info!(proxy, server, "server believed again");
            }
            News::Panic(true) => {
                let reason = "no other server could serve";
                tracing::warn!(proxy, reason, "servers that were held back are used");
            }
            News::Panic(false) => {
                tracing::info!(proxy, "servers that were held back are no longer used");
            }
        }
    }
}
