//! Taking over from an earlier keeper: its proxy may still serve, and then holds the listeners.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::blackbox::BlackBox;
use super::link::{Link, Turn};
use super::listeners::Listeners;
use super::proxies::{Proxies, decode, pid_of, send};
use super::runtime_dir::ProxyMark;
use super::start::KEPT_NAME;
use super::succession::Cause;
use super::watch::{ENDED, Looks, kill};
use super::{Keeper, KeeperError};
use crate::daemon::supervise::{Input, LOOK_SPACING};
use crate::ipc::message::{Hello, ToKeeper, ToProxy};
use crate::net::process::{self, Process};
use crate::net::tcp::ListenError;

/// An orphaned proxy tries to reach a keeper each 20 ms.
const EXPECT_FOR: Duration = Duration::from_millis(100);
/// The same when there is no trace of one but somebody holds the ports.
const EXPECT_UNKNOWN_FOR: Duration = Duration::from_millis(300);
/// A proxy that is there but doesn't come holds the ports: it is looked at, and killed if it hangs.
pub(super) const KILL_SILENT_AFTER: Duration = Duration::from_secs(1);
/// One that lives, and does not hang, may get no processor time. Beyond this another one is started where
/// the listening sockets are here.
const EXPECT_LIVING_FOR: Duration = Duration::from_secs(2);
/// How often the ports are tried meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Ports that are still held then are another program's.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// A proxy with an older configuration drains once its successor serves. That there is none yet is
/// complained of this often.
pub(super) const REPLACE_WITHIN: Duration = Duration::from_secs(10);
/// Listening sockets taken back: some dozen entries on as many cores as there are.
const INHERITED_MAX: usize = 8192;

#[derive(Debug)]
pub(super) enum Phase {
    /// A proxy may come back; `process` when the last keeper left word of it.
    Expecting {
        /// Since when it is waited for, or was killed.
        since: Instant,
        process: Option<Process>,
        looks: Looks,
        killed: bool,
        /// When to look whether the ports are free.
        next: Instant,
    },
    /// It is back and hands over its listeners.
    Inheriting {
        /// When to look whether it hangs.
        look_at: Instant,
        looks: Looks,
        link: Link,
        hello: Hello,
        listeners: Vec<OwnedFd>,
    },
    /// The listeners are here.
    Settled(Listeners),
}

impl Proxies {
    /// Whether a proxy of the last keeper is alive and not adopted yet.
    pub(super) fn is_orphaned(&self) -> bool {
        match &self.phase {
            Phase::Expecting { process, .. } => process.is_some(),
            Phase::Inheriting { .. } => true,
            Phase::Settled(_) => false,
        }
    }

    /// Signals the one that no message reaches because it has not come yet.
    pub(super) fn signal_orphan(&self, signal: Signal) {
        let Phase::Expecting {
            process: Some(process),
            ..
        } = &self.phase
        else {
            return;
        };
        match process.signal(signal) {
            Ok(()) => tracing::info!(
                pid = process.pid(),
                "the proxy of the last keeper is told to end"
            ),
            Err(error) => tracing::debug!(%error, "the proxy of the last keeper was not signalled"),
        }
    }
}

impl Keeper {
    /// Waits for the proxy of the last keeper if one is alive; else opens the listeners.
    pub(super) fn expect_proxy(
        &mut self,
        now: Instant,
        mark: Option<ProxyMark>,
    ) -> Result<(), KeeperError> {
        let alive = mark.filter(|mark| {
            process::start_time(mark.pid).is_ok_and(|started| started == mark.start_time)
        });
        let process = alive.and_then(|mark| Process::open(mark.pid).ok());
        if process.is_none() {
            match self.settle(Vec::new()) {
                Err(KeeperError::Listen(ListenError::InUse { .. })) => {}
                other => return other,
            }
        }
        let patience = match process {
            Some(_) => EXPECT_FOR,
            None => EXPECT_UNKNOWN_FOR,
        };
        self.proxies.phase = Phase::Expecting {
            since: now,
            process,
            looks: Looks::default(),
            killed: false,
            next: now + patience,
        };
        Ok(())
    }

    fn settle(&mut self, inherited: Vec<OwnedFd>) -> Result<(), KeeperError> {
        // Those of a proxy that serves are the same sockets, or the ones that are accepted from.
        let inherited = if inherited.is_empty() {
            std::mem::take(&mut self.proxies.kept)
        } else {
            inherited
        };
        let count = inherited.len();
        let workers = self.proxies.workers;
        let listeners = Listeners::open(&self.args.config, workers, inherited)?;
        tracing::info!(sockets = listeners.len(), inherited = count, "listening");
        self.proxies.phase = Phase::Settled(listeners);
        self.proxies.kept = Vec::new();
        self.keep_listeners();
        self.confine();
        self.watch_config();
        Ok(())
    }

    /// Leaves the listening sockets with the service manager: whoever connects while the service is
    /// restarted waits in their queues.
    pub(super) fn keep_listeners(&self) {
        let Phase::Settled(listeners) = &self.proxies.phase else {
            return;
        };
        let all: Vec<_> = listeners.all().collect();
        if let Err(error) = self.notify.keep(KEPT_NAME, &all) {
            tracing::warn!(%error, "the service manager keeps no sockets");
        }
    }

    /// Deadlines of adoption and replacement.
    pub(super) fn tick_proxies(&mut self, now: Instant) -> Result<(), KeeperError> {
        self.tick_accepting(now);
        self.flush_tallies(now);
        self.tick_succession(now);
        let due = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if let Some((link, since)) = self.proxies.replaced.take() {
            if self.supervisor.has_served() {
                self.let_drain(link);
            } else {
                let again = if due(since, REPLACE_WITHIN) {
                    // Better the old file than nothing.
                    tracing::error!("no proxy serves this configuration: the one before goes on");
                    now
                } else {
                    since
                };
                self.proxies.replaced = Some((link, again));
            }
        }
        match &mut self.proxies.phase {
            Phase::Settled(_) => {}
            Phase::Inheriting {
                look_at,
                looks,
                hello,
                ..
            } => {
                if now >= *look_at {
                    *look_at = now + LOOK_SPACING;
                    let hung = pid_of(hello).map_or(Some("no process"), |pid| looks.look(now, pid));
                    if let Some(reason) = hung {
                        tracing::warn!(
                            reason,
                            "the proxy of the last keeper did not hand over its listeners"
                        );
                        self.give_up_inheriting(now);
                    }
                }
            }
            Phase::Expecting { next, .. } => {
                if now >= *next {
                    return self.expected_in_vain(now);
                }
            }
        }
        Ok(())
    }

    /// Nobody came: the ports are free by now, or somebody has to go.
    fn expected_in_vain(&mut self, now: Instant) -> Result<(), KeeperError> {
        if self.goes_on_expecting(now) {
            return Ok(());
        }
        let in_use = match self.settle(Vec::new()) {
            Err(KeeperError::Listen(error @ ListenError::InUse { .. })) => error,
            other => return other,
        };
        let Phase::Expecting {
            since,
            process: Some(_),
            killed,
            next,
            ..
        } = &mut self.proxies.phase
        else {
            return Err(in_use.into());
        };
        if *killed && now.saturating_duration_since(*since) >= GIVE_UP_AFTER {
            return Err(in_use.into());
        }
        *next = now + LOOK_AGAIN;
        Ok(())
    }

    /// Whether the proxy that did not come yet is waited for further, also where its ports could be
    /// had: it may serve, and one beside it would know nothing of its connections and limits. One that
    /// hangs is killed.
    fn goes_on_expecting(&mut self, now: Instant) -> bool {
        let Phase::Expecting {
            since,
            process: Some(process),
            looks,
            killed: killed @ false,
            next,
        } = &mut self.proxies.phase
        else {
            return false;
        };
        let waited = now.saturating_duration_since(*since);
        let state = looks.look(now, process.pid());
        if state == Some(ENDED) {
            // Whoever has its ports is another program.
            *killed = true;
            return false;
        }
        if let Some(reason) = state
            && waited >= KILL_SILENT_AFTER
        {
            tracing::warn!(
                pid = process.pid(),
                reason,
                "the proxy of the last keeper does not answer: killed"
            );
            kill(process);
            *killed = true;
            *since = now;
        } else if waited >= EXPECT_LIVING_FOR {
            return false;
        }
        *next = now + LOOK_AGAIN;
        true
    }

    fn give_up_inheriting(&mut self, now: Instant) {
        let process = match &self.proxies.phase {
            Phase::Inheriting { hello, .. } => {
                pid_of(hello).and_then(|pid| Process::open(pid).ok())
            }
            Phase::Expecting { .. } | Phase::Settled(_) => None,
        };
        if let Some(process) = &process {
            kill(process);
        }
        self.proxies.phase = Phase::Expecting {
            since: now,
            process,
            looks: Looks::default(),
            killed: true,
            next: now + LOOK_AGAIN,
        };
    }

    pub(super) fn read_inherited(&mut self, now: Instant) -> Result<(), KeeperError> {
        let mut turn = Turn::default();
        while turn.goes_on() {
            let Phase::Inheriting {
                link, listeners, ..
            } = &mut self.proxies.phase
            else {
                return Ok(());
            };
            let received = match link.receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the proxy of the last keeper left");
                    self.give_up_inheriting(now);
                    return Ok(());
                }
            };
            turn.took(&received);
            match decode(&self.buffer, &received) {
                Some(ToKeeper::Listeners(_)) if listeners.len() < INHERITED_MAX => {
                    listeners.extend(received.fds);
                }
                Some(ToKeeper::Listeners(_)) => {
                    tracing::warn!("the proxy of the last keeper has too many listeners");
                    self.give_up_inheriting(now);
                    return Ok(());
                }
                Some(ToKeeper::ListenersDone) => {
                    link.black_box = BlackBox::inherit(received.fds);
                    return self.inherit(now);
                }
                Some(ToKeeper::Snapshot(servers)) => self.proxies.snapshot = Some((now, servers)),
                Some(ToKeeper::Notes(notes)) => self.proxies.notes = Some(notes),
                Some(ToKeeper::Shares) => self.proxies.sharing.inherit(received.fds),
                // None of these comes before the listeners.
                Some(
                    ToKeeper::Hello(_)
                    | ToKeeper::Heartbeat(_)
                    | ToKeeper::Serving(_)
                    | ToKeeper::Clients { .. }
                    | ToKeeper::Note(_)
                    | ToKeeper::Tally(_)
                    | ToKeeper::Prepared { .. }
                    | ToKeeper::Committed { .. }
                    | ToKeeper::Tapes(_)
                    | ToKeeper::Command { .. },
                ) => {}
                None => tracing::warn!("a message of the proxy was not understood"),
            }
        }
        Ok(())
    }

    /// The listeners are back: adopt the proxy, or replace it.
    fn inherit(&mut self, now: Instant) -> Result<(), KeeperError> {
        let nothing = Phase::Settled(Listeners::default());
        let phase = std::mem::replace(&mut self.proxies.phase, nothing);
        let Phase::Inheriting {
            link,
            hello,
            listeners,
            ..
        } = phase
        else {
            self.proxies.phase = phase;
            return Ok(());
        };
        self.settle(listeners)?;
        if hello.config_digest == self.digest {
            tracing::info!(pid = hello.pid, "proxy adopted");
            self.supervise(now, Input::Adopted);
            self.begin(now, link, &hello);
            self.read_proxy(now);
            if hello.version != env!("CARGO_PKG_VERSION") {
                let begun = self.begin_succession(now, Cause::OtherVersion, None);
                if let Err(reason) = begun {
                    tracing::warn!(reason, "a proxy of another version stays");
                }
            }
        } else {
            tracing::info!(
                pid = hello.pid,
                "proxy serves another configuration: it drains once the next one serves"
            );
            let mut link = link;
            let shared = ToProxy::Share { shared: true };
            if let Err(error) = send(&self.epoll, &mut link, &shared, &[]) {
                tracing::debug!(%error, "the proxy of the last keeper was not reached");
            }
            self.proxies.replaced = Some((link, now));
        }
        Ok(())
    }
}
