//! One connection to a proxy process, or to the runner: typed messages out, never waiting, with a
//! short queue for the moment in which the other end doesn't read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::blackbox::BlackBox;
use crate::net::epoll::{Epoll, Interest};
use crate::net::seqpacket::{Connection, Received};

/// Messages that wait for a process that doesn't read. More: the connection counts as broken.
const QUEUE_MAX: usize = 1024;
/// The same in bytes.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Messages taken from one process in one turn of the loop, so that none can keep the keeper from
/// the others. The rest waits: epoll tells of it again.
pub(super) const MESSAGES_MAX: usize = 64;
/// The same in bytes: long messages take long to decode.
const TURN_BYTES_MAX: usize = 256 << 10;

/// What is taken from one process in one turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    messages: usize,
    bytes: usize,
}

impl Turn {
    /// Whether there is room for one more message.
    pub(super) fn goes_on(&self) -> bool {
        self.messages < MESSAGES_MAX && self.bytes < TURN_BYTES_MAX
    }

    /// One was taken.
    pub(super) fn took(&mut self, received: &Received) {
        self.messages += 1;
        self.bytes += received.len;
    }
}

/// A connection watched by the keeper's epoll instance under `token`.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    pub(super) token: u64,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    queued_bytes: usize,
    /// Where a proxy process has its tapes.
    pub(super) black_box: Option<BlackBox>,
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
            queued_bytes: 0,
            black_box: None,
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
        let queued_bytes = self.queued_bytes + bytes.len();
        if self.queue.len() >= QUEUE_MAX || queued_bytes > QUEUE_BYTES_MAX {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let fds: io::Result<Vec<OwnedFd>> =
            fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.queue.push_back((bytes, fds?));
        self.queued_bytes = queued_bytes;
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
            self.queued_bytes -= bytes.len();
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
}

/// What the other end has sent beside messages that nobody read would be closed with the socket, and
/// might hold that up.
impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_turn_ends_with_64_messages_or_256_kib() {
        let taken = |len| {
            let mut turn = Turn::default();
            let received = Received {
                len,
                fds: Vec::new(),
            };
            (0..1_000)
                .take_while(|_| {
                    let goes_on = turn.goes_on();
                    turn.took(&received);
                    goes_on
                })
                .count()
        };
        assert_eq!((taken(100), taken(160 * 1024)), (64, 2));
    }

    #[test]
    fn who_does_not_read_costs_a_bounded_amount_of_memory() {
        let epoll = Epoll::new().unwrap();
        let (ours, _theirs) = Connection::pair().unwrap();
        let mut link = Link::new(&epoll, ours, 1).unwrap();
        let mut held = 0;
        let error = loop {
            match link.send(&epoll, vec![0; 100_000], &[]) {
                Ok(()) => held += usize::from(link.is_congested()) * 100_000,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(held <= 4 << 20, "{held}");
    }
}
