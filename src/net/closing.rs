//! Sockets whose end the kernel takes its time over. The last close of an AF_PACKET socket comes back
//! only once every processor has passed through the kernel's idea of a quiet moment (an RCU grace
//! period): tens of milliseconds as a rule, hundreds on a busy machine. Whoever must not wait that long
//! has it done here, by a thread that does nothing else.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use socket2::Socket;

/// Sockets that wait for their end. Beyond that whoever has one more waits for it as anybody does.
const WAITING_MAX: usize = 256;
/// All of it may be locked in memory.
const STACK_BYTES: usize = 64 * 1024;

/// A socket that another thread closes, for whoever must not wait for that. The descriptor itself is
/// handed over: with a second one it would be up to chance who has the last.
#[derive(Debug)]
pub(super) struct Apart(Option<Socket>);

impl Apart {
    pub(super) fn new(socket: Socket) -> Self {
        Self(Some(socket))
    }

    /// The socket.
    ///
    /// # Errors
    /// None: it is there until this is dropped.
    pub(super) fn get(&self) -> io::Result<&Socket> {
        let gone = || io::ErrorKind::NotConnected.into();
        self.0.as_ref().ok_or_else(gone)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        static THREAD: OnceLock<Option<SyncSender<Socket>>> = OnceLock::new();
        let (Some(thread), Some(socket)) = (THREAD.get_or_init(begin), self.0.take()) else {
            return;
        };
        // What can't be sent is closed here.
        if let Err(error) = thread.try_send(socket) {
            tracing::debug!(%error, "a socket is waited for until it is closed");
        }
    }
}

fn begin() -> Option<SyncSender<Socket>> {
    let (sender, sockets) = sync_channel::<Socket>(WAITING_MAX);
    let thread = std::thread::Builder::new()
        .name("closing".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || sockets.into_iter().for_each(drop));
    thread.ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;
    use socket2::{Domain, Type};
    use std::io::Read;
    use std::time::Duration;

    #[test]
    fn a_socket_is_closed_though_not_by_whoever_had_it() {
        let (mine, mut other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        other
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        drop(Apart::new(mine));
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "its end is seen");
    }

    #[test]
    fn who_closes_many_is_not_kept() {
        let raw = || Socket::new(Domain::PACKET, Type::RAW, Some(0.into()));
        let Ok(first) = raw() else {
            println!("skipped: AF_PACKET needs CAP_NET_RAW");
            return;
        };
        drop(Apart::new(first));
        let all: Vec<Apart> = (0..100).map(|_| Apart::new(raw().unwrap())).collect();
        let begin = clock::now();
        drop(all);
        let took = clock::now() - begin;
        // One grace period is at least some milliseconds; a hundred in a row take a second.
        let one_by_one: Vec<Socket> = (0..20).map(|_| raw().unwrap()).collect();
        let begin = clock::now();
        drop(one_by_one);
        let twenty = clock::now() - begin;
        // Where there is one processor alone the kernel waits for nothing.
        let limit = twenty * 2 + Duration::from_millis(250);
        assert!(
            took < limit,
            "{took:?} for a hundred, {twenty:?} for twenty"
        );
    }
}
