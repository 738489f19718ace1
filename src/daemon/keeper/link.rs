//! One connection to a proxy process, or to the runner: typed messages out, never waiting, with a
//! short queue for the moment in which the other end doesn't read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::net::epoll::{Epoll, Interest};
use crate::net::seqpacket::{Connection, Received};

/// Messages that wait for a process that doesn't read. More: the connection counts as broken.
const QUEUE_MAX: usize = 1024;

/// Messages taken from one process in one turn of the loop, so that none can keep the keeper from
/// the others. The rest waits: epoll tells of it again.
pub(super) const MESSAGES_MAX: usize = 64;

/// A connection watched by the keeper's epoll instance under `token`.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    pub(super) token: u64,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

impl Link {
    /// Watches `connection`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(epoll: &Epoll, connection: Connection, token: u64) -> io::Result<Self> {
        epoll.add(&connection, token, Interest::READ)?;
        Ok(Self {
            connection,
            token,
            queue: VecDeque::new(),
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends, or queues behind what is waiting.
    ///
    /// # Errors
    /// `ResourceBusy` when the queue is full; else the kernel's: the other end is gone.
    pub(super) fn send(
        &mut self,
        epoll: &Epoll,
        bytes: Vec<u8>,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if self.queue.is_empty() {
            match self.connection.send(&bytes, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            epoll.modify(
                &self.connection,
                self.token,
                Interest::READ | Interest::WRITE,
            )?;
        }
        if self.queue.len() >= QUEUE_MAX {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let fds: io::Result<Vec<OwnedFd>> =
            fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.queue.push_back((bytes, fds?));
        Ok(())
    }

    /// Whether messages wait: what is worth nothing later needn't be sent then.
    pub(super) fn is_congested(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        while let Some((bytes, fds)) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match self.connection.send(bytes, &fds) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.queue.pop_front();
        }
        epoll.modify(&self.connection, self.token, Interest::READ)
    }

    /// The next message; `None` when there is none.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end has closed; else the kernel's.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.connection.receive(buffer)? {
            Some(received) if received.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            other => Ok(other),
        }
    }

    /// Takes what is there, at most [`MESSAGES_MAX`], and looks at none of it.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(super) fn discard(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..MESSAGES_MAX {
            if self.receive(buffer)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_taken_in_portions() {
        let epoll = Epoll::new().unwrap();
        let (ours, theirs) = Connection::pair().unwrap();
        let link = Link::new(&epoll, ours, 1).unwrap();
        for _ in 0..100 {
            theirs.send(b"flood", &[]).unwrap();
        }
        let mut buffer = [0; 8];
        link.discard(&mut buffer).unwrap();
        let mut left = 0;
        while link.receive(&mut buffer).unwrap().is_some() {
            left += 1;
        }
        assert_eq!(left, 36);
    }

    #[test]
    fn what_the_other_end_does_not_read_waits_in_order() {
        let epoll = Epoll::new().unwrap();
        let (ours, theirs) = Connection::pair().unwrap();
        let mut link = Link::new(&epoll, ours, 1).unwrap();
        let mut sent = 0_u32;
        while !link.is_congested() {
            sent += 1;
            let mut bytes = vec![0; 4096];
            bytes[..4].copy_from_slice(&sent.to_le_bytes());
            link.send(&epoll, bytes, &[]).unwrap();
        }
        let last = sent + 1;
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(&last.to_le_bytes());
        link.send(&epoll, bytes, &[theirs.as_fd()]).unwrap();
        let mut buffer = vec![0; 8192];
        let mut seen = 0_u32;
        while seen < last {
            if let Some(received) = theirs.receive(&mut buffer).unwrap() {
                seen += 1;
                assert_eq!(buffer[..4], seen.to_le_bytes());
                assert_eq!(received.fds.len(), usize::from(seen == last));
            } else {
                link.flush(&epoll).unwrap();
            }
        }
        assert!(!link.is_congested());
    }
}
