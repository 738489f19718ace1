//! The tie to the keeper: typed messages over its seqpacket socket, in tokio's terms.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::ipc::message::{MESSAGE_BYTES_MAX, ToKeeper, ToProxy};
use crate::net::readiness;
use crate::net::seqpacket::Connection;

/// Between two attempts to reach a keeper that is not there.
pub(super) const RECONNECT_EVERY: Duration = Duration::from_millis(20);

/// A keeper that reads nothing for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to the keeper.
#[derive(Debug)]
pub(super) struct Link {
    io: AsyncFd<Connection>,
    buffer: Vec<u8>,
}

impl Link {
    /// One attempt; never waits. The listener must belong to this user or to root.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let connection = Connection::connect(path)?;
        let uid = connection.peer()?.uid;
        if uid != 0 && uid != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self {
            io: readiness::watch(connection)?,
            buffer: vec![0; MESSAGE_BYTES_MAX],
        })
    }

    /// A second handle: as long as it is open, the keeper sees none of the link's end.
    pub(super) fn hold(&self) -> io::Result<OwnedFd> {
        self.io.get_ref().as_fd().try_clone_to_owned()
    }

    /// Sends a message that must arrive; waits for a reader that is slow, not for ever.
    pub(super) async fn send(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode().map_err(io::Error::other)?;
        let sent = self.io.async_io(Interest::WRITABLE, |connection| {
            connection.send(&bytes, fds)
        });
        timeout(SEND_TIMEOUT, sent).await?
    }

    /// Sends a message, or says at once that it can't: `WouldBlock` when the keeper doesn't read.
    pub(super) fn send_now(&self, message: &ToKeeper) -> io::Result<()> {
        self.send_beside(message, &[])
    }

    /// The same with descriptors beside it.
    pub(super) fn send_beside(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode().map_err(io::Error::other)?;
        self.io.get_ref().send(&bytes, fds)
    }

    /// Sends a message that a later one will repeat: dropped when the keeper doesn't read.
    pub(super) fn offer(&self, message: &ToKeeper) -> io::Result<()> {
        let bytes = message.encode().map_err(io::Error::other)?;
        match self.io.get_ref().send(&bytes, &[]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::debug!("keeper does not read, message dropped");
                Ok(())
            }
            other => other,
        }
    }

    /// The next message that can be understood; others are dropped. `UnexpectedEof` when the
    /// keeper has closed. Nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> io::Result<(ToProxy, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.io.readable().await?;
            let received = match self.io.get_ref().receive(&mut self.buffer) {
                Ok(Some(received)) => received,
                Ok(None) => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "message of the keeper dropped");
                    continue;
                }
                Err(error) => return Err(error),
            };
            if received.len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = self.buffer.get(..received.len).unwrap_or_default();
            match ToProxy::decode(bytes) {
                Ok(message) => return Ok((message, received.fds)),
                Err(error) => tracing::warn!(%error, "message of the keeper dropped"),
            }
        }
    }
}

/// The tie to the keeper.
#[derive(Debug)]
pub(super) enum Tie {
    Connected(Link),
    Lost,
}

/// What came from the tie.
pub(super) enum Event {
    Message(Box<ToProxy>, Vec<OwnedFd>),
    Lost(io::Error),
    Found(Link),
}

impl Tie {
    pub(super) async fn next(&mut self, path: &Path) -> Event {
        match self {
            Self::Connected(link) => match link.receive().await {
                Ok((message, fds)) => Event::Message(Box::new(message), fds),
                Err(error) => Event::Lost(error),
            },
            Self::Lost => loop {
                tokio::time::sleep(RECONNECT_EVERY).await;
                if let Ok(link) = Link::connect(path) {
                    return Event::Found(link);
                }
            },
        }
    }
}
