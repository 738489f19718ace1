//! TCP listeners, connects and socket options. Mechanism only: when to connect, to whom, and what
//! a failure means is decided elsewhere.
#![expect(
    unsafe_code,
    reason = "disconnect, TCP_INFO, TCP_DEFER_ACCEPT, TCP_RTO_MAX_MS, TCP_WINDOW_CLAMP and SIOCOUTQ have no safe wrapper"
)]

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

mod listen;

pub use listen::{ListenError, is_held, listener_group, listener_group_beside};

/// Unanswered keepalive probes before a peer counts as dead.
const KEEPALIVE_PROBES: u32 = 3;

/// What a connection's socket is set to. An accepted socket inherits it from its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Idle time before the first keepalive probe; `None`: no keepalive.
    pub keepalive: Option<Duration>,
}

/// Sets TCP_NODELAY, keepalive, and that an urgent byte keeps its place in the stream, as RFC 6093
/// advises. Never TCP_USER_TIMEOUT: with it the kernel cuts a peer that
/// answers, but keeps its window shut, and one that misses a single keepalive probe.
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn set_options(fd: impl AsFd, options: Options) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    options
        .keepalive
        .map_or(Ok(()), |idle| set_keepalive(&fd, idle))
}

/// Has the kernel probe a peer that has been silent for `idle`.
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn set_keepalive(fd: impl AsFd, idle: Duration) -> io::Result<()> {
    let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(whole_seconds(idle))
        .with_interval(interval)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&fd).set_tcp_keepalive(&keepalive)
}

/// Rounded up, and at least 1 s: the kernel counts keepalive in whole seconds.
fn whole_seconds(span: Duration) -> Duration {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    Duration::from_secs(whole.max(1))
}

/// Turns immediate ACKs on or off. On a listener only after listen(), which resets it; accepted
/// sockets inherit it. Off is right only where the client speaks first: the last ACK of a
/// handshake then waits for data to ride on (up to 200 ms).
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn set_quickack(fd: impl AsFd, on: bool) -> io::Result<()> {
    SockRef::from(&fd).set_tcp_quickack(on)
}

/// Whether ACKs are sent at once.
///
/// # Errors
/// The kernel's, from `getsockopt`.
pub fn quickack(fd: impl AsFd) -> io::Result<bool> {
    SockRef::from(&fd).tcp_quickack()
}

/// Takes the next connection off a listener's backlog, non-blocking and close-on-exec.
///
/// # Errors
/// The kernel's; "would block" when there is none, EMFILE or ENFILE when descriptors ran out.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (socket, addr) = SockRef::from(&listener).accept4(flags)?;
    let addr = addr
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((OwnedFd::from(socket), addr))
}

/// A non-blocking stream socket for connecting to `addr`'s family.
///
/// # Errors
/// The kernel's, from `socket`.
pub fn stream_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    Ok(OwnedFd::from(socket))
}

/// Begins to connect; `false` means it is under way and readiness to write will tell its end.
///
/// # Errors
/// The kernel's, from `connect`, other than "in progress".
pub fn connect(fd: impl AsFd, addr: SocketAddr) -> io::Result<bool> {
    match SockRef::from(&fd).connect(&SockAddr::from(addr)) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Dissolves a finished connection so that its socket can connect again.
///
/// # Errors
/// The kernel's, from `connect(AF_UNSPEC)`.
pub fn disconnect(fd: impl AsFd) -> io::Result<()> {
    let unspec = libc::sockaddr {
        sa_family: 0, // AF_UNSPEC
        sa_data: [0; 14],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr>())
        .map_err(|_too_large| io::Error::from(io::ErrorKind::InvalidInput))?;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `unspec` is an initialised sockaddr that outlives the call, `len` is its size, and
    // `raw` is open for as long as `fd` is borrowed.
    let outcome = unsafe { libc::connect(raw, &raw const unspec, len) };
    Errno::result(outcome).map(drop).map_err(io::Error::from)
}

/// Whether the kernel regards the connection as over on both sides and acknowledged
/// (`TCP_CLOSE`): nothing of it is left to send again. Asks by lifting the window's clamp, which
/// the kernel refuses in every other state, and which costs less than `TCP_INFO`.
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn is_closed(fd: impl AsFd) -> io::Result<bool> {
    match set_number(fd.as_fd(), libc::TCP_WINDOW_CLAMP, 0) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the kernel knows of a peer that has bytes to acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Window probes, or repetitions of data, in a row that brought no answer.
    pub missing: u8,
    /// Time since it acknowledged anything.
    pub last: Duration,
    /// It takes nothing: its window is shut, or what was sent to it is being repeated.
    pub shut: bool,
}

/// How a peer answers, from `TCP_INFO`. Meaningful while [`unsent`] is not 0.
///
/// # Errors
/// The kernel's, from `getsockopt`.
pub fn answers(fd: impl AsFd) -> io::Result<Answers> {
    let info = tcp_info(fd)?;
    // A peer that is short of memory drops what it offered to take and answers each repetition,
    // which the kernel goes on counting.
    let answered = info.tcpi_last_ack_recv <= info.tcpi_last_data_sent;
    let repetitions = if answered { 0 } else { info.tcpi_retransmits };
    Ok(Answers {
        missing: info.tcpi_probes.saturating_add(repetitions),
        last: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        shut: info.tcpi_unacked == 0 || info.tcpi_backoff > 0,
    })
}

fn tcp_info(fd: impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>())
        .map_err(|_too_large| io::Error::from(io::ErrorKind::InvalidInput))?;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `info` has room for the `len` bytes that the kernel may write, both outlive the
    // call, and `raw` is open for as long as `fd` is borrowed.
    let outcome = unsafe {
        libc::getsockopt(
            raw,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(outcome).map_err(io::Error::from)?;
    // SAFETY: it was zeroed, and zeros are a value of a struct of integers.
    Ok(unsafe { info.assume_init() })
}

/// Bounds the time between two probes of a shut window, or two repetitions of what was sent,
/// which else grows to two minutes (`TCP_RTO_MAX_MS`, Linux 6.15). The kernel still gives up after
/// `tcp_retries2` of them: a peer that answers repetitions of what it offered to take, and drops
/// each, after 60 s instead of 15 min with 5 s between two. A shut window is kept for as long as it is
/// answered.
///
/// # Errors
/// The kernel's, from `setsockopt`; ENOPROTOOPT when it is too old.
pub fn set_probe_interval(fd: impl AsFd, longest: Duration) -> io::Result<()> {
    const TCP_RTO_MAX_MS: libc::c_int = 44;
    let ms = libc::c_int::try_from(longest.as_millis().clamp(1000, 120_000))
        .map_err(io::Error::other)?;
    set_number(fd.as_fd(), TCP_RTO_MAX_MS, ms)
}

/// Bounds the receive window that the peer is offered, bytes, until more than that arrives at a
/// time; then it grows as ever (`TCP_WINDOW_CLAMP`).
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn set_window(fd: impl AsFd, bytes: u16) -> io::Result<()> {
    set_number(fd.as_fd(), libc::TCP_WINDOW_CLAMP, bytes.into())
}

/// Lets the last ACK of this and every later connect of the socket wait for data to ride on (up to
/// 200 ms). Right only where the client speaks first. Unlike TCP_QUICKACK it outlives a disconnect:
/// on a socket that connects, this is all that `TCP_DEFER_ACCEPT` does.
///
/// # Errors
/// The kernel's, from `setsockopt`.
pub fn defer_handshake(fd: impl AsFd) -> io::Result<()> {
    set_number(fd.as_fd(), libc::TCP_DEFER_ACCEPT, 1)
}

fn set_number(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    let raw = fd.as_raw_fd();
    // SAFETY: `value` is an int of `len` bytes that outlives the call, and `raw` is open for as
    // long as `fd` is borrowed.
    let outcome = unsafe {
        libc::setsockopt(
            raw,
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    Errno::result(outcome).map(drop).map_err(io::Error::from)
}

/// Bytes written to the socket that the peer has not acknowledged.
///
/// # Errors
/// The kernel's, from `ioctl(SIOCOUTQ)`.
pub fn unsent(fd: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int, `bytes`, which outlives the
    // call; `raw` is open for as long as `fd` is borrowed.
    let outcome = unsafe { libc::ioctl(raw, libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(outcome).map_err(io::Error::from)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Reads what is there, up to the buffer's size; 0 means the stream has ended.
///
/// # Errors
/// The kernel's; "would block" when there is nothing.
pub fn recv(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    Ok(nix::sys::socket::recv(raw, buffer, MsgFlags::empty())?)
}

/// The same, but leaves it to be read again.
///
/// # Errors
/// The kernel's; "would block" when there is nothing.
pub fn peek(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    Ok(nix::sys::socket::recv(raw, buffer, MsgFlags::MSG_PEEK)?)
}

/// Whether the peer has finished without a byte left to read. Takes nothing from the stream.
///
/// # Errors
/// The kernel's, such as a reset.
pub fn ended(fd: impl AsFd) -> io::Result<bool> {
    let raw = fd.as_fd().as_raw_fd();
    match nix::sys::socket::recv(raw, &mut [0], MsgFlags::MSG_PEEK) {
        Ok(bytes) => Ok(bytes == 0),
        Err(Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes as much as the socket takes.
///
/// # Errors
/// The kernel's; "would block" when it takes nothing.
pub fn send(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    Ok(nix::sys::socket::send(raw, bytes, MsgFlags::MSG_NOSIGNAL)?)
}

/// Sends FIN: no more bytes from here.
///
/// # Errors
/// The kernel's, from `shutdown`.
pub fn finish(fd: impl AsFd) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// Makes the coming close send RST instead of FIN and drop what was not sent.
///
/// # Errors
/// The kernel's, from `setsockopt(SO_LINGER)`.
pub fn reset_on_close(fd: impl AsFd) -> io::Result<()> {
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// The error a connect ended with, if any. Reading it clears it.
///
/// # Errors
/// The kernel's, from `getsockopt`.
pub fn take_error(fd: impl AsFd) -> io::Result<Option<io::Error>> {
    SockRef::from(&fd).take_error()
}

/// The address a socket is bound to.
///
/// # Errors
/// The kernel's, from `getsockname`.
pub fn local_addr(fd: impl AsFd) -> io::Result<SocketAddr> {
    SockRef::from(&fd)
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether `fd` can be read at once (a listener: has a connection waiting).
///
/// # Errors
/// The kernel's, from `poll`.
pub fn is_readable(fd: impl AsFd) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut set, PollTimeout::ZERO)? > 0)
}

/// log2 of the unit in which a connected socket announces its receive window.
#[cfg(test)]
pub(crate) fn window_scale(fd: impl AsFd) -> u8 {
    // Two bit fields: what the peer announced, and what is announced to it.
    let scales = tcp_info(fd).unwrap().tcpi_snd_rcv_wscale;
    if cfg!(target_endian = "little") {
        scales >> 4
    } else {
        scales & 15
    }
}

#[cfg(test)]
mod tests;
