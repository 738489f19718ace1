//! The driver of the channel: what to send and when. `receive` takes messages in, `loss`
//! and `clients` are what follows from them, `view` is what is known of this node and the others,
//! `status` shows it, `keyfile` has the keys. It runs in the keeper's loop: nothing blocks, each call
//! does a bounded amount, and no packet costs an allocation.

mod clients;
pub mod keyfile;
mod loss;
mod receive;
mod status;
mod view;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::message::{
    FLOWS_MAX as PART_FLOWS, Header, Nonce, ROUTERS_MAX, Report, RouterReport, Writer,
};
use super::recorded::RecordedOneWay;
use super::session::Session;
use super::tickle::{Queue, Roster};
use crate::ipc::message::{ClientFlow, FLOWS_MAX, VrrpState};
use crate::net::clock;
use crate::net::peer_socket::PeerSocket;
use crate::net::tickle::Tickler;
use keyfile::KeyFile;
use receive::{Counts, Door};
use view::Peer;
pub use view::{Heard, Loss, Neighbour, RouterLook, Setup, View};

/// A change is told at once, but not more often than this.
const SPACING: Duration = Duration::from_millis(5);
/// A socket that can't be opened is tried again so often.
const RETRY: Duration = Duration::from_secs(1);
/// Other nodes; more are left out, and said to be.
const NODES_MAX: usize = 64;

/// One router's part in the channel.
#[derive(Debug)]
struct Router {
    name: String,
    vrid: u8,
    address: IpAddr,
    loss: RecordedOneWay,
    told: Option<(VrrpState, u8)>,
}

/// The channel to all other nodes.
#[derive(Debug)]
pub struct Channel {
    port: u16,
    interval: Duration,
    name: String,
    key: KeyFile,
    doors: Vec<Door>,
    peers: Vec<Peer>,
    routers: Vec<Router>,
    serves: bool,
    /// Connections of clients to this node, and those that are still coming in.
    clients: Vec<ClientFlow>,
    /// What they are made of.
    lists: Vec<clients::OfProcess>,
    queue: Queue,
    tickler: Option<Tickler>,
    counts: Counts,
    sent_at: Option<Instant>,
    next: Instant,
}

impl Channel {
    /// Opens sockets and reads the keys. What fails is said, and tried again: the addresses of
    /// this node don't depend on it.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn open(setup: Setup, now: Instant) -> io::Result<Self> {
        let own = nonce()?;
        let interval = setup.config.interval;
        let mut doors: Vec<Door> = Vec::new();
        let mut peers = Vec::new();
        if setup.neighbours.len() > NODES_MAX {
            tracing::error!("more nodes than the peer channel serves");
        }
        for node in setup.neighbours.into_iter().take(NODES_MAX) {
            let known = doors.iter().position(|door| door.own == node.own);
            let door = known.unwrap_or_else(|| {
                doors.push(Door::new(node.own, &node.interface, now));
                doors.len() - 1
            });
            peers.push(Peer {
                session: Session::new(own, interval),
                door,
                heard: None,
                interval,
                version: String::with_capacity(super::message::TEXT_BYTES_MAX),
                name: String::with_capacity(super::message::TEXT_BYTES_MAX),
                can_serve: false,
                routers: vec![None; setup.routers.len()],
                roster: Roster::new(),
                answered: None,
                next_part: 0,
                node,
            });
        }
        let routers = setup
            .routers
            .into_iter()
            .map(|(name, vrid, address)| Router {
                name,
                vrid,
                address,
                loss: RecordedOneWay::new(now),
                told: None,
            });
        let tickler = Tickler::open();
        if let Err(error) = &tickler {
            tracing::warn!(%error, "clients of a node that dies cannot be woken");
        }
        Ok(Self {
            port: setup.config.port,
            interval,
            name: setup.name,
            key: KeyFile::open(&setup.config.key_file, now),
            doors,
            peers,
            routers: routers.collect(),
            serves: false,
            clients: Vec::with_capacity(FLOWS_MAX),
            lists: Vec::new(),
            queue: Queue::new(),
            tickler: tickler.ok(),
            counts: Counts::default(),
            sent_at: None,
            next: now,
        })
    }

    /// How many sockets there are at the most.
    #[must_use]
    pub fn doors(&self) -> usize {
        self.doors.len()
    }

    /// The socket at `place`, unless it isn't open or is left alone for a moment.
    #[must_use]
    pub fn socket(&self, place: usize) -> Option<BorrowedFd<'_>> {
        let door = self.doors.get(place)?;
        door.socket.as_ref().map(AsFd::as_fd)
    }

    /// Opens the sockets that are not open, if it is time to; calls `opened` for each.
    pub fn open_doors(&mut self, now: Instant, mut opened: impl FnMut(usize, BorrowedFd<'_>)) {
        for (place, door) in self.doors.iter_mut().enumerate() {
            if door.socket.is_some() || now < door.retry_at {
                continue;
            }
            door.retry_at = now + RETRY;
            match PeerSocket::open(door.own, &door.interface, self.port) {
                Ok(socket) => {
                    opened(place, socket.as_fd());
                    door.socket = Some(socket);
                    door.fault = None;
                }
                Err(error) => {
                    if door.fault.is_none() {
                        let address = SocketAddr::new(door.own, self.port);
                        tracing::error!(%error, %address, "peer channel cannot listen, will try again");
                    }
                    door.fault = Some(error.to_string());
                }
            }
        }
    }

    /// When [`tick`](Self::tick) is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let resting = self.doors.iter().filter_map(|door| door.rests_until);
        let all = resting.chain(self.queue.deadline());
        all.fold(self.next, Instant::min)
    }

    /// Sends what is due. To be called after each turn of the loop with the present view.
    pub fn tick(&mut self, now: Instant, view: &View) {
        self.wake(now);
        if self.has_news(view) {
            let soon = self.sent_at.map_or(now, |at| at + SPACING);
            self.next = self.next.min(soon.max(now));
        }
        if now < self.next {
            return;
        }
        self.next = now + self.interval;
        self.sent_at = Some(now);
        self.key.tick(now);
        self.serves = view.can_serve;
        for (router, look) in self.routers.iter_mut().zip(&view.routers) {
            router.told = Some((look.state, look.priority));
        }
        for index in 0..self.peers.len() {
            self.report(index, now, view, None);
            self.tell_clients(index);
        }
    }

    fn has_news(&self, view: &View) -> bool {
        let mut both = self.routers.iter().zip(&view.routers);
        self.serves != view.can_serve
            || both.any(|(router, look)| router.told != Some((look.state, look.priority)))
    }

    /// Tells one node how this one sees its routers; `answer` to a message that proved nothing.
    fn report(&mut self, index: usize, now: Instant, view: &View, answer: Option<&Header>) {
        let parts = u16::try_from(self.clients.len().div_ceil(PART_FLOWS)).unwrap_or(u16::MAX);
        let Self {
            peers,
            doors,
            routers,
            key,
            counts,
            ..
        } = self;
        let (Some(peer), Some(keys)) = (peers.get_mut(index), &key.keys) else {
            return;
        };
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            name: &self.name,
            can_serve: view.can_serve,
            interval_ms: u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX),
            parts,
        };
        let ends = peer.ends();
        let socket = doors.get(peer.door).and_then(|door| door.socket.as_ref());
        let Some(socket) = socket else { return };
        let mut own = routers
            .iter()
            .zip(&view.routers)
            .enumerate()
            .filter_map(|(place, (router, look))| {
                let of_peer = |heard: &&Heard| heard.router == place && heard.neighbour == index;
                let heard = view.heard.iter().find(of_peer)?.ago;
                Some(described(router, look, heard, now))
            })
            .peekable();
        loop {
            let boottime = boottime();
            let header = match answer {
                Some(to) => peer.session.answer(boottime, to),
                None => peer.session.next(boottime),
            };
            let mut writer = Writer::report(ends, &header, &report);
            for router in own.by_ref().take(ROUTERS_MAX) {
                writer.router(&router);
            }
            counts.note(socket.send(writer.sign(keys), ends.to));
            if own.peek().is_none() {
                return;
            }
        }
    }
}

fn described(
    router: &Router,
    look: &RouterLook,
    heard: Option<Duration>,
    now: Instant,
) -> RouterReport {
    let listened = look
        .listening_since
        .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    let silence = heard.map_or(listened, |ago| ago.min(listened));
    RouterReport {
        vrid: router.vrid,
        state: look.state,
        priority: look.priority,
        address: router.address,
        silence_ms: u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
        heard: heard.is_some_and(|ago| ago <= listened),
    }
}

fn boottime() -> u64 {
    u64::try_from(clock::boottime().as_nanos()).unwrap_or(u64::MAX)
}

fn nonce() -> io::Result<Nonce> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_unspecified| io::Error::other("no random numbers"))?;
    Ok(Nonce(bytes))
}
