//! Where bytes go: standard error or a datagram socket. Nothing here waits: what a target does not
//! take at once is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::net::clock;

/// Between two attempts to reach a syslog or journal socket that is not there.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);
/// Bytes of lines that go to a file in one write.
const FILE_BATCH: usize = 32 * 1024;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Messages this process could not deliver since it began.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn count_drop() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

/// A place for lines.
#[derive(Debug)]
pub(crate) enum Sink {
    Stream(Stream),
    Datagram(Datagram),
}

impl Sink {
    /// Delivers one line or datagram, or drops and counts it. Never waits for the reader.
    pub(crate) fn write(&self, bytes: &[u8]) {
        if !self.deliver(bytes) {
            count_drop();
        }
    }

    /// The same for those who count themselves what `false` tells them was dropped.
    pub(crate) fn deliver(&self, bytes: &[u8]) -> bool {
        let delivered = match self {
            Self::Stream(stream) => stream.write(bytes),
            Self::Datagram(datagram) => datagram.write(bytes),
        };
        delivered.is_ok()
    }

    /// How many bytes of whole lines [`Sink::write_lines`] may be given; 0: none.
    pub(crate) const fn batch_max(&self) -> usize {
        match self {
            Self::Stream(stream) => stream.batch_max(),
            Self::Datagram(_) => 0,
        }
    }

    /// Delivers whole lines at once, or those that can be; answers how many were dropped.
    pub(crate) fn write_lines(&self, lines: &[u8]) -> u64 {
        let taken = match self {
            Self::Stream(stream) => stream.put(lines),
            Self::Datagram(_) => Err(io::ErrorKind::WouldBlock.into()),
        };
        match taken {
            Ok(taken) => ends(lines.get(taken..).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => lines
                .split_inclusive(|&byte| byte == b'\n')
                .map(|line| u64::from(!self.deliver(line)))
                .sum(),
            Err(_broken) => ends(lines),
        }
    }
}

fn ends(lines: &[u8]) -> u64 {
    let ends = lines.iter().filter(|&&byte| byte == b'\n').count();
    u64::try_from(ends).unwrap_or(u64::MAX)
}

/// Standard error, or any stream in its place.
#[derive(Debug)]
pub(crate) struct Stream {
    /// One writer at a time, so that "writable" is still true when the write happens.
    file: Mutex<File>,
    kind: StreamKind,
}

#[derive(Debug, Clone, Copy)]
enum StreamKind {
    /// A file on disk, which takes bytes at once.
    Regular,
    /// Whether it takes bytes is asked before each write.
    Polled,
    /// Opened anew without blocking, which the others who share the pipe don't notice.
    NonBlocking,
    Socket,
}

impl Stream {
    /// Standard error of this process.
    pub(crate) fn stderr() -> io::Result<Self> {
        Self::new(io::stderr().as_fd().try_clone_to_owned()?)
    }

    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let file_type = file.metadata()?.file_type();
        let (file, kind) = if file_type.is_file() {
            (file, StreamKind::Regular)
        } else if file_type.is_socket() {
            (file, StreamKind::Socket)
        } else if file_type.is_fifo() {
            match reopen_nonblocking(file.as_fd()) {
                Ok(reopened) => (reopened, StreamKind::NonBlocking),
                Err(_not_ours) => (file, StreamKind::Polled),
            }
        } else {
            (file, StreamKind::Polled)
        };
        Ok(Self {
            file: Mutex::new(file),
            kind,
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if self.put(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Lines in one write, up to this many bytes; 0: each by itself. What a pipe takes of no more
    /// than a page, it takes whole or not at all.
    const fn batch_max(&self) -> usize {
        match self.kind {
            StreamKind::Regular => FILE_BATCH,
            StreamKind::Polled | StreamKind::NonBlocking => libc::PIPE_BUF,
            StreamKind::Socket => 0,
        }
    }

    /// Answers how many of the bytes were taken.
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kind {
            StreamKind::Polled => {
                if !is_writable(file.as_fd()) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                file.write(bytes)
            }
            StreamKind::Regular | StreamKind::NonBlocking => file.write(bytes),
            StreamKind::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(file.as_raw_fd(), bytes, flags)?)
            }
        }
    }
}

fn reopen_nonblocking(fd: BorrowedFd<'_>) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let ready = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0);
    ready == 1 && fds.iter().all(|fd| fd.any() == Some(true))
}

/// A Unix datagram socket that somebody else serves: `/dev/log` or journald's.
#[derive(Debug)]
pub(crate) struct Datagram {
    path: PathBuf,
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    socket: Option<UnixDatagram>,
    tried: Option<Instant>,
}

impl Datagram {
    /// The first connection is tried at once; its error is for the caller to say, later writes try
    /// again by themselves.
    pub(crate) fn open(path: PathBuf) -> (Self, io::Result<()>) {
        let mut link = Link::default();
        let first = link.connect(&path, clock::now());
        let datagram = Self {
            path,
            link: Mutex::new(link),
        };
        (datagram, first)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if let Some(socket) = &link.socket {
            match socket.send(bytes) {
                Ok(_) => return Ok(()),
                Err(error) if is_gone(&error) => {
                    link.socket = None;
                    link.tried = None;
                }
                Err(error) => return Err(error),
            }
        }
        link.connect(&self.path, now)?;
        let Some(socket) = &link.socket else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        socket.send(bytes).map(|_| ())
    }
}

impl Link {
    fn connect(&mut self, path: &std::path::Path, now: Instant) -> io::Result<()> {
        let too_soon = self
            .tried
            .is_some_and(|tried| now.saturating_duration_since(tried) < RECONNECT_EVERY);
        if too_soon {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.tried = Some(now);
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// The daemon behind the socket went away (it restarts on package updates).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotFound
    )
}
