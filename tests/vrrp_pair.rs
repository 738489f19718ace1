//! Virtual routers on real sockets: two of lbd's, and one of lbd's beside keepalived, each in a
//! network namespace of its own joined by a veth pair. Needs root; says so when it skips.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of a test may stop it, and a skipped test says why"
)]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lbd::config::local::LocalVip;
use lbd::config::model::{
    Auth, Garp, Hmac, HmacKey, HmacMode, Mode, Node, Password, Preempt, Secret, Vip, VipAddress,
};
use lbd::ipc::message::{VipStatus, VrrpState};
use lbd::net::clock::now;
use lbd::net::link::LinkEvents;
use lbd::net::netlink::{Netlink, host_facts};
use lbd::units::{AdvertInterval, Priority, Version, Vrid};
use lbd::vrrp::packet::{Addresses, Advertisement, WireAuth};
use lbd::vrrp::stamp::Resume;
use lbd::vrrp::task::{NodeHealth, RouterEvent, VirtualRouter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const HEALTHY: NodeHealth = NodeHealth {
    can_serve: true,
    known: true,
    weight: 0,
    probe_epoch: NodeHealth::NO_PROBE,
};

/// Opening namespaces one test at a time keeps the timing of each honest.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn is_possible() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return false;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: iproute2 is not installed");
        return false;
    }
    true
}

/// Runs a program in this thread's namespace.
fn run(program: &str, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {talk}");
}

enum Order {
    /// Run a program in the namespace, then say so.
    Run(&'static str, String, SyncSender<()>),
    /// Start a program there and hand it back.
    Spawn(&'static str, Vec<String>, SyncSender<Child>),
    Open(Box<LocalVip>),
    /// Open it with the stamp of the router that was killed, as old as it is, if it left one.
    Resume(Box<LocalVip>),
    /// Send forged adverts to the other host: so many of each kind, then say so.
    Forge(usize, SyncSender<()>),
    Health(NodeHealth),
    Resign,
    /// Leave without waiting for a successor.
    GiveUp,
    /// Forget the router without any farewell, as a killed keeper does.
    Kill,
    End,
}

#[derive(Default)]
struct Seen {
    status: Option<VipStatus>,
    has_vip: bool,
    /// How often it has it, in whatever shape.
    copies: usize,
    released: bool,
    events: Vec<RouterEvent>,
    /// Gratuitous ARP frames for the VIP that arrived on the wire.
    garps: usize,
    /// The hardware address that the last of them told.
    announced: [u8; 6],
}

/// A namespace with a thread that lives in it.
struct Host {
    orders: SyncSender<Order>,
    seen: Arc<Mutex<Seen>>,
    netns: String,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    fn start() -> Self {
        let (orders, inbox) = sync_channel(16);
        let (ready, born) = sync_channel(1);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", "link set lo up");
            let task = nix::unistd::gettid();
            ready
                .send(format!("/proc/{}/task/{task}/ns/net", std::process::id()))
                .unwrap();
            live(&inbox, &shared);
        });
        Self {
            orders,
            seen,
            netns: born.recv().unwrap(),
            thread: Some(thread),
        }
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    fn run(&self, program: &'static str, arguments: &str) {
        let (reply, done) = sync_channel(1);
        self.order(Order::Run(program, arguments.to_owned(), reply));
        done.recv().unwrap();
    }

    fn state(&self) -> Option<VrrpState> {
        let seen = self.seen.lock().unwrap();
        seen.status.as_ref().map(|status| status.state)
    }

    fn has_vip(&self) -> bool {
        self.seen.lock().unwrap().has_vip
    }

    fn garps(&self) -> usize {
        self.seen.lock().unwrap().garps
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let gone = self.orders.send(Order::End).is_err();
        let thread = self.thread.take().unwrap();
        assert!(thread.join().is_ok() || std::thread::panicking() || gone);
    }
}

fn live(inbox: &Receiver<Order>, shared: &Mutex<Seen>) {
    let netlink = Rc::new(RefCell::new(Netlink::open().unwrap()));
    let mut router: Option<VirtualRouter> = None;
    let mut events = LinkEvents::open().unwrap();
    let arp = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0x0608))).unwrap();
    arp.set_nonblocking(true).unwrap();
    let mut last_look = now();
    let birth = now() - Duration::from_secs(1000);
    let mut stamp = None;
    loop {
        while let Ok(order) = inbox.try_recv() {
            match order {
                Order::Run(program, arguments, reply) => {
                    run(program, &arguments);
                    reply.send(()).unwrap();
                }
                Order::Spawn(program, arguments, reply) => {
                    let child = Command::new(program)
                        .args(arguments)
                        .stdin(Stdio::null())
                        .spawn()
                        .unwrap();
                    reply.send(child).unwrap();
                }
                Order::Open(local) => {
                    let opened = VirtualRouter::open(&[*local], Rc::clone(&netlink), now(), None);
                    router = Some(opened.unwrap());
                }
                Order::Health(health) => router.as_mut().unwrap().set_health(now(), health),
                Order::GiveUp => router.as_mut().unwrap().give_up(now()),
                Order::Resign => router.as_mut().unwrap().resign(now()),
                Order::Kill => {
                    let at = now();
                    let gone = router.take();
                    stamp = gone.and_then(|gone| gone.stamp(at, at - birth, "boot"));
                }
                Order::Resume(local) => {
                    let resume = stamp.take().map(|stamp| Resume {
                        stamp,
                        boot_id: "boot".into(),
                        boottime: now() - birth,
                    });
                    let shared = Rc::clone(&netlink);
                    let opened = VirtualRouter::open(&[*local], shared, now(), resume);
                    router = Some(opened.unwrap());
                }
                Order::Forge(count, reply) => {
                    forge(count);
                    reply.send(()).unwrap();
                }
                Order::End => return,
            }
        }
        turn(&mut router, &mut events);
        let mut seen = shared.lock().unwrap();
        look(&mut seen, &mut router, &arp);
        if now() - last_look > Duration::from_millis(20) {
            last_look = now();
            let facts = host_facts().unwrap();
            let all = facts.interfaces.iter().flat_map(|link| &link.addresses);
            let ours = all.filter(|address| address.ip == IpAddr::V4(VIP));
            seen.copies = ours.count();
            seen.has_vip = seen.copies > 0;
        }
    }
}

/// Notes what the router and the wire have to tell.
fn look(seen: &mut Seen, router: &mut Option<VirtualRouter>, arp: &Socket) {
    let mut frame = [0; 64];
    while let Ok(length) = std::io::Read::read(&mut &*arp, &mut frame) {
        if length >= 42 && frame[28..32] == VIP.octets() {
            seen.garps += 1;
            seen.announced = frame[22..28].try_into().unwrap();
        }
    }
    let Some(router) = router else {
        seen.status = None;
        return;
    };
    while let Some(event) = router.pop_event() {
        seen.events.push(event);
    }
    seen.status = router.status(now()).next();
    seen.released = router.is_released();
}

/// Adverts of priority 255 and 0 that no router may obey: wrong TTL, sum, router, sender.
fn forge(count: usize) {
    let target = Ipv4Addr::new(10, 99, 0, 2);
    let socket = |source: [u8; 4], ttl| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).unwrap();
        let source = std::net::SocketAddr::from((source, 0));
        socket.bind(&source.into()).unwrap();
        socket.set_ttl_v4(ttl).unwrap();
        socket
    };
    let peer = [10, 99, 0, 3];
    let stranger = [10, 99, 0, 77];
    let kinds = [
        (socket(peer, 64), peer, 60, false),
        (socket(peer, 255), peer, 61, false),
        (socket(peer, 255), peer, 60, true),
        (socket(stranger, 255), stranger, 60, false),
    ];
    let to = std::net::SocketAddr::from((target, 0)).into();
    let mut bytes = Vec::new();
    for round in 0..count {
        for (socket, source, vrid, spoil) in &kinds {
            let advert = Advertisement {
                version: Version::V3,
                vrid: Vrid::try_from(*vrid).unwrap(),
                priority: if round % 2 == 0 { 255 } else { 0 },
                interval: AdvertInterval::from_wire_v3(4095).unwrap(),
                addresses: Addresses::V4(&[VIP.octets()]),
                auth: WireAuth::None,
            };
            advert
                .encode(IpAddr::from(*source), target.into(), &mut bytes)
                .unwrap();
            if *spoil {
                bytes[7] ^= 1;
            }
            socket.send_to(&bytes, &to).unwrap();
        }
    }
}

/// One round of a keeper's loop.
fn turn(router: &mut Option<VirtualRouter>, events: &mut LinkEvents) {
    let limit = Duration::from_millis(5);
    let Some(router) = router else {
        std::thread::sleep(limit);
        while events.read(|_| {}).unwrap() {}
        return;
    };
    let wait = router
        .deadline()
        .map_or(limit, |at| at.saturating_duration_since(now()).min(limit));
    let ready: Vec<i32> = {
        let mut fds = [
            PollFd::new(router.fds().next().unwrap(), PollFlags::POLLIN),
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
        ];
        let ms = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap();
        poll(&mut fds, PollTimeout::from(ms)).unwrap();
        fds.iter()
            .filter(|fd| fd.any().unwrap_or(false))
            .map(|fd| fd.as_fd().as_raw_fd())
            .collect()
    };
    let at = now();
    for fd in ready {
        router.on_readable(fd, at);
    }
    while events.read(|event| router.on_link(at, &event)).unwrap() {}
    if router.deadline().is_some_and(|due| due <= at) {
        router.on_deadline(at);
    }
}

/// Waits for a condition, at most so long; says how long it took.
fn within(what: &str, limit: Duration, mut is: impl FnMut() -> bool) -> Duration {
    let start = now();
    while !is() {
        assert!(now() - start < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    now() - start
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

struct Kind {
    version: Version,
    interval: Duration,
    auth: Auth,
    mode: Mode,
}

fn local(kind: &Kind, me: usize) -> Box<LocalVip> {
    let nodes: Vec<Node> = (0..2)
        .map(|place| Node {
            name: Some(format!("lb{}", place + 1)),
            address: address(place),
            priority: Priority::try_from([200, 190][place]).unwrap(),
            interface: None,
            min_ttl: 255,
            twin: None,
        })
        .collect();
    Box::new(LocalVip {
        vip: Vip {
            name: "kube".into(),
            addresses: vec![VipAddress {
                ip: VIP.into(),
                prefix: 24,
            }],
            interface: None,
            vrid: Vrid::try_from(60).unwrap(),
            version: kind.version,
            advert_interval: AdvertInterval::new(kind.version, kind.interval).unwrap(),
            advert_spacing: kind.interval,
            auth: kind.auth.clone(),
            mode: kind.mode,
            nodes,
            allow_from: Vec::new(),
            preempt: Preempt::Always,
            lease: Some(Duration::from_secs(2)),
            garp: Garp {
                repeat: 5,
                delay: Duration::from_secs(5),
                refresh: Duration::from_secs(30),
                interval: Duration::ZERO,
            },
            track: Vec::new(),
            sync_group: None,
            virtual_mac: false,
            per_server_weight: 0,
            notify: None,
        },
        me,
        interface: "eth0".into(),
        source: address(me),
    })
}

fn address(place: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, [2, 3][place]))
}

/// Two hosts on one wire.
fn pair() -> [Host; 2] {
    let [a, b] = [Host::start(), Host::start()];
    join(&a, &b);
    [a, b]
}

fn join(a: &Host, b: &Host) {
    a.run(
        "ip",
        &format!("link add eth0 type veth peer name eth0 netns {}", b.netns),
    );
    for (place, host) in [a, b].into_iter().enumerate() {
        host.run("ip", &format!("address add {}/24 dev eth0", address(place)));
        host.run("ip", "link set eth0 up");
    }
}

fn open(host: &Host, kind: &Kind, me: usize) {
    host.order(Order::Open(local(kind, me)));
    host.order(Order::Health(HEALTHY));
}

fn v3(ms: u64, mode: Mode) -> Kind {
    Kind {
        version: Version::V3,
        interval: Duration::from_millis(ms),
        auth: Auth::None,
        mode,
    }
}

fn seed() -> Kind {
    Kind {
        version: Version::V2,
        interval: Duration::from_secs(1),
        auth: Auth::Pass(Password(*b"1111\0\0\0\0")),
        mode: Mode::Unicast,
    }
}

/// The keys of one node: the first signs.
fn hmac(version: Version, ids: &[u8]) -> Kind {
    let secrets = [
        "0123456789abcdef0123456789abcdef",
        "another key, for the next season",
    ];
    let key = |id: &u8| HmacKey {
        id: *id,
        secret: Secret(secrets[usize::from(*id) - 1].into()),
    };
    let auth = Auth::Hmac(Hmac {
        keys: ids.iter().map(key).collect(),
        mode: HmacMode::Enforce,
    });
    match version {
        Version::V2 => Kind { auth, ..seed() },
        Version::V3 => Kind {
            auth,
            ..v3(100, Mode::Unicast)
        },
    }
}

/// keepalived's version, 0 if it is not there.
fn keepalived_version() -> [u32; 3] {
    let output = Command::new("keepalived").arg("--version").output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stderr);
    let text = String::from_utf8_lossy(&text);
    let number = text
        .split_once(" v")
        .and_then(|(_, rest)| rest.split_once(' '));
    let mut parts = number.map_or("", |(number, _)| number).split('.');
    [(); 3].map(|()| parts.next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn one_holder(what: &str, good: &Host, other: &Host, limit: Duration) -> Duration {
    within(what, limit, || good.has_vip() && !other.has_vip())
}

fn watches(host: &Host) {
    within("a Backup", secs(2.0), || {
        host.state() == Some(VrrpState::Backup)
    });
}

#[test]
fn two_routers_elect_one_and_the_kernel_ends_a_dead_ones_lease() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    for mode in [Mode::Unicast, Mode::Multicast] {
        let [a, b] = pair();
        let kind = v3(100, mode);
        within("links up", secs(5.0), || {
            a.seen.lock().is_ok() && b.seen.lock().is_ok()
        });
        open(&a, &kind, 0);
        open(&b, &kind, 1);
        one_holder("lb1 active", &a, &b, secs(5.0));
        within("gratuitous ARP on the wire", secs(1.0), || b.garps() >= 5);
        watches(&b);
        a.order(Order::Kill);
        let takeover = within("lb2 takes over", secs(1.5), || b.has_vip());
        assert!(takeover < secs(0.6), "{mode:?}: took {takeover:?}");
        let gone = one_holder("the kernel removes the address", &b, &a, secs(2.6));
        println!("{mode:?}: take-over after {takeover:?}, dead node's address gone {gone:?} later");
        open(&a, &kind, 0);
        one_holder("lb1 preempts", &a, &b, secs(2.0));
    }
}

#[test]
fn signed_nodes_change_their_keys_without_a_gap() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    within("links up", secs(5.0), || {
        a.seen.lock().is_ok() && b.seen.lock().is_ok()
    });
    let rejected = |host: &Host| {
        let seen = host.seen.lock().unwrap();
        let status = seen.status.as_ref();
        status.map_or_else(Vec::new, |status| status.counters.rejected.clone())
    };
    open(&a, &hmac(Version::V3, &[1]), 0);
    open(&b, &hmac(Version::V3, &[1, 2]), 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    watches(&b);
    // The Active signs with the new key: its Backup knows it already.
    a.order(Order::Kill);
    within("lb2 takes over", secs(1.5), || b.has_vip());
    open(&a, &hmac(Version::V3, &[2, 1]), 0);
    one_holder("lb1 preempts", &a, &b, secs(3.0));
    watches(&b);
    assert_eq!((rejected(&a), rejected(&b)), (vec![], vec![]));
    // A node without the new key hears nobody, and names the reason.
    open(&b, &hmac(Version::V3, &[1]), 1);
    within("another key", secs(2.0), || {
        rejected(&b)
            .iter()
            .any(|(word, count)| word == "hmac-key" && *count >= 3)
    });
    // Nor does one without any: an unknown trailer is another authentication.
    open(&b, &v3(100, Mode::Unicast), 1);
    within("no key", secs(2.0), || {
        rejected(&b)
            .iter()
            .any(|(word, count)| word == "auth-type" && *count >= 3)
    });
    within("lb1 refuses what nobody signed", secs(3.0), || {
        rejected(&a)
            .iter()
            .any(|(word, count)| word == "hmac-missing" && *count >= 3)
    });
}

#[test]
fn left_over_addresses_are_removed_at_start() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    open(&a, &v3(100, Mode::Unicast), 0);
    within("lb1 active", secs(5.0), || a.has_vip());
    for prefix in ["24", "32"] {
        b.run("ip", &format!("address add {VIP}/{prefix} dev eth0"));
    }
    within("both have it", secs(1.0), || b.has_vip());
    open(&b, &v3(100, Mode::Unicast), 1);
    one_holder("lb1 alone", &a, &b, secs(1.0));
}

#[test]
fn a_planned_leave_keeps_the_address_until_the_successor_has_it() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(1000, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(6.0));
    a.order(Order::Resign);
    within("released", secs(2.0), || a.seen.lock().unwrap().released);
    assert_eq!(b.state(), Some(VrrpState::Active));
    one_holder("lb2 alone", &b, &a, secs(0.5));
    let seen = a.seen.lock().unwrap();
    let counters = &seen.status.as_ref().unwrap().counters;
    assert!(counters.resigns_sent >= 3, "{counters:?}");
    let releasing = RouterEvent::Releasing(vec![VIP.into()]);
    let told = seen.events.iter().position(|event| *event == releasing);
    let gone = seen
        .events
        .iter()
        .rposition(|event| *event == RouterEvent::Released);
    assert!(told.unwrap() < gone.unwrap(), "{:?}", seen.events);
}

#[test]
fn a_deleted_address_is_put_back_without_an_election() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(100, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    a.run("ip", &format!("address del {VIP}/24 dev eth0"));
    within("restored", secs(1.0), || {
        let seen = a.seen.lock().unwrap();
        let status = seen.status.as_ref().unwrap();
        status.counters.restored == 1
    });
    one_holder("still lb1", &a, &b, secs(0.5));
    watches(&b);
    a.run("ip", "link set eth0 down");
    within("fault", secs(1.0), || {
        a.state() == Some(VrrpState::Initialize)
    });
    a.run("ip", "link set eth0 up");
    one_holder("lb1 preempts", &a, &b, secs(3.0));
}

#[test]
fn forged_adverts_change_nothing_and_are_counted_by_reason() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    b.run("ip", "address add 10.99.0.77/24 dev eth0");
    open(&a, &v3(100, Mode::Unicast), 0);
    within("lb1 active", secs(5.0), || a.has_vip());
    let (reply, done) = sync_channel(1);
    b.order(Order::Forge(5000, reply));
    done.recv().unwrap();
    let reasons = || -> Vec<String> {
        let seen = a.seen.lock().unwrap();
        let rejected = &seen.status.as_ref().unwrap().counters.rejected;
        rejected.iter().map(|(word, _)| word.clone()).collect()
    };
    within("each reason counted", secs(2.0), || {
        ["unknown-sender", "ttl", "vrid", "checksum"]
            .iter()
            .all(|wanted| reasons().iter().any(|word| word == wanted))
    });
    let seen = a.seen.lock().unwrap();
    let status = seen.status.as_ref().unwrap();
    assert_eq!(status.state, VrrpState::Active);
    assert_eq!(status.counters.became_active, 1);
    assert_eq!(status.counters.adverts_received, 0);
}

#[test]
fn a_node_without_its_own_address_leaves_the_virtual_one_to_the_other() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(100, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    a.run("ip", "address del 10.99.0.2/24 dev eth0");
    one_holder("lb2 takes over", &b, &a, secs(3.0));
    assert_eq!(a.state(), Some(VrrpState::Initialize));
    a.run("ip", "address add 10.99.0.2/24 dev eth0");
    one_holder("lb1 preempts", &a, &b, secs(3.0));
}

#[test]
fn a_moment_without_its_own_address_moves_nothing_and_costs_a_node_nothing() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    for promote in [0, 1] {
        let [a, b] = pair();
        for scope in ["all", "eth0"] {
            let key = format!("net.ipv4.conf.{scope}.promote_secondaries={promote}");
            a.run("sysctl", &format!("-qw {key}"));
        }
        let kind = v3(1000, Mode::Unicast);
        open(&a, &kind, 0);
        open(&b, &kind, 1);
        one_holder("lb1 active", &a, &b, secs(6.0));
        watches(&b);
        a.run("ip", "address del 10.99.0.2/24 dev eth0");
        a.run("ip", "address add 10.99.0.2/24 dev eth0");
        within("the virtual address is there", secs(1.0), || a.has_vip());
        let since = now();
        within("some intervals", secs(5.0), || now() - since > secs(3.5));
        one_holder("still lb1", &a, &b, secs(0.1));
        for (host, count) in [(&a, 1), (&b, 0)] {
            let seen = host.seen.lock().unwrap();
            let status = seen.status.as_ref().unwrap();
            assert_eq!(status.counters.became_active, count);
        }
        a.order(Order::Resign);
        one_holder("lb2 succeeds", &b, &a, secs(2.0));
        within("the take-over is timed", secs(2.0), || {
            let seen = b.seen.lock().unwrap();
            let counters = &seen.status.as_ref().unwrap().counters;
            let resigned: u64 = counters.after_resignation.counts.iter().sum();
            resigned == 1 && counters.after_silence.counts.is_empty()
        });
        // Its own address went with the virtual one if that was the primary one of the subnet.
        a.run("ip", "route get 10.99.0.3 from 10.99.0.2");
    }
}

#[test]
fn a_changed_hardware_address_is_announced_at_once() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    open(&a, &v3(100, Mode::Unicast), 0);
    open(&b, &v3(100, Mode::Unicast), 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    a.run("ip", "link set eth0 address 02:00:00:00:00:77");
    within("the new address is announced", secs(1.0), || {
        b.seen.lock().unwrap().announced == [2, 0, 0, 0, 0, 0x77]
    });
}

#[test]
fn an_interface_that_joins_and_leaves_a_bridge_is_no_link_failure() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    open(&a, &v3(100, Mode::Unicast), 0);
    open(&b, &v3(100, Mode::Unicast), 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    a.run("ip", "link add br0 type bridge");
    a.run("ip", "link set eth0 master br0");
    a.run("ip", "link set eth0 nomaster");
    let since = now();
    within("some intervals", secs(5.0), || now() - since > secs(1.0));
    let seen = a.seen.lock().unwrap();
    let counters = &seen.status.as_ref().unwrap().counters;
    assert_eq!((counters.became_active, counters.left_active), (1, 0));
}

#[test]
fn a_restarted_keeper_with_a_fresh_stamp_goes_on_as_active() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(1000, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(6.0));
    watches(&b);
    a.order(Order::Kill);
    within("killed", secs(1.0), || a.state().is_none());
    a.order(Order::Resume(local(&kind, 0)));
    let took = within("active again", secs(0.5), || {
        a.state() == Some(VrrpState::Active)
    });
    println!("active again after {took:?}");
    assert!(a.has_vip() && !b.has_vip());
    // A stamp that is too old is worth nothing: the address is given up.
    a.order(Order::Kill);
    within("lb2 takes over", secs(5.0), || b.has_vip());
    a.order(Order::Resume(local(&kind, 0)));
    within("a Backup", secs(1.0), || {
        a.state() == Some(VrrpState::Backup)
    });
    one_holder("lb2 alone", &b, &a, secs(1.0));
}

#[test]
fn an_active_whose_adverts_cannot_leave_has_nothing_to_resume() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let block = format!("xfrm policy add dst {} dir out action block", address(1));
    a.run("ip", &block);
    let kind = v3(1000, Mode::Unicast);
    open(&a, &kind, 0);
    within("lb1 active", secs(6.0), || a.has_vip());
    {
        let seen = a.seen.lock().unwrap();
        let counters = &seen.status.as_ref().unwrap().counters;
        assert_eq!((counters.adverts_sent, counters.errors > 0), (0, true));
    }
    a.order(Order::Kill);
    within("killed", secs(1.0), || a.state().is_none());
    a.order(Order::Resume(local(&kind, 0)));
    watches(&a);
    drop(b);
}

#[test]
fn a_resumed_router_removes_its_address_in_other_shapes() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(1000, Mode::Unicast);
    open(&a, &kind, 0);
    within("lb1 active", secs(6.0), || a.has_vip());
    a.order(Order::Kill);
    within("killed", secs(1.0), || a.state().is_none());
    a.run("ip", &format!("address add {VIP}/32 dev eth0"));
    let copies = |count| a.seen.lock().unwrap().copies == count;
    within("two shapes", secs(1.0), || copies(2));
    a.order(Order::Resume(local(&kind, 0)));
    within("active again", secs(0.5), || {
        a.state() == Some(VrrpState::Active)
    });
    within("one shape", secs(0.5), || copies(1));
    drop(b);
}

#[test]
fn a_router_that_gives_up_leaves_no_address_behind() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(1000, Mode::Unicast);
    let mut forever = local(&kind, 0);
    forever.vip.lease = None;
    a.order(Order::Open(forever));
    a.order(Order::Health(HEALTHY));
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(6.0));
    watches(&b);
    a.order(Order::GiveUp);
    let took = within("no address", secs(0.5), || !a.has_vip());
    println!("given up after {took:?}");
    // It said so: the other one doesn't wait for its silence.
    within("lb2 takes over", secs(0.6), || b.has_vip());
}

#[test]
fn a_node_that_cannot_serve_hands_the_address_to_one_that_can_and_to_nobody_else() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let unfit = NodeHealth {
        can_serve: false,
        ..HEALTHY
    };
    let [a, b] = pair();
    let kind = v3(1000, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(6.0));
    watches(&b);
    a.order(Order::Health(unfit));
    let took = one_holder("lb2 takes over", &b, &a, secs(0.6));
    println!("handed off after {took:?}");
    b.order(Order::Health(unfit));
    let priority = |host: &Host| {
        let seen = host.seen.lock().unwrap();
        seen.status.as_ref().map(|status| status.effective_priority)
    };
    within("lb2 goes on at priority 1", secs(2.0), || {
        priority(&b) == Some(1) && b.state() == Some(VrrpState::Active)
    });
    let begin = now();
    within("nothing moves", secs(5.0), || {
        assert!(b.has_vip() && !a.has_vip());
        now() - begin > secs(4.5)
    });
}

#[test]
fn an_interface_that_is_made_anew_is_taken_up_again() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let [a, b] = pair();
    let kind = v3(100, Mode::Unicast);
    open(&a, &kind, 0);
    open(&b, &kind, 1);
    one_holder("lb1 active", &a, &b, secs(5.0));
    a.run("ip", "link del eth0");
    let idle = |host: &Host| host.state() == Some(VrrpState::Initialize);
    within("fault", secs(1.0), || idle(&a) && idle(&b));
    join(&a, &b);
    one_holder("lb1 active again", &a, &b, secs(5.0));
    watches(&b);
}

/// keepalived in the foreground; ended when dropped.
struct Keepalived {
    child: Child,
    dir: PathBuf,
}

impl Keepalived {
    fn start(host: &Host, kind: &Kind, me: usize, priority: u8) -> Option<Self> {
        let found = Command::new("keepalived").arg("--version").output();
        if found.is_err() {
            println!("skipped: keepalived is not installed");
            return None;
        }
        let unique = format!("lbd-pair-{}-{}", std::process::id(), me);
        let dir = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&dir).unwrap();
        let version = kind.version.get();
        let auth = match &kind.auth {
            Auth::None => "",
            Auth::Pass(_) => "authentication { \n auth_type PASS \n auth_pass 1111 \n }",
            Auth::Hmac(_) => "auth_hmac {\nkey 1 0123456789abcdef0123456789abcdef\nactive_key 1\n}",
        };
        let peers = match kind.mode {
            Mode::Unicast => format!(
                "unicast_src_ip {}\nunicast_peer {{\n{}\n}}",
                address(me),
                address(1 - me)
            ),
            Mode::Multicast => String::new(),
        };
        let interval = kind.interval.as_secs_f64();
        let text = format!(
            "global_defs {{\nvrrp_version {version}\n}}\nvrrp_instance kube {{\nstate BACKUP\n\
             interface eth0\nvirtual_router_id 60\npriority {priority}\nadvert_int {interval}\n\
             {auth}\n{peers}\nvirtual_ipaddress {{\n{VIP}/24\n}}\n}}\n"
        );
        let file = dir.join("keepalived.conf");
        std::fs::write(&file, text).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        let arguments = ["-n", "-l", "-D", "-P", "-f"].map(str::to_owned);
        let mut arguments = arguments.to_vec();
        arguments.push(file.display().to_string());
        for (flag, name) in [("-p", "main.pid"), ("-r", "vrrp.pid")] {
            arguments.extend([flag.to_owned(), path(name)]);
        }
        let (reply, answer) = sync_channel(1);
        host.order(Order::Spawn("keepalived", arguments, reply));
        Some(Self {
            child: answer.recv().unwrap(),
            dir,
        })
    }

    fn terminate(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|done| done.is_none()) {
            self.terminate();
        }
        let start: Instant = now();
        while self.child.try_wait().is_ok_and(|done| done.is_none()) {
            if now() - start > secs(5.0) {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[test]
fn keepalived_and_lbd_form_a_pair_in_both_roles() {
    let _turn = ONE_AT_A_TIME.lock();
    if !is_possible() {
        return;
    }
    let v3_multicast = v3(1000, Mode::Multicast);
    let mut kinds = vec![seed(), v3(100, Mode::Unicast), v3_multicast];
    if keepalived_version() >= [2, 4, 2] {
        kinds.extend([hmac(Version::V2, &[1]), hmac(Version::V3, &[1])]);
        kinds.push(Kind {
            mode: Mode::Multicast,
            ..hmac(Version::V3, &[1, 2])
        });
    } else {
        println!("without HMAC: keepalived has it from 2.4.2 on");
    }
    for kind in kinds {
        let signed = matches!(kind.auth, Auth::Hmac(_));
        let label = format!(
            "{:?} {:?} {:?} signed: {signed}",
            kind.version, kind.interval, kind.mode
        );
        let [a, b] = pair();
        // keepalived starts alone and is Active; lbd, stronger, preempts it.
        let Some(mut keepalived) = Keepalived::start(&b, &kind, 1, 190) else {
            return;
        };
        within("keepalived active", secs(6.0), || b.has_vip());
        open(&a, &kind, 0);
        let took = one_holder("lbd preempts keepalived", &a, &b, secs(6.0));
        println!("{label}: lbd preempts keepalived after {took:?}");
        a.order(Order::Resign);
        let took = one_holder("keepalived succeeds lbd", &b, &a, secs(4.0));
        println!("{label}: keepalived succeeds lbd after {took:?}");
        // lbd comes back as a Backup of its own: weaker now.
        let mut weaker = local(&kind, 0);
        weaker.vip.nodes[0].priority = Priority::try_from(150).unwrap();
        a.order(Order::Open(weaker));
        a.order(Order::Health(HEALTHY));
        let calm = now();
        within("lbd hears keepalived", secs(6.0), || {
            assert!(!a.has_vip(), "{label}: two holders");
            let seen = a.seen.lock().unwrap();
            let heard = seen
                .status
                .as_ref()
                .map(|status| status.counters.adverts_received);
            heard >= Some(3) && now() - calm > secs(2.0)
        });
        keepalived.terminate();
        let took = one_holder("lbd succeeds keepalived", &a, &b, secs(5.0));
        println!("{label}: lbd succeeds keepalived after {took:?}");
        drop(keepalived);
        let stronger = Keepalived::start(&b, &kind, 1, 190);
        let took = one_holder("keepalived preempts lbd", &b, &a, secs(6.0));
        println!("{label}: keepalived preempts lbd after {took:?}");
        drop(stronger);
        let seen = a.seen.lock().unwrap();
        let rejected = &seen.status.as_ref().unwrap().counters.rejected;
        assert!(rejected.is_empty(), "{label}: {rejected:?}");
    }
}
