//! A worker's sockets towards servers. Those of connections that ended in order are recycled: the
//! kernel dissolves the old connection, and the socket, with its options and its place in epoll,
//! begins the next. That saves socket, close, the options and epoll_ctl.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use slab::Slab;

use super::conn::Maybe;
use crate::net::tcp;

/// The pool of sockets that are not used again.
const NO_POOL: u16 = u16::MAX;
/// Spare sockets a worker keeps for each proxy and address family.
const SPARE_SOCKETS: usize = 256;
/// An answer of more bytes than this comes in more than one segment, and is acknowledged before the
/// next request.
const SEGMENT: u64 = 1_400;
/// How often spare sockets that nobody needed are closed, microseconds.
const TRIM_EVERY: u64 = 1_000_000;

/// A socket towards a server.
#[derive(Debug)]
struct Sock {
    fd: OwnedFd,
    /// Where it goes when it is spare: the options of its proxy are set on it.
    pool: u16,
    /// The connection that uses it.
    user: Maybe,
    /// The round in which that connection got it, until a later one brings an event: those of that
    /// round are its predecessor's.
    fresh: Maybe,
    /// Keepalive is set on it.
    kept: bool,
}

/// Spare sockets of one proxy and address family.
#[derive(Debug, Default)]
struct Pool {
    spare: VecDeque<u32>,
    /// The fewest spares since the last trim.
    unused: usize,
    /// The last one that became spare had received more than one segment.
    talkative: bool,
}

/// A socket for a server of one address family.
#[derive(Debug)]
struct Reserve {
    fd: OwnedFd,
    ipv6: bool,
}

impl Reserve {
    /// For addresses like this one.
    fn like(addr: SocketAddr) -> io::Result<Self> {
        let fd = tcp::stream_socket(addr)?;
        let ipv6 = addr.is_ipv6();
        Ok(Self { fd, ipv6 })
    }

    /// A socket for `addr`: itself, or one in its place.
    fn turn_to(self, addr: SocketAddr) -> io::Result<OwnedFd> {
        if self.ipv6 == addr.is_ipv6() {
            return Ok(self.fd);
        }
        drop(self);
        tcp::stream_socket(addr)
    }
}

/// A worker's sockets towards servers, in use and spare. A spare one stays registered under its
/// token.
#[derive(Debug)]
pub(super) struct Sockets {
    socks: Slab<Sock>,
    /// For each proxy: IPv4, IPv6.
    pools: Vec<Pool>,
    trimmed: u64,
    graves: Vec<u32>,
    /// No socket has a descriptor from here.
    below: RawFd,
    /// Held back so that a connection that was accepted still finds a socket, which nothing else
    /// in the process can take first.
    reserve: Option<Reserve>,
    /// A server's address, as the last one was.
    likely: SocketAddr,
}

impl Sockets {
    pub(super) fn new(proxies: usize, below: RawFd) -> Self {
        let likely = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            socks: Slab::new(),
            pools: (0..2 * proxies).map(|_| Pool::default()).collect(),
            trimmed: 0,
            graves: Vec::new(),
            below,
            reserve: Reserve::like(likely).ok(),
            likely,
        }
    }

    /// A further proxy, the next in number.
    pub(super) fn grow(&mut self) {
        self.pools.extend([Pool::default(), Pool::default()]);
    }

    /// Sockets of this proxy have other options from here on: those there are serve nobody again.
    pub(super) fn renew(&mut self, proxy: u16) {
        let old = 2 * proxy..2 * proxy + 2;
        for pool in old.clone() {
            let spare = self
                .pool_mut(pool)
                .map(|pool| std::mem::take(&mut pool.spare));
            self.graves.extend(spare.into_iter().flatten());
        }
        for (_, sock) in &mut self.socks {
            if old.contains(&sock.pool) {
                sock.pool = NO_POOL;
            }
        }
    }

    fn sock(&self, sock: u32) -> Option<&Sock> {
        self.socks.get(usize::try_from(sock).ok()?)
    }

    pub(super) fn fd(&self, sock: u32) -> Option<BorrowedFd<'_>> {
        self.sock(sock).map(|sock| sock.fd.as_fd())
    }

    /// The connection that an event of `round` is for.
    pub(super) fn user_of(&mut self, sock: u32, round: u64) -> Option<u32> {
        let sock = self.socks.get_mut(usize::try_from(sock).ok()?)?;
        if sock.fresh == short(round) {
            return None;
        }
        sock.fresh = Maybe::NONE;
        sock.user.value()
    }

    fn pool(proxy: u16, addr: SocketAddr) -> u16 {
        2 * proxy + u16::from(addr.is_ipv6())
    }

    fn pool_mut(&mut self, pool: u16) -> Option<&mut Pool> {
        self.pools.get_mut(usize::from(pool))
    }

    /// A recycled socket for `user`, a connection of `proxy` to `addr`.
    pub(super) fn reuse(
        &mut self,
        proxy: u16,
        addr: SocketAddr,
        user: u32,
        round: u64,
    ) -> Option<u32> {
        let pool = self.pool_mut(Self::pool(proxy, addr))?;
        let sock = pool.spare.pop_back()?;
        pool.unused = pool.unused.min(pool.spare.len());
        let entry = self.socks.get_mut(usize::try_from(sock).ok()?)?;
        entry.user = Maybe::some(user);
        entry.fresh = short(round);
        Some(sock)
    }

    /// A new socket for `user`; with no descriptor left, the reserve makes room for it. One that is
    /// not `recyclable` goes when its connection does.
    pub(super) fn create(
        &mut self,
        proxy: u16,
        addr: SocketAddr,
        user: u32,
        round: u64,
        recyclable: bool,
    ) -> io::Result<u32> {
        let fd = match tcp::stream_socket(addr) {
            Err(error) if is_exhausted(&error) => match self.reserve.take() {
                Some(reserve) => reserve.turn_to(addr)?,
                None => return Err(error),
            },
            outcome => outcome?,
        };
        self.likely = addr;
        if fd.as_raw_fd() >= self.below {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let sock = Sock {
            fd,
            pool: if recyclable {
                Self::pool(proxy, addr)
            } else {
                NO_POOL
            },
            user: Maybe::some(user),
            fresh: short(round),
            kept: false,
        };
        u32::try_from(self.socks.insert(sock)).map_err(io::Error::other)
    }

    /// Sets keepalive on a socket whose connection lasts, unless it has it. Most connections are over
    /// before the first probe, and four system calls cheaper without.
    pub(super) fn keep_alive(&mut self, sock: u32, idle: Duration) -> io::Result<()> {
        let Some(entry) = usize::try_from(sock)
            .ok()
            .and_then(|index| self.socks.get_mut(index))
            .filter(|entry| !entry.kept)
        else {
            return Ok(());
        };
        entry.kept = true;
        tcp::set_keepalive(&entry.fd, idle)
    }

    /// Gives a socket up: nobody uses it any more, and it is closed when the round ends.
    pub(super) fn close(&mut self, sock: u32) {
        self.graves.push(sock);
        if let Ok(index) = usize::try_from(sock)
            && let Some(entry) = self.socks.get_mut(index)
        {
            entry.user = Maybe::NONE;
        }
    }

    /// Whether the answers to this socket's proxy are likely to come in several segments.
    pub(super) fn expects_segments(&self, sock: u32) -> bool {
        self.sock(sock)
            .and_then(|entry| self.pools.get(usize::from(entry.pool)))
            .is_some_and(|pool| pool.talkative)
    }

    /// Keeps a socket whose connection is over, after so many received bytes, for another; `false`:
    /// it can't be kept.
    pub(super) fn recycle(&mut self, sock: u32, received: u64) -> bool {
        let Some(entry) = usize::try_from(sock)
            .ok()
            .and_then(|index| self.socks.get_mut(index))
        else {
            return false;
        };
        let Some(pool) = self.pools.get_mut(usize::from(entry.pool)) else {
            return false;
        };
        if pool.spare.len() >= SPARE_SOCKETS
            || !tcp::is_closed(&entry.fd).unwrap_or(false)
            || tcp::disconnect(&entry.fd).is_err()
        {
            return false;
        }
        entry.user = Maybe::NONE;
        pool.spare.push_back(sock);
        pool.talkative = received > SEGMENT;
        true
    }

    /// Once in a while: closes half of the spares that nobody needed, refills the reserve.
    /// Answers whether it was time.
    pub(super) fn trim(&mut self, now: u64) -> bool {
        if now < self.trimmed + TRIM_EVERY {
            return false;
        }
        self.trimmed = now;
        let _refilled_or_again_later = self.refill();
        let mut surplus = Vec::new();
        for pool in &mut self.pools {
            // The ones at the front have been idle longest.
            let count = pool.unused.div_ceil(2).min(pool.spare.len());
            surplus.extend(pool.spare.drain(..count));
            pool.unused = pool.spare.len();
        }
        for sock in surplus {
            self.close(sock);
        }
        true
    }

    /// Has the reserve again.
    pub(super) fn refill(&mut self) -> io::Result<()> {
        if self.reserve.is_none() {
            self.reserve = Some(Reserve::like(self.likely)?);
        }
        Ok(())
    }

    /// Whether a connection that is accepted now is sure to find a socket.
    pub(super) const fn has_reserve(&self) -> bool {
        self.reserve.is_some()
    }

    /// Closes every spare socket when the round ends: their descriptors are wanted.
    pub(super) fn close_spares(&mut self) {
        let spares = self.pools.iter_mut().flat_map(|pool| {
            pool.unused = 0;
            pool.spare.drain(..)
        });
        self.graves.extend(spares);
    }

    /// Frees the places of what was closed in this round.
    pub(super) fn bury(&mut self) {
        for sock in self.graves.drain(..) {
            if let Ok(index) = usize::try_from(sock) {
                self.socks.try_remove(index);
            }
        }
    }
}

/// A round by its lower 31 bits.
fn short(round: u64) -> Maybe {
    Maybe::span(round & 0x7fff_ffff)
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn connected(socks: &Sockets, sock: u32, listener: &TcpListener) -> std::net::TcpStream {
        let fd = socks.fd(sock).unwrap();
        tcp::connect(fd, listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap().0
    }

    #[test]
    fn a_recycled_socket_is_like_a_new_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut socks = Sockets::new(1, RawFd::MAX);
        let sock = socks.create(0, addr, 7, 1, true).unwrap();
        let mut peer = connected(&socks, sock, &listener);
        let scale = tcp::window_scale(socks.fd(sock).unwrap());
        assert!(scale > 0);
        assert!(!socks.recycle(sock, 0), "its connection is not over");
        let fd = socks.fd(sock).unwrap();
        tcp::send(fd, b"x").unwrap();
        tcp::finish(fd).unwrap();
        peer.read_to_end(&mut Vec::new()).unwrap();
        peer.write_all(&[0; 2048]).unwrap();
        drop(peer);
        let mut received = 0;
        while received < 2048 {
            let fd = socks.fd(sock).unwrap();
            received += tcp::recv(fd, &mut [0; 4096]).unwrap_or(0);
        }
        while !socks.recycle(sock, 2048) {
            std::thread::yield_now();
        }
        assert!(socks.expects_segments(sock));
        assert_eq!(socks.reuse(0, addr, 8, 2), Some(sock));
        assert_eq!(socks.user_of(sock, 2), None, "an event of its predecessor");
        assert_eq!(socks.user_of(sock, 3), Some(8));
        let _peer = connected(&socks, sock, &listener);
        // Without it a download would be held to 64 kB a round trip.
        assert_eq!(tcp::window_scale(socks.fd(sock).unwrap()), scale);
    }

    #[test]
    fn a_spare_socket_costs_sixteen_bytes() {
        assert_eq!(size_of::<Sock>(), 16);
    }
}
