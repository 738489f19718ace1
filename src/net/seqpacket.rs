//! SOCK_SEQPACKET Unix sockets: whole messages, descriptors beside them, peer credentials. What
//! the bytes mean is `ipc`'s business. Every socket is non-blocking and close-on-exec.
#![expect(
    unsafe_code,
    reason = "descriptors that arrive beside a message come as plain numbers"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag,
    SockType, UnixAddr, accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, setsockopt,
    shutdown, socket, socketpair, sockopt,
};
use socket2::SockRef;

/// The most descriptors beside one message.
pub const FDS_MAX: usize = 64;

/// The most the kernel passes beside one message (SCM_MAX_FD).
const KERNEL_FDS_MAX: usize = 253;

/// Unread messages looked into when a connection is given up: more than its buffer has room for.
const UNREAD_MAX: usize = 4096;

/// Send buffer asked for, bytes: room for the longest message and for a burst of short ones.
const SEND_BUFFER: usize = 1 << 20;

const FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

/// A listening socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// Who is at the other end, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id at the time it connected.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0: the other end has closed.
    pub len: usize,
    /// Descriptors that came beside it.
    pub fds: Vec<OwnedFd>,
}

impl Listener {
    /// Listens at `path` in the file system. A left-over socket file there is removed first (the
    /// caller holds the directory's lock); the new one is for the owner alone.
    ///
    /// # Errors
    /// The kernel's, with the path too long as `InvalidInput`.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let fd = new_socket()?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listen(&fd, Backlog::new(16)?)?;
        Ok(Self(fd))
    }

    /// The next waiting connection; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            match accept4(self.0.as_raw_fd(), FLAGS) {
                Ok(raw) => {
                    // SAFETY: accept4 has just returned this descriptor to us alone, open.
                    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
                    return Ok(Some(Connection::with_buffers(fd)));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Connection {
    /// Connects to the listener at `path`.
    ///
    /// # Errors
    /// The kernel's; `ConnectionRefused` and `NotFound` mean that nobody listens.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self::with_buffers(fd))
    }

    /// Two connected ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?;
        Ok((Self::with_buffers(a), Self::with_buffers(b)))
    }

    /// Wraps a descriptor that was passed down to this process.
    ///
    /// # Errors
    /// When it cannot be made non-blocking and close-on-exec.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Self(fd))
    }

    /// A larger send buffer where the kernel allows one; the default one works, too.
    fn with_buffers(fd: OwnedFd) -> Self {
        if let Err(errno) = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER) {
            tracing::debug!(error = %errno, "send buffer stays at its default");
        }
        Self(fd)
    }

    /// Sends one message, whole or not at all.
    ///
    /// # Errors
    /// `WouldBlock` when the other end doesn't read; `BrokenPipe` or `ConnectionReset` when it is
    /// gone; `InvalidInput` for more than [`FDS_MAX`] descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > FDS_MAX || bytes.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut raw: [RawFd; FDS_MAX] = [-1; FDS_MAX];
        for (slot, fd) in raw.iter_mut().zip(fds) {
            *slot = fd.as_raw_fd();
        }
        let used = raw.get(..fds.len()).unwrap_or_default();
        let rights = [ControlMessage::ScmRights(used)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            let sent = sendmsg::<UnixAddr>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                flags,
                None,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives one message into `buffer`; `None` when there is none yet.
    ///
    /// # Errors
    /// `InvalidData` for a message that was longer than the buffer or brought more than
    /// [`FDS_MAX`] descriptors (it is consumed, its descriptors are closed); else the kernel's.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        // Room for all that can come: what is cut off can't be closed.
        let mut control = nix::cmsg_space!([RawFd; KERNEL_FDS_MAX]);
        let mut iov = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let fd = self.0.as_raw_fd();
        let message = match recvmsg::<UnixAddr>(fd, &mut iov, Some(&mut control), flags) {
            Ok(message) => message,
            // An interrupted read is tried again at the next wake-up: the socket stays readable.
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = Vec::new();
        let control_cut = message.flags.contains(MsgFlags::MSG_CTRUNC);
        if !control_cut {
            for item in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(raw) = item {
                    for fd in raw {
                        // SAFETY: the kernel installed this descriptor for this message; nobody
                        // else in this process knows its number, so it is ours to close.
                        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
            }
        }
        fds.iter().for_each(never_wait_at_close);
        let too_many = fds.len() > FDS_MAX;
        if control_cut || too_many || message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let len = message.bytes;
        Ok(Some(Received { len, fds }))
    }

    /// Takes what is unread and closes the descriptors beside it, for good: nothing more comes in.
    pub fn abandon(&self) {
        if shutdown(self.0.as_raw_fd(), Shutdown::Both).is_err() {
            return;
        }
        for _ in 0..UNREAD_MAX {
            match self.receive(&mut [0]) {
                Ok(Some(received)) if received.len > 0 => {}
                // A longer message was consumed, too.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer(&self) -> io::Result<Credentials> {
        let credentials = getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok(Credentials {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
        })
    }
}

/// Whoever sent a socket may have told it to linger (`SO_LINGER`): closing its last descriptor would
/// wait then, although it is non-blocking.
fn never_wait_at_close(fd: &OwnedFd) {
    match SockRef::from(fd).set_linger(None) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {}
        Err(error) => tracing::debug!(%error, "a socket may linger"),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        FLAGS,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn messages_keep_their_borders_and_their_descriptors() {
        let (a, b) = Connection::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        a.send(b"first", &[]).unwrap();
        a.send(b"second", &[write.as_fd()]).unwrap();
        drop(write);
        let mut buffer = [0; 32];
        let first = b.receive(&mut buffer).unwrap().unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len()), (&b"first"[..], 0));
        let second = b.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..second.len], b"second");
        let mut passed = std::fs::File::from(second.fds.into_iter().next().unwrap());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(b.receive(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_closed_end_reads_as_an_empty_message() {
        let (a, b) = Connection::pair().unwrap();
        drop(a);
        let mut buffer = [0; 8];
        assert_eq!(b.receive(&mut buffer).unwrap().unwrap().len, 0);
        assert!(b.send(b"x", &[]).is_err());
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_refused_and_consumed() {
        let (a, b) = Connection::pair().unwrap();
        a.send(&[7; 64], &[a.as_fd()]).unwrap();
        a.send(b"next", &[]).unwrap();
        let mut buffer = [0; 8];
        let error = b.receive(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(b.receive(&mut buffer).unwrap().unwrap().len, 4);
    }

    #[test]
    fn a_message_with_too_many_descriptors_is_refused_and_costs_none() {
        let (a, b) = Connection::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let raw = [write.as_raw_fd(); FDS_MAX + 1];
        let bytes = [IoSlice::new(b"x")];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(a.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
        drop(write);
        let error = b.receive(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // The end of the pipe proves that no copy of its other end is left.
        let (flags, mut byte) = (nix::fcntl::OFlag::O_NONBLOCK, [0; 1]);
        nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        assert_eq!(read.read(&mut byte).unwrap(), 0);
    }

    #[test]
    fn a_reader_that_sleeps_never_blocks_the_sender() {
        let (a, _b) = Connection::pair().unwrap();
        let blocked = (0..100_000).find_map(|_| a.send(&[0; 4096], &[]).err());
        assert_eq!(blocked.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    /// A socket with unsent bytes, whose close waits for two seconds, non-blocking or not.
    fn lingering() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sending = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reads_nothing, _) = listener.accept().unwrap();
        sending.set_nonblocking(true).unwrap();
        while Write::write(&mut sending, &[0; 65536]).is_ok() {}
        let linger = Some(std::time::Duration::from_secs(2));
        SockRef::from(&sending).set_linger(linger).unwrap();
        (sending, reads_nothing)
    }

    #[test]
    fn a_descriptor_beside_a_message_never_holds_up_who_closes_it() {
        for read in [true, false] {
            let (a, b) = Connection::pair().unwrap();
            let (sending, _reads_nothing) = lingering();
            a.send(b"long", &[sending.as_fd()]).unwrap();
            drop(sending);
            let began = crate::net::clock::now();
            if read {
                let received = b.receive(&mut [0; 8]).unwrap().unwrap();
                assert_eq!(received.fds.len(), 1);
            } else {
                b.abandon();
            }
            drop(b);
            let took = crate::net::clock::now() - began;
            assert!(took < std::time::Duration::from_millis(500), "{took:?}");
        }
    }

    #[test]
    fn a_second_listener_replaces_a_left_over_socket_file() {
        let dir = std::env::temp_dir().join(format!("lbd-seqpacket-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("keeper.sock");
        drop(Listener::bind(&path).unwrap());
        assert!(Connection::connect(&path).is_err());
        let listener = Listener::bind(&path).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = Connection::connect(&path).unwrap();
        let server = listener.accept().unwrap().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(server.peer().unwrap().pid, pid);
        client.send(b"hello", &[]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(server.receive(&mut buffer).unwrap().unwrap().len, 5);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
