//! A proxy process that takes over from the present one while that still serves. The successor starts
//! beside it, with the same listening sockets, and knows what it knows. Once it serves, the present
//! one stops accepting and lets its connections end. A successor that does not come up is killed, and
//! the present one has noticed nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Keeper;
use super::link::{Link, Turn};
use super::proxies::{Current, decode, pid_of};
use super::watch::kill;
use crate::daemon::supervise::Input;
use crate::ipc::command::Outcome;
use crate::ipc::event::EventKind;
use crate::ipc::message::{Hello, ProxyServing, ToKeeper, ToProxy};
use crate::net::epoll::{Event, Interest};
use crate::net::process::Process;

/// From the order to start it until it serves: the first verdicts of slow checks included.
const SUCCEED_WITHIN: Duration = Duration::from_secs(30);
/// What connections of a process that was succeeded get: as long as lb.toml lets one that rests live,
/// by default. It ends with its last one.
const DRAIN_GRACE_MS: u32 = 3_600_000;

/// Why another process takes over, and so who wants to hear how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// An upgrade.
    Upgrade,
    /// The present one, which an earlier keeper left, is of another version.
    OtherVersion,
    /// A reload that the present one can't do in place.
    Reload,
}

/// A successor on its way.
#[derive(Debug)]
pub(super) struct Succession {
    cause: Cause,
    program: Option<PathBuf>,
    began: Instant,
    pid: Option<i32>,
    next: Option<Current>,
}

impl Succession {
    pub(super) fn deadline(&self) -> Instant {
        self.began + SUCCEED_WITHIN
    }

    /// Whether a process that says hello is the one.
    pub(super) fn awaits(&self, hello: &Hello) -> bool {
        self.next.is_none() && (self.pid.is_none() || self.pid == pid_of(hello))
    }

    fn owns(&self, token: u64) -> bool {
        self.next.as_ref().is_some_and(|next| next.has(token))
    }
}

impl Keeper {
    /// Starts a successor of the present proxy, with the configuration that counts: from `program`
    /// (`None`: the one that runs). How it ended goes to [`Self::succession_ended`].
    ///
    /// # Errors
    /// Why none is started.
    pub(super) fn begin_succession(
        &mut self,
        now: Instant,
        cause: Cause,
        program: Option<PathBuf>,
    ) -> Result<(), String> {
        if self.stopping.is_some() {
            return Err("this node is stopping".to_owned());
        }
        if self.proxies.succession.is_some() {
            return Err("another proxy process takes over already".to_owned());
        }
        if !self.proxies.is_settled() || !self.proxies.is_connected() {
            return Err("no proxy process serves".to_owned());
        }
        if !self.order_successor(now, program.as_deref()) {
            return Err("nobody is there to start programs".to_owned());
        }
        // From here on it claims what it takes of the limits.
        self.tell_proxy(now, &ToProxy::Share { shared: true });
        tracing::info!(?cause, "another proxy process is to take over");
        self.proxies.succession = Some(Succession {
            cause,
            program,
            began: now,
            pid: None,
            next: None,
        });
        Ok(())
    }

    /// The runner has started it.
    pub(super) fn successor_started(&mut self, pid: Option<i32>) {
        if let Some(succession) = &mut self.proxies.succession {
            succession.pid = pid;
        }
    }

    /// A process of the runner has ended: perhaps this one.
    pub(super) fn successor_may_have_ended(&mut self, now: Instant, pid: Option<i32>, how: &str) {
        let own = |succession: &Succession| succession.pid.is_some() && succession.pid == pid;
        if let Some(succession) = self.proxies.succession.as_mut().filter(|s| own(s)) {
            // Its number may be another's by now.
            succession.pid = None;
            self.give_up_succession(now, &format!("it ended: {how}"));
        }
    }

    /// It has come: it gets configuration and listeners.
    pub(super) fn greet_successor(&mut self, now: Instant, link: Link, hello: &Hello) {
        let Some(mut succession) = self.proxies.succession.take() else {
            return;
        };
        let process = pid_of(hello).map(Process::open);
        let Some(Ok(process)) = process else {
            self.proxies.succession = Some(succession);
            return self.give_up_succession(now, "it ended");
        };
        let end_token = self.token();
        if let Err(error) = self.epoll.add(&process, end_token, Interest::READ) {
            tracing::error!(%error, "the proxy's end cannot be watched");
        }
        self.supervisor.count_start();
        let welcomed = self.welcome(now, link, false);
        let came = welcomed.is_some();
        succession.pid = Some(process.pid());
        succession.next = welcomed.map(|link| Current::new(link, process, end_token));
        self.proxies.succession = Some(succession);
        if !came {
            self.give_up_succession(now, "it takes no configuration");
        }
    }

    /// Whether something that happened was about the successor.
    pub(super) fn on_successor(&mut self, now: Instant, token: u64, event: Event) -> bool {
        let Some(succession) = &mut self.proxies.succession else {
            return false;
        };
        if !succession.owns(token) {
            return false;
        }
        let Some(next) = &mut succession.next else {
            return false;
        };
        if next.ends_with(token) {
            self.give_up_succession(now, "it ended");
        } else if event.writable()
            && let Err(error) = next.flush(&self.epoll)
        {
            self.give_up_succession(now, &error.to_string());
        } else {
            self.read_successor(now);
        }
        true
    }

    fn read_successor(&mut self, now: Instant) {
        let mut turn = Turn::default();
        while turn.goes_on() {
            let next = self.proxies.succession.as_ref();
            let Some(next) = next.and_then(|succession| succession.next.as_ref()) else {
                return;
            };
            let received = match next.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => return self.give_up_succession(now, &error.to_string()),
            };
            turn.took(&received);
            // Until it serves nothing else that it says is of interest: the present one speaks.
            if let Some(ToKeeper::Serving(reports)) = decode(&self.buffer, &received) {
                return self.succeed(now, &reports);
            }
        }
    }

    /// It serves: from here on it is the node's proxy.
    fn succeed(&mut self, now: Instant, reports: &[ProxyServing]) {
        let Some(succession) = self.proxies.succession.take() else {
            return;
        };
        let Some(next) = succession.next else {
            return;
        };
        let elapsed = now.saturating_duration_since(succession.began);
        let pid = next.process.pid();
        tracing::info!(
            pid,
            cause = ?succession.cause,
            elapsed_ms = elapsed.as_millis(),
            "proxy process took over"
        );
        self.proxies.starting = None;
        self.forsake_orders(now);
        if let Some(old) = self.proxies.current.replace(next) {
            self.let_drain(old.into_link());
            self.proxies.tallies.expect();
        }
        let about = pid.to_string();
        self.record(EventKind::Proxy, (None, Some(&about)), None, "took over");
        self.board.new_process();
        self.board.report(reports, true);
        self.supervise(now, Input::Adopted);
        self.supervise(now, Input::Served);
        self.succession_ended(now, succession.cause, Ok(()));
        // What it said after that.
        self.read_proxy(now);
    }

    /// A process that was succeeded lets its connections end.
    pub(super) fn let_drain(&mut self, link: Link) {
        let order = ToProxy::Drain {
            grace_ms: DRAIN_GRACE_MS,
        };
        self.tell_leaving(link, &order);
    }

    /// Who waits for the end of an order hears from the process that took it: this is its last word.
    fn forsake_orders(&mut self, now: Instant) {
        for id in self.commands.forsaken() {
            let why = "another proxy process took over meanwhile: `lbd status` says how it ends";
            let outcome = Outcome::Unknown(why.to_owned());
            self.tell_proxy(now, &ToProxy::Outcome { id, outcome });
        }
    }

    /// The successor did not come up; the present process goes on as if nothing had been.
    pub(super) fn give_up_succession(&mut self, now: Instant, reason: &str) {
        let Some(succession) = self.proxies.succession.take() else {
            return;
        };
        tracing::error!(
            cause = ?succession.cause,
            program = succession.program.as_deref().map(|path| path.display().to_string()),
            reason,
            "the process that was to take over did not come up: the present one goes on"
        );
        let started = succession.pid.and_then(|pid| Process::open(pid).ok());
        let connected = succession.next.as_ref().map(|next| &next.process);
        if let Some(process) = connected.or(started.as_ref()) {
            kill(process);
        }
        let of = succession.program.as_deref();
        let of = of.map_or_else(String::new, |path| format!(" of {}", path.display()));
        let reason = format!("the new proxy process{of} did not come up: {reason}");
        self.record(EventKind::Proxy, (None, None), None, &reason);
        self.free_column(now, succession.pid.unwrap_or(0));
        self.succession_ended(now, succession.cause, Err(reason));
    }

    /// Time may be up.
    pub(super) fn tick_succession(&mut self, now: Instant) {
        let Some(succession) = &self.proxies.succession else {
            return;
        };
        if self.stopping.is_some() {
            self.give_up_succession(now, "this node is stopping");
        } else if now >= succession.deadline() {
            let seconds = SUCCEED_WITHIN.as_secs();
            self.give_up_succession(now, &format!("it does not serve within {seconds} s"));
        }
    }

    /// The present proxy is gone while its successor is on its way: that one is the node's proxy now,
    /// if it is there.
    pub(super) fn hurry_succession(&mut self, now: Instant) -> bool {
        let Some(succession) = &mut self.proxies.succession else {
            return false;
        };
        let Some(next) = succession.next.take() else {
            self.give_up_succession(now, "the present one ended first");
            return false;
        };
        let cause = succession.cause;
        self.proxies.succession = None;
        self.proxies.current = Some(next);
        self.succession_ended(now, cause, Ok(()));
        true
    }

    fn succession_ended(&mut self, now: Instant, cause: Cause, outcome: Result<(), String>) {
        match cause {
            Cause::Upgrade => self.upgrade_proxy_ended(now, outcome),
            // Nobody waits for the end of it; it was said.
            Cause::OtherVersion => {}
            Cause::Reload => {
                if outcome.is_err() && self.stopping.is_none() {
                    self.replace_outright(now);
                }
            }
        }
    }
}
