//! The admin socket's words, and the client's side of a conversation: one line of JSON with a
//! question, one line with the answer, then the connection ends.
//!
//! Within a version commands and fields may be added; a daemon refuses those it doesn't know, by
//! name. The words of orders to the keeper are those of `ipc::command`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use super::servers::{AddServer, ServerCommand, ServerName, Servers, ServersOutcome, SetWeight};
use super::status::Status;
use super::who::Who;
use crate::ipc::command::{self, Failover, Outcome, ReleaseHold, SetLog};
use crate::ipc::event::{Event, EventKind, Wanted};
use crate::ipc::note::AdminWord;
use crate::ipc::reload::ReloadOrder;
use crate::net::clock;

/// The version both sides speak.
pub const VERSION: u32 = 1;

/// The longest question, bytes.
pub const QUESTION_BYTES_MAX: usize = 8 * 1024;

/// The longest answer a client takes, bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// How long a client waits for each step, unless it gave an order that takes longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// An order about servers is answered once it lies on disk.
const SERVERS_PATIENCE: Duration = Duration::from_secs(15);

/// A question: `{"v":1,"command":"status"}`, with arguments `{"v":1,"command":{"failover":{…}}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`VERSION`].
    pub v: u32,
    /// What is wanted.
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// The whole status.
    Status,
    /// What happened: the last so many events, and each further one if the asker wants to follow.
    Events {
        /// How many of the past ones.
        last: u32,
        /// Go on with each further one, until the asker hangs up.
        #[serde(default)]
        follow: bool,
        /// Only those of this moment and later, milliseconds since 1970.
        #[serde(default)]
        since_ms: Option<u64>,
        /// Only those of these kinds; none: all.
        #[serde(default)]
        kinds: Vec<EventKind>,
    },
    /// Which connections have this address at one of their ends.
    Who {
        /// Address and port.
        address: SocketAddr,
    },
    /// Hand virtual IPs over to another node. For writers.
    Failover(Failover),
    /// End what a failover left behind. For writers.
    ReleaseHold(ReleaseHold),
    /// Log more or less than the configuration says. For writers.
    Log(SetLog),
    /// Read lb.toml again, and apply it whole or not at all. For writers.
    Reload(ReloadOrder),
    /// No new connections to these servers. For writers.
    Drain(Servers),
    /// These servers are in service again. For writers.
    Ready(Servers),
    /// These servers are out of service. For writers.
    Maint(Servers),
    /// Another weight. For writers.
    Weight(SetWeight),
    /// A further server. For writers.
    AddServer(Box<AddServer>),
    /// A server less. For writers.
    RemoveServer {
        /// Which.
        server: ServerName,
    },
    /// Run from the program on disk from here on. For writers.
    Upgrade,
    /// Write a recording of what the state machines were told of late. For writers.
    Record,
}

/// A command that takes more than the right to read: root, or the user the daemon runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// For the keeper.
    Keeper(command::Command),
    /// About servers.
    Servers(ServerCommand),
}

impl Command {
    /// The order, if it is one.
    ///
    /// # Errors
    /// The command itself, when it only asks.
    pub fn into_order(self) -> Result<Ordered, Self> {
        let state = |word, servers: Servers| ServerCommand::State(word, servers.servers);
        let about_servers = match self {
            Self::Failover(failover) => {
                return Ok(Ordered::Keeper(command::Command::Failover(failover)));
            }
            Self::ReleaseHold(release) => {
                return Ok(Ordered::Keeper(command::Command::ReleaseHold(release)));
            }
            Self::Log(set) => return Ok(Ordered::Keeper(command::Command::Log(set))),
            Self::Reload(order) => return Ok(Ordered::Keeper(command::Command::Reload(order))),
            Self::Upgrade => return Ok(Ordered::Keeper(command::Command::Upgrade)),
            Self::Record => return Ok(Ordered::Keeper(command::Command::Record)),
            Self::Drain(servers) => state(AdminWord::Drain, servers),
            Self::Ready(servers) => state(AdminWord::Ready, servers),
            Self::Maint(servers) => state(AdminWord::Maint, servers),
            Self::Weight(weight) => ServerCommand::Weight(weight),
            Self::AddServer(server) => ServerCommand::Add(server),
            Self::RemoveServer { server } => ServerCommand::Remove(server),
            Self::Status | Self::Events { .. } | Self::Who { .. } => return Err(self),
        };
        Ok(Ordered::Servers(about_servers))
    }
}

/// The answer: `{"v":1,"status":{…}}`, `{"v":1,"outcome":{…}}`, `{"v":1,"servers":{…}}` or `{"v":1,"error":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub v: u32,
    /// What was asked for.
    #[serde(flatten)]
    pub content: Content,
}

/// What an answer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Events`], oldest first; to one who follows more of the same, a line each time.
    Events(Vec<Event>),
    /// To an order to the keeper.
    Outcome(Outcome),
    /// To an order about servers.
    Servers(ServersOutcome),
    /// To [`Command::Who`].
    Who(Who),
    /// The question was not understood.
    Error(String),
    /// The one who asks may read, but not give orders.
    Denied(String),
}

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no lbd answers at {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("no permission to use {} (be root or in its group)", .0.display())]
    Permission(PathBuf),
    /// It listens, but the conversation broke off or took too long.
    #[error("the lbd at {} does not answer", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It answers something this client doesn't understand.
    #[error("the lbd at {} answers in another language", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
    /// It refused.
    #[error("refused: {0}")]
    Refused(String),
    /// It takes no orders from this user.
    #[error("not permitted: {0}")]
    Denied(String),
}

/// Reads one question.
///
/// # Errors
/// What is wrong with it, for the one who asked.
pub fn parse(line: &[u8]) -> Result<Question, String> {
    let question: Question =
        serde_json::from_slice(line).map_err(|error| format!("no question: {error}"))?;
    if question.v == VERSION {
        Ok(question)
    } else {
        Err(format!(
            "version {} is not spoken here, only {VERSION}",
            question.v
        ))
    }
}

/// Asks the daemon at `path` for its status.
///
/// # Errors
/// [`AskError`].
pub fn ask_status(path: &Path) -> Result<Status, AskError> {
    let mut answers = ask(path, Command::Status, PATIENCE)?;
    match answers.only(path)? {
        Content::Status(status) => Ok(*status),
        other @ (Content::Events(_)
        | Content::Outcome(_)
        | Content::Servers(_)
        | Content::Who(_)
        | Content::Error(_)
        | Content::Denied(_)) => Err(unexpected(other)),
    }
}

/// Gives the daemon at `path` an order and waits for what becomes of it, at most `patience`.
///
/// # Errors
/// [`AskError`].
pub fn order(path: &Path, order: Command, patience: Duration) -> Result<Outcome, AskError> {
    let mut answers = ask(path, order, patience.max(PATIENCE))?;
    match answers.only(path)? {
        Content::Outcome(outcome) => Ok(outcome),
        other @ (Content::Status(_)
        | Content::Events(_)
        | Content::Servers(_)
        | Content::Who(_)
        | Content::Error(_)
        | Content::Denied(_)) => Err(unexpected(other)),
    }
}

/// Gives the daemon at `path` an order about servers.
///
/// # Errors
/// [`AskError`].
pub fn order_servers(path: &Path, order: Command) -> Result<ServersOutcome, AskError> {
    let mut answers = ask(path, order, SERVERS_PATIENCE)?;
    match answers.only(path)? {
        Content::Servers(outcome) => Ok(outcome),
        other @ (Content::Status(_)
        | Content::Events(_)
        | Content::Outcome(_)
        | Content::Who(_)
        | Content::Error(_)
        | Content::Denied(_)) => Err(unexpected(other)),
    }
}

/// Asks the daemon at `path` which connections have `address` at one of their ends.
///
/// # Errors
/// [`AskError`].
pub fn ask_who(path: &Path, address: SocketAddr) -> Result<Who, AskError> {
    let mut answers = ask(path, Command::Who { address }, PATIENCE)?;
    match answers.only(path)? {
        Content::Who(who) => Ok(who),
        other @ (Content::Status(_)
        | Content::Events(_)
        | Content::Outcome(_)
        | Content::Servers(_)
        | Content::Error(_)
        | Content::Denied(_)) => Err(unexpected(other)),
    }
}

/// Asks the daemon at `path` for its last events, and hands them to `take`. With `follow` also each
/// further one, until the daemon hangs up or `take` says false.
///
/// # Errors
/// [`AskError`].
pub fn ask_events(
    path: &Path,
    last: u32,
    follow: bool,
    take: impl FnMut(Vec<Event>) -> bool,
) -> Result<(), AskError> {
    ask_wanted_events(path, (last, follow), &Wanted::default(), take)
}

/// The same for some of the events. A daemon that knows no choice of events sends all: look again.
///
/// # Errors
/// [`AskError`].
pub fn ask_wanted_events(
    path: &Path,
    (last, follow): (u32, bool),
    wanted: &Wanted,
    mut take: impl FnMut(Vec<Event>) -> bool,
) -> Result<(), AskError> {
    let command = Command::Events {
        last,
        follow,
        since_ms: wanted.since_ms,
        kinds: wanted.kinds.clone(),
    };
    let mut answers = ask(path, command, PATIENCE)?;
    let mut content = answers.only(path)?;
    answers
        .wait_for_ever()
        .map_err(|source| broken(path, source))?;
    loop {
        let Content::Events(events) = content else {
            return Err(unexpected(content));
        };
        if !take(events) || !follow {
            return Ok(());
        }
        content = match answers.next(path)? {
            Some(content) => content,
            None => return Ok(()),
        };
    }
}

fn broken(path: &Path, source: io::Error) -> AskError {
    AskError::Broken {
        path: path.to_owned(),
        source,
    }
}

/// A refusal, or an answer to another question.
fn unexpected(content: Content) -> AskError {
    match content {
        Content::Error(error) => AskError::Refused(error),
        Content::Denied(error) => AskError::Denied(error),
        Content::Status(_)
        | Content::Events(_)
        | Content::Outcome(_)
        | Content::Servers(_)
        | Content::Who(_) => AskError::Refused("answers another question".to_owned()),
    }
}

/// A proxy process that takes over opens the socket within this.
const CHANGE_WITHIN: Duration = Duration::from_millis(250);

/// Connects; for a moment nobody listens while one process takes over from another.
fn connect_patiently(path: &Path) -> io::Result<UnixStream> {
    let began = clock::now();
    loop {
        match connect(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) && clock::now() - began < CHANGE_WITHIN =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Connects and asks.
fn ask(path: &Path, command: Command, patience: Duration) -> Result<Answers, AskError> {
    let stream = connect_patiently(path).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return AskError::Permission(path.to_owned());
        }
        if source.kind() == io::ErrorKind::WouldBlock {
            return broken(path, source);
        }
        AskError::Unreachable {
            path: path.to_owned(),
            source,
        }
    })?;
    converse(stream, command, patience).map_err(|source| broken(path, source))
}

/// Connects without waiting: `WouldBlock` when somebody listens but accepts nobody. A stopped
/// process must not stop those who ask after it.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

fn converse(mut stream: UnixStream, command: Command, patience: Duration) -> io::Result<Answers> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let question = Question {
        v: VERSION,
        command,
    };
    let mut line = serde_json::to_string(&question)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    Ok(Answers(BufReader::new(stream)))
}

/// The lines of an answer.
struct Answers(BufReader<UnixStream>);

impl Answers {
    /// The next one; `None` when the daemon has hung up.
    fn next(&mut self, path: &Path) -> Result<Option<Content>, AskError> {
        let mut line = String::new();
        let mut limited = (&mut self.0).take(ANSWER_BYTES_MAX);
        let read = limited.read_line(&mut line);
        read.map_err(|source| broken(path, source))?;
        if line.is_empty() {
            return Ok(None);
        }
        if !line.ends_with('\n') {
            return Err(broken(path, io::ErrorKind::UnexpectedEof.into()));
        }
        let answer: Answer = serde_json::from_str(&line).map_err(|source| AskError::Foreign {
            path: path.to_owned(),
            source,
        })?;
        Ok(Some(answer.content))
    }

    /// The first one, which must come.
    fn only(&mut self, path: &Path) -> Result<Content, AskError> {
        let first = self.next(path)?;
        first.ok_or_else(|| broken(path, io::ErrorKind::UnexpectedEof.into()))
    }

    fn wait_for_ever(&self) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(None)
    }
}
