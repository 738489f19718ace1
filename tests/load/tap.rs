//! A tap on the wire: every advert that goes to lb1, with the kernel's time of its passing.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::lab::Pair;

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
    /// Listens at the switch's port to lb1.
    pub fn start(pair: &Pair) -> Self {
        let socket = pair.lab.wire.namespace().run(|| {
            let protocol = Protocol::from(ALL_FRAMES);
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
            let port = lbd::net::netns::rtnl::Rtnl::open()?.link_index("lb1")?;
            Ok::<_, std::io::Error>((socket, port))
        });
        let (socket, port) = socket
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
                if let Some(advert) = receive(&socket, port) {
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
            "{} adverts, spacing p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            self.gaps.len() + 1,
            ms(self.permille(500)),
            ms(self.permille(990)),
            ms(self.permille(1000)),
        )
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn receive(socket: &Socket, port: u32) -> Option<Advert> {
    let mut frame = [0; 256];
    let mut space = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(&mut frame)];
    let fd = socket.as_raw_fd();
    let message =
        recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_TRUNC).ok()?;
    let seen_at = message.address.map(|from| from.ifindex());
    let at = message.cmsgs().ok()?.find_map(|one| match one {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    })?;
    // Ethernet, IPv4 without options, VRRP.
    let is_advert = frame[12..14] == [0x08, 0x00] && frame[14] == 0x45 && frame[23] == 112;
    let source = <[u8; 4]>::try_from(&frame[26..30]).ok()?;
    let on_port = seen_at.and_then(|index| u32::try_from(index).ok()) == Some(port);
    (is_advert && on_port).then(|| Advert {
        at,
        source: Ipv4Addr::from(source),
        priority: frame[36],
    })
}
