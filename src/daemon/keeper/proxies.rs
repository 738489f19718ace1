//! Proxy processes: the one that serves, one left by an earlier keeper, and those on their way out.
//!
//! A proxy connects and says `Hello`. One that doesn't serve yet gets configuration and listeners.
//! One that serves has outlived its keeper: it hands its listeners back, and is adopted if it runs
//! the same configuration, else replaced (it goes on until its successor serves).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::link::Link;
use super::listeners::Listeners;
use super::runtime_dir::ProxyMark;
use super::{Keeper, KeeperError};
use crate::daemon::supervise::{Action, Finding, Input, Thread};
use crate::ipc::message::{Heartbeat, Hello, ServerSnapshot, ToKeeper, ToProxy, Welcome};
use crate::net::epoll::{Event, Interest};
use crate::net::process::{self, Process};
use crate::net::seqpacket::Received;
use crate::net::tcp::ListenError;

/// Connections that haven't said `Hello`; more are turned away.
const STRANGERS_MAX: usize = 8;
/// An orphaned proxy tries to reach a keeper each 20 ms.
const EXPECT_FOR: Duration = Duration::from_millis(100);
/// The same when there is no trace of one but somebody holds the ports.
const EXPECT_UNKNOWN_FOR: Duration = Duration::from_millis(300);
/// A proxy that is there but doesn't come holds the ports: it is killed.
const KILL_SILENT_AFTER: Duration = Duration::from_secs(1);
/// How often the ports are tried meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Ports that are still held then are another program's.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// A proxy with an older configuration drains once its successor serves, or after this long.
const REPLACE_WITHIN: Duration = Duration::from_secs(2);
/// What connections of a surplus proxy get.
const SURPLUS_GRACE_MS: u32 = 10_000;
/// Why a connection is turned away.
const FOREIGN: &str = "connection to keeper.sock turned away";

/// All that is known of proxy processes.
#[derive(Debug)]
pub(super) struct Proxies {
    config_fd: OwnedFd,
    workers: usize,
    phase: Phase,
    current: Option<Current>,
    strangers: Vec<Link>,
    /// Drains because its configuration is older; told so once the next one serves.
    replaced: Option<(Link, Instant)>,
    leaving: Vec<Link>,
    /// The process the runner started that hasn't connected yet.
    pub(super) starting: Option<i32>,
    snapshot: Option<(Instant, Vec<ServerSnapshot>)>,
    pub(super) orders: u32,
}

/// The proxy that serves, or is about to.
#[derive(Debug)]
struct Current {
    link: Link,
    process: Process,
    end_token: u64,
}

#[derive(Debug)]
enum Phase {
    /// A proxy may come back; `process` when the last keeper left word of it.
    Expecting {
        since: Instant,
        process: Option<Process>,
        killed: bool,
        /// When to look whether the ports are free.
        next: Instant,
    },
    /// It is back and hands over its listeners.
    Inheriting {
        since: Instant,
        link: Link,
        hello: Hello,
        listeners: Vec<OwnedFd>,
    },
    /// The listeners are here.
    Settled(Listeners),
}

impl Proxies {
    pub(super) fn new(config_fd: OwnedFd, workers: usize) -> Self {
        Self {
            config_fd,
            workers,
            phase: Phase::Settled(Listeners::default()),
            current: None,
            strangers: Vec::new(),
            replaced: None,
            leaving: Vec::new(),
            starting: None,
            snapshot: None,
            orders: 0,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Settled(_))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let replaced = self.replaced.as_ref();
        let replaced = replaced.map(|(_, since)| *since + REPLACE_WITHIN);
        let phase = match &self.phase {
            Phase::Expecting { next, .. } => Some(*next),
            Phase::Inheriting { since, .. } => Some(*since + KILL_SILENT_AFTER),
            Phase::Settled(_) => None,
        };
        replaced.into_iter().chain(phase).min()
    }

    /// The mark of the present proxy for the state file.
    pub(super) fn mark(&self) -> Option<ProxyMark> {
        let pid = self.current.as_ref()?.process.pid();
        let start_time = process::start_time(pid).ok()?;
        Some(ProxyMark { pid, start_time })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.current.is_some()
    }

    /// The snapshot with the time since it was taken added to its ages.
    fn aged_snapshot(&self, now: Instant) -> Vec<ServerSnapshot> {
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
            killed: false,
            next: now + patience,
        };
        Ok(())
    }

    fn settle(&mut self, inherited: Vec<OwnedFd>) -> Result<(), KeeperError> {
        let count = inherited.len();
        let workers = self.proxies.workers;
        let listeners = Listeners::open(&self.args.config, workers, inherited)?;
        tracing::info!(sockets = listeners.len(), inherited = count, "listening");
        self.proxies.phase = Phase::Settled(listeners);
        self.confine();
        Ok(())
    }

    /// Deadlines of adoption and replacement.
    pub(super) fn tick_proxies(&mut self, now: Instant) -> Result<(), KeeperError> {
        let due = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if let Some((link, since)) = self.proxies.replaced.take() {
            let ready = self.supervisor.has_served() || due(since, REPLACE_WITHIN);
            if ready {
                self.welcome(now, link, true);
            } else {
                self.proxies.replaced = Some((link, since));
            }
        }
        match &mut self.proxies.phase {
            Phase::Settled(_) => {}
            Phase::Inheriting { since, .. } => {
                if due(*since, KILL_SILENT_AFTER) {
                    tracing::warn!("the proxy of the last keeper did not hand over its listeners");
                    self.give_up_inheriting(now);
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
        let in_use = match self.settle(Vec::new()) {
            Err(KeeperError::Listen(error @ ListenError::InUse { .. })) => error,
            other => return other,
        };
        let Phase::Expecting {
            since,
            process: Some(process),
            killed,
            next,
        } = &mut self.proxies.phase
        else {
            return Err(in_use.into());
        };
        let waited = now.saturating_duration_since(*since);
        if waited >= GIVE_UP_AFTER {
            return Err(in_use.into());
        }
        if waited >= KILL_SILENT_AFTER && !*killed {
            let pid = process.pid();
            tracing::warn!(pid, "the proxy of the last keeper does not answer: killed");
            kill(process);
            *killed = true;
        }
        *next = now + LOOK_AGAIN;
        Ok(())
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
            killed: true,
            next: now + LOOK_AGAIN,
        };
    }

    /// Takes new connections in.
    pub(super) fn accept(&mut self, _now: Instant) {
        loop {
            let connection = match self.socket.accept() {
                Ok(Some(connection)) => connection,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "keeper.sock does not accept");
                    return;
                }
            };
            let ours = nix::unistd::geteuid().as_raw();
            let peer = connection.peer();
            let trusted = peer.is_ok_and(|peer| peer.uid == ours || peer.uid == 0);
            if !trusted || self.proxies.strangers.len() >= STRANGERS_MAX {
                tracing::warn!(trusted, reason = "wrong user, or too many", "{FOREIGN}");
                continue;
            }
            let token = self.token();
            match Link::new(&self.epoll, connection, token) {
                Ok(link) => self.proxies.strangers.push(link),
                Err(error) => tracing::warn!(%error, "{FOREIGN}"),
            }
        }
    }

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
        if matches!(&self.proxies.phase, Phase::Inheriting { link, .. } if link.token == token) {
            return self.read_inherited(now);
        }
        let strangers = &mut self.proxies.strangers;
        if let Some(index) = strangers.iter().position(|link| link.token == token) {
            let link = strangers.swap_remove(index);
            return self.read_hello(now, link);
        }
        self.read_leaving(token, event);
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
                tracing::warn!(reason = "no greeting", "{FOREIGN}");
                return Ok(());
            }
        };
        match (&self.proxies.phase, hello.serving) {
            (Phase::Expecting { .. }, true) => {
                tracing::info!(pid = hello.pid, "a proxy outlived its keeper");
                self.proxies.phase = Phase::Inheriting {
                    since: now,
                    link,
                    hello,
                    listeners: Vec::new(),
                };
                self.read_inherited(now)
            }
            (Phase::Settled(_), false) if self.proxies.current.is_none() => {
                self.begin(now, link, &hello);
                Ok(())
            }
            (Phase::Expecting { .. } | Phase::Inheriting { .. } | Phase::Settled(_), _) => {
                tracing::warn!(pid = hello.pid, "surplus proxy told to end");
                self.dismiss(link);
                Ok(())
            }
        }
    }

    fn dismiss(&mut self, mut link: Link) {
        let stop = ToProxy::Stop {
            grace_ms: SURPLUS_GRACE_MS,
        };
        match send(&self.epoll, &mut link, &stop, &[]) {
            Ok(()) => self.proxies.leaving.push(link),
            Err(error) => tracing::debug!(%error, "surplus proxy not reached"),
        }
    }

    fn read_inherited(&mut self, now: Instant) -> Result<(), KeeperError> {
        loop {
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
            match decode(&self.buffer, &received) {
                Some(ToKeeper::Listeners(_)) => listeners.extend(received.fds),
                Some(ToKeeper::ListenersDone) => return self.inherit(now),
                Some(ToKeeper::Snapshot(servers)) => self.proxies.snapshot = Some((now, servers)),
                Some(ToKeeper::Hello(_) | ToKeeper::Heartbeat(_) | ToKeeper::Serving(_)) => {}
                None => tracing::warn!("a message of the proxy was not understood"),
            }
        }
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
        } else {
            tracing::info!(
                pid = hello.pid,
                "proxy serves another configuration: it drains once the next one serves"
            );
            self.proxies.replaced = Some((link, now));
        }
        Ok(())
    }

    /// Makes this the proxy of the node.
    fn begin(&mut self, now: Instant, link: Link, hello: &Hello) {
        let process = pid_of(hello).map(Process::open);
        let process = match process {
            Some(Ok(process)) => process,
            Some(Err(_)) | None => {
                self.supervise(now, Input::Ended);
                return;
            }
        };
        let end_token = self.token();
        if let Err(error) = self.epoll.add(&process, end_token, Interest::READ) {
            tracing::error!(%error, "the proxy's end cannot be watched");
        }
        self.proxies.starting = None;
        if let Some(link) = self.welcome(now, link, hello.serving) {
            self.proxies.current = Some(Current {
                link,
                process,
                end_token,
            });
            tracing::info!(pid = hello.pid, "proxy connected");
        } else {
            kill(&process);
            self.supervise(now, Input::Ended);
        }
    }

    /// Sends configuration and, to one that doesn't have them, the listeners. A `replaced` proxy,
    /// which sees from the configuration that its time is over, is kept until it leaves.
    fn welcome(&mut self, now: Instant, mut link: Link, has_listeners: bool) -> Option<Link> {
        let welcome = ToProxy::Welcome(Welcome {
            node: self.args.node.clone(),
            config_path: self.args.config_path.to_string_lossy().into_owned(),
            generation: self.supervisor.started,
            snapshot: self.proxies.aged_snapshot(now),
        });
        let outcome = self.try_welcome(&mut link, &welcome, has_listeners);
        if let Err(error) = outcome {
            tracing::warn!(%error, "proxy not welcomed");
            return None;
        }
        Some(link)
    }

    fn try_welcome(&self, link: &mut Link, welcome: &ToProxy, done: bool) -> io::Result<()> {
        send(
            &self.epoll,
            link,
            welcome,
            &[self.proxies.config_fd.as_fd()],
        )?;
        let Phase::Settled(listeners) = &self.proxies.phase else {
            return Ok(());
        };
        if done {
            return Ok(());
        }
        for (group, fds) in listeners.messages() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            send(&self.epoll, link, &ToProxy::Listeners(group), &fds)?;
        }
        send(&self.epoll, link, &ToProxy::ListenersDone, &[])
    }

    fn read_proxy(&mut self, now: Instant) {
        while let Some(current) = &self.proxies.current {
            match current.link.receive(&mut self.buffer) {
                Ok(Some(received)) => {
                    if let Some(message) = decode(&self.buffer, &received) {
                        self.proxy_says(now, message);
                    } else {
                        tracing::warn!("a message of the proxy was not understood");
                    }
                }
                Ok(None) => return,
                Err(error) => return self.proxy_gone(now, &error.to_string()),
            }
        }
    }

    fn proxy_says(&mut self, now: Instant, message: ToKeeper) {
        match message {
            ToKeeper::Heartbeat(Heartbeat { workers, .. }) => {
                let ticks: Vec<(u32, u32)> =
                    workers.iter().map(|tick| (tick.tid, tick.age_ms)).collect();
                self.supervise(now, Input::Heartbeat(&ticks));
            }
            ToKeeper::Serving(reports) => {
                let settle = self.supervisor.is_overdue(now);
                self.board.report(&reports, settle);
                if settle || reports.iter().all(|report| report.probed) {
                    self.supervise(now, Input::Served);
                }
            }
            ToKeeper::Snapshot(servers) => self.proxies.snapshot = Some((now, servers)),
            ToKeeper::Hello(_) | ToKeeper::Listeners(_) | ToKeeper::ListenersDone => {
                tracing::warn!("a message of the proxy came at the wrong time");
            }
        }
    }

    /// The proxy has ended, or has closed its end of the socket, which is the same.
    fn proxy_gone(&mut self, now: Instant, reason: &str) {
        let Some(current) = self.proxies.current.take() else {
            return;
        };
        let pid = current.process.pid();
        kill(&current.process);
        if self.stopping.is_none() {
            tracing::warn!(pid, reason, "proxy lost");
        }
        self.board.new_process();
        self.supervise(now, Input::Ended);
    }

    /// Lets the supervisor judge, and does what it says.
    pub(super) fn supervise(&mut self, now: Instant, input: Input<'_>) {
        if self.stopping.is_some() {
            return;
        }
        let mut actions = self.supervisor.handle(now, input);
        // An examination is answered at once and may lead to one more list.
        while let Some(action) = actions.pop() {
            match action {
                Action::Start => {
                    if self.supervisor.is_looping() {
                        tracing::error!(starts = self.supervisor.started, "proxy keeps ending");
                    }
                    self.order_proxy(now);
                }
                Action::Examine(threads) => {
                    let findings = self.examine(&threads);
                    let more = self.supervisor.handle(now, Input::Examined(&findings));
                    actions.extend(more);
                }
                Action::Hung(reason) => tracing::error!(reason, "proxy hangs"),
                Action::Recovered => tracing::warn!("proxy works again"),
                Action::Starved => tracing::warn!("proxy gets no processor time"),
                Action::Kill => match &self.proxies.current {
                    Some(current) => {
                        tracing::error!(pid = current.process.pid(), "hung proxy killed");
                        kill(&current.process);
                    }
                    None => self.kill_starting(now),
                },
            }
        }
    }

    /// A process that was started and never said a word.
    fn kill_starting(&mut self, now: Instant) {
        let starting = self.proxies.starting.take();
        if let Some(process) = starting.and_then(|pid| Process::open(pid).ok()) {
            kill(&process);
        }
        tracing::error!("proxy process did not connect");
        let more = self.supervisor.handle(now, Input::Ended);
        if more.contains(&Action::Start) {
            self.order_proxy(now);
        }
    }

    fn examine(&self, threads: &[Thread]) -> Vec<Finding> {
        let Some(current) = &self.proxies.current else {
            return Vec::new();
        };
        let pid = current.process.pid();
        let look = |thread: &Thread| {
            let tid = match thread {
                Thread::Control => pid,
                Thread::Worker(tid) => i32::try_from(*tid).ok()?,
            };
            let state = process::thread_state(pid, tid).ok()?;
            Some(Finding {
                thread: *thread,
                state: state.state,
                run_ns: state.run_ns,
                wait_ns: state.wait_ns,
            })
        };
        threads.iter().filter_map(look).collect()
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

    /// What a proxy on its way out says is of no interest, only that it goes.
    fn read_leaving(&mut self, token: u64, event: Event) {
        let Self {
            proxies,
            epoll,
            buffer,
            ..
        } = self;
        proxies.leaving.retain_mut(|link| {
            if link.token != token {
                return true;
            }
            if event.writable() && link.flush(epoll).is_err() {
                return false;
            }
            loop {
                match link.receive(buffer) {
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        });
        let replaced = proxies.replaced.take();
        proxies.replaced = replaced
            .filter(|(link, _)| link.token != token || !matches!(link.receive(buffer), Err(_)));
    }
}

fn pid_of(hello: &Hello) -> Option<i32> {
    i32::try_from(hello.pid).ok()
}

fn decode(buffer: &[u8], received: &Received) -> Option<ToKeeper> {
    ToKeeper::decode(buffer.get(..received.len)?).ok()
}

fn send(
    epoll: &crate::net::epoll::Epoll,
    link: &mut Link,
    message: &ToProxy,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = message.encode().map_err(io::Error::other)?;
    link.send(epoll, bytes, fds)
}

/// SIGKILL; a process that has ended is as good.
fn kill(process: &Process) {
    match process.signal(Signal::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => tracing::error!(%error, pid = process.pid(), "process not killed"),
    }
}
