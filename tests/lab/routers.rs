//! Hosts with virtual routers of lbd in namespaces, without any keeper: each host is a thread that
//! runs a keeper's loop, and does what it is asked between two turns.

#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "each test program uses its own part of this"
)]

use std::cell::RefCell;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lbd::config::local::{LocalVip, resolve};
use lbd::ipc::message::{VipStatus, VrrpState};
use lbd::net::clock::now;
use lbd::net::link::LinkEvents;
use lbd::net::netlink::{Netlink, host_facts};
use lbd::net::netns::Namespace;
use lbd::net::netns::wire::{Plug, Wire};
use lbd::vrrp::stamp::Resume;
use lbd::vrrp::task::{NodeHealth, RouterEvent, VirtualRouter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

pub const HEALTHY: NodeHealth = NodeHealth {
    can_serve: true,
    known: true,
    weight: 0,
    probe_epoch: NodeHealth::NO_PROBE,
};

/// Whether namespaces can be made here; says so if not.
pub fn is_possible() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return false;
    }
    true
}

/// One test at a time keeps the timing of each honest.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// This test's turn, where namespaces can be made and `ip` is there; says so if not.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    // What another test broke in its turn is gone with its hosts.
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_possible() {
        return None;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: iproute2 is not installed");
        return None;
    }
    Some(turn)
}

/// What a host's thread works with.
pub struct Inside {
    pub routers: Vec<VirtualRouter>,
    pub events: Vec<RouterEvent>,
    netlink: Rc<RefCell<Netlink>>,
    links: LinkEvents,
}

impl Inside {
    /// Opens what `text` says of this host: all as one router if `together`, else each alone.
    pub fn open(&mut self, text: &str, together: bool) {
        let locals = of_this_host(text);
        let groups: Vec<&[LocalVip]> = if together {
            vec![locals.as_slice()]
        } else {
            locals.chunks(1).collect()
        };
        for members in groups {
            self.begin(members, None);
            let router = self.routers.last_mut().unwrap();
            router.set_health(now(), HEALTHY);
        }
    }

    /// Opens what `text` says of this host as one router that has not heard yet whether its node
    /// can serve, as a keeper does that finds what its predecessor left.
    pub fn resume(&mut self, text: &str, resume: Option<Resume>) {
        self.begin(&of_this_host(text), resume);
    }

    fn begin(&mut self, members: &[LocalVip], resume: Option<Resume>) {
        let netlink = Rc::clone(&self.netlink);
        let router = VirtualRouter::open(members, netlink, now(), resume);
        self.routers.push(router.unwrap());
    }

    /// For tests with a loop of their own.
    pub fn parts(&mut self) -> (&mut Vec<VirtualRouter>, &mut LinkEvents) {
        (&mut self.routers, &mut self.links)
    }

    pub fn status(&self) -> Vec<VipStatus> {
        let at = now();
        let all = self.routers.iter();
        all.flat_map(|router| router.status(at)).collect()
    }

    /// Runs a program in the namespace and returns what it says.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        let output = Command::new(program).args(words).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {talk}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One round of a keeper's loop.
    pub fn turn(&mut self, limit: Duration) {
        let due = self.routers.iter().filter_map(VirtualRouter::deadline);
        let wait = due
            .min()
            .map_or(limit, |at| at.saturating_duration_since(now()).min(limit));
        let mut fds = vec![PollFd::new(self.links.as_fd(), PollFlags::POLLIN)];
        for router in &self.routers {
            fds.extend(router.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        let ms = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap();
        poll(&mut fds, PollTimeout::from(ms)).unwrap();
        let ready = fds.iter().filter(|fd| fd.any().unwrap_or(false));
        let ready: Vec<i32> = ready.map(|fd| fd.as_fd().as_raw_fd()).collect();
        let at = now();
        let routers = &mut self.routers;
        for router in routers.iter_mut() {
            for fd in &ready {
                router.on_readable(*fd, at);
            }
        }
        let tell = |routers: &mut Vec<VirtualRouter>, event| {
            for router in routers.iter_mut() {
                router.on_link(at, &event);
            }
        };
        while self.links.read(|event| tell(routers, event)).unwrap() {}
        for router in routers {
            if router.deadline().is_some_and(|due| due <= at) {
                router.on_deadline(at);
            }
            while let Some(event) = router.pop_event() {
                self.events.push(event);
            }
        }
    }
}

type Job = Box<dyn FnOnce(&mut Inside) + Send>;

/// A host on some wires.
pub struct Host {
    jobs: SyncSender<Job>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    /// Last: its end kills what still runs inside.
    pub namespace: Namespace,
}

impl Host {
    pub fn new() -> Self {
        let namespace = Namespace::new(&[]).unwrap();
        let (jobs, inbox) = sync_channel(4);
        let thread = namespace.thread("host", move || live(&inbox)).unwrap();
        Self {
            jobs,
            thread: Some(thread),
            namespace,
        }
    }

    /// Joins a wire by an interface of that name.
    pub fn attach(&self, wire: &mut Wire, host: &str, interface: &str, ip: &str) {
        let plug = Plug {
            host,
            interface,
            ip: ip.parse().unwrap(),
            prefix: if ip.contains(':') { 64 } else { 24 },
        };
        wire.attach(&self.namespace, &plug).unwrap();
    }

    /// Does something inside, between two turns of the loop.
    pub fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = sync_channel(1);
        let job = move |inside: &mut Inside| reply.send(job(inside)).unwrap();
        self.jobs.send(Box::new(job)).unwrap();
        answer.recv().expect("the host's thread lives")
    }

    /// The same without waiting: the answer comes there.
    pub fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (reply, answer) = sync_channel(1);
        let job = move |inside: &mut Inside| reply.send(job(inside)).unwrap();
        self.jobs.send(Box::new(job)).unwrap();
        answer
    }

    pub fn run(&self, line: &str) -> String {
        let line = line.to_owned();
        self.with(move |inside| inside.run(&line))
    }

    pub fn open(&self, text: &str, together: bool) {
        let text = text.to_owned();
        self.with(move |inside| inside.open(&text, together));
    }

    /// Hears all frames of this EtherType that come to the host's interfaces from here on.
    pub fn ear(&self, ethertype: u16) -> Ear {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        Ear(self.with(move |_| {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }))
    }

    pub fn status(&self) -> Vec<VipStatus> {
        self.with(|inside| inside.status())
    }

    /// The state of the first router.
    pub fn state(&self) -> Option<VrrpState> {
        self.status().first().map(|status| status.state)
    }

    /// Waits until packets come through to another host's address: a wire's ports take up to a
    /// second to forward.
    pub fn reach(&self, ip: &str) {
        let to = std::net::SocketAddr::new(ip.parse().unwrap(), 9);
        within("a wire that forwards", secs(5.0), || {
            self.with(move |_| {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = std::net::UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(secs(0.2))).unwrap();
                socket.connect(to).unwrap();
                // Nobody listens there, which only a host that is reached can say.
                let sent = socket.send(b"?");
                let answer = sent.and_then(|_| socket.recv(&mut [0; 1]));
                answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            })
        });
    }

    /// Whether it has these addresses, on whatever interface.
    pub fn has(&self, wanted: &[&str]) -> Vec<bool> {
        let wanted: Vec<IpAddr> = wanted.iter().map(|ip| ip.parse().unwrap()).collect();
        self.with(move |_| {
            let facts = host_facts().unwrap();
            let there = |ip: &IpAddr| facts.interface_with(*ip).is_some();
            wanted.iter().map(there).collect()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The thread ends when nobody can ask for anything any more.
        let (jobs, _inbox) = sync_channel(1);
        drop(std::mem::replace(&mut self.jobs, jobs));
        let ended = self.thread.take().map(JoinHandle::join);
        let well = matches!(ended, Some(Ok(Ok(()))));
        assert!(well || std::thread::panicking(), "a host's thread failed");
    }
}

/// What hears a host's frames.
pub struct Ear(Socket);

impl Ear {
    /// The frames that came in since the last look.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut frame = [0; 2048];
        while let Ok(length) = (&self.0).read(&mut frame) {
            all.push(frame[..length].to_vec());
        }
        all
    }
}

/// What a configuration says of the host whose thread asks.
fn of_this_host(text: &str) -> Vec<LocalVip> {
    let config = lbd::config::load(text).unwrap();
    resolve(&config, &host_facts().unwrap(), None).unwrap()
}

fn live(inbox: &Receiver<Job>) {
    let mut inside = Inside {
        routers: Vec::new(),
        events: Vec::new(),
        netlink: Rc::new(RefCell::new(Netlink::open().unwrap())),
        links: LinkEvents::open().unwrap(),
    };
    loop {
        match inbox.try_recv() {
            Ok(job) => job(&mut inside),
            Err(TryRecvError::Empty) => inside.turn(Duration::from_millis(3)),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Hosts on one wire, by their names and addresses.
pub fn lan<const N: usize>(hosts: [(&str, &str); N]) -> ([Host; N], Wire) {
    let mut wire = Wire::new().unwrap();
    let hosts = hosts.map(|(name, ip)| {
        let host = Host::new();
        host.attach(&mut wire, name, "eth0", ip);
        host
    });
    (hosts, wire)
}

/// Two nodes of [`PAIR`] and a host that is none.
pub const LAN: [(&str, &str); 3] = [("a", "10.1.0.2"), ("b", "10.1.0.3"), ("c", "10.1.0.9")];

/// The virtual router of [`LAN`].
pub const PAIR: &str = r#"
[vip.kube]
address = "10.1.0.100/24"
nodes = [{ name = "a", address = "10.1.0.2" }, { name = "b", address = "10.1.0.3" }]
advert-interval = "100ms"
preempt = true
"#;

/// Opens the router on both nodes, and waits until the first is active and the second hears it.
pub fn elect(text: &str, active: &Host, other: &Host) {
    active.open(text, false);
    within("a active", secs(3.0), || {
        active.state() == Some(VrrpState::Active)
    });
    other.open(text, false);
    within("b hears a", secs(3.0), || {
        other.status()[0].peers[0].adverts > 5
    });
}

/// Waits for a condition, at most so long; says how long it took.
pub fn within(what: &str, limit: Duration, mut is: impl FnMut() -> bool) -> Duration {
    let start = now();
    while !is() {
        assert!(now() - start < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    now() - start
}

pub fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
