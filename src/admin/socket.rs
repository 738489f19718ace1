//! The admin socket: answers questions and takes orders. Bounded in the number of askers, in the
//! size of a question and in time; an asker who exceeds them is cut off and nobody else notices.
//!
//! Who may connect is the socket file's mode (owner and group). That is enough to ask; orders are
//! taken from root and from the socket's owner only, whom the kernel names (`SO_PEERCRED`).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::events::{Feed, Place};
use super::protocol::{
    Answer, Command, Content, Ordered, QUESTION_BYTES_MAX, Question, VERSION, connect, parse,
};
use super::servers::{ServerCommand, ServersOutcome};
use super::{Order, Orders, Source};
use crate::ipc::command::{self, NAMES_MAX, Outcome};
use crate::ipc::event::{Event, Wanted};

/// Askers at once; further ones wait in the kernel's backlog.
const ASKERS_MAX: usize = 16;
/// Of them, those who follow the events: the others must get a word in.
const FOLLOWERS_MAX: usize = 8;
/// Time for a question to come, and for an answer to be taken.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// An order that nobody has answered after this long never will be: the longest failover is bounded
/// by the longest advert interval, 40.95 s, four times and a second.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// An order about servers is carried out at once; what takes time is the disk.
const SERVERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Workers answer within two seconds, or what is known then is told.
const WHO_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Rest after a failed accept (no descriptors left).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Listens at `path`, for owner and group alone. A socket file nobody listens on is replaced.
///
/// # Errors
/// `AddrInUse` when somebody listens there or something that is no socket lies there.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    match std::fs::symlink_metadata(path) {
        Ok(present) if !present.file_type().is_socket() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(_socket) => match connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Ok(_) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = StdListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until the task is aborted.
///
/// # Errors
/// When the listener cannot be handed to the executor.
pub async fn serve(
    listener: StdListener,
    source: Source,
    feed: Arc<Feed>,
    orders: Orders,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
    let askers = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&askers).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _address)) => stream,
            Err(error) => {
                tracing::debug!(%error, "admin socket cannot accept");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let (source, feed) = (Arc::clone(&source), Arc::clone(&feed));
        let (followers, orders) = (Arc::clone(&followers), orders.clone());
        tokio::spawn(async move {
            let served = answer(stream, &source, (&feed, &followers), &orders);
            if let Err(error) = served.await {
                tracing::debug!(%error, "admin conversation broke off");
            }
            drop(permit);
        });
    }
}

async fn answer(
    mut stream: UnixStream,
    source: &Source,
    (feed, followers): (&Feed, &Semaphore),
    orders: &Orders,
) -> io::Result<()> {
    let content = match timeout(STEP_TIMEOUT, question(&mut stream)).await {
        Ok(line) => match parse(&line?) {
            Ok(Question {
                command:
                    Command::Events {
                        last,
                        follow,
                        since_ms,
                        kinds,
                    },
                ..
            }) => {
                let wanted = Wanted { since_ms, kinds };
                let last = usize::try_from(last).unwrap_or(usize::MAX);
                let (events, place) = feed.last(last, &wanted);
                match followers.try_acquire() {
                    Ok(_permit) if follow => {
                        tell(&mut stream, Content::Events(events)).await?;
                        return follow_on(&mut stream, feed, place, &wanted).await;
                    }
                    Err(_full) if follow => Content::Error("too many follow already".to_owned()),
                    Ok(_) | Err(_) => Content::Events(events),
                }
            }
            Ok(question) => reply(&stream, question, source, orders).await,
            Err(error) => Content::Error(error),
        },
        Err(_elapsed) => Content::Error("no question came in time".to_owned()),
    };
    tell(&mut stream, content).await?;
    stream.shutdown().await
}

/// Tells of each further event until the asker hangs up or reads no more.
async fn follow_on(
    stream: &mut UnixStream,
    feed: &Feed,
    mut place: Place,
    wanted: &Wanted,
) -> io::Result<()> {
    let mut silence = [0; 64];
    loop {
        let events = tokio::select! {
            (events, next) = feed.after(place) => {
                place = next;
                events
            }
            said = stream.read(&mut silence) => match said? {
                0 => return Ok(()),
                // It has asked; what else it says is of no interest.
                _ => continue,
            },
        };
        let events: Vec<Event> = events.into_iter().filter(|e| wanted.matches(e)).collect();
        if !events.is_empty() {
            tell(stream, Content::Events(events)).await?;
        }
    }
}

async fn tell(stream: &mut UnixStream, content: Content) -> io::Result<()> {
    let answer = Answer {
        v: VERSION,
        content,
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(STEP_TIMEOUT, stream.write_all(&line)).await?
}

async fn reply(
    stream: &UnixStream,
    question: Question,
    source: &Source,
    orders: &Orders,
) -> Content {
    let order = match question.command.into_order() {
        Ok(order) => order,
        Err(Command::Status) => return Content::Status(Box::new(source())),
        Err(Command::Who { address }) => return who(address, orders).await,
        Err(_other) => return Content::Error("not understood".to_owned()),
    };
    // The socket was made by this process: its owner is this process's user.
    let owner = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if may_order(peer.uid(), owner) => {
            tracing::info!(uid = peer.uid(), ?order, "order received");
            match order {
                Ordered::Keeper(command) => {
                    let command = signed(command, peer.uid());
                    Content::Outcome(carry_out(command, orders).await)
                }
                Ordered::Servers(command) => {
                    Content::Servers(carry_out_servers(command, peer.uid(), orders).await)
                }
            }
        }
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "order refused");
            Content::Denied("orders are taken from root and the socket's owner".to_owned())
        }
        Err(error) => Content::Denied(format!("the kernel does not say who asks: {error}")),
    }
}

fn may_order(uid: u32, owner: u32) -> bool {
    uid == 0 || uid == owner
}

/// Answered when every worker has, or when it takes too long.
async fn who(address: SocketAddr, orders: &Orders) -> Content {
    let (answer, found) = oneshot::channel();
    if orders.try_send(Order::Who(address, answer)).is_err() {
        return Content::Error("too many questions at once".to_owned());
    }
    match timeout(WHO_TIMEOUT, found).await {
        Ok(Ok(who)) => Content::Who(who),
        Ok(Err(_)) | Err(_) => Content::Error("no answer came in time".to_owned()),
    }
}

/// With the name of who gave it, where that is noted.
fn signed(command: command::Command, uid: u32) -> command::Command {
    match command {
        command::Command::Log(set) => command::Command::Log(command::SetLog {
            uid: Some(uid),
            ..set
        }),
        other @ (command::Command::Failover(_)
        | command::Command::ReleaseHold(_)
        | command::Command::Reload(_)
        | command::Command::Upgrade
        | command::Command::Record) => other,
    }
}

async fn carry_out(command: command::Command, orders: &Orders) -> Outcome {
    let names = match &command {
        command::Command::Failover(failover) => failover.vips.len(),
        command::Command::ReleaseHold(release) => release.vips.len(),
        command::Command::Reload(_)
        | command::Command::Log(_)
        | command::Command::Upgrade
        | command::Command::Record => 0,
    };
    if names > NAMES_MAX {
        return Outcome::Refused(format!("more than {NAMES_MAX} names"));
    }
    let (answer, outcome) = oneshot::channel();
    if orders.try_send(Order::Keeper(command, answer)).is_err() {
        return Outcome::Refused("too many orders at once".to_owned());
    }
    match timeout(ORDER_TIMEOUT, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_dropped)) => Outcome::Unknown("the process that took it has gone".to_owned()),
        Err(_elapsed) => Outcome::Unknown("no answer came in time".to_owned()),
    }
}

async fn carry_out_servers(command: ServerCommand, uid: u32, orders: &Orders) -> ServersOutcome {
    if let Err(why) = command.check() {
        return ServersOutcome::Refused(why);
    }
    let (answer, outcome) = oneshot::channel();
    let order = Order::Servers(command, uid, answer);
    if orders.try_send(order).is_err() {
        return ServersOutcome::Refused("too many orders at once".to_owned());
    }
    match timeout(SERVERS_TIMEOUT, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => ServersOutcome::Refused(
            "no answer came: `lbd status` says whether it was carried out".to_owned(),
        ),
    }
}

/// The bytes up to the line's end, or what came until the limit or the end of the stream.
async fn question(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(QUESTION_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(stream.take(limit))
        .read_until(b'\n', &mut line)
        .await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_for_root_and_the_owner() {
        assert!(may_order(0, 990));
        assert!(may_order(990, 990));
        assert!(!may_order(1000, 990));
        assert!(!may_order(1000, 0));
    }
}
