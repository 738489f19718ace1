//! Proxy processes: the one that serves, one left by an earlier keeper, and those on their way out.
//!
//! A proxy connects and says `Hello`. One that doesn't serve yet gets configuration and listeners.
//! One that serves has outlived its keeper: it hands its listeners back, and is adopted if it runs
//! the same configuration, else replaced (it goes on until its successor serves).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::adoption::{KILL_SILENT_AFTER, Phase, REPLACE_WITHIN};
use super::blackbox::BlackBox;
use super::link::{Link, Turn};
use super::listeners::Listeners;
use super::runtime_dir::ProxyMark;
use super::sharing::Sharing;
use super::succession::Succession;
use super::tallies::Tallies;
use super::watch::{Looks, kill};
use super::welcome;
use super::{Keeper, KeeperError};
use crate::daemon::supervise::Input;
use crate::ipc::event::EventKind;
use crate::ipc::message::{Heartbeat, Hello, ServerSnapshot, ToKeeper, ToProxy, Welcome};
use crate::ipc::note::ServerNote;
use crate::ipc::tally::Page;
use crate::net::epoll::{Epoll, Event, Interest};
use crate::net::process::{self, Process};
use crate::net::seqpacket::Received;

/// All that is known of proxy processes.
#[derive(Debug)]
pub(super) struct Proxies {
    pub(super) config_fd: OwnedFd,
    pub(super) workers: usize,
    pub(super) phase: Phase,
    pub(super) current: Option<Current>,
    pub(super) strangers: Vec<Link>,
    /// When the listener is watched again, while it isn't.
    pub(super) accept_at: Option<Instant>,
    pub(super) complained: Option<Instant>,
    /// Drains because its configuration is older; told so once the next one serves.
    pub(super) replaced: Option<(Link, Instant)>,
    pub(super) leaving: Vec<Link>,
    /// The one that is to take over from the present one.
    pub(super) succession: Option<Succession>,
    pub(super) sharing: Sharing,
    /// What processes that were succeeded counted.
    pub(super) tallies: Tallies,
    /// Listening sockets that the service manager, or this process's earlier program, kept.
    pub(super) kept: Vec<OwnedFd>,
    /// The process the runner started that hasn't connected yet.
    pub(super) starting: Option<i32>,
    pub(super) snapshot: Option<(Instant, Vec<ServerSnapshot>)>,
    /// What operators changed about servers, as the last proxy told.
    pub(super) notes: Option<Vec<ServerNote>>,
}

/// The proxy that serves, or is about to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) link: Link,
    pub(super) process: Process,
    pub(super) end_token: u64,
    /// It serves a file that counts no more: by position what it says of its proxies means nothing.
    pub(super) outdated: bool,
}

impl Current {
    pub(super) fn new(link: Link, process: Process, end_token: u64) -> Self {
        Self {
            link,
            process,
            end_token,
            outdated: false,
        }
    }

    /// Whether what happened under `token` was about it.
    pub(super) fn has(&self, token: u64) -> bool {
        self.link.token == token || self.end_token == token
    }

    /// Whether `token` stands for its end.
    pub(super) fn ends_with(&self, token: u64) -> bool {
        self.end_token == token
    }

    /// Sends what was queued.
    pub(super) fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.link.flush(epoll)
    }

    /// The next message; `None` when there is none.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        self.link.receive(buffer)
    }

    /// The connection alone: its end is the process's, too.
    pub(super) fn into_link(self) -> Link {
        self.link
    }
}

impl Proxies {
    pub(super) fn new(config_fd: OwnedFd, workers: usize) -> Self {
        Self {
            config_fd,
            workers,
            phase: Phase::Settled(Listeners::default()),
            current: None,
            strangers: Vec::new(),
            accept_at: None,
            complained: None,
            replaced: None,
            leaving: Vec::new(),
            succession: None,
            sharing: Sharing::new(),
            tallies: Tallies::default(),
            kept: Vec::new(),
            starting: None,
            snapshot: None,
            notes: None,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled(_))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let succession = self.succession.as_ref().map(Succession::deadline);
        let replaced = self.replaced.as_ref();
        let replaced = replaced.map(|(_, since)| *since + REPLACE_WITHIN);
        let phase = match &self.phase {
            Phase::Expecting { next, .. } => Some(*next),
            Phase::Inheriting { look_at, .. } => Some(*look_at),
            Phase::Settled(_) => None,
        };
        let all = [replaced, phase, self.accept_at, succession];
        all.into_iter().flatten().min()
    }

    /// The mark of the present proxy for the state file.
    pub(super) fn mark(&self) -> Option<ProxyMark> {
        let pid = self.current.as_ref()?.process.pid();
        let start_time = process::start_time(pid).ok()?;
        Some(ProxyMark { pid, start_time })
    }

    /// Process id of the present proxy.
    pub(super) fn pid(&self) -> Option<i32> {
        self.current.as_ref().map(|current| current.process.pid())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.current.is_some()
    }

    /// Whether everyone on the way out was told so.
    pub(super) fn has_told_leaving(&self) -> bool {
        !self.leaving.iter().any(Link::is_congested)
    }

    /// Processes that were succeeded and have connections still.
    pub(super) fn draining(&self) -> u32 {
        let all = self.leaving.len() + usize::from(self.replaced.is_some());
        u32::try_from(all).unwrap_or(u32::MAX)
    }

    /// The text of lb.toml, sealed.
    pub(super) fn config_fd(&self) -> BorrowedFd<'_> {
        self.config_fd.as_fd()
    }

    /// The snapshot with the time since it was taken added to its ages.
    pub(super) fn aged_snapshot(&self, now: Instant) -> Vec<ServerSnapshot> {
        let Some((taken, servers)) = &self.snapshot else {
            return Vec::new();
        };
        let passed = now.saturating_duration_since(*taken).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let mut servers = servers.clone();
        for server in &mut servers {
            server.verdict_age_ms = server.verdict_age_ms.saturating_add(passed);
            server.ramp_ms = server.ramp_ms.map(|ramp| ramp.saturating_add(passed));
        }
        servers
    }
}

impl Keeper {
    /// Something happened to a connection to a proxy, or to its process.
    pub(super) fn on_connection(
        &mut self,
        now: Instant,
        token: u64,
        event: Event,
    ) -> Result<(), KeeperError> {
        if let Some(current) = &mut self.proxies.current {
            if current.end_token == token {
                self.proxy_gone(now, "its process ended");
                return Ok(());
            }
            if current.link.token == token {
                if event.writable()
                    && let Err(error) = current.link.flush(&self.epoll)
                {
                    self.proxy_gone(now, &error.to_string());
                }
                self.read_proxy(now);
                return Ok(());
            }
        }
        if self.on_successor(now, token, event) {
            return Ok(());
        }
        if matches!(&self.proxies.phase, Phase::Inheriting { link, .. } if link.token == token) {
            return self.read_inherited(now);
        }
        let strangers = &mut self.proxies.strangers;
        if let Some(index) = strangers.iter().position(|link| link.token == token) {
            let link = strangers.swap_remove(index);
            return self.read_hello(now, link);
        }
        self.read_leaving(now, token, event);
        Ok(())
    }

    fn read_hello(&mut self, now: Instant, link: Link) -> Result<(), KeeperError> {
        let received = match link.receive(&mut self.buffer) {
            Ok(Some(received)) => received,
            Ok(None) => {
                self.proxies.strangers.push(link);
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let message = decode(&self.buffer, &received);
        let peer = link.connection().peer().ok();
        let hello = match message {
            Some(ToKeeper::Hello(hello)) if peer.map(|peer| peer.pid) == pid_of(&hello) => hello,
            Some(_) | None => {
                tracing::warn!(
                    reason = "no greeting",
                    "connection to keeper.sock turned away"
                );
                return Ok(());
            }
        };
        match (&self.proxies.phase, hello.serving) {
            (Phase::Expecting { .. }, true) => {
                tracing::info!(pid = hello.pid, "a proxy outlived its keeper");
                self.proxies.phase = Phase::Inheriting {
                    look_at: now + KILL_SILENT_AFTER,
                    looks: Looks::default(),
                    link,
                    hello,
                    listeners: Vec::new(),
                };
                self.read_inherited(now)
            }
            // It has served before: its connections go on to their end.
            (_, false) if hello.config_digest != 0 => {
                tracing::info!(pid = hello.pid, "a proxy that was succeeded still drains");
                self.let_leave(link);
                Ok(())
            }
            (Phase::Settled(_), false) if self.proxies.current.is_none() => {
                self.begin(now, link, &hello);
                Ok(())
            }
            (Phase::Settled(_), false) if self.awaits_successor(&hello) => {
                self.greet_successor(now, link, &hello);
                Ok(())
            }
            (Phase::Expecting { .. } | Phase::Inheriting { .. } | Phase::Settled(_), _) => {
                tracing::warn!(pid = hello.pid, "surplus proxy told to end");
                self.dismiss(link);
                Ok(())
            }
        }
    }

    fn awaits_successor(&self, hello: &Hello) -> bool {
        let succession = self.proxies.succession.as_ref();
        succession.is_some_and(|succession| succession.awaits(hello))
    }

    /// Makes this the proxy of the node.
    pub(super) fn begin(&mut self, now: Instant, link: Link, hello: &Hello) {
        let process = pid_of(hello).map(Process::open);
        let Some(Ok(process)) = process else {
            self.supervise(now, Input::Ended);
            return;
        };
        let end_token = self.token();
        if let Err(error) = self.epoll.add(&process, end_token, Interest::READ) {
            tracing::error!(%error, "the proxy's end cannot be watched");
        }
        self.proxies.starting = None;
        if let Some(link) = self.welcome(now, link, hello.serving) {
            self.proxies.current = Some(Current::new(link, process, end_token));
            tracing::info!(pid = hello.pid, "proxy connected");
            let pid = hello.pid.to_string();
            self.record(EventKind::Proxy, (None, Some(&pid)), None, "connected");
            self.flush_tallies(now);
        } else {
            kill(&process);
            self.supervise(now, Input::Ended);
        }
    }

    /// Sends configuration and, to one that doesn't have them, the listeners.
    pub(super) fn welcome(
        &mut self,
        now: Instant,
        mut link: Link,
        has_listeners: bool,
    ) -> Option<Link> {
        let config = self.proxies.config_fd.as_fd();
        let listeners = match &self.proxies.phase {
            Phase::Settled(listeners) if !has_listeners => Some(listeners),
            Phase::Settled(_) | Phase::Expecting { .. } | Phase::Inheriting { .. } => None,
        };
        let outcome = self.try_welcome(now, &mut link, config, listeners);
        welcomed(link, outcome)
    }

    fn try_welcome(
        &self,
        now: Instant,
        link: &mut Link,
        config: BorrowedFd<'_>,
        listeners: Option<&Listeners>,
    ) -> io::Result<()> {
        let welcome = Welcome {
            node: self.args.node.clone(),
            config_path: self.args.config_path.to_string_lossy().into_owned(),
            generation: self.supervisor.started,
            snapshot: self.proxies.aged_snapshot(now),
            notes: self.proxies.notes.clone(),
        };
        let welcome = welcome::encode(welcome).map_err(io::Error::other)?;
        // One that serves has it already.
        let black_box = listeners.and_then(|_| BlackBox::create());
        let fds = black_box.iter().map(BlackBox::fd);
        let fds: Vec<BorrowedFd<'_>> = [config].into_iter().chain(fds).collect();
        link.send(&self.epoll, welcome, &fds)?;
        let Some(listeners) = listeners else {
            return Ok(());
        };
        link.black_box = black_box;
        self.give_column(link)?;
        if self.proxies.is_connected() || self.proxies.replaced.is_some() {
            send(&self.epoll, link, &ToProxy::Succeeds, &[])?;
        }
        for (group, fds) in listeners.messages() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            send(&self.epoll, link, &ToProxy::Listeners(group), &fds)?;
        }
        send(&self.epoll, link, &ToProxy::ListenersDone, &[])
    }

    pub(super) fn read_proxy(&mut self, now: Instant) {
        let mut turn = Turn::default();
        while turn.goes_on() {
            let Some(current) = &self.proxies.current else {
                return;
            };
            match current.link.receive(&mut self.buffer) {
                Ok(Some(received)) => {
                    turn.took(&received);
                    if let Some(message) = decode(&self.buffer, &received) {
                        self.proxy_says(now, message, received.fds);
                    } else {
                        tracing::warn!("a message of the proxy was not understood");
                    }
                }
                Ok(None) => return,
                Err(error) => return self.proxy_gone(now, &error.to_string()),
            }
        }
    }

    fn proxy_says(&mut self, now: Instant, message: ToKeeper, fds: Vec<OwnedFd>) {
        match message {
            ToKeeper::Heartbeat(Heartbeat { workers, .. }) => {
                let ticks: Vec<(u32, u32)> =
                    workers.iter().map(|tick| (tick.tid, tick.age_ms)).collect();
                self.supervise(now, Input::Heartbeat(&ticks));
            }
            // In the order of the file that counts no longer.
            ToKeeper::Serving(_) if self.reload.is_half_done() => {}
            ToKeeper::Serving(reports) => {
                let settle = self.supervisor.is_overdue(now);
                let current = self.proxies.current.as_ref();
                if !current.is_some_and(|current| current.outdated) {
                    self.board.report(&reports, settle);
                }
                if settle || reports.iter().all(|report| report.probed) {
                    self.supervise(now, Input::Served);
                }
            }
            ToKeeper::Snapshot(servers) => self.proxies.snapshot = Some((now, servers)),
            ToKeeper::Notes(notes) => self.proxies.notes = Some(notes),
            ToKeeper::Note(event) => self.note_happening(&event),
            ToKeeper::Clients { first, last, flows } => {
                if let Some(current) = &self.proxies.current {
                    let process = current.link.token;
                    self.peers.set_clients(process, (first, last), &flows);
                }
            }
            ToKeeper::Command { id, command } => self.on_command(now, id, command),
            ToKeeper::Prepared { id, answer } => self.on_prepared(now, id, answer),
            ToKeeper::Committed { id } => self.on_committed(now, id),
            ToKeeper::Tapes(told) => self.on_tapes(now, told, fds),
            ToKeeper::Hello(_)
            | ToKeeper::Listeners(_)
            | ToKeeper::ListenersDone
            | ToKeeper::Tally(_)
            | ToKeeper::Shares => {
                tracing::warn!("a message of the proxy came at the wrong time");
            }
        }
    }

    /// The proxy has ended, or has closed its end of the socket, which is the same.
    fn proxy_gone(&mut self, now: Instant, reason: &str) {
        let Some(mut current) = self.proxies.current.take() else {
            return;
        };
        let gone = current.process.pid();
        kill(&current.process);
        self.bury(now, &mut current, reason);
        self.board.new_process();
        self.peers.forget_clients(current.link.token);
        self.commands.forget();
        self.proxy_gone_in_reload(now);
        let hurried = self.hurry_succession(now);
        self.free_column(now, gone);
        if hurried {
            // Nobody tells any more.
            self.pass_on(now, Page::Done);
            self.supervise(now, Input::Adopted);
            self.read_proxy(now);
        } else {
            self.supervise(now, Input::Ended);
        }
    }

    /// Sends to the present proxy. One that doesn't read is judged by its heartbeats.
    pub(super) fn tell_proxy(&mut self, now: Instant, message: &ToProxy) {
        let Some(current) = &mut self.proxies.current else {
            return;
        };
        if let Err(error) = send(&self.epoll, &mut current.link, message, &[]) {
            self.proxy_gone(now, &error.to_string());
        }
    }

    /// Whether the present proxy reads what it is sent.
    pub(super) fn proxy_reads(&self) -> bool {
        let current = self.proxies.current.as_ref();
        current.is_some_and(|current| !current.link.is_congested())
    }

    /// Kills the present proxy, if it still lives.
    pub(super) fn kill_proxy(&self) {
        if let Some(current) = &self.proxies.current {
            kill(&current.process);
        }
    }
}

fn welcomed(link: Link, outcome: io::Result<()>) -> Option<Link> {
    if let Err(error) = outcome {
        tracing::warn!(%error, "proxy not welcomed");
        return None;
    }
    Some(link)
}

pub(super) fn pid_of(hello: &Hello) -> Option<i32> {
    i32::try_from(hello.pid).ok()
}

pub(super) fn decode(buffer: &[u8], received: &Received) -> Option<ToKeeper> {
    ToKeeper::decode(buffer.get(..received.len)?).ok()
}

pub(super) fn send(
    epoll: &Epoll,
    link: &mut Link,
    message: &ToProxy,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = message.encode().map_err(io::Error::other)?;
    link.send(epoll, bytes, fds)
}
