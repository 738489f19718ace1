//! The servers behind the proxies: one process that answers on every address it is given, checks
//! each byte of each request and tells on its standard output, when asked, what it saw.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use clap::ValueEnum;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Deserialize, Serialize};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::pattern::{Pattern, WINDOW};
use crate::protocol::{ENDLESS, HEADER, Header};

/// Reads or writes of one connection before the others get their turn.
const BURST: usize = 8;
/// Bytes after which the others get their turn too.
const TURN: u64 = 128 * 1024;
/// What a connection is watched for until an answer does not fit: a new socket could be written
/// to at once, which would be an event for nothing.
const READS: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);
const STDIN: u64 = 0;
const FIRST_LISTENER: u64 = 1;

/// What was seen since the last report.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Connections with at least one byte.
    pub(crate) connections: u64,
    /// Connections that carried nothing: health checks.
    pub(crate) empty: u64,
    pub(crate) exchanges: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Connections open at this moment.
    pub(crate) open: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    /// Connections by listening address: how even the balancing is.
    pub(crate) per_server: Vec<u64>,
}

/// What a backend does wrong on purpose, so that the bench can show that it would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Lie {
    /// One byte of an answer is another one.
    WrongByte,
    /// An answer is repeated from its middle on, as if a buffer had been sent twice.
    Shifted,
    /// Half of an answer, then the end.
    Short,
    /// A byte too many.
    Long,
    /// Takes every request for one with other bytes.
    Doubt,
}

/// Serves until standard input ends; answers each line on it with a [`Report`].
pub(crate) fn run(addresses: &[SocketAddr], lie: Option<Lie>) -> io::Result<()> {
    let listeners: Vec<TcpListener> = addresses
        .iter()
        .map(|address| listen(*address))
        .collect::<Result<_, _>>()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(
        io::stdin().as_fd(),
        EpollEvent::new(EpollFlags::EPOLLIN, STDIN),
    )?;
    for (token, listener) in (FIRST_LISTENER..).zip(&listeners) {
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
    }
    let mut backend = Backend {
        first_peer: FIRST_LISTENER + listeners.len() as u64,
        batch: vec![1; listeners.len()],
        heard: vec![false; listeners.len()],
        report: fresh_report(listeners.len()),
        listeners,
        epoll,
        peers: Slab::new(),
        unfinished: VecDeque::new(),
        gone: Vec::new(),
        pattern: Pattern::new(),
        buffer: vec![0; WINDOW],
        lie,
    };
    backend.serve()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(65_535)?;
    Ok(socket.into())
}

fn fresh_report(servers: usize) -> Report {
    Report {
        per_server: vec![0; servers],
        ..Report::default()
    }
}

struct Backend {
    listeners: Vec<TcpListener>,
    first_peer: u64,
    /// How many to accept per round: an accept that finds nothing is dear.
    batch: Vec<usize>,
    /// Which listeners had something in this round.
    heard: Vec<bool>,
    epoll: Epoll,
    peers: Slab<Peer>,
    unfinished: VecDeque<usize>,
    gone: Vec<usize>,
    pattern: Pattern,
    buffer: Vec<u8>,
    report: Report,
    lie: Option<Lie>,
}

struct Peer {
    stream: TcpStream,
    server: usize,
    head: [u8; HEADER],
    head_length: usize,
    header: Option<Header>,
    /// Body bytes of this exchange, both ways.
    received: u64,
    answered: u64,
    /// The other side has sent its FIN, or reset.
    ended: bool,
    used: bool,
    gone: bool,
    /// An answer did not fit, and room for it is an event from then on.
    is_full: bool,
    watches_room: bool,
    lie: Option<Lie>,
}

enum Outcome {
    Blocked,
    Unfinished,
    Closed,
    Failed(&'static str),
}

impl Backend {
    fn serve(&mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        loop {
            let wait = match self.unfinished.is_empty() {
                true => EpollTimeout::NONE,
                false => EpollTimeout::ZERO,
            };
            let ready = match self.epoll.wait(&mut events, wait) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            let waiting = self.unfinished.len();
            self.heard.fill(false);
            for event in events.iter().take(ready) {
                let token = event.data();
                if token == STDIN {
                    if !self.command()? {
                        return Ok(());
                    }
                } else if token >= self.first_peer {
                    let key = usize::try_from(token - self.first_peer).unwrap_or(usize::MAX);
                    let ended =
                        EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
                    self.advance(key, event.events().intersects(ended))?;
                } else {
                    let server = usize::try_from(token - FIRST_LISTENER).unwrap_or(usize::MAX);
                    self.accept(server)?;
                    let heard = self.heard.get_mut(server);
                    heard.into_iter().for_each(|heard| *heard = true);
                }
            }
            for (batch, heard) in self.batch.iter_mut().zip(&self.heard) {
                *batch = if *heard { (*batch * 2).min(64) } else { 1 };
            }
            for _ in 0..waiting {
                if let Some(key) = self.unfinished.pop_front() {
                    self.advance(key, false)?;
                }
            }
            for key in self.gone.drain(..) {
                if !self.unfinished.is_empty() {
                    self.unfinished.retain(|other| *other != key);
                }
                self.peers.try_remove(key);
            }
        }
    }

    /// Standard input has something: a line asks for a report, the end ends us (false).
    fn command(&mut self) -> io::Result<bool> {
        let mut line = [0; 64];
        if nix::unistd::read(io::stdin(), &mut line)? == 0 {
            return Ok(false);
        }
        self.report.open = self.peers.len() as u64;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &self.report)?;
        writeln!(out)?;
        out.flush()?;
        self.report = fresh_report(self.listeners.len());
        Ok(true)
    }

    fn accept(&mut self, server: usize) -> io::Result<()> {
        let Some(listener) = self.listeners.get(server) else {
            return Ok(());
        };
        for _ in 0..self.batch.get(server).copied().unwrap_or(1) {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let entry = self.peers.vacant_entry();
            let token = self.first_peer + entry.key() as u64;
            self.epoll.add(&stream, EpollEvent::new(READS, token))?;
            entry.insert(Peer::new(stream, server, self.lie));
        }
        Ok(())
    }

    fn advance(&mut self, key: usize, ended: bool) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.gone) else {
            return Ok(());
        };
        peer.ended |= ended;
        let used = peer.used;
        let outcome = peer.advance(&self.pattern, &mut self.buffer, &mut self.report);
        if peer.used && !used {
            self.report.connections += 1;
            let count = self.report.per_server.get_mut(peer.server);
            count.into_iter().for_each(|count| *count += 1);
        }
        match outcome {
            Outcome::Blocked => {
                if peer.is_full && !peer.watches_room {
                    peer.watches_room = true;
                    let token = self.first_peer + key as u64;
                    let mut event = EpollEvent::new(READS | EpollFlags::EPOLLOUT, token);
                    self.epoll.modify(&peer.stream, &mut event)?;
                }
                return Ok(());
            }
            Outcome::Unfinished => {
                if !self.unfinished.contains(&key) {
                    self.unfinished.push_back(key);
                }
                return Ok(());
            }
            Outcome::Closed => {}
            Outcome::Failed(cause) => {
                *self.report.failures.entry(cause.to_owned()).or_default() += 1;
            }
        }
        if !peer.used {
            self.report.empty += 1;
        }
        peer.gone = true;
        self.gone.push(key);
        Ok(())
    }
}

impl Peer {
    fn new(stream: TcpStream, server: usize, lie: Option<Lie>) -> Self {
        Self {
            stream,
            server,
            head: [0; HEADER],
            head_length: 0,
            header: None,
            received: 0,
            answered: 0,
            ended: false,
            used: false,
            gone: false,
            is_full: false,
            watches_room: false,
            lie,
        }
    }

    /// Does what can be done without waiting.
    fn advance(&mut self, pattern: &Pattern, buffer: &mut [u8], report: &mut Report) -> Outcome {
        let mut taken = 0;
        for _ in 0..BURST {
            if taken >= TURN {
                break;
            }
            if let Some(header) = self.header
                && (header.request == self.received || header.answer == ENDLESS)
            {
                match self.answer(header, pattern, buffer, report) {
                    Some(outcome) => return outcome,
                    None if self.ended => continue,
                    // The next request is a new edge.
                    None => return Outcome::Blocked,
                }
            }
            let fd = self.stream.as_raw_fd();
            let bytes = match recv(fd, buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return self.end(report),
                Ok(count) => buffer.get(..count).unwrap_or(&[]),
                Err(Errno::EAGAIN) => return Outcome::Blocked,
                Err(_) if self.is_between_exchanges() => return Outcome::Closed,
                Err(_) => return Outcome::Failed("backend: reset within an exchange"),
            };
            self.used = true;
            report.bytes_in += bytes.len() as u64;
            taken += bytes.len() as u64;
            if let Err(cause) = self.take(bytes, pattern) {
                return Outcome::Failed(cause);
            }
        }
        Outcome::Unfinished
    }

    fn is_between_exchanges(&self) -> bool {
        self.header.is_none() && self.head_length == 0
    }

    /// Checks what came in.
    fn take(&mut self, mut bytes: &[u8], pattern: &Pattern) -> Result<(), &'static str> {
        if self.head_length < HEADER {
            let wanted = bytes.len().min(HEADER - self.head_length);
            let (head, rest) = bytes.split_at(wanted);
            bytes = rest;
            let place = self.head.iter_mut().skip(self.head_length);
            place.zip(head).for_each(|(place, byte)| *place = *byte);
            self.head_length += wanted;
            if self.head_length < HEADER {
                return Ok(());
            }
        }
        if self.header.is_none() {
            self.header = Header::decode(&self.head);
            if let (Some(Lie::Doubt), Some(header)) = (self.lie, &mut self.header) {
                header.seed += 1;
            }
        }
        let header = self.header.ok_or("backend: not a header")?;
        if !pattern.matches(header.seed, self.received, bytes) {
            return Err("backend: wrong byte");
        }
        self.received += bytes.len() as u64;
        match self.received > header.request {
            true => Err("backend: too many bytes"),
            false => Ok(()),
        }
    }

    /// Sends the answer; `None` when it is complete.
    fn answer(
        &mut self,
        header: Header,
        pattern: &Pattern,
        buffer: &mut [u8],
        report: &mut Report,
    ) -> Option<Outcome> {
        if let Some(lie) = self.lie.filter(|lie| *lie != Lie::Doubt) {
            return Some(self.lie(lie, header, pattern));
        }
        let fd = self.stream.as_raw_fd();
        let mut sent = 0;
        while sent < TURN {
            if header.answer == ENDLESS && self.ended {
                report.exchanges += 1;
                return Some(match recv(fd, buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(0) => Outcome::Closed,
                    Ok(_) | Err(_) => Outcome::Failed("backend: download not ended by a FIN"),
                });
            }
            let left = header.answer - self.answered;
            let chunk = pattern.slice(header.answer_seed(), self.answered, left);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(fd, chunk, flags) {
                Ok(count) => {
                    self.answered += count as u64;
                    report.bytes_out += count as u64;
                    sent += count as u64;
                }
                Err(Errno::EAGAIN) => {
                    self.is_full = true;
                    return Some(Outcome::Blocked);
                }
                Err(_) => return Some(Outcome::Failed("backend: reset while answering")),
            }
            if self.answered == header.answer {
                report.exchanges += 1;
                self.header = None;
                self.head_length = 0;
                self.received = 0;
                self.answered = 0;
                return None;
            }
        }
        Some(Outcome::Unfinished)
    }

    /// An answer that must be noticed, and the end.
    fn lie(&self, lie: Lie, header: Header, pattern: &Pattern) -> Outcome {
        let answer = pattern.slice(header.answer_seed(), 0, header.answer);
        let (first, second) = answer.split_at(answer.len() / 2);
        let mut answer = answer.to_vec();
        match lie {
            Lie::WrongByte => answer.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1),
            Lie::Shifted => answer = [first, first].concat(),
            Lie::Short => answer.truncate(second.len()),
            Lie::Long => answer.push(0),
            Lie::Doubt => {}
        }
        match send(self.stream.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Outcome::Closed,
            Err(_) => Outcome::Failed("backend: reset while answering"),
        }
    }

    /// The other side has finished sending.
    fn end(&mut self, report: &mut Report) -> Outcome {
        if self.is_between_exchanges() {
            return Outcome::Closed;
        }
        let Some(header) = self.header.filter(|header| header.request == ENDLESS) else {
            return Outcome::Failed("backend: request cut short");
        };
        report.exchanges += 1;
        let receipt = Header {
            request: self.received,
            ..header
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.stream.as_raw_fd(), &receipt.encode(), flags) {
            Ok(HEADER) => Outcome::Closed,
            Ok(_) | Err(_) => Outcome::Failed("backend: no room for a receipt"),
        }
    }
}
