//! A tap on the wire: every advert that goes to lb1, with the kernel's time of its passing.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lbd::net::netns::Namespace;
use lbd::net::netns::rtnl::Rtnl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::lab::{LB2, Pair};

/// `ETH_P_ALL` in network order: outgoing frames are shown to no other.
const ALL_FRAMES: i32 = 0x0300;

/// An advert that passed.
#[derive(Debug, Clone, Copy)]
pub struct Advert {
    /// Wall-clock time since the epoch.
    pub at: Duration,
    pub source: Ipv4Addr,
    pub priority: u8,
}

/// A running tap; it ends when dropped.
pub struct Tap {
    adverts: Arc<Mutex<Vec<Advert>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens at the switch's port to lb1: what lb1 is to hear.
    pub fn start(pair: &Pair) -> Self {
        Self::at(pair.lab.wire.namespace(), "lb1")
    }

    /// Listens at lb2's own interface: what lb2 sends, before the wire has it.
    pub fn at_lb2(pair: &Pair) -> Self {
        Self::at(&pair.lab.nodes[LB2].host, "eth0")
    }

    fn at(host: &Namespace, interface: &str) -> Self {
        let socket = host.run(|| {
            let protocol = Protocol::from(ALL_FRAMES);
            let index = Rtnl::open()?.link_index(interface)?;
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            socket.attach_filter(&adverts_at(index))?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket
            .and_then(|socket| socket)
            .expect("the wire can be tapped");
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("the kernel tells the time");
        let timeout = Some(Duration::from_millis(50));
        socket.set_read_timeout(timeout).expect("a socket");
        socket.set_recv_buffer_size(4 << 20).expect("a socket");
        let adverts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (entries, stopped) = (Arc::clone(&adverts), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(advert) = receive(&socket) {
                    entries
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(advert);
                }
            }
        });
        Self {
            adverts,
            stop,
            thread: Some(thread),
        }
    }

    /// What one node has sent so far.
    pub fn of(&self, source: Ipv4Addr) -> Vec<Advert> {
        let adverts = self.adverts.lock().unwrap_or_else(PoisonError::into_inner);
        let own = adverts.iter().filter(|advert| advert.source == source);
        own.copied().collect()
    }

    /// The times between the adverts of one node, in order of length.
    pub fn spacing(&self, source: Ipv4Addr) -> Spacing {
        let adverts = self.of(source);
        let pairs = adverts.windows(2);
        let mut gaps: Vec<Duration> = pairs
            .map(|pair| pair[1].at.saturating_sub(pair[0].at))
            .collect();
        gaps.sort_unstable();
        Spacing { gaps }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Times between adverts, shortest first.
pub struct Spacing {
    gaps: Vec<Duration>,
}

impl Spacing {
    /// So many of a thousand are no longer than this.
    pub fn permille(&self, permille: usize) -> Duration {
        assert!(self.gaps.len() >= 3, "hardly an advert was sent");
        self.gaps[(self.gaps.len() - 1) * permille / 1000]
    }

    pub fn describe(&self) -> String {
        format!(
            "{} adverts, spacing p50 {:?}, p99 {:?}, longest {:?}",
            self.gaps.len() + 1,
            tenths(self.permille(500)),
            tenths(self.permille(990)),
            tenths(self.permille(1000)),
        )
    }
}

/// Rounded down to tenths of a millisecond.
fn tenths(duration: Duration) -> Duration {
    let tenths = duration.as_micros() / 100;
    Duration::from_micros(u64::try_from(tenths).expect("short") * 100)
}

/// Lets IPv4 packets with VRRP through that pass one interface.
fn adverts_at(index: u32) -> [SockFilter; 8] {
    const INTERFACE: u32 = 0xffff_f008;
    [
        SockFilter::new(0x28, 0, 0, 12),
        SockFilter::new(0x15, 0, 5, 0x0800),
        SockFilter::new(0x30, 0, 0, 23),
        SockFilter::new(0x15, 0, 3, 112),
        SockFilter::new(0x20, 0, 0, INTERFACE),
        SockFilter::new(0x15, 0, 1, index),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

fn receive(socket: &Socket) -> Option<Advert> {
    let mut frame = [0; 256];
    let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(&mut frame)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_TRUNC).ok()?;
    let at = message.cmsgs().ok()?.find_map(|one| {
        let ControlMessageOwned::ScmTimestampns(time) = one else {
            return None;
        };
        Some(Duration::from(time))
    })?;
    let source = <[u8; 4]>::try_from(&frame[26..30]).ok()?;
    Some(Advert {
        at,
        source: Ipv4Addr::from(source),
        priority: frame[36],
    })
}
